"""Parameters of requests, read as an API server reads them.

https://kubernetes.io/docs/reference/kubernetes-api/common-parameters/common-parameters/
"""

from collections.abc import Callable

from labkit.emulator.kubernetes.api.requests import Request, parse
from labkit.emulator.kubernetes.objects.status import ApiError, bad_request


def resource_version(request: Request, refusal: Callable[[str], ApiError]) -> int | None:
    """The version that is asked for, None where none is. Raises what ``refusal`` makes of the text of Go's parser."""
    text = request.query.get("resourceVersion", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        why = "invalid syntax"
    elif len(digits := text.lstrip("0") or "0") <= 20 and int(digits) < 1 << 64:
        return int(digits)
    else:
        why = "value out of range"
    raise refusal(f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": {why}')


def options_version(request: Request) -> str:
    """DeleteOptions may be of any group."""
    try:
        value, _ = parse(request.body, yaml_too=True)
        version = value.get("apiVersion") if isinstance(value, dict) else None
        return version if version and isinstance(version, str) else "v1"
    except ValueError:
        return "meta.k8s.io/v1" if request.body[:4] == b"k8s\x00" and b"meta.k8s.io/v1" in request.body[:40] else "v1"


def integer(request: Request, name: str) -> int:
    text = request.query.get(name, "")
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
