"""Tries at each exercise: three near-misses, each with what the live lab then finds, and two right answers."""

from collections.abc import Callable
from dataclasses import dataclass, field

from labkit import Lab

Try = Callable[[Lab, str], None]
"""Does in the lab what a learner's cell would do; the text is the exercise's name."""


@dataclass(frozen=True)
class Attempt:
    """One try at an exercise."""

    exercise: str
    do: Try
    said: str = ""
    """Part of what a near-miss's check finds; empty for a right answer."""

    @property
    def name(self) -> str:
        return f"{self.exercise}-{self.do.__name__.strip('_')}"


@dataclass
class Attempts:
    """The tries at the exercises of one notebook."""

    all: list[Attempt] = field(default_factory=list)

    def wrong(self, exercise: str, said: str) -> Callable[[Try], Try]:
        return self._add(exercise, said)

    def right(self, exercise: str) -> Callable[[Try], Try]:
        return self._add(exercise, "")

    def _add(self, exercise: str, said: str) -> Callable[[Try], Try]:
        def added(do: Try) -> Try:
            self.all.append(Attempt(exercise, do, said))
            return do

        return added
