"""Issue service account tokens for TokenRequests, and verify the tokens of callers.

https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from labkit.simulator.clock import Clock, rfc3339
from labkit.simulator.identifiers import Identifiers
from labkit.simulator.kubernetes.objects.kinds import NODE, POD, SECRET, SERVICE_ACCOUNT, Kind, Object
from labkit.simulator.kubernetes.objects.status import StatusCause, bad_request, conflict, invalid, invalid_value
from labkit.simulator.kubernetes.objects.storage import Storage, Stored, quoted_list

if TYPE_CHECKING:
    from jwt.types import Options

HOUR, DAY, YEAR = 3600, 24 * 3600, 365 * 24 * 3600
# A kubelet requests this lifetime (seconds) for the API token of every pod. The server makes such a token valid for a
# year, for old clients that read the token's file only once.
EXTENDED = HOUR + 7
LEEWAY = 60  # seconds by which clocks may differ
LEGACY_ISSUER = "kubernetes/serviceaccount"
LEGACY = "kubernetes.io/serviceaccount/"
BINDABLE: dict[str, Kind] = {"Pod": POD, "Secret": SECRET, "Node": NODE}


class InvalidToken(Exception):
    """The token isn't valid. The text says why, and is the error in a TokenReview."""


@dataclass(frozen=True)
class Verified:
    """The claims of a valid token, and the wanted audiences (see `Tokens.verify`) that the token has."""

    claims: Object
    audiences: list[str]


