"""IAM. moto answers most calls.

The lab checks documents, loads AWS's managed policies, and gives objects ids that are the same in every lab.

What differs from AWS:

- A user's own name: users may omit it only in GetUser and in the calls on access keys.
- Delay: a change takes effect at once; on AWS it can take a few minutes.
- Quotas: the lab limits client ids, thumbprints, policy sizes, policy versions and access keys. It doesn't limit roles,
  attached policies, tags and the rest.
- Services in policies: the lab accepts every name of the right form. AWS refuses a name that no service has.
- Shared OIDC providers, such as GitHub's: AWS refuses a trust policy without a condition on the provider's own claims.
  https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_oidc_secure-by-default.html
- Usage data: no details about when a service was last accessed, and no `RoleLastUsed`.
- Sign-in: login profiles and MFA devices are stored, but no one can sign in with them.
- Root: there is no root user; the administrator takes its place.
- Advice: no Access Analyzer, no policy recommendations.

https://docs.aws.amazon.com/IAM/latest/APIReference/welcome.html
"""

import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from labkit.policy.arn import Arn
from labkit.simulator.aws import iam_validation, managed_policies, simulation
from labkit.simulator.aws.actions import requests
from labkit.simulator.aws.actions.iam import permissions
from labkit.simulator.aws.answers import Refusal, done, xml
from labkit.simulator.aws.authorization import Grant
from labkit.simulator.aws.backend import Backend, IAMBackend, bound, every, find
from labkit.simulator.aws.call import Api, AwsRequest, Call, ParsedRequest, Permission, Response
from labkit.simulator.aws.iam_validation import MADE
from labkit.simulator.aws.organizations import Organization
from labkit.simulator.aws.service import Service
from labkit.simulator.aws.sessions import Administrator, Caller, IamUser, Session
from labkit.simulator.clock import rfc3339

BOUNDARIES = ("PutUserPermissionsBoundary", "DeleteUserPermissionsBoundary")
# https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetUser.html
OF_ONESELF = {"CreateAccessKey", "DeleteAccessKey", "GetUser", "ListAccessKeys", "UpdateAccessKey"}
# The operations that may set a permissions boundary.
BOUNDED = ("CreateRole", "CreateUser", "PutRolePermissionsBoundary", *BOUNDARIES)
TAGGED = {f"{verb}{kind}": kind for verb in ("Tag", "Untag") for kind in ("Role", "User")}
PRINCIPALS_END = {"DeleteRole": ("roles", "RoleName"), "DeleteUser": ("users", "UserName")}
# The user of the learner's own keys.
ADMINISTRATOR = "administrator"
PROVIDER_WRITES = ("UpdateOpenIDConnectProviderThumbprint", "DeleteOpenIDConnectProvider")
CLIENT_IDS = ("AddClientIDToOpenIDConnectProvider", "RemoveClientIDFromOpenIDConnectProvider")
MOST_CLIENT_IDS = 100
# Codes in place of which CloudTrail shows the exception's name.
EXCEPTIONS = {
    "DeleteConflict", "EntityAlreadyExists", "InvalidInput", "LimitExceeded", "MalformedPolicyDocument",
    "NoSuchEntity",
}  # fmt: skip
# The kinds of objects that have inline policies.
KINDS = ("Group", "Role", "User")


