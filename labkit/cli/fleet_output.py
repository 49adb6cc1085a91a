"""The output of a fleet: a live table in a terminal, otherwise one line for each row."""

import sys
import time
from collections import Counter, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from labkit.cli.terminal import printable, unprotected
from labkit.runs.fleet import MARKS, RUNS
from labkit.showing import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.console import RenderableType

    from labkit.runs.fleet import Fleet, RowOutcome, State

LAST = 8  # the most ended rows that the table shows
COLOURS = {"succeeded": "green", "failed": "red", "not run": "dim"}


@contextmanager
def shown(fleet: "Fleet") -> "Iterator[Callable[[RowOutcome], None]]":
    """Show the fleet while it runs. The caller passes each row's outcome to the yielded function."""
    if not sys.stdout.isatty():
        yield lambda outcome: print(line(outcome, RUNS), flush=True)
        return
    from rich.console import Console
    from rich.live import Live

    ended, counts, started = deque["RowOutcome"](maxlen=LAST), Counter[str](), time.monotonic()
    counts["succeeded"] = len(fleet.earlier())

    def tell(outcome: "RowOutcome") -> None:
        ended.append(outcome)
        counts[outcome.result.state] += 1
        if outcome.result.state == "failed":
            live.console.print(line(outcome, RUNS), style="red", markup=False, highlight=False, soft_wrap=True)

    def table() -> "RenderableType":
        return _table(fleet, [*ended], counts, time.monotonic() - started)

    console = Console(file=unprotected(sys.stdout))
    with Live(get_renderable=table, console=console, refresh_per_second=4, transient=True) as live:
        yield tell


def line(outcome: "RowOutcome", words: "Mapping[State, str]") -> str:
    """Return a line about a row that has ended. `words` has the word to print for each state."""
    result = outcome.result
    took = f"  {result.seconds:.1f} s" if result.seconds else ""
    ids = ", ".join(str(finding.get("id", "")) for finding in result.findings)
    said = "" if result.state == "succeeded" else f"  {result.reason}" + (f" ({ids})" if ids else "")
    return printable(f"{MARKS[result.state]} {outcome.row.run}  {words[result.state]}{took}{said}")


def _table(fleet: "Fleet", ended: "list[RowOutcome]", counts: "Counter[str]", seconds: float) -> "RenderableType":
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    rows = Table(box=None, show_header=False, pad_edge=False)
    for outcome in ended:
        state = outcome.result.state
        rows.add_row(Text(RUNS[state], COLOURS[state]), Text(outcome.row.run), Text(f"{outcome.result.seconds:.1f} s"))
    for row in fleet.running:
        running = fleet.results.runs(row, fleet.id)
        rows.add_row(Text("running" if running else "next", "cyan" if running else "dim"), Text(row.run), Text(""))
    totals = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    summary = Text(f"  {sum(counts.values())} of {counted(len(fleet.rows), 'row')}  {totals}  {seconds:.0f} s")
    return Group(rows, ProgressBar(total=len(fleet.rows), completed=sum(counts.values()), width=40), summary)
