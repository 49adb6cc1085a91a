"""The errors of programs: of the one in the pod, and of the tools that write IAM's and Kubernetes' objects.

In the pod, the SDK finds no credentials, or the program can't reach AWS.
"""

from labkit.doctor.explanations.family import (
    AGENT,
    DOCTOR,
    NOT_USED_IDS,
    PROBE,
    PROVIDER_IDS,
    PROVIDERS,
    TRUST_POLICY,
    VARIABLES,
    Family,
)

FAMILIES = (
    # Errors of the SDK in the pod.
    Family(
        "role-variable-missing",
        r"has no role ARN configured|role ARN is not set|RoleArn (is|was) not (set|specified)|no role ARN provided"
        r"|AWS_ROLE_ARN environment variable must be set|You must specify a value for roleArn",
        "AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN isn't.",
        ("pod-role-variable-missing",),
        (DOCTOR, VARIABLES),
    ),
    Family(
        "token-file",
        r"(No such file or directory|ENOENT|FileNotFound|NoSuchFile|cannot find the (file|path)).{0,120}"
        r"serviceaccount/token|serviceaccount/token.{0,60}(no such file|does not exist)"
        r"|failed to (read|load) token file(?!.{0,160}denied)",
        "No token is at the path that AWS_WEB_IDENTITY_TOKEN_FILE names. The token isn't mounted in this "
        "container, or the program doesn't run in the pod.",
        ("pod-token-file-missing", "pod-volume-name-taken", "pod-container-skipped"),
        (DOCTOR, "kubectl exec {pod} -n {namespace} -- ls -l /var/run/secrets/eks.amazonaws.com/serviceaccount/"),
    ),
    Family(
        "token-volume",
        r"(SetUp failed for|cannot find) volume \\?\"aws-iam-token\\?\"",
        "The node can't mount the token into the pod. The API server issues no token, or something removed the "
        "volume that the webhook had added to the pod.",
        ("service-account-missing", "pod-volume-name-taken"),
        (DOCTOR, "kubectl describe pod {pod} -n {namespace}"),
    ),
    Family(
        "token-unreadable",
        r"(Permission denied|EACCES|PermissionError|AccessDeniedException: /).{0,120}serviceaccount/token"
        r"|serviceaccount/token.{0,60}permission denied",
        "The token exists, but the program's user isn't allowed to read it.",
        ("token-unreadable",),
        (PROBE, "kubectl exec {pod} -n {namespace} -- ls -lL /var/run/secrets/eks.amazonaws.com/serviceaccount/token"),
    ),
    Family(
        "profile",
        r"config profile \(.+?\) could not be found|failed to get shared config profile"
        r"|Profile .{1,60} (could not be found|was not found|not found)|ProfileNotFound"
        r"|Could not resolve credentials using profile",
        "AWS_PROFILE names a profile that no config in the pod defines. While it's set, SDKs don't use the pod's role.",
        ("pod-aws-profile",),
        (DOCTOR, VARIABLES),
    ),
    Family(
        "java-sts-module",
        r"'sts' service module must be on the class ?path|aws-java-sdk-sts"
        r"|ClassNotFoundException: software\.amazon\.awssdk\.services\.sts\.",
        "The Java SDK can use the pod's role only with its STS module. Without that module, it uses the node's role.",
        next=("# add software.amazon.awssdk:sts (version 1: com.amazonaws:aws-java-sdk-sts) to the program",),
    ),
    Family(
        "dotnet-sts-assembly",
        r"AWSSDK\.SecurityToken could not be (found|loaded)|Could not load file or assembly '?AWSSDK\.SecurityToken",
        "The .NET SDK can use the pod's role only with its STS assembly.",
        next=("dotnet add package AWSSDK.SecurityToken   # in the same version as the other AWSSDK packages",),
    ),
    Family(
        "region",
        r"failed to introspect region|could not find region configuration|You must specify a region|Region is missing"
        r"|Missing required.{0,20}AWS_REGION|sts\.\.amazonaws\.com|Unable to load region|Missing region in config"
        r"|an AWS region is required|MissingRegion",
        "The program doesn't know its region. The webhook sets AWS_REGION together with the role. If AWS_REGION isn't "
        "set, the webhook didn't give the pod a role. If AWS_REGION is set, the program doesn't read it.",
        (
            "pod-region-empty",
            "webhook-missing",
            "webhook-unreachable",
            "pod-opted-out-of-webhook",
            "service-account-annotation-missing",
        ),
        (VARIABLES, DOCTOR),
    ),
    Family(
        "no-role-annotated",
        r"IAM role must be associated with service account (?P<service_account>\S+) "
        r"\(namespace: (?P<namespace>[^\s)]+)",
        "The AWS provider of the Secrets Store CSI driver found no role in the service account's annotation.",
        ("service-account-annotation-missing", "service-account-annotation-key-typo", "annotation-on-the-pod"),
    ),
    Family(
        "no-credentials",
        r"Unable to locate credentials|NoCredentialProviders|no EC2 IMDS role found|no valid providers in chain"
        r"|Unable to load (AWS )?credentials from any (of the )?providers?|NoCredentialsError"
        r"|Could not load credentials from|CredentialsProviderError|Missing credentials in config"
        r"|EC2RoleRequestError|no EC2 instance role found|No valid credential sources found|Web identity configuration"
        r"|aws\.webIdentityTokenFile must be set|failed to (retrieve|refresh cached) credentials|CredentialsNotLoaded"
        r"|no providers in chain provided credentials|failed to (get|refresh|load) IMDS ?(v2|session)? ?token"
        r"|Unable to get IAM security credentials from EC2|credentials from the instance profile metadata"
        r"|FailedToLoadToken|No credentials could be loaded from the chain|Provider returned no credentials"
        r"|Resolved credential object is not valid|Received undefined.{0,120}TokenFileWebIdentityCredentials",
        "The SDK found no credentials at all. The pod has no role, and it can't use its node's role either.",
        NOT_USED_IDS,
        (DOCTOR, VARIABLES),
        is_general=True,
    ),
    # Errors because of the clock and the network.
    Family(
        "clock",
        r"\bSignature (expired|not yet current)\b|RequestTimeTooSkewed"
        r"|difference between the request time and the current time is too large",
        "The clock of the pod's node, or of the machine that signed the request, is wrong by more than AWS tolerates.",
        next=("kubectl exec {pod} -n {namespace} -- date -u   # compare with this machine: date -u",),
    ),
    Family(
        "throttled",
        r"\bThrottling\b|Rate exceeded|TooManyRequests",
        "Your account makes too many calls at once, mostly AssumeRoleWithWebIdentity. Use one session per process, and "
        "retry with jitter.",
        next=(
            "aws cloudtrail lookup-events --max-results 50 "
            "--lookup-attributes AttributeKey=EventName,AttributeValue=AssumeRoleWithWebIdentity",
        ),
    ),
    Family(
        "webhook-call",
        r"failed calling webhook.{0,40}(iam-for-pods|pod-identity-webhook)",
        "The API server can't call the pod identity webhook.",
        ("webhook-unreachable",),
    ),
    Family(
        "proxy",
        r"ProxyConnectionError|(connect to|reach) (the )?proxy|proxyconnect|Proxy Authentication Required"
        r"|Tunnel connection failed|CONNECT tunnel failed",
        "The program calls AWS through a proxy. The proxy doesn't answer, or it doesn't let the call through.",
        ("pod-proxy-without-no-proxy",),
        (DOCTOR, "kubectl exec {pod} -n {namespace} -- env | grep -i _PROXY"),
    ),
    Family(
        "certificate",
        r"^(?!.*failed calling webhook).*(CERTIFICATE_VERIFY_FAILED|certificate signed by unknown authority"
        r"|PKIX path building failed|self[- ]signed certificate|unable to get local issuer certificate)",
        "Something between the pod and AWS, usually a proxy, presents a certificate that the program doesn't trust.",
        next=(
            VARIABLES,
            "kubectl exec {pod} -n {namespace} -- env | grep -i _PROXY"
            "   # if this shows a proxy: set AWS_CA_BUNDLE to a file with the CA of the proxy, "
            "or list the AWS hosts in NO_PROXY",
        ),
    ),
    Family(
        "endpoint-certificate",
        r"hostname .{1,80}doesn'?t match (either|any)|Certificate for <\S+amazonaws\.com> doesn'?t match"
        r"|certificate is valid for .{1,300}, not \S+amazonaws\.com",
        "The program calls one host name, but the certificate is for a different name. The most common reason: the "
        "program calls the global endpoint, and the network routes the call to a VPC endpoint of one region.",
        ("pod-sts-endpoint-of-another-region",),
        (DOCTOR, VARIABLES),
    ),
    Family(
        "sts-unreachable",
        r"(sts|s3)[\w.-]*\.amazonaws\.com(?!.{0,80}proxyconnect).{0,160}(i/o timeout|timed? ?out|ETIMEDOUT"
        r"|context deadline|no such host|ENOTFOUND|connection refused|UnknownHost|EAI_AGAIN"
        r"|Temporary failure in name resolution)"
        rf"|(Could not connect to the|Connect timeout on) endpoint URL(?!.{{0,16}}({AGENT}))"
        r"|(ENOTFOUND|UnknownHostException).{0,20}sts|Unable to execute HTTP request: (sts|s3)[\w.-]*\.amazonaws\.com",
        "The pod can't reach AWS. Common reasons: a private subnet without a VPC endpoint, a network policy, a proxy.",
        ("pod-sts-endpoint-of-another-region", "pod-proxy-without-no-proxy"),
        (VARIABLES, "kubectl exec {pod} -n {namespace} -- curl -sS https://sts.{region}.amazonaws.com/"),
    ),
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
