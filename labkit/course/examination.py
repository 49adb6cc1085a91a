"""The examination of notebook 98: random faults, one after the other. The learner sees only the symptoms of each fault.

The live lab judges each repair. A repair is wrong if STS also admits another service account, or if the role may write
to the bucket.

If a lab command, such as `labkit mend`, changes the run, the fault counts as given up. If the learner deletes a
resource and creates it again, that costs points.

The learner's progress file also holds the examination's state, so that another kernel can continue the examination.
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

from labkit import steps
from labkit.connection import core_api
from labkit.course import faults, progress
from labkit.course.exercises import asking
from labkit.course.faults import Fault, breaking, report
from labkit.course.widgets.check import Check
from labkit.doctor import Comparison, Evidence, examine
from labkit.errors import LabError
from labkit.run_parameters import label_value
from labkit.showing import doing, is_live, left_aligned, stable, table
from labkit.simulator import Folder
from labkit.steps.ownership import existing

if TYPE_CHECKING:
    from labkit.workspace import Workspace

SEED = 5709  # for runs with compared outputs: all of them draw the same faults
POINTS, PER_ATTEMPT, FOR_THE_DOCTOR, PER_REBUILT = 10, 2, 5, 3
SECRET = ("fault", "cause")  # the fields of a `Paper` that the progress file leaves out
REFUSED = "refused"
CERTIFICATE = "certificate.txt"
NO_NAME = "This certificate shows what the lab saw. It doesn't say who took the examination."


@dataclass
class Paper:
    """The record of one fault in an examination."""

    fault: Fault
    began: float = 0
    """The time when the fault was put into the run, in seconds since 1970; 0 if it hasn't been put in yet."""
    ended: float = 0
    attempts: int = 0
    doctor: bool = False
    """Whether the learner used the doctor. A step's check counts as well, because it shows the same findings."""
    repaired: bool = False
    there: dict[str, str] = field(default_factory=dict)
    """The ids that the run's resources had when the fault was put in, by the resource's name.

    A resource that is deleted and created again gets a new id.
    """
    rebuilt: list[str] = field(default_factory=list)
    """The names of the resources that the learner deleted and created again."""
    cause: str = ""
    """The doctor's sentence about the fault. It isn't saved, because the learner could read it in the file."""

    @property
    def points(self) -> int:
        """The points for this fault: from 1 to 10 for a repair, and 0 without a repair.

        Further attempts, the use of the doctor, and each resource that was created again cost points.
        """
        if not self.repaired:
            return 0
        lost = PER_ATTEMPT * (self.attempts - 1) + FOR_THE_DOCTOR * self.doctor + PER_REBUILT * len(self.rebuilt)
        return max(1, POINTS - lost)

    @property
    def cells(self) -> tuple[str, ...]:
        """The fault's row in the table of the certificate. `HEAD` has the names of the columns."""
        if not self.ended:
            return "not named yet" if self.began else "not begun yet", "open", str(self.attempts or ""), "", "", "", "0"
        minutes, seconds = divmod(round(self.ended - self.began), 60)
        outcome = "repaired" if self.repaired else "given up"
        doctor = "asked" if self.doctor else "not asked"
        again = ", ".join(self.rebuilt) or "nothing"
        return self.fault.id, outcome, str(self.attempts), doctor, again, f"{minutes}:{seconds:02}", str(self.points)


HEAD = ("fault", "outcome", "attempts", "doctor", "created again", "time", "points")


