"""A cluster's issuer: its published documents, its certificate, and the keys that the cluster itself publishes."""

import json
from functools import partial
from typing import Any, TypedDict
from urllib.parse import urlsplit

from labkit.connection import Connection, served_chain, thumbprint
from labkit.doctor.evidence.reading import NotRead, Read, Reads
from labkit.errors import LabError

DISCOVERY = "/.well-known/openid-configuration"
# The path at which an API server publishes the keys that verify its tokens.
# https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
CLUSTER_KEYS = "/openid/v1/jwks"


class IssuerDocument(TypedDict, total=False):
    """Either `document`, the parsed JSON from an issuer's host, or `error`, the reason why the document is missing."""

    document: object
    error: str


class Issuer:
    """One cluster's issuer: the documents on its host, which STS reads, and the keys that the API server publishes."""

    def __init__(self, connection: Connection, reads: Reads):
        self._connection = connection
        self._reads = reads

    @property
    def url(self) -> str:
        """The issuer's URL, as the cluster's tokens name it."""
        return self._connection.issuer

    @property
    def is_of_eks(self) -> bool:
        """Whether EKS hosts the issuer. If it does, AWS doesn't compare the thumbprint."""
        return (urlsplit(self.url).hostname or "").startswith("oidc.eks.")

    @property
    def discovery(self) -> IssuerDocument:
        """The discovery document.

        Raises `NotRead` if EKS hosts the issuer and the doctor can't reach the host.

        https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfigurationRequest
        """
        return self._got("its discovery document", self.url + DISCOVERY)

    @property
    def keys(self) -> IssuerDocument:
        """The published keys, from the URL in the discovery document.

        Raises `NotRead` if EKS hosts the issuer and the doctor can't reach the host.
        """
        document = self.discovery.get("document")
        location = document.get("jwks_uri") if isinstance(document, dict) else None
        if not isinstance(location, str) or not location.startswith("https://"):
            return {"error": f"the discovery document's jwks_uri is not an https URL: {location!r}"}
        return self._got("its keys", location)

    @property
    def keys_path(self) -> str:
        """The path of the published keys, without the issuer's URL before it.

        The path comes from the discovery document. If no path is found there, it's Kubernetes' default.
        https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
        """
        document = self.discovery.get("document")
        location = document.get("jwks_uri") if isinstance(document, dict) else None
        below = str(location).partition(f"{self.url}/")[2]
        return f"/{below}" if below else CLUSTER_KEYS

    @property
    def key_ids(self) -> list[str]:
        """The ids of the published keys. Raises `NotRead` if the keys can't be read."""
        keys = self.keys
        if "error" in keys:
            raise NotRead(_read("its keys", f"{self.url}: its keys"), keys["error"])
        return _ids(keys["document"])

    @property
    def cluster_key_ids(self) -> list[str]:
        """The ids of the keys that the cluster's own API server publishes. Raises `NotRead`."""
        return _ids(self._reads.once(Read("get --raw", CLUSTER_KEYS), self._cluster_keys))

    @property
    def thumbprint(self) -> str:
        """The SHA-1 thumbprint (40 hex digits) of the top certificate that the host serves. Raises `NotRead`.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_create_oidc_verify-thumbprint.html
        """
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port or 443
        read = _read("its certificate", f"tls://{host}:{port}")
        serve = self._connection.served_chain or partial(served_chain, port=port)

        def look() -> str:
            try:
                return thumbprint(serve(host)[-1])
            except (OSError, ValueError, KeyError) as error:
                raise NotRead(read, f"could not fetch the certificate: {error}", str(read), no_answer=True) from None

        return self._reads.once(read, look)

    def _got(self, kind: str, url: str) -> IssuerDocument:
        read = _read(kind, url)
        return self._reads.once(read, lambda: self._get(read))

    def _get(self, read: Read) -> IssuerDocument:
        import httpx

        from labkit.targets import eks

        fetch = self._connection.fetch or eks.fetch
        try:
            return {"document": fetch(read.name)}
        except LabError as error:
            # A transport error means that the host didn't answer. After any other error, it did.
            lost = isinstance(error.__context__, httpx.TransportError)
            if lost and self.is_of_eks:
                raise NotRead(read, error.what, read.name, no_answer=True) from None
            return {"error": error.what}

    def _cluster_keys(self) -> Any:
        from kubernetes.client import OpenidApi

        # Read the raw answer: the client would turn the JSON into Python's notation.
        answer: Any = OpenidApi(self._connection.kubernetes).get_service_account_issuer_open_id_keyset(
            _preload_content=False
        )
        return json.loads(answer.data)


def _read(kind: str, url: str) -> Read:
    return Read(kind, url, of="a host")


def _ids(keys: Any) -> list[str]:
    listed = keys.get("keys") if isinstance(keys, dict) else None
    return [str(key.get("kid")) for key in listed if isinstance(key, dict)] if isinstance(listed, list) else []
