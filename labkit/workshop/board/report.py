"""What a participant's lab tells the board: ids and counts, no texts, errors or names."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Interval, MaxLen, Predicate

from labkit.course import contents
from labkit.course.progress import ProgressEvent
from labkit.workshop.board.obeying import TakenOrder

ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
MOST_FINDINGS = 20
NOTEBOOKS = {step: number for number, step in contents.STEPS.items()}

Id = Annotated[str, Predicate(lambda id: not id or bool(ID.fullmatch(id)))]
Count = Annotated[int, Interval(ge=0, le=10**6)]
Seconds = Annotated[float, Interval(ge=0, le=10**9)]
NO_ORDER = TakenOrder()


@dataclass
class ParticipantReport:
    """Where a participant is. An empty id stands for nothing.

    The board checks the fields with pydantic. Each participant's server makes reports, so it doesn't load pydantic.
    """

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    version: Literal[1] = 1
    notebook: Id = ""
    """The number of the notebook, such as 02: the one on the screen, else the one of the last event."""
    step: Id = ""
    """The step that was right last."""
    exercise: Id = ""
    """The exercise that was opened last, unless it's solved."""
    tries: Count = 0
    hints: Count = 0
    quiet: Seconds | None = None
    """Seconds since the last progress: something opened, answered, solved or right; or the leader's fault or mend."""
    hand: Literal["", "raised", "seen"] = ""
    lets_in: bool = False
    """Whether the leader may open the participant's server."""
    findings: Annotated[list[Id], MaxLen(MOST_FINDINGS)] = field(default_factory=list)
    """What checks and diagnoses found since the last progress."""
    order: Annotated[int, Interval(ge=0, le=2**40)] = 0
    """The number of the leader's order that the lab took up last."""
    state: Id = ""
    """How far the lab is with it: `TakenOrder` explains the words."""
    checks: Count = 0
    """How often the participant asked whether the leader's fault is mended."""


def report(
    events: Iterable[ProgressEvent | None], now: float, order: TakenOrder = NO_ORDER, looks_at: str = ""
) -> ParticipantReport:
    """Return the report of these events of a progress file at the time `now`, in seconds since 1970.

    `looks_at` is the number of the notebook on the screen, if that's known.
    """
    made, counts, last, opened = ParticipantReport(), Counter[tuple[str, str]](), None, 0.0
    made.order, made.state = order.number, order.state
    for event in events:
        if event is None or (event["id"] and not ID.fullmatch(event["id"])):
            continue
        what, id, right = event["what"], event["id"], event["right"]
        match what:
            case "help" | "seen" | "shared":
                _move_hand(made, what, right)
            case "mended":
                if made.state == "broken" and event["at"] > order.at:
                    made.checks += 1
                    made.state = "mended" if right else "broken"
            case "finding":
                made.findings = [*(each for each in made.findings if each != id), id][-MOST_FINDINGS:]
            case _:
                made.notebook = NOTEBOOKS.get(id, id.partition("-")[0])
                counts[what, id] += 1
                if what != "hint" and (what != "tried" or right):
                    last = event["at"]
                    opened = last if what == "opened" else opened
                    _get_on(made, what, id)
    made.notebook = looks_at or made.notebook
    _go_to(made, order, opened)
    made.tries, made.hints = (counts[what, made.exercise] for what in ("tried", "hint"))
    if order.what in ("break", "mend"):
        last = max(last or 0.0, order.at)  # until then, the leader kept them from their exercise
    made.quiet = None if last is None else max(0.0, now - last)
    return made


def _go_to(made: ParticipantReport, order: TakenOrder, opened: float) -> None:
    """Heed that the class goes to a notebook. `opened` is when the last exercise was opened."""
    if order.what == "goto" and order.state == "there" and opened < order.at:
        made.exercise = ""  # the lab has closed it
    if made.state == "invited" and made.notebook >= order.about[:2]:
        made.state = "there"


def _move_hand(made: ParticipantReport, what: str, right: bool) -> None:
    if what == "help":
        made.hand = "raised" if right else ""
    elif what == "seen" and made.hand:
        made.hand = "seen"
    made.lets_in = bool(made.hand) and (right if what == "shared" else made.lets_in)


def _get_on(made: ParticipantReport, what: str, id: str) -> None:
    """Count an event as progress: what was found before is over, and so is help that the leader gave."""
    made.findings = []
    made.hand = "" if made.hand == "seen" else made.hand
    if what == "opened":
        made.exercise = id
    elif what == "tried" and made.exercise == id:
        made.exercise = ""
    elif what == "step":
        made.step = id
