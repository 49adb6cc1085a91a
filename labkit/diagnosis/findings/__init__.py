"""What can be wrong: one pure function a cause, from the evidence to a finding or nothing.

A module a family: `provider`, `role`, `trust_policy` (with `trust_writes`, `trust_statement` and
`trust_conditions`), `service_account`, `pod`, `webhook`, `token`, `caller`.
"""

from labkit.diagnosis.finding import Cause, Finding, Severity, found, is_told

__all__ = ["Cause", "Finding", "Severity", "found", "is_told"]
