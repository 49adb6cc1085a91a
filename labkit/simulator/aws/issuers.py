"""Fetch the keys of a web identity token's issuer, as STS does: first the discovery document, then the keys, by HTTPS.

What differs from AWS:

- The internet: the lab only asks hosts on this machine, the issuers of clusters that joined the lab, and hosts with an
  address from `map_host`. On the moto target, no request leaves this machine.
- Revocation: neither CRLs nor OCSP are checked.
- Caching: the lab keeps keys for only 30 seconds, so that you soon see the effect of a withdrawn key.

https://openid.net/specs/openid-connect-discovery-1_0.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_create_oidc_verify-thumbprint.html
"""

import asyncio
import ipaddress
import json
import math
import ssl
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt

from labkit.connection import certificates_of, thumbprint, unverified
from labkit.simulator.certificates import client_context

# Seconds for discovery and keys together; the caller is answered within five.
TIMEOUT = 4.0
LONGEST_DOCUMENT = 512 * 1024
# For RSA and EC keys; STS accepts no others.
MOST_KEYS = 100
# Characters of a number in a key: OpenSSL accepts at most 16384 bits.
LONGEST_NUMBER = 2800
# Short, so that a learner who withdraws an issuer or its keys soon sees the effect.
KEPT_FOR = 30.0
KEPT = 256
# Where an API server publishes its keys, whatever URL its discovery document names.
# https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
API_KEYS = "/openid/v1/jwks"
DISCOVERY = "/.well-known/openid-configuration"
# The most fetches from an issuer within this many seconds, even if many tokens name unknown keys.
FETCHES, WITHIN = 10, 10.0


class IssuerUnreachable(Exception):
    """The issuer's keys could not be fetched. The message says which step failed."""


class ThumbprintMismatch(Exception):
    """The issuer's certificate doesn't chain to a public root, and no thumbprint of the provider matches the chain."""


@dataclass(frozen=True)
class _Mapping:
    address: tuple[str, int]
    context: ssl.SSLContext
    edition: Callable[[str], object] | None
    within: float | None


@dataclass
class _Source:
    """The keys of an issuer. Providers with the same issuer and the same thumbprints share one `_Source`."""

    edition: object = None
    keys: dict[str | None, jwt.PyJWK] = field(default_factory=dict)
    fetched_at: float = -math.inf
    failure: Exception | None = None
    fetch_times: deque[float] = field(default_factory=lambda: deque(maxlen=FETCHES))
    fetching: asyncio.Task[None] | None = None

    def key(self, key_id: str | None) -> jwt.PyJWK | None:
        # A token without a key id is only clear if the issuer has a single key.
        if key_id is None and len(self.keys) == 1:
            return next(iter(self.keys.values()))
        return self.keys.get(key_id)


