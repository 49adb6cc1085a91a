"""Run a fleet on its workers: each row once. A cluster's first row runs before the cluster's other rows."""

import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, cast

from labkit.course import LIST_NOTEBOOKS
from labkit.runs.fleet import task, workers
from labkit.runs.fleet.results import Result, Results
from labkit.runs.fleet.rows import Row
from labkit.runs.fleet.table import NothingRan

if TYPE_CHECKING:
    from distributed import Client, Future, as_completed

IN_FLIGHT = 2  # rows assigned to each worker: one runs, and one waits
ASSIGNED = 5  # a row fails after so many workers were lost before they started it
INTERRUPTED = "the fleet was interrupted"
GONE = "the scheduler went away"
NO_WORKER = "no worker was left"
NO_WORKER_WITHIN = 60  # seconds; on this machine, Dask restarts a lost worker much sooner


@dataclass(frozen=True)
class RowOutcome:
    """A row and the result of its run."""

    row: Row
    result: Result
    is_earlier: bool = False
    """Whether the run succeeded in an earlier fleet, and wasn't repeated."""


@dataclass
class Fleet:
    """Run the notebook for each row of a fleet, and store the results in the folder `out`."""

    rows: Sequence[Row]
    notebook: Path
    out: Path
    time_limit: float = 0.0
    """The time limit of each run, in seconds; 0: no limit."""
    fail_fast: bool = False
    resume: bool = False
    home: str = ""
    """The folder of the lab that all workers share; empty: each worker opens its own lab."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    running: list[Row] = field(default_factory=list)
    """The rows that are assigned to the workers at present."""
    stopped_by: str = ""
    """The reason why the fleet ended early; empty if it didn't."""

    def __post_init__(self) -> None:
        self.results = Results(self.out)
        self._notebook = self.notebook.read_bytes()
        self._version = workers.labkit_version()

    def earlier(self) -> list[RowOutcome]:
        """Return the outcomes of rows that succeeded earlier and haven't changed since; empty without `resume`."""
        if not self.resume:
            return []
        kept = [(row, self.results.of(row)) for row in self.rows]
        return [
            RowOutcome(row, result, is_earlier=True)
            for row, result in kept
            if result
            and result.state == "succeeded"
            and result.fingerprint == self._fingerprint(row)
            and self.results.notebook(row).is_file()
        ]

    def run(self, client: "Client") -> Iterator[RowOutcome]:
        """Run the rows that have no outcome in `earlier()`, and yield an outcome for each.

        If the fleet ends early, also yield an outcome for each row that didn't run.
        """
        done = {outcome.row.number for outcome in self.earlier()}
        waiting = deque(row for row in self.rows if row.number not in done)
        try:
            for outcome in self._outcomes(client, waiting):
                done.add(outcome.row.number)
                yield outcome
        except KeyboardInterrupt:
            self.stopped_by = INTERRUPTED
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            # Dask raises any of these if it can no longer reach the scheduler.
            self.stopped_by = GONE if client.status != "running" else str(error)
        yield from self._left(done)

    def _outcomes(self, client: "Client", waiting: deque[Row]) -> Iterator[RowOutcome]:
        from distributed import as_completed

        queue, busy = ClusterQueue(), cast("dict[Future[Result], Row]", {})
        ended = as_completed([], loop=client.loop, raise_errors=False)
        assigned: dict[int, int] = {}
        while True:
            most = IN_FLIGHT * max(workers.count(client), 1)
            while not self.stopped_by and len(busy) < most and (row := queue.next(waiting)):
                assigned[row.number] = assigned.get(row.number, 0) + 1
                future = client.submit(task.run_row, self.job(row), key=self._key(row, assigned[row.number]))
                busy[future] = row
                ended.add(future)
            self.running = [*busy.values()]
            if not busy:
                return
            self._wait(client, ended)
            future = next(ended)
            row = busy.pop(future)
            result = self._result(row, future, assigned[row.number])
            queue.ended(row, None if result is None else result.state == "succeeded")
            future.release()
            if result is None:
                waiting.appendleft(row)
                continue
            if self.fail_fast and result.state == "failed":
                self.stopped_by = task.STOPPED
                self.results.stop()
            yield RowOutcome(row, result)

    def _wait(self, client: "Client", ended: "as_completed") -> None:
        since = time.monotonic()
        while not ended.has_ready():
            with ended.thread_condition:
                ready = ended.has_ready() or ended.thread_condition.wait(1)
            if ready or workers.count(client):
                since = time.monotonic()
            elif time.monotonic() - since > NO_WORKER_WITHIN:
                # Without workers, Dask would wait forever.
                raise OSError(NO_WORKER)

    def _result(self, row: Row, future: "Future[Result]", times: int) -> Result | None:
        """Return a row's result, or None if the row must run again."""
        if future.status == "finished":
            return future.result()
        if (kept := self.results.of(row)) and kept.fleet == self.id:
            return kept
        if future.status in ("cancelled", "lost"):
            raise OSError(GONE)
        error = future.exception()
        if type(error).__name__ != "KilledWorker":
            failed = Result("failed", self.id, self._fingerprint(row), error=f"{type(error).__name__}: {error}")
            return task.kept(self.results, self.job(row), failed)
        if self.results.runs(row, self.id) or times >= ASSIGNED:
            return task.lost(self.results, self.job(row))
        return None

    def interrupted(self) -> list[RowOutcome]:
        """Return an outcome for each row, in order. Call this after Ctrl-C."""
        self.stopped_by = INTERRUPTED
        earlier = self.earlier()
        return _in_order([*earlier, *self._left({outcome.row.number for outcome in earlier})])

    def _left(self, done: set[int]) -> Iterator[RowOutcome]:
        self.running = []
        for row in self.rows:
            if row.number not in done:
                kept = self.results.of(row)
                yield RowOutcome(row, kept if kept and kept.fleet == self.id else self._unknown(row))

    def _unknown(self, row: Row) -> Result:
        """Return `failed` or `not run` for a row without a reported result."""
        if began := self.results.runs(row, self.id) and self.results.began(row):
            error = f"{self.stopped_by} while this row ran\nnext:  run the row again:  labkit fleet … --resume"
            return Result("failed", self.id, started=began, seconds=time.time() - began, error=error)
        return Result("not run", self.id, error=self.stopped_by)

    def job(self, row: Row) -> task.Job:
        """Return the data that a worker needs to run the row."""
        return task.Job(row, self.notebook, self.out, self.id, self._fingerprint(row), self.time_limit, self.home)

    def _fingerprint(self, row: Row) -> str:
        return row.fingerprint(self._notebook, self._version)

    def _key(self, row: Row, time: int) -> str:
        return f"{row.name}-{self.id}-{time}"


