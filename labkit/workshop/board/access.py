"""Ask the hub whose a token is, and log a leader in.

https://jupyterhub.readthedocs.io/en/stable/reference/services.html#hub-authentication-and-services
"""

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import urlencode

import httpx

PREFIX = "/services/board/"
CALLBACK = f"{PREFIX}oauth_callback"
SCOPE = "access:services!service=board"
KNOWN_FOR = 300  # seconds for which an answer of the hub is believed
MOST_KNOWN = 2000
AT_A_TIME = 8  # questions to the hub


@dataclass(frozen=True)
class TokenOwner:
    """Who a token belongs to, by the hub."""

    name: str
    is_leader: bool
    """Whether the token opens the board."""


class Access:
    """The hub's answers about tokens. `token` is the service's own."""

    def __init__(self, hub_url: str, token: str):
        self.token = token
        self.http = httpx.AsyncClient(base_url=f"{hub_url}/hub/api/", timeout=20, trust_env=False)
        self.known: dict[str, tuple[float, TokenOwner | None]] = {}
        self.turns = asyncio.Semaphore(AT_A_TIME)

    async def user(self, token: str) -> TokenOwner | None:
        """Return the owner of a token; None if the hub doesn't know it. Raises `httpx.HTTPError` if the hub is away."""
        at, user = self.known.get(token, (0.0, None))
        if not token or (token in self.known and time.monotonic() - at < KNOWN_FOR):
            return user
        async with self.turns:
            answer = await self.http.get("user", headers={"Authorization": f"token {token}"})
        if answer.status_code not in (401, 403):
            answer.raise_for_status()
            said = answer.json()
            user = TokenOwner(said["name"], SCOPE in said["scopes"]) if said.get("kind") == "user" else None
        else:
            user = None
        self.known[token] = time.monotonic(), user
        while len(self.known) > MOST_KNOWN:
            del self.known[next(iter(self.known))]
        return user

    def log_in(self, state: str) -> str:
        """Return the page of the hub that logs a leader in, and comes back with `state`."""
        query = {"client_id": "service-board", "redirect_uri": CALLBACK, "response_type": "code", "state": state}
        return f"/hub/api/oauth2/authorize?{urlencode(query)}"

    async def token_for(self, code: str) -> str:
        """Return the token for the code with which the hub's page came back. Raises `httpx.HTTPError`."""
        form = {"client_id": "service-board", "client_secret": self.token, "redirect_uri": CALLBACK}
        answer = await self.http.post("oauth2/token", data=form | {"grant_type": "authorization_code", "code": code})
        answer.raise_for_status()
        token: str = answer.json()["access_token"]
        return token
