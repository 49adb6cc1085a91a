"""Errors when someone creates or changes an object: IAM's policies and OIDC providers, and Kubernetes' objects."""

from labkit.doctor.explanations.family import DOCTOR, PROVIDER_IDS, PROVIDERS, TRUST_POLICY, Family

FAMILIES = (
    # IAM's errors about documents, and errors of the tools that write them.
    Family(
        "principal",
        r"Federated principals must be valid domain names|Invalid principal in policy",
        "The trust policy's principal isn't valid. It must be the ARN of the cluster's OIDC provider.",
        ("trust-policy-principal-not-a-provider",),
        (DOCTOR, PROVIDERS),
    ),
    Family(
        "condition-key-scheme",
        r"Condition can contain only one colon",
        "A condition key of the trust policy still has https:// in front of the issuer.",
        ("trust-policy-condition-key-with-scheme",),
    ),
    Family(
        "trust-policy-size",
        r"ACLSizePerRole",
        "The trust policy is longer than IAM accepts. White space doesn't count.",
        ("trust-policy-too-long", "trust-policy-near-size-limit"),
        (DOCTOR, TRUST_POLICY),
    ),
    Family(
        "document",
        r"MalformedPolicyDocument|may only specify STS AssumeRole actions|Has prohibited field|Missing required field"
        r"|Syntax errors in policy|contains invalid Json",
        "IAM rejected the policy document, and left the role unchanged.",
        ("trust-policy-condition-key-with-scheme", "trust-policy-principal-not-a-provider"),
        (
            "aws accessanalyzer validate-policy --policy-type RESOURCE_POLICY --policy-document file://trust-policy.json",
        ),
        is_general=True,
    ),
    Family(
        "provider-exists",
        r"Provider with url \S+ already exists",
        "The account already has an OIDC provider for this issuer, and can't have a second one. All roles share this "
        "provider. Check that the provider lists the audience.",
        ("oidc-provider-audience-missing",),
        (PROVIDERS, DOCTOR),
    ),
    Family(
        "eks-identity-provider-config",
        r"Identity Provider URL cannot be same as OpenID Connect",
        "EKS's identity provider configuration lets people log in to the cluster. Pods need the OIDC provider in IAM.",
        ("eks-identity-provider-config", "oidc-provider-missing"),
        (DOCTOR, PROVIDERS),
    ),
    Family(
        "role-not-found",
        r"The role with name (?P<role>\S+) cannot be found|NoSuchEntity.{0,60}\brole\b",
        "The account that received the request has no role of this name.",
        ("role-missing",),
    ),
    Family(
        "provider-not-found",
        r"OpenIDConnect Provider not found|OIDC [Pp]rovider.{0,40}(not found|couldn't find)",
        "The account that received the request has no such OIDC provider.",
        PROVIDER_IDS,
        (DOCTOR, PROVIDERS),
    ),
    Family(
        "eksctl-excluded",
        r"iamserviceaccounts?.{0,80}(were|was|will be) excluded|\bno tasks\b",
        "eksctl created a stack for this service account earlier. So it now skips the service account, even if the "
        "annotation is missing.",
        ("eksctl-role-without-annotation", "service-account-annotation-missing", "service-account-missing"),
        (DOCTOR, "eksctl get iamserviceaccount --cluster {cluster}"),
    ),
    # Kubernetes' errors.
    Family(
        "mount-path-twice",
        r"mountPath: Invalid value: .{0,120}must be unique",
        "Two webhooks, or the manifest and a webhook, mount the token at the same path.",
        ("pod-mount-path-twice",),
    ),
    Family(
        "native-sidecar",
        r"may not be set for init containers without restartPolicy=Always",
        "An old pod identity webhook removes new fields from init containers. Update the webhook.",
        next=("kubectl get deployment -A -l app=pod-identity-webhook -o wide",),
    ),
    Family(
        "service-account-not-found",
        r"serviceaccounts? \\?\"(?P<service_account>[a-z0-9.-]+)\\?\" not found",
        "The namespace has no such service account. Kubernetes rejects every pod that names it.",
        ("service-account-missing",),
    ),
    Family(
        "namespace-terminating",
        r"in namespace (?P<namespace>[a-z0-9-]+) because it is being terminated",
        "The namespace is being deleted, so nothing new can be created in it. When it's gone, you can create it again.",
        ("namespace-terminating",),
        ("kubectl get namespace {namespace} -o yaml",),
    ),
    Family(
        "namespace-not-found",
        r"namespaces \\?\"(?P<namespace>[a-z0-9-]+)\\?\" not found",
        "This namespace doesn't exist.",
        ("namespace-missing",),
        ("kubectl get namespaces",),
    ),
)
