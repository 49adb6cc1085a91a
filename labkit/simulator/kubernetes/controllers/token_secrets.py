"""Secrets of the type ``kubernetes.io/service-account-token``, into which the token controller writes a token.

https://kubernetes.io/docs/concepts/configuration/secret/#serviceaccount-token-secrets
"""

import base64
from functools import partial

from labkit.simulator.kubernetes.access.tokens import Tokens
from labkit.simulator.kubernetes.objects.kinds import SECRET, SERVICE_ACCOUNT, Object
from labkit.simulator.kubernetes.objects.storage import OF_TOKENS, Change, Later, Storage, Stored

NAME, UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"


class TokenSecrets:
    """Write tokens into token Secrets. When a service account is deleted, delete its token Secrets."""

    def __init__(self, storage: Storage, tokens: Tokens, certificate_pem: bytes, later: Later):
        self.storage, self.tokens, self.later = storage, tokens, later
        self._certificate = certificate_pem
        storage.observers.append(self._observe)

    def _observe(self, change: Change) -> None:
        stored = change.stored
        if change.kind is SECRET and change.type != "DELETED" and stored.object.get("type") == OF_TOKENS:
            self.later(partial(self._tend, stored.namespace, stored.name))
        elif change.kind is SERVICE_ACCOUNT and change.type == "DELETED":
            for secret in self.storage.list(SECRET, stored.namespace):
                if _annotations(secret).get(NAME) == stored.name and secret.object.get("type") == OF_TOKENS:
                    self.later(partial(self._tend, stored.namespace, secret.name))

    def _tend(self, namespace: str, name: str) -> None:
        """Write a token into the Secret, or delete the Secret if its service account is missing."""
        secret = self.storage.find(SECRET, namespace, name)
        if secret is None:
            return
        annotations = _annotations(secret)
        account = self.storage.find(SERVICE_ACCOUNT, namespace, annotations.get(NAME, ""))
        if account is None or annotations.get(UID, account.uid) != account.uid:
            self.storage.remove(SECRET, secret)
            return
        data = secret.object.get("data") or {}
        filled = {
            "ca.crt": _base64(self._certificate),
            "namespace": _base64(namespace.encode()),
            "token": data.get("token") or _base64(self.tokens.legacy(account, secret).encode()),
        }
        metadata = {**secret.metadata, "annotations": annotations | {UID: account.uid}}
        changed = {**secret.object, "metadata": metadata, "data": data | filled}
        if changed != secret.object:
            self.storage.replace(SECRET, secret, changed, secret.managers)


def _annotations(secret: Stored) -> Object:
    return secret.metadata.get("annotations") or {}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