class Issuers:
    """The keys of all issuers. If a token has an unknown key id, the lab fetches the issuer's keys again."""

    def __init__(self) -> None:
        self._mapped: dict[str, _Mapping] = {}
        self._joined: dict[str, httpx.AsyncClient | None] = {}
        self._sources: OrderedDict[tuple[str, frozenset[str]], _Source] = OrderedDict()

    def map_host(
        self,
        host: str,
        address: tuple[str, int],
        ca_pem: bytes,
        edition: Callable[[str], object] | None = None,
        within: float | None = None,
    ) -> None:
        """Send requests for ``https://host/…`` to ``address``.

        The server at ``address`` must have a certificate for ``host`` that chains to ``ca_pem``.

        ``edition`` takes an issuer at ``host``, and returns a value that changes when the issuer's keys change. A fetch
        may take ``within`` seconds; None means `TIMEOUT`.
        """
        self._mapped[host.lower()] = _Mapping(address, client_context(ca_pem), edition, within)

    def join(self, issuer: str, api: httpx.AsyncClient | None) -> None:
        """Allow the lab to fetch this issuer's keys.

        ``api`` is a client of the API server that serves the keys. Without ``api``, the lab fetches the keys from
        the issuer's URL.
        """
        self._joined[issuer] = api
        self.forget(issuer)

    def leave(self, issuer: str) -> None:
        """Undo `join`."""
        self._joined.pop(issuer, None)
        self.forget(issuer)

    async def key(self, issuer: str, key_id: str | None, thumbprints: Iterable[str]) -> jwt.PyJWK:
        """The issuer's key with this id. Raises :class:`IssuerUnreachable` or :class:`ThumbprintMismatch`."""
        pinned = frozenset(thumbprint.lower() for thumbprint in thumbprints)
        source = self._source(issuer, pinned)
        if time.monotonic() - source.fetched_at <= KEPT_FOR and (key := source.key(key_id)):
            return key
        # Callers that ask meanwhile wait for the same answer, so a slow issuer delays each of them only once.
        if source.fetching is None:
            if len(source.fetch_times) == FETCHES and time.monotonic() - source.fetch_times[0] < WITHIN:
                last = source.failure or f"none of its keys has the id {key_id!r}"
                said = f"{issuer} was asked for its keys {FETCHES} times within {WITHIN:.0f} seconds: {last}"
                raise IssuerUnreachable(said)
            source.fetch_times.append(time.monotonic())
            source.fetching = asyncio.create_task(self._fetch(source, issuer, pinned))
        await asyncio.shield(source.fetching)
        if key := source.key(key_id):
            return key
        raise IssuerUnreachable(f"none of the keys of {issuer} has the id {key_id!r}")

    def forget(self, issuer: str) -> None:
        """Forget this issuer's keys, so that the next call fetches them again."""
        for known in [known for known in self._sources if known[0] == issuer]:
            del self._sources[known]

    async def thumbprint(self, url: str) -> str:
        """Return the SHA-1 of the top certificate that the host in ``url`` serves. Raises `IssuerUnreachable`."""
        host, port = _host(url)
        try:
            async with asyncio.timeout(TIMEOUT):
                return thumbprint((await self._served_chain(host, port))[-1])
        except TimeoutError:
            raise IssuerUnreachable(f"{url} did not answer within {TIMEOUT:.0f} seconds") from None

    def _source(self, issuer: str, pinned: frozenset[str]) -> _Source:
        mapping = self._mapped.get(_host(issuer)[0])
        edition = mapping.edition(issuer) if mapping and mapping.edition else None
        source = self._sources.get((issuer, pinned))
        if source is None or source.edition != edition:
            source = self._sources[issuer, pinned] = _Source(edition)
        return source

    async def _fetch(self, source: _Source, issuer: str, pinned: frozenset[str]) -> None:
        while len(self._sources) > KEPT:
            self._sources.popitem(last=False)
        mapping = self._mapped.get(_host(issuer)[0])
        within = (mapping and mapping.within) or TIMEOUT
        try:
            async with asyncio.timeout(within):
                source.keys = await self._published(issuer, pinned, within)
            source.fetched_at, source.failure = time.monotonic(), None
        except TimeoutError:
            source.failure = IssuerUnreachable(f"{issuer} did not answer within {within:.0f} seconds")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            source.failure = IssuerUnreachable(f"{issuer} cannot be read: {error or type(error).__name__}")
        except (IssuerUnreachable, ThumbprintMismatch) as error:
            source.failure = error
        finally:
            source.fetching = None
        if source.failure:
            raise source.failure

    async def _published(self, issuer: str, pinned: frozenset[str], within: float) -> dict[str | None, jwt.PyJWK]:
        # The API server's verified certificate isn't compared with thumbprints: its CA counts as a public root.
        if api := self._joined.get(issuer):
            location = _location(issuer, await _document(api, f"{issuer}{DISCOVERY}", DISCOVERY))
            return _keys(location, await _document(api, location, API_KEYS))
        host, port = _host(issuer)
        mapping = self._mapped.get(host)
        context = mapping.context if mapping else await self._trust(host, port, pinned)
        async with httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False, timeout=within) as client:
            named = _location(issuer, await self._document(client, f"{issuer}{DISCOVERY}"))
            if _host(named) != (host, port):
                raise IssuerUnreachable(f"{named} is on another host than the registered provider {issuer}")
            return _keys(named, await self._document(client, named))

    async def _document(self, client: httpx.AsyncClient, url: str) -> dict[str, Any]:
        host, port = _host(url)
        address, port = self._address(host, port)
        target = httpx.URL(url).copy_with(host=address, port=port)
        name = {"Host": urlsplit(url).netloc.rpartition("@")[2]}
        return await _document(client, url, target, headers=name, extensions={"sni_hostname": host})

    @cached_property
    def _public_roots(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    async def _trust(self, host: str, port: int, pinned: frozenset[str]) -> ssl.SSLContext:
        """Return the TLS context for calls to a host.

        Like AWS, compare thumbprints only if no public root verifies the host's certificates.
        """
        try:
            await self._served_chain(host, port, self._public_roots)
        except IssuerUnreachable as error:
            if not isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise
        else:
            return self._public_roots
        top = (await self._served_chain(host, port))[-1]
        if (served := thumbprint(top)) not in pinned:
            raise ThumbprintMismatch(
                f"the top certificate of {host}:{port} has the thumbprint {served}; the provider lists "
                f"{', '.join(sorted(pinned)) or 'none'}"
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=top)
        return context

    async def _served_chain(self, host: str, port: int, context: ssl.SSLContext | None = None) -> list[bytes]:
        """Return the certificates (DER) that the host sends, from its own certificate to the top certificate."""
        address, port = self._address(host, port)
        try:
            _, writer = await asyncio.open_connection(address, port, ssl=context or unverified(), server_hostname=host)
        except (OSError, ValueError) as error:
            raise IssuerUnreachable(f"{host} cannot be reached: {error}") from error
        try:
            return certificates_of(writer.get_extra_info("ssl_object"))
        finally:
            writer.close()

    def _address(self, host: str, port: int) -> tuple[str, int]:
        if mapping := self._mapped.get(host):
            return mapping.address
        for issuer, api in self._joined.items():
            if _host(issuer) == (host, port):
                return (api.base_url.host, api.base_url.port or 443) if api else (host, port)
        if host == "localhost" or host.endswith(".localhost"):
            return "127.0.0.1", port
        try:
            if ipaddress.ip_address(host).is_loopback:
                return host, port
        except ValueError:
            pass
        where = "neither an issuer of this lab nor on this machine"
        raise IssuerUnreachable(f"{host} is {where}: the lab does not contact it")


async def _document(client: httpx.AsyncClient, url: str, target: httpx.URL | str, **request: Any) -> dict[str, Any]:
    """Return the JSON object at ``target``. ``url`` is only for error messages."""
    # A few compressed bytes could expand to very many.
    accepted = {"Accept": "application/json, application/jwk-set+json", "Accept-Encoding": "identity"}
    headers = {**request.pop("headers", {}), **accepted}
    async with client.stream("GET", target, headers=headers, **request) as answer:
        if answer.status_code != 200:
            raise IssuerUnreachable(f"{url} answers {answer.status_code}")
        if (encoding := answer.headers.get("content-encoding", "identity")) != "identity":
            raise IssuerUnreachable(f"{url} answers in the encoding {encoding}, which the lab did not ask for")
        body = bytearray()
        async for piece in answer.aiter_raw():
            body += piece
            if len(body) > LONGEST_DOCUMENT:
                raise IssuerUnreachable(f"{url} answers more than {LONGEST_DOCUMENT} bytes")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise IssuerUnreachable(f"{url} is not JSON") from None
    if not isinstance(document, dict):
        raise IssuerUnreachable(f"{url} is not a JSON object")
    return document


def _location(issuer: str, discovery: dict[str, Any]) -> str:
    if (named := discovery.get("issuer")) != issuer:
        shown = f"{named!r}" if isinstance(named, str) else "its issuer is not a string"
        raise IssuerUnreachable(f"the discovery document names another issuer: {shown}")
    location = discovery.get("jwks_uri")
    if not isinstance(location, str):
        raise IssuerUnreachable("the discovery document names no jwks_uri")
    return location


def _keys(location: str, document: dict[str, Any]) -> dict[str | None, jwt.PyJWK]:
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise IssuerUnreachable(f"{location} holds no list of keys")
    kinds = [entry.get("kty") for entry in entries if isinstance(entry, dict)]
    if max(kinds.count("RSA"), kinds.count("EC")) > MOST_KEYS:
        raise IssuerUnreachable(f"{location} holds more than {MOST_KEYS} keys of one type")
    return {entry.get("kid"): key for entry in entries if isinstance(entry, dict) and (key := _parse(entry))}


def _host(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 443
    except ValueError:
        host = None
    if not host or parts.scheme != "https":
        raise IssuerUnreachable(f"{url} is not an https URL")
    return host.lower(), port


def _parse(entry: dict[str, Any]) -> jwt.PyJWK | None:
    """Return the public key if the lab can verify signatures with this key."""
    if entry.get("use", "sig") != "sig" or entry.get("kty") not in ("RSA", "EC"):
        return None
    # Only the public part: if somebody publishes a private key, checking its other numbers would take long.
    names = ("kty", "kid", "alg", "n", "e", "crv", "x", "y")
    public: dict[str, Any] = {name: entry[name] for name in names if name in entry}
    if not all(isinstance(value, str) and len(value) <= LONGEST_NUMBER for value in public.values()):
        return None
    try:
        return jwt.PyJWK(public)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
