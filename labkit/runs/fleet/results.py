"""The output folder of a fleet: for each row, the executed notebook and a file with the result of the run.

OUT/rows/NAME.ipynb        the executed notebook
OUT/rows/NAME.json         the result, written at the end of the run; a removal of the run's resources deletes it
OUT/rows/NAME.draft.ipynb  the notebook of a run that hasn't ended yet
OUT/rows/NAME.running      a mark: a worker keeps this file open while it runs the row
OUT/workers.log            the output of the workers and their kernels
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal

from labkit.runs.fleet.rows import Row
from labkit.runs.fleet.table import NothingRan

State = Literal["succeeded", "failed", "not run"]


@dataclass(frozen=True)
class Result:
    """The result of one row's run."""

    state: State
    fleet: str = ""
    """The id of the fleet that ran the row. Each start of a fleet gets a new id."""
    fingerprint: str = ""
    """See `Row.fingerprint`."""
    started: float = 0.0
    """The start of the run, in seconds since 1970, UTC."""
    seconds: float = 0.0
    error: str = ""
    """The error: what was wrong, where, and what to do next; empty if the row succeeded."""
    cell: str = ""
    """The source of the cell that failed."""
    findings: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """The findings of the checks and of the doctor, as `labkit.doctor.finding.Finding.as_json` returns them."""
    tries: int = 1
    has_notebook: bool = False
    """Whether the executed notebook was kept."""

    @property
    def reason(self) -> str:
        """The first line of the error."""
        return self.error.partition("\n")[0]


