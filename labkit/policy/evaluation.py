"""Whether policies allow a request, and why.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-denyallow.html
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from labkit.policy.conditions import ConditionResult, quoted
from labkit.policy.document import Policy, Statement
from labkit.policy.principals import Match, Principal
from labkit.policy.variables import Values


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks for. The keys of `context` are case-insensitive.

    The keys that follow from the principal (`aws:PrincipalArn`, `aws:username`…) are put in where they are missing.
    """

    principal: Principal
    action: str
    resource: str
    context: Mapping[str, object] = field(default_factory=dict)
    values: Values = field(init=False, repr=False, compare=False)
    action_name: str = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        given = {key.lower(): _texts(value) for key, value in self.context.items()}
        object.__setattr__(self, "values", {**self.principal.context, **given})
        object.__setattr__(self, "action_name", self.action.lower())


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the request is allowed.

    `reason` is one sentence that tells why. `denial` is the end of AWS's own message, None where it is allowed.
    `policy` and `statement` decided it, or came nearest to allowing it; `failed` are the conditions of that statement
    that did not hold.
    """

    allowed: bool
    reason: str
    denial: str | None = None
    policy: Policy | None = None
    statement: Statement | None = None
    failed: tuple[ConditionResult, ...] = ()


def evaluate(
    request: Request,
    *,
    identity: Sequence[Policy],
    boundary: Policy | None = None,
    session: Sequence[Policy] = (),
    resource: Sequence[Policy] = (),
    same_account: bool = True,
) -> Decision:
    """Returns the decision on a request of a user, a role session or a service.

    `session` are the session policies, none where the session was made without; `resource` are the policies of the
    resource (a role's trust policy, for `sts:AssumeRole`). `same_account`: whether the resource is in the
    principal's account; if not, both accounts have to allow.
    """
    bounded = boundary is not None
    surveys = [
        _survey("identity", identity, request, bounded),
        _survey("resource", resource, request, bounded),
        _survey("boundary", (boundary,) if bounded else (), request, bounded),
        _survey("session", session, request, bounded),
    ]
    for survey in surveys:
        if survey.denied:
            return _explicit_deny(survey, request)
    by_identity, by_resource, by_boundary, by_session = surveys
    needed = []
    granted = by_resource.level if same_account else Match.NONE
    if granted < Match.ROLE:
        needed.append(by_identity)
    if not same_account or any(policy.kind == "trust" for policy in resource):
        needed.append(by_resource)
    if granted < Match.DIRECT:
        needed += [by_boundary] if bounded else []
        needed += [by_session] if session else []
    for survey in needed:
        if not survey.allowed:
            return _implicit_deny(survey, request)
    allowed = by_resource if granted >= Match.ROLE else by_identity
    policy, statement = allowed.allowed
    reason = f'{statement} of "{policy.name}" allows {request.action} on {request.resource}'
    return Decision(True, reason, None, policy, statement)


def applies(statement: Statement, request: Request, *, bounded: bool = False) -> bool | None:
    """Whether the statement is about this request; None where that cannot be evaluated."""
    if statement.fault:
        return None
    scope = covers(statement, request)
    if scope is False or names(statement, request, bounded=bounded) is Match.NONE:
        return False
    return _conditions(statement, request, scope)


def covers(statement: Statement, request: Request) -> bool | None:
    """Whether the action and the resource are among the statement's; None where a variable has no value."""
    if statement.actions.match(request.action_name) is statement.not_action:
        return False
    if statement.resources is None:
        return True
    matched = statement.resources.match(request.resource, request.values)
    if statement.not_resource:
        return None if matched is None else not matched
    return bool(matched)


def names(statement: Statement, request: Request, *, bounded: bool = False) -> Match:
    """How closely the statement names the principal."""
    principals = statement.principals
    if principals is None:
        return Match.DIRECT
    if statement.not_principal:
        # AWS: it always denies a principal that has a permissions boundary.
        return Match.NONE if not bounded and principals.exempts(request.principal) else Match.DIRECT
    return principals.match(request.principal, allow=statement.allow)


@dataclass(slots=True)
class _Survey:
    """What the policies of one type say to a request."""

    kind: str
    allowed: tuple[Policy, Statement] | None = None
    level: Match = Match.NONE
    denied: tuple[Policy, Statement] | None = None
    near: tuple[Policy, Statement] | None = None  # an Allow that only its conditions, or a fault, keep from applying


def _survey(kind: str, policies: Iterable[Policy], request: Request, bounded: bool) -> _Survey:
    survey = _Survey(kind)
    for policy in policies:
        if policy.kind == "trust":
            survey.kind = "trust"
        for statement in policy.statements:
            verdict, level = None, Match.NONE
            if not statement.fault:
                # What `applies` does, keeping what it learns on the way.
                scope = covers(statement, request)
                if scope is False:
                    continue
                level = names(statement, request, bounded=bounded)
                if level is Match.NONE:
                    continue
                verdict = _conditions(statement, request, scope)
            if not statement.allow:
                if verdict is not False:
                    survey.denied = (policy, statement)
                    return survey
            elif not verdict:
                survey.near = survey.near or (policy, statement)
            elif level > survey.level:
                survey.level, survey.allowed = level, (policy, statement)
    return survey


def _conditions(statement: Statement, request: Request, verdict: bool | None) -> bool | None:
    """The verdict, where the conditions hold."""
    values = request.values
    for condition in statement.conditions:
        holds = condition.test(values)
        if holds is False:
            return False
        if holds is None:
            verdict = None
    return verdict


def _explicit_deny(survey: _Survey, request: Request) -> Decision:
    policy, statement = survey.denied
    verdict = applies(statement, request)
    reason = f'an explicit Deny, {statement} of "{policy.name}", refuses {request.action} on {request.resource}'
    if verdict is None:
        problem = unevaluable(statement, request)
        reason = f'{statement} of "{policy.name}" cannot be evaluated, so it counts as an explicit Deny: {problem}'
    return Decision(False, reason, _EXPLICIT[survey.kind], policy, statement)


def _implicit_deny(survey: _Survey, request: Request) -> Decision:
    denial = f"because no {_IMPLICIT[survey.kind]} allows the {request.action} action"
    reason = f"no {_IMPLICIT[survey.kind]} allows {request.action} on {request.resource}"
    if survey.near is None:
        return Decision(False, reason, denial)
    policy, statement = survey.near
    failed = failures(statement, request)
    if applies(statement, request) is None:
        cause = f"cannot be evaluated: {unevaluable(statement, request)}"
    else:
        cause = f"would, but {' and '.join(tell(result) for result in failed)}"
    return Decision(False, f'{reason}; {statement} of "{policy.name}" {cause}', denial, policy, statement, failed)


def failures(statement: Statement, request: Request) -> tuple[ConditionResult, ...]:
    """Returns the statement's conditions that do not hold."""
    results = (condition.result(request.values) for condition in statement.conditions)
    return tuple(result for result in results if not result.matched)


def unevaluable(statement: Statement, request: Request) -> str:
    """Returns why the statement cannot be evaluated."""
    problems = [statement.fault, *(result.problem for result in failures(statement, request))]
    return "; ".join(problem for problem in problems if problem) or "a policy variable in NotResource has no value"


def tell(result: ConditionResult, who: str = "the request") -> str:
    """Returns a sentence on a condition that does not hold."""
    if result.problem:
        return result.problem
    found = quoted(result.found).replace(" or ", ", ")
    return f"it wants {result.key} {result.operator} {quoted(result.wanted)} and {who} has {found}"


_IMPLICIT = {
    "identity": "identity-based policy",
    "boundary": "permissions boundary",
    "session": "session policy",
    "resource": "resource-based policy",
    "trust": "role trust policy",
}
_EXPLICIT = {
    "identity": "with an explicit deny in an identity-based policy",
    "boundary": "with an explicit deny in a permissions boundary",
    "session": "with an explicit deny in a session policy",
    "resource": "with an explicit deny in a resource-based policy",
    "trust": "with an explicit deny in the role trust policy",
}


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bool):
        return ("true" if value else "false",)
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(text for item in value for text in _texts(item))
    return () if value is None else (str(value),)
