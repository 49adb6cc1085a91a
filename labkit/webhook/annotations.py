"""What the webhook reads from the annotations of service accounts and pods.

A value that cannot be read is passed over, never an error: the pod is then made with the default.
https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html
"""

import re

PREFIX = "eks.amazonaws.com/"
ROLE_ARN = PREFIX + "role-arn"
AUDIENCE = PREFIX + "audience"
TOKEN_EXPIRATION = PREFIX + "token-expiration"
STS_REGIONAL_ENDPOINTS = PREFIX + "sts-regional-endpoints"
SKIP_CONTAINERS = PREFIX + "skip-containers"

DEFAULT_EXPIRATION = 86400
MINIMUM_EXPIRATION = 600

_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
_FIELD = re.compile(r'"((?:[^"]|"")*)"|([^",\r\n]*)')


def boolean(annotations: dict, name: str, default: bool) -> bool:
    return _BOOLEANS.get(annotations.get(name, ""), default)


def expiration(annotations: dict, default: int) -> int:
    """The token's life in seconds; fewer than 600 become 600, since the API server gives no shorter token."""
    value = annotations.get(TOKEN_EXPIRATION, "")
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", value):
        return default
    return max(int(value), MINIMUM_EXPIRATION)


def skipped_containers(annotations: dict) -> set[str]:
    """The names on the first line of the comma-separated list; none of them when it is no valid CSV.

    Spaces belong to the names, as in RFC 4180: `"a, b"` skips `a` and a container that nobody can have.
    """
    text = annotations.get(SKIP_CONTAINERS, "").lstrip("\r\n")
    names: set[str] = set()
    position = 0
    while text:
        field = _FIELD.match(text, position)
        quoted, plain = field.groups()
        names.add(plain if quoted is None else quoted.replace('""', '"'))
        position = field.end()
        if position == len(text) or text[position] in "\r\n":
            break
        if text[position] != ",":
            return set()
        position += 1
    return names
