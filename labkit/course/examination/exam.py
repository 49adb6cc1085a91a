"""The examination itself: puts each task's faults in, takes the learner's guess, and asks whether they're mended.

If a lab command, such as `labkit mend`, changes the run, the task counts as given up. If the learner deletes a resource
and creates it again, that costs points.
"""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from labkit import steps
from labkit.course import progress
from labkit.course.examination import certificate, judging, marks, state
from labkit.course.examination.certificate import FILE, ExaminationCertificate
from labkit.course.examination.draw import LEVELS, PARTS, demonstration, draw, parts
from labkit.course.examination.paper import FREE, PER_ATTEMPT, PER_REBUILT, POINTS, Paper
from labkit.course.examination.result import ExaminationResult
from labkit.course.exercises import surplus
from labkit.course.faults import CATALOGUE, Situation, breaking
from labkit.errors import LabError, UnknownName
from labkit.policy import Policy
from labkit.showing import counted, doing, is_live, stable
from labkit.simulator import Folder

if TYPE_CHECKING:
    from labkit.workspace import Workspace


class Examination:
    """Ten tasks, one after the other. Name the broken part of each, repair it, and ask whether it's mended."""

    def __init__(self, lab: "Workspace", *, again: bool = False):
        self._lab = lab
        self._healthy = Situation.wanted(lab.parameters, lab.connection, lab.connection.webhook_registration())
        last = state.read()
        if last and last.run == lab.run and not again and (last.left or is_live()):
            self._result = last
            self._go_on()
            return
        papers = [Paper(task.level, tuple(fault.id for fault in task.faults)) for task in demonstration()]
        if is_live():
            papers = [Paper(level) for level, count in LEVELS.items() for _ in range(count)]
        self._result = ExaminationResult(lab.run, state.next_number(last), papers)
        levels = [paper.level for paper in papers]
        counts = (f"{levels.count(level)} {level}" for level in LEVELS if level in levels)
        print(f"Examination {self._result.number}: {', '.join(counts)}.")
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
            broken = self._healthy
            for name in paper.faults:
                broken = CATALOGUE[name].put_into(broken)
            policy = Policy.read(broken.role.get("AssumeRolePolicyDocument", {}), kind="trust", name="broken")
            is_mended = judging.is_mended(self._lab, *surplus.named(policy))
        if not is_mended:
            self._keep()
            cost = f"costs {PER_ATTEMPT} point" if paper.attempts >= FREE else "costs nothing"
            print(f"✗ not yet: {self._title} isn't mended. To ask again {cost}.")
            return
        now = judging.ids(self._lab)
        paper.rebuilt = [what for what, id in paper.there.items() if now.get(what) != id]
        self._close(paper, repaired=True, said=f"✓ yes: {self._title} is mended.")

    def give_up(self) -> None:
        """Name the causes, take the faults out, and begin the next task. Raises `LabError` if all tasks are done."""
        self._close(self._begun(), repaired=False, said="You gave up.")

    def result(self) -> ExaminationResult:
        """Return the points so far."""
        return self._result.without_answers()

    def certificate(self, name: str = "") -> ExaminationCertificate:
        """Return a signed certificate with this name, and save it as `certificate.svg`.

        Raises `LabError` if the examination isn't over, if it has less than 70 of 100 points, or without a name.
        """
        made = state.signed(certificate.claims(self._result, name))
        learner = os.environ.get(progress.VARIABLE)
        made.save((Path(learner).parent if learner else Folder.find().path) / FILE)
        return made

    def _begun(self) -> Paper:
        """Return the open task. Raises `LabError` if all tasks are done, or if another kernel has gone on."""
        last = state.read()
        if last:
            if (last.number, last.left) != (self._result.number, self._result.left):
                raise LabError(
                    "This examination went on in another notebook, or a new one began there.",
                    where="this kernel",
                    next="exam = lab.examination()",
                )
            self._result = last  # with the questions that another kernel asked
        return self._open()

    def _open(self) -> Paper:
        paper = next((paper for paper in self._result.papers if not paper.ended), None)
        if paper is None:
            raise LabError("The examination is over.", where="this cell", next='exam.certificate("Your name")')
        return paper

    def _is_spoilt(self, paper: Paper) -> bool:
        """Return whether a lab command changed the run. Then close the paper, too: the task counts as given up."""
        there = set(breaking.faults_in(self._lab, of_an_examination=True))
        if set(paper.faults) <= there and not marks.lab_changed(self._lab):
            return False
        said = "A lab command, such as labkit mend, changed this run, so the task counts as given up."
        self._close(paper, repaired=False, said=said)
        return True

    def _go_on(self) -> None:
        result = self._result
        if not result.left:
            print(f"Your examination {result.number} is over: {result.points} of {result.most} points.")
            print("To begin another one:  lab.examination(again=True)")
            return
        paper = self._open()
        print(f"Your examination {result.number} goes on: {self._title}, {result.points} points so far.")
        print("To drop this examination and begin another one:  lab.examination(again=True)")
        if not paper.began:
            self._put_in()
        elif not self._is_spoilt(paper):
            self._tell()

    def _close(self, paper: Paper, *, repaired: bool, said: str) -> None:
        paper.ended, paper.repaired = time.time(), repaired
        paper.doctor = marks.doctor_was_used(self._lab)
        broken = [parts(CATALOGUE[name], self._healthy) for name in paper.faults]
        paper.named = sum(bool(each & set(paper.guesses)) for each in broken)
        at = self._result.papers.index(paper)
        self._keep()
        paper = self._result.papers[at]
        print(said)
        for name, part, cause in zip(paper.faults, broken, paper.causes or [""] * len(paper.faults), strict=True):
            print(f"  {' or '.join(sorted(part))}: {name}. {cause}".rstrip())
        print(f"  You named {', '.join(paper.guesses) or 'nothing'}: {paper.named} of {len(paper.faults)}.")
        if paper.rebuilt:
            print(f"  You deleted and created again: {', '.join(paper.rebuilt)}. Each costs {PER_REBUILT} points.")
        print(f"  {counted(paper.points, 'point')} of {POINTS}.\n")
        if self._result.left:
            self._put_in()
        else:
            _take_out(self._lab)
            print('That was the last task. Next:  exam.certificate("Your name")')

    def _put_in(self) -> None:
        paper = self._open()
        if not paper.faults:
            drawn = [name for each in self._result.papers for name in each.faults]
            paper.faults = tuple(fault.id for fault in draw(paper.level, drawn, self._healthy))
            self._keep()  # before anything is broken: a kernel that ends here can't draw again
            paper = self._open()
        with doing(f"Preparing {self._title}"):
            _take_out(self._lab)
            for _ in steps.ready_through(self._lab, "pod"):
                pass
            faults = [CATALOGUE[name] for name in paper.faults]
            for fault in faults:
                breaking.break_lab(self._lab, fault, of_an_examination=True)
            paper.there, paper.causes = judging.ids(self._lab), judging.causes(self._lab, faults)
        marks.forget(self._lab)
        paper.began = time.time()
        self._keep()
        self._tell()

    def _tell(self) -> None:
        paper = self._open()
        two = ": two parts are broken" if len(paper.faults) > 1 else ""
        print(f"{self._title.capitalize()} ({paper.level}{two}). In the pod:")
        with doing("Asking AWS in the pod"):
            said = breaking.what_aws_says(self._lab)
        for command, answer in said or [("kubectl get pod", "no pod runs")]:
            print(f"$ {command}\n{stable(answer)}")

    @property
    def _title(self) -> str:
        """The open task's place among all."""
        tasks = len(self._result.papers)
        return f"task {tasks - self._result.left + 1} of {tasks}"

    def _keep(self) -> None:
        self._result = state.keep(self._result)


def _take_out(lab: "Workspace") -> None:
    if breaking.is_broken(lab):
        breaking.mend(lab)