class Results:
    """The output folder of a fleet."""

    def __init__(self, out: Path):
        self.out = out
        self.rows = out / "rows"

    def notebook(self, row: Row) -> Path:
        """Return the path of a row's executed notebook."""
        return self.rows / f"{row.name}.ipynb"

    def draft(self, row: Row) -> Path:
        """Return the path of the file that holds a row's notebook while the row runs."""
        return self.rows / f"{row.name}.draft.ipynb"

    def of(self, row: Row) -> Result | None:
        """Return the result of a row's last run; None if the row has no readable result."""
        try:
            kept = json.loads(self._file(row).read_text())
            return Result(**kept["result"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, row: Row, result: Result) -> Result:
        """Store a row's result, and rename the row's notebook from `draft(row)` to `notebook(row)`.

        Return the result, with `has_notebook` set. If a file can't be written, keep the earlier result and the earlier
        notebook, and raise `OSError`.
        """
        result = replace(result, has_notebook=self._has_draft(row))
        document = {"run": row.run, "parameters": row.as_json(), "result": asdict(result)}
        with _written_at_once(self._file(row), json.dumps(document, indent=1).encode()):
            if result.has_notebook:
                self.draft(row).replace(self.notebook(row))
        self._marker(row).unlink(missing_ok=True)
        return result

    def forget(self, row: Row) -> None:
        """Delete a row's result, so that `--resume` runs the row again. The executed notebook stays.

        Raises `NothingRan` if the file can't be deleted.
        """
        with writing(self.out):
            self._file(row).unlink(missing_ok=True)

    def begin(self, row: Row, fleet: str) -> IO[str] | None:
        """Create the file that marks a row as running. Return the open file: the caller closes it when the row ends.

        Return None if the file exists: a worker of this fleet started the row and was lost. Raises `OSError`.
        """
        try:
            mark = self._marker(row).open("x")
        except FileExistsError:
            return None
        fcntl.flock(mark, fcntl.LOCK_EX)
        mark.write(fleet)
        mark.flush()
        self.draft(row).unlink(missing_ok=True)  # left by a run that ended with its worker
        return mark

    def began(self, row: Row) -> float:
        """Return the time when a worker started the row, in seconds since 1970, UTC; 0 if the row hasn't started."""
        try:
            return self._marker(row).stat().st_mtime
        except OSError:
            return 0.0

    def runs(self, row: Row, fleet: str) -> bool:
        """Whether a worker of this fleet has started the row but hasn't written its result yet."""
        try:
            return self._marker(row).read_text() == fleet
        except OSError:
            return False

    def stop(self) -> None:
        """Let no more rows start. Rows that already run continue. Raises `OSError`."""
        self._stop.touch()

    @property
    def is_stopped(self) -> bool:
        """Whether no more rows may start."""
        return self._stop.exists()

    def forget_markers(self) -> None:
        """Delete an earlier fleet's files: the markers of its unfinished rows, and the file that stops new rows.

        Raises `NothingRan` if a worker of the earlier fleet still runs a row.
        """
        markers = [*self.rows.glob("*.running")]
        if running := [marker.stem for marker in markers if _is_open_elsewhere(marker)]:
            raise NothingRan(
                f"Workers of an earlier fleet still run rows, such as {running[0]}.",
                where=str(self.out),
                next="wait until these rows have ended, and run this command again   (if the earlier fleet's "
                "scheduler is gone, these rows end within a minute)",
            )
        for marker in (*markers, self._stop):
            marker.unlink(missing_ok=True)

    @contextmanager
    def opened(self, *, resume: bool) -> Iterator[None]:
        """Make the folder, and lock it for this fleet during this block.

        Raises `NothingRan` if the folder isn't writable, or if another fleet uses it. Without `resume`, also raises
        `NothingRan` if the folder holds an earlier fleet's results.
        """
        with writing(self.out):
            self.rows.mkdir(parents=True, exist_ok=True)
        with self._locked("or name another folder:  --out FOLDER"):
            if not resume and any(self.rows.glob("*.json")):
                raise NothingRan(
                    "The folder holds the results of an earlier fleet.",
                    where=str(self.out),
                    next="run the rows that have not succeeded:  --resume   (or all rows, with another folder:  "
                    "--out FOLDER)",
                )
            self.forget_markers()
            yield

    @contextmanager
    def removed_from(self) -> Iterator[None]:
        """Lock the folder during this block, so that no fleet runs the rows that the block removes.

        A missing folder stays missing. Raises `NothingRan` if a fleet uses the folder, or if it isn't writable.
        """
        if not self.rows.is_dir():
            yield
            return
        with self._locked("and run this command again"):
            self.forget_markers()
            yield

    @contextmanager
    def _locked(self, then: str) -> Iterator[None]:
        """Lock the existing folder during this block.

        Raises `NothingRan` if the folder is locked: wait until it's free, `then`.
        """
        with writing(self.out):
            lock = (self.out / ".lock").open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise NothingRan(
                    "Another fleet is writing its results into this folder.",
                    where=str(self.out),
                    next=f"wait until that fleet has ended, {then}",
                ) from None
            yield

    def _has_draft(self, row: Row) -> bool:
        """Delete an incomplete notebook of the run, and return whether a complete notebook exists."""
        try:
            json.loads(self.draft(row).read_bytes())
        except ValueError:
            self.draft(row).unlink()
        except OSError:
            pass
        else:
            return True
        return False

    def _file(self, row: Row) -> Path:
        return self.rows / f"{row.name}.json"

    @property
    def _stop(self) -> Path:
        return self.rows / ".stop"

    def _marker(self, row: Row) -> Path:
        return self.rows / f"{row.name}.running"


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Raise `NothingRan` if the code in this block can't write to the output folder `out`."""
    try:
        yield
    except OSError as error:
        raise NothingRan(
            f"The results can't be written: {error.strerror}.",
            where=str(out),
            next="labkit fleet … --out FOLDER, with a folder where you can write",
        ) from None


def _is_open_elsewhere(marker: Path) -> bool:
    """Return whether a worker, perhaps on another machine, has the marker open."""
    try:
        with marker.open("a") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return marker.exists()
    return False


def write_at_once(file: Path, content: bytes) -> None:
    """Write a file so that a reader never sees half of it. Raises `OSError`."""
    with _written_at_once(file, content):
        pass


@contextmanager
def _written_at_once(file: Path, content: bytes) -> Iterator[None]:
    """Replace the file's content with `content` when the `with` block ends.

    A reader sees either the old content or all of the new content. If the `with` block fails, the old content stays.
    """
    draft = file.with_name(f".{file.name}.part")
    try:
        with draft.open("wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        yield
        draft.replace(file)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise
