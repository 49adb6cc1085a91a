"""Match a statement with a request: does the statement apply, and which of its parts don't match?

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from labkit.policy.conditions import ConditionResult, quoted
from labkit.policy.document import Statement
from labkit.policy.principals import Match, Principal
from labkit.policy.wildcards import Values


@dataclass(frozen=True, slots=True)
class Request:
    """A request to AWS. The keys of `context` are case-insensitive.

    Keys that the principal determines, such as `aws:PrincipalArn` and `aws:username`, are added if they're missing.
    """

    principal: Principal
    action: str
    resource: str
    context: Mapping[str, object] = field(default_factory=dict)
    values: Values = field(init=False, repr=False, compare=False)
    action_name: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = {key.lower(): _texts(value) for key, value in self.context.items()}
        object.__setattr__(self, "values", {**self.principal.context, **given})
        object.__setattr__(self, "action_name", self.action.lower())


def applies(statement: Statement, request: Request, *, bounded: bool = False) -> bool | None:
    """Return whether the statement applies to the request; None if that can't be evaluated.

    `bounded`: whether the principal has a permissions boundary.
    """
    if statement.fault:
        return None
    scope = covers(statement, request)
    if scope is False or names(statement, request, bounded=bounded) is Match.NONE:
        return False
    return conditions_hold(statement, request, scope)


def covers(statement: Statement, request: Request) -> bool | None:
    """Return whether the statement covers the request's action and resource.

    None if a policy variable in NotResource has no value.
    """
    if statement.actions.match(request.action_name) is statement.not_action:
        return False
    return covers_resource(statement, request)


def covers_resource(statement: Statement, request: Request) -> bool | None:
    """Return whether the statement covers the request's resource; None if a variable in NotResource has no value."""
    if statement.resources is None:
        return True
    matched = statement.resources.match(request.resource, request.values)
    if statement.not_resource:
        return None if matched is None else not matched
    return bool(matched)


def names(statement: Statement, request: Request, *, bounded: bool = False) -> Match:
    """Return how closely the statement names the principal.

    `bounded`: whether the principal has a permissions boundary.
    """
    principals = statement.principals
    if principals is None:
        return Match.DIRECT
    if statement.not_principal:
        # AWS: a Deny with NotPrincipal always denies a principal that has a permissions boundary.
        return Match.NONE if not bounded and principals.exempts(request.principal) else Match.DIRECT
    match = principals.match(request.principal, allow=statement.allow)
    # AWS: if an Allow for everybody has a condition on aws:PrincipalArn, boundary and session policies don't limit it.
    direct = match is Match.ROLE and statement.by_principal_arn and principals.anybody
    return Match.DIRECT if direct else match


def conditions_hold(statement: Statement, request: Request, verdict: bool | None) -> bool | None:
    """Return False if a condition is false. Otherwise, return None if a condition can't be evaluated.

    If all conditions are true, return `verdict`.
    """
    values = request.values
    for condition in statement.conditions:
        holds = condition.test(values)
        if holds is False:
            return False
        if holds is None:
            verdict = None
    return verdict


def depends_on(statement: Statement, request: Request, absent: Container[str] = ()) -> list[str] | None:
    """Return the condition keys without a known value that decide whether the statement applies to the request.

    The list is empty if the statement applies. The result is None if it doesn't apply, whatever the keys' values are.

    `absent`: keys, in lower case, that the request is known not to have.
    """
    if statement.fault or not covers(statement, request) or names(statement, request) is Match.NONE:
        return None if statement.allow or not statement.fault else []
    known = [each for each in statement.conditions if (key := each.key.lower()) in request.values or key in absent]
    if any(condition.test(request.values) is not True for condition in known):
        return None
    return list(dict.fromkeys(condition.key for condition in statement.conditions if condition not in known))


def failures(statement: Statement, request: Request) -> tuple[ConditionResult, ...]:
    """Return the statement's conditions that don't hold or can't be evaluated."""
    results = (condition.result(request.values) for condition in statement.conditions)
    return tuple(result for result in results if not result.matched)


def unevaluable(statement: Statement, request: Request) -> str:
    """Return why the statement can't be evaluated."""
    problems = [statement.fault, *(result.problem for result in failures(statement, request))]
    return "; ".join(problem for problem in problems if problem) or "a policy variable in NotResource has no value"


def tell(result: ConditionResult) -> str:
    """Return a clause that says why a condition doesn't hold, or why it can't be evaluated."""
    if result.problem:
        return result.problem
    actual = quoted(result.actual).replace(" or ", ", ")
    return f"it wants {result.key} {result.operator} {quoted(result.wanted)} and the request has {actual}"


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bool):
        return ("true" if value else "false",)
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(text for item in value for text in _texts(item))
    return () if value is None else (str(value),)
