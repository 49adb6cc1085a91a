"""EKS's operations on tags. Clusters have tags. Access entries, node groups and so on have tags, too.

https://docs.aws.amazon.com/eks/latest/userguide/eks-using-tags.html
"""

from typing import Any

from labkit.policy.arn import Arn
from labkit.simulator.aws.answers import respond
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import AwsRequest, Response
from labkit.simulator.aws.refusals import Refusal, invalid_parameter


def answer(request: AwsRequest, backend: Backend) -> Response:
    """Answer an operation on tags. Run this in moto's thread, because moto keeps some tags. Raises ``Refusal``."""
    parsed = request.require_parsed()
    arn, removed = parsed.parameters["resourceArn"], parsed.parameters.get("tagKeys")
    if removed == []:
        raise invalid_parameter("tagKeys can't be empty")
    is_here = bool(cluster_of(arn, request.region, request.account_id))
    if not is_here or (tags := tags_of(arn, backend)) is None:
        raise Refusal(404, "NotFoundException", f"Resource not found: {arn}")
    if parsed.operation == "ListTagsForResource":
        return respond({"tags": tags})
    tags |= parsed.parameters.get("tags") or {}
    for key in removed or ():
        tags.pop(key, None)
    return respond({})


def cluster_of(arn: str, region: str, account_id: str) -> str:
    """Return the cluster's name in an ARN of EKS; empty for an ARN of another service, region or account."""
    named = Arn.find(arn)
    if named is None or (named.service, named.region, named.account) != ("eks", region, account_id):
        return ""
    return named.resource.partition("/")[2].partition("/")[0]


def tags_of(arn: str, backend: Backend) -> dict[str, str] | None:
    """Return the tags of the EKS resource with this ARN, such as a cluster or a node group; None if it doesn't exist.

    If you change the returned dict, you change the resource's tags.
    """
    named = Arn.parse(arn)
    name = cluster_of(arn, named.region, named.account)
    if facts := backend.clusters.get(named.region, name):
        if entry := facts.access.of_arn(arn, facts.arn):
            return entry.tags
        for kept in (facts.pod_identity, facts.identity_providers):
            if (tags := kept.tags_of(arn)) is not None:
                return tags
    cluster = backend.store("eks", named.region, named.account).clusters.get(name)
    if cluster is None:
        return None
    known = {cluster.arn: cluster}
    known |= {group.arn: group for group in cluster.nodegroups.values()}
    known |= {profile.fargate_profile_arn: profile for profile in cluster.fargate_profiles.values()}
    return _tags(known[arn]) if arn in known else None


def _tags(thing: Any) -> dict[str, str]:
    if thing.tags is None:
        thing.tags = {}
    tags: dict[str, str] = thing.tags
    return tags
