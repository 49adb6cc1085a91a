"""Plans of a class: which notebooks fit into its time, and when each begins."""

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.workshop.guide.notebooks import TaughtNotebook

LENGTHS = {"45 minutes": 45, "90 minutes": 90, "Half a day": 210, "A day": 420}
WELCOME, END, PAUSE, LUNCH, TOGETHER = 5, 5, 10, 60, 15  # minutes
WORK = 90  # minutes, the most without a pause
LUNCH_AFTER = 150  # minutes since the beginning
# Minutes of a class from which on it has the part.
WITH_TOGETHER, WITH_LUNCH = 120, 300


@dataclass(frozen=True)
class PlannedPart:
    """A part of a class."""

    begins: int
    """Minutes after the beginning of the class."""
    minutes: int
    what: str

    @property
    def at(self) -> str:
        """Hours and minutes after the beginning, such as 1:05."""
        return f"{self.begins // 60}:{self.begins % 60:02}"


@dataclass(frozen=True)
class ClassPlan:
    """A plan, from the welcome to the end."""

    title: str
    parts: Sequence[PlannedPart]
    notebooks: Sequence[TaughtNotebook]


def plans(notebooks: Sequence[TaughtNotebook]) -> list[ClassPlan]:
    """Return the plans for a class that has these notebooks. Each takes those that matter most, as long as they fit."""
    return [_plan(title, minutes, notebooks) for title, minutes in LENGTHS.items()]


def _plan(title: str, length: int, notebooks: Sequence[TaughtNotebook]) -> ClassPlan:
    chosen: list[TaughtNotebook] = []
    for each in sorted(notebooks, key=lambda notebook: notebook.rank):
        more = sorted([*chosen, each], key=notebooks.index)
        if sum(minutes for minutes, _ in _parts(more, length)) > length:
            break
        chosen = more
    parts = _parts(chosen, length)
    left = length - sum(minutes for minutes, _ in parts)
    if left:
        parts.insert(-1, (left, "Questions, answered in the live lab"))
    begins = [sum(minutes for minutes, _ in parts[:index]) for index in range(len(parts))]
    timed = [PlannedPart(at, minutes, what) for at, (minutes, what) in zip(begins, parts, strict=True)]
    return ClassPlan(title, timed, chosen)


def _parts(chosen: Sequence[TaughtNotebook], length: int) -> list[tuple[int, str]]:
    parts = [(WELCOME, "Welcome: cards, log-in, the eleven steps")]
    since, had_lunch = WELCOME, length < WITH_LUNCH
    for each in chosen:
        if not had_lunch and sum(minutes for minutes, _ in parts) + each.minutes > LUNCH_AFTER + PAUSE:
            parts.append((LUNCH, "Lunch"))
            since, had_lunch = 0, True
        elif since + each.minutes > WORK and since > WELCOME:
            parts.append((PAUSE, "Pause"))
            since = 0
        parts.append((each.minutes, each.label))
        since += each.minutes
    if length >= WITH_TOGETHER:
        parts.append((TOGETHER, "Break and repair together: `labkit workshop break FOLDER --draw`"))
    return [*parts, (END, "End: what do you remember? Feedback, and what you take home")]
