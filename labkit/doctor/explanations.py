"""Explain an error's text: which families of causes the error can have, and the next command. This needs no connection.

Since about June 2026, STS seems to answer most faults of a token with the same sentence. Older threads on the web show
the earlier messages, which name the cause.
"""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

# The session name of a node's role is the instance's id. People often hide the digits of the id. If the text has no
# session name, the role's own name shows that it's a node's role. OpenSearch names only the role.
NODE = (
    r"assumed-role/[^/\s]+/i-[0-9a-fx*]{8,17}(?![\w-])"
    r"|(assumed-role|\[name=arn:[\w-]+:iam::\w+:role)/[^/\s]*(node-?instance-?role|node[-_]?group|[-_]node[-_]?role)"
)

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


# The number of characters. A terminal has at least this width.
NARROWEST = 40
# The number of lines. Errors that people copy are seldom longer.
FEW = 30


@dataclass(frozen=True)
class Family:
    """The causes that errors with similar texts can have."""

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


# The addresses of EKS Pod Identity's agent on each node, and a client's words if the agent doesn't answer.
# https://docs.aws.amazon.com/eks/latest/userguide/pod-id-agent-setup.html
AGENT = r"169\.254\.170\.23|fd00:ec2::23"
SILENT = r"connection refused|ECONNREFUSED|timed? ?out|ETIMEDOUT|deadline exceeded|no route to host|unreachable"
# Policies that other administrators write. If a denial names one of them, the trust policy hasn't refused.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
OF_OTHERS = r"(service control|resource control|VPC endpoint) policy"

