"""Answer TokenRequest, TokenReview, SelfSubjectReview, and reviews of permissions such as SubjectAccessReview.

The API server stores none of these objects.

https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/
https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/
"""

from labkit.simulator.kubernetes.access.authentication import Authenticator, User
from labkit.simulator.kubernetes.access.authorization import Authorizer
from labkit.simulator.kubernetes.access.rules import Attributes
from labkit.simulator.kubernetes.access.tokens import InvalidToken
from labkit.simulator.kubernetes.api import admission_plugins
from labkit.simulator.kubernetes.api.requests import KubeRequest, KubeResponse, respond
from labkit.simulator.kubernetes.objects.kinds import (
    AUTHENTICATION,
    AUTHORIZATION,
    SERVICE_ACCOUNT,
    Object,
    Subresource,
)
from labkit.simulator.kubernetes.objects.status import bad_request, invalid, invalid_value


class Reviews:
    def __init__(self, authentication: Authenticator, authorization: Authorizer):
        self.authentication, self.authorization = authentication, authorization

    async def answer(self, sub: Subresource, request: KubeRequest) -> KubeResponse:
        api_version = f"{sub.group}/v1"
        body = await request.document(sub.type, sub.kind, api_version)
        spec = body.get("spec") or {}
        match sub.kind:
            case "TokenReview":
                status = await self._token(spec)
            case "SelfSubjectReview":
                status = {"userInfo": request.user.info()}
            case "SelfSubjectRulesReview":
                status = self._rules(request.user, spec)
            case "SelfSubjectAccessReview":
                status = self._access(request.user, spec, request, sub.kind)
            case _:
                groups = tuple(spec.get("groups") or ())
                subject = User(spec.get("user", ""), groups, spec.get("uid", ""), spec.get("extra") or {})
                status = self._access(subject, spec, request, sub.kind)
        answer = {"kind": sub.kind, "apiVersion": api_version, "metadata": body.get("metadata") or {}}
        if "spec" in body:
            answer["spec"] = spec
        return respond(answer | {"status": status}, 201)

    async def request_token(self, sub: Subresource, request: KubeRequest) -> KubeResponse:
        """Return a new token for the service account in the request's path."""
        account = self.authorization.storage.get(SERVICE_ACCOUNT, request.namespace, request.name)
        document = await request.document(sub.type, sub.kind, f"{AUTHENTICATION}/v1")
        spec = document.get("spec") or {}
        admission_plugins.check_token(self.authorization, request.user, account, spec)
        return respond(self.authentication.tokens.request(account, spec, request.warnings), 201)

    async def _token(self, spec: Object) -> Object:
        if not spec.get("token"):
            raise bad_request("token is required for TokenReview in authentication")
        try:
            user, audiences = await self.authentication.bearer(spec["token"], spec.get("audiences"))
        except InvalidToken as error:
            return {"user": {}, "error": str(error)}
        return {"authenticated": True, "user": user.info(), "audiences": audiences}

    def _access(self, user: User, spec: Object, request: KubeRequest, kind: str) -> Object:
        resource, path = spec.get("resourceAttributes") or {}, spec.get("nonResourceAttributes") or {}
        causes = []
        if resource and path:
            why = "cannot be specified in combination with resourceAttributes"
            causes.append(invalid_value("spec.nonResourceAttributes", path, why))
        elif not resource and not path:
            why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            causes.append(invalid_value("spec.resourceAttributes", spec.get("resourceAttributes"), why))
        if not user.name and not user.groups:
            causes.append(invalid_value("spec.user", "", "at least one of user or group must be specified"))
        if causes:
            raise invalid(kind, AUTHORIZATION, "", causes)
        if request.namespace and resource.get("namespace") != request.namespace:
            raise bad_request(f"spec.resourceAttributes.namespace must match namespace: {request.namespace}")
        if path:
            wanted = Attributes(path.get("verb", ""), path=path.get("path", ""))
        else:
            names = ("group", "resource", "subresource", "namespace", "name")
            wanted = Attributes(resource.get("verb", ""), **{name: resource.get(name, "") for name in names})
        decision = self.authorization.authorize(user, wanted)
        return {"allowed": decision.allowed} | ({"reason": decision.reason} if decision.reason else {})

    def _rules(self, user: User, spec: Object) -> Object:
        if not spec.get("namespace"):
            raise bad_request("no namespace on request")
        rules = self.authorization.rules(user, spec["namespace"])
        why = self.authorization.unlisted(user)
        return {
            "resourceRules": [rule for rule in rules if "resources" in rule],
            "nonResourceRules": [rule for rule in rules if "nonResourceURLs" in rule],
            "incomplete": bool(why),
        } | ({"evaluationError": why} if why else {})
