"""All declared causes, in the order in which the doctor looks for them.

They are sorted by stage (see `stages`), then by family as listed below, then by their order in the family's module.
"""

from labkit.doctor.finding import Cause, causes_of
from labkit.doctor.findings import (
    another_run,
    containers,
    credentials,
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

# Another run's role comes first: if it's found, nothing else about the role is reported.
OF_THE_POD = (pod, webhook, containers)
OF_THE_ROLE = (another_run, trust_statement, trust_conditions, trust_policy, trust_writes, role, permissions)
FAMILIES = (*OF_THE_POD, service_account, provider, *OF_THE_ROLE, credentials)

CAUSES = causes_of(*FAMILIES)
CATALOGUE: dict[str, Cause] = {each.id: each for each in CAUSES}
