"""What a learner did during a task that costs points: a file in the lab's folder for each.

In a class, the board hears of it at once, and remembers it until the next task.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.course import board, progress
from labkit.errors import LabError
from labkit.run_parameters import label_value
from labkit.simulator import Folder

if TYPE_CHECKING:
    from labkit.workspace import Workspace


def note_the_doctor(lab: "Workspace | None" = None) -> None:
    """Record that the learner used the doctor. Without `lab`, the record counts for every run."""
    _note("doctor", _doctor(lab))


def note_the_lab(lab: "Workspace") -> None:
    """Record that a lab command changes this run. In an examination, the task then counts as given up."""
    _note("lab", _by_the_lab(lab))


def doctor_was_used(lab: "Workspace") -> bool:
    """Return whether the learner used the doctor since `forget`."""
    return _doctor().exists() or _doctor(lab).exists()


def lab_changed(lab: "Workspace") -> bool:
    """Return whether a lab command changed this run since `forget`."""
    return _by_the_lab(lab).exists()


def forget(lab: "Workspace") -> None:
    """Delete the records, because a new task begins."""
    for mark in (_doctor(), _doctor(lab), _by_the_lab(lab)):
        mark.unlink(missing_ok=True)


def _note(what: str, mark: Path) -> None:
    if mark.parent.is_dir():
        mark.touch()
    if progress.BOARD in os.environ:
        with suppress(LabError):  # the board is being started again; the file still counts
            board.ask("examination", {"mark": what})


def _by_the_lab(lab: "Workspace") -> Path:
    return Folder.find().path / f"by-the-lab-{label_value(lab.run)}"


def _doctor(lab: "Workspace | None" = None) -> Path:
    return Folder.find().path / (f"doctor-asked-{label_value(lab.run)}" if lab else "doctor-asked")
