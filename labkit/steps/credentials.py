"""Steps 6 to 10: an SDK exchanges the pod's token for the role's credentials. The lab builds nothing in these steps."""

from typing import TYPE_CHECKING

from labkit.diagnosis import findings
from labkit.diagnosis.findings import Finding, credentials
from labkit.steps.row import Row

if TYPE_CHECKING:
    from labkit.diagnosis.evidence import Evidence, NotRead

TITLE = "the credentials in the pod"
CAUSES = findings.causes_of(credentials)


def check(evidence: "Evidence", unread: "list[NotRead] | None" = None) -> list[Finding]:
    """Check that the pod's token is for STS, and that AWS identifies the pod as the role. Return the findings.

    If a fact can't be read, add its `NotRead` to `unread`. Without `unread`, raise the `NotRead`.
    """
    return findings.found(CAUSES, evidence, unread)


def rows(evidence: "Evidence") -> list[Row]:
    """Return the rows that `lab.check` shows for this step. Each row has an expected value and the value found."""
    caller = evidence.caller
    found = "the pod does not run" if caller is None else caller.identity
    return [
        Row("the token is for", evidence.audience, evidence.token_audience or "no token volume"),
        Row("AWS knows the pod as", f"assumed-role/{evidence.parameters.role_name}", found),
    ]
