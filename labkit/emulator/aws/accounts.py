"""Other accounts: every account number is an account of the lab's organization, which its administrator may enter.

What AWS does and this module does not:

- The Organizations API: moto's, which knows nothing of these accounts. They exist by their numbers alone.
- Service control policies and resource control policies: kept at most, never evaluated.
- Names, e-mail addresses, invitations, organizational units: none.

https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_accounts_access-cross-account-role.html
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote_plus

from labkit.connection import ENTRANCE
from labkit.emulator.aws.backend import Backend
from labkit.emulator.aws.call import Call
from labkit.emulator.aws.iam import Iam
from labkit.emulator.aws.sessions import Caller, Session
from labkit.policy.arn import Arn

ADMINISTRATOR_ACCESS = "arn:aws:iam::aws:policy/AdministratorAccess"


@dataclass(frozen=True)
class Accounts:
    """The member accounts of the organization whose management account is the lab's own."""

    backend: Backend
    iam: Iam

    async def open(self, caller: Caller, role_arn: str) -> None:
        """Makes the role that AWS Organizations makes in a member account, where the management account asks for it."""
        own, account_id = self.backend.account_id, Arn.parse(role_arn).account
        if caller.account_id != own or account_id == own or role_arn != f"arn:aws:iam::{account_id}:role/{ENTRANCE}":
            return
        statement = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{own}:root"}, "Action": "sts:AssumeRole"}
        trust = {"Version": "2012-10-17", "Statement": [statement]}
        await self.backend.run(self.iam.ensure_role, ENTRANCE, trust, [ADMINISTRATOR_ACCESS], account_id)


def administers(caller: Caller, call: Call, backend: Backend) -> bool:
    """Whether the caller is its account's administrator, who may do what the lab cannot derive, in its account alone.

    Only while the role is as Organizations made it, so that there is no policy that could refuse.
    """
    if not isinstance(caller, Session):
        return False
    role = backend.role_by_id(caller.account_id, caller.role_id)
    if role is None or role.name != ENTRANCE or role.policies or role.permissions_boundary_arn or caller.policies:
        return False
    said = unquote_plus(f"{call.raw_path}?{call.query_string} {call.body.decode('latin-1')}")
    named = set(re.findall(r"[:/](\d{12})[:/]", said))
    return list(role.managed_policies) == [ADMINISTRATOR_ACCESS] and named <= {caller.account_id}
