"""The rows of the board, in the order in which people need help."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from labkit.workshop.board.report import ParticipantReport

SILENT = 60  # seconds without a report
COMMONEST = 3
# The states, in the board's order.
STATES = {
    "help": "needs help",
    "stuck": "stuck",
    "silent": "silent",
    "other": "another version",
    "seen": "help is coming",
    "working": "at work",
    "absent": "not here yet",
}

# How far a lab is with the leader's order.
ORDER_STATES = {
    "": "",
    "coming": "comes",
    "changing": "comes",
    "broken": "broken",
    "mended": "mended",
    "out": "taken out",
    "refused": "not now",
    "failed": "failed",
    "invited": "invited",
    "there": "there",
    "stays": "stays",
}


@dataclass(frozen=True)
class BoardRow:
    """One participant."""

    name: str
    state: str
    """A key of `STATES`."""
    report: ParticipantReport
    quiet: float | None
    """Seconds since the last progress; for a silent lab, since its last report. None before the first."""

    @property
    def says(self) -> str:
        """The state, as the board shows it."""
        return STATES[self.state]

    @property
    def is_open(self) -> bool:
        """Whether the leader may open the lab, and can."""
        return self.report.lets_in and self.state != "silent"

    @property
    def waits(self) -> str:
        """The time without progress, as text."""
        return "" if self.quiet is None else f"{self.quiet // 60:.0f}:{self.quiet % 60:02.0f}"


class Board:
    """The last report of each participant, in memory: after a restart, every lab reports again."""

    def __init__(self, names: Iterable[str], stuck: float, clock: Callable[[], float] = time.monotonic):
        self.stuck, self.clock = stuck, clock
        self.reports: dict[str, tuple[float, ParticipantReport | None] | None] = dict.fromkeys(names)
        self.answered: set[str] = set()

    def receive(self, name: str, report: ParticipantReport | None) -> bool:
        """Keep a report, None if it's unreadable. Return whether the leader has answered the raised hand."""
        self.reports[name] = self.clock(), report
        if report is None or report.hand != "raised":
            self.answered.discard(name)
        return name in self.answered

    def answer(self, name: str) -> None:
        """The leader has seen this participant's raised hand."""
        match self.reports.get(name):
            case (_, ParticipantReport(hand="raised")):
                self.answered.add(name)

    def rows(self) -> list[BoardRow]:
        """Return everybody, those who need help first, and of these the longest without progress first."""
        order = list(STATES)
        rows = [self._row(name, kept) for name, kept in self.reports.items()]
        return sorted(rows, key=lambda row: (order.index(row.state), -(row.quiet or 0), row.name))

    def commonest(self) -> list[tuple[str, int]]:
        """Return the class's commonest findings, each with the number of participants who have it."""
        counts = Counter(
            id for kept in self.reports.values() if kept and kept[1] for id in dict.fromkeys(kept[1].findings) if id
        )
        return counts.most_common(COMMONEST)

    def obeyed(self, number: int) -> list[tuple[str, int]]:
        """Return how many labs are in each state of the order with this number."""
        reports = [kept[1] for kept in self.reports.values() if kept and kept[1] and kept[1].order == number]
        counts = Counter(report.state for report in reports)
        return [(says, counts[state]) for state, says in ORDER_STATES.items() if says and counts[state]]

    def reporting(self) -> int:
        """Return how many labs report."""
        return sum(kept is not None and self.clock() - kept[0] <= SILENT for kept in self.reports.values())

    def _row(self, name: str, kept: tuple[float, ParticipantReport | None] | None) -> BoardRow:
        if kept is None:
            return BoardRow(name, "absent", ParticipantReport(), None)
        age = self.clock() - kept[0]
        report = kept[1]
        if report is None:
            return BoardRow(name, "other", ParticipantReport(), None)
        quiet = None if report.quiet is None else report.quiet + age
        if report.hand == "raised" and name not in self.answered:
            return BoardRow(name, "help", report, quiet)
        if age > SILENT:
            return BoardRow(name, "silent", report, age)
        if report.exercise and quiet is not None and quiet >= self.stuck:
            return BoardRow(name, "stuck", report, quiet)
        return BoardRow(name, "seen" if report.hand else "working", report, quiet)
