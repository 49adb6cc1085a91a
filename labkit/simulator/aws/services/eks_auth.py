"""EKS Auth exchanges a pod's token for credentials of the role in the pod's Pod Identity association.

What differs from AWS:

- Pods: the lab doesn't check whether the token's pod still runs.
- CloudTrail: AWS also records the `sts:AssumeRole` that EKS Auth itself calls. The lab records only the agent's call.
- Organizations: resource control policies are not evaluated.
- Messages: AWS doesn't publish its message for a rejected token. The lab uses a sentence of the API reference.

https://docs.aws.amazon.com/eks/latest/APIReference/API_auth_AssumeRoleForPodIdentity.html
https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html
"""

import uuid
from dataclasses import dataclass, replace
from typing import Any

from labkit.policy import evaluate_service_trust, resource_tags
from labkit.simulator.aws.actions.requests import require_emulated
from labkit.simulator.aws.answers import Refusal, resource_not_found, respond
from labkit.simulator.aws.authorization import Grant, stored_policy
from labkit.simulator.aws.backend import Role
from labkit.simulator.aws.call import (
    Api,
    AwsRequest,
    CannotDerive,
    Context,
    ParsedRequest,
    Permission,
    Response,
    as_dict,
)
from labkit.simulator.aws.clusters import ClusterFacts
from labkit.simulator.aws.pod_identity import SERVICE
from labkit.simulator.aws.service import Service
from labkit.simulator.aws.session_tags import SessionTags
from labkit.simulator.aws.sessions import Caller, Session
from labkit.simulator.aws.web_identity import Provider, parse_token, verify
from labkit.simulator.names import CLUSTER_NAME
from labkit.tokens import Claims

DURATION = 6 * 3600
LONGEST_NAME = 64  # of a session
INVALID_TOKEN = "The specified Kubernetes service account token is invalid."  # noqa: S105
EXPIRED_TOKEN = "The specified Kubernetes service account token is expired."  # noqa: S105
NOT_FOUND = "The specified resource could not be found."
UNAUTHORIZED = "Unauthorized Exception! EKS does not have permissions to assume the associated role."


@dataclass(frozen=True)
class PodClaims:
    """The pod that a token represents."""

    namespace: str
    service_account: str
    name: str
    uid: str


