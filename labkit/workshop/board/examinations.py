"""The class's examinations: the last one of each participant, where only root reads it, and the class's certificates.

A participant's lab judges the repairs, so the board can't see a lie about one. But it sees who sends, stamps the times,
and forgets no try, no question, no guess and no look at the doctor. A task stays as it was drawn and as it ended.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Literal
from urllib.parse import quote

from pydantic import TypeAdapter

from labkit.course.examination import ExaminationCertificate, ExaminationResult, Paper, claims, private_key
from labkit.errors import LabError
from labkit.workshop.settings import KEY_PRINT, Workshop

Mark = Literal["doctor", "lab"]


@dataclass
class Sent:
    """What a lab sends: an examination as it is now, a mark, or the name for a certificate. Nothing of these asks."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    result: ExaminationResult | None = None
    mark: Mark | None = None
    """The doctor was used, or a lab command changed the run."""
    name: str | None = None


@dataclass
class ClassRecord:
    """What the board knows of one participant."""

    result: ExaminationResult | None = None
    marks: list[Mark] = field(default_factory=list)
    """What the lab noted since the last task began."""
    passed: str = ""
    """The score of the last examination that was passed."""


SENT, RECORD, CERTIFICATE = TypeAdapter(Sent), TypeAdapter(ClassRecord), TypeAdapter(ExaminationCertificate)


class Examinations:
    """The examinations of one workshop."""

    def __init__(self, workshop: Workshop, clock: Callable[[], float] = time.time):
        self.workshop, self.folder, self.clock = workshop, workshop.state / "examinations", clock
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.key = private_key(workshop.state / "certificate-key.pem")  # which only root reads
        public = self.key.public_key().public_bytes_raw()
        (workshop.state / KEY_PRINT).write_text(sha256(public).hexdigest())
        self.kept = {file.stem: RECORD.validate_json(file.read_bytes()) for file in self.folder.glob("*.json")}

    def answer(self, who: str, sent: Sent) -> object:
        """Return the answer to a lab, as JSON. Raises `LabError` if the lab sends what an examination can't come to."""
        kept = self.kept.setdefault(who, ClassRecord())
        if sent.name is not None:
            if kept.result is None:
                raise LabError("You have no examination in this class.", next="exam = lab.examination()")
            signed = claims(kept.result, sent.name, workshop=self.workshop.title, participant=who)
            return CERTIFICATE.dump_python(ExaminationCertificate.signed(signed, self.key), mode="json")
        if sent.mark and sent.mark not in kept.marks:
            kept.marks.append(sent.mark)
            self._write(who)
        if sent.result:
            if not sent.result.is_of_a_draw or not sent.result.follows(kept.result):
                raise LabError("This examination went on in another notebook, or a new one began there.")
            self._go_on(kept, sent.result)
            self._write(who)
        return {"result": RECORD.dump_python(kept, mode="json")["result"]}

    def scores(self) -> dict[str, str]:
        """Return what the board shows of each participant's examination."""
        return {who: kept.passed or kept.result.score for who, kept in self.kept.items() if kept.result}

    def _go_on(self, kept: ClassRecord, sent: ExaminationResult) -> None:
        earlier = kept.result.papers if kept.result and kept.result.number == sent.number else [Paper("")] * 10
        papers = [self._stamped(paper, before, kept) for paper, before in zip(sent.papers, earlier, strict=True)]
        kept.result = replace(sent, papers=papers)
        if kept.result.is_passed:
            kept.passed = f"passed: {kept.result.score}"

    def _stamped(self, paper: Paper, before: Paper, kept: ClassRecord) -> Paper:
        """Return the record with the times of this machine's clock, and with what was noted since the task began."""
        if paper.began and not before.began:
            kept.marks = []
            return replace(paper, began=self.clock())
        if paper.ended and not before.ended:
            doctor, lab = (mark in kept.marks for mark in ("doctor", "lab"))
            return replace(
                paper, ended=self.clock(), doctor=paper.doctor or doctor, repaired=paper.repaired and not lab
            )
        return paper

    def _write(self, who: str) -> None:
        file = self.folder / f"{quote(who, safe='')}.json"
        draft = file.with_suffix(".draft")
        draft.touch(mode=0o600)
        draft.write_bytes(RECORD.dump_json(self.kept[who]))
        draft.replace(file)
