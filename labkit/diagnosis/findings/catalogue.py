"""Every cause that is declared, in the one order: that of the stages, of the families below, and within a family."""

from itertools import chain
from types import ModuleType

from labkit.diagnosis.finding import Cause, causes_of
from labkit.diagnosis.findings import (
    another_run,
    containers,
    credentials,
    network,
    permissions,
    pod,
    provider,
    role,
    service_account,
    trust_conditions,
    trust_policy,
    trust_statement,
    trust_writes,
    webhook,
)
from labkit.diagnosis.stages import STAGES, Stage

# Another run's role first: where it is found, nothing else is said of the role.
OF_THE_ROLE = (another_run, trust_statement, trust_conditions, trust_policy, trust_writes, role, permissions)
OF_THE_POD = (pod, webhook, containers, network)
FAMILIES = (*OF_THE_POD, service_account, provider, *OF_THE_ROLE, credentials)


def in_order(*families: ModuleType) -> tuple[Cause, ...]:
    """The causes of these families, in the order in which they are looked for and told."""
    return tuple(sorted(chain.from_iterable(map(causes_of, families)), key=lambda each: STAGES.index(each.stage)))


CAUSES = in_order(*FAMILIES)
CATALOGUE: dict[str, Cause] = {each.id: each for each in CAUSES}


def stage_of(id: str) -> Stage:
    """The stage that the findings of this id belong to."""
    return CATALOGUE[id].stage
