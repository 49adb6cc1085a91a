"""The facts of an AWS account: OIDC providers, roles, policies, and other settings that affect a pod's access."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from operator import getitem
from typing import TYPE_CHECKING, Any, TypedDict, cast
from urllib.parse import unquote

from labkit.connection import Connection, Record
from labkit.doctor.evidence.reading import Answer, NotRead, Read, Reads
from labkit.errors import NotAllowed
from labkit.policy.arn import Arn
from labkit.run_parameters import RUN_TAG

if TYPE_CHECKING:
    # Answers are kept as plain JSON, so a date is a string, whatever these types say.
    import boto3
    from types_boto3_eks.type_defs import (
        ClusterTypeDef,
        OidcIdentityProviderConfigTypeDef,
        PodIdentityAssociationSummaryTypeDef,
    )
    from types_boto3_iam.type_defs import (
        EvaluationResultTypeDef,
        GetOpenIDConnectProviderResponseTypeDef,
        RoleTypeDef,
    )
    from types_boto3_organizations.type_defs import OrganizationTypeDef, PolicySummaryTypeDef

ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\x21-\x7e]+", re.ASCII)
# The issuer of an EKS cluster; the groups are its region and its id.
EKS_ISSUER = re.compile(r"oidc\.eks\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/id/([0-9A-Za-z]+)")


# The calls that return a resource's own policy, by service. A role's own policy is its trust policy.
RESOURCE_POLICY = {
    "iam": "iam:GetRole",
    "s3": "s3:GetBucketPolicy",
    "kms": "kms:GetKeyPolicy",
    "sqs": "sqs:GetQueueAttributes",
    "sns": "sns:GetTopicAttributes",
    "secretsmanager": "secretsmanager:GetResourcePolicy",
    "dynamodb": "dynamodb:GetResourcePolicy",
    "ecr": "ecr:GetRepositoryPolicy",
}
CONTEXT_TYPES = {"aws:currenttime": "date", "aws:epochtime": "numeric"}
CONTEXT_TYPES |= dict.fromkeys(("aws:multifactorauthpresent", "aws:securetransport"), "boolean")


class PastCall(TypedDict, total=False):
    """The fields of a CloudTrail record that the doctor keeps. It keeps no credentials.

    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
    """

    eventTime: str
    eventName: str
    errorCode: str | None
    errorMessage: str | None
    requestParameters: dict[str, Any] | None
    caller: str
    """The ARN of the user or role, without its session."""


class AwsAccounts:
    """The AWS accounts that a diagnosis reads: the cluster's own, and the roles' other accounts."""

    def __init__(self, connection: Connection, reads: Reads):
        self.own = Account(connection.aws, connection.account_id, reads)
        self._connection = connection
        self._reads = reads
        self._accounts = {connection.account_id: self.own}

    def of(self, account_id: str) -> "Account":
        """Return the account with this id. Raises `NotRead` if there are no credentials for it."""
        if account_id in self._accounts:
            return self._accounts[account_id]
        from botocore.exceptions import ClientError

        try:
            session = self._connection.account(account_id)
        except (ClientError, NotAllowed):
            session = None
        if session is None:
            read = Read("sts:AssumeRole into", account_id, f"({self._connection.account_id})", "AWS")
            raise NotRead(read, "this account is not the cluster's", f"credentials of the account {account_id}")
        self._accounts[account_id] = Account(session, account_id, self._reads)
        return self._accounts[account_id]


class Account:
    """One AWS account, read with a session. Every method raises `NotRead` if AWS refuses its call or doesn't answer."""

    def __init__(self, session: "boto3.Session", account_id: str, reads: Reads):
        self.account_id = account_id
        self._session = session
        self._reads = reads
        self._clients: dict[str, Any] = {}

    # OIDC providers.

    @property
    def provider_arns(self) -> list[str]:
        """The ARNs of the account's OIDC providers.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListOpenIDConnectProviders.html
        """
        listed = self._answered("iam:ListOpenIDConnectProviders", "", "OpenIDConnectProviderList")
        return [provider["Arn"] for provider in listed]

    def provider(self, arn: str) -> "GetOpenIDConnectProviderResponseTypeDef | None":
        """Return an OIDC provider: `Url`, `ClientIDList`, `ThumbprintList`, `Tags`; None if the provider doesn't exist.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetOpenIDConnectProvider.html
        """
        name = Arn.parse(arn).issuer
        provider: GetOpenIDConnectProviderResponseTypeDef | None = self._answered(
            "iam:GetOpenIDConnectProvider", name, OpenIDConnectProviderArn=arn
        )
        return provider

    # Roles.

    @property
    def roles(self) -> "list[RoleTypeDef]":
        """Every role with its trust policy, but without its tags and permissions boundary: iam:ListRoles omits these.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListRoles.html
        """
        return [_with_document(role) for role in self._listed("iam:ListRoles", "", "Roles")]

    def role(self, name: str) -> "RoleTypeDef | None":
        """Return the answer of iam:GetRole, with the trust policy as a dict; None if the role doesn't exist.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetRole.html
        """
        role = self._answered("iam:GetRole", name, "Role", RoleName=name)
        return _with_document(role) if role else None

    @property
    def authorization_details(self) -> dict[str, Any]:
        """`RoleDetailList`: every role with its tags and policies. `Policies`: the account's own managed policies.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetAccountAuthorizationDetails.html
        """

        def fetch() -> dict[str, Any]:
            pages = self.client("iam").get_paginator("get_account_authorization_details")
            details: dict[str, Any] = {"RoleDetailList": [], "Policies": []}
            for page in pages.paginate(Filter=["Role", "LocalManagedPolicy"]):
                for key in details:
                    details[key] += page.get(key) or []
            return details

        return self._once("iam:GetAccountAuthorizationDetails", "", fetch)

    def attached_policies(self, role_name: str) -> list[str]:
        """Return the ARNs of a role's managed policies.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListAttachedRolePolicies.html
        """
        listed = self._listed("iam:ListAttachedRolePolicies", role_name, "AttachedPolicies", RoleName=role_name)
        return [policy["PolicyArn"] for policy in listed]

    def inline_policies(self, role_name: str) -> dict[str, object]:
        """Return the documents of a role's inline policies, by the policies' names.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetRolePolicy.html
        """
        kind, key = "iam:GetRolePolicy", "PolicyDocument"
        return {
            name: document(self._answered(kind, f"{role_name} {name}", key, RoleName=role_name, PolicyName=name))
            for name in self._listed("iam:ListRolePolicies", role_name, "PolicyNames", RoleName=role_name)
        }

    def policy(self, arn: str) -> Any:
        """Return the document of a managed policy's default version; None if the policy doesn't exist.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetPolicyVersion.html
        """

        def fetch() -> Any:
            version = self._call("iam:GetPolicy", PolicyArn=arn)["Policy"]["DefaultVersionId"]
            answer = self._call("iam:GetPolicyVersion", PolicyArn=arn, VersionId=version)
            return answer["PolicyVersion"]["Document"]

        return document(self._once("iam:GetPolicyVersion", arn, fetch))

    def simulated(
        self, role_arn: str, action: str, resource: str, context: Mapping[str, object]
    ) -> "EvaluationResultTypeDef":
        """Return IAM's answer: may the role use the action on the resource? Empty if the role doesn't exist.

        `context`: the values of the request's condition keys, as far as they are known.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
        """
        entries = [
            {
                "ContextKeyName": key,
                "ContextKeyType": CONTEXT_TYPES.get(key.lower(), "string"),
                "ContextKeyValues": [value],
            }
            for key, value in context.items()
        ]
        request = {
            "PolicySourceArn": role_arn,
            "ActionNames": [action],
            "ResourceArns": [resource],
            "ContextEntries": entries,
        }
        name = f"{role_arn} {action} {resource}"
        result = self._answered("iam:SimulatePrincipalPolicy", name, "EvaluationResults", 0, **request)
        return cast("EvaluationResultTypeDef", result or {})

    # Organizations.

    @property
    def organization(self) -> "OrganizationTypeDef":
        """The organization that the account belongs to. Raises `NotRead` without an organization.

        https://docs.aws.amazon.com/organizations/latest/APIReference/API_DescribeOrganization.html
        """
        described = self._answered("organizations:DescribeOrganization", "", "Organization")
        return cast("OrganizationTypeDef", described or {})

    def control_policies(self, policy_type: str) -> "list[PolicySummaryTypeDef]":
        """Return the organization's policies of the type `policy_type` that limit the account.

        Policies attached to the organization's root come first. Policies attached to the account itself come last.
        Only the organization's management account and its delegated administrators can list policies.

        https://docs.aws.amazon.com/organizations/latest/APIReference/API_ListPoliciesForTarget.html
        """
        target: str = self.account_id
        policies: list[PolicySummaryTypeDef] = []
        while True:
            attached = self._listed(
                "organizations:ListPoliciesForTarget",
                f"{target} {policy_type}",
                "Policies",
                TargetId=target,
                Filter=policy_type,
            )
            policies = [*attached, *policies]
            if target.startswith("r-"):
                return [*{policy["Name"]: policy for policy in policies}.values()]
            (parent,) = self._listed("organizations:ListParents", target, "Parents", ChildId=target)
            target = parent["Id"]

    def control_policy(self, policy_id: str) -> Any:
        """Return the document of one of the organization's policies.

        https://docs.aws.amazon.com/organizations/latest/APIReference/API_DescribePolicy.html
        """
        name = "organizations:DescribePolicy"
        return document(self._answered(name, policy_id, "Policy", "Content", PolicyId=policy_id))

    # S3.

    @property
    def buckets(self) -> list[str]:
        """The names of the account's buckets.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListBuckets.html
        """
        return [bucket["Name"] for bucket in self._answered("s3:ListBuckets", "", "Buckets") or []]

    # Resource policies.

    def resource_policy(self, arn: str) -> object:
        """Return the policy of a resource, of a service in `RESOURCE_POLICY`; None if the resource has none.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketPolicy.html
        https://docs.aws.amazon.com/kms/latest/APIReference/API_GetKeyPolicy.html
        https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html
        https://docs.aws.amazon.com/sns/latest/api/API_GetTopicAttributes.html
        https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetResourcePolicy.html
        https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_GetResourcePolicy.html
        https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetRepositoryPolicy.html
        https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetRole.html
        """
        named = Arn.parse(arn)
        kind, _, name = named.resource.partition("/")
        requests: dict[str, tuple[str, dict[str, Any]]] = {
            "s3": (kind, {"Bucket": kind}),
            "kms": (name, {"KeyId": name, "PolicyName": "default"}),
            "sqs": (kind, {"AttributeNames": ["Policy"]}),
            "sns": (kind, {"TopicArn": arn}),
            "secretsmanager": (named.resource, {"SecretId": arn}),
            "dynamodb": (name, {"ResourceArn": "/".join(arn.split("/")[:2])}),
            "ecr": (name, {"repositoryName": name}),
        }
        if named.service == "iam" and kind == "role":
            return role["AssumeRolePolicyDocument"] if (role := self.role(named.name)) else None
        if named.service not in requests:
            return None
        label, request = requests[named.service]

        def fetch() -> Any:
            client = self._session.client(named.service, region_name=named.region or None)
            if named.service == "sqs":
                request["QueueUrl"] = client.get_queue_url(QueueName=kind)["QueueUrl"]
            answer = getattr(client, _operation(RESOURCE_POLICY[named.service])[1])(**request)
            answer = answer.get("Attributes", answer)
            return next((answer[key] for key in ("Policy", "ResourcePolicy", "policyText") if key in answer), None)

        return document(self._once(RESOURCE_POLICY[named.service], label, fetch))

    # CloudTrail.

    def calls(self, name: str) -> list[PastCall]:
        """Return the last 150 calls of an operation, such as `CreateRole`, the newest first. CloudTrail keeps 90 days.

        https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
        """

        def look_up() -> list[PastCall]:
            # IAM is global. CloudTrail records its calls in this region.
            trail = self._session.client("cloudtrail", region_name="us-east-1")
            wanted = [{"AttributeKey": "EventName", "AttributeValue": name}]
            pages = trail.get_paginator("lookup_events").paginate(
                LookupAttributes=wanted, PaginationConfig={"MaxItems": 150}
            )
            return [_recorded(json.loads(event["CloudTrailEvent"])) for page in pages for event in page["Events"]]

        return self._once("cloudtrail:LookupEvents", name, look_up) or []

    # EKS.

    @property
    def cluster_names(self) -> list[str]:
        """The names of the EKS clusters in the session's region.

        https://docs.aws.amazon.com/eks/latest/APIReference/API_ListClusters.html
        """
        return self._listed("eks:ListClusters", "", "clusters")

    def cluster(self, name: str) -> "ClusterTypeDef | None":
        """Return the answer of eks:DescribeCluster; None if the cluster doesn't exist.

        https://docs.aws.amazon.com/eks/latest/APIReference/API_DescribeCluster.html
        """
        cluster: ClusterTypeDef | None = self._answered("eks:DescribeCluster", name, "cluster", name=name)
        return cluster

    def gone(self, issuers: Iterable[str], region: str) -> list[str]:
        """Return those of `issuers` (without `https://`) whose EKS cluster in this region no longer exists.

        Issuers of other regions, or outside EKS, are left out.
        """
        left = [name for name in issuers if (match := EKS_ISSUER.fullmatch(name)) and match[1] == region]
        for name in self.cluster_names if left else ():
            if not left:
                break
            cluster = self.cluster(name) or {}
            issuer = ((cluster.get("identity") or {}).get("oidc") or {}).get("issuer", "").removeprefix("https://")
            left = [each for each in left if each != issuer]
        return left

    def identity_provider_configs(self, cluster: str) -> "list[OidcIdentityProviderConfigTypeDef]":
        """Return the cluster's identity provider configs: the OIDC providers for people who log in to the cluster.

        https://docs.aws.amazon.com/eks/latest/APIReference/API_DescribeIdentityProviderConfig.html
        """
        kind, key = "eks:DescribeIdentityProviderConfig", "identityProviderConfig"
        configs = self._listed("eks:ListIdentityProviderConfigs", cluster, f"{key}s", clusterName=cluster)
        described: list[OidcIdentityProviderConfigTypeDef | None] = [
            self._answered(
                kind, f"{cluster} {config['name']}", key, "oidc", clusterName=cluster, identityProviderConfig=config
            )
            for config in configs
        ]
        return [each or {} for each in described]

    def pod_identity_associations(self, cluster: str) -> "list[PodIdentityAssociationSummaryTypeDef]":
        """Return a cluster's EKS Pod Identity associations.

        https://docs.aws.amazon.com/eks/latest/APIReference/API_ListPodIdentityAssociations.html
        """
        return self._listed("eks:ListPodIdentityAssociations", cluster, "associations", clusterName=cluster)

    def role_of_association(self, cluster: str, association_id: str) -> str:
        """Return the ARN of the role of a Pod Identity association; empty if the association doesn't exist.

        https://docs.aws.amazon.com/eks/latest/APIReference/API_DescribePodIdentityAssociation.html
        """
        kind, name = "eks:DescribePodIdentityAssociation", f"{cluster} {association_id}"
        return (
            self._answered(kind, name, "association", "roleArn", clusterName=cluster, associationId=association_id)
            or ""
        )

    # EC2.

    @property
    def regions(self) -> dict[str, str]:
        """Every region's name and its `OptInStatus`: `opt-in-not-required`, `opted-in` or `not-opted-in`.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeRegions.html
        """
        listed = self._answered("ec2:DescribeRegions", "", "Regions", AllRegions=True)
        return {region["RegionName"]: region.get("OptInStatus", "") for region in listed}

    # How the account is read.

    def client(self, service: str) -> Any:
        """Return the client of a service, such as `iam`, in this account."""
        if service not in self._clients:
            self._clients[service] = self._session.client(service)
        return self._clients[service]

    def read_of(self, kind: str, name: str = "") -> Read:
        """Return the `Read` that describes a call to this account.

        `kind` is the call, such as `iam:GetRole`. `name` is what the call asks about, such as a role's name.
        """
        return Read(kind, name, f"({self.account_id})", "AWS")

    def _call(self, kind: str, /, **request: Any) -> Any:
        service, operation = _operation(kind)
        answer = getattr(self.client(service), operation)(**request)
        return {key: value for key, value in answer.items() if key != "ResponseMetadata"}

    def _answered(self, kind: str, name: str, /, *keys: str | int, **request: Any) -> Any:
        """Make the call `kind`, and follow `keys` into its answer.

        Return the value there; None if the resource doesn't exist.
        """
        return self._once(kind, name, lambda: reduce(getitem, keys, self._call(kind, **request)))

    def _listed(self, kind: str, name: str, key: str, /, **request: Any) -> list[Any]:
        def fetch() -> list[Any]:
            service, operation = _operation(kind)
            pages = self.client(service).get_paginator(operation).paginate(**request)
            return [item for page in pages for item in page[key]]

        return self._once(kind, name, fetch) or []

    def _once(self, kind: str, name: str, call: Callable[[], Answer]) -> Answer:
        return self._reads.once(self.read_of(kind, name), call)


