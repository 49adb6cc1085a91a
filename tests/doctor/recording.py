"""Recorded evidence: a healthy lab's answers to the doctor's calls, for tests to change."""

import copy
from typing import Any

from labkit.connection import Connection
from labkit.doctor.evidence import Evidence, Reads
from labkit.run_parameters import Parameters
from labkit.simulator import Authority
from labkit.steps import iam_role, pod, service_account
from labkit.webhook import mutating_webhook_configuration

ACCOUNT_ID = "123456789012"
ISSUER = "https://oidc.eks.us-east-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
NAME = ISSUER.removeprefix("https://")
PARAMETERS = Parameters.checked()
ROLE_ARN = f"arn:aws:iam::{ACCOUNT_ID}:role/my-role"
TOKEN_FILE = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"

# The calls, as evidence names them.
PROVIDERS = f"iam:ListOpenIDConnectProviders ({ACCOUNT_ID})"
PROVIDER = f"iam:GetOpenIDConnectProvider {NAME} ({ACCOUNT_ID})"
ROLES = f"iam:ListRoles ({ACCOUNT_ID})"
DETAILS = f"iam:GetAccountAuthorizationDetails ({ACCOUNT_ID})"
ROLE = f"iam:GetRole my-role ({ACCOUNT_ID})"
ATTACHED = f"iam:ListAttachedRolePolicies my-role ({ACCOUNT_ID})"
INLINE = f"iam:ListRolePolicies my-role ({ACCOUNT_ID})"
CLUSTERS = f"eks:ListClusters ({ACCOUNT_ID})"
IDENTITY_PROVIDER_CONFIGS = f"eks:ListIdentityProviderConfigs blue ({ACCOUNT_ID})"
BUCKET_POLICY = f"s3:GetBucketPolicy irsa-lab ({ACCOUNT_ID})"
TRUST_WRITTEN = f"cloudtrail:LookupEvents UpdateAssumeRolePolicy ({ACCOUNT_ID})"
ROLES_MADE = f"cloudtrail:LookupEvents CreateRole ({ACCOUNT_ID})"
PROVIDERS_MADE = f"cloudtrail:LookupEvents CreateOpenIDConnectProvider ({ACCOUNT_ID})"
PROVIDERS_TAGGED = f"cloudtrail:LookupEvents TagOpenIDConnectProvider ({ACCOUNT_ID})"
PROVIDERS_DELETED = f"cloudtrail:LookupEvents DeleteOpenIDConnectProvider ({ACCOUNT_ID})"
DISCOVERY = f"{ISSUER}/.well-known/openid-configuration"
KEYS = f"{ISSUER}/keys"
CLUSTER_KEYS = "get --raw /openid/v1/jwks"
SERVED = "tls://oidc.eks.us-east-1.amazonaws.com:443"
THUMBPRINT = "0123456789abcdef0123456789abcdef01234567"
ALL_SERVICE_ACCOUNTS = "list serviceaccounts --all-namespaces"
SERVICE_ACCOUNTS = "list serviceaccounts -n default"
PODS = "list pods -n default"
EVENTS = "list events -n default"
DEPLOYMENTS = "list deployments -n default"
STATEFUL_SETS = "list statefulsets -n default"
DAEMON_SETS = "list daemonsets -n default"
CRON_JOBS = "list cronjobs -n default"
JOBS = "list jobs -n default"
ROLE_BINDINGS = "list rolebindings --all-namespaces"
CLUSTER_ROLE_BINDINGS = "list clusterrolebindings --all-namespaces"
REPLICA_SETS = "list replicasets -n default"
METRICS = "get --raw /metrics"
METRICS_AGAIN = f"{METRICS} once more"
DRY_RUN = "create pod --dry-run=server, like my-pod -n default"
NAMESPACE = "get namespace default"
WEBHOOK = "get mutatingwebhookconfiguration pod-identity-webhook"
WEBHOOK_URL = "https://127.0.0.1:8443/mutate"
WEBHOOK_ANSWERS = f"get {WEBHOOK_URL}"
ASSOCIATIONS = f"eks:ListPodIdentityAssociations blue ({ACCOUNT_ID})"
TOKEN = "the token's claims in pod my-pod -n default"
EXCHANGE = "sts:AssumeRoleWithWebIdentity with the token in pod my-pod -n default"
CALLER = "sts:GetCallerIdentity in pod my-pod -n default"

SESSION = f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/my-role"
AUTHORITY = Authority.create("kubernetes")
REGISTRATION = mutating_webhook_configuration(WEBHOOK_URL, AUTHORITY.certificate_pem)
CONNECTION = Connection(
    aws=None,
    kubernetes=None,
    issuer=ISSUER,
    account_id=ACCOUNT_ID,
    webhook_registration=lambda: REGISTRATION,
    webhook_restored_by="labkit reset",
)
TOKEN_HEADER = {"alg": "RS256", "kid": "key-1"}
CLAIMS = {
    "aud": ["sts.amazonaws.com"],
    "exp": 1767312060,
    "iat": 1767225660,  # 2026-01-01T00:01:00Z
    "iss": ISSUER,
    "sub": PARAMETERS.subject,
}


