"""The examination of notebook 98: faults drawn in a row, told by their symptoms, and judged by the live lab.

A repair that opens the role too far is refused, too: the judge also asks for a neighbour, for another namespace, and
for a write that the role isn't meant to make. If the lab itself repairs a fault, it counts as given up. Deleting and
creating a resource again costs points. Both repair a fault that nobody has found.

Where progress is kept, each event keeps how the examination stands, and another kernel goes on with it.
"""

import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from labkit import faults, steps
from labkit.connection import core_api
from labkit.diagnosis.evidence import Evidence
from labkit.doctor.examination import examine
from labkit.emulator.folder import Folder
from labkit.errors import LabError
from labkit.exercises import asking, progress
from labkit.faults import Fault, breaking, report
from labkit.run_parameters import label_value
from labkit.showing import doing, is_live, left_aligned, stable, table
from labkit.steps.ownership import existing
from labkit.steps.row import Row
from labkit.widgets.check import Check

if TYPE_CHECKING:
    from labkit.workspace import Workspace

SEED = 5709  # where outputs are compared, every run draws the same faults
POINTS, PER_ATTEMPT, FOR_THE_DOCTOR, PER_REBUILT = 10, 2, 5, 3
SECRET = ("fault", "cause")  # of a paper; the file of progress doesn't hold them
REFUSED = "refused"
CERTIFICATE = "certificate.txt"
NO_NAME = "It shows what the lab saw. It doesn't say who took the examination."


@dataclass
class Paper:
    """What the lab saw of one fault."""

    fault: Fault
    began: float = 0
    """Seconds since 1970; 0 before it was put in."""
    ended: float = 0
    attempts: int = 0
    doctor: bool = False
    """Whether the doctor or a step's check was asked: a check shows the same findings."""
    repaired: bool = False
    there: dict[str, str] = field(default_factory=dict)
    """The run's resources after the fault, each with its id, which changes if somebody creates it again."""
    rebuilt: list[str] = field(default_factory=list)
    """The resources that the learner deleted and created again."""
    cause: str = ""
    """The doctor's sentence about the fault; never kept in a file, where a learner could read it."""

    @property
    def points(self) -> int:
        """10 for a repair at the first attempt without the doctor, at least 1 for any repair."""
        if not self.repaired:
            return 0
        lost = PER_ATTEMPT * (self.attempts - 1) + FOR_THE_DOCTOR * self.doctor + PER_REBUILT * len(self.rebuilt)
        return max(1, POINTS - lost)

    @property
    def cells(self) -> tuple[str, ...]:
        """Fault, outcome, attempts, doctor, what was created again, time, points."""
        if not self.ended:
            return "not told yet" if self.began else "not drawn yet", "open", str(self.attempts or ""), "", "", "", "0"
        minutes, seconds = divmod(round(self.ended - self.began), 60)
        outcome = "repaired" if self.repaired else "given up"
        asked = "asked" if self.doctor else "not asked"
        again = ", ".join(self.rebuilt) or "nothing"
        return self.fault.id, outcome, str(self.attempts), asked, again, f"{minutes}:{seconds:02}", str(self.points)


HEAD = ("fault", "outcome", "attempts", "doctor", "created again", "time", "points")


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
        return rows if is_live() else [(*row[:5], row[5] and "<time>", row[6]) for row in rows]

    def __repr__(self) -> str:
        return stable(self.as_text(self._shown))

    def _repr_html_(self) -> str:
        told = f"<p><strong>{self.headline}</strong></p>{table(self._shown, HEAD)}<p>{stable(self.about)}</p>"
        return left_aligned(told)


