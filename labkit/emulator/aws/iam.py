"""IAM: moto's, with the documents validated, AWS's managed policies at hand, and ids that are the same in every lab.

https://docs.aws.amazon.com/IAM/latest/APIReference/welcome.html
"""

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

    def _renamed(self, call: Call, iam: Any, body: bytes) -> bytes:
        """Puts an id made from the name in place of the random one that moto just gave."""
        store, parameter, prefix = MADE[call.operation]
        name, kept = call.form[parameter], getattr(iam, store)
        made = next((thing for thing in list(kept.values()) if thing.name == name), None)
        if made is None:
            return body
        serial = self._identifiers.serial(store, name)
        given, made.id = made.id, prefix + self._identifiers.base32(store, f"{name}#{serial}", 17)
        if store == "roles":
            kept[made.id] = kept.pop(given)
        return body.replace(given.encode(), made.id.encode())