def a_pod() -> dict[str, Any]:
    """The pod as the API server returns it, changed by the webhook and by the ServiceAccount admission controller."""
    made = pod.build(PARAMETERS)
    made["metadata"] |= {"creationTimestamp": "2026-01-01T00:01:00Z", "uid": "b"}
    container = made["spec"]["containers"][0]
    container["env"] = [
        {"name": "AWS_STS_REGIONAL_ENDPOINTS", "value": "regional"},
        {"name": "AWS_DEFAULT_REGION", "value": "us-east-1"},
        {"name": "AWS_REGION", "value": "us-east-1"},
        {"name": "AWS_ROLE_ARN", "value": ROLE_ARN},
        {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": TOKEN_FILE},
    ]
    container["volumeMounts"] = [
        {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True},
        {"name": "aws-iam-token", "mountPath": TOKEN_FILE.removesuffix("/token"), "readOnly": True},
    ]
    token = {"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "token"}
    own = {"expirationSeconds": 3607, "path": "token"}
    made["spec"]["volumes"] = [
        {"name": "aws-iam-token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "kube-api-access-x", "projected": {"sources": [{"serviceAccountToken": own}]}},
    ]
    made["status"] = {"phase": "Running"}
    return made


def healthy() -> dict[str, Any]:
    """Return a new copy of a healthy lab's answers, keyed by call."""
    role = {
        "Arn": ROLE_ARN,
        "RoleName": "my-role",
        "CreateDate": "2026-01-01T00:00:00+00:00",
        "MaxSessionDuration": 3600,
        "AssumeRolePolicyDocument": iam_role.build(PARAMETERS, CONNECTION.provider_arn),
        "Tags": PARAMETERS.tags,
    }
    account = service_account.build(PARAMETERS, ROLE_ARN)
    account["metadata"]["creationTimestamp"] = "2026-01-01T00:00:30Z"
    return copy.deepcopy(
        {
            PROVIDERS: [{"Arn": CONNECTION.provider_arn}],
            PROVIDER: {"Url": NAME, "ClientIDList": ["sts.amazonaws.com"], "ThumbprintList": [THUMBPRINT], "Tags": []},
            ROLES: [{key: value for key, value in role.items() if key != "Tags"}],
            ROLE: role,
            ATTACHED: [{"PolicyName": "AmazonS3ReadOnlyAccess", "PolicyArn": PARAMETERS.policy_arn}],
            INLINE: [],
            CLUSTERS: ["blue"],
            f"eks:DescribeCluster blue ({ACCOUNT_ID})": {"identity": {"oidc": {"issuer": ISSUER}}},
            IDENTITY_PROVIDER_CONFIGS: [],
            BUCKET_POLICY: None,
            TRUST_WRITTEN: [],
            ROLES_MADE: [],
            PROVIDERS_MADE: [],
            PROVIDERS_TAGGED: [],
            PROVIDERS_DELETED: [],
            DISCOVERY: {"document": {"issuer": ISSUER, "jwks_uri": KEYS}},
            KEYS: {"document": {"keys": [{"kid": "key-1", "kty": "RSA"}]}},
            CLUSTER_KEYS: {"keys": [{"kid": "key-1", "kty": "RSA"}]},
            SERVED: THUMBPRINT,
            ALL_SERVICE_ACCOUNTS: [account, {"metadata": {"name": "default", "namespace": "default"}}],
            SERVICE_ACCOUNTS: [account, {"metadata": {"name": "default", "namespace": "default"}}],
            PODS: [a_pod()],
            EVENTS: [],
            DEPLOYMENTS: [],
            STATEFUL_SETS: [],
            DAEMON_SETS: [],
            CRON_JOBS: [],
            JOBS: [],
            REPLICA_SETS: [],
            ROLE_BINDINGS: [],
            CLUSTER_ROLE_BINDINGS: [],
            NAMESPACE: {"metadata": {"name": "default", "labels": {"kubernetes.io/metadata.name": "default"}}},
            WEBHOOK: REGISTRATION,
            WEBHOOK_ANSWERS: "",
            ASSOCIATIONS: [],
            TOKEN: {"header": TOKEN_HEADER, "claims": CLAIMS, "unreadable": "", "malformed": "", "no_program": False},
            EXCHANGE: {"arn": f"{SESSION}/labkit-doctor", "code": "", "message": ""},
            CALLER: {"arn": f"{SESSION}/botocore-session-1", "error": ""},
        }
    )


def evidence(answers: dict[str, Any] | None = None, **settings: Any) -> Evidence:
    """Evidence from recorded answers, without a connection."""
    return Evidence(PARAMETERS, CONNECTION, reads=Reads(healthy() if answers is None else answers), **settings)
