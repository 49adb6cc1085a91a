"""All declared causes, in the order in which the doctor looks for them.

They are sorted by stage (see `stages`), then by family as listed below, then by their order in the family's module.
"""

from labkit.doctor.finding import Cause, causes_of
from labkit.doctor.findings import (
    containers,
    credentials,
    permissions,
    pod,
    provider,
    resource_policies,
    role,
    service_account,
    trust_policy,
    trust_statement,
    webhook,
)

OF_THE_POD = (pod, webhook, containers)
OF_THE_ROLE = (trust_statement, trust_policy, role, permissions, resource_policies)
FAMILIES = (*OF_THE_POD, service_account, provider, *OF_THE_ROLE, credentials)

CAUSES = causes_of(*FAMILIES)
CATALOGUE: dict[str, Cause] = {each.id: each for each in CAUSES}
