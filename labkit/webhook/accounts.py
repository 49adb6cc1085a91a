"""The service accounts that the webhook knows, kept by a watch on the Kubernetes API."""

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass

import httpx

from labkit.webhook import annotations

log = logging.getLogger(__name__)

PATH = "/api/v1/serviceaccounts"
GRACE = 0.1  # seconds in which an account may still appear; the default of the webhook on EKS
RETRY = 0.2  # seconds until the watch is tried again


@dataclass(frozen=True)
class Account:
    """What one service account's annotations ask for; `role_arn` is empty where it has no role."""

    role_arn: str
    audience: str = "sts.amazonaws.com"
    token_expiration: int = annotations.DEFAULT_EXPIRATION
    sts_regional_endpoints: bool = True

    @classmethod
    def of(cls, service_account: dict) -> "Account":
        """Read the annotations of a ServiceAccount object.

        https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html
        """
        found = service_account.get("metadata", {}).get("annotations") or {}
        return cls(
            role_arn=found.get(annotations.ROLE_ARN, ""),
            audience=found.get(annotations.AUDIENCE, cls.audience),
            token_expiration=annotations.expiration(found, cls.token_expiration),
            sts_regional_endpoints=annotations.boolean(
                found, annotations.STS_REGIONAL_ENDPOINTS, cls.sts_regional_endpoints
            ),
        )


class Accounts:
    """The accounts by namespace and name. `client` reaches the API server and is allowed to watch service accounts.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._known: dict[tuple[str, str], Account] = {}
        self._awaited: dict[tuple[str, str], list[asyncio.Event]] = {}
        self._watching: asyncio.Task | None = None

    def get(self, namespace: str, name: str) -> Account | None:
        return self._known.get((namespace, name))

    async def appear(self, namespace: str, name: str, grace: float = GRACE) -> None:
        """Return as soon as the account is known, after `grace` seconds at the latest.

        A pod is often made right after its account, before the watch has brought it: so the API is asked, too.
        """
        key = (namespace, name)
        if key in self._known or not name:
            return
        event = asyncio.Event()
        self._awaited.setdefault(key, []).append(event)
        asking = asyncio.create_task(self._ask(namespace, name))
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), grace)
        finally:
            asking.cancel()
            self._awaited[key].remove(event)
            if not self._awaited[key]:
                del self._awaited[key]

    async def start(self) -> None:
        """Read all accounts, then follow them in the background. Raises httpx.HTTPError if the API cannot be read."""
        version = await self._read_all()
        self._watching = asyncio.create_task(self._follow(version))

    async def stop(self) -> None:
        if self._watching:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _ask(self, namespace: str, name: str) -> None:
        with contextlib.suppress(httpx.HTTPError, ValueError):
            response = await self._client.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}")
            if response.status_code == 200:
                self._put(response.json())

    async def _read_all(self) -> str:
        response = (await self._client.get(PATH)).raise_for_status().json()
        self._known.clear()
        for item in response["items"]:
            self._put(item)
        return response["metadata"]["resourceVersion"]

    async def _follow(self, version: str) -> None:
        while True:
            try:
                if not version:
                    version = await self._read_all()
                version = await self._watch(version)
            except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
                log.warning("the watch on service accounts is tried again: %s", error or type(error).__name__)
                await asyncio.sleep(RETRY)

    async def _watch(self, version: str) -> str:
        """Follow one watch until the server ends it. Returns where to go on, or "" when all has to be read again."""
        query = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
        timeout = httpx.Timeout(10, read=None)
        async with self._client.stream("GET", PATH, params=query, timeout=timeout) as response:
            if response.status_code == 410:
                return ""
            response.raise_for_status()
            async for line in response.aiter_lines():
                if not line.strip():
                    continue
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return ""
                changed = event["object"]
                version = changed["metadata"]["resourceVersion"]
                if event["type"] in ("ADDED", "MODIFIED"):
                    self._put(changed)
                elif event["type"] == "DELETED":
                    self._known.pop((changed["metadata"]["namespace"], changed["metadata"]["name"]), None)
        return version

    def _put(self, service_account: dict) -> None:
        key = (service_account["metadata"]["namespace"], service_account["metadata"]["name"])
        self._known[key] = Account.of(service_account)
        for event in self._awaited.get(key, ()):
            event.set()
