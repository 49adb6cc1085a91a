"""The evidence about one service account and its role. Each thing is read once, when it's first needed.

`evidence` is all of it. `account` reads AWS, `cluster` and `registration` Kubernetes, `issuer` what the cluster
publishes; `probe` looks into the pod, `dry_run` at what a pod like it would become; `reading` keeps the answers.
`pod_spec` and `trust` read the two documents that say most; `opt_out`, `variables` and `missed_role` say what of them
keeps a container from its role, `workloads` who makes the pods.
"""

from labkit.diagnosis.evidence.evidence import Evidence
from labkit.diagnosis.evidence.reading import NotRead, Reads

__all__ = ["Evidence", "NotRead", "Reads"]
