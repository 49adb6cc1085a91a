"""Find the permissions that a call needs. The module of the call's service derives them from the call's parameters."""

from collections.abc import Callable
from dataclasses import replace

from labkit.simulator.aws.actions import cloudtrail, dynamodb, eks, eks_auth, iam, requests, secretsmanager, sqs
from labkit.simulator.aws.actions.permission import CannotDerive, Permission
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import AwsRequest, ParsedRequest
from labkit.simulator.aws.refusals import Refusal, invalid, missing_required

SERVICES: dict[str, Callable[[ParsedRequest, Backend], list[Permission]]] = {
    "cloudtrail": cloudtrail.permissions,
    "dynamodb": dynamodb.permissions,
    "eks": eks.permissions,
    "eks-auth": eks_auth.permissions,
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
