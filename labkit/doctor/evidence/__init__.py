"""The evidence: the facts about one service account, its role and its pod. Each fact is read once, when first needed.

`Evidence` has four readings: `expected` (what the service account should have), `aws`, `cluster` and `pod`. `account`
reads AWS, `cluster_api` reads Kubernetes, and `issuer` reads the documents that the cluster's issuer publishes.
`registration` tests whether the API server can reach the webhook. `probe` runs commands in the pod, and creates a
similar pod as a dry run. `reading` makes the calls and keeps their answers.

`pod_spec` interprets a pod's spec, and `trust` a trust policy. `opt_out`, `variables` and `missed_role` find settings
that keep a container from getting its role. `workloads` finds the Deployments and other objects that create the pods.
`candidates` finds the roles that could be the service account's role.
"""

from labkit.doctor.evidence.evidence import Evidence
from labkit.doctor.evidence.reading import NotRead, Reads, known

__all__ = ["Evidence", "NotRead", "Reads", "known"]
