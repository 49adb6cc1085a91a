"""EKS Pod Identity associations. A new pod of an associated service account gets the association's role."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from labkit.run_parameters import RUN_TAG
from labkit.steps.ownership import OwnedResource, of_tags

if TYPE_CHECKING:
    from types_boto3_iam.type_defs import TagTypeDef

    from labkit.workspace import Workspace


def resources(lab: "Workspace") -> Iterator[OwnedResource]:
    """Yield the cluster's associations, each with its owner.

    https://docs.aws.amazon.com/eks/latest/APIReference/API_ListPodIdentityAssociations.html
    """
    if not lab.connection.pod_identity:
        return
    eks, cluster = lab.aws.client("eks"), lab.parameters.cluster
    own = (lab.parameters.namespace, lab.parameters.service_account)
    for listed in eks.list_pod_identity_associations(clusterName=cluster)["associations"]:
        named = {"clusterName": cluster, "associationId": listed["associationId"]}
        tags = eks.describe_pod_identity_association(**named)["association"]["tags"]
        whose = (listed["namespace"], listed["serviceAccount"])
        run: list[TagTypeDef] = [{"Key": RUN_TAG, "Value": tags[RUN_TAG]}] if RUN_TAG in tags else []
        owner = of_tags(lab, run, same_name=whose == own)
        delete = partial(eks.delete_pod_identity_association, **named)
        yield OwnedResource(f"Pod Identity association of {'/'.join(whose)}", owner, delete)
