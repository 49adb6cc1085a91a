"""The examination itself: puts each task's faults in, takes the learner's guess, and asks whether they're mended.

If a lab command, such as `labkit mend`, changes the run, the task counts as given up. If the learner deletes a resource
and creates it again, that costs points.
"""

import os
import secrets
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import steps
from labkit.course import progress
from labkit.course.examination import judging, marks
from labkit.course.examination.certificate import FILE, ExaminationCertificate, SignedClaims
from labkit.course.examination.draw import LEVELS, PARTS, DrawnTask, demonstration, draw, parts
from labkit.course.examination.paper import FREE, HEAD, PER_ATTEMPT, PER_REBUILT, POINTS, Paper
from labkit.course.faults import CATALOGUE, Fault, Situation, breaking
from labkit.errors import LabError, UnknownName
from labkit.showing import counted, doing, is_live, left_aligned, stable, table
from labkit.simulator import Folder

if TYPE_CHECKING:
    from labkit.workspace import Workspace

PASSED = 0.7  # the share of the points that a certificate takes
# The fields of a `Paper` that the progress file leaves out, because the learner could read the answers there.
SECRET = ("faults", "causes")


@dataclass(frozen=True, repr=False)
class ExaminationResult:
    """The points of an examination so far, or at its end."""

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
    def headline(self) -> str:
        """The number of the examination, and its score."""
        return f"IRSA lab, examination {self.number}: {self.points} of {self.most} points"

    @property
    def _rows(self) -> list[tuple[str, ...]]:
        rows = []
        for number, paper in enumerate(self.papers, start=1):
            names = " and ".join(fault.id for fault in paper.faults) if paper.ended else ""
            cells = paper.cells if is_live() else (*paper.cells[:6], paper.cells[6] and "<time>", paper.cells[7])
            rows.append((f"{number} {names}".rstrip(), *cells))
        return rows

    def __repr__(self) -> str:
        lines = [HEAD, *self._rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
        aligned = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        return "\n".join([self.headline, *aligned])

    def _repr_html_(self) -> str:
        return left_aligned(f"<p><strong>{self.headline}</strong></p>{table(self._rows, HEAD)}")


class Examination:
    """Ten tasks, one after the other. Name the broken part of each, repair it, and ask whether it's mended."""

    def __init__(self, lab: "Workspace", *, again: bool = False):
        self._lab = lab
        self._healthy = Situation.wanted(lab.parameters, lab.connection, lab.connection.webhook_registration())
        stands = _stands()
        if stands and not again and (papers := _continued(stands, lab)):
            self._number, self._salt, self._papers = stands["number"], stands["salt"], papers
            self._go_on()
            return
        self._number, self._salt = _next_number(stands), secrets.token_hex(16)
        tasks = draw(self._healthy) if is_live() else demonstration()
        self._papers = [Paper(task.level, task.faults) for task in tasks]
        print(f"Examination {self._number}: {_in_words(tasks)}")
        self._put_in()

    def guess(self, *broken: str) -> None:
        """Name the part that is broken, before you ask whether it's mended. A hard task has two broken parts.

        Raises `UnknownName` for a part that doesn't exist, and `LabError` for more parts than are broken, or if the
        learner has already asked.
        """
        paper = self._begun()
        if paper.attempts:
            raise LabError(
                "You have already asked whether this task is mended, so your guess stands.",
                where=f"your guess: {', '.join(paper.guesses) or 'none'}",
                next="exam.hand_in()",
            )
        for part in broken:
            if part not in PARTS:
                raise UnknownName("part of IRSA", part, PARTS, next=f'exam.guess("{PARTS[2]}")')
        if not broken or len(broken) > len(paper.faults):
            raise LabError(
                f"Name {counted(len(paper.faults), 'part')} of these: {', '.join(PARTS)}.",
                next=f'exam.guess("{PARTS[2]}")',
            )
        paper.guesses = list(broken)
        self._keep()
        print(f"Your guess is noted: {', '.join(broken)}. You can change it until you hand in.")

    def hand_in(self) -> None:
        """Ask whether the task is mended: yes, or not yet. After a yes, name the causes, and begin the next task.

        Raises `LabError` if the examination is over.
        """
        paper = self._begun()
        if self._is_spoilt(paper):
            return
        paper.attempts += 1
        with doing("Judging your repair"):
            is_mended = judging.is_mended(self._lab)
        if not is_mended:
            self._keep()
            cost = f"costs {PER_ATTEMPT} point" if paper.attempts >= FREE else "costs nothing"
            print(f"✗ not yet: {self._title(paper)} isn't mended. To ask again {cost}.")
            return
        now = judging.ids(self._lab)
        paper.rebuilt = [what for what, id in paper.there.items() if now.get(what) != id]
        self._close(paper, repaired=True, said=f"✓ yes: {self._title(paper)} is mended.")

    def give_up(self) -> None:
        """Name the causes, take the faults out, and begin the next task. Raises `LabError` if all tasks are done."""
        self._close(self._begun(), repaired=False, said="You gave up.")

    def result(self) -> ExaminationResult:
        """Return the points so far."""
        return ExaminationResult(self._number, self._papers)

    def certificate(self, name: str = "") -> ExaminationCertificate:
        """Return a signed certificate with this name, and save it as `certificate.svg`.

        Raises `LabError` if the examination isn't over, if it has less than 70 of 100 points, or without a name.
        """
        result, left = self.result(), sum(not paper.ended for paper in self._papers)
        if left:
            raise LabError(f"The examination isn't over: {counted(left, 'task')} left.", next="exam.hand_in()")
        if result.points < PASSED * result.most:
            raise LabError(
                f"{result.points} of {result.most} points: a certificate takes {round(PASSED * result.most)}.",
                where="exam.result() shows what cost points",
                next="lab.examination(again=True)",
            )
        levels = {
            level: (sum(each.repaired for each in papers), len(papers))
            for level in LEVELS
            if (papers := [each for each in self._papers if each.level == level])
        }
        claims = SignedClaims.checked(
            name=name,
            points=result.points,
            most=result.most,
            number=self._number,
            levels=levels,
            minutes=round(sum(each.ended - each.began for each in self._papers) / 60),
            at=max(each.ended for each in self._papers),
        )
        learner = os.environ.get(progress.VARIABLE)
        folder = Path(learner).parent if learner else Folder.find().path
        return ExaminationCertificate.signed(claims, folder / FILE)

    def _begun(self) -> Paper:
        """Return the open task. Raises `LabError` if all tasks are done, or if another kernel has gone on."""
        stands = _stands()
        if stands and (stands["number"], stands["left"]) != (
            self._number,
            sum(not each.ended for each in self._papers),
        ):
            raise LabError(
                "This examination went on in another notebook, or a new one began there.",
                where="this kernel",
                next="exam = lab.examination()",
            )
        return self._open()

    def _open(self) -> Paper:
        paper = next((paper for paper in self._papers if not paper.ended), None)
        if paper is None:
            raise LabError("The examination is over.", where="this cell", next='exam.certificate("Your name")')
        return paper

    def _is_spoilt(self, paper: Paper) -> bool:
        """Return whether a lab command changed the run. Then close the paper, too: the task counts as given up."""
        there = set(breaking.faults_in(self._lab, of_an_examination=True))
        if {fault.id for fault in paper.faults} <= there and not marks.lab_changed(self._lab):
            return False
        said = "A lab command, such as labkit mend, changed this run, so the task counts as given up."
        self._close(paper, repaired=False, said=said)
        return True

    def _go_on(self) -> None:
        paper = self._open()
        print(f"Your examination {self._number} goes on: {self._title(paper)}, {self.result().points} points so far.")
        print("To drop this examination and begin another one:  lab.examination(again=True)")
        if not paper.began:
            self._put_in()
        elif not self._is_spoilt(paper):
            paper.causes = judging.causes(self._lab, paper.faults)
            self._tell(paper)

    def _close(self, paper: Paper, *, repaired: bool, said: str) -> None:
        paper.ended, paper.repaired = time.time(), repaired
        paper.doctor = marks.doctor_was_used(self._lab)
        broken = [parts(fault, self._healthy) for fault in paper.faults]
        paper.named = sum(bool(each & set(paper.guesses)) for each in broken)
        self._keep()
        print(said)
        for fault, part, cause in zip(paper.faults, broken, paper.causes or [""] * len(paper.faults), strict=True):
            print(f"  {' or '.join(sorted(part))}: {fault.id}. {cause}".rstrip())
        print(f"  You named {', '.join(paper.guesses) or 'nothing'}: {paper.named} of {len(paper.faults)}.")
        if paper.rebuilt:
            print(f"  You deleted and created again: {', '.join(paper.rebuilt)}. Each costs {PER_REBUILT} points.")
        print(f"  {counted(paper.points, 'point')} of {POINTS}.\n")
        if any(not each.ended for each in self._papers):
            self._put_in()
        else:
            _take_out(self._lab)
            print('That was the last task. Next:  exam.certificate("Your name")')

    def _put_in(self) -> None:
        paper = self._open()
        with doing(f"Preparing {self._title(paper)}"):
            _take_out(self._lab)
            for _ in steps.ready_through(self._lab, "pod"):
                pass
            for fault in paper.faults:
                breaking.break_lab(self._lab, fault, of_an_examination=True)
            paper.there, paper.causes = judging.ids(self._lab), judging.causes(self._lab, paper.faults)
        marks.forget(self._lab)
        paper.began = time.time()
        self._keep()
        self._tell(paper)

    def _tell(self, paper: Paper) -> None:
        two = ": two parts are broken" if len(paper.faults) > 1 else ""
        print(f"{self._title(paper).capitalize()} ({paper.level}{two}). In the pod:")
        with doing("Asking AWS in the pod"):
            said = breaking.what_aws_says(self._lab)
        for command, answer in said or [("kubectl get pod", "no pod runs")]:
            print(f"$ {command}\n{stable(answer)}")

    def _title(self, paper: Paper) -> str:
        return f"task {self._papers.index(paper) + 1} of {len(self._papers)}"

    def _keep(self) -> None:
        papers = [
            {key: value for key, value in vars(paper).items() if key not in SECRET}
            | {"sealed": [_seal(self._salt, fault) for fault in paper.faults]}
            for paper in self._papers
        ]
        stands = progress.Examined(
            run=self._lab.run,
            number=self._number,
            salt=self._salt,
            points=self.result().points,
            most=self.result().most,
            left=sum(not paper.ended for paper in self._papers),
            papers=papers,
        )
        progress.kept("examined", progress.EXAMINATION, examination=stands)


def _in_words(tasks: list[DrawnTask]) -> str:
    levels = [task.level for task in tasks]
    return ", ".join(f"{levels.count(level)} {level}" for level in LEVELS if level in levels) + "."


def _stands() -> progress.Examined | None:
    """Return the state of the learner's last examination, if a progress file holds one."""
    return progress.read().examination if os.environ.get(progress.VARIABLE) else None


def _continued(stands: progress.Examined, lab: "Workspace") -> list[Paper]:
    """Return the papers of the learner's unfinished examination; empty without one."""
    if not stands["left"] or stands["run"] != lab.run:
        return []
    try:
        return [_opened(stands["salt"], dict(kept)) for kept in stands["papers"]]
    except (TypeError, KeyError, ValueError):
        print("Your examination is from another version of labkit, so a new one begins.")
        return []


def _opened(salt: str, kept: dict[str, Any]) -> Paper:
    faults = {_seal(salt, fault): fault for fault in CATALOGUE.values()}
    return Paper(faults=tuple(faults[sealed] for sealed in kept.pop("sealed")), **kept)


def _seal(salt: str, fault: Fault) -> str:
    """Return what the progress file says in place of the fault's name. The learner could read a name there."""
    return sha256(f"{salt}{fault.id}".encode()).hexdigest()


def _next_number(stands: progress.Examined | None) -> int:
    """Return the new examination's number. The lab counts as well, for who deletes the progress file."""
    if not is_live():
        return 1
    file = Folder.find().path / "examinations"
    counted_by_lab = int(file.read_text()) if file.is_file() else 0
    number = max(counted_by_lab, stands["number"] if stands else 0) + 1
    Folder.find().write_private(file, str(number).encode())
    return number


def _take_out(lab: "Workspace") -> None:
    if breaking.is_broken(lab):
        breaking.mend(lab)
