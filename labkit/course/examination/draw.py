"""The draw of an examination: three easy tasks, four middle ones, three hard ones, and no fault twice.

Each task is drawn when it begins, so that nothing and nobody knows the answers of a later one.

The repairs decide how hard a task is. An easy task needs the repair of one object, and a middle one of two. A hard task
has two faults: one in AWS, the other in the cluster.
"""

import random
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from labkit.course.faults import CATALOGUE, Fault, Situation, breaking, expected

LEVELS = {"easy": 3, "middle": 4, "hard": 3}
"""The levels, each with the number of its tasks."""
IN_AWS = ("provider", "role", "trust policy", "permissions", "bucket policy")
IN_THE_CLUSTER = ("service account", "pod", "config map", "secret")
PARTS = IN_AWS + IN_THE_CLUSTER
"""The parts of IRSA that a learner can name as the broken one."""
# The beginning of an object's name in `breaking.differences`, and the part that it belongs to.
PART_OF = (
    ("OIDC provider", "provider"),
    ("trust policy", "trust policy"),
    ("permissions", "permissions"),
    ("bucket policy", "bucket policy"),
    ("role", "role"),
    ("serviceAccount", "service account"),
    ("pod ", "pod"),
    ("deployment", "pod"),
    ("configMap", "config map"),
    ("secret", "secret"),
)
# Stored notebooks show this examination, with its solutions.
DEMONSTRATION = (
    ("easy", "trust-policy-of-an-instance"),
    ("easy", "trust-policy-denies"),
    ("easy", "audience-misspelt"),
    ("middle", "annotation-of-a-template"),
    ("middle", "annotation-of-another-partition"),
    ("middle", "annotation-left-out"),
    ("middle", "annotation-key-misspelt"),
    ("hard", "trust-policy-names-another-namespace", "pod-opted-out"),
    ("hard", "wildcard-is-compared-letter-by-letter", "annotation-of-kube2iam"),
    ("hard", "trust-policy-of-another-region", "role-variable-given-by-hand"),
)


class DrawnTask(NamedTuple):
    """A level, and the faults that are put in at once."""

    level: str
    faults: tuple[Fault, ...]


def demonstration() -> list[DrawnTask]:
    """Return the tasks that every stored notebook shows."""
    return [DrawnTask(level, tuple(CATALOGUE[name] for name in names)) for level, *names in DEMONSTRATION]


def draw(level: str, drawn: Collection[str], healthy: Situation) -> tuple[Fault, ...]:
    """Return a task's faults at random, none of those in `drawn`. `healthy` is the run without a fault."""
    # From the system's own source of chance: no seed could bring the same tasks back.
    chance = random.SystemRandom()
    levels = (level,) if level != "hard" else ("easy", "middle")
    rest = [fault for fault in CATALOGUE.values() if fault.id not in drawn and level_of(fault, healthy) in levels]
    chance.shuffle(rest)
    return next(_pairs(rest, healthy)) if level == "hard" else (rest[0],)


def level_of(fault: Fault, healthy: Situation) -> str:
    """Return `easy` or `middle`. Empty: the examination leaves the fault out.

    It leaves out what breaks nothing, and what only the lab lets a user change: on EKS, AWS runs the issuer and the
    webhook. https://docs.aws.amazon.com/eks/latest/userguide/iam-roles-for-service-accounts.html
    """
    changed = _changed(fault, healthy)
    if fault.works or not changed or "" in changed:
        return ""
    return "easy" if len(changed) == 1 and "role" not in changed else "middle"


def parts(fault: Fault, healthy: Situation) -> set[str]:
    """Return the parts that the fault breaks. A learner who names one of them is right."""
    changed = _changed(fault, healthy)
    # A pod that was created after its service account was changed is only a consequence.
    return changed - {"pod"} if "service account" in changed else changed


def _changed(fault: Fault, healthy: Situation) -> set[str]:
    names = breaking.differences(healthy, fault.put_into(healthy))
    return {next((part for start, part in PART_OF if re.match(start, name)), "") for name in names}


def _pairs(faults: list[Fault], healthy: Situation) -> Iterator[tuple[Fault, Fault]]:
    """Yield pairs of faults in AWS and in the cluster, neither of which hides the other."""
    for one in faults:
        if not parts(one, healthy) <= set(IN_AWS):
            continue
        for other in faults:
            both = {one.finding, other.finding}
            if (
                parts(other, healthy) <= set(IN_THE_CLUSTER)
                and expected([one, other]) == expected([other, one]) == both
            ):
                yield one, other
