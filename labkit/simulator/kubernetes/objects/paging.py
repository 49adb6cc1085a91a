"""Make and read the `continue` token with which a client requests the next page of a list.

https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
"""

import base64
import json

from labkit.simulator.kubernetes.objects.status import bad_request, expired
from labkit.simulator.kubernetes.objects.storage import Storage, Stored, dump


def token(last: Stored, version: int) -> str:
    """Return the `continue` token for the page after ``last``."""
    text = dump({"v": "meta.k8s.io/v1", "rv": version, "start": [last.namespace, last.name]})
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def start(given: str, storage: Storage) -> tuple[tuple[str, str] | None, int]:
    """Return a continue token's content: the previous page's last object (namespace, name) and the list's version.

    For the first page, the token ``given`` is empty: return None and 0. Raises BadRequest if ``given`` isn't a token,
    and Expired if the server no longer has, or doesn't yet have, the token's version.
    """
    if not given:
        return None, 0
    try:
        raw = base64.urlsafe_b64decode(given + "=" * (-len(given) % 4))
    except ValueError as error:
        raise bad_request(f"continue key is not valid: {error}") from error
    try:
        value = json.loads(raw)
        (namespace, name), version = value["start"], int(value["rv"])
    except (ValueError, KeyError, TypeError) as error:
        first = f"\\x{raw[0]:02x}" if raw and raw[0] > 126 else chr(raw[0]) if raw else ""
        raise bad_request(
            "invalid continue token: continue key is not valid:"
            f" invalid character '{first}' looking for beginning of value"
        ) from error
    if version < storage.oldest or version > storage.version:
        raise expired("The provided continue parameter is too old to display a consistent list result.")
    return (namespace, name), version
