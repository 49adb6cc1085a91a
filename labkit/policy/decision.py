"""The decision on a request, and the statements that explain it.

If one statement decided, that statement is the explanation. Otherwise, the explanation is the Allow statements that
almost match the request.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any, Literal

from labkit.policy.conditions import ConditionResult, quoted
from labkit.policy.document import Policy, Statement
from labkit.policy.matching import Request, covers_resource, failures, names, tell, unevaluable
from labkit.policy.principals import Match
from labkit.showing import left_aligned, table

Outcome = Literal["allowed", "explicitDeny", "implicitDeny"]
SHOWN = 4


@dataclass(frozen=True, slots=True)
class Miss:
    """A part of a statement that doesn't match the request.

    `wanted` has the statement's values, and `actual` the request's values.
    """

    part: Literal["action", "resource", "principal", "condition", "statement"]
    wanted: tuple[str, ...]
    actual: tuple[str, ...]
    said: str  # the mismatch in words
    condition: ConditionResult | None = None

    def to_dict(self) -> dict[str, object]:
        fields: dict[str, Any] = {
            "part": self.part,
            "wanted": list(self.wanted),
            "found": list(self.actual),
            "said": self.said,
        }
        if self.condition:
            fields |= {"operator": self.condition.operator, "key": self.condition.key}
        return fields


@dataclass(frozen=True, slots=True)
class Near:
    """An Allow statement that nearly allows the request. `misses` are its parts that don't match the request."""

    policy: Policy
    statement: Statement
    misses: tuple[Miss, ...]

    @property
    def failed(self) -> tuple[ConditionResult, ...]:
        return tuple(miss.condition for miss in self.misses if miss.condition)

    def __str__(self) -> str:
        return f'{self.statement} of "{self.policy.name}"'


@dataclass(frozen=True, repr=False)
class Decision:
    """Whether a request is allowed, and why.

    A decision is true or false in an `if`. A terminal shows text, and a notebook a table.

    `statement` is the statement that decided, and `policy` its policy; both are None if no statement decided. `reason`
    is one sentence. `denial` is the end of AWS's own error message; None if the request is allowed. `near` has the
    Allow statements that nearly match, the nearest first.
    """

    request: Request
    outcome: Outcome
    denial: str | None = None
    policy: Policy | None = None
    statement: Statement | None = None
    silent: Sequence[Policy] = ()  # one of these policies had to allow the request, but none did
    main_reason: str = ""  # the reason, or its first part
    complete: bool = True  # whether `main_reason` is the whole reason; if not, `reason` adds the nearest statement

    @property
    def allowed(self) -> bool:
        return self.outcome == "allowed"

    def __bool__(self) -> bool:
        return self.allowed

    @cached_property
    def near(self) -> tuple[Near, ...]:
        return nearest(self.silent, self.request)

    @property
    def failed(self) -> tuple[ConditionResult, ...]:
        """The conditions of the nearest statement (`near[0]`) that don't hold; empty if no statement nearly matches."""
        return self.near[0].failed if self.near else ()

    @cached_property
    def reason(self) -> str:
        return self.main_reason if self.complete or not self.near else f"{self.main_reason}; {_tell(self.near[0])}"

    def explain(self) -> str:
        """Return the decision as text: the caller, the action, the statement that decided, and the mismatches."""
        lines = [
            f"{_MARKS[self.outcome]}: {self.request.action} on {self.request.resource}",
            f"  caller   {self.request.principal.arn}",
        ]
        if self.policy:
            lines.append(f'  by       {self.statement} of "{self.policy.name}"')
        if self.denial:
            lines.append(f"  because  {self.denial.removeprefix('because ')}")
        for near in self.near[:SHOWN]:
            lines.append(f"  near     {near}")
            for miss in near.misses:
                lines.append(f"    {_label(miss)}")
                lines.append(f"      wants  {_listed(miss.wanted)}")
                lines.append(f"      found  {_listed(miss.actual)}")
        return "\n".join(lines)

    __repr__ = __str__ = explain

    def to_dict(self) -> dict[str, object]:
        """Return the decision as a JSON object."""
        return {
            "outcome": self.outcome,
            "action": self.request.action,
            "resource": self.request.resource,
            "caller": self.request.principal.arn,
            "reason": self.reason,
            "denial": self.denial,
            "policy": self.policy.name if self.policy else None,
            "statement": (self.statement.sid or self.statement.position) if self.statement else None,
            "near": [
                {
                    "policy": near.policy.name,
                    "statement": near.statement.sid or near.statement.position,
                    "misses": [miss.to_dict() for miss in near.misses],
                }
                for near in self.near
            ],
        }

    def _repr_html_(self) -> str:
        rows = [
            (str(near), _label(miss), _listed(miss.wanted), _listed(miss.actual))
            for near in self.near[:SHOWN]
            for miss in near.misses
        ]
        return (
            f"<p><strong>{_MARKS[self.outcome]}</strong>: {escape(self.request.action)} on "
            f"<code>{escape(self.request.resource)}</code><br>{escape(self.reason)}</p>"
            + (left_aligned(table(rows, ("near", "part", "wants", "found"))) if rows else "")
        )


