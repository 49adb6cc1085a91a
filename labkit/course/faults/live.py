"""Read a lab's documents into a `Situation`, and change a lab to match a `Situation`."""

from typing import TYPE_CHECKING

from labkit.course.faults import aws, kubernetes
from labkit.course.faults.situation import Situation

if TYPE_CHECKING:
    from labkit.workspace import Workspace


def read(lab: "Workspace", *others: Situation) -> Situation:
    """Return the present state of the run as a situation.

    Read AWS's documents in the run's own account, and in the accounts of the situations in `others`.

    The result's `registration` is copied from `others[0]`. If `others` is empty, or if `others[0]` has no
    registration, it is read from the cluster.
    """
    situation = Situation(
        parameters=lab.parameters,
        issuer=lab.issuer,
        account_id=lab.account_id,
        partition=lab.connection.partition,
        image=lab.image,
    )
    aws.read_documents(lab, situation, {lab.account_id}.union(*(other.accounts for other in others)))
    kubernetes.read_objects(lab, situation, others[0].registration if others else None)
    return situation


def make(lab: "Workspace", now: Situation, wanted: Situation) -> None:
    """Change the lab from the state `now` to the state `wanted`, and wait until the new pods run.

    If `wanted.fails_to_start`, the wait for a pod also ends when the pod fails.
    Raises `LabError` if the lab can't be changed.
    """
    aws.make(lab, now, wanted)
    kubernetes.make(lab, now, wanted)
    aws.associate(lab, wanted)
