"""Service account tokens: issued by TokenRequest, verified at every call.

https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens
"""

import base64
import hashlib
from dataclasses import dataclass

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from labkit.emulator.clock import Clock
from labkit.emulator.identifiers import Identifiers
from labkit.emulator.kubernetes.kinds import NODE, POD, SECRET, SERVICE_ACCOUNT, Kind
from labkit.emulator.kubernetes.status import (
    ApiError,
    bad_request,
    conflict,
    invalid,
    invalid_value,
)
from labkit.emulator.kubernetes.storage import Storage, Stored, quoted_list, timestamp

HOUR, YEAR = 3600, 365 * 24 * 3600
# What the kubelet asks for in every pod: such tokens live a year, so that old clients that never read them again work.
EXTENDED = HOUR + 7
BINDABLE: dict[str, Kind] = {"Pod": POD, "Secret": SECRET, "Node": NODE}


class InvalidToken(Exception):
    """A token is none of ours, or no longer good; the text is what a TokenReview says."""


@dataclass(frozen=True)
class Verified:
    """A good token: its claims, and those of the wanted audiences that it has."""

    claims: dict
    audiences: list[str]


class Tokens:
    """Signs and verifies the tokens of one cluster with its service account signing key."""

    def __init__(self, signing_key_pem: bytes, issuer: str, clock: Clock, identifiers: Identifiers, storage: Storage):
        key = serialization.load_pem_private_key(signing_key_pem, password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("a service account signing key is an RSA key")
        self.issuer, self.clock, self.identifiers, self.storage = issuer, clock, identifiers, storage
        self._key, self._public = key, key.public_key()
        der = self._public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.key_id = _base64(hashlib.sha256(der).digest())

    def jwks(self) -> dict:
        """The public key as a JSON Web Key Set (RFC 7517)."""
        numbers = self._public.public_numbers()
        modulus = _base64(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big"))
        exponent = _base64(numbers.e.to_bytes(3, "big"))
        return {"keys": [{"use": "sig", "kty": "RSA", "kid": self.key_id, "alg": "RS256", "n": modulus, "e": exponent}]}

    def request(self, account: Stored, spec: dict) -> dict:
        """Answers a TokenRequest's spec: the whole TokenRequest. Raises ``ApiError`` as the API server refuses."""
        audiences = spec.get("audiences") or [self.issuer]
        seconds = spec.get("expirationSeconds", HOUR)
        field = "spec.expirationSeconds"
        if seconds < 600:
            raise _invalid(invalid_value(field, seconds, "may not specify a duration less than 10 minutes"))
        if seconds > 1 << 32:
            raise _invalid(invalid_value(field, seconds, "may not specify a duration larger than 2^32 seconds"))
        bound, bound_kind, reference = None, None, spec.get("boundObjectRef")
        if reference:
            bound, bound_kind = self._bound(account, reference)
        now = int(self.clock.now())
        extend = seconds == EXTENDED and bound_kind is POD and audiences == [self.issuer]
        lifetime = YEAR if extend else seconds
        kubernetes = self._kubernetes_claim(account, bound_kind, bound) | (
            {"warnafter": now + seconds} if extend else {}
        )
        claims = {
            "aud": audiences,
            "exp": now + lifetime,
            "iat": now,
            "iss": self.issuer,
            "jti": self._jti(account),
            "kubernetes.io": kubernetes,
            "nbf": now,
            "sub": f"system:serviceaccount:{account.namespace}:{account.name}",
        }
        token = jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self.key_id, "typ": None})
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": account.name,
                "namespace": account.namespace,
                "uid": account.uid,
                "creationTimestamp": timestamp(now),
            },
            "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": reference or None},
            "status": {"token": token, "expirationTimestamp": timestamp(now + seconds)},
        }

    def verify(self, token: str, audiences: list[str] | None = None) -> Verified:
        """Raises ``InvalidToken``: signature, lab time, audience, and whether what it is bound to still exists."""
        try:
            claims = jwt.decode(
                token,
                self._public,
                algorithms=["RS256"],
                issuer=self.issuer,
                options={"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError as error:
            raise InvalidToken("invalid bearer token") from error
        now = self.clock.now()
        if now > claims["exp"]:
            raise InvalidToken("[invalid bearer token, service account token has expired]")
        if now < claims["nbf"] - 1:
            raise InvalidToken("[invalid bearer token, service account token is not valid yet]")
        wanted = audiences or [self.issuer]
        common = [audience for audience in claims["aud"] if audience in wanted]
        if not common:
            raise InvalidToken(
                f"[invalid bearer token, token audiences {quoted_list(claims['aud'])}"
                f" is invalid for the target audiences {quoted_list(wanted)}]"
            )
        self._require_objects(claims["kubernetes.io"])
        return Verified(claims, common)

    def _require_objects(self, claim: dict) -> None:
        namespace, account = claim["namespace"], claim["serviceaccount"]
        found = self.storage.find(SERVICE_ACCOUNT, namespace, account["name"])
        if found is None:
            raise InvalidToken(f'[invalid bearer token, serviceaccounts "{account["name"]}" not found]')
        if found.uid != account["uid"]:
            raise InvalidToken(
                f"[invalid bearer token, service account UID ({found.uid}) does not match claim ({account['uid']})]"
            )
        for key, kind in (("pod", POD), ("secret", SECRET)):
            if bound := claim.get(key):
                found = self.storage.find(kind, namespace, bound["name"])
                if found is None or found.uid != bound["uid"]:
                    raise InvalidToken("[invalid bearer token, service account token has been invalidated]")

    def _bound(self, account: Stored, reference: dict) -> tuple[Stored, Kind]:
        kind = BINDABLE.get(reference.get("kind", ""))
        if kind is None or reference.get("apiVersion", "v1") != "v1":
            group, _, version = reference.get("apiVersion", "").rpartition("/")
            raise bad_request(
                f"cannot bind token to object of type {group}/{version}, Kind={reference.get('kind', '')}"
            )
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

    def _kubernetes_claim(self, account: Stored, kind: Kind | None, bound: Stored | None) -> dict:
        claim: dict = {"namespace": account.namespace}
        if kind is POD and (node := bound.object["spec"].get("nodeName")):
            found = self.storage.find(NODE, "", node)
            claim["node"] = {"name": node} | ({"uid": found.uid} if found else {})
        if bound:
            claim[kind.singular] = {"name": bound.name, "uid": bound.uid}
        claim["serviceaccount"] = {"name": account.name, "uid": account.uid}
        return claim

    def _jti(self, account: Stored) -> str:
        name = f"{account.namespace}/{account.name}"
        return self.identifiers.uuid("jti", f"{name}/{self.identifiers.serial('jti', name)}")


def _invalid(cause: object) -> ApiError:
    return invalid("TokenRequest", "authentication.k8s.io", "", [cause])


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
