"""A lab for one module of tests, healthy and with nobody else in it: what others leave behind is a finding, too."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit import Lab
from labkit.doctor import examine
from labkit.emulator import process
from labkit.emulator.folder import Folder
from labkit.evidence import Evidence, Reads
from labkit.faults import Situation


@contextmanager
def own_lab(path: Path) -> Iterator[Lab]:
    """A lab of its own in this folder, ready through the pod; the folder is LABKIT_HOME meanwhile."""
    before = os.environ.get("LABKIT_HOME")
    os.environ["LABKIT_HOME"] = str(path)
    try:
        with Lab.open() as lab:
            lab.ready(through="pod")
            yield lab
    finally:
        process.stop(Folder(path))
        os.environ.pop("LABKIT_HOME")
        if before is not None:
            os.environ["LABKIT_HOME"] = before


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
    findings = examine(evidence).findings
    return [finding.id for finding in findings if finding.severity != "note" or finding.id in also]
