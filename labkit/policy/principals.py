"""The callers of requests, and the Principal and NotPrincipal elements that name them.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_notprincipal.html
"""

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Literal

from labkit.policy.arn import Arn
from labkit.policy.validation import listed

_USER = re.compile(r"arn:[a-z0-9-]+:iam::([0-9]{12}):(root|user/.+)")
_SESSION = re.compile(r"arn:([a-z0-9-]+):sts::([0-9]{12}):assumed-role/([^/]+)/.+")
_ACCOUNT = re.compile(r"[0-9]{12}|arn:[a-z0-9-]+:iam::([0-9]{12}):root")


@dataclass(frozen=True)
class Principal:
    """The caller of a request. Make one with `Principal.aws`, `.role_session`, `.federated` or `.service`."""

    kind: Literal["root", "user", "role-session", "federated", "service", "group"]  # "group" only in simulations
    arn: str  # the ARN of the user, the session or the provider; or a service's name
    account: str | None = None
    role_arn: str | None = None  # the ARN of a session's role, with its path

    @classmethod
    def aws(cls, arn: str) -> "Principal":
        """Return the principal for the ARN of a user or of an account's root. Raises ValueError for any other ARN."""
        match = _USER.fullmatch(arn)
        if not match:
            raise ValueError(f"{arn!r} is not an ARN of a user or of an account's root")
        return cls("root" if match[2] == "root" else "user", arn, match[1])

    @classmethod
    def role_session(cls, arn: str, role_arn: str | None = None) -> "Principal":
        """Return the principal for the ARN of a role session, `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`.

        Pass `role_arn` if the role has a path, because a session's ARN doesn't show the path. Raises ValueError if
        `arn` is not the ARN of a role session.
        """
        match = _SESSION.fullmatch(arn)
        if not match:
            raise ValueError(f"{arn!r} is not an ARN of a role session")
        partition, account, role = match.groups()
        return cls("role-session", arn, account, role_arn or f"arn:{partition}:iam::{account}:role/{role}")

    @classmethod
    def federated(cls, provider_arn: str) -> "Principal":
        return cls("federated", provider_arn)

    @classmethod
    def service(cls, name: str) -> "Principal":
        return cls("service", name)

    @cached_property
    def context(self) -> dict[str, tuple[str, ...]]:
        """The condition keys that the principal determines, in lower case, with their values.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
        """
        if self.kind == "service":
            return {"aws:principalisawsservice": ("true",), "aws:principalservicename": (self.arn,)}
        if self.account is None or self.kind == "group":
            return {}
        types = {"root": "Account", "user": "User", "role-session": "AssumedRole"}
        context: dict[str, tuple[str, ...]] = {
            "aws:principalarn": (self.role_arn or self.arn,),
            "aws:principalaccount": (self.account,),
            "aws:principaltype": (types[self.kind],),
            "aws:principalisawsservice": ("false",),
            "aws:viaawsservice": ("false",),
        }
        if self.kind == "user":
            context["aws:username"] = (Arn.parse(self.arn).name,)
        return context


class Match(IntEnum):
    """How closely a statement's Principal element names the caller: its account, its role, or the caller itself.

    Each value says which other policies still have to allow the request (see `evaluation`).
    """

    NONE = 0
    ACCOUNT = 1  # the caller's account: identity-based policies still have to allow the request
    ROLE = 2  # the caller's role, or everybody: boundaries and session policies still have to allow the request
    DIRECT = 3  # the caller itself


@dataclass(frozen=True, slots=True)
class Principals:
    """A Principal or NotPrincipal element, prepared for evaluation."""

    everybody: bool
    aws: frozenset[str]
    accounts: frozenset[str]
    federated: frozenset[str]
    services: frozenset[str]

    @property
    def anybody(self) -> bool:
        """Whether the element is `*`, or has `*` under `AWS`."""
        return self.everybody or "*" in self.aws

    def match(self, principal: Principal, *, allow: bool = True) -> Match:
        if principal.kind in ("federated", "service"):
            listed = self.federated if principal.kind == "federated" else self.services
            # In an Allow, {"AWS": "*"} names no provider and no service. In a Deny, it names them, too.
            named = principal.arn in listed or self.everybody or (not allow and "*" in self.aws)
            return Match.DIRECT if named else Match.NONE
        if principal.arn in self.aws or (principal.kind == "root" and principal.account in self.accounts):
            return Match.DIRECT
        if self.anybody or principal.role_arn in self.aws:
            return Match.ROLE
        return Match.ACCOUNT if principal.account in self.accounts else Match.NONE

    def exempts(self, principal: Principal) -> bool:
        """Return whether a Deny statement with this NotPrincipal element doesn't apply to the principal.

        To exempt a user or a role, the element must also name the account of that user or role.
        """
        if principal.kind in ("federated", "service"):
            return self.match(principal) > Match.NONE
        if self.anybody:
            return True
        if principal.account not in self.accounts:
            return False
        others = any(f":{principal.account}:" in arn for arn in self.aws)
        return not others or self.match(principal) >= Match.ROLE

    def __str__(self) -> str:
        names = ["everybody (*)"] if self.everybody else []
        names += [f"account {account}" for account in sorted(self.accounts)]
        names += sorted({*self.aws, *self.federated, *self.services})
        return ", ".join(names) or "nobody"


def compile_principals(element: str | dict[str, object]) -> Principals:
    """Return a Principal or NotPrincipal element, prepared for evaluation. The element must be valid."""
    named = element if isinstance(element, dict) else {}
    aws, federated, services = (listed(named.get(kind, [])) for kind in ("AWS", "Federated", "Service"))
    accounts = [match for name in aws if (match := _ACCOUNT.fullmatch(name))]
    return Principals(
        element == "*",
        frozenset(aws).difference(match[0] for match in accounts),
        frozenset(match[1] or match[0] for match in accounts),
        frozenset(federated),
        frozenset(services),
    )
