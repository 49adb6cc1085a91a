"""What the doctor reads of a lab that runs, and what it finds."""

from labkit import Lab
from labkit.diagnosis.evidence import Evidence, Reads
from labkit.doctor.examination import examine
from labkit.doctor.report import Diagnosis
from labkit.faults import Situation


def evidence(lab: Lab, situation: Situation, *, probe: bool = False) -> Evidence:
    """What `labkit doctor --pod …` reads of the lab, which is as the situation says."""
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
    """The ids of the findings, in their order: errors and warnings, and of the notes these alone."""
    return ids(examine(evidence), *also)


def ids(diagnosis: Diagnosis, *also: str) -> list[str]:
    """The ids of a diagnosis's findings, in their order: errors and warnings, and of the notes these alone."""
    findings = diagnosis.findings
    return [finding.id for finding in findings if finding.severity != "note" or finding.id in also]
