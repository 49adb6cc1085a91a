"""The service accounts that the webhook knows. A watch on the Kubernetes API keeps them up to date."""

import asyncio
import contextlib
from dataclasses import dataclass, replace
from urllib.parse import quote

import httpx

from labkit.webhook import annotations
from labkit.webhook.annotations import Object
from labkit.webhook.watch import Reflector

PATH = "/api/v1/serviceaccounts"
GRACE = 0.1  # seconds to wait for an unknown account, the default of the webhook on EKS
ASKING = 5.0  # seconds in which the API must answer while a pod waits; the webhook itself must answer within 10


@dataclass(frozen=True)
class AccountSettings:
    """The settings in one service account's annotations; `role_arn` is empty if the account has no role."""

    role_arn: str = ""
    audience: str = "sts.amazonaws.com"
    token_expiration: int = annotations.DEFAULT_EXPIRATION
    sts_regional_endpoints: bool = True

    @classmethod
    def of(
        cls, service_account: Object, *, defaults: "AccountSettings | None" = None, prefix: str = annotations.PREFIX
    ) -> "AccountSettings":
        """Return the settings in a ServiceAccount object's annotations.

        If an annotation is missing, the setting comes from `defaults`. The role never comes from `defaults`.
        https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html
        """
        given = annotations.under(prefix, service_account)
        defaults = defaults or cls()
        return replace(
            defaults,
            role_arn=given.get(annotations.ROLE_ARN, ""),
            audience=given.get(annotations.AUDIENCE, defaults.audience),
            token_expiration=annotations.expiration(given, defaults.token_expiration),
            sts_regional_endpoints=annotations.boolean(
                given, annotations.STS_REGIONAL_ENDPOINTS, defaults.sts_regional_endpoints
            ),
        )


@dataclass
class ServiceAccounts:
    """The service accounts that the webhook knows, by namespace and name.

    `client` must be allowed to get, list and watch service accounts. The annotations' names begin with `prefix`. If an
    annotation is missing, the setting comes from `defaults`. The role never comes from `defaults`.
    """

    client: httpx.AsyncClient
    defaults: AccountSettings = AccountSettings()
    prefix: str = annotations.PREFIX

    def __post_init__(self) -> None:
        self._known: dict[tuple[str, str], AccountSettings] = {}
        self._awaited: dict[tuple[str, str], list[asyncio.Event]] = {}
        self._watch = Reflector(self.client, PATH, "service accounts", listed=self._on_list, changed=self._on_change)
        self._watching: asyncio.Task[None] | None = None

    def get(self, namespace: str, name: str) -> AccountSettings | None:
        return self._known.get((namespace, name))

    async def appear(self, namespace: str, name: str, grace: float = GRACE) -> None:
        """Wait for the account's role, unless the role is already known or `name` is empty.

        If the account is unknown, or known without a role, ask the API, for at most 5 seconds: the watch may be late
        for an account that changed right before the pod's creation. If the account is then still unknown, wait at most
        `grace` seconds for the watch, then give up.

        The webhook on EKS doesn't ask the API about an account that is known without a role, and waits at most `grace`
        seconds in all.
        """
        key = (namespace, name)
        known = self._known.get(key)
        if not name or (known and known.role_arn):
            return
        brought = asyncio.Event()
        self._awaited.setdefault(key, []).append(brought)
        try:
            fetched = await self._ask(namespace, name)
            if fetched and not brought.is_set():  # an account from the watch is newer
                self._put(fetched)
            if key not in self._known:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(brought.wait(), grace)
        finally:
            self._awaited[key].remove(brought)
            if not self._awaited[key]:
                del self._awaited[key]

    async def start(self) -> None:
        """Read all accounts, then follow their changes in the background. Raises httpx.HTTPError."""
        await self._watch.list_all()
        self._watching = asyncio.create_task(self._watch.follow())

    async def stop(self) -> None:
        if self._watching:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _ask(self, namespace: str, name: str) -> Object | None:
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/serviceaccounts/{quote(name, safe='')}"
        with contextlib.suppress(httpx.HTTPError, ValueError, TimeoutError):
            async with asyncio.timeout(ASKING):
                response = await self.client.get(path)
            if response.status_code == 200:
                service_account: Object = response.json()
                return service_account
        return None

    def _on_list(self, service_accounts: list[Object]) -> None:
        self._known.clear()
        for service_account in service_accounts:
            self._put(service_account)

    def _on_change(self, change: str, service_account: Object) -> None:
        if change == "DELETED":
            self._known.pop((service_account["metadata"]["namespace"], service_account["metadata"]["name"]), None)
        else:
            self._put(service_account)

    def _put(self, service_account: Object) -> None:
        key = (service_account["metadata"]["namespace"], service_account["metadata"]["name"])
        self._known[key] = AccountSettings.of(service_account, defaults=self.defaults, prefix=self.prefix)
        for event in self._awaited.get(key, ()):
            event.set()
