"""Find the permissions that a call needs. The module of the call's service derives them from the call's parameters."""

from collections.abc import Callable
from dataclasses import replace

from labkit.simulator.aws.actions import cloudtrail, dynamodb, eks, eks_auth, iam, requests, secretsmanager, sqs
from labkit.simulator.aws.actions.permission import CannotDerive, Permission
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import ApiRequest, Asked
from labkit.simulator.aws.refusals import Refusal, invalid, null

SERVICES: dict[str, Callable[[ApiRequest, Backend], list[Permission]]] = {
    "cloudtrail": cloudtrail.permissions,
    "dynamodb": dynamodb.permissions,
    "eks": eks.permissions,
    "eks-auth": eks_auth.permissions,
    "iam": iam.permissions,
    "secretsmanager": secretsmanager.permissions,
    "sqs": sqs.permissions,
}


def derive(asked: Asked, backend: Backend) -> list[Permission]:
    """Return all permissions that a call needs.

    Raises ``CannotDerive`` if the lab doesn't know them, and ``Refusal`` if the call is faulty.
    """
    permissions = SERVICES.get(asked.service)
    if permissions is None:
        raise CannotDerive(f"{asked.service}:{asked.operation}")
    request = asked.requested()
    try:
        needed = permissions(request, backend)
    except KeyError as missing:
        name = str(missing.args[0])
        if name in requests.required(asked.service, request.operation):
            raise _missing(asked.service, name) from missing
        raise CannotDerive(f"{asked.service}:{request.operation} without {name}") from missing
    if not needed:
        raise CannotDerive(f"{asked.service}:{request.operation} without a resource")
    return needed


def _missing(service: str, name: str) -> Refusal:
    if service == "sqs":
        return Refusal(400, "MissingParameter", f"The request must contain the parameter {name}.")
    refusal = invalid(*null([name]))
    return refusal if service == "iam" else replace(refusal, code="ValidationException")
