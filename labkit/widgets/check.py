"""The report of a check: what was checked, what was expected beside what was found, and what repairs it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from labkit.diagnosis.findings import Finding
from labkit.showing import RIGHT, WRONG, Code, left_aligned, table
from labkit.steps.row import Row

MIME = "application/vnd.labkit.check+json"


@dataclass(frozen=True, repr=False)
class Check:
    """What the check of a step found. It is true where nothing is wrong; notebooks show it as a table and a button."""

    step: str
    title: str
    rows: Sequence[Row]
    findings: Sequence[Finding]
    again: Callable[[], "Check"] | None = field(default=None, compare=False)
    """Reads the live lab once more; with it, a running notebook shows a button that does."""

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be; a warning does not count."""
        return all(row.right for row in self.rows) and not any(f.severity == "error" for f in self.findings)

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        width = max((len(row.what) for row in self.rows), default=0)
        lines = [f"{RIGHT if self.ok else WRONG}: {self.title}"]
        for row in self.rows:
            if row.right:
                lines.append(f"  {RIGHT}  {row.what:{width}}  {row.found}")
            else:
                lines.append(f"  {WRONG}  {row.what:{width}}  expected  {row.expected}")
                lines.append(f"           {'':{width}}  found     {row.found}")
        for finding in self.findings:
            lines += ["", finding.as_text()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [(RIGHT if row.right else WRONG, row.what, Code(row.expected), Code(row.found)) for row in self.rows]
        findings = "".join(finding.as_html() for finding in self.findings)
        headline = f"<p><strong>{RIGHT if self.ok else WRONG}: {escape(self.title)}</strong></p>"
        return headline + table(rows, ("", "checked", "expected", "found")) + findings

    def as_json(self) -> dict[str, Any]:
        """The report as JSON, for programs that read executed notebooks."""
        rows = [{"what": r.what, "expected": r.expected, "found": r.found, "right": r.right} for r in self.rows]
        return {
            "step": self.step,
            "title": self.title,
            "ok": self.ok,
            "rows": rows,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        bundle = {"text/plain": repr(self), "text/html": left_aligned(self._repr_html_()), MIME: self.as_json()}
        if (again := self.again) is None:
            return bundle
        from labkit.widgets import live

        label = f"Check {self.title} again"
        return bundle | live.view(self._repr_html_(), lambda: again()._repr_html_(), label)