class Iam(Service):
    """IAM."""

    api = Api(
        "iam",
        version="2010-05-08",
        namespace="https://iam.amazonaws.com/doc/2010-05-08/",
        is_checked=True,
        invalid="ValidationError",
        reserved_tag="InvalidInput",
        reworded=iam_validation.invalid_name,
    )
    stores = ("iam",)
    resource_types = {
        "groupName": "AWS::IAM::Group",
        "instanceProfileName": "AWS::IAM::InstanceProfile",
        "openIDConnectProviderArn": "AWS::IAM::OIDCProvider",
        "policyArn": "AWS::IAM::Policy",
        "policyName": "AWS::IAM::Policy",
        "roleName": "AWS::IAM::Role",
        "userName": "AWS::IAM::User",
    }
    event_region = "us-east-1"

    def permissions(self, request: ParsedRequest) -> list[Permission]:
        """Return the permissions that an operation of IAM needs."""
        return permissions(request, self.backend)

    def read(self, request: AwsRequest, caller: Caller) -> AwsRequest:
        """Return ``request`` with the call's parameters. If a user may leave out its own name, add the name."""
        read = super().read(replace(request, call=_of_oneself(request, caller)), caller)
        return replace(read, call=request.call)

    async def authorize(self, request: AwsRequest, caller: Caller) -> Grant:
        """Grant the call, with the parameters that moto needs. Raises ``Refusal``."""
        grant = await super().authorize(request, caller)
        return replace(grant, request=await self._completed(grant.request, caller))

    @classmethod
    def event_code(cls, request: AwsRequest, code: str) -> str:
        """Return the name of the exception. CloudTrail shows some in place of the code."""
        return f"{code}Exception" if code in EXCEPTIONS else code

    async def _completed(self, request: AwsRequest, caller: Caller) -> AwsRequest:
        """Check the call's names and documents. Return the call with the parameters that moto needs.

        Raises ``Refusal`` if IAM would refuse a name or a document.
        """
        if request.operation in simulation.OPERATIONS:
            return request
        if request.parsed is None:
            raise Refusal(400, "ValidationError", "The request could not be read", str(request.unread))
        iam_validation.check_names(request, caller, self.backend)
        changed = await iam_validation.checked(request, self.backend, self.parts.issuers)
        if request.operation == "UpdateRole":
            changed = self._left_out(request)
        if not changed or request.operation in OWN:
            return request
        # Read the new call, too, so that the trail shows the parameters that moto gets.
        return requests.with_parameters(requests.with_form(request, {**request.call.form, **changed}))

    async def answer(self, request: AwsRequest, caller: Caller) -> Response:
        """Answer a call that ``authorize`` has checked. The answer comes from moto or from the lab itself."""
        # All in one run, so that a call changes everything or nothing.
        return await self.backend.run(self._answer, request, caller)

    def _answer(self, request: AwsRequest, caller: Caller) -> Response:
        operation = request.operation
        if operation in simulation.OPERATIONS:
            return simulation.answer(request, self.backend, self.parts.organization)
        iam, parameters = self.backend.entered(request.account_id), request.parameters
        if operation == "GetUser" and (user := _as_user(request, caller, self.parts.organization)):
            return user
        self._bring_in(request, iam)
        if operation in PROVIDER_WRITES and (provider := Arn.find(parameters["OpenIDConnectProviderArn"])):
            self.parts.issuers.forget(f"https://{provider.issuer}")
        if operation in BOUNDED:
            _check_boundary(request, self.backend)
        if operation in OWN:
            return OWN[operation](request, iam)
        if operation == "CreateUser" and parameters["UserName"] == ADMINISTRATOR:
            raise Refusal(409, "EntityAlreadyExists", MADE[operation][-1].format(ADMINISTRATOR))
        store, parameter = PRINCIPALS_END.get(operation, ("", ""))
        deleted = find(iam, store, parameters[parameter]) if store else None
        response = self.backend.answer_in_thread(request)
        if response.status == 200:
            self._complete(request, iam, deleted, response)
        return iam_validation.reworded(response)

    def _complete(self, request: AwsRequest, iam: IAMBackend, deleted: Any, response: Response) -> None:
        """After a successful call, correct moto's state and the answer in ``response``."""
        operation = request.operation
        if deleted:
            iam_validation.orphan(deleted.arn, deleted.id)
        if operation in TAGGED:
            _fold_tag_keys(request, iam)
        if operation in MADE:
            response.body = self._renamed(request, iam, response.body)
        if operation == "CreateUser" and "PermissionsBoundary" in request.parameters:
            _set_boundary(request, iam)

    def _bring_in(self, request: AwsRequest, iam: IAMBackend) -> None:
        """Load into moto the AWS managed policies that a call names or lists."""
        parameters = request.parameters
        if request.operation == "ListPolicies" and parameters.get("Scope", "All") != "Local":
            managed_policies.load_all(iam)
        if request.operation == "GetAccountAuthorizationDetails":
            # The answer only has those policies of AWS that are attached. So unload the others.
            managed_policies.unload(iam)
        for value in parameters.values():
            if isinstance(value, str) and value.startswith(iam_validation.AWS_MANAGED):
                managed_policies.load(iam, value)

    def ensure_role(self, name: str, trust: dict[str, Any], policy_arns: list[str], account_id: str = "") -> str:
        """Return the ARN of one of the lab's own roles. If the role is missing, create it with these policies."""
        account_id = account_id or self.backend.account_id
        arn = f"arn:aws:iam::{account_id}:role/{name}"
        if self.backend.role(arn) is None:
            iam = self.backend.entered(account_id)
            made = iam.create_role(name, json.dumps(trust), "/", None, "", [], "3600")
            self._identify(iam, "CreateRole", made)
            for policy_arn in policy_arns:
                managed_policies.load(iam, policy_arn)
                iam.attach_role_policy(policy_arn, name)
        return arn

    def _left_out(self, request: AwsRequest) -> dict[str, str]:
        """Return the role's values for the parameters that an UpdateRole call omits. moto would remove these values.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateRole.html
        """
        parameters = request.parameters
        role = find(self.backend.entered(request.account_id), "roles", parameters["RoleName"])
        if role is None:
            return {}
        kept = {"Description": role.description, "MaxSessionDuration": role.max_session_duration}
        return {name: str(value) for name, value in kept.items() if value and name not in parameters}

    def _renamed(self, request: AwsRequest, iam: IAMBackend, body: bytes) -> bytes:
        store, parameter, *_ = MADE[request.operation]
        name = request.parameters[parameter]
        # Compare the id, too: one of AWS's own policies may have the same name.
        made = next((one for one in every(iam, store) if one.name == name and one.id.encode() in body), None)
        if made is None:
            return body
        given = self._identify(iam, request.operation, made)
        return body.replace(given.encode(), made.id.encode())

    def _identify(self, iam: IAMBackend, operation: str, made: Any) -> str:
        """Give a new object an id that is made from its name, and return its old id."""
        store, _, prefix, _ = MADE[operation]
        own = iam.account_id == self.backend.account_id
        name = made.name if own else f"{iam.account_id}/{made.name}"
        serial = self.parts.identifiers.serial(store, name)
        given: str = made.id
        made.id = prefix + self.parts.identifiers.base32(store, f"{name}#{serial}", 17)
        if store == "roles":
            iam.roles[made.id] = iam.roles.pop(given)
        return given


