"""What can be wrong: one pure function a cause, from the evidence to a finding or nothing.

A module a family: `provider`, `role`, `trust_policy` (with `trust_writes`, `trust_statement` and
`trust_conditions`), `service_account`, `pod`, `webhook`, `token`, `caller`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from labkit.diagnosis.evidence import Evidence, NotRead

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, what shows it, and what repairs it."""

    id: str
    """A stable name, such as `trust-policy-sub-mismatch`."""
    summary: str
    """One sentence of what is wrong."""
    expected: str
    found: str
    source: str
    """The API call that shows it."""
    repair: str
    """Shell lines that put it right, after `eval "$(labkit env)"`."""
    learn: str
    """The notebook that teaches it."""
    severity: Severity = "error"


Cause = Callable[["Evidence"], Finding | None]


def found(causes: Iterable[Cause], evidence: "Evidence", unread: "list[NotRead] | None" = None) -> list[Finding]:
    """What these causes find, in their order.

    Where a cause needs what cannot be read, it finds nothing: with `unread`, what it was goes there.
    Raises `NotRead` without.
    """
    from labkit.diagnosis.evidence import NotRead

    findings = []
    for cause in causes:
        try:
            if finding := cause(evidence):
                findings.append(finding)
        except NotRead as error:
            if unread is None:
                raise
            unread.append(error)
    return findings


def is_told(evidence: "Evidence", *causes: Cause) -> bool:
    """Whether one of these causes explains it already; what cannot be read explains nothing."""
    from labkit.diagnosis.evidence import NotRead

    for cause in causes:
        try:
            if cause(evidence) is not None:
                return True
        except NotRead:
            continue
    return False
