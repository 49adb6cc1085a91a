"""Verify a web identity token with the OIDC provider in the role's account.

AWS doesn't document the order of the checks. `labkit.tokens.refused` checks the provider, the audience and the times.
This module verifies the signature.

https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
"""

import base64
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jwt

from labkit.simulator.aws.answers import Refusal
from labkit.simulator.aws.call import no_number
from labkit.simulator.aws.issuers import Issuers, IssuerUnreachable, ThumbprintMismatch
from labkit.tokens import LATEST, NO_JWT, Claims, refused

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")
REQUIRED = ("iss", "sub", "aud", "exp", "iat")
EXPIRED = "ExpiredTokenException"
GENERIC = (
    "The web identity token provided could not be validated. "
    "See the AssumeRoleWithWebIdentity documentation for requirements."
)
# STS itself writes two blanks.
NO_KEY = (
    "Couldn't retrieve verification key from your identity provider,  "
    "please reference AssumeRoleWithWebIdentity documentation for requirements"
)
NO_THUMBPRINT = "OpenIDConnect provider's HTTPS certificate doesn't match configured thumbprint"

_algorithms = {name: jwt.get_algorithm_by_name(name) for name in ALGORITHMS}


@dataclass(frozen=True)
class Provider:
    """What a token must fit: an OIDC provider in IAM, or EKS Pod Identity, which has no ARN and no thumbprints."""

    client_ids: list[str]
    thumbprints: list[str] = field(default_factory=list)
    arn: str = ""


@dataclass(frozen=True)
class WebIdentity:
    """The content of a verified token."""

    issuer: str
    subject: str
    audience: str
    """The token's audience, which is also a client id of the provider."""
    provider_arn: str
    claims: dict[str, Any]

    @cached_property
    def context(self) -> dict[str, str | list[str]]:
        """The condition keys of the token and its provider."""
        return {"aws:FederatedProvider": self.provider_arn, **Claims.of(self.claims).context()}


@dataclass(frozen=True)
class Token:
    """A JWT that has been read, but not verified."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signed: bytes
    """The part that ``signature`` signs."""
    signature: bytes


def parse_token(token: str) -> Token:
    """Read a JWT (RFC 7519). Raises :class:`Refusal`."""
    signed, _, signature = token.rpartition(".")
    try:
        header, claims = map(_object, signed.split("."))
        if not isinstance(header.get("alg"), str):
            raise ValueError("no algorithm")
        if not isinstance(header.get("kid", ""), str):
            raise ValueError("the key id is not a string")
        return Token(header, claims, signed.encode(), _decode(signature))
    except (ValueError, RecursionError):
        raise refusal(NO_JWT) from None


async def verify(
    token: Token, *, find_provider: Callable[[str], Provider | None], issuers: Issuers, now: float
) -> WebIdentity:
    """Return the token's content. Raises :class:`Refusal` if its issuer, audience, lifetime or signature is wrong.

    ``find_provider`` returns the issuer's provider in the role's account, or None. ``now`` is lab time in seconds.
    """
    header, claims = token.header, token.claims
    if missing := [name for name in REQUIRED if claims.get(name) in (None, "", [])]:
        raise Refusal(400, "InvalidIdentityToken", f"Missing a required claim: {missing[0]}")
    issuer, subject, audience = claims["iss"], claims["sub"], claims["aud"]
    audiences = audience if isinstance(audience, list) else [audience]
    if not all(isinstance(value, str) for value in (issuer, subject, *audiences)):
        raise refusal(NO_JWT, "iss, sub and aud are not strings")
    expires, issued_at, not_before = (_seconds(claims, name) for name in ("exp", "iat", "nbf"))
    if (algorithm := header["alg"]) not in ALGORITHMS:
        known = f"{', '.join(ALGORITHMS[:-1])} or {ALGORITHMS[-1]}"
        raise refusal(f"The token is signed with {algorithm}, but must be signed with {known}")
    if "crit" in header or header.get("b64") is False:  # RFC 7797 wants b64 in crit
        raise refusal("The token's header has critical extensions, which AWS doesn't accept")
    provider = find_provider(issuer)
    compared = Claims.of(claims).compared
    client_ids = provider.client_ids if provider else None
    start = max(not_before, issued_at)
    if rejected := refused(issuer, compared, client_ids=client_ids, expires=expires, not_before=start, now=now):
        if rejected.code == EXPIRED:
            raise Refusal(400, rejected.code, rejected.message)
        raise refusal(rejected.message, rejected.detail)
    assert provider is not None
    key = await _key(issuers, issuer, header.get("kid"), provider.thumbprints)
    if mismatch := _unsigned(token, algorithm, key):
        raise refusal("The token's signature is not the issuer's", mismatch)
    return WebIdentity(
        issuer,
        subject,
        audience=next(audience for audience in compared if audience in provider.client_ids),
        provider_arn=provider.arn,
        claims=claims,
    )


def trail_claims(claims: dict[str, object]) -> dict[str, object]:
    """Return the claims that the trail shows: the token's issuer, subject, audience and times."""
    names = {"issuer": "iss", "subject": "sub", "audience": "aud", "issuedAt": "iat", "expires": "exp"}
    return {name: claims[claim] for name, claim in names.items() if claim in claims}


def refusal(telling: str, detail: str = "") -> Refusal:
    """Return a refusal with STS's general message. Only the trail gets the reason: ``telling`` and ``detail``."""
    reason = f"{telling}: {detail}" if detail else telling
    return Refusal(400, "InvalidIdentityToken", GENERIC, reason)


async def _key(issuers: Issuers, issuer: str, key_id: str | None, thumbprints: list[str]) -> Any:
    try:
        return (await issuers.key(issuer, key_id, thumbprints)).key
    except IssuerUnreachable as error:
        raise refusal(NO_KEY, str(error)) from error
    except ThumbprintMismatch as error:
        raise refusal(NO_THUMBPRINT, str(error)) from error


def _unsigned(token: Token, algorithm: str, key: Any) -> str:
    """Return the error if this key doesn't verify the token's signature."""
    verifier = _algorithms[algorithm]
    try:
        signed = verifier.verify(token.signed, verifier.prepare_key(key), token.signature)
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        return str(error)
    return "" if signed else "Signature verification failed"


def _seconds(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LATEST:
        raise refusal(NO_JWT, f"{name} is not a number of seconds")
    return float(value)


def _object(part: str) -> dict[str, Any]:
    text = _decode(part).decode()
    content = json.loads(text, parse_constant=no_number, parse_float=_finite)
    if not isinstance(content, dict):
        raise ValueError("not an object")
    if "\\u" in text:
        # An unpaired surrogate can't be encoded as text again.
        json.dumps(content, ensure_ascii=False).encode()
    return content


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number} is too large")
    return value


def _decode(part: str) -> bytes:
    """Decode base64url without padding (RFC 7515)."""
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    # Python's decoder also accepts other spellings of the same bytes.
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part.encode():
        raise ValueError("not base64url")
    return decoded
