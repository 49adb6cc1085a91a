"""The evidence that the doctor reads in a running lab, and its findings."""

from labkit import Lab
from labkit.course.faults import Situation
from labkit.doctor.evidence import Evidence, Reads
from labkit.doctor.examination import examine
from labkit.doctor.report import Diagnosis


def evidence(lab: Lab, situation: Situation, *, probe: bool = False) -> Evidence:
    """The evidence that `labkit doctor --pod …` reads in the lab, about the situation's pod."""
    return Evidence(
        lab.parameters,
        lab.connection,
        pod_name=situation.pod["metadata"].get("name", ""),
        role_is_known=False,
        action="s3:ListBucket",
        resource=f"arn:aws:s3:::{lab.parameters.bucket}",
        probe=probe,
        reads=Reads(),
    )


def found(evidence: Evidence, *also: str) -> list[str]:
    """The findings' ids in order: all errors and warnings, but only the notes with an id in `also`."""
    return ids(examine(evidence), *also)


def ids(diagnosis: Diagnosis, *also: str) -> list[str]:
    """The ids of a diagnosis's findings in order: all errors and warnings, but only the notes with an id in `also`."""
    findings = diagnosis.findings
    return [finding.id for finding in findings if finding.severity != "note" or finding.id in also]
