"""The minimum permissions to run `irsa.ipynb` in an account and a cluster, and to clean up."""

from collections.abc import Iterator
from typing import Any

from labkit.errors import LabError
from labkit.policy.arn import Arn
from labkit.run_parameters import RUN_TAG, Parameters, partitions
from labkit.webhook.server import NAME as WEBHOOK

GROUP = "irsa-lab"
"""The Kubernetes group of the people who run the lab."""
LISTS = ("iam:ListRoles", "iam:ListPolicies", "iam:ListOpenIDConnectProviders", "s3:ListAllMyBuckets")
TAGS_OF_IAM = ("iam:ListRoleTags", "iam:ListPolicyTags", "iam:ListOpenIDConnectProviderTags")


class AnotherPartition(LabError):
    """The policy's partition (such as `aws-cn`) isn't the region's partition, so the role can't get the policy."""


def build(parameters: Parameters, account_id: str, partition: str = "aws") -> dict[str, object]:
    """Return the IAM policy for the user or role that makes a run with these parameters in the account (12 digits).

    A run creates a role with the run's tag. The run also creates the cluster's OIDC provider with this tag, if the
    provider is missing. The returned policy allows attaching `parameters.policy_arn`, and no other policy, to that
    role. The only IAM resources that it allows deleting are that role and EKS's OIDC providers in the region.
    Attaching and deleting require that the role or provider has the run's tag. For the permissions in the cluster, see
    `in_the_cluster`. Raises `AnotherPartition`.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/access_iam-tags.html
    """
    require_partition(parameters, partition)
    iam = f"arn:{partition}:iam::{account_id}:"
    role = f"{iam}role/{parameters.role_name}"
    # EKS's issuers in the region. For tagging a provider, IAM names only the provider's host, without the path.
    issuers = f"{iam}oidc-provider/{issuer_host(parameters.region, partition)}"
    providers = [issuers, f"{issuers}/*"]
    bucket = f"arn:{partition}:s3:::{parameters.bucket}"
    cluster = f"arn:{partition}:eks:{parameters.region}:{account_id}:cluster/{parameters.cluster}"
    gives_tag = {f"aws:RequestTag/{RUN_TAG}": parameters.run}
    has_tag = {f"aws:ResourceTag/{RUN_TAG}": parameters.run}
    statements = [
        _allow("FindTheCluster", ["eks:DescribeCluster"], cluster),
        _allow("ListWhatIsThere", LISTS, "*"),
        _allow("ReadWhoseItIs", TAGS_OF_IAM, [f"{iam}role/*", f"{iam}policy/*", f"{iam}oidc-provider/*"]),
        _allow("ReadTheProvider", ["iam:GetOpenIDConnectProvider"], providers),
        _allow("ReadTheRolesPolicy", ["iam:GetPolicy"], parameters.policy_arn),
        _allow("ReadTheRole", ["iam:GetRole", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies"], role),
        _allow(
            "RegisterTheIssuer",
            ["iam:CreateOpenIDConnectProvider", "iam:TagOpenIDConnectProvider"],
            providers,
            {"StringEquals": gives_tag},
        ),
        _allow("MakeTheRole", ["iam:CreateRole", "iam:TagRole"], role, {"StringEquals": gives_tag}),
        _allow(
            "GiveTheRoleItsPolicy",
            ["iam:AttachRolePolicy", "iam:DetachRolePolicy"],
            role,
            {"StringEquals": has_tag, "ArnEquals": {"iam:PolicyARN": parameters.policy_arn}},
        ),
        _allow(
            "RemoveByTheTag",
            ["iam:DeleteRole", "iam:DeleteOpenIDConnectProvider"],
            [role, *providers],
            {"StringEquals": has_tag},
        ),
        _allow(
            "MakeAndRemoveTheBucket",
            ["s3:CreateBucket", "s3:PutBucketTagging", "s3:GetBucketTagging", "s3:ListBucket", "s3:DeleteBucket"],
            bucket,
        ),
        _allow("FillAndEmptyTheBucket", ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"], f"{bucket}/*"),
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def issuer_host(region: str, partition: str) -> str:
    """Return the host of EKS's issuers in a region, as cluster descriptions and tokens name it.

    No issuer's name contains the dual-stack host, oidc-eks.REGION.api.aws.
    https://docs.aws.amazon.com/eks/latest/userguide/network-reqs.html
    https://github.com/terraform-aws-modules/terraform-aws-eks/issues/3237
    """
    suffix = next(one["outputs"]["dnsSuffix"] for one in partitions() if one["id"] == partition)
    return f"oidc.eks.{region}.{suffix}"


def require_partition(parameters: Parameters, partition: str) -> None:
    """Raise `AnotherPartition` if the ARN `parameters.policy_arn` isn't in this partition.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
    """
    arn = Arn.parse(parameters.policy_arn)
    if arn.partition != partition:
        here = arn._replace(partition=partition)
        raise AnotherPartition(
            f"The policy {arn} is in the partition {arn.partition}, but the region {parameters.region} is in "
            f"{partition}.",
            where="parameters policy_arn and region; nothing was changed",
            next=f'set policy_arn = "{here}", and run again   (in a terminal: -p policy_arn=…)',
        )


def in_the_cluster(parameters: Parameters) -> list[dict[str, object]]:
    """Return Kubernetes manifests that give the group `GROUP` a run's permissions in the cluster.

    In all namespaces, the group may list service accounts and pods. It may create and delete objects only in the run's
    namespace. The manifests create that namespace, unless it's `default`.
    https://kubernetes.io/docs/reference/access-authn-authz/rbac/
    """
    namespace = parameters.namespace
    rbac, group = "rbac.authorization.k8s.io", {"kind": "Group", "name": GROUP, "apiGroup": "rbac.authorization.k8s.io"}
    manifests: list[dict[str, Any]] = []
    for kind, metadata, rules in (
        ("ClusterRole", {"name": GROUP}, [*_look(), _count()]),
        ("Role", {"name": GROUP, "namespace": namespace}, _change()),
    ):
        role: dict[str, Any] = {"apiVersion": f"{rbac}/v1", "kind": kind, "metadata": metadata}
        binding = role | {"kind": f"{kind}Binding", "subjects": [group]}
        manifests += [role | {"rules": rules}, binding | {"roleRef": {"apiGroup": rbac, "kind": kind, "name": GROUP}}]
    if namespace == "default":
        return manifests
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, *manifests]


def needed_in_the_cluster(parameters: Parameters, *, makes_namespace: bool) -> Iterator[dict[str, str]]:
    """Yield the permissions that a run needs in the cluster, each as `resourceAttributes` of an access review.

    https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/self-subject-access-review-v1/
    """
    make = [_rule(["create", "delete"], ["namespaces"])] if makes_namespace else []
    for namespace, rules in (("", [*_look(), *make]), (parameters.namespace, _change())):
        for rule in rules:
            for whole in rule["resources"]:
                resource, _, subresource = whole.partition("/")
                for verb in rule["verbs"]:
                    yield {
                        "verb": verb,
                        "group": rule["apiGroups"][0],
                        "resource": resource,
                        "subresource": subresource,
                        "name": rule.get("resourceNames", [""])[0],
                        "namespace": namespace,
                    }


def _look() -> list[dict[str, Any]]:
    return [
        _rule(["list"], ["namespaces", "serviceaccounts", "pods"]),
        _rule(["get"], ["mutatingwebhookconfigurations"], [WEBHOOK], group="admissionregistration.k8s.io"),
    ]


def _count() -> dict[str, Any]:
    return _rule(["list"], ["nodes"])


def _change() -> list[dict[str, Any]]:
    return [
        _rule(["get"], ["namespaces"]),
        _rule(["get", "create", "delete"], ["serviceaccounts"]),
        _rule(["get", "watch", "create", "delete"], ["pods"]),
        # A WebSocket starts with a GET. From Kubernetes 1.35 on, the caller also needs the permission to create.
        _rule(["get", "create"], ["pods/exec"]),
    ]


def _rule(verbs: list[str], resources: list[str], names: list[str] | None = None, *, group: str = "") -> dict[str, Any]:
    rule = {"apiGroups": [group], "resources": resources, "verbs": verbs}
    return rule | ({"resourceNames": names} if names else {})


def _allow(sid: str, actions: Any, resource: Any, condition: Any = None) -> dict[str, Any]:
    statement = {"Sid": sid, "Effect": "Allow", "Action": [*actions], "Resource": resource}
    return statement | ({"Condition": condition} if condition else {})
