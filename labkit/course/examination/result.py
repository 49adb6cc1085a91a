"""An examination so far, or at its end: its papers, its points, and what may follow what."""

from dataclasses import dataclass, replace

from labkit.course.examination.draw import DEMONSTRATION, LEVELS
from labkit.course.examination.paper import HEAD, POINTS, Paper
from labkit.course.faults import CATALOGUE
from labkit.showing import counted, is_live, left_aligned, table

FREE_OF_COST = ("", "not used", "nothing")
PASSED = 0.7  # the share of the points that a certificate takes


@dataclass(frozen=True, repr=False)
class ExaminationResult:
    """The points of an examination so far, or at its end."""

    run: str
    number: int
    """1 for the learner's first examination, 2 for the second."""
    papers: list[Paper]

    @property
    def points(self) -> int:
        """The points so far."""
        return sum(paper.points for paper in self.papers)

    @property
    def most(self) -> int:
        """The points that could be reached."""
        return POINTS * len(self.papers)

    @property
    def left(self) -> int:
        """The number of tasks that the learner has neither repaired nor given up."""
        return sum(not paper.ended for paper in self.papers)

    @property
    def is_passed(self) -> bool:
        """Whether the examination is over, and its points suffice for a certificate."""
        return not self.left and self.points >= PASSED * self.most

    @property
    def headline(self) -> str:
        """The number of the examination, and its score."""
        return f"IRSA lab, examination {self.number}: {self.points} of {self.most} points"

    @property
    def score(self) -> str:
        """The points, the number of remaining tasks, and the number of the examination if it isn't the first."""
        left = f", {counted(self.left, 'task')} left" if self.left else ""
        return f"{self.points} of {self.most} points{left}{f', try {self.number}' if self.number > 1 else ''}"

    def without_answers(self) -> "ExaminationResult":
        """Return the same result. It doesn't have the faults of the open task."""
        return replace(
            self, papers=[each if each.ended else replace(each, faults=(), causes=[]) for each in self.papers]
        )

    @property
    def is_the_demonstration(self) -> bool:
        """Whether it has the tasks that stored notebooks show with their solutions."""
        return [(paper.level, *paper.faults) for paper in self.papers] == list(DEMONSTRATION)

    @property
    def is_of_a_draw(self) -> bool:
        """Whether the papers have the levels of a draw, and no fault twice, and can have come to their points."""
        levels = [level for level, count in LEVELS.items() for _ in range(count)]
        names = [name for paper in self.papers for name in paper.faults]
        return (
            [paper.level for paper in self.papers] == levels
            and not self.is_the_demonstration
            and len(names) == len(set(names))
            and CATALOGUE.keys() >= set(names)
            and all(paper.is_possible for paper in self.papers)
        )

    def follows(self, earlier: "ExaminationResult | None") -> bool:
        """Return whether an examination may go on from `earlier` to this: what was done stays done."""
        if earlier is None or self.number != earlier.number:
            is_next = self.number == (earlier.number if earlier else 0) + 1
            return is_next and not any(paper.attempts or paper.ended for paper in self.papers)
        return all(now.follows(before) for before, now in zip(earlier.papers, self.papers, strict=True))

    @property
    def _rows(self) -> list[tuple[str, ...]]:
        rows = []
        for number, paper in enumerate(self.papers, start=1):
            names = " and ".join(paper.faults) if paper.ended else ""
            cells = paper.cells if is_live() else (*paper.cells[:6], paper.cells[6] and "<time>", paper.cells[7])
            rows.append((f"{number} {names}".rstrip(), *cells))
        return rows

    def __repr__(self) -> str:
        lines = [HEAD, *self._rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
        aligned = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        return "\n".join([self.headline, *aligned])

    def _repr_html_(self) -> str:
        # In a narrow window, nine columns don't fit.
        rows = []
        for task, level, outcome, *costs, points in self._rows:
            lines = [f"{head} {cost}" for head, cost in zip(HEAD[3:-1], costs, strict=True) if cost not in FREE_OF_COST]
            rows.append((task, level, ", ".join([outcome, *lines]), points))
        return left_aligned(f"<p><strong>{self.headline}</strong></p>{table(rows, (*HEAD[:3], HEAD[-1]))}")
