"""IAM: moto's, with the documents validated, AWS's managed policies at hand, and ids that are the same in every lab.

What AWS does and this module does not:

- Delay: a change counts at once, everywhere; on AWS it takes seconds.
- Quotas: client ids, thumbprints, policy sizes, policy versions and access keys are limited; roles, attached
  policies, tags and the rest are not.
- Usage data: no service last accessed details, no `RoleLastUsed`.
- Sign-in: login profiles and MFA devices are kept, and nobody can sign in with them.
- Root: nobody can be the root user; the administrator stands for it.
- Advice: no Access Analyzer, no policy recommendations.

https://docs.aws.amazon.com/IAM/latest/APIReference/welcome.html
"""

import json
from typing import Any
from urllib.parse import urlencode

from moto.iam.models import iam_backends

from labkit.emulator.aws import iam_documents, managed_policies, simulation
from labkit.emulator.aws.answers import done
from labkit.emulator.aws.backend import Backend
from labkit.emulator.aws.call import Call, Response
from labkit.emulator.aws.errors import Refusal
from labkit.emulator.aws.issuers import Issuers
from labkit.emulator.aws.orphans import orphan
from labkit.emulator.aws.users import BOUNDARIES, check_boundary, set_boundary
from labkit.emulator.identifiers import Identifiers

# What is made, moto's store of it, the parameter that names it and the prefix of its unique id.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids
MADE = {
    "CreateGroup": ("groups", "GroupName", "AGPA"),
    "CreateInstanceProfile": ("instance_profiles", "InstanceProfileName", "AIPA"),
    "CreatePolicy": ("managed_policies", "PolicyName", "ANPA"),
    "CreateRole": ("roles", "RoleName", "AROA"),
    "CreateUser": ("users", "UserName", "AIDA"),
}
# What may give a permissions boundary.
BOUNDED = ("CreateRole", "CreateUser", "PutRolePermissionsBoundary", *BOUNDARIES)
PRINCIPALS_END = {"DeleteRole": ("roles", "RoleName"), "DeleteUser": ("users", "UserName")}
# Whom the learner's own keys stand for.
ADMINISTRATOR = "administrator"
AWS_MANAGED = "arn:aws:iam::aws:policy/"
PROVIDER_WRITES = ("UpdateOpenIDConnectProviderThumbprint", "DeleteOpenIDConnectProvider")
CLIENT_IDS = ("AddClientIDToOpenIDConnectProvider", "RemoveClientIDFromOpenIDConnectProvider")
MOST_CLIENT_IDS = 100


