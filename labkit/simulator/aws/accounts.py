"""Other accounts of the lab's organization. Every 12-digit id is an account. Administrators assume a role to enter one.

What differs from AWS:

- Creation: the lab creates an account and its role when someone first enters the account. From then on, the
  organization lists the account.
- Who may enter an account: on AWS, only administrators of the management account. In the lab, administrators of the
  learner's own account may also enter any account, except the management account.

organizations.py lists how the organization itself differs from AWS.

https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_accounts_access-cross-account-role.html
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote_plus

from labkit.connection import ENTRANCE
from labkit.policy.arn import Arn
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import Call
from labkit.simulator.aws.iam import Iam
from labkit.simulator.aws.organizations import MANAGEMENT_ID, Organization
from labkit.simulator.aws.sessions import Administrator, Caller, Session

ADMINISTRATOR_ACCESS = "arn:aws:iam::aws:policy/AdministratorAccess"


@dataclass(frozen=True)
class Accounts:
    """Create the organization's member accounts.

    Each account has the role `OrganizationAccountAccessRole`. Administrators assume this role to enter the account.
    """

    backend: Backend
    iam: Iam
    organization: Organization

    async def open(self, caller: Caller, role_arn: str) -> None:
        """Create an account and its role when an administrator first assumes this role.

        Do nothing if ``role_arn`` isn't the role `ENTRANCE`, or if the caller may not enter the account.
        """
        account_id = Arn.parse(role_arn).account
        admitted = [each for each in (self.backend.account_id, MANAGEMENT_ID) if each != account_id]
        if account_id == MANAGEMENT_ID or caller.account_id not in admitted:
            return
        if role_arn != f"arn:aws:iam::{account_id}:role/{ENTRANCE}":
            return
        statements = [
            {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{each}:root"}, "Action": "sts:AssumeRole"}
            for each in admitted
        ]
        trust = {"Version": "2012-10-17", "Statement": statements}
        await self.backend.run(self.iam.ensure_role, ENTRANCE, trust, [ADMINISTRATOR_ACCESS], account_id)
        await self.backend.run(self.organization.enroll, account_id)


def administers(caller: Caller, call: Call, backend: Backend) -> bool:
    """Whether the caller may make a call although the lab doesn't know which permissions the call needs.

    The account's administrator may make any call. A session of `ENTRANCE` (the role by which administrators enter an
    account) may make a call under three conditions:

    - The call names no account except the session's own.
    - The role still has only its original policy.
    - The session has no session policies.

    This function doesn't check the organization's policies.
    """
    if not isinstance(caller, Session):
        return isinstance(caller, Administrator)
    role = backend.role_by_id(caller.account_id, caller.role_id)
    if role is None or role.name != ENTRANCE or role.policies or role.permissions_boundary_arn or caller.policies:
        return False
    said = unquote_plus(f"{call.raw_path}?{call.query_string} {call.body.decode('latin-1')}")
    named = set(re.findall(r"[:/](\d{12})[:/]", said))
    return list(role.managed_policies) == [ADMINISTRATOR_ACCESS] and named <= {caller.account_id}
