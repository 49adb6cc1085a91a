"""The IAM role: does it belong to another run of the lab? If so, nothing else is reported about the role."""

from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, kinds
from labkit.doctor.finding import Symptom, cause
from labkit.doctor.repairs.commands import Commands

LEARN = "02-iam-role.ipynb"


@cause("role-belongs-to-another-run", stages.ROLE, LEARN, reads=(kinds.ROLE,), ends=(stages.ROLE, stages.PERMISSIONS))
def of_another_run(evidence: Evidence) -> Symptom | None:
    """The role carries another run's tag. The lab never takes over such a role."""
    owner = evidence.aws.role_run
    if owner in (None, evidence.parameters.run) or not evidence.expected.role_is_known:
        return None
    return Symptom(
        summary=f"The role {evidence.parameters.role_name} belongs to another run of the lab: {owner}.",
        expected=f"labkit:run = {evidence.parameters.run}",
        found=f"labkit:run = {owner}",
        source="iam:GetRole, Tags",
        repair=f"# choose another role_name; this shows the role's owner:\n{Commands(evidence).list_role_tags()}",
    )
