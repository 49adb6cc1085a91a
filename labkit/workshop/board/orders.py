"""What the leader orders every lab to do: break, mend, or go to a notebook. The labs pull the order with their reports.

One order holds at a time. It's kept in a file, so that labs get it from a board that was started again, too.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from labkit.workshop.board.obeying import WORKING
from labkit.workshop.board.report import ParticipantReport
from labkit.workshop.settings import Workshop

TURN = 120  # seconds after which another lab gets the turn of one that says nothing


class OrderRefused(Exception):
    """An order that can't be given now. The text says why."""


@dataclass
class Order:
    """The order that holds."""

    number: int = 0
    """It grows with each order; 0 before the first."""
    what: str = ""
    """break, mend or goto"""
    about: list[str] = field(default_factory=list)
    """The faults' ids, dealt out one after the other; or the notebook's name."""
    dealt: dict[str, str] = field(default_factory=dict)
    """What each participant got."""
    at: str = ""
    """The hour and minute, for the board."""


class Orders:
    """The order of one workshop, and the labs' turns to carry it out: not more at once than servers may start."""

    def __init__(self, workshop: Workshop, clock: Callable[[], float] = time.monotonic):
        self.file, self.at_a_time, self.clock = file(workshop), workshop.starts, clock
        self.now = Order(**json.loads(self.file.read_text())) if self.file.exists() else Order()
        self.turns: dict[str, float] = {}

    def give(self, what: str, about: list[str]) -> None:
        """Replace the order. Raises `OrderRefused` if a fault is in the class, or for `mend`, if none is."""
        is_broken = self.now.what == "break"
        if what == "mend" and not is_broken:
            raise OrderRefused("The class has no fault.")
        if what != "mend" and is_broken:
            raise OrderRefused(f"The class has a fault since {self.now.at}, perhaps of another leader.")
        number = max(self.now.number + 1, int(time.time()))
        self.now, self.turns = Order(number, what, about, at=time.strftime("%H:%M")), {}
        self._write()

    def for_lab(self, name: str, report: ParticipantReport) -> dict[str, object]:
        """Return the order for this participant's lab, and whether it's the lab's turn to carry it out."""
        if not self.now.number:
            return {}
        if self.now.about and name not in self.now.dealt:
            self.now.dealt[name] = self.now.about[len(self.now.dealt) % len(self.now.about)]
            self._write()
        is_done = report.order == self.now.number and report.state not in WORKING
        about = self.now.dealt.get(name, "")
        return {"number": self.now.number, "what": self.now.what, "about": about, "turn": self._turn(name, is_done)}

    def _turn(self, name: str, is_done: bool) -> bool:
        now = self.clock()
        if is_done:
            self.turns[name] = now - TURN
        elif name not in self.turns and sum(now - at < TURN for at in self.turns.values()) < self.at_a_time:
            self.turns[name] = now
        return name in self.turns

    def _write(self) -> None:
        written = self.file.with_suffix(".new")
        written.touch(mode=0o600)
        written.write_text(json.dumps(asdict(self.now)))
        written.replace(self.file)


def file(workshop: Workshop) -> Path:
    """The file of the order. It ends with the class: `down` deletes it."""
    return workshop.state / "order.json"
