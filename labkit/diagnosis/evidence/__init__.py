"""The evidence about one service account and its role. Each fact is read once, when it's first needed.

`evidence` combines everything. `account` reads AWS; `cluster` and `registration` read Kubernetes; `issuer` reads what
the cluster publishes. `probe` runs commands in the pod, and `dry_run` creates a similar pod as a dry run. `reading`
keeps the answers. `pod_spec` and `trust` read the pod's spec and the trust policy. `opt_out`, `variables` and
`missed_role` find the settings in them that keep a container from its role. `workloads` finds what makes the pods.
"""

from labkit.diagnosis.evidence.evidence import Evidence
from labkit.diagnosis.evidence.reading import NotRead, Reads

__all__ = ["Evidence", "NotRead", "Reads"]
