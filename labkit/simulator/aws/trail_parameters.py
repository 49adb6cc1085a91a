"""The parameters of a request as CloudTrail's records show them, without secrets."""

import contextlib
import re
from dataclasses import dataclass, field
from typing import Any

from labkit.simulator.aws.backend import Shape, get_service_model
from labkit.simulator.aws.call import AwsRequest
from labkit.simulator.aws.trail import HIDDEN

LARGEST = 100 * 1024
LARGEST_READ = 1024 * 1024
# The names of secret members. Binary members, and members that a service's model marks as sensitive, are secret, too.
SECRET_NAMES = re.compile(
    r"password|passphrase|private_?key|credential|secret(access_?key|string|binary|key|value|token)?$"
    r"|(session|security|identity|auth|access|refresh|rotation)_?token|(authentication|token)_?code"
    r"|(^|[a-z])(message|message_?body|payload|plaintext|subject|user_?data)$|message(system)?attributes$"
    r"|^(partiql)?statement$",
    re.IGNORECASE,
)
# DynamoDB's values are the contents of items.
SECRET_SHAPES = {"AttributeValue", "PartiQLStatement", "PreparedStatementParameters"}


def is_short(request: AwsRequest) -> bool:
    """Whether the call's body is short enough that the lab reads its parameters for the trail."""
    return len(request.call.body) <= LARGEST_READ


@dataclass
class TrailParameters:
    """The parameters of a call for its record in the trail. ``secrets`` are the values that the trail must not show.

    ``parameters`` is empty if the call has no parameters, or if the lab doesn't know them.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(str(self.parameters)) > LARGEST:
            self.parameters = {"omitted": True, "reason": "Field size exceeds maximum limit of 100 KB"}

    @classmethod
    def of(cls, request: AwsRequest) -> "TrailParameters":
        """Return the parameters that the service's model has."""
        parameters: dict[str, Any] = {}
        secrets: list[str] = []
        if request.family == "query":
            secrets += [value for name, value in request.call.form.items() if SECRET_NAMES.search(name)]
        if request.parsed and is_short(request):
            # A call is answered even if its record can't be made.
            with contextlib.suppress(Exception):
                shape = get_service_model(request.service).operation_model(request.parsed.operation).input_shape
                parameters = _shown(shape, request.parsed.parameters, secrets)
        return cls(parameters, secrets)


def _shown(shape: Shape, value: Any, secrets: list[str], name: str = "") -> Any:
    """Return a parameter's value as the trail shows it. Add the hidden values to ``secrets``."""
    kind = shape.type_name
    if shape.metadata.get("sensitive") or kind == "blob" or shape.name in SECRET_SHAPES or SECRET_NAMES.search(name):
        secrets += _texts(value)
        return HIDDEN
    match kind:
        case "structure" if isinstance(value, dict):
            return {
                member[0].lower() + member[1:]: _shown(shape.members[member], part, secrets, member)
                for member, part in value.items()
                if member in shape.members and part is not None
            }
        case "list" if isinstance(value, list):
            return [_shown(shape.member, part, secrets, name) for part in value]
        case "map" if isinstance(value, dict):
            return {key: _shown(shape.value, part, secrets, key) for key, part in value.items()}
    return value


def _texts(value: Any) -> list[str]:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value] if isinstance(value, str) else [text for part in parts for text in _texts(part)]
