"""Find the permissions that a call needs. The module of the call's service derives them from the call's parameters."""

from collections.abc import Callable
from dataclasses import replace

from labkit.policy import resource_tags
from labkit.simulator.aws.actions import dynamodb, eks, iam, requests, secretsmanager, sqs
from labkit.simulator.aws.answers import Refusal, invalid, missing_required
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import AwsRequest, CannotDerive, ParsedRequest, Permission
from labkit.simulator.aws.clusters import CLUSTER_NAME

# No policy can limit these operations to a resource.
EVENT_OPERATIONS = {"DescribeTrails", "ListTrails", "LookupEvents"}


def _cloudtrail(request: ParsedRequest, _: Backend) -> list[Permission]:
    """https://docs.aws.amazon.com/service-authorization/latest/reference/list_awscloudtrail.html"""
    if request.operation not in EVENT_OPERATIONS:
        raise CannotDerive(f"cloudtrail:{request.operation}")
    return [Permission(f"cloudtrail:{request.operation}", "*", known=frozenset(), shown="")]


def _eks_auth(request: ParsedRequest, backend: Backend) -> list[Permission]:
    """Return the Pod Identity Agent's permission. AmazonEKSWorkerNodePolicy gives a node's role this permission.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoneksauth.html
    """
    name = request.parameters["clusterName"]
    if not CLUSTER_NAME.fullmatch(name):
        raise CannotDerive(f"eks-auth:{request.operation} with an invalid cluster name")
    facts = backend.clusters.get(request.region, name)
    resource = f"arn:aws:eks:{request.region}:{request.account_id}:cluster/{name}"
    context = resource_tags(facts.tags) if facts else {}
    return [Permission(f"eks-auth:{request.operation}", resource, context, frozenset())]


SERVICES: dict[str, Callable[[ParsedRequest, Backend], list[Permission]]] = {
    "cloudtrail": _cloudtrail,
    "dynamodb": dynamodb.permissions,
    "eks": eks.permissions,
    "eks-auth": _eks_auth,
    "iam": iam.permissions,
    "secretsmanager": secretsmanager.permissions,
    "sqs": sqs.permissions,
}


def derive(request: AwsRequest, backend: Backend) -> list[Permission]:
    """Return all permissions that a call needs.

    Raises ``CannotDerive`` if the lab doesn't know them, and ``Refusal`` if the call is faulty.
    """
    permissions = SERVICES.get(request.service)
    if permissions is None:
        raise CannotDerive(f"{request.service}:{request.operation}")
    parsed = request.require_parsed()
    try:
        needed = permissions(parsed, backend)
    except KeyError as missing:
        name = str(missing.args[0])
        if name in requests.required(request.service, parsed.operation):
            raise _missing(request.service, name) from missing
        raise CannotDerive(f"{request.service}:{parsed.operation} without {name}") from missing
    if not needed:
        raise CannotDerive(f"{request.service}:{parsed.operation} without a resource")
    return needed


def _missing(service: str, name: str) -> Refusal:
    if service == "sqs":
        return Refusal(400, "MissingParameter", f"The request must contain the parameter {name}.")
    refusal = invalid(*missing_required([name]))
    return refusal if service == "iam" else replace(refusal, code="ValidationException")
