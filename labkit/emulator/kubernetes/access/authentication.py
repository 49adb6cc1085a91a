"""The caller: the subject of a client certificate, a token's service account, or anonymous.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.types import Scope

from labkit.emulator.kubernetes.access.tokens import InvalidToken, Tokens, Verified
from labkit.emulator.kubernetes.objects.kinds import Object
from labkit.emulator.kubernetes.objects.status import unauthorized

AUTHENTICATED = "system:authenticated"
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"


@dataclass(frozen=True)
class User:
    """A caller, as RBAC and reviews see it."""

    name: str
    groups: tuple[str, ...]
    uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict)

    def info(self) -> Object:
        """The caller as a ``UserInfo``."""
        return {
            "username": self.name,
            **({"uid": self.uid} if self.uid else {}),
            "groups": list(self.groups),
            **({"extra": self.extra} if self.extra else {}),
        }


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))

# Takes a bearer token that belongs to no service account. Returns the caller, or None for an unknown token.
TokenAuthenticator = Callable[[str], Awaitable[User | None]]


class Authentication:
    """Find the caller of a request. ``others`` are more authenticators of bearer tokens, e.g. for AWS identities."""

    def __init__(self, tokens: Tokens):
        self.tokens = tokens
        self.others: list[TokenAuthenticator] = []

    async def user(self, scope: Scope, headers: dict[bytes, bytes]) -> User:
        """Return the caller, who is anonymous without credentials. Raises Unauthorized for wrong ones."""
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
        """Return a token's user, and the wanted audiences that the token has. Raises ``InvalidToken``."""
        try:
            verified = self.tokens.verify(token, audiences)
        except InvalidToken:
            # Tokens of the other authenticators are only for the API server itself.
            if self.tokens.issuer in (audiences or [self.tokens.issuer]):
                for authenticate in self.others:
                    if user := await authenticate(token):
                        return user, [self.tokens.issuer]
            raise
        return service_account(verified), verified.audiences


def service_account(verified: Verified) -> User:
    """Return the service account of a verified token."""
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
