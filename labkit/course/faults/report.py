"""The report on a broken run: whether it's mended, and which objects are still broken or were left behind."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from labkit.course import progress as progress_of
from labkit.course.faults import CATALOGUE, breaking
from labkit.doctor import Evidence, examine
from labkit.errors import LabError
from labkit.showing import RIGHT, WRONG, Code, stable, table

if TYPE_CHECKING:
    from labkit.course.faults.breaking import MendProgress
    from labkit.workspace import Workspace

NOTHING = "nothing"
# The marks ✓ and ✗, with this report's words.
MENDED, NOT_MENDED = RIGHT.replace("right", "mended"), WRONG.replace("wrong", "not mended yet")


@dataclass(frozen=True, repr=False)
class MendReport:
    """A report on how far a run is mended. `bool(report)` is true if the run is mended.

    The report doesn't name the faults.
    """

    ok: bool
    """Whether the doctor reports no error, and no finding about the faults."""
    progress: "MendProgress"
    answers: Sequence[tuple[str, str]]
    """The AWS commands that ran in the pod, each with the last line of its answer."""

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        rows = list(self._rows())
        width = max(len(what) for what, _ in rows)
        lines = (f"  {what:{width}}  {value}".rstrip() for what, value in rows)
        # A command is too long for the column, so it gets a line of its own.
        said = (f"  $ {command}\n  {answer}" for command, answer in self._said)
        return "\n".join([self._headline, *lines, *said])

    def _repr_html_(self) -> str:
        from labkit.course.widgets import live

        rows = [(what, Code(value)) for what, value in self._rows()]
        rows += [(f"$ {command}", Code(answer)) for command, answer in self._said]
        return live.shown(f"<p><strong>{escape(self._headline)}</strong></p>{table(rows)}")

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    @property
    def _headline(self) -> str:
        return MENDED if self.ok else NOT_MENDED

    def _rows(self) -> Iterator[tuple[str, str]]:
        progress, left = self.progress, list(self.progress.left_behind)
        if self.ok:
            yield from (("changed in another way", thing) for thing in progress.otherwise)
            # Parts of a fault that are still there, although the doctor finds nothing.
            left += progress.still_broken
        else:
            yield from (("still broken", thing) for thing in (*progress.still_broken, *progress.otherwise))
        yield from (("as before", thing) for thing in progress.as_before)
        yield from (("left behind", thing) for thing in left or [NOTHING])
        if not self.answers:
            yield "in the pod", "not asked: no pod runs"

    @property
    def _said(self) -> list[tuple[str, str]]:
        return [(command, stable(answer)) for command, answer in self.answers]


def mend_report(lab: "Workspace", *, of_an_examination: bool = False) -> MendReport:
    """Return the report on a run. Raises `LabError` if the run has no fault, and as `breaking.progress` does.

    This function runs AWS commands in the pod, but mends nothing. The learner's progress file gets the result.
    """
    progress = breaking.progress(lab, of_an_examination=of_an_examination)
    if progress is None:
        raise LabError(f"Nothing is broken in {lab.run}.", where="lab.mended", next="lab.break_()")
    faults = [CATALOGUE[name] for name in progress.faults]
    needs_probe = any(fault.needs_probe for fault in faults)
    diagnosis = examine(Evidence(lab.parameters, lab.connection, probe=needs_probe))
    names = {name for fault in faults for name in (fault.finding, *fault.seen_as)}
    of_faults = any(finding.id in names for finding in diagnosis.findings)
    ok = diagnosis.ok and not of_faults
    if not of_an_examination:
        progress_of.kept("mended", "", right=ok)
    return MendReport(ok, progress, breaking.what_aws_says(lab))
