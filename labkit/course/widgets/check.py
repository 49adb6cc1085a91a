"""The report of a check: its rows with the expected and found values, its findings, and their repairs."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from labkit.course.widgets import ISSUER_ID
from labkit.doctor import Comparison, Finding
from labkit.showing import RIGHT, WARNING, WRONG, Code, Html, left_aligned, table

CHECK_MIME = "application/vnd.labkit.check+json"
WORD = re.compile(r"[^:/\s]+|[:/\s]")


@dataclass(frozen=True, repr=False)
class Check:
    """The result of a step's check. As a bool, it's True if nothing is wrong. Notebooks show a table and a button."""

    step: str
    title: str
    rows: Sequence[Comparison]
    findings: Sequence[Finding]
    again: Callable[[], "Check"] | None = field(default=None, compare=False)
    """A function that reads the live lab again. With it, a running notebook shows a button that calls it."""
    repair: bool = field(default=False, compare=False)
    """Whether each finding shows its repair."""

    @property
    def ok(self) -> bool:
        """Whether every row is right, and no finding is an error. A warning isn't an error."""
        return all(row.right for row in self.rows) and not any(f.severity == "error" for f in self.findings)

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        width = max((len(row.what) for row in self.rows), default=0)
        marked_by = max((len(self._mark(row.right)) for row in self.rows), default=0)
        lines = [f"{self._mark(self.ok)}: {self.title}"]
        for row in self.rows:
            expected, actual = shortened(row.expected, row.found)
            head = f"  {self._mark(row.right):{marked_by}}  {row.what:{width}}  "
            if row.right:
                lines.append(f"{head}{actual}")
                continue
            lines.append(f"{head}expected  {expected}")
            lines.append(f"{'':{len(head)}}found     {actual}")
            if part := differing(expected, actual):
                lines.append(f"{'':{len(head)}}          {' ' * part[0]}{'^' * (part[1] - part[0])}")
        for finding in self.findings:
            lines += ["", finding.as_text(repair=self.repair)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [
            (self._mark(row.right), row.what, Code(expected), marked(row, expected, actual))
            for row in self.rows
            for expected, actual in [shortened(row.expected, row.found)]
        ]
        findings = "".join(finding.as_html(repair=self.repair) for finding in self.findings)
        headline = f"<p><strong>{self._mark(self.ok)}: {escape(self.title)}</strong></p>"
        return headline + table(rows, ("", "checked", "expected", "found")) + findings

    def _mark(self, right: bool) -> str:
        if right:
            return RIGHT
        # A row that differs has a finding. If none is an error, AWS would let the pod in.
        only_warned = self.findings and all(finding.severity != "error" for finding in self.findings)
        return WARNING if only_warned else WRONG

    def as_json(self) -> dict[str, object]:
        """Return the report as JSON, for programs that read executed notebooks."""
        rows = [{"what": r.what, "expected": r.expected, "found": r.found, "right": r.right} for r in self.rows]
        return {
            "step": self.step,
            "title": self.title,
            "ok": self.ok,
            "rows": rows,
            "findings": [finding.as_json() for finding in self.findings],
        }

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        bundle = {"text/plain": repr(self), "text/html": left_aligned(self._repr_html_()), CHECK_MIME: self.as_json()}
        if (again := self.again) is None:
            return bundle
        from labkit.course.widgets import live

        name, *goal = self.title.split(", ", 1)  # an exercise: exercise 00-a, GOAL
        label = f"Check {name.removeprefix('exercise ')}" if goal else f"Check {name} again"
        return bundle | live.view(self._repr_html_(), lambda: again()._repr_html_(), label)


def shortened(expected: str, actual: str) -> tuple[str, str]:
    """Return both texts, with each issuer id that they share shortened to the form 5321…D1B9.

    An issuer id has 32 hex digits. An id that only one text contains stays as it is.
    """
    shared = set(ISSUER_ID.findall(expected)) & set(ISSUER_ID.findall(actual))
    for id in shared:
        short = f"{id[:4]}…{id[-4:]}"
        expected, actual = expected.replace(id, short), actual.replace(id, short)
    return expected, actual


def differing(expected: str, actual: str) -> tuple[int, int] | None:
    """Return the start and end of the words of `actual` that differ from `expected`; None if all of it differs."""
    wanted, words = WORD.findall(expected), WORD.findall(actual)
    first = _agreeing(wanted, words)
    last = max(len(words) - _agreeing(wanted[first:][::-1], words[first:][::-1]), min(first + 1, len(words)))
    if (first, last) == (0, len(words)):
        return None
    return len("".join(words[:first])), len("".join(words[:last]))


def marked(row: Comparison, expected: str, actual: str) -> str:
    """Return `actual` as code, with its differing part underlined."""
    if row.right or not (part := differing(expected, actual)):
        return Code(actual)
    start, end = part
    before, differs, after = (escape(text) for text in (actual[:start], actual[start:end], actual[end:]))
    return Html(f"<code>{before}<u><strong>{differs}</strong></u>{after}</code>")


def _agreeing(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the number of words that both sequences share at the beginning."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
