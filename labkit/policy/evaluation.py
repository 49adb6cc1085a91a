"""Evaluate the policies that apply to a request: do they allow it?

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-denyallow.html
https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_scps_evaluation.html
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from labkit.policy.decision import Decision, Outcome
from labkit.policy.document import Policy, Statement
from labkit.policy.matching import Request, applies, conditions_hold, covers, names, unevaluable
from labkit.policy.principals import Match
from labkit.policy.validation import ORGANIZATION

__all__ = ["NO_CONTROL", "Control", "Decision", "Request", "evaluate", "matching", "verdict", "within"]

Levels = Sequence[Sequence[Policy]]


@dataclass(frozen=True, slots=True)
class Control:
    """An organization's policies that apply to a request, by level.

    A level is the organization's root, an OU on the path to an account, or the account itself. Every level must allow
    the request, and no policy may deny it. Without levels, the organization sets no limit.
    """

    resource: Levels = field(default=(), repr=False)
    """The resource control policies of each level on the path to the resource's account."""
    service: Levels = field(default=(), repr=False)
    """The service control policies of each level on the path to the caller's account."""


NO_CONTROL = Control()


def evaluate(
    request: Request,
    *,
    identity: Sequence[Policy],
    boundary: Policy | None = None,
    session: Sequence[Policy] = (),
    resource: Sequence[Policy] = (),
    same_account: bool = True,
    control: Control = NO_CONTROL,
) -> Decision:
    """Decide whether a user, a role session or a service may make a request.

    Args:
        identity: the policies of the caller's user or role.
        boundary: the permissions boundary of the caller's user or role.
        session: the session policies; empty if the session has none.
        resource: the resource's policies; for `sts:AssumeRole`, the role's trust policy.
        same_account: whether the resource is in the caller's account. If not, both accounts must allow the request.
        control: the organization's policies.
    """
    bounded = boundary is not None
    controls = _controls(control, request) if control is not NO_CONTROL else []
    by_identity = _survey("identity", identity, request, bounded)
    by_resource = _survey("resource", resource, request, bounded)
    by_boundary = _survey("boundary", (boundary,) if boundary else (), request, bounded)
    by_session = _survey("session", session, request, bounded)
    for survey in (*controls, by_identity, by_resource, by_boundary, by_session):
        if survey.denied:
            return _explicit_deny(survey.kind, *survey.denied, request, bounded)
    for survey in controls:
        if not survey.allowed:
            return _implicit_deny(survey.kind, [*survey.policies], request)
    granted = by_resource.level if same_account else Match.NONE
    granting = by_resource if granted >= Match.ROLE else by_identity
    needed = [granting]
    both = not same_account or any(policy.kind == "trust" for policy in resource)
    if both:
        needed.append(by_resource)
    if granted < Match.DIRECT:
        needed += [by_boundary] if bounded else []
        needed += [by_session] if session else []
    for survey in needed:
        if not survey.allowed:
            # In the same account, an Allow of the resource's policies would have been enough, too.
            silent = [*survey.policies, *(resource if survey is by_identity and not both else ())]
            return _implicit_deny(survey.kind, silent, request)
    policy, statement = cast("tuple[Policy, Statement]", granting.allowed)
    reason = f'{statement} of "{policy.name}" allows {request.action} on {request.resource}'
    return Decision(request, "allowed", None, policy, statement, main_reason=reason)


def within(control: Control, request: Request) -> Decision:
    """Decide whether the organization's policies allow a request. No other policies are evaluated."""
    controls = _controls(control, request)
    for survey in controls:
        if survey.denied:
            return _explicit_deny(survey.kind, *survey.denied, request, False)
    outside = next((survey for survey in controls if not survey.allowed), None)
    if outside:
        return _implicit_deny(outside.kind, [*outside.policies], request)
    return Decision(request, "allowed", main_reason=f"the organization's policies let {request.action} through")


