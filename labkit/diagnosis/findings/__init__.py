"""What can be wrong: one pure function a cause, from the evidence to a finding or nothing.

A module a family: `provider`, `role`, `trust_policy` (with `trust_writes`, `trust_statement` and
`trust_conditions`), `permissions`, `service_account`, `pod`, `webhook`, `containers`, `network`, `credentials`.
"""

from labkit.diagnosis.finding import Finding, found

__all__ = ["Finding", "found"]
