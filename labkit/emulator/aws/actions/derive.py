"""Which permissions a call needs: by its operation and parameters, as the service's own module tells.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from collections.abc import Callable

from labkit.emulator.aws.actions import cloudtrail, dynamodb, eks, iam, requests, secretsmanager, sqs
from labkit.emulator.aws.actions.permission import CannotDerive, Permission
from labkit.emulator.aws.actions.requests import ApiRequest
from labkit.emulator.aws.backend import Backend
from labkit.emulator.aws.call import Call
from labkit.emulator.aws.errors import Refusal

SERVICES: dict[str, Callable[[ApiRequest, Backend], list[Permission]]] = {
    "cloudtrail": cloudtrail.permissions,
    "dynamodb": dynamodb.permissions,
    "eks": eks.permissions,
    "iam": iam.permissions,
    "secretsmanager": secretsmanager.permissions,
    "sqs": sqs.permissions,
}


def derive(call: Call, backend: Backend) -> tuple[list[Permission], Call]:
    """The permissions that a call needs, all of them, and the call that asks moto for what was read in it.

    Raises ``CannotDerive`` for a call that the lab cannot authorize, ``Refusal`` for one that is none of the service's.
    """
    permissions = SERVICES.get(call.service)
    if permissions is None:
        raise CannotDerive(f"{call.service}:{call.operation}")
    request, told = requests.read(call, call.account_id)
    call.notes |= {"operation": request.operation, "request": request}
    try:
        needed = permissions(request, backend)
    except KeyError as missing:
        name = str(missing.args[0])
        if name in requests.required(call.service, request.operation):
            raise _missing(call.service, name) from missing
        raise CannotDerive(f"{call.service}:{request.operation} without {name}") from missing
    if not needed:
        raise CannotDerive(f"{call.service}:{request.operation} on nothing")
    return needed, told


def _missing(service: str, name: str) -> Refusal:
    if service == "sqs":
        return Refusal(400, "MissingParameter", f"The request must contain the parameter {name}.")
    code = "ValidationError" if service == "iam" else "ValidationException"
    member = name[0].lower() + name[1:]
    wanted = f"Value null at '{member}' failed to satisfy constraint: Member must not be null"
    return Refusal(400, code, f"1 validation error detected: {wanted}")