FAMILIES = (
    # Denials that name the policy.
    Family(
        "vpc-endpoint",
        r"explicit deny in an? VPC endpoint policy|no VPC endpoint policy allows",
        "The pod reaches AWS through a VPC endpoint, and the endpoint's policy refuses. Neither the trust policy nor "
        "the role's permissions refuse.",
        ("denied-by-vpc-endpoint-policy",),
        (PROBE, "aws ec2 describe-vpc-endpoints --query 'VpcEndpoints[].[VpcEndpointId,ServiceName,PolicyDocument]'"),
    ),
    Family(
        "service-control-policy",
        r"explicit deny in an? service control policy|no service control policy allows",
        "A service control policy (SCP) refuses. It limits what the role's account may do, even with another account's "
        "resources. Only the organization's administrators can change it. Neither the trust policy nor the role's "
        "permissions refuse.",
        ("role-denied-by-service-control-policy", "denied-by-service-control-policy"),
        (
            f"{DOCTOR}{{wants}}",
            "aws organizations list-policies-for-target --target-id {account} --filter SERVICE_CONTROL_POLICY",
        ),
    ),
    Family(
        "resource-control-policy",
        r"explicit deny in an? resource control policy|no resource control policy allows",
        "A resource control policy (RCP) refuses. It limits what anybody may do with the resources of an account. Only "
        "the organization's administrators can change it. Neither the trust policy nor the role's permissions refuse.",
        ("role-denied-by-resource-control-policy", "denied-by-resource-control-policy"),
        (
            f"{DOCTOR}{{wants}}",
            "aws organizations list-policies-for-target --target-id {account} --filter RESOURCE_CONTROL_POLICY   "
            "# of the account that owns the resource",
        ),
    ),
    # STS's errors about the token (provider, audience, keys, expiry), not about the trust policy.
    Family(
        "provider-unknown",
        r"No OpenIDConnect provider found in your account",
        "The role's account has no OIDC provider for the token's issuer. The trust policy isn't the cause.",
        PROVIDER_IDS,
        (DOCTOR, PROVIDERS),
    ),
    Family(
        "audience",
        r"Incorrect token audience",
        "The token's audience isn't on the OIDC provider's list of client ids.",
        AUDIENCE_IDS,
        (PROBE, f"{PROVIDERS}   # then: aws iam get-open-id-connect-provider --open-id-connect-provider-arn …"),
    ),
    Family(
        "issuer-keys",
        r"Couldn'?t retrieve verification key|IDPCommunicationError|OpenIdIdpCommunicationError",
        "STS could not fetch the issuer's keys, or none of these keys has signed the token.",
        ("issuer-unreachable", "signing-key-not-published", "oidc-provider-url-differs"),
        (PROBE, "curl {issuer}/.well-known/openid-configuration"),
    ),
    Family(
        "thumbprint",
        r"certificate doesn'?t match configured thumbprint",
        "The OIDC provider doesn't list the thumbprint of the certificate that the issuer's host presents.",
        ("oidc-provider-thumbprint-stale",),
    ),
    Family(
        "token-malformed",
        r"not a valid JWT|token contains an invalid number of segments|token is malformed|invalid JWT",
        "The program sent STS something that isn't a token: a file that is only partly written, or the wrong file.",
        ("token-malformed", "pod-volume-name-taken", "pod-uses-the-api-server-token"),
        (PROBE,),
    ),
    Family(
        "token-claims",
        r"Missing a required claim",
        "The token lacks a claim that STS requires. Most often, the program sent the token for the API server instead.",
        ("pod-uses-the-api-server-token", "token-audience-mismatch", "token-malformed"),
        (PROBE,),
    ),
    Family(
        "token-expired",
        # EKS Pod Identity also has an exception with this name, but with its own text.
        r"ExpiredTokenException(?!\)?: The token included in the request)|Token expired: current date",
        "The token has expired. The node writes a fresh token into the same file well before the old one expires. So "
        "the program read the token once and kept it, or the file is a copy, or a clock is wrong.",
        ("token-read-once", "token-expired", "token-copied"),
        (PROBE,),
    ),
    Family(
        "token-not-validated",
        r"InvalidIdentityToken|web identity token (that was passed |provided )?could not be validated",
        "STS rejects the token because of the OIDC provider, its audiences, the issuer's keys, or the token itself. "
        "The trust policy isn't the cause. Since about June 2026, STS seems to give no more details.",
        (*PROVIDER_IDS, *AUDIENCE_IDS, *KEY_IDS, "token-malformed"),
        (PROBE, PROVIDERS),
        is_general=True,
    ),
    Family(
        "login-with-amazon",
        r"not a Login With Amazon token",
        "The program sent a ProviderId, which is only for Login with Amazon and Facebook. Leave it out for a cluster's "
        "token.",
        next=("aws sts assume-role-with-web-identity help",),
    ),
    # STS's errors about the trust policy and about the request.
    Family(
        "trust-policy",
        r"(Not authorized to perform:? sts:AssumeRoleWithWebIdentity"
        r"|AssumeRoleWithWebIdentity.{0,120}\b(StatusCode: 403|AccessDenied\b)"
        rf"|AccessDenied\).{{0,40}}AssumeRoleWithWebIdentity)(?!.{{0,400}}{OF_OTHERS})",
        "The token is fine. The role's trust policy refuses it, or the role doesn't exist: STS does not say which.",
        TRUST_POLICY_IDS,
        (DOCTOR, TRUST_POLICY),
    ),
    Family(
        "role-arn",
        r"Request ARN is invalid|at 'roleArn' failed to satisfy|Invalid ARN in AWS_ROLE_ARN",
        "The text that the pod uses as its role's ARN isn't an ARN.",
        ("service-account-annotation-arn-malformed",),
    ),
    Family(
        "session-name",
        r"at 'roleSessionName' failed to satisfy",
        "The session's name breaks its rule: 2 to 64 letters, digits and any of _ + = , . @ -",
        ("pod-role-session-name-invalid",),
    ),
    Family(
        "session-duration",
        r"exceeds the MaxSessionDuration|1 hour session limit for roles assumed by role chaining"
        r"|at 'durationSeconds' failed to satisfy",
        "The program asks for a longer session than the role allows. With role chaining, the limit is one hour.",
        ("role-session-too-long",),
        (DOCTOR, "aws iam get-role --role-name {role} --query Role.MaxSessionDuration"),
    ),
    Family(
        "sts-of-another-region",
        r"Credential should be scoped to a valid region",
        "The program signed the request for one region, but sent it to the endpoint of another region.",
        ("pod-sts-endpoint-of-another-region",),
        (DOCTOR, VARIABLES),
    ),
    Family(
        "region-not-activated",
        r"RegionDisabledException|STS is not activated in this region",
        "The account has not enabled this region, or it has not enabled STS in this region.",
        ("region-not-activated",),
        (DOCTOR, "aws account list-regions"),
    ),
    # Errors about the caller's identity and permissions.
    Family(
        "role-assumes-itself",
        r"(?P<of>\d{12}):assumed-role/(?P<own>[\w+=,.@-]+)/\S+ is not authorized to perform: sts:AssumeRole on"
        r" resource: \"?arn:[\w-]+:iam::(?P=of):role/(?:[^\s\"]*/)?(?P=own)(?![\w+=,@/-]|\.\w)",
        "The program's settings tell it to assume the role that it already has.",
        ("role-assumes-itself",),
        (DOCTOR, VARIABLES),
    ),
    Family(
        "assume-another-role",
        r"is not authorized to perform: sts:AssumeRole (on resource|because no role trust policy allows)",
        "The pod has a role and tries to assume another one. The permissions of the pod's role refuse that, or the "
        "other role's trust policy does.",
        ("role-assumes-itself", "oidc-provider-in-another-account", "role-lacks-permission"),
        (WHO, DOCTOR),
        is_general=True,
    ),
    Family(
        "operator",
        r"not authorized to perform: iam:(Create|Tag|Update|AddClientIDTo)OpenIDConnectProvider",
        "The person or program that registers the OIDC provider lacks permission for the action that the error names.",
        ("operator-not-permitted",),
        (DOCTOR, "labkit policy"),
    ),
    Family(
        "node-role",
        rf"^(?=.*(is not authorized to perform|no permissions for)).*({NODE})",
        "The caller is the node's role. So this pod doesn't use IAM Roles for Service Accounts at all.",
        NOT_USED_IDS,
        (DOCTOR, VARIABLES),
    ),
    Family(
        "boundary",
        r"because no permissions boundary allows|explicit deny in a permissions boundary",
        "The role's permissions boundary refuses. The role's policies don't.",
        ("role-denied-by-boundary",),
    ),
    Family(
        "resource-policy",
        r"explicit deny in a resource-based policy|because no resource-based policy allows",
        "The resource's own policy, such as a bucket policy, denies the call, or doesn't admit another account's role.",
        ("role-denied-by-bucket-policy",),
    ),
    Family(
        "session-policy",
        r"no session policy allows|explicit deny in a session policy",
        "The program passed a session policy when it assumed the role, and that policy doesn't allow the call.",
        next=(WHO,),
    ),
    Family(
        "permissions",
        r"is not authorized to perform:? (?!sts:AssumeRoleWithWebIdentity)|no identity-based policy allows",
        "AWS knows the caller that the error names, and refuses the action. If the caller is your role, look at the "
        "role's permissions. If it's the node's role, the pod doesn't use IAM Roles for Service Accounts.",
        (
            "role-policy-not-attached",
            "role-lacks-permission",
            "role-denied-by-boundary",
            "role-denied-by-bucket-policy",
            *NOT_USED_IDS,
        ),
        (f"{DOCTOR}{{wants}}", "aws iam list-attached-role-policies --role-name {role}"),
        is_general=True,
    ),
    Family(
        "encoded-denial",
        r"UnauthorizedOperation|Encoded authorization failure message",
        "EC2 refuses the call. Only the encoded message says which caller may not use which action. You need the "
        "permission sts:DecodeAuthorizationMessage to decode it.",
        ("role-policy-not-attached", "role-lacks-permission", "role-denied-by-boundary", *NOT_USED_IDS),
        (
            DOCTOR,
            "aws sts decode-authorization-message --query DecodedMessage --output text --encoded-message MESSAGE",
        ),
        is_general=True,
    ),
    Family(
        "access-denied",
        r"\bAccess ?Denied(Exception)?\b|\(403\) when calling the \w+ operation|Forbidden: Forbidden"
        r"|\bs3[\w.-]*\.amazonaws\.com.{0,200}\bstatus: 403\b",
        "AWS refuses a caller that the text doesn't name. Find out first which identity the pod has.",
        ("role-policy-not-attached", "role-lacks-permission", *NOT_USED_IDS),
        (WHO, f"{PROBE}{{wants}}"),
        is_general=True,
    ),
    Family(
        "session-expired",
        r"security token included in the request is expired|The provided token has expired|\bExpiredToken\b(?!Exc)",
        "Temporary credentials have expired. Somebody copied them, or the program keeps them and fetches no new ones.",
        ("pod-static-keys", "token-read-once"),
        (WHO, VARIABLES),
    ),
    Family(
        "keys-unknown",
        r"InvalidClientTokenId|InvalidAccessKeyId|UnrecognizedClientException"
        r"|security token included in the request is invalid",
        "AWS does not know the access key. The SDK uses keys in the environment or in a config before the role.",
        ("pod-static-keys", "role-missing"),
        (VARIABLES, DOCTOR),
    ),
    Family(
        "session-credentials-not-taken",
        r"Cannot call \w+ with session credentials",
        "This call accepts no temporary credentials. Call sts:AssumeRole instead.",
        next=(WHO,),
    ),
    Family(
        "pod-identity",
        r"EKS does not have permissions to assume the associated role|pods\.eks\.amazonaws\.com"
        r"|AssumeRoleForPodIdentity|credentials from EKS Auth"
        r"|Service account token (cannot be|failed basic claim)|container[- ](role|metadata).{0,160}\(\w+Exception\)",
        "The error comes from EKS Pod Identity. That is another mechanism, which uses another trust policy and token.",
        ("pod-identity-association-too", "trust-policy-of-pod-identity"),
        (DOCTOR, "aws eks list-pod-identity-associations --cluster-name {cluster}"),
    ),
    Family(
        "pod-identity-agent",
        rf"({AGENT}).{{0,200}}({SILENT})|({SILENT}).{{0,120}}({AGENT})",
        "EKS Pod Identity's agent doesn't answer on the pod's node. The agent isn't installed, or it doesn't run on "
        "that node, or the pod sends its requests to a proxy.",
        ("pod-identity-association-too", "pod-proxy-without-no-proxy"),
        (DOCTOR, "kubectl get pods -n kube-system -l app.kubernetes.io/name=eks-pod-identity-agent -o wide"),
    ),
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
        "There is no token at the path that AWS_WEB_IDENTITY_TOKEN_FILE names. The token isn't mounted in this "
        "container, or the program doesn't run in the pod.",
        ("pod-token-file-missing", "pod-volume-name-taken", "pod-container-skipped"),
        (DOCTOR, "kubectl exec {pod} -n {namespace} -- ls -l /var/run/secrets/eks.amazonaws.com/serviceaccount/"),
    ),
    Family(
        "token-volume",
        r"(SetUp failed for|cannot find) volume \\?\"aws-iam-token\\?\"",
        "The node can't mount the token into the pod. The API server issues no token, or something removed the "
        "webhook's volume from the pod again.",
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
        "AWS_PROFILE names a profile that no config in the pod defines. SDKs use a profile before the pod's own role.",
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
        "set, the pod has no role from the webhook either. If it's set, the program doesn't read it.",
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
        next=("kubectl exec {pod} -n {namespace} -- date -u   # compare with: date -u",),
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
        next=(VARIABLES, "kubectl exec {pod} -n {namespace} -- env | grep -i _PROXY   # then: AWS_CA_BUNDLE, NO_PROXY"),
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
        r"|(ENOTFOUND|UnknownHostException).{0,20}sts",
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
        "The account already has an OIDC provider for this issuer. There can be only one, and all roles share it. "
        "Check that it lists the audience.",
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
        "Two webhooks mount the token at the same path, or the manifest and one webhook do.",
        ("pod-mount-path-twice",),
    ),
    Family(
        "native-sidecar",
        r"may not be set for init containers without restartPolicy=Always",
        "An old pod identity webhook removes the fields of init containers that it doesn't know. Update the webhook.",
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
        "There is no such namespace.",
        ("namespace-missing",),
        ("kubectl get namespaces",),
    ),
)


