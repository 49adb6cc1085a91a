"""The class `Family`, and the commands and findings that several families share."""

from dataclasses import dataclass

DOCTOR = "labkit doctor -n {namespace} -s {service_account}"
PROBE = f"{DOCTOR} --probe"
WHO = "kubectl exec {pod} -n {namespace} -- aws sts get-caller-identity"
VARIABLES = "kubectl exec {pod} -n {namespace} -- env | grep ^AWS_"
TRUST_POLICY = "aws iam get-role --role-name {role} --query Role.AssumeRolePolicyDocument"
PROVIDERS = "aws iam list-open-id-connect-providers"

TRUST_POLICY_IDS = (
    "role-missing",
    "trust-policy-sub-mismatch",
    "trust-policy-sub-of-another-namespace",
    "trust-policy-sub-renamed",
    "trust-policy-sub-wildcard-under-string-equals",
    "trust-policy-aud-mismatch",
    "trust-policy-issuer-host-wrong",
    "trust-policy-condition-key-of-another-issuer",
    "trust-policy-provider-mismatch",
    "trust-policy-principal-not-a-provider",
    "trust-policy-of-a-service",
    "trust-policy-of-pod-identity",
    "trust-policy-action-wrong",
    "trust-policy-refuses",
    "cluster-rebuilt",
    "pod-older-than-annotation",
    "pod-role-set-by-hand",
    "role-too-new",
    "service-account-annotation-arn-differs",
)
PROVIDER_IDS = (
    "oidc-provider-missing",
    "oidc-provider-in-another-account",
    "oidc-provider-url-differs",
    "cluster-rebuilt",
)
AUDIENCE_IDS = (
    "oidc-provider-audience-missing",
    "oidc-provider-audience-is-an-endpoint",
    "oidc-provider-audience-invisible-character",
    "token-audience-mismatch",
    "pod-uses-the-api-server-token",
)
KEY_IDS = ("issuer-unreachable", "signing-key-not-published", "oidc-provider-thumbprint-stale")
NOT_USED_IDS = (
    "service-account-annotation-missing",
    "service-account-annotation-key-typo",
    "annotation-on-the-pod",
    "pod-uses-another-service-account",
    "pod-older-than-annotation",
    "webhook-missing",
    "webhook-unreachable",
    "pod-opted-out-of-webhook",
    "webhook-not-asked-about-pod",
    "webhook-passed-over-pod",
    "pod-container-skipped",
    "pod-token-variable-missing",
    "pod-variables-empty",
)

# The addresses of EKS Pod Identity's agent on each node.
# https://docs.aws.amazon.com/eks/latest/userguide/pod-id-agent-setup.html
AGENT = r"169\.254\.170\.23|fd00:ec2::23"


@dataclass(frozen=True)
class Family:
    """A family of errors: errors with similar texts, which have the same possible causes."""

    name: str
    pattern: str
    means: str
    """What the text means."""
    ids: tuple[str, ...] = ()
    """The ids of findings that can cause the error; empty if the doctor can't see the cause."""
    next: tuple[str, ...] = (DOCTOR,)
    """Shell lines. A name such as `{pod}` is replaced by the name in the text, or else by a placeholder."""
    is_general: bool = False
    """Whether the family is ignored if a more specific family matches the text."""