def nearest(policies: Iterable[Policy], request: Request) -> tuple[Near, ...]:
    """Return the Allow statements that nearly allow the request, the nearest first.

    A malformed Allow statement is always included. A statement that doesn't allow the request's action is included
    only if:

    - its principal, resource and conditions match the request, and
    - it has NotAction, or names an action of the request's AWS service.
    """
    near_statements = []
    for policy in policies:
        for statement in policy.statements:
            misses = _misses(statement, request) if statement.allow else ()
            if misses:
                near_statements.append(Near(policy, statement, misses))
    return tuple(
        sorted(near_statements, key=lambda near: (_NEAREST_FIRST.index(near.misses[0].part), len(near.misses)))
    )


def _misses(statement: Statement, request: Request) -> tuple[Miss, ...]:
    """Return the parts of an Allow statement that don't match the request, the worst mismatch first."""
    if statement.fault:
        return (_unevaluable(statement, request),)
    misses = []
    if statement.actions.match(request.action_name) is statement.not_action:
        actions = _actions_of_service(statement, request)
        if not actions:
            return ()
        but = "anything but " if statement.not_action else ""
        said = f"it allows {but}{_listed(actions)} and not {request.action}"
        misses.append(Miss("action", actions, (request.action,), said))
    if names(statement, request) is Match.NONE:
        who = (str(statement.principals),)
        said = f"it names {_listed(who)} and the caller is {request.principal.arn}"
        misses.append(Miss("principal", who, (request.principal.arn,), said))
    covered = covers_resource(statement, request)
    if not covered:
        element = "NotResource" if statement.not_resource else "Resource"
        wanted = statement.written(element)
        but = "anything but " if statement.not_resource else ""
        said = f"it is for {but}{_listed(wanted)} and the request is for {request.resource}"
        miss = Miss("resource", wanted, (request.resource,), said)
        misses.append(_unevaluable(statement, request) if covered is None else miss)
    misses += [
        Miss("condition", result.wanted, result.actual, tell(result), result) for result in failures(statement, request)
    ]
    # A statement about another action and another resource, or another caller, isn't near.
    return () if misses and misses[0].part == "action" and len(misses) > 1 else tuple(misses)


def _unevaluable(statement: Statement, request: Request) -> Miss:
    return Miss("statement", (), (), unevaluable(statement, request))


def _actions_of_service(statement: Statement, request: Request) -> tuple[str, ...]:
    service = request.action_name.partition(":")[0] + ":"
    written = statement.written("NotAction" if statement.not_action else "Action")
    return tuple(name for name in written if name.lower().startswith(service) or statement.not_action)


def _tell(near: Near) -> str:
    first = near.misses[0]
    problems = [miss.condition.problem for miss in near.misses if miss.condition and miss.condition.problem]
    if first.part == "statement" or problems:
        return f"{near} cannot be evaluated: {'; '.join(problems) or first.said}"
    lead = "is nearest, but" if first.part == "action" else "would allow the request, but"
    return f"{near} {lead} {' and '.join(miss.said for miss in near.misses)}"


def _label(miss: Miss) -> str:
    if miss.condition:
        return f"condition  {miss.condition.key} {miss.condition.operator}"
    return f"cannot be evaluated: {miss.said}" if miss.part == "statement" else miss.part


def _listed(values: Sequence[str]) -> str:
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(values[:SHOWN]) + more if values else quoted(())


_MARKS = {"allowed": "✓ allowed", "explicitDeny": "✗ denied explicitly", "implicitDeny": "✗ not allowed"}
_NEAREST_FIRST = ("condition", "statement", "resource", "principal", "action")