@dataclass(frozen=True)
class Explanation:
    """A possible meaning of an error's text. The next commands contain the names from the text."""

    family: str
    means: str
    ids: tuple[str, ...]
    next: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, object]:
        """Return the explanation for other programs. Later versions may add keys, but they don't remove any."""
        return {"family": self.family, "means": self.means, "findings": list(self.ids), "next": list(self.next)}

    def __str__(self) -> str:
        can_be = "\n            ".join(self.ids) or "nothing that the doctor can see"
        following = "\n            ".join(self.next)
        return f"{self.family}: {self.means}\n  can be    {can_be}\n  next      {following}"


def explain(text: str) -> list[Explanation]:
    """Return an explanation for each family that an error's text matches; empty if no family matches.

    General families count only if no other family matches. Then only the first of them is returned.
    """
    # A log puts an error's lines on one line, with the line breaks as `\n`.
    readings = _readings(text.replace("\\n", " ").replace("\\t", " ").splitlines())
    matches = [(family, match) for family in FAMILIES if (match := _found(family, readings))]
    telling = [(family, match) for family, match in matches if not family.is_general]
    if not telling:
        telling = matches[:1]
    return [
        Explanation(
            family.name,
            family.means,
            tuple(dict.fromkeys(family.ids)),
            tuple(line.format_map(_names(match.string) | _named(match)) for line in family.next),
        )
        for family, match in telling
    ]


