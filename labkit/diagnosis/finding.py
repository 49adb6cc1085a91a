"""A finding: one thing that is wrong. `found` asks the causes in `labkit.diagnosis.findings` for theirs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from typing import Literal

from labkit.diagnosis.evidence import Evidence, NotRead
from labkit.showing import WARNING, WRONG, Code, Name, table

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

    def as_text(self) -> str:
        """The finding as lines of text."""
        repair = self.repair.replace("\n", "\n            ")
        return (
            f"{self._mark}: {self.id}\n  {self.summary}\n"
            f"  expected  {self.expected}\n  found     {self.found}\n"
            f"  seen in   {self.source}\n  repair    {repair}\n  learn     {self.learn}"
        )

    def as_html(self) -> str:
        """The finding as a block of HTML."""
        rows = [
            (Name("expected"), Code(self.expected)),
            (Name("found"), Code(self.found)),
            (Name("seen in"), self.source),
            (Name("learn"), self.learn),
        ]
        return (
            f"<p><strong>{self._mark}: {escape(self.id)}</strong><br>{escape(self.summary)}</p>"
            f"{table(rows)}<pre>{escape(self.repair)}</pre>"
        )

    @property
    def _mark(self) -> str:
        return WARNING if self.severity == "warning" else WRONG


Cause = Callable[[Evidence], Finding | None]


def found(causes: Iterable[Cause], evidence: Evidence, unread: list[NotRead] | None = None) -> list[Finding]:
    """What these causes find, in their order.

    Where a cause needs what cannot be read, it finds nothing: with `unread`, what it was goes there.
    Raises `NotRead` without.
    """
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


def is_told(evidence: Evidence, *causes: Cause) -> bool:
    """Whether one of these causes explains it already; what cannot be read explains nothing."""
    for cause in causes:
        try:
            if cause(evidence) is not None:
                return True
        except NotRead:
            continue
    return False
