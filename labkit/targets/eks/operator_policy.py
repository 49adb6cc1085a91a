"""The minimum permissions to run `irsa.ipynb` in an account and a cluster, and to clean up."""

from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import yaml

from labkit.errors import LabError
from labkit.policy.arn import Arn
from labkit.run_parameters import RUN_TAG, Parameters, partitions
from labkit.webhook.server import NAME as WEBHOOK

GROUP = "irsa-lab"
"""The Kubernetes group of the people who run the lab."""
FILE = Path(__file__).with_name("operator_policy.yaml")
# With this rule, the plan counts the nodes.
COUNT_NODES = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}
MAKE_NAMESPACE = {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create", "delete"]}


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
    statements = _needed(
        iam=iam,
        role=f"{iam}role/{parameters.role_name}",
        # EKS's issuers in the region. For tagging a provider, IAM names only the provider's host, without the path.
        issuers=f"{iam}oidc-provider/{issuer_host(parameters.region, partition)}",
        policy=parameters.policy_arn,
        bucket=f"arn:{partition}:s3:::{parameters.bucket}",
        cluster=f"arn:{partition}:eks:{parameters.region}:{account_id}:cluster/{parameters.cluster}",
        run=parameters.run,
    )["account"]
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
    needed = _needed()
    for kind, metadata, rules in (
        ("ClusterRole", {"name": GROUP}, [*needed["cluster"], COUNT_NODES]),
        ("Role", {"name": GROUP, "namespace": namespace}, needed["namespace"]),
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
    needed = _needed()
    make = [MAKE_NAMESPACE] if makes_namespace else []
    for namespace, rules in (("", [*needed["cluster"], *make]), (parameters.namespace, needed["namespace"])):
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


def _needed(**names: str) -> Any:
    """Return the content of the file, with these names in it."""
    text = FILE.read_text(encoding="utf-8")
    return yaml.safe_load(Template(text).safe_substitute(names, tag=RUN_TAG, webhook=WEBHOOK))
