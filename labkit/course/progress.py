"""The learner's progress, in a file beside the learner's notebooks. Each line of the file is an event.

`labkit lab` sets the variable LABKIT_PROGRESS to the file's path. Without this variable, nothing is recorded.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NotRequired, TypedDict

from labkit.course import renumbering
from labkit.showing import counted, left_aligned, table

VARIABLE = "LABKIT_PROGRESS"
BOARD = "LABKIT_BOARD"
"""The variable with the address that takes reports, in a workshop with a board."""
NAME = "progress.jsonl"
VERSION = 2  # 1: the notebooks had other numbers
EXAMINATION = "98-examination"


class Examined(TypedDict):
    """The saved state of an examination. Another kernel can continue the examination."""

    number: int
    """1 for the learner's first examination, 2 for the second."""
    points: int
    most: int
    left: int
    """The number of tasks that the learner has neither repaired nor given up."""
    sealed: str
    """All of it, with the faults, encrypted with the lab's key. https://cryptography.io/en/latest/fernet/"""


class ProgressEvent(TypedDict):
    """One thing that the learner did."""

    version: int
    at: float
    """Seconds since 1970 by the machine's clock, because the learner can move the lab's clock."""
    what: str
    """The kind of the event.

    One of opened, hint, tried, step, answered, reviewed, guessed, examined, finding, mended, help, seen and shared.
    """
    id: str
    """The id of the exercise or question, of the finding, or the name of the step or of the examination's notebook."""
    right: bool
    examination: NotRequired[Examined]


def kept(what: str, id: str, *, right: bool = True, examination: Examined | None = None) -> None:
    """Append an event to the learner's progress file. The parameters are the fields of `ProgressEvent`.

    Do nothing if LABKIT_PROGRESS isn't set, or if the file can't be written.
    """
    if not (name := os.environ.get(VARIABLE)):
        return
    event = ProgressEvent(version=VERSION, at=time.time(), what=what, id=id, right=right)
    if examination:
        event["examination"] = examination
    line = json.dumps(event).encode() + b"\n"
    try:
        # One write in append mode, so that two kernels don't mix their lines.
        # https://pubs.opengroup.org/onlinepubs/9699919799/functions/write.html
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
    except OSError:
        return


def answered(question: str, right: bool) -> None:
    """Append a question's answer."""
    kept("answered", question, right=right)


def note_findings(ids: Iterable[str]) -> None:
    """Append the ids of the findings of a check or a diagnosis."""
    for id in ids:
        kept("finding", id)


def raised(up: bool) -> str:
    """Raise the learner's hand in a workshop, or take it down. Return a sentence about it."""
    if BOARD not in os.environ:
        return 'This lab has no leader with a board. For a hint: lab.hint("02-a"), with the number of your exercise.'
    kept("help", "", right=up)
    return "Your hand is up: the leader's board shows it." if up else "Your hand is down."