@dataclass(frozen=True, repr=False)
class ExaminationCertificate:
    """The result of an examination, so far or at its end."""

    seed: int
    papers: list[Paper]
    file: Path

    @property
    def headline(self) -> str:
        """The seed and the score. With the seed, anyone can draw the same faults."""
        score = sum(paper.points for paper in self.papers)
        return f"IRSA lab, examination with seed {self.seed}: {score} of {POINTS * len(self.papers)} points"

    @property
    def about(self) -> str:
        """When the examination began and ended, and a note that the certificate doesn't prove who took it."""
        began, ended = (
            time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
            for at in (self.papers[0].began, max(paper.ended for paper in self.papers) or time.time())
        )
        return f"From {began} to {ended}. {NO_NAME}"

    def as_text(self, rows: list[tuple[str, ...]]) -> str:
        """Return the certificate as text, with these rows in its table."""
        lines = [HEAD, *rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
        aligned = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        return "\n".join([self.headline, *aligned, self.about])

    @property
    def _shown(self) -> list[tuple[str, ...]]:
        rows = [paper.cells for paper in self.papers]
        return rows if is_live() else [(*row[:5], row[5] and "<time>", row[6]) for row in rows]

    def __repr__(self) -> str:
        return stable(self.as_text(self._shown))

    def _repr_html_(self) -> str:
        html = f"<p><strong>{self.headline}</strong></p>{table(self._shown, HEAD)}<p>{stable(self.about)}</p>"
        return left_aligned(html)


class Examination:
    """Random faults, one after the other. Repair each fault, and hand in the repair."""

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
        """Let the live lab judge the repair, and print the result. If the repair is right, put in the next fault.

        Raises `LabError` if the examination is over.
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
            print(f"You deleted and created again: {', '.join(paper.rebuilt)}. Each costs {PER_REBUILT} points.")
        print(_named(paper))
        self._close(paper, repaired=True)

    def give_up(self) -> None:
        """Print the fault and its cause, take the fault out, and put in the next fault.

        Raises `LabError` if the examination is over.
        """
        paper = self._open()
        print(_named(paper))
        self._close(paper, repaired=False)

    def certificate(self) -> ExaminationCertificate:
        """Return a certificate of the result so far, and save it as a text file."""
        name = os.environ.get(progress.VARIABLE)
        file = Path(name).with_name(CERTIFICATE) if name else Folder.find().path / CERTIFICATE
        made = ExaminationCertificate(self.seed, self._papers, file)
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
        """Return whether a lab command changed the run.

        In that case, this method also closes the paper, and the fault counts as given up.
        """
        if paper.fault.id in breaking.faults_in(self._lab) and not _by_the_lab(self._lab).exists():
            return False
        print(f"A lab command, such as labkit mend, changed this run, so the fault counts as given up. {_named(paper)}")
        self._close(paper, repaired=False)
        return True

    def _go_on(self) -> None:
        points, paper = sum(paper.points for paper in self._papers), self._open()
        print(f"Your examination goes on: seed {self.seed}, {self._title(paper)}, {points} points so far.")
        print(f"To drop this examination and begin another one:  lab.examination(seed={self.seed + 1})")
        if not paper.began:
            self._put_in()
        elif not self._is_spoilt(paper):
            paper.cause = _cause(self._lab, paper.fault)
            self._tell(paper)

    def _close(self, paper: Paper, *, repaired: bool) -> None:
        paper.ended, paper.repaired = time.time(), repaired
        paper.doctor = _mark().exists() or _mark(self._lab).exists()
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
    """Return the seed of the learner's unfinished examination, and a paper for each fault."""
    stands = progress.read().examination if os.environ.get(progress.VARIABLE) else None
    if not stands or not stands["left"] or stands["run"] != lab.run:
        return None
    try:
        # The progress file doesn't name the faults, because the learner could read it. The seed draws them again.
        drawn = faults.drawn_in_a_row(stands["seed"], len(stands["papers"]))
        return stands["seed"], [Paper(fault, **seen) for fault, seen in zip(drawn, stands["papers"], strict=True)]
    except (TypeError, KeyError, ValueError):
        print("Your examination is from another version of labkit, so a new one begins.")
        return None


def _cause(lab: "Workspace", fault: Fault) -> str:
    bucket = f"arn:{lab.connection.partition}:s3:::{lab.parameters.bucket}"
    evidence = Evidence(
        lab.parameters, lab.connection, action="s3:ListBucket", resource=bucket, probe=fault.needs_probe
    )
    findings = examine(evidence).findings
    return next((each.summary for each in findings if each.id in (fault.finding, *fault.seen_as)), "")


def _named(paper: Paper) -> str:
    return f"It was {paper.fault.id}. {paper.cause}".rstrip()


def note_the_doctor(lab: "Workspace | None" = None) -> None:
    """Record that the learner used the doctor. Without `lab`, the record counts for every run."""
    if (mark := _mark(lab)).parent.is_dir():
        mark.touch()


def note_the_lab(lab: "Workspace") -> None:
    """Record that a lab command changes this run. In an examination, the fault then counts as given up."""
    if (mark := _by_the_lab(lab)).parent.is_dir():
        mark.touch()


def _by_the_lab(lab: "Workspace") -> Path:
    return Folder.find().path / f"by-the-lab-{label_value(lab.run)}"


def _mark(lab: "Workspace | None" = None) -> Path:
    return Folder.find().path / (f"doctor-asked-{label_value(lab.run)}" if lab else "doctor-asked")


def _take_out(lab: "Workspace") -> None:
    if breaking.faults_in(lab):
        breaking.mend(lab)


def _ids(lab: "Workspace") -> dict[str, str]:
    """Return ids that change if the learner deletes a resource and creates it again."""
    iam, names = lab.aws.client("iam"), lab.parameters
    ids: dict[str, Any] = {}
    with suppress(iam.exceptions.NoSuchEntityException):
        provider = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=lab.provider_arn)
        ids["the OIDC provider"] = provider["CreateDate"]
    with suppress(iam.exceptions.NoSuchEntityException):
        ids["the IAM role"] = iam.get_role(RoleName=names.role_name)["Role"]["RoleId"]
    read = partial(core_api(lab.kubernetes).read_namespaced_service_account, names.service_account, names.namespace)
    if account := existing(read):
        ids["the service account"] = account.metadata.uid
    return {what: str(id) for what, id in ids.items()}


def _rows(lab: "Workspace") -> Iterator[Comparison]:
    mended = report.mend_report(lab)
    yield Comparison("the pod and its role", "mended", "mended" if mended else "not mended yet")
    if not mended:
        return
    account, namespace = lab.parameters.service_account, lab.parameters.namespace
    yield _refused("a neighbour in the namespace", asking.newcomer(lab, asking.lookalike(account), namespace))
    elsewhere = asking.newcomer(lab, account, asking.lookalike(namespace))
    yield _refused("the same name in another namespace", elsewhere)
    bucket, key = lab.parameters.bucket, "examination.txt"
    row = asking.denies(lab, "a write to the bucket", "s3", "put_object", Bucket=bucket, Key=key, Body=b"")
    yield Comparison(row.what, REFUSED, REFUSED if row.right else row.found)


def _refused(what: str, answer: str) -> Comparison:
    return Comparison(what, REFUSED, answer if answer == asking.ADMITTED else REFUSED)
