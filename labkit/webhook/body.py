"""Read a request's whole body, up to a limit. Replace unpaired surrogates (half characters) in JSON texts."""

import io
import re

from starlette.requests import ClientDisconnect
from starlette.types import Receive

__all__ = ["ClientDisconnect", "TooLong", "whole", "whole_characters"]

HALF = re.compile("[\ud800-\udfff]")


class TooLong(Exception):
    """The body is longer than the limit."""


async def whole(receive: Receive, limit: int) -> bytes:
    """Return the body of an ASGI request.

    Raises TooLong if the body has more than `limit` bytes. Raises ClientDisconnect if the client disconnects early.
    https://asgi.readthedocs.io/en/stable/specs/www.html#disconnect-receive-event
    """
    # One block of memory, which the process returns to the system at once. It would keep many small pieces.
    with io.BytesIO() as body:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body.write(message.get("body", b""))
            if body.tell() > limit:
                raise TooLong
            more = message.get("more_body", False)
        return body.getvalue()


def whole_characters(value: object) -> object:
    """Return the JSON value with U+FFFD in place of each unpaired surrogate. Go's decoder does the same."""
    if isinstance(value, str):
        return HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {whole_characters(key): whole_characters(item) for key, item in value.items()}
    return value