class Examination:
    """Drawn faults, one after the other: repair each, and hand it in."""

    def __init__(self, lab: "Workspace", *, seed: int | None = None, count: int = 10):
        self._lab = lab
        if seed is None and (left := _left(lab)):
            self.seed, self._papers = left
            self._go_on()
            return
        if seed is None:
            seed = random.randrange(10_000) if is_live() else SEED  # noqa: S311 - nothing is kept secret by it
        self.seed = seed
        self._papers = [Paper(fault) for fault in faults.drawn_in_a_row(seed, count)]
        self._put_in()

    def hand_in(self) -> None:
        """Judge the repair by the live lab, and print the result; if it's right, name the cause and go on.

        Raises `LabError` after the last fault.
        """
        paper = self._open()
        if self._is_spoilt(paper):
            return
        paper.attempts += 1
        with doing("Judging your repair"):
            check = Check("examination", self._title(paper), list(_rows(self._lab)), [])
        print(check)
        if not check:
            self._keep()
            return
        now = _ids(self._lab)
        paper.rebuilt = [what for what, id in paper.there.items() if now.get(what) != id]
        if paper.rebuilt:
            print(f"You deleted and created again: {', '.join(paper.rebuilt)}. That costs {PER_REBUILT} points each.")
        print(_named(paper))
        self._close(paper, repaired=True)

    def give_up(self) -> None:
        """Name the fault and its cause, take it out, and go on to the next one.

        Raises `LabError` after the last fault.
        """
        paper = self._open()
        print(_named(paper))
        self._close(paper, repaired=False)

    def certificate(self) -> Certificate:
        """What the lab saw so far: faults, seed, times, attempts, and whether the doctor was asked. Also a file."""
        name = os.environ.get(progress.VARIABLE)
        file = Path(name).with_name(CERTIFICATE) if name else Folder.find().path / CERTIFICATE
        made = Certificate(self.seed, self._papers, file)
        try:
            file.write_text(made.as_text([paper.cells for paper in self._papers]) + "\n")
        except OSError as error:
            print(f"The certificate could not be saved as {file.name}: {error.strerror}.")
        return made

    def _open(self) -> Paper:
        paper = next((paper for paper in self._papers if not paper.ended), None)
        if paper is None:
            raise LabError("The examination is over.", where="this cell", next="exam.certificate()")
        return paper

    def _is_spoilt(self, paper: Paper) -> bool:
        """Whether the fault isn't there to be repaired any more; if so, go on to the next one."""
        if paper.fault.id in breaking.faults_in(self._lab) and not _by_the_lab(self._lab).exists():
            return False
        print(f"The lab itself changed this run, so the fault counts as given up. {_named(paper)}")
        self._close(paper, repaired=False)
        return True

    def _go_on(self) -> None:
        points, paper = sum(paper.points for paper in self._papers), self._open()
        print(f"Your examination goes on: seed {self.seed}, {self._title(paper)}, {points} points so far.")
        print(f"To drop it and begin another one:  lab.examination(seed={self.seed + 1})")
        if not paper.began:
            self._put_in()
        elif not self._is_spoilt(paper):
            paper.cause = _cause(self._lab, paper.fault)
            self._tell(paper)

    def _close(self, paper: Paper, *, repaired: bool) -> None:
        paper.ended, paper.repaired, paper.doctor = time.time(), repaired, _asked(self._lab)
        self._keep()
        if any(not each.ended for each in self._papers):
            print()
            self._put_in()
        else:
            _take_out(self._lab)
            print("\nThat was the last fault. Next:  exam.certificate()")

    def _put_in(self) -> None:
        paper = self._open()
        with doing(f"Preparing {self._title(paper)}"):
            _take_out(self._lab)
            for _ in steps.ready_through(self._lab, "pod"):
                pass
            breaking.break_lab(self._lab, paper.fault)
            paper.there, paper.cause = _ids(self._lab), _cause(self._lab, paper.fault)
        for mark in (_mark(), _mark(self._lab), _by_the_lab(self._lab)):
            mark.unlink(missing_ok=True)
        paper.began = time.time()
        self._keep()
        self._tell(paper)

    def _tell(self, paper: Paper) -> None:
        print(f"{self._title(paper).capitalize()}. What happened: {paper.fault.description}")
        with doing("Asking AWS in the pod"):
            said = breaking.what_aws_says(self._lab)
        for command, answer in said or [("kubectl get pod", "no pod runs")]:
            print(f"$ {command}\n{stable(answer)}")

    def _title(self, paper: Paper) -> str:
        return f"fault {self._papers.index(paper) + 1} of {len(self._papers)}"

    def _keep(self) -> None:
        stands = progress.Examined(
            run=self._lab.run,
            seed=self.seed,
            points=sum(paper.points for paper in self._papers),
            most=POINTS * len(self._papers),
            left=sum(not paper.ended for paper in self._papers),
            papers=[{k: seen for k, seen in vars(paper).items() if k not in SECRET} for paper in self._papers],
        )
        progress.kept("examined", progress.EXAMINATION, examination=stands)


