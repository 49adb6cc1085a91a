"""The permission that the Pod Identity Agent needs. AmazonEKSWorkerNodePolicy gives a node's role this permission.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoneksauth.html
"""

from labkit.simulator.aws.actions.permission import CannotDerive, Permission, resource_tags
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import ParsedRequest
from labkit.simulator.aws.clusters import CLUSTER_NAME


def permissions(request: ParsedRequest, backend: Backend) -> list[Permission]:
    """Return the permission that an operation of EKS Auth needs on the cluster."""
    name = request.parameters["clusterName"]
    if not CLUSTER_NAME.fullmatch(name):
        raise CannotDerive(f"eks-auth:{request.operation} with an invalid cluster name")
    facts = backend.clusters.get(request.region, name)
    resource = f"arn:aws:eks:{request.region}:{request.account_id}:cluster/{name}"
    context = resource_tags(facts.tags) if facts else {}
    return [Permission(f"eks-auth:{request.operation}", resource, context, frozenset())]