def _operation(kind: str) -> tuple[str, str]:
    """Split `iam:GetRole` into boto3's `iam` and `get_role`."""
    from botocore import xform_name

    service, _, operation = kind.partition(":")
    return service, xform_name(operation)


def document(value: Any) -> Any:
    """Return a policy document as a dict, even if `value` is JSON text or URL-encoded. Return other values unchanged.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetRole.html
    """
    if not isinstance(value, str):
        return value
    for text in (value, unquote(value)):
        try:
            return json.loads(text)
        except ValueError:
            continue
    return value


def is_pattern(arn: Arn) -> bool:
    """Return whether the ARN isn't one resource's name, so that nobody can read its policy: it has a wildcard."""
    return "*" in arn.resource or "?" in arn.resource or arn.resource.startswith("alias/")


def tags_of(role: "RoleTypeDef | None") -> dict[str, str]:
    """Return a role's tags, by key; empty without a role."""
    return {tag["Key"]: tag["Value"] for tag in (role.get("Tags") if role else None) or []}


def run_of(role: "RoleTypeDef | None") -> str | None:
    """Return the value of the role's tag that names a run of the lab; None without such a tag."""
    return tags_of(role).get(RUN_TAG)


def _with_document(role: "RoleTypeDef") -> "RoleTypeDef":
    return {**role, "AssumeRolePolicyDocument": document(role.get("AssumeRolePolicyDocument") or {})}


def _recorded(event: Record) -> PastCall:
    identity = event.get("userIdentity") or {}
    # The issuer of a role session is the role.
    issuer = (identity.get("sessionContext") or {}).get("sessionIssuer") or {}
    return {
        "eventTime": event["eventTime"],
        "eventName": event["eventName"],
        "errorCode": event.get("errorCode"),
        "errorMessage": event.get("errorMessage"),
        "requestParameters": event.get("requestParameters"),
        "caller": issuer.get("arn") or identity.get("arn") or "",
    }