@cache
def _compiled(family: Family) -> re.Pattern[str]:
    return re.compile(family.pattern, re.IGNORECASE)


def _readings(lines: list[str]) -> list[str]:
    """Return the possible readings of the text, each as one line. A line break becomes a space, or nothing.

    A terminal breaks all long lines at the same width, even inside a word. If several lines have the greatest length, a
    terminal broke them. If only one line has it, that may be chance, so both readings are returned. A short text may
    lack the lines that show the terminal's width. For such a text, a reading with all lines joined is added.
    """
    width = max(map(len, lines), default=0)
    breaks = ["" if len(line) == width >= NARROWEST else " " for line in lines[:-1]]
    broken = breaks.count("")
    joined = "".join(line + end for line, end in zip(lines, [*breaks, ""], strict=False))
    texts = [joined] if broken > 1 else [" ".join(lines), *([joined] if broken else [])]
    texts += ["".join(lines)] if len(lines) <= FEW else []
    return list(dict.fromkeys(" ".join(each.split()) for each in texts))


def _found(family: Family, readings: list[str]) -> re.Match[str] | None:
    return next(filter(None, (_compiled(family).search(each) for each in readings)), None)


def _named(match: re.Match[str]) -> dict[str, str]:
    named = {name: value for name, value in match.groupdict().items() if value and name != "own"}
    return {name: shlex.quote(value.strip(".:,")) for name, value in named.items()}


