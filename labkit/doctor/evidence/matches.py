"""The statements of policies that apply to a pod's request, and those whose condition keys only the request knows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from labkit.doctor.evidence.reading import NotRead, depends
from labkit.policy import Policy, Request, Statement
from labkit.policy.matching import depends_on

# Condition keys that a pod's own call doesn't have: no AWS service makes the call, and no IAM user.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
ABSENT = (
    "aws:calledvia",
    "aws:calledviafirst",
    "aws:calledvialast",
    "aws:principalservicename",
    "aws:principalservicenameslist",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:sourceorgid",
    "aws:sourceorgpaths",
    "aws:username",
)


@dataclass
class Matches:
    """The statements of one effect that apply to a request, and those that may apply, with the unknown keys."""

    applying: list[tuple[Policy, Statement]] = field(default_factory=list)
    open: list[tuple[Policy, Statement]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def unknown(self, request: Request) -> NotRead:
        """Return an error that names the unknown keys and the first statement that depends on them."""
        (policy, statement), *_ = self.open
        verb = "allows" if statement.allow else "denies"
        why = f"{statement} of {policy.name} {verb} {request.action} for some values, and only the pod's call has one"
        return depends(self.keys, why)


def matches(policies: Iterable[Policy], request: Request, *, allow: bool) -> Matches:
    """Return the statements of one effect that apply to the request, or that may apply."""
    matched = Matches()
    for policy in policies:
        for statement in policy.statements:
            if statement.allow is not allow or (keys := depends_on(statement, request, ABSENT)) is None:
                continue
            (matched.open if keys else matched.applying).append((policy, statement))
            matched.keys += keys
    return matched


def undecided(policies: Sequence[Policy], request: Request) -> NotRead | None:
    """Return an error if values that only the request has decide whether identity policies allow it; otherwise None.

    A role's tags are known, and the tokens of service accounts add none.
    """
    denied, allowed = (matches(policies, request, allow=allow) for allow in (False, True))
    if denied.applying or not (allowed.applying or allowed.open):
        return None
    if denied.open:
        return denied.unknown(request)
    is_open = not allowed.applying and not any(key.lower().startswith("aws:principaltag/") for key in allowed.keys)
    return allowed.unknown(request) if is_open else None
