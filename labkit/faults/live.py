"""A lab read as a situation, and a lab made as a situation says."""

from typing import TYPE_CHECKING

from labkit.faults import aws, kubernetes
from labkit.faults.situation import Situation

if TYPE_CHECKING:
    from labkit.workspace import Workspace


def read(lab: "Workspace", *others: Situation) -> Situation:
    """The run's documents as they are, also those in the accounts in which these others have something.

    How the webhook is reached is taken from the first of the others; alone, from its registration as it is.
    """
    situation = Situation(
        parameters=lab.parameters,
        issuer=lab.issuer,
        account_id=lab.account_id,
        partition=lab.connection.partition,
        image=lab.image,
    )
    aws.read(lab, situation, {lab.account_id}.union(*(other.accounts for other in others)))
    kubernetes.read(lab, situation, others[0].registration if others else None)
    return situation


def make(lab: "Workspace", now: Situation, wanted: Situation) -> None:
    """Change the lab from the state `now` to the state `wanted`.

    Returns when its pods run, or have failed as they must. Raises `LabError`.
    """
    aws.make(lab, now, wanted)
    kubernetes.make(lab, now, wanted)
    aws.associate(lab, wanted)
