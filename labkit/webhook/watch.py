"""An endless watch on objects of the Kubernetes API.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import httpx

from labkit.webhook.annotations import Object

log = logging.getLogger(__name__)

RETRY = 0.2  # seconds until the next attempt; doubled after each failure
LONGEST_RETRY = 10.0
WATCH = 300  # seconds of one watch, and so the longest life of a connection that broke unnoticed


@dataclass
class Reflector:
    """A watch that calls `listed(objects)` with all objects at `path`, then `changed(type, object)` for each change.

    `type` is the change's type in the Kubernetes API, such as `DELETED`. The watch calls `listed` again when
    changes may have been missed. `what` names the objects in the log. `query` selects some of the objects, for example
    by a `fieldSelector`.
    """

    client: httpx.AsyncClient
    path: str
    what: str
    listed: Callable[[list[Object]], None]
    changed: Callable[[str, Object], None]
    query: dict[str, str] = field(default_factory=dict)
    _version: str = field(default="", init=False)  # the version to continue from; "" before a new list

    async def list_all(self) -> None:
        """List all objects. Raises httpx.HTTPError if the API cannot be read."""
        response = (await self.client.get(self.path, params=self.query)).raise_for_status().json()
        self.listed(response["items"])
        self._version = response["metadata"]["resourceVersion"]

    async def follow(self) -> None:
        """Follow the changes forever. List the objects first if `list_all` hasn't been called."""
        pause = RETRY
        while True:
            try:
                if not self._version:
                    await self.list_all()
                await self._follow_once()
                pause = RETRY
            except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError) as error:
                log.warning("the watch on %s is tried again: %s", self.what, error or type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_RETRY)

    async def _follow_once(self) -> None:
        """Follow a watch until the API server ends it."""
        query = {
            **self.query,
            "watch": "true",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH),
        }
        timeout = httpx.Timeout(10, read=WATCH + 30)
        async with self.client.stream("GET", self.path, params=query, timeout=timeout) as response:
            if response.status_code == 410:
                self._version = ""
                return
            response.raise_for_status()
            async for line in _lines(response):
                if not line.strip():
                    continue
                event = json.loads(line)
                if event["type"] == "ERROR":
                    self._version = ""
                    return
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self.changed(event["type"], event["object"])
                self._version = version


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the lines of a watch. httpx's own function also splits at U+2028 and U+0085, which JSON may contain."""
    begun = b""
    async for part in response.aiter_bytes():
        *lines, begun = (begun + part).split(b"\n")
        for line in lines:
            yield line
    yield begun