def _left(lab: "Workspace") -> tuple[int, list[Paper]] | None:
    """The seed and the papers of this run's examination, if the learner's last one is open."""
    stands = progress.read().examination if os.environ.get(progress.VARIABLE) else None
    if not stands or not stands["left"] or stands["run"] != lab.run:
        return None
    try:
        # The file names no fault: whoever looks into it learns none.
        drawn = faults.drawn_in_a_row(stands["seed"], len(stands["papers"]))
        return stands["seed"], [Paper(fault, **seen) for fault, seen in zip(drawn, stands["papers"], strict=True)]
    except (TypeError, KeyError, ValueError):
        print("Your examination is from another version of labkit, so a new one begins.")
        return None


def _cause(lab: "Workspace", fault: Fault) -> str:
    """The doctor's sentence about a fault that is in the run; empty if it's repaired already."""
    bucket = f"arn:{lab.connection.partition}:s3:::{lab.parameters.bucket}"
    evidence = Evidence(
        lab.parameters, lab.connection, action="s3:ListBucket", resource=bucket, probe=fault.needs_probe
    )
    found = examine(evidence).findings
    return next((each.summary for each in found if each.id in (fault.finding, *fault.seen_as)), "")


def _named(paper: Paper) -> str:
    return f"It was {paper.fault.id}. {paper.cause}".rstrip()


def note_the_doctor(lab: "Workspace | None" = None) -> None:
    """Note for a running examination that the doctor was asked: about this run, or without `lab` about any run."""
    if (mark := _mark(lab)).parent.is_dir():
        mark.touch()


def note_the_lab(lab: "Workspace") -> None:
    """Note that the lab itself changes this run, so that the fault of an examination counts as given up."""
    if (mark := _by_the_lab(lab)).parent.is_dir():
        mark.touch()


def _by_the_lab(lab: "Workspace") -> Path:
    return Folder.find().path / f"by-the-lab-{label_value(lab.run)}"


def _mark(lab: "Workspace | None" = None) -> Path:
    return Folder.find().path / (f"doctor-asked-{label_value(lab.run)}" if lab else "doctor-asked")


def _asked(lab: "Workspace") -> bool:
    return _mark().exists() or _mark(lab).exists()


def _take_out(lab: "Workspace") -> None:
    if breaking.faults_in(lab):
        breaking.mend(lab)


def _ids(lab: "Workspace") -> dict[str, str]:
    """What of the run exists, with the id or date that it gets when it's made."""
    iam, names = lab.aws.client("iam"), lab.parameters
    found: dict[str, Any] = {}
    with suppress(iam.exceptions.NoSuchEntityException):
        provider = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=lab.provider_arn)
        found["the OIDC provider"] = provider["CreateDate"]
    with suppress(iam.exceptions.NoSuchEntityException):
        found["the IAM role"] = iam.get_role(RoleName=names.role_name)["Role"]["RoleId"]
    read = partial(core_api(lab.kubernetes).read_namespaced_service_account, names.service_account, names.namespace)
    if account := existing(read):
        found["the service account"] = account.metadata.uid
    return {what: str(id) for what, id in found.items()}


def _rows(lab: "Workspace") -> Iterator[Row]:
    found = report.of(lab)
    yield Row("the pod and its role", "mended", "mended" if found else "not mended yet")
    if not found:
        return
    account, namespace, added = lab.parameters.service_account, lab.parameters.namespace, uuid4().hex[:8]
    yield _refused("a neighbour in the namespace", asking.newcomer(lab, f"{account}-{added}", namespace))
    elsewhere = f"{namespace[:54]}-{added}"  # a namespace's name has at most 63 characters
    yield _refused("the same name in another namespace", asking.newcomer(lab, account, elsewhere))
    bucket, key = lab.parameters.bucket, "examination.txt"
    row = asking.denies(lab, "a write to the bucket", "s3", "put_object", Bucket=bucket, Key=key, Body=b"")
    yield Row(row.what, REFUSED, REFUSED if row.right else row.found)


def _refused(what: str, found: str) -> Row:
    return Row(what, REFUSED, found if found == asking.ADMITTED else REFUSED)