class ClusterQueue:
    """Decide which rows may run. A cluster's rows run one at a time until a row succeeds.

    After that row, the cluster's OIDC provider exists, and the cluster's other rows may run at the same time.
    """

    def __init__(self) -> None:
        self._open: set[tuple[str, ...]] = set()
        self._alone: set[tuple[str, ...]] = set()

    def next(self, waiting: deque[Row]) -> Row | None:
        """Remove from `waiting` the first row that may run now, and return this row; None if all rows must wait."""
        for row in waiting:
            if row.cluster in self._open or row.cluster not in self._alone:
                waiting.remove(row)
                self._alone.add(row.cluster)
                return row
        return None

    def ended(self, row: Row, succeeded: bool | None) -> None:
        """Record that a row ended.

        `succeeded`: None if the row's worker was lost before the row started.
        """
        if succeeded:
            self._open.add(row.cluster)
        self._alone.discard(row.cluster)


def run_rows(fleet: Fleet, client: "Client", tell: Callable[[RowOutcome], None]) -> list[RowOutcome]:
    """Run a fleet. Pass each outcome to `tell` as its row ends. Return all outcomes in the order of the rows."""
    outcomes = fleet.earlier()
    for outcome in fleet.run(client):
        outcomes.append(outcome)
        tell(outcome)
    if not fleet.home:
        # If the scheduler is gone, this fails. The labs also end by themselves after some hours.
        with suppress(Exception):
            client.run(task.end_labs, fleet.out)
    return _in_order(outcomes)


def _in_order(outcomes: Iterable[RowOutcome]) -> list[RowOutcome]:
    return sorted(outcomes, key=lambda outcome: outcome.row.number)


def makes(notebook: Path) -> bool:
    """Whether a notebook makes resources. Raises `NothingRan` if the file isn't a notebook."""
    try:
        cells = json.loads(notebook.read_bytes())["cells"]
        return any("Lab.open(" in "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    except OSError as error:
        raise NothingRan(f"No notebook {notebook}: {error.strerror}.", next=LIST_NOTEBOOKS) from None
    except (ValueError, KeyError, TypeError):
        raise NothingRan(f"{notebook} is not a notebook.", next=f"jupyter lab {quote(str(notebook))}") from None
