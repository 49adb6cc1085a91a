"""The errors with which AWS refuses a call, because of the token, a policy or the caller's permissions."""

from labkit.doctor.explanations.family import (
    AGENT,
    AUDIENCE_IDS,
    DOCTOR,
    KEY_IDS,
    NOT_USED_IDS,
    PROBE,
    PROVIDER_IDS,
    PROVIDERS,
    TRUST_POLICY,
    TRUST_POLICY_IDS,
    VARIABLES,
    WHO,
    Family,
)

# The session name of a node's role is the instance's id. People often hide the digits of the id. If the text has no
# session name, the role's own name shows that it's a node's role. OpenSearch names only the role.
NODE = (
    r"assumed-role/[^/\s]+/i-[0-9a-fx*]{8,17}(?![\w-])"
    r"|(assumed-role|\[name=arn:[\w-]+:iam::\w+:role)/[^/\s]*(node-?instance-?role|node[-_]?group|[-_]node[-_]?role)"
)
# A client's words if EKS Pod Identity's agent doesn't answer.
SILENT = r"connection refused|ECONNREFUSED|timed? ?out|ETIMEDOUT|deadline exceeded|no route to host|unreachable"
# Policies that other administrators write. If a denial names one of them, the trust policy hasn't refused.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
OF_OTHERS = r"(service control|resource control|VPC endpoint) policy"

FAMILIES = (
    # Denials that name the policy.
    Family(
        "vpc-endpoint",
        r"explicit deny in an? VPC endpoint policy|no VPC endpoint policy allows",
        "The pod reaches AWS through a VPC endpoint, and the endpoint's policy refuses the call. The trust policy and "
        "the role's permissions aren't the cause.",
        ("denied-by-vpc-endpoint-policy",),
        (PROBE, "aws ec2 describe-vpc-endpoints --query 'VpcEndpoints[].[VpcEndpointId,ServiceName,PolicyDocument]'"),
    ),
    Family(
        "service-control-policy",
        r"explicit deny in an? service control policy|no service control policy allows",
        "A service control policy (SCP) refuses the call. It limits what the role's account may do, even with another "
        "account's resources. Only the organization's administrators can change it. The trust policy and the role's "
        "permissions aren't the cause.",
        ("role-denied-by-service-control-policy", "denied-by-service-control-policy"),
        (
            f"{DOCTOR}{{wants}}",
            "aws organizations list-policies-for-target --target-id {account} --filter SERVICE_CONTROL_POLICY",
        ),
    ),
    Family(
        "resource-control-policy",
        r"explicit deny in an? resource control policy|no resource control policy allows",
        "A resource control policy (RCP) refuses the call. It limits what anyone may do with the resources of an "
        "account. Only the organization's administrators can change it. The trust policy and the role's permissions "
        "aren't the cause.",
        ("role-denied-by-resource-control-policy", "denied-by-resource-control-policy"),
        (
            f"{DOCTOR}{{wants}}",
            "aws organizations list-policies-for-target --target-id {account} --filter RESOURCE_CONTROL_POLICY   "
            "# --target-id: the account that owns the resource",
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
        "Since about June 2026, STS no longer seems to say which. The trust policy isn't the cause.",
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
        "The session's name isn't valid. A valid name has 2 to 64 characters: letters, digits and any of _ + = , . @ -",
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
        "The pod has a role and tries to assume another role. Either the permissions of the pod's role or the other "
        "role's trust policy refuses the call.",
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
        "The role's permissions boundary refuses the call. The role's other policies aren't the cause.",
        ("role-denied-by-boundary",),
        (f"{DOCTOR}{{wants}}",),
    ),
    Family(
        "resource-policy",
        r"explicit deny in a resource-based policy|because no resource-based policy allows",
        "The resource's own policy, such as a bucket policy, denies the call, or doesn't admit another account's role.",
        ("role-denied-by-bucket-policy",),
        (f"{DOCTOR}{{wants}}",),
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
        "EC2 refuses the call. Only the encoded message names the caller and the refused action. You need the "
        "permission sts:DecodeAuthorizationMessage to decode the message.",
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
        "Temporary credentials have expired. Someone copied them, or the program keeps them and fetches no new ones.",
        ("pod-static-keys", "token-read-once"),
        (WHO, VARIABLES),
    ),
    Family(
        "keys-unknown",
        r"InvalidClientTokenId|InvalidAccessKeyId|UnrecognizedClientException"
        r"|security token included in the request is invalid",
        "AWS does not know the access key. The SDK uses keys in the environment or a config file instead of the role.",
        ("pod-static-keys", "role-missing"),
        (VARIABLES, DOCTOR),
    ),
    Family(
        "keys-incomplete",
        r"Partial credentials found in|PartialCredentialsError",
        "The environment or a config file has only a part of an access key. The SDK then stops, and doesn't use the "
        "pod's role.",
        ("pod-static-keys",),
        (VARIABLES, DOCTOR),
    ),
    Family(
        "packed-policy",
        r"PackedPolicyTooLarge|Packed (policy|size of session tags) consumes",
        "The session policy and the session tags of this call are too large together. The role itself is right.",
        next=("# shorten the session policy or the tags that the program sends to STS",),
    ),
    Family(
        "kms-key",
        r"refers to a customer master key that does not exist",
        "KMS finds no such key in this account and region, or the role may not use the key. KMS doesn't say which.",
        ("role-lacks-permission",),
        (WHO, f"{PROBE} --action kms:Decrypt --resource KEY_ARN"),
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
)
