"""The annotations of service accounts and pods that the webhook reads.

If the webhook can't read a value, it uses the default instead.
https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html
"""

import re
from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]
"""An object of the Kubernetes API, or a part of one, as JSON."""

PREFIX = "eks.amazonaws.com"

ROLE_ARN = "role-arn"
AUDIENCE = "audience"
TOKEN_EXPIRATION = "token-expiration"  # noqa: S105 - an annotation's name
STS_REGIONAL_ENDPOINTS = "sts-regional-endpoints"
SKIP_CONTAINERS = "skip-containers"

DEFAULT_EXPIRATION = 86400
MINIMUM_EXPIRATION = 600

_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
_FIELD = re.compile(r'"((?:[^"]|"")*)"|([^",\r\n]*)')


def under(prefix: str, obj: Object) -> dict[str, str]:
    """Return an object's annotations that begin with `prefix/`. The returned names lack the prefix."""
    given = (obj.get("metadata") or {}).get("annotations") or {}
    start = f"{prefix}/"
    return {name.removeprefix(start): value or "" for name, value in given.items() if name.startswith(start)}


def boolean(annotations: Mapping[str, str], name: str, default: bool) -> bool:
    return _BOOLEANS.get(annotations.get(name, ""), default)


def expiration(annotations: Mapping[str, str], default: int) -> int:
    """Return the token's lifetime in seconds; `default` if the annotation is missing or invalid.

    A number below 600 counts as 600. There's no upper limit here, but EKS's API server limits tokens to one day.
    """
    match = re.fullmatch(r"([+-]?)0*([0-9]{1,19})", annotations.get(TOKEN_EXPIRATION, ""))
    if not match:
        return default
    value = int(match[1] + match[2])
    return max(value, MINIMUM_EXPIRATION) if -(2**63) <= value < 2**63 else default


def skipped_containers(annotations: Mapping[str, str]) -> set[str]:
    """Return the names of the containers to skip; empty if the annotation isn't valid CSV.

    Only the annotation's first line counts. Spaces belong to the names, as in RFC 4180.
    """
    text = annotations.get(SKIP_CONTAINERS, "").lstrip("\r\n")
    names: set[str] = set()
    position = 0
    while text and (field := _FIELD.match(text, position)):
        quoted, plain = field.groups()
        names.add(plain if quoted is None else quoted.replace('""', '"'))
        position = field.end()
        if position == len(text) or text[position] in "\r\n":
            break
        if text[position] != ",":
            return set()
        position += 1
    return names
