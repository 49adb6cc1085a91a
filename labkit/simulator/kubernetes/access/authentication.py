"""Find a request's caller: by a client certificate or a bearer token. Without either, the caller is anonymous.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.types import Scope

from labkit.simulator.kubernetes.access.tokens import InvalidToken, Tokens, Verified
from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.kubernetes.objects.status import unauthorized

AUTHENTICATED = "system:authenticated"
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"


@dataclass(frozen=True)
class User:
    """The caller of a request, with the fields that RBAC and reviews use."""

    name: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict)

    def info(self) -> Object:
        """Return the caller as a ``UserInfo``, the form that reviews contain."""
        return {
            "username": self.name,
            **({"uid": self.uid} if self.uid else {}),
            "groups": list(self.groups),
            **({"extra": self.extra} if self.extra else {}),
        }


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))

# Takes a bearer token that belongs to no service account. Returns the caller, or None for an unknown token.
TokenAuthenticator = Callable[[str], Awaitable[User | None]]


class Authenticator:
    """Find the caller of a request.

    ``others`` are functions that find the user of a token that this cluster didn't sign, e.g. a token from
    `aws eks get-token`. Each function returns None for a token that it doesn't know.
    """

    def __init__(self, tokens: Tokens):
        self.tokens = tokens
        self.others: list[TokenAuthenticator] = []

    async def user(self, scope: Scope, headers: dict[bytes, bytes]) -> User:
        """Return the caller: anonymous for a request without credentials. Raises Unauthorized for wrong credentials."""
        peer = scope.get("state", {}).get("peer")
        if peer is not None:
            extra = {CREDENTIAL_ID: [f"X509SHA256={peer.sha256}"]}
            return User(peer.common_name, (*peer.organizations, AUTHENTICATED), extra=extra)
        kind, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            if headers.get(b"authorization"):
                raise unauthorized()
            return ANONYMOUS
        try:
            user, _ = await self.bearer(token.strip())
        except InvalidToken:
            raise unauthorized() from None
        return user

    async def bearer(self, token: str, audiences: list[str] | None = None) -> tuple[User, list[str]]:
        """Return the user of ``token``, and the token's audiences that are also in ``audiences``.

        Without ``audiences``, the token must be for the API server itself. Raises ``InvalidToken``.
        """
        try:
            verified = self.tokens.verify(token, audiences)
        except InvalidToken:
            # The other authenticators' tokens are only for the API server itself.
            if self.tokens.issuer in (audiences or [self.tokens.issuer]):
                for authenticate in self.others:
                    if user := await authenticate(token):
                        return user, [self.tokens.issuer]
            raise
        return service_account(verified), verified.audiences


def service_account(verified: Verified) -> User:
    """Return the user of a verified token: its service account."""
    claims = verified.claims
    inner = claims["kubernetes.io"]
    extra = {CREDENTIAL_ID: [f"JTI={claims['jti']}"]} if "jti" in claims else {}
    for key in ("node", "pod"):
        if key in inner:
            extra[f"authentication.kubernetes.io/{key}-name"] = [inner[key]["name"]]
            if uid := inner[key].get("uid"):
                extra[f"authentication.kubernetes.io/{key}-uid"] = [uid]
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{inner['namespace']}", AUTHENTICATED)
    return User(claims["sub"], groups, inner["serviceaccount"]["uid"], extra)
