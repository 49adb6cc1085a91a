"""Sort findings. A step's check, a notebook and the doctor's report show them in the same order."""

from collections.abc import Iterable
from dataclasses import replace

from labkit.doctor.evidence import Evidence, NotRead
from labkit.doctor.finding import SEVERITIES, Cause, Finding, look_for
from labkit.doctor.repairs.repair import Repair
from labkit.doctor.stages import ANNOTATION, PERMISSIONS, PROVIDER, ROLE, STAGES, WEBHOOK

OF_NO_POD = (ANNOTATION, PROVIDER, ROLE, PERMISSIONS)


def found(causes: Iterable[Cause], evidence: Evidence, unread: list[NotRead] | None = None) -> list[Finding]:
    """Return the findings of these causes, sorted by `in_order`.

    If a cause can't read a fact, add its `NotRead` to the list `unread`. Without this list, raise the first `NotRead`.
    """
    outcomes = [outcome for _, outcome in look_for(causes, evidence)]
    lacking = [outcome for outcome in outcomes if isinstance(outcome, NotRead)]
    if unread is not None:
        unread += lacking
    elif lacking:
        raise lacking[0]
    return in_order(outcome for outcome in outcomes if isinstance(outcome, Finding))


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return each finding once, in the order in which the user should run the repairs.

    Errors come first. Among findings of the same severity, repairs that replace pods come after repairs that affect
    new pods. A repair leaves out the parts that an earlier repair has done.
    """
    ordered = sorted(_each_once(findings), key=_place)
    done: dict[str, str] = {}
    told = []
    for number, finding in enumerate(ordered, 1):
        later = [each.repaired_by for each in ordered[number:] if each.severity == finding.severity]
        told.append(replace(finding, repaired_by=finding.repaired_by.without(done).before(later)))
        done = dict.fromkeys(finding.repaired_by.does, finding.id) | done
    return told


def _each_once(findings: Iterable[Finding]) -> list[Finding]:
    """Merge equal findings, such as several pods' findings about the same role."""
    told: dict[Finding, Repair] = {}
    for finding in findings:
        same = replace(finding, repaired_by=Repair(())) if finding.stage in OF_NO_POD else finding
        told[same] = told[same].also(finding.repaired_by) if same in told else finding.repaired_by
    return [replace(finding, repaired_by=repair) for finding, repair in told.items()]


def _place(finding: Finding) -> tuple[int, int, int]:
    """Return a finding's sort key, made from the severity, the repair and the stage."""
    stage, repair = STAGES.index(finding.stage), finding.repaired_by
    when = 2 if stage > STAGES.index(WEBHOOK) else 1 if repair.makes_pods else 0
    return SEVERITIES.index(finding.severity), 3 if repair.waits else when, stage