class Tokens:
    """Sign and verify the tokens of one cluster with its service account signing key."""

    def __init__(self, signing_key_pem: bytes, issuer: str, clock: Clock, identifiers: Identifiers, storage: Storage):
        key = serialization.load_pem_private_key(signing_key_pem, password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("the service account signing key must be an RSA key")
        self.issuer, self.clock, self.identifiers, self.storage = issuer, clock, identifiers, storage
        # The longest lifetime of a new token in seconds; None for no limit.
        self.longest: int | None = None
        self._key, self._public = key, key.public_key()
        der = self._public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.key_id = _base64(hashlib.sha256(der).digest())

    def discovery_document(self, keys: str) -> Object:
        """Return the issuer's OpenID Connect discovery document; `keys` is the URL of the issuer's key set."""
        return {
            "issuer": self.issuer,
            "jwks_uri": keys,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def jwks(self) -> Object:
        """Return the public key as a JSON Web Key Set (RFC 7517)."""
        numbers = self._public.public_numbers()
        modulus = _base64(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big"))
        exponent = _base64(numbers.e.to_bytes(3, "big"))
        return {"keys": [{"use": "sig", "kty": "RSA", "kid": self.key_id, "alg": "RS256", "n": modulus, "e": exponent}]}

    def request(self, account: Stored, spec: Object, warnings: list[str]) -> Object:
        """Return the TokenRequest for this ``spec``, with a new token of the service account.

        If the token's lifetime is shortened, add a text to ``warnings``. Raises ``ApiError`` in the API server's words.
        """
        audiences = spec.get("audiences") or [self.issuer]
        seconds = spec.get("expirationSeconds", HOUR)
        if causes := token_duration("spec.expirationSeconds", seconds):
            raise invalid("TokenRequest", "authentication.k8s.io", "", causes)
        if self.longest and seconds > self.longest:
            warnings.append(f"requested expiration of {seconds} seconds shortened to {self.longest} seconds")
            seconds = self.longest
        bound, bound_kind, reference = None, None, spec.get("boundObjectRef")
        if reference:
            bound, bound_kind = self._bound(account, reference)
        now = int(self.clock.now())
        extend = seconds == EXTENDED and bound_kind is POD and audiences == [self.issuer]
        name = f"{account.namespace}/{account.name}"
        claims = {
            "aud": audiences,
            "exp": now + (YEAR if extend else seconds),
            "iat": now,
            "iss": self.issuer,
            "jti": self.identifiers.uuid("jti", f"{name}/{self.identifiers.serial('jti', name)}"),
            "kubernetes.io": {
                "namespace": account.namespace,
                **(self._bound_claim(bound_kind, bound) if bound_kind and bound else {}),
                "serviceaccount": {"name": account.name, "uid": account.uid},
                **({"warnafter": now + seconds} if extend else {}),
            },
            "nbf": now,
            "sub": f"system:serviceaccount:{account.namespace}:{account.name}",
        }
        token = self._signed(claims)
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": account.name,
                "namespace": account.namespace,
                "uid": account.uid,
                "creationTimestamp": rfc3339(now),
            },
            "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": reference or None},
            "status": {"token": token, "expirationTimestamp": rfc3339(now + seconds)},
        }

    def legacy(self, account: Stored, secret: Stored) -> str:
        """Return the token for a Secret of the type ``kubernetes.io/service-account-token``. This token never expires.

        https://kubernetes.io/docs/concepts/configuration/secret/#serviceaccount-token-secrets
        """
        claims = {
            "iss": LEGACY_ISSUER,
            f"{LEGACY}namespace": account.namespace,
            f"{LEGACY}secret.name": secret.name,
            f"{LEGACY}service-account.name": account.name,
            f"{LEGACY}service-account.uid": account.uid,
            "sub": f"system:serviceaccount:{account.namespace}:{account.name}",
        }
        return self._signed(claims)

    def verify(self, token: str, audiences: list[str] | None = None) -> Verified:
        """Return the token's claims, and the wanted audiences that the token has. Raises ``InvalidToken``.

        The wanted audiences are ``audiences``; by default, the API server's own audience. A token is invalid outside
        its lifetime (in lab time), or if an object to which the token is bound no longer exists.
        """
        options: Options = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
        issuers = [self.issuer, LEGACY_ISSUER]
        try:
            claims = jwt.decode(token, self._public, algorithms=["RS256"], issuer=issuers, options=options)
        except jwt.InvalidTokenError as error:
            raise InvalidToken("invalid bearer token") from error
        try:
            return self._verified(claims, token, audiences or [self.issuer])
        except InvalidToken as invalid:
            raise InvalidToken(f"[invalid bearer token, {invalid}]") from None
        except (AttributeError, KeyError, TypeError) as error:
            # Another program that has the signing key can sign tokens with any claims.
            raise InvalidToken("invalid bearer token") from error

    def _verified(self, claims: Object, token: str, wanted: list[str]) -> Verified:
        if claims["iss"] == LEGACY_ISSUER:
            claims = self._legacy_claims(claims, token)
        else:
            now = self.clock.now()
            if now + LEEWAY < claims["nbf"]:
                raise InvalidToken("service account token is not valid yet")
            if now - LEEWAY > claims["exp"]:
                raise InvalidToken("service account token has expired")
        has = claims.get("aud") or [self.issuer]
        has = [has] if isinstance(has, str) else has
        common = [audience for audience in has if audience in wanted]
        if not common:
            why = f"is invalid for the target audiences {quoted_list(wanted)}"
            raise InvalidToken(f"token audiences {quoted_list(has)} {why}")
        self._require_objects(claims["kubernetes.io"])
        return Verified(claims, common)

    def _legacy_claims(self, claims: Object, token: str) -> Object:
        """Return the ``claims`` of a Secret's token in the form that newer tokens have."""
        namespace, secret = claims[f"{LEGACY}namespace"], claims[f"{LEGACY}secret.name"]
        stored = self.storage.find(SECRET, namespace, secret)
        if stored is None:
            raise InvalidToken("Token has been invalidated")
        if (stored.object.get("data") or {}).get("token") != base64.b64encode(token.encode()).decode():
            raise InvalidToken("Token does not match server's copy")
        account = {"name": claims[f"{LEGACY}service-account.name"], "uid": claims[f"{LEGACY}service-account.uid"]}
        inner = {"namespace": namespace, "serviceaccount": account}
        return claims | {"kubernetes.io": inner}

    def _require_objects(self, claim: Object) -> None:
        namespace, account = claim["namespace"], claim["serviceaccount"]
        stored = self.storage.find(SERVICE_ACCOUNT, namespace, account["name"])
        if stored is None:
            raise InvalidToken(f'serviceaccounts "{account["name"]}" not found')
        if stored.uid != account["uid"]:
            raise InvalidToken(f"service account UID ({stored.uid}) does not match claim ({account['uid']})")
        # The node in a pod's token is only information: the token stays valid if the node is deleted.
        kinds = {"pod": POD, "secret": SECRET} | ({} if "pod" in claim else {"node": NODE})
        for key, kind in kinds.items():
            if bound := claim.get(key):
                stored = self.storage.find(kind, namespace if kind.namespaced else "", bound["name"])
                if stored is None or self._is_going(stored):
                    raise InvalidToken("service account token has been invalidated")
                if stored.uid != bound["uid"]:
                    why = f"does not match service account {key} ref claim ({bound['uid']})"
                    raise InvalidToken(f"{key} UID ({stored.uid}) {why}")

    def _is_going(self, stored: Stored) -> bool:
        # After this time, the object may still exist, because it waits for its finalizers or its node.
        deadline = str(stored.metadata.get("deletionTimestamp", ""))
        return "" < deadline < rfc3339(self.clock.now() - LEEWAY)

    def _bound(self, account: Stored, reference: Object) -> tuple[Stored, Kind]:
        kind = BINDABLE.get(reference.get("kind", ""))
        if kind is None or reference.get("apiVersion", "v1") != "v1":
            group, _, version = reference.get("apiVersion", "").rpartition("/")
            kind_name = reference.get("kind", "")
            raise bad_request(f"cannot bind token to object of type {group}/{version}, Kind={kind_name}")
        name = reference.get("name", "")
        bound = self.storage.get(kind, account.namespace if kind.namespaced else "", name)
        if (uid := reference.get("uid")) and uid != bound.uid:
            why = (
                f"the UID in the bound object reference ({uid}) does not match the UID in record."
                " The object might have been deleted and then recreated"
            )
            raise conflict(kind, name, why, called=kind.kind)
        if kind is POD and bound.object["spec"].get("serviceAccountName") != account.name:
            why = "to pod running with different serviceaccount name."
            raise bad_request(f'cannot bind token for serviceaccount "{account.name}" {why}')
        return bound, kind

    def _bound_claim(self, kind: Kind, bound: Stored) -> Object:
        claim: Object = {}
        if kind is POD and (node := bound.object["spec"].get("nodeName")):
            stored = self.storage.find(NODE, "", node)
            claim["node"] = {"name": node} | ({"uid": stored.uid} if stored else {})
        return claim | {kind.singular: {"name": bound.name, "uid": bound.uid}}

    def _signed(self, claims: Object) -> str:
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self.key_id, "typ": None})


def token_duration(field: str, seconds: int) -> list[StatusCause]:
    """Return the errors in a token's lifetime. It must be between 10 minutes and 2^32 seconds."""
    if seconds < 600:
        return [invalid_value(field, seconds, "may not specify a duration less than 10 minutes")]
    if seconds > 1 << 32:
        return [invalid_value(field, seconds, "may not specify a duration larger than 2^32 seconds")]
    return []


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
