"""IAM: moto's, with the documents validated, AWS's managed policies at hand, and ids that are the same in every lab.

https://docs.aws.amazon.com/IAM/latest/APIReference/welcome.html
"""

import json
from typing import Any
from urllib.parse import urlencode

from labkit.emulator.aws import iam_documents, managed_policies
from labkit.emulator.aws.backend import Backend
from labkit.emulator.aws.call import Call, Response
from labkit.emulator.aws.issuers import Issuers
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
AWS_MANAGED = "arn:aws:iam::aws:policy/"
PROVIDER_WRITES = ("UpdateOpenIDConnectProviderThumbprint", "DeleteOpenIDConnectProvider")


class Iam:
    """IAM's operations."""

    def __init__(self, backend: Backend, issuers: Issuers, identifiers: Identifiers):
        self._backend = backend
        self._issuers = issuers
        self._identifiers = identifiers

    async def answer(self, call: Call) -> Response:
        """moto's answer to a call of the account's IAM, once the documents in it are ones that IAM takes."""
        await iam_documents.check(call, self._backend, self._issuers)
        iam = self._backend.iam(self._backend.account_id)
        if call.operation == "ListPolicies" and call.form.get("Scope", "All") != "Local":
            await self._backend.run(managed_policies.load_all, iam)
        for value in call.form.values():
            if value.startswith(AWS_MANAGED):
                await self._backend.run(managed_policies.load, iam, value)
        if call.operation in PROVIDER_WRITES:
            url = call.form.get("OpenIDConnectProviderArn", "").partition(":oidc-provider/")[2]
            self._issuers.forget(f"https://{url}")
        if call.notes.get("form changed"):
            call.body = urlencode(call.form).encode()
        response = await self._backend.answer(call)
        if response.status == 200 and call.operation in MADE:
            response.body = self._renamed(call, iam, response.body)
        return iam_documents.reworded(response)

    def ensure_role(self, name: str, trust: dict, policy_arns: list[str]) -> str:
        """The ARN of a role of the lab's own, which is made with these managed policies where it is missing."""
        arn = f"arn:aws:iam::{self._backend.account_id}:role/{name}"
        if self._backend.role(arn) is None:
            iam = self._backend.iam(self._backend.account_id)
            made = iam.create_role(name, json.dumps(trust), "/", None, "", [], "3600")
            self._identify(iam, "CreateRole", made)
            for policy_arn in policy_arns:
                managed_policies.load(iam, policy_arn)
                iam.attach_role_policy(policy_arn, name)
        return arn

    def _renamed(self, call: Call, iam: Any, body: bytes) -> bytes:
        """Puts an id made from the name in place of the random one that moto just gave."""
        store, parameter, _ = MADE[call.operation]
        name = call.form[parameter]
        made = next((thing for thing in list(getattr(iam, store).values()) if thing.name == name), None)
        if made is None:
            return body
        given = self._identify(iam, call.operation, made)
        return body.replace(given.encode(), made.id.encode())

    def _identify(self, iam: Any, operation: str, made: Any) -> str:
        """Gives what was made its id; returns the one that moto had given."""
        store, _, prefix = MADE[operation]
        serial = self._identifiers.serial(store, made.name)
        given, made.id = made.id, prefix + self._identifiers.base32(store, f"{made.name}#{serial}", 17)
        if store == "roles":
            iam.roles[made.id] = iam.roles.pop(given)
        return given
