"""The record of one task of an examination, and its points."""

from dataclasses import dataclass, field

FOR_NAMING, FOR_REPAIRING = 3, 7
POINTS = FOR_NAMING + FOR_REPAIRING
FREE, PER_ATTEMPT, FOR_THE_DOCTOR, PER_REBUILT = 2, 1, 4, 3
HEAD = ("task", "level", "outcome", "named", "asked", "doctor", "created again", "time", "points")


@dataclass
class Paper:
    """The record of one task in an examination."""

    level: str
    faults: tuple[str, ...] = ()
    """The ids of the task's faults. They are drawn when the task begins."""
    began: float = 0
    """The time when the faults were put into the run, in seconds since 1970; 0 if they haven't been put in yet."""
    ended: float = 0
    guesses: list[str] = field(default_factory=list)
    """The parts that the learner named as broken."""
    named: int = 0
    """The number of faults whose part the learner named."""
    attempts: int = 0
    """How often the learner asked whether the repair is right."""
    doctor: bool = False
    """Whether the learner used the doctor. A step's check counts as well, because it shows the same findings."""
    repaired: bool = False
    there: dict[str, str] = field(default_factory=dict)
    """The ids that the run's resources had when the faults were put in, by the resource's name.

    A resource that is deleted and created again gets a new id.
    """
    rebuilt: list[str] = field(default_factory=list)
    """The names of the resources that the learner deleted and created again."""
    causes: list[str] = field(default_factory=list)
    """The doctor's sentences about the faults."""

    @property
    def points(self) -> int:
        """The points: at most 3 for naming the broken parts, and 1 to 7 for a repair.

        The third and each further question whether it's mended, the use of the doctor, and each resource that was
        created again cost points of the repair.
        """
        named = FOR_NAMING * self.named // max(1, len(self.faults))
        if not self.repaired:
            return named
        questions = PER_ATTEMPT * max(0, self.attempts - FREE)
        return named + max(
            1, FOR_REPAIRING - questions - FOR_THE_DOCTOR * self.doctor - PER_REBUILT * len(self.rebuilt)
        )

    @property
    def seconds(self) -> int:
        """How long the task took; 0 if the machine's clock was moved back meanwhile."""
        return max(0, round(self.ended - self.began))

    @property
    def is_possible(self) -> bool:
        """Whether a task can come to this record. A class's board gets records from the labs."""
        broken = 2 if self.level == "hard" else 1
        return (
            len(self.faults) in ((broken,) if self.began else (0, broken))
            and 0 <= self.named <= len(self.guesses) <= broken
            and bool(self.began) >= bool(self.ended)
            and self.attempts >= self.repaired
        )

    def follows(self, before: "Paper") -> bool:
        """Return whether the task may go on from `before` to this record."""
        if before.ended:
            return self == before
        if (before.faults and self.faults != before.faults) or self.attempts < before.attempts:
            return False
        if before.attempts and self.guesses != before.guesses:
            return False
        return not before.began or (self.began, self.there) == (before.began, before.there)

    @property
    def cells(self) -> tuple[str, ...]:
        """The task's row in the table of the result, from its second column on. `HEAD` names the columns."""
        if not self.ended:
            return self.level, "open" if self.began else "not begun yet", "", str(self.attempts or ""), "", "", "", "0"
        minutes, seconds = divmod(self.seconds, 60)
        outcome = "repaired" if self.repaired else "given up"
        named = f"{self.named} of {len(self.faults)}"
        doctor, again = "used" if self.doctor else "not used", ", ".join(self.rebuilt) or "nothing"
        time = f"{minutes}:{seconds:02}"
        return self.level, outcome, named, str(self.attempts), doctor, again, time, str(self.points)