def _names(said: str) -> dict[str, str]:
    """Return the names in the error's text, by kind. For a name that isn't in the text, return a placeholder."""
    names = {
        "namespace": "NAMESPACE",
        "service_account": "SERVICE_ACCOUNT",
        "pod": "POD",
        "role": "ROLE",
        "cluster": "CLUSTER",
        "account": "ACCOUNT_ID",
        "issuer": "ISSUER",
        "region": "REGION",
        "wants": "",
    }
    for pattern in _TOLD:
        if match := re.search(pattern, said):
            names |= {name: shlex.quote(value) for name, value in match.groupdict().items() if value}
    if wants := re.search(r"not authorized to perform: ([a-z0-9-]+:\w+)(?: on resource: \"?(arn:[^\s\"]+|\*))?", said):
        resource = f" --resource {shlex.quote(wants[2])}" if wants[2] else ""
        names["wants"] = f" --action {wants[1]}{resource}"
    return names


_TOLD: Iterable[str] = (
    r"system:serviceaccount:(?P<namespace>[a-z0-9-]+):(?P<service_account>[a-z0-9.-]*[a-z0-9])",
    r"looking up service account (?P<namespace>[a-z0-9-]+)/(?P<service_account>[a-z0-9.-]*[a-z0-9])",
    r"arn:[\w-]+:iam::(?P<account>\d{12}):role/(?:[\w+=,.@-]+/)*(?P<role>[\w+=,.@-]+)",
    r":assumed-role/(?P<role>[\w+=,.@-]+)/",
    r"(?P<issuer>https://oidc\.eks\.(?P<region>[a-z0-9-]+)\.amazonaws\.com/id/[0-9A-F]{32})",
    r"sts\.(?P<region>[a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com",
)