class EksAuth(Service):
    """EKS Auth's only operation, AssumeRoleForPodIdentity."""

    api = Api("eks-auth", is_checked=True, invalid="InvalidParameterException", is_rest=True)
    stores = ()

    def permissions(self, request: ParsedRequest) -> list[Permission]:
        """Return the Pod Identity Agent's permission. AmazonEKSWorkerNodePolicy gives a node's role this permission.

        https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoneksauth.html
        """
        name = request.parameters["clusterName"]
        if not CLUSTER_NAME.fullmatch(name):
            raise CannotDerive(f"eks-auth:{request.operation} with an invalid cluster name")
        facts = self.parts.clusters.get(request.region, name)
        resource = f"arn:aws:eks:{request.region}:{request.account_id}:cluster/{name}"
        context = resource_tags(facts.tags) if facts else {}
        return [Permission(f"eks-auth:{request.operation}", resource, context, frozenset())]

    async def authorize(self, request: AwsRequest, caller: Caller) -> Grant:
        """Grant the call with the role of the pod's association.

        Raises `Refusal`, for example if the role's trust policy doesn't admit EKS.
        """
        grant = await super().authorize(request, caller)
        request = grant.request
        facts = self._cluster(request)
        pod = await self._verified(require_emulated(request).parameters["token"], facts)
        association = facts.pod_identity.of(pod.namespace, pod.service_account)
        whose = f"{pod.namespace}/{pod.service_account}"
        if association is None:
            raise resource_not_found(NOT_FOUND, f"no association for {whose} in {facts.name}")
        tags = SessionTags() if association["disableSessionTags"] else _tags(facts, pod)
        role_arn = association["roleArn"]
        role = self.backend.role(role_arn)
        if role is None:
            raise _unauthorized(f"the role {role_arn} of the association does not exist")
        trusted = self._trusted(request, role, facts, tags)
        reason = f"the association of {whose}; {trusted}; the session ends after {DURATION} s"
        return replace(grant, role=role, tags=tags, reason=reason)

    async def respond(self, grant: Grant, caller: Caller) -> tuple[Response, Session | None]:
        """Open a session of the granted role. Return the answer with the session's credentials, and the session itself.

        Raises `Refusal` if the pod's association was deleted during the call.
        """
        request, role, tags = grant.request, grant.role, grant.tags
        assert role is not None
        facts, token = self._cluster(request), require_emulated(request).parameters["token"]
        pod = _pod(parse_token(token).claims)
        association = facts.pod_identity.of(pod.namespace, pod.service_account)
        if association is None:  # deleted while the call was answered
            raise resource_not_found(NOT_FOUND)
        identifier = str(uuid.uuid4())
        name = f"eks-{facts.name}-{pod.name}"[: LONGEST_NAME - len(identifier) - 1] + f"-{identifier}"
        session = self.parts.sessions.open(
            role, name, DURATION, context=tags.of_session(), transitive_tags=tags.transitive
        )
        credentials = session.credentials
        content = {
            "subject": {"namespace": pod.namespace, "serviceAccount": pod.service_account},
            "audience": SERVICE,
            "podIdentityAssociation": {name: association[name] for name in ("associationArn", "associationId")},
            "assumedRoleUser": {"arn": session.arn, "assumeRoleId": session.principal_id},
            "credentials": {
                "accessKeyId": credentials.access_key_id,
                "secretAccessKey": credentials.secret_access_key,
                "sessionToken": credentials.session_token,
                "expiration": credentials.expiration,
            },
        }
        return respond(content), session

    def _cluster(self, request: AwsRequest) -> ClusterFacts:
        name = require_emulated(request).parameters["clusterName"]
        facts = self.parts.clusters.get(request.region, name) if request.account_id == self.backend.account_id else None
        if facts is None:
            raise resource_not_found(f"No cluster found for name: {name}.")
        return facts

    async def _verified(self, given: str, facts: ClusterFacts) -> PodClaims:
        try:
            token = parse_token(given)
            if reason := _of_another(Claims.of(token.claims), facts):
                raise _invalid(reason)
            here = Provider([SERVICE])
            identity = await verify(
                token, find_provider=lambda _: here, issuers=self.parts.issuers, now=self.parts.clock.now()
            )
        except Refusal as refusal:
            if refusal.code == "ExpiredTokenException":
                raise Refusal(400, refusal.code, EXPIRED_TOKEN, refusal.reason) from refusal
            # The cause names the key that could not be fetched. The refusal itself speaks of a provider and of STS.
            raise _invalid(str(refusal.__cause__ or refusal.reason)) from refusal
        return _pod(identity.claims)

    def _trusted(self, request: AwsRequest, role: Role, facts: ClusterFacts, tags: SessionTags) -> str:
        """Return the trust policy's reason to let EKS assume the role with these tags."""
        trust = stored_policy(role.assume_role_policy_document, "trust", role.name)
        context: Context = {
            **self.authorization.context(request),
            "aws:SourceArn": facts.arn,
            "aws:SourceAccount": self.backend.account_id,
            **tags.of_request(),
            **resource_tags(as_dict(role.tags) or {}, "iam"),
        }
        reasons = []
        for action in ("sts:AssumeRole", *(["sts:TagSession"] if tags else [])):
            decision = evaluate_service_trust(trust, service=SERVICE, action=action, context=context)
            if not decision.allowed:
                raise _unauthorized(decision.reason)
            reasons.append(decision.reason)
        return reasons[0]


def _tags(facts: ClusterFacts, pod: PodClaims) -> SessionTags:
    """https://docs.aws.amazon.com/eks/latest/userguide/pod-id-abac.html"""
    values = {
        "eks-cluster-arn": facts.arn,
        "eks-cluster-name": facts.name,
        "kubernetes-namespace": pod.namespace,
        "kubernetes-service-account": pod.service_account,
        "kubernetes-pod-name": pod.name,
        "kubernetes-pod-uid": pod.uid,
    }
    return SessionTags(values, tuple(values))


def _of_another(claims: Claims, facts: ClusterFacts) -> str:
    if claims.issuer != facts.issuer:
        return f"the token is from {claims.issuer or 'nobody'}; the issuer of {facts.name} is {facts.issuer}"
    if SERVICE not in claims.compared:
        return f"the token is for {', '.join(claims.compared) or 'nobody'}; EKS takes only tokens for {SERVICE}"
    return ""


def _pod(claims: dict[str, Any]) -> PodClaims:
    about = claims.get("kubernetes.io")
    about = about if isinstance(about, dict) else {}
    account, pod = about.get("serviceaccount"), about.get("pod")
    if not isinstance(account, dict) or not isinstance(pod, dict):
        raise _invalid("the token is bound to no pod")
    names = (about.get("namespace"), account.get("name"), pod.get("name"), pod.get("uid"))
    if not all(isinstance(value, str) and value for value in names):
        raise _invalid("the token is bound to no pod")
    return PodClaims(*map(str, names))


def _invalid(reason: str) -> Refusal:
    return Refusal(400, "InvalidTokenException", INVALID_TOKEN, reason)


def _unauthorized(reason: str) -> Refusal:
    return Refusal(400, "AccessDeniedException", UNAUTHORIZED, reason)