def _fold_tag_keys(request: AwsRequest, iam: IAMBackend) -> None:
    """Remove the principal's tags whose keys differ only in case from the call's keys. moto would keep both tags.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_tags.html#case-sensitivity
    """
    parameters, kind = request.parameters, TAGGED[request.operation]
    added = {tag["Key"] for tag in parameters.get("Tags", [])}
    folded = {key.lower() for key in (*added, *parameters.get("TagKeys", []))}
    holder = find(iam, f"{kind.lower()}s", parameters[f"{kind}Name"])
    if kind == "Role":
        holder.tags = [tag for tag in holder.tags if tag["Key"] in added or tag["Key"].lower() not in folded]
        return
    kept = iam.tagger.get_tag_dict_for_resource(holder.arn)
    others = [key for key in kept if key.lower() in folded and key not in added]
    iam.tagger.untag_resource_using_names(holder.arn, others)


def _trust(request: AwsRequest, iam: IAMBackend) -> Response:
    """Answer UpdateAssumeRolePolicy. moto would refuse a trust policy without a Version; IAM accepts it.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAssumeRolePolicy.html
    """
    parameters = request.parameters
    name = parameters["RoleName"]
    if (role := find(iam, "roles", name)) is None:
        raise Refusal(404, "NoSuchEntity", f"The role with name {name} cannot be found.")
    role.assume_role_policy_document = parameters["PolicyDocument"]
    return done(request)


