"""Check a step: the values that it should have made beside the found ones, and the findings that explain them.

Each step of `labkit.steps` has a function here of the same name, which compares.
"""

from collections.abc import Callable
from dataclasses import dataclass

from labkit.doctor.evidence import Evidence, NotRead
from labkit.doctor.finding import Cause, Finding, causes_of, findings_of
from labkit.doctor.findings import catalogue, provider, trust_policy
from labkit.doctor.findings import credentials as of_the_credentials
from labkit.doctor.findings import service_account as accounts
from labkit.documents import POD_NAME, ROLE_ANNOTATION
from labkit.policy.trust import WEB_IDENTITY


@dataclass(frozen=True)
class Comparison:
    """One comparison. `ok` says whether the found value is right.

    Without `ok`, the found value is right if it equals the expected value.
    """

    what: str
    expected: str
    found: str
    ok: bool | None = None

    @property
    def right(self) -> bool:
        """Whether the found value is right."""
        return self.expected == self.found if self.ok is None else self.ok


def rows(step: str, evidence: Evidence) -> list[Comparison]:
    """Return the rows that `lab.check` shows for a step. Raises `NotRead`."""
    return COMPARE[step](evidence)


def findings(step: str, evidence: Evidence, unread: list[NotRead] | None = None) -> list[Finding]:
    """Return what is wrong with a step, as findings.

    If a fact can't be read, add its `NotRead` to `unread`. Without `unread`, raise the `NotRead`.
    """
    return findings_of(CAUSES[step], evidence, unread)


def oidc_provider(evidence: Evidence) -> list[Comparison]:
    """The issuer and the audience of the OIDC provider."""
    registered = evidence.aws.provider
    wanted = evidence.expected.audience
    if not registered:
        return [
            Comparison("issuer", evidence.expected.issuer, "no OIDC provider"),
            Comparison("audience", wanted, "no OIDC provider", False),
        ]
    audiences = registered["ClientIDList"]
    return [
        Comparison("issuer", evidence.expected.issuer, "https://" + registered["Url"].removeprefix("https://")),
        Comparison("audience", wanted, ", ".join(audiences) or "no client id", wanted in audiences),
    ]


def iam_role(evidence: Evidence) -> list[Comparison]:
    """The role, its trust policy as written and as evaluated, and its permissions."""
    if evidence.aws.role is None:
        return [Comparison("role", evidence.expected.role_arn, "no such role")]
    admits, admitted = "admits the service account", evidence.aws.trust.admits
    issuer, subject = evidence.expected.provider_name, trust_policy.conditions_on(evidence, "sub")
    wanted_subject = f"StringEquals {issuer}:sub = {evidence.expected.subject}"
    # A policy with different words is right, too, if it admits this service account and no stranger.
    good = admitted and not trust_policy.sub_missing(evidence)
    for_sts = admitted and not trust_policy.aud_missing(evidence)
    return [
        Comparison("role", evidence.expected.role_arn, evidence.aws.role["Arn"]),
        Comparison(
            "trusted provider", evidence.expected.provider_arn, trust_policy.trusted_principals(evidence), good or None
        ),
        Comparison("action", WEB_IDENTITY, trust_policy.actions_in_policy(evidence), good or None),
        Comparison("subject", wanted_subject, subject, good or None),
        Comparison(
            "audience",
            f"StringEquals {issuer}:aud = {evidence.expected.audience}",
            trust_policy.conditions_on(evidence, "aud"),
            for_sts or None,
        ),
        Comparison("evaluated", admits, admits if admitted else "does not admit it"),
        Comparison(
            "permissions",
            evidence.parameters.policy_arn,
            ", ".join(evidence.aws.attached_policies) or "no policy attached",
            evidence.parameters.policy_arn in evidence.aws.attached_policies,
        ),
    ]


def service_account(evidence: Evidence) -> list[Comparison]:
    """The service account and its annotation."""
    if evidence.cluster.service_account is None:
        return [Comparison("service account", evidence.expected.subject, "no such service account")]
    return [
        Comparison("service account", evidence.expected.subject, evidence.expected.subject),
        Comparison(
            f"annotation {ROLE_ANNOTATION}",
            evidence.expected.role_arn,
            evidence.cluster.annotation or "no such annotation",
        ),
    ]


def pod(evidence: Evidence) -> list[Comparison]:
    """The pod, and what the webhook and the node put into it."""
    if evidence.pod.document is None:
        return [Comparison("pod", f"{evidence.parameters.namespace}/{POD_NAME}", "no such pod")]
    return [
        Comparison("pod", "Running", evidence.pod.phase),
        Comparison(
            "service account",
            evidence.parameters.service_account,
            evidence.pod.document["spec"].get("serviceAccountName", "default"),
        ),
        Comparison("webhook", "registered", "registered" if evidence.cluster.webhook else "not registered"),
        Comparison("AWS_ROLE_ARN", evidence.expected.role_arn, evidence.pod.role_arn or "not set"),
        Comparison("token for", evidence.expected.audience, evidence.pod.token_audience or "no token volume"),
    ]


def credentials(evidence: Evidence) -> list[Comparison]:
    """The token's audience, and who AWS knows the pod as."""
    caller = evidence.pod.caller
    known_as = "the pod does not run" if caller is None else caller.identity
    return [
        Comparison("the token is for", evidence.expected.audience, evidence.pod.token_audience or "no token volume"),
        Comparison("AWS knows the pod as", f"assumed-role/{evidence.parameters.role_name}", known_as),
    ]


COMPARE: dict[str, Callable[[Evidence], list[Comparison]]] = {
    "oidc_provider": oidc_provider,
    "iam_role": iam_role,
    "service_account": service_account,
    "pod": pod,
    "credentials": credentials,
}
CAUSES: dict[str, tuple[Cause, ...]] = {
    "oidc_provider": causes_of(provider),
    "iam_role": causes_of(*catalogue.OF_THE_ROLE),
    "service_account": causes_of(accounts),
    "pod": causes_of(*catalogue.OF_THE_POD),
    "credentials": causes_of(of_the_credentials),
}