@dataclass(frozen=True, repr=False)
class Progress:
    """The learner's progress so far."""

    solved: dict[str, int] = field(default_factory=dict)
    """The solved exercises, each with the number of tries."""
    opened: dict[str, float] = field(default_factory=dict)
    """The opened exercises, each with the time when it was first opened, in seconds since 1970."""
    took: dict[str, float] = field(default_factory=dict)
    """For each solved exercise, the seconds from its first opening to its first right solution."""
    hints: Counter[str] = field(default_factory=Counter)
    steps: set[str] = field(default_factory=set)
    """The steps whose check was right."""
    answered: dict[str, bool] = field(default_factory=dict)
    """The answered questions. The value is true if the learner's first answer was right."""
    examination: Examined | None = None
    """The state of the last examination."""
    unread: int = 0
    """The number of lines that this version of labkit can't read."""

    def __repr__(self) -> str:
        lines = [f"steps checked and right: {', '.join(sorted(self.steps)) or 'none yet'}"]
        for id in sorted(self.opened.keys() | self.solved.keys()):
            tries = self.solved.get(id)
            done = f"solved, try {tries}{self._after(id)}" if tries else "open"
            hints = f", hints: {self.hints[id]}" if self.hints[id] else ""
            lines.append(f"exercise {id}: {done}{hints}")
        right = sum(self.answered.values())
        lines.append(f"questions: {right} of {len(self.answered)} right at the first answer")
        if self.examination:
            lines.append(f"examination {self.examination['number']}: {self.score}")
        if self.unread:
            lines.append(not_counted(self.unread))
        return "\n".join(lines)

    def _after(self, id: str) -> str:
        if id not in self.took:
            return ""
        minutes, seconds = divmod(round(self.took[id]), 60)
        return f", {minutes}:{seconds:02} minutes after you opened it"

    @property
    def score(self) -> str:
        """The points of the last examination, and the number of its remaining tasks; empty without an examination."""
        if self.examination is None:
            return ""
        left = self.examination["left"]
        score = f"{self.examination['points']} of {self.examination['most']} points"
        return f"{score}, {counted(left, 'task')} left" if left else score

    def _repr_html_(self) -> str:
        return left_aligned(table([line.partition(": ")[::2] for line in repr(self).splitlines()]))


def read(file: Path | None = None) -> Progress:
    """Read a learner's progress. Skip broken lines and lines of another version, and count them.

    `file` defaults to the file of the running JupyterLab.
    """
    progress, tries, unread, examination = Progress(), Counter[str](), 0, None
    for event in events(file):
        if event is None:
            unread += 1
            continue
        if event["what"] == "examined":
            examination = event["examination"]
        else:
            _count(event, progress, tries)
    return replace(progress, examination=examination, unread=unread)


def _count(event: ProgressEvent, progress: Progress, tries: Counter[str]) -> None:
    what, id = event["what"], event["id"]
    if what == "opened":
        progress.opened.setdefault(id, event["at"])
    elif what == "hint":
        progress.hints[id] += 1
    elif what == "tried":
        tries[id] += id not in progress.solved
        if event["right"] and id not in progress.solved:
            progress.solved[id] = tries[id]
            if id in progress.opened:
                progress.took[id] = max(0, event["at"] - progress.opened[id])
    elif what == "step":
        progress.steps.add(id)
    elif what == "answered":
        progress.answered.setdefault(id, event["right"])


def guessed() -> dict[str, bool]:
    """Return whether the learner's first guess of each case was right, by the id of the guess."""
    made: dict[str, bool] = {}
    for event in events(Path(os.environ.get(VARIABLE) or NAME)):
        if event and event["what"] == "guessed":
            made.setdefault(event["id"], event["right"])
    return made


def not_counted(unread: int) -> str:
    """Return a text that says how many lines of the file can't be read."""
    lines = "1 line" if unread == 1 else f"{unread} lines"
    return f"not counted: {lines} of {NAME} (broken, or written by another version of labkit)"


def events(file: Path | None = None) -> Iterator[ProgressEvent | None]:
    """Yield the events of a progress file, and None for each line that this version can't read.

    `file` defaults to the file of the running JupyterLab.
    """
    try:
        lines = (file or Path(os.environ.get(VARIABLE) or NAME)).read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        lines = [b""]
    for line in lines:
        try:
            event = json.loads(line)
            if event["version"] == 1:
                event["id"] = renumbering.today(event["id"])
            ok = event["version"] in (1, VERSION) and isinstance(event["what"], str) and isinstance(event["id"], str)
            ok = ok and isinstance(event["right"], bool) and isinstance(event["at"], int | float)
            if event["what"] == "examined":
                stands = event["examination"]
                stands.setdefault("number", 1)  # labkit 0.1.0 counted none
                ok = ok and all(isinstance(stands[key], int) for key in ("number", "points", "most", "left"))
        except (ValueError, TypeError, KeyError, AttributeError):
            ok = False
        yield event if ok else None
