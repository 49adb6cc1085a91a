"""The examination: faults drawn in a row, told by their symptoms alone, and judged by the live lab.

A repair that opens the role too far is refused, too: the judge also asks for a neighbour, for another namespace, and
for a write that the role isn't meant to make.
"""

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from labkit import faults, steps
from labkit.connection import core_api
from labkit.emulator.folder import Folder
from labkit.errors import LabError
from labkit.exercises import asking, progress
from labkit.faults import Fault, breaking, report
from labkit.showing import is_live, left_aligned, stable, table
from labkit.steps.row import Row
from labkit.widgets.check import Check

if TYPE_CHECKING:
    from labkit.workspace import Workspace

SEED = 5709  # where outputs are compared, every run draws the same faults
POINTS, PER_ATTEMPT, FOR_THE_DOCTOR = 10, 2, 5
REFUSED = "refused"
CERTIFICATE = "certificate.txt"
NO_NAME = "It shows what the lab saw. It doesn't say who sat there."


@dataclass
class Paper:
    """What the lab saw of one fault."""

    fault: Fault
    began: float = 0
    """Seconds since 1970; 0 before it was put in."""
    ended: float = 0
    attempts: int = 0
    doctor: bool = False
    """Whether the doctor was asked."""
    repaired: bool = False

    @property
    def points(self) -> int:
        """10 for a repair at the first attempt without the doctor, at least 1 for any repair."""
        if not self.repaired:
            return 0
        return max(1, POINTS - PER_ATTEMPT * (self.attempts - 1) - FOR_THE_DOCTOR * self.doctor)

    @property
    def cells(self) -> tuple[str, ...]:
        """Fault, outcome, attempts, doctor, time, points."""
        if not self.ended:
            return self.fault.id if self.began else "not drawn yet", "open", "", "", "", "0"
        minutes, seconds = divmod(round(self.ended - self.began), 60)
        outcome = "repaired" if self.repaired else "given up"
        asked = "asked" if self.doctor else "not asked"
        return self.fault.id, outcome, str(self.attempts), asked, f"{minutes}:{seconds:02}", str(self.points)


HEAD = ("fault", "outcome", "attempts", "doctor", "time", "points")