class Iam:
    """IAM's operations."""

    def __init__(self, backend: Backend, issuers: Issuers, identifiers: Identifiers):
        self._backend = backend
        self._issuers = issuers
        self._identifiers = identifiers

    async def answer(self, call: Call) -> Response:
        """moto's answer to a call of the account's IAM, once the documents in it are ones that IAM takes."""
        if call.operation in simulation.OPERATIONS:
            return await self._backend.run(simulation.answer, call, self._backend)
        await iam_documents.check(call, self._backend, self._issuers)
        iam = self._backend.iam(call.account_id)
        if call.operation == "UpdateRole":
            self._keep(call, iam)
        if call.operation == "ListPolicies" and call.form.get("Scope", "All") != "Local":
            await self._backend.run(managed_policies.load_all, iam)
        for value in call.form.values():
            if value.startswith(AWS_MANAGED):
                await self._backend.run(managed_policies.load, iam, value)
        if call.operation in PROVIDER_WRITES:
            url = call.form.get("OpenIDConnectProviderArn", "").partition(":oidc-provider/")[2]
            self._issuers.forget(f"https://{url}")
        if call.operation == "UpdateAssumeRolePolicy":
            return await self._backend.run(_trust, call, iam)
        if call.operation in CLIENT_IDS:
            return await self._backend.run(self._client_ids, call, iam)
        if call.operation in BOUNDED:
            await self._backend.run(check_boundary, call, self._backend)
        if call.operation in BOUNDARIES:
            return await self._backend.run(set_boundary, call, iam)
        if call.operation == "CreateUser" and call.form.get("UserName") == ADMINISTRATOR:
            raise Refusal(409, "EntityAlreadyExists", f"User with name {ADMINISTRATOR} already exists.")
        if call.notes.get("form changed"):
            call.body = urlencode(call.form).encode()
        deleted = self._named(call, iam) if call.operation in PRINCIPALS_END else None
        response = await self._backend.answer(call)
        if response.status == 200 and deleted:
            await self._backend.run(orphan, deleted.arn, deleted.id)
        if response.status == 200 and call.operation in MADE:
            response.body = self._renamed(call, iam, response.body)
        if response.status == 200 and call.operation == "CreateUser" and "PermissionsBoundary" in call.form:
            await self._backend.run(set_boundary, call, iam)
        return iam_documents.reworded(response)

    def ensure_role(self, name: str, trust: dict, policy_arns: list[str], account_id: str = "") -> str:
        """The ARN of a role that no call makes, made with these managed policies where it is missing."""
        account_id = account_id or self._backend.account_id
        arn = f"arn:aws:iam::{account_id}:role/{name}"
        if self._backend.role(arn) is None:
            iam = iam_backends[account_id]["aws"]
            made = iam.create_role(name, json.dumps(trust), "/", None, "", [], "3600")
            self._identify(iam, "CreateRole", made)
            for policy_arn in policy_arns:
                managed_policies.load(iam, policy_arn)
                iam.attach_role_policy(policy_arn, name)
        return arn

    def _named(self, call: Call, iam: Any) -> Any:
        store, parameter = PRINCIPALS_END[call.operation]
        return _find(iam, store, call.form.get(parameter))

    def _keep(self, call: Call, iam: Any) -> None:
        """Says of a role what UpdateRole leaves out and leaves alone, which moto would take away.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateRole.html
        """
        if role := _find(iam, "roles", call.form.get("RoleName")):
            kept = {"Description": role.description, "MaxSessionDuration": role.max_session_duration}
            for name, value in kept.items():
                if value and name not in call.form:
                    call.form[name] = str(value)
                    call.notes["form changed"] = True

    def _client_ids(self, call: Call, iam: Any) -> Response:
        """Adds or takes away an audience of a provider, which moto cannot; both are done when it is done already.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_AddClientIDToOpenIDConnectProvider.html
        """
        arn, client_id = call.form.get("OpenIDConnectProviderArn", ""), call.form.get("ClientID", "")
        if not 1 <= len(client_id) <= 255:
            raise Refusal(400, "ValidationError", "The client id has 1 to 255 characters")
        provider = iam.open_id_providers.get(arn)
        if provider is None:
            raise Refusal(404, "NoSuchEntity", f"OpenIDConnect Provider not found for arn {arn}")
        others = [known for known in provider.client_id_list if known != client_id]
        if call.operation == CLIENT_IDS[0]:
            if len(others) >= MOST_CLIENT_IDS:
                quota = f"Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: {MOST_CLIENT_IDS}"
                raise Refusal(409, "LimitExceeded", quota)
            if client_id not in provider.client_id_list:
                provider.client_id_list.append(client_id)
        else:
            provider.client_id_list = others
        return done(call)

    def _renamed(self, call: Call, iam: Any, body: bytes) -> bytes:
        """Puts an id made from the name in place of the random one that moto just gave."""
        store, parameter, _ = MADE[call.operation]
        name, kept = call.form[parameter], list(getattr(iam, store).values())
        # One of AWS's own policies may have the name that was just given to another.
        made = next((thing for thing in kept if thing.name == name and thing.id.encode() in body), None)
        if made is None:
            return body
        given = self._identify(iam, call.operation, made)
        return body.replace(given.encode(), made.id.encode())

    def _identify(self, iam: Any, operation: str, made: Any) -> str:
        """Gives what was made its id; returns the one that moto had given."""
        store, _, prefix = MADE[operation]
        own = iam.account_id == self._backend.account_id
        name = made.name if own else f"{iam.account_id}/{made.name}"
        serial = self._identifiers.serial(store, name)
        given, made.id = made.id, prefix + self._identifiers.base32(store, f"{name}#{serial}", 17)
        if store == "roles":
            iam.roles[made.id] = iam.roles.pop(given)
        return given


def _find(iam: Any, store: str, name: str | None) -> Any:
    return next((one for one in list(getattr(iam, store).values()) if one.name == name), None)


def _trust(call: Call, iam: Any) -> Response:
    """Gives a role its trust policy, which was checked; moto wants a Version in it, and IAM does not.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAssumeRolePolicy.html
    """
    name = call.form.get("RoleName", "")
    role = _find(iam, "roles", name)
    if role is None:
        raise Refusal(404, "NoSuchEntity", f"The role with name {name} cannot be found.")
    role.assume_role_policy_document = call.form["PolicyDocument"]
    return done(call)
