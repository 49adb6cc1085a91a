"""What is read of an AWS account: providers, roles and their policies, and what of EKS belongs to them."""

import json
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from labkit.diagnosis.evidence.reading import Answer, Document, Read, Reads
from labkit.run_parameters import RUN_TAG

if TYPE_CHECKING:
    import boto3


# What is kept of a record of CloudTrail's: nothing of credentials is in it.
RECORDED = ("eventTime", "eventName", "errorCode", "errorMessage", "requestParameters")


class Account:
    """One account, by a session that may read it. Every method raises `NotRead` where it may not."""

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
        listed = self._once(
            "iam:ListOpenIDConnectProviders",
            "",
            lambda: self._iam.list_open_id_connect_providers()["OpenIDConnectProviderList"],
        )
        return [provider["Arn"] for provider in listed]

    def provider(self, arn: str) -> Document | None:
        """An OIDC provider: `Url`, `ClientIDList`, `ThumbprintList`, `Tags`; None where there is none.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetOpenIDConnectProvider.html
        """
        return self._once(
            "iam:GetOpenIDConnectProvider",
            arn.partition("oidc-provider/")[2],
            lambda: _answer(self._iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)),
        )

    # Roles.

    @property
    def roles(self) -> list[Document]:
        """Every role, with its trust policy; without tags and permissions boundary, which ListRoles does not tell.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListRoles.html
        """
        listed = self._once("iam:ListRoles", "", lambda: self._paged("list_roles", "Roles"))
        return [_with_document(role) for role in listed]

    def role(self, name: str) -> Document | None:
        """A role as iam:GetRole gives it, its trust policy as a dict; None where there is none.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetRole.html
        """
        role = self._once("iam:GetRole", name, lambda: self._iam.get_role(RoleName=name)["Role"])
        return _with_document(role) if role else None

    def attached_policies(self, role_name: str) -> list[str]:
        """The ARNs of a role's managed policies.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListAttachedRolePolicies.html
        """
        listed = self._once(
            "iam:ListAttachedRolePolicies",
            role_name,
            lambda: self._paged("list_attached_role_policies", "AttachedPolicies", RoleName=role_name),
        )
        return [policy["PolicyArn"] for policy in listed or []]

    def inline_policies(self, role_name: str) -> dict[str, Any]:
        """The policies that are written into a role, by name.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetRolePolicy.html
        """
        names = self._once(
            "iam:ListRolePolicies",
            role_name,
            lambda: self._paged("list_role_policies", "PolicyNames", RoleName=role_name),
        )
        return {
            name: document(
                self._once(
                    "iam:GetRolePolicy",
                    f"{role_name} {name}",
                    partial(self._inline_policy, role_name, name),
                )
            )
            for name in names or []
        }

    def _inline_policy(self, role_name: str, name: str) -> Any:
        return self._iam.get_role_policy(RoleName=role_name, PolicyName=name)["PolicyDocument"]

    def policy(self, arn: str) -> Any:
        """The document of a managed policy's default version; None where there is no such policy.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetPolicyVersion.html
        """

        def read() -> Any:
            version = self._iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
            return self._iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]

        return document(self._once("iam:GetPolicyVersion", arn, read))

    def simulated(self, role_arn: str, action: str, resource: str) -> Document:
        """What IAM says to a role's action on a resource: `EvalDecision`, and what of it the permissions boundary says.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
        """

        def simulate() -> Any:
            request = {"PolicySourceArn": role_arn, "ActionNames": [action], "ResourceArns": [resource]}
            return self._iam.simulate_principal_policy(**request)["EvaluationResults"][0]

        return self._once("iam:SimulatePrincipalPolicy", f"{role_arn} {action} {resource}", simulate) or {}

    # S3.

    def bucket_policy(self, bucket: str) -> Any:
        """A bucket's policy; None where it has none, or there is no such bucket.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketPolicy.html
        """
        return document(
            self._once(
                "s3:GetBucketPolicy", bucket, lambda: self.client("s3").get_bucket_policy(Bucket=bucket)["Policy"]
            )
        )

    # CloudTrail.

    def calls(self, name: str) -> list[Document]:
        """The last calls of this name to IAM, the newest first, as CloudTrail has them: 90 days, and 150 of them.

        https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_LookupEvents.html
        """

        def look_up() -> list[Document]:
            # IAM is one for all regions, and is recorded in this one.
            trail = self._session.client("cloudtrail", region_name="us-east-1")
            wanted = [{"AttributeKey": "EventName", "AttributeValue": name}]
            pages = trail.get_paginator("lookup_events").paginate(
                LookupAttributes=wanted, PaginationConfig={"MaxItems": 150}
            )
            events = [json.loads(event["CloudTrailEvent"]) for page in pages for event in page["Events"]]
            return [_recorded(event) for event in events]

        return self._once("cloudtrail:LookupEvents", name, look_up) or []

    # EKS.

    @property
    def cluster_names(self) -> list[str]:
        """The names of the region's clusters.

        https://docs.aws.amazon.com/eks/latest/APIReference/API_ListClusters.html
        """
        return self._once("eks:ListClusters", "", lambda: self._paged("list_clusters", "clusters", service="eks"))

    def identity_provider_configs(self, cluster: str) -> list[Document]:
        """The OIDC providers whose users may log in to a cluster: `issuerUrl`, `identityProviderConfigName` and more.

        https://docs.aws.amazon.com/eks/latest/APIReference/API_DescribeIdentityProviderConfig.html
        """
        listed = self._once(
            "eks:ListIdentityProviderConfigs",
            cluster,
            lambda: self._paged(
                "list_identity_provider_configs", "identityProviderConfigs", service="eks", clusterName=cluster
            ),
        )
        return [self._identity_provider_config(cluster, config) for config in listed or []]

    def _identity_provider_config(self, cluster: str, config: dict[str, str]) -> Document:
        def describe() -> Any:
            request = {"clusterName": cluster, "identityProviderConfig": config}
            return self.client("eks").describe_identity_provider_config(**request)["identityProviderConfig"]["oidc"]

        return self._once("eks:DescribeIdentityProviderConfig", f"{cluster} {config['name']}", describe) or {}

    def pod_identity_associations(self, cluster: str) -> list[Document]:
        """A cluster's EKS Pod Identity associations: `namespace`, `serviceAccount`, `associationId`.

        https://docs.aws.amazon.com/eks/latest/APIReference/API_ListPodIdentityAssociations.html
        """
        listed = self._once(
            "eks:ListPodIdentityAssociations",
            cluster,
            lambda: self._paged("list_pod_identity_associations", "associations", service="eks", clusterName=cluster),
        )
        return listed or []

    @property
    def regions(self) -> dict[str, str]:
        """Every region's name and its `OptInStatus`: `opt-in-not-required`, `opted-in` or `not-opted-in`.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeRegions.html
        """
        listed = self._once(
            "ec2:DescribeRegions", "", lambda: self.client("ec2").describe_regions(AllRegions=True)["Regions"]
        )
        return {region["RegionName"]: region.get("OptInStatus", "") for region in listed}

    def cluster(self, name: str) -> Document | None:
        """A cluster as eks:DescribeCluster gives it; None where there is none.

        https://docs.aws.amazon.com/eks/latest/APIReference/API_DescribeCluster.html
        """
        found: Document | None = self._once(
            "eks:DescribeCluster", name, lambda: self.client("eks").describe_cluster(name=name)["cluster"]
        )
        return found

    # How the others read.

    def client(self, service: str) -> Any:
        """A client of this account."""
        if service not in self._clients:
            self._clients[service] = self._session.client(service)
        return self._clients[service]

    @cached_property
    def _iam(self) -> Any:
        return self.client("iam")

    def _paged(self, operation: str, key: str, *, service: str = "iam", **arguments: Any) -> list[Any]:
        pages = self.client(service).get_paginator(operation).paginate(**arguments)
        return [item for page in pages for item in page[key]]

    def read(self, kind: str, name: str = "") -> Read:
        """What is read of this account: `iam:GetRole`, a role's name."""
        return Read(kind, name, f"({self.account_id})", "AWS")

    def _once(self, kind: str, name: str, call: Callable[[], Answer]) -> Answer:
        return self._reads.once(self.read(kind, name), call)


def document(value: Any) -> Any:
    """A policy document as IAM reads it: a dict, also where it came as text or URL-encoded; what is neither stays.

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


def run_of(role: Document | None) -> str | None:
    """The lab's run whose tag a role bears."""
    tags = (role or {}).get("Tags") or []
    return next((tag["Value"] for tag in tags if tag["Key"] == RUN_TAG), None)


def _with_document(role: Document) -> Document:
    return role | {"AssumeRolePolicyDocument": document(role.get("AssumeRolePolicyDocument") or {})}


def _answer(response: Document) -> Document:
    return {key: value for key, value in response.items() if key != "ResponseMetadata"}


def _recorded(event: Document) -> Document:
    """Of a record of CloudTrail's what is asked of it, and of the caller the user or role, without the session."""
    identity = event.get("userIdentity") or {}
    issuer = (identity.get("sessionContext") or {}).get("sessionIssuer") or {}
    return {field: event.get(field) for field in RECORDED} | {"caller": issuer.get("arn") or identity.get("arn") or ""}