@dataclass(frozen=True, repr=False)
class Certificate:
    """What the lab saw of an examination; also kept as a file."""

    seed: int
    papers: list[Paper]
    file: Path

    @property
    def headline(self) -> str:
        """The score, and the seed by which anybody can draw the same faults."""
        score = sum(paper.points for paper in self.papers)
        return f"IRSA lab, examination with seed {self.seed}: {score} of {POINTS * len(self.papers)} points"

    @property
    def about(self) -> str:
        """When it began and ended, and what it doesn't say."""
        began, ended = (
            time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
            for at in (self.papers[0].began, max(paper.ended for paper in self.papers) or time.time())
        )
        return f"From {began} to {ended}. {NO_NAME}"

    def as_text(self, rows: list[tuple[str, ...]]) -> str:
        """The certificate as lines, with these rows."""
        lines = [HEAD, *rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
        told = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        return "\n".join([self.headline, *told, self.about])

    @property
    def _shown(self) -> list[tuple[str, ...]]:
        rows = [paper.cells for paper in self.papers]
        return rows if is_live() else [(*row[:4], row[4] and "<time>", row[5]) for row in rows]

    def __repr__(self) -> str:
        return stable(self.as_text(self._shown))

    def _repr_html_(self) -> str:
        told = f"<p><strong>{self.headline}</strong></p>{table(self._shown, HEAD)}<p>{stable(self.about)}</p>"
        return left_aligned(told)


class Examination:
    """Drawn faults, one after the other: repair each, and hand it in."""

    def __init__(self, lab: "Workspace", *, seed: int | None = None, count: int = 10):
        if seed is None:
            seed = random.randrange(10_000) if is_live() else SEED  # noqa: S311 - nothing is kept secret by it
        self.seed, self._lab = seed, lab
        self._papers = [Paper(fault) for fault in faults.drawn_in_a_row(seed, count)]
        self._put_in()

    def hand_in(self) -> None:
        """Judge the repair by the live lab, and print what it found; if it's right, go on to the next fault.

        Raises `LabError` after the last fault.
        """
        paper = self._open()
        if not breaking.faults_in(self._lab):
            print(f"lab.mend() has taken the fault out: it counts as given up. It was {paper.fault.id}.")
            self._close(paper, repaired=False)
            return
        paper.attempts += 1
        check = Check("examination", self._title(paper), list(_rows(self._lab)), [])
        print(check)
        if check:
            self._close(paper, repaired=True)

    def give_up(self) -> None:
        """Tell what the fault was, take it out, and go on to the next one. Raises `LabError` after the last fault."""
        paper = self._open()
        print(f"It was {paper.fault.id}: {paper.fault.description}")
        self._close(paper, repaired=False)

    def certificate(self) -> Certificate:
        """What the lab saw so far: faults, seed, times, attempts, and whether the doctor was asked. Also a file."""
        name = os.environ.get(progress.VARIABLE)
        file = Path(name).with_name(CERTIFICATE) if name else Folder.find().path / CERTIFICATE
        made = Certificate(self.seed, self._papers, file)
        try:
            file.write_text(made.as_text([paper.cells for paper in self._papers]) + "\n")
        except OSError as error:
            print(f"The certificate could not be kept as {file.name}: {error.strerror}.")
        return made

    def _open(self) -> Paper:
        paper = next((paper for paper in self._papers if not paper.ended), None)
        if paper is None:
            raise LabError("The examination is over.", where="this cell", next="exam.certificate()")
        return paper

    def _close(self, paper: Paper, *, repaired: bool) -> None:
        paper.ended, paper.repaired, paper.doctor = time.time(), repaired, _mark().exists()
        if any(not each.ended for each in self._papers):
            print()
            self._put_in()
        else:
            _take_out(self._lab)
            print("\nThat was the last fault. Next:  exam.certificate()")

    def _put_in(self) -> None:
        paper = self._open()
        _take_out(self._lab)
        for _ in steps.ready_through(self._lab, "pod"):
            pass
        breaking.break_lab(self._lab, paper.fault)
        _mark().unlink(missing_ok=True)
        paper.began = time.time()
        print(f"{self._title(paper).capitalize()}. What happened: {paper.fault.description}")
        for command, answer in breaking.what_aws_says(self._lab) or [("kubectl get pod", "no pod runs")]:
            print(f"$ {command}\n{stable(answer)}")

    def _title(self, paper: Paper) -> str:
        return f"fault {self._papers.index(paper) + 1} of {len(self._papers)}"


def note_the_doctor() -> None:
    """Note that the doctor was asked, in a notebook or a terminal, for the examination that may be going on."""
    if _mark().parent.is_dir():
        _mark().touch()


def _mark() -> Path:
    return Folder.find().path / "doctor-asked"


def _take_out(lab: "Workspace") -> None:
    if breaking.faults_in(lab):
        breaking.mend(lab)


def _rows(lab: "Workspace") -> Iterator[Row]:
    found = report.of(lab)
    yield Row("the pod and its role", "mended", "mended" if found else "not mended yet")
    if not found:
        return
    namespace = lab.parameters.namespace
    yield _refused(lab, "a neighbour in the namespace", f"neighbour-{uuid4().hex[:8]}", namespace)
    elsewhere = f"elsewhere-{uuid4().hex[:8]}"
    core = core_api(lab.kubernetes)
    core.create_namespace({"metadata": {"name": elsewhere}})
    try:
        yield _refused(lab, "the same name in another namespace", lab.parameters.service_account, elsewhere)
    finally:
        core.delete_namespace(elsewhere)
    row = asking.denies(lab, "s3", "put_object", Bucket=lab.parameters.bucket, Key="examination.txt", Body=b"")
    yield Row("a write to the bucket", REFUSED, REFUSED if row.right else row.found)


def _refused(lab: "Workspace", what: str, account: str, namespace: str) -> Row:
    core = core_api(lab.kubernetes)
    core.create_namespaced_service_account(namespace, {"metadata": {"name": account}})
    try:
        found = asking.exchange(lab, account, namespace=namespace)
    finally:
        core.delete_namespaced_service_account(account, namespace)
    return Row(what, REFUSED, found if found == asking.ADMITTED else REFUSED)
