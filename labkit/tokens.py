"""A web identity token's claims, and STS's checks of these claims: the OIDC provider, the audience and the expiry.

The emulated STS and the widgets share these checks. `labkit.simulator.aws.web_identity` verifies the signature.

https://datatracker.ietf.org/doc/html/rfc7519
https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


class NotAToken(ValueError):
    """The text isn't a JSON web token; the message says why."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a token, with unchanged values. Times are epoch seconds.

    None or an empty text stands for a missing claim.
    """

    issuer: str | None
    subject: str | None
    audiences: tuple[str, ...]
    authorized_party: str | None  # the claim azp
    expires: float | None
    issued_at: float | None
    kubernetes: dict[str, Any]  # the claim kubernetes.io: namespace, service account, pod, node
    raw: Mapping[str, object]

    @classmethod
    def parse(cls, token: str) -> "Claims":
        """Return the unverified claims of a token. Raises `NotAToken`."""
        return cls.of(read_jwt(token)[1])

    @classmethod
    def of(cls, payload: Mapping[str, object]) -> "Claims":
        """Return the claims of a token's payload."""
        audiences = payload.get("aud")
        audiences = audiences if isinstance(audiences, list) else [audiences]
        kubernetes = payload.get("kubernetes.io")
        return cls(
            _text(payload.get("iss")),
            _text(payload.get("sub")),
            tuple(audience for audience in audiences if isinstance(audience, str)),
            _text(payload.get("azp")) or None,
            _number(payload.get("exp")),
            _number(payload.get("iat")),
            kubernetes if isinstance(kubernetes, dict) else {},
            payload,
        )

    @property
    def provider(self) -> str:
        """The issuer without `https://`. The provider's ARN ends with this name, and condition keys start with it."""
        return (self.issuer or "").removeprefix("https://")

    @property
    def compared(self) -> tuple[str, ...]:
        """The values that STS compares with the provider's client ids: `azp` or, if that's missing, the audiences."""
        return (self.authorized_party,) if self.authorized_party else self.audiences

    def context(self) -> dict[str, list[str]]:
        """Return the condition keys (`oidc.eks…/id/X:sub`, `:aud`) and their values in a request with this token.

        If the token has the claim `azp`, the key `:aud` holds that claim, and the key `:oaud` holds the audiences.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html#condition-keys-wif
        """
        amr, email = self.raw.get("amr"), _text(self.raw.get("email"))
        party = self.authorized_party
        values = {
            "sub": [self.subject] if self.subject is not None else [],
            "aud": [*self.compared],
            "oaud": [*self.audiences] if party else [],
            "azp": [party] if party else [],
            "amr": amr if isinstance(amr, list) and all(isinstance(value, str) for value in amr) else [],
            "email": [email] if email is not None else [],
        }
        return {f"{self.provider}:{claim}": held for claim, held in values.items() if held}


def read_jwt(token: str) -> tuple[dict[str, object], dict[str, object]]:
    """Return a token's header and claims, without verification. Raises `NotAToken`.

    https://datatracker.ietf.org/doc/html/rfc7515#section-3.1
    """
    encoded = token.split(".") if isinstance(token, str) else []
    if len(encoded) != 3:
        raise NotAToken(f"a token has three parts with dots between them, but this text has {len(encoded)}")
    return _decode(encoded[0], "header"), _decode(encoded[1], "claims")


# Seconds by which an issuer's clock may be ahead.
AHEAD = 5
# The last second of the year 9999. STS refuses a token with a later time.
LATEST = 253402300799
NO_JWT = "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"


@dataclass(frozen=True, slots=True)
class Refused:
    """STS refused the token before it looked at the role's trust policy. `check` is the check that failed."""

    check: Literal["provider", "audience", "expiry"]
    code: str
    """The API's error code."""
    message: str
    """A sentence that names the cause. In most cases, STS no longer shows it to the caller."""
    detail: str = ""


def refused(
    issuer: str,
    audiences: Sequence[str],
    *,
    client_ids: Sequence[str] | None,
    expires: float,
    not_before: float,
    now: float,
) -> Refused | None:
    """Return the first reason why STS refuses these claims; None if STS goes on to check the signature.

    AWS doesn't document the order of these checks.

    Args:
        audiences: the values that STS compares with the client ids, as in `Claims.compared`.
        client_ids: the client ids of the issuer's OIDC provider; None if the role's account has no such provider.
        expires, not_before, now: epoch seconds.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html#API_AssumeRoleWithWebIdentity_Errors
    """
    if client_ids is None:
        return Refused("provider", _INVALID, f"No OpenIDConnect provider found in your account for {issuer}")
    if not any(audience in client_ids for audience in audiences):
        listed = ", ".join(client_ids) or "none"
        detail = f"the token is for {', '.join(audiences)}; the provider's client ids are {listed}"
        return Refused("audience", _INVALID, "Incorrect token audience", detail)
    if expires <= now:
        return Refused(
            "expiry",
            "ExpiredTokenException",
            f"Token expired: current date/time {int(now)} must be before the expiration date/time {int(expires)}",
        )
    if not_before > now + AHEAD:
        message = f"The token is not valid before {int(not_before)}; it is {int(now)} now"
        return Refused("expiry", _INVALID, message)
    return None


_INVALID = "InvalidIdentityToken"


def _decode(part: str, name: str) -> dict[str, Any]:
    try:
        decoded = json.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise NotAToken(f"the {name} part of the token is not base64url-encoded JSON") from None
    if not isinstance(decoded, dict):
        raise NotAToken(f"the {name} part of the token is not a JSON object")
    return decoded


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
