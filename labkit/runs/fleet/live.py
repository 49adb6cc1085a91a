"""Run a fleet in a notebook: show its rows while they run, and return its report."""

import threading
import time
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.course import NOTEBOOKS, live
from labkit.runs.fleet import rows, running, workers
from labkit.runs.fleet.report import MARKS, RUNS, Report
from labkit.runs.fleet.running import Fleet, RowOutcome
from labkit.showing import counted
from labkit.simulator import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    import ipywidgets

EVERY = 0.5  # seconds between two updates


def run(file: Path, out: Path, *, notebook: Path | None = None, count: int = 2, resume: bool = False) -> Report:
    """Run a fleet on `count` workers, and return its report. The target of all rows is moto.

    Each row runs the notebook in the file `notebook`, by default irsa.ipynb. While the rows run, they are shown in the
    notebook that calls this function. With `resume`, rows that succeeded earlier and haven't changed since are skipped.

    Raises `NothingRan` if the fleet file or the folder can't be used, or if the workers can't start.
    """
    workers.require_extra()
    notebook = notebook or NOTEBOOKS / "irsa.ipynb"
    fleet = Fleet(
        rows.read(file, makes=running.makes(notebook)),
        notebook.resolve(),
        out.resolve(),
        resume=resume,
        home=str(Folder.find().path),
    )
    started = time.monotonic()
    with fleet.results.opened(resume=resume):
        with workers.local(count, fleet.out / "workers.log") as client, FleetProgress(fleet).shown() as progress:
            outcomes = running.run_rows(fleet, client, progress.tell)
        report = Report(file.name, notebook.name, outcomes, time.monotonic() - started, fleet.stopped_by)
        report.write(fleet.out)
    return report


class FleetProgress:
    """A notebook's display of a fleet's rows, each with its state, updated while the rows run.

    When the notebook is saved, only a text remains of this display: how many rows and clusters the fleet has, and how
    many of the rows were already done in an earlier run of the fleet.
    """

    def __init__(self, fleet: Fleet):
        self._fleet = fleet
        self._ended = {outcome.row.number: outcome for outcome in fleet.earlier()}
        self._is_over = threading.Event()
        self._drawn: list[ipywidgets.HTML] = []

    @contextmanager
    def shown(self) -> "Iterator[FleetProgress]":
        """Show the rows in the notebook, and update their states until this block ends."""
        from IPython.display import display

        display(self)
        drawing = threading.Thread(target=self._draw, daemon=True)
        drawing.start()
        try:
            yield self
        finally:
            self._is_over.set()
            drawing.join()
            self._draw_once()

    def tell(self, outcome: RowOutcome) -> None:
        """Record the outcome of a row that has ended."""
        self._ended[outcome.row.number] = outcome

    def __repr__(self) -> str:
        clusters = len({row.cluster for row in self._fleet.rows})
        again = f", {len(self._ended)} of them done" if self._ended and not self._is_over.is_set() else ""
        return f"{counted(len(self._fleet.rows), 'row')} over {counted(clusters, 'cluster')}{again}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": repr(self), **live.drawn(self._panel)}

    def _panel(self) -> "ipywidgets.Widget":
        import ipywidgets

        self._drawn.append(ipywidgets.HTML(self._html()))
        whole = ipywidgets.VBox(self._drawn[-1:])
        whole.add_class("labkit")
        return whole

    def _draw(self) -> None:
        while not self._is_over.wait(EVERY):
            self._draw_once()

    def _draw_once(self) -> None:
        for drawn in self._drawn:
            drawn.value = self._html()

    def _html(self) -> str:
        body = "".join(
            f"<tr><td>{escape(self._state(row))}</td><td>{escape(row.run)}</td></tr>" for row in self._fleet.rows
        )
        headline = f"{len(self._ended)} of {counted(len(self._fleet.rows), 'row')}"
        return live.styled(f"<p><strong>{headline}</strong></p><table>{body}</table>")

    def _state(self, row: rows.Row) -> str:
        if outcome := self._ended.get(row.number):
            state = outcome.result.state
            return f"{MARKS[state]} {RUNS[state]}{' earlier' if outcome.is_earlier else ''}"
        return "● running" if self._fleet.results.runs(row, self._fleet.id) else "○ waiting"
