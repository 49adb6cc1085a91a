"""Every cause that is declared, in the order of the stages, which is the one in which they are looked for and told.

In a stage, the order is that of the families below and, in a family, of the declarations.
"""

from labkit.diagnosis.finding import Cause, causes_of
from labkit.diagnosis.findings import (
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

# Another run's role first: where it is found, nothing else is said of the role.
OF_THE_POD = (pod, webhook, containers)
OF_THE_ROLE = (another_run, trust_statement, trust_conditions, trust_policy, trust_writes, role, permissions)
FAMILIES = (*OF_THE_POD, service_account, provider, *OF_THE_ROLE, credentials)

CAUSES = causes_of(*FAMILIES)
CATALOGUE: dict[str, Cause] = {each.id: each for each in CAUSES}