def verdict(policies: Iterable[Policy], request: Request, *, bounded: bool = False) -> Outcome:
    """Return the outcome that the request would have if no policies existed except `policies`.

    All `policies` are of one type, such as identity policies.

    `bounded`: whether the principal has a permissions boundary.
    """
    survey = _survey("identity", policies, request, bounded)
    return "explicitDeny" if survey.denied else "allowed" if survey.allowed else "implicitDeny"


def matching(
    policies: Iterable[Policy], request: Request, *, allow: bool, bounded: bool = False
) -> list[tuple[Policy, Statement]]:
    """Return the statements that apply to the request, with their policies.

    With `allow`, these are Allow statements. Without it, they're Deny statements, including those that can't be
    evaluated. `bounded`: whether the principal has a permissions boundary.
    """
    return [
        (policy, statement)
        for policy in policies
        for statement in policy.statements
        if statement.allow is allow
        and applies(statement, request, bounded=bounded) in ((True,) if allow else (True, None))
    ]


@dataclass(slots=True)
class _Survey:
    """The policies of one type, such as `identity`, and their result for one request."""

    kind: str
    policies: Iterable[Policy]
    allowed: tuple[Policy, Statement] | None = None
    level: Match = Match.NONE  # how closely `allowed` names the principal
    denied: tuple[Policy, Statement] | None = None


def _controls(control: Control, request: Request) -> list[_Survey]:
    """Return a result for each level of the organization's policies, in AWS's order."""
    return [
        *(_survey("resource control", policies, request, False) for policies in control.resource),
        *(_survey("service control", policies, request, False) for policies in control.service),
    ]


def _survey(kind: str, policies: Iterable[Policy], request: Request, bounded: bool) -> _Survey:
    survey = _Survey(kind, policies)
    for policy in policies:
        if policy.kind == "trust":
            survey.kind = "trust"
        for statement in policy.statements:
            # The same as `applies`, but with the level of the match.
            holds, level = None, Match.NONE
            if not statement.fault:
                scope = covers(statement, request)
                if scope is False:
                    continue
                level = names(statement, request, bounded=bounded)
                if level is Match.NONE:
                    continue
                holds = conditions_hold(statement, request, scope)
            if not statement.allow:
                if holds is not False:
                    survey.denied = (policy, statement)
                    return survey
            elif holds and level > survey.level:
                survey.level, survey.allowed = level, (policy, statement)
    return survey


def _explicit_deny(kind: str, policy: Policy, statement: Statement, request: Request, bounded: bool) -> Decision:
    # People in the account can't read the organization's policies, so name the kind, too.
    which = f'the {kind} policy "{policy.name}"' if policy.kind in ORGANIZATION else f'"{policy.name}"'
    reason = f"an explicit Deny, {statement} of {which}, refuses {request.action} on {request.resource}"
    if applies(statement, request, bounded=bounded) is None:
        problem = unevaluable(statement, request)
        reason = f"{statement} of {which} cannot be evaluated, so it counts as an explicit Deny: {problem}"
    return Decision(request, "explicitDeny", _EXPLICIT[kind], policy, statement, main_reason=reason)


def _implicit_deny(kind: str, silent: Sequence[Policy], request: Request) -> Decision:
    kind = _IMPLICIT[kind]
    return Decision(
        request,
        "implicitDeny",
        f"because no {kind} allows the {request.action} action",
        silent=silent,
        main_reason=f"no {kind} allows {request.action} on {request.resource}",
        complete=False,
    )


_IMPLICIT = {
    "identity": "identity-based policy",
    "boundary": "permissions boundary",
    "session": "session policy",
    "resource": "resource-based policy",
    "trust": "role trust policy",
    "service control": "service control policy",
    "resource control": "resource control policy",
}
_EXPLICIT = {
    "identity": "with an explicit deny in an identity-based policy",
    "boundary": "with an explicit deny in a permissions boundary",
    "session": "with an explicit deny in a session policy",
    "resource": "with an explicit deny in a resource-based policy",
    "trust": "with an explicit deny in the role trust policy",
    "service control": "with an explicit deny in a service control policy",
    "resource control": "with an explicit deny in a resource control policy",
}
