"""The report of a fleet: `report.json` for programs, and `report.html` for people. The page loads no other file."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from labkit.errors import LabError
from labkit.runs.fleet.results import State, write_at_once
from labkit.runs.fleet.running import RowOutcome
from labkit.showing import counted, left_aligned

STATES: tuple[State, ...] = ("succeeded", "failed", "not run")
MARKS: dict[State, str] = {"succeeded": "✓", "failed": "✗", "not run": "·"}
RUNS: dict[State, str] = {"succeeded": "succeeded", "failed": "failed", "not run": "not run"}
DOCTOR: dict[State, str] = {"succeeded": "nothing is wrong", "failed": "findings", "not run": "could not look"}
COLUMNS = ("row", "state", "cluster", "namespace", "service account", "role", "seconds", "what was wrong")
WIDTH, HEIGHT, EDGE = 960, 160, 40


@dataclass(frozen=True)
class Report:
    """The outcomes of a fleet's rows."""

    file: str
    """The fleet file's name."""
    notebook: str
    """The notebook's name."""
    outcomes: Sequence[RowOutcome]
    """The outcomes, in the order of the rows."""
    seconds: float = 0.0
    """The duration of the fleet, in seconds."""
    stopped_by: str = ""
    """The reason why the fleet ended early; empty if it didn't."""
    words: Mapping[State, str] = field(default_factory=lambda: RUNS)
    """The word that the report shows for each state."""

    @property
    def counts(self) -> dict[State, int]:
        """The number of rows in each state."""
        counted = Counter(outcome.result.state for outcome in self.outcomes)
        return {state: counted[state] for state in STATES}

    @property
    def exit_code(self) -> int:
        """0: every row succeeded. 1: at least one row ran, but not every row succeeded. 2: no row ran."""
        if self.counts["not run"] == len(self.outcomes):
            return 2
        return 0 if self.counts["succeeded"] == len(self.outcomes) else 1

    @property
    def headline(self) -> str:
        """The number of all rows and the number of rows in each state, as text."""
        earlier = sum(outcome.is_earlier for outcome in self.outcomes)
        states = [f"{self.words[state]}: {count}" for state, count in self.counts.items() if count]
        if earlier:
            states[0] += f" ({earlier} in an earlier fleet)"
        return f"{counted(len(self.outcomes), 'row')}; {', '.join(states)}"

    def mark(self, outcome: RowOutcome) -> str:
        """Return the sign and the word for a row's state."""
        state = outcome.result.state
        return f"{MARKS[state]} {self.words[state]}{' earlier' if outcome.is_earlier else ''}"

    def as_json(self) -> dict[str, object]:
        """Return the report for other programs. Later versions of labkit only add keys."""
        return {
            "fleet": self.file,
            "notebook": self.notebook,
            "labkit": version("labkit"),
            "seconds": round(self.seconds, 2),
            "stopped_by": self.stopped_by,
            "counts": self.counts,
            "exit_code": self.exit_code,
            "rows": [_row(outcome) for outcome in self.outcomes],
        }

    def as_html(self) -> str:
        """Return the report as an HTML page."""
        style, script = _text("report.css"), _text("report.js")
        head = "".join(
            f'<th scope="col" aria-sort="none"><button type="button">{escape(column)}</button></th>'
            for column in COLUMNS
        )
        rows = "\n".join(_html_row(outcome, self.mark(outcome)) for outcome in self.outcomes)
        stopped = f"<p>The fleet ended early: {escape(self.stopped_by)}.</p>" if self.stopped_by else ""
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(self.file)}: {escape(self.headline)}</title>
<style>{style}</style>
<h1>{escape(self.file)}</h1>
<p><strong>{escape(self.headline)}</strong>, in {self.seconds:.0f} s. Notebook: {escape(self.notebook)}.</p>
{stopped}
{chart(self.outcomes)}
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
<script>{script}</script>
</html>
"""

    def write(self, out: Path, name: str = "report") -> None:
        """Write the report into the folder, as JSON and as HTML. Raises `LabError` if that fails."""
        try:
            write_at_once(out / f"{name}.json", json.dumps(self.as_json(), indent=1).encode())
            write_at_once(out / f"{name}.html", self.as_html().encode())
        except OSError as error:
            raise LabError(
                f"The report could not be written: {error.strerror}. {self.headline}.",
                where=str(out),
                next="free some disk space, and write the report again:  labkit fleet … --resume",
            ) from None

    def _repr_html_(self) -> str:
        rows = [(self.mark(each), each.row.run, each.result.reason) for each in self.outcomes]
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        return left_aligned(f"<p><strong>{escape(self.headline)}</strong></p><table>{body}</table>")

    def __repr__(self) -> str:
        rows = [f"{self.mark(each)}  {each.row.run}  {each.result.reason}".rstrip() for each in self.outcomes]
        return "\n".join([self.headline, *rows])


def chart(outcomes: Sequence[RowOutcome]) -> str:
    """Return an SVG bar chart of the durations, one bar for each row; empty if no row ran."""
    taken = [outcome.result.seconds for outcome in outcomes]
    ran = [seconds for seconds in taken if seconds]
    if not ran:
        return ""
    longest, middle, wide = max(ran), median(ran), (WIDTH - EDGE) / len(taken)

    def y(seconds: float) -> float:
        return HEIGHT - HEIGHT * seconds / longest

    bars = "".join(
        f'<rect class="{_class(outcome)}" x="{EDGE + number * wide:.2f}" y="{y(seconds):.2f}" '
        f'width="{max(wide * 0.8, 0.5):.2f}" height="{HEIGHT - y(seconds):.2f}">'
        f"<title>{escape(outcome.row.run)}: {seconds:.1f} s, {outcome.result.state}</title></rect>"
        for number, (outcome, seconds) in enumerate(zip(outcomes, taken, strict=True))
    )
    words = f"Duration of each row: {counted(len(ran), 'row')}, median {middle:.1f} s, longest {longest:.1f} s"
    return (
        f'<figure><svg viewBox="0 -12 {WIDTH} {HEIGHT + 14}" role="img" aria-label="{words}">'
        f'<text x="0" y="0">{longest:.1f} s</text><text x="0" y="{HEIGHT}">0 s</text>{bars}'
        f'<line x1="{EDGE}" x2="{WIDTH}" y1="{y(middle):.2f}" y2="{y(middle):.2f}"/></svg>'
        f"<figcaption>{words}. The line is the median.</figcaption></figure>"
    )


def _row(outcome: RowOutcome) -> dict[str, Any]:
    row, result = outcome.row, outcome.result
    return {
        "number": row.number,
        "place": row.place,
        "run": row.run,
        "parameters": row.as_json(),
        "state": result.state,
        "earlier": outcome.is_earlier,
        "started": datetime.fromtimestamp(result.started, UTC).isoformat(timespec="seconds") if result.started else "",
        "seconds": round(result.seconds, 2),
        "tries": result.tries,
        "notebook": _link(outcome),
        "error": result.error,
        "cell": result.cell,
        "findings": list(result.findings),
    }


def _html_row(outcome: RowOutcome, mark: str) -> str:
    row, result = outcome.row, outcome.result
    given, link = row.parameters, _link(outcome)
    names = (given.cluster, given.namespace, given.service_account, given.role_name)
    number = f'<a href="{escape(link)}">{row.number}</a>' if link else str(row.number)
    cells = [
        (f' data-by="{row.number}"', number),
        (f' class="{_class(outcome)}"', escape(mark)),
        *(("", escape(name)) for name in names),
        (f' data-by="{result.seconds:.3f}"', f"{result.seconds:.1f}" if result.seconds else ""),
        ("", _wrong(outcome)),
    ]
    columns = [
        f'<td data-of="{column}"{attribute}>{content}</td>'
        for column, (attribute, content) in zip(COLUMNS, cells, strict=True)
    ]
    return f"<tr>{''.join(columns)}</tr>"


def _wrong(outcome: RowOutcome) -> str:
    result = outcome.result
    if not result.error and not result.findings:
        return ""
    cell = f"<p>The cell that failed:</p><pre>{escape(result.cell)}</pre>" if result.cell else ""
    findings = "".join(_finding(finding) for finding in result.findings)
    rest = result.error.partition("\n")[2]
    more = (f"<pre>{escape(rest)}</pre>" if rest else "") + cell + findings
    reason = escape(result.reason or "findings")
    return f"<details><summary>{reason}</summary>{more}</details>" if more else reason


def _finding(finding: Mapping[str, Any]) -> str:
    repair = f"<pre>{escape(str(finding['repair']))}</pre>" if finding.get("repair") else ""
    return f"<p>{escape(str(finding.get('summary', '')))} ({escape(str(finding.get('id', '')))})</p>{repair}"


def _link(outcome: RowOutcome) -> str:
    return f"rows/{outcome.row.name}.ipynb" if outcome.result.has_notebook else ""


def _class(outcome: RowOutcome) -> str:
    return outcome.result.state.replace(" ", "-")


def _text(name: str) -> str:
    return files("labkit.runs.fleet").joinpath(name).read_text(encoding="utf-8")
