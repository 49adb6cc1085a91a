"""Fetches the keys of a web identity token's issuer, as STS does: discovery first, then the keys, over HTTPS.

https://openid.net/specs/openid-connect-discovery-1_0.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_create_oidc_verify-thumbprint.html
"""

import asyncio
import hashlib
import ipaddress
import json
import ssl
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt

TIMEOUT = 5.0
LONGEST_DOCUMENT = 512 * 1024
# A learner who withdraws an issuer or its keys shall see the effect soon.
KEPT_FOR = 30.0
KEPT = 256


class IssuerUnreachable(Exception):
    """The keys cannot be had; the message says which step failed."""


class ThumbprintMismatch(Exception):
    """The issuer's certificate chains to no trusted root and to none of the provider's thumbprints."""


@dataclass(frozen=True)
class _Mapping:
    address: tuple[str, int]
    context: ssl.SSLContext


@dataclass
class _Keys:
    by_id: dict[str | None, jwt.PyJWK]
    fetched_at: float


class Issuers:
    """The issuers' keys, kept for 30 seconds and fetched again for a key id that is not among them.

    Nothing but a registered provider's host is asked, and of these only what the lab has mapped to a listener of its
    own, and what is on this machine: on the moto target nothing leaves loopback.
    """

    def __init__(self) -> None:
        self._mapped: dict[str, _Mapping] = {}
        self._keys: OrderedDict[str, _Keys] = OrderedDict()
        self._fetching: dict[str, asyncio.Task[dict[str | None, jwt.PyJWK]]] = {}

    def map_host(self, host: str, address: tuple[str, int], ca_pem: bytes) -> None:
        """Leads ``https://host/…`` to ``address``, whose certificate must be that host's and chain to ``ca_pem``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=ca_pem.decode())
        self._mapped[host.lower()] = _Mapping(address, context)

    async def key(self, issuer: str, key_id: str | None, thumbprints: list[str]) -> jwt.PyJWK:
        """The issuer's key with this id. Raises :class:`IssuerUnreachable` or :class:`ThumbprintMismatch`."""
        if key := self._kept(issuer, key_id):
            return key
        # Whoever asks meanwhile waits for the same answer: a slow issuer holds up each of many callers once.
        fetching = self._fetching.get(issuer)
        if fetching is None:
            fetching = self._fetching[issuer] = asyncio.create_task(self._fetch(issuer, thumbprints))
            fetching.add_done_callback(lambda _: self._fetching.pop(issuer, None))
        keys = await asyncio.shield(fetching)
        if key := _choose(keys, key_id):
            return key
        raise IssuerUnreachable(f"the keys of {issuer} hold none with the id {key_id!r}")

    def forget(self, issuer: str) -> None:
        """Fetches this issuer's keys anew the next time."""
        self._keys.pop(issuer, None)

    async def thumbprint(self, url: str) -> str:
        """The SHA-1 of the top certificate that the host of ``url`` serves. Raises :class:`IssuerUnreachable`."""
        chain = await self._served_chain(urlsplit(url))
        return hashlib.sha1(chain[-1]).hexdigest()  # noqa: S324 - the algorithm is IAM's

    def _kept(self, issuer: str, key_id: str | None) -> jwt.PyJWK | None:
        kept = self._keys.get(issuer)
        if kept is None or time.monotonic() - kept.fetched_at > KEPT_FOR:
            return None
        return _choose(kept.by_id, key_id)

    async def _fetch(self, issuer: str, thumbprints: list[str]) -> dict[str | None, jwt.PyJWK]:
        try:
            async with asyncio.timeout(TIMEOUT):
                discovery = await self._document(f"{issuer}/.well-known/openid-configuration", issuer, thumbprints)
                if discovery.get("issuer") != issuer:
                    raise IssuerUnreachable(f"the discovery document names another issuer: {discovery.get('issuer')!r}")
                location = discovery.get("jwks_uri")
                if not isinstance(location, str):
                    raise IssuerUnreachable("the discovery document names no jwks_uri")
                keys = await self._document(location, issuer, thumbprints)
        except TimeoutError:
            raise IssuerUnreachable(f"{issuer} did not answer within {TIMEOUT:.0f} seconds") from None
        if not isinstance(entries := keys.get("keys"), list):
            raise IssuerUnreachable(f"{location} holds no list of keys")
        parsed = {entry.get("kid"): key for entry in entries if isinstance(entry, dict) and (key := _parse(entry))}
        self._keys[issuer] = _Keys(parsed, time.monotonic())
        self._keys.move_to_end(issuer)
        while len(self._keys) > KEPT:
            self._keys.popitem(last=False)
        return parsed

    async def _document(self, url: str, issuer: str, thumbprints: list[str]) -> dict[str, Any]:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise IssuerUnreachable(f"{url} is not an https URL")
        host = parts.hostname.lower()
        if host != urlsplit(issuer).hostname and host not in self._mapped:
            raise IssuerUnreachable(f"{url} is on another host than the registered provider {issuer}")
        address, port = self._address(host, parts.port or 443)
        mapping = self._mapped.get(host)
        context = mapping.context if mapping else await self._trust(url, thumbprints)
        target = httpx.URL(url).copy_with(host=address, port=port)
        try:
            async with (
                httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False, timeout=TIMEOUT) as client,
                client.stream(
                    "GET",
                    target,
                    headers={"Host": parts.netloc.rpartition("@")[2], "Accept": "application/json"},
                    extensions={"sni_hostname": host},
                ) as answer,
            ):
                if answer.status_code != 200:
                    raise IssuerUnreachable(f"{url} answers {answer.status_code}")
                body = b""
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > LONGEST_DOCUMENT:
                        raise IssuerUnreachable(f"{url} answers more than {LONGEST_DOCUMENT} bytes")
        except httpx.HTTPError as error:
            raise IssuerUnreachable(f"{url} cannot be read: {error or type(error).__name__}") from error
        try:
            document = json.loads(body)
        except ValueError:
            raise IssuerUnreachable(f"{url} is not JSON") from None
        if not isinstance(document, dict):
            raise IssuerUnreachable(f"{url} is not a JSON object")
        return document

    async def _trust(self, url: str, thumbprints: list[str]) -> ssl.SSLContext:
        """What to verify an unmapped host against: the public roots, else the served chain's top, when it is pinned."""
        parts = urlsplit(url)
        context = ssl.create_default_context()
        try:
            await self._served_chain(parts, context)
        except IssuerUnreachable as error:
            if not isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise
        else:
            return context
        top = (await self._served_chain(parts))[-1]
        found = hashlib.sha1(top).hexdigest()  # noqa: S324 - the algorithm is IAM's
        if found not in {thumbprint.lower() for thumbprint in thumbprints}:
            raise ThumbprintMismatch(
                f"the top certificate of {parts.netloc} has the thumbprint {found}; the provider lists "
                f"{', '.join(thumbprints) or 'none'}"
            )
        pinned = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        pinned.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        pinned.load_verify_locations(cadata=top)
        return pinned

    async def _served_chain(self, parts: Any, context: ssl.SSLContext | None = None) -> list[bytes]:
        """The certificates (DER) that the host serves, its own first; unverified without ``context``."""
        host = (parts.hostname or "").lower()
        address, port = self._address(host, parts.port or 443)
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            async with asyncio.timeout(TIMEOUT):
                _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=host)
        except TimeoutError:
            raise IssuerUnreachable(f"{host} did not answer within {TIMEOUT:.0f} seconds") from None
        except OSError as error:
            raise IssuerUnreachable(f"{host} cannot be reached: {error}") from error
        try:
            tls = writer.get_extra_info("ssl_object")
            # Public from Python 3.13 on; the same call has been there, underscored, since 3.10.
            chain = getattr(tls, "get_unverified_chain", None) or tls._sslobj.get_unverified_chain
            certificates = chain()
            return [c if isinstance(c, bytes) else ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in certificates]
        finally:
            writer.close()

    def _address(self, host: str, port: int) -> tuple[str, int]:
        if mapping := self._mapped.get(host):
            return mapping.address
        if host == "localhost" or host.endswith(".localhost"):
            return "127.0.0.1", port
        try:
            if ipaddress.ip_address(host).is_loopback:
                return host, port
        except ValueError:
            pass
        raise IssuerUnreachable(f"{host} is no issuer of this lab and not on this machine: the lab does not contact it")


def _choose(keys: dict[str | None, jwt.PyJWK], key_id: str | None) -> jwt.PyJWK | None:
    # A token without a key id can only mean the one key there is.
    if key_id is None and len(keys) == 1:
        return next(iter(keys.values()))
    return keys.get(key_id)


def _parse(entry: dict[str, Any]) -> jwt.PyJWK | None:
    """The key; None for one that the lab cannot use, or that is published for encryption."""
    if (
        entry.get("use", "sig") != "sig"
        or entry.get("kty") not in ("RSA", "EC")
        or not isinstance(entry.get("kid"), str | None)
    ):
        return None
    try:
        return jwt.PyJWK(entry)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