def _inline(request: AwsRequest, iam: IAMBackend) -> Response:
    """Answer the operations on inline policies. moto would refuse a policy without a Version; IAM accepts it.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_version.html
    """
    parameters = request.parameters
    kind, name = next((kind, parameters[f"{kind}Name"]) for kind in KINDS if f"{kind}Name" in parameters)
    if (holder := find(iam, f"{kind.lower()}s", name)) is None:
        raise Refusal(404, "NoSuchEntity", f"The {kind.lower()} with name {name} cannot be found.")
    holder.put_policy(parameters["PolicyName"], parameters["PolicyDocument"])
    return done(request)


def _client_ids(request: AwsRequest, iam: IAMBackend) -> Response:
    """Add or remove a provider's audience, which moto can't do.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_AddClientIDToOpenIDConnectProvider.html
    """
    parameters = request.parameters
    arn, client_id = parameters["OpenIDConnectProviderArn"], parameters["ClientID"]
    if not 1 <= len(client_id) <= 255:
        raise Refusal(400, "ValidationError", "The client id must have 1 to 255 characters")
    provider = iam.open_id_providers.get(arn)
    if provider is None:
        raise Refusal(404, "NoSuchEntity", f"OpenIDConnect Provider not found for arn {arn}")
    others = [known for known in provider.client_id_list if known != client_id]
    if request.operation == CLIENT_IDS[0]:
        if len(others) >= MOST_CLIENT_IDS:
            quota = f"Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: {MOST_CLIENT_IDS}"
            raise Refusal(409, "LimitExceeded", quota)
        if client_id not in provider.client_id_list:
            provider.client_id_list.append(client_id)
    else:
        provider.client_id_list = others
    return done(request)


def _of_oneself(request: AwsRequest, caller: Caller) -> Call:
    call = request.call
    if not isinstance(caller, IamUser) or request.operation not in OF_ONESELF or "UserName" in call.form:
        return call
    named = {**call.form, "UserName": caller.name}
    return replace(call, query_string="", body=urlencode(named).encode())


def _as_user(request: AwsRequest, caller: Caller, organization: Organization) -> Response | None:
    """Return the answer to GetUser if the administrator asks about itself. moto has no user for the administrator.

    Return None if moto should answer. Raises ``Refusal`` if the caller is a role session and the call names no user.
    """
    name = request.parameters.get("UserName")
    if isinstance(caller, Session) and name is None:
        raise Refusal(400, "ValidationError", "Must specify userName when calling with non-User credentials")
    if not isinstance(caller, Administrator) or name not in (None, caller.name):
        return None
    made = rfc3339(organization.joined(caller.account_id))
    user = {"Path": "/", "UserName": caller.name, "UserId": caller.principal_id, "Arn": caller.arn, "CreateDate": made}
    return done(request, xml({"User": user}))


def _check_boundary(request: AwsRequest, backend: Backend) -> None:
    arn = request.parameters.get("PermissionsBoundary")
    if arn is not None and managed_policies.document(backend, arn) is None:
        raise Refusal(404, "NoSuchEntity", f"Policy {arn} does not exist or is not attachable.")


def _set_boundary(request: AwsRequest, iam: IAMBackend) -> Response:
    parameters = request.parameters
    name = parameters["UserName"]
    if (user := iam.users.get(name)) is None:
        raise Refusal(404, "NoSuchEntity", f"The user with name {name} cannot be found.")
    bound(user, parameters.get("PermissionsBoundary"))
    return done(request)


# Operations that the lab answers without moto.
OWN = {
    "UpdateAssumeRolePolicy": _trust,
    **dict.fromkeys([f"Put{kind}Policy" for kind in KINDS], _inline),
    **dict.fromkeys(CLIENT_IDS, _client_ids),
    **dict.fromkeys(BOUNDARIES, _set_boundary),
}
