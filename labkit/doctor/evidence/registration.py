"""Test whether the API server can reach the pod identity webhook.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#contacting-the-webhook
"""

import base64
import binascii
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from labkit.doctor.evidence.cluster_api import ClusterApi
from labkit.doctor.evidence.objects import ClientConfig, ServiceReference
from labkit.doctor.evidence.reading import NotRead, Read, Reads

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

WITHIN = 5  # seconds to wait for an answer


@dataclass(eq=False)
class Registration:
    """Tests of the webhook's `clientConfig`. A `clientConfig` has a URL or a service, and a CA bundle."""

    api: "ApiClient | None"
    cluster: ClusterApi
    reads: Reads

    def fault(self, client: ClientConfig) -> str:
        """Return a fault in `client`, such as an expired certificate; empty if `client` has no fault."""
        if not client.get("url") and not client.get("service"):
            return "neither a URL nor a service"
        bundle = client.get("caBundle") or ""
        if not bundle:
            return "caBundle: empty"
        certificates = _certificates(bundle)
        if not certificates:
            return "caBundle: no certificate"
        if all(certificate.not_valid_after_utc < datetime.now(UTC) for certificate in certificates):
            return f"caBundle: expired on {certificates[0].not_valid_after_utc:%Y-%m-%d}"
        return ""

    def silence(self, client: ClientConfig) -> str:
        """Return why the API server can't call the webhook, such as an untrusted certificate; empty if unknown."""
        if service := client.get("service"):
            return self._service_silence(service)
        url = client["url"]
        # The API server connects to this URL, not the doctor. The doctor can test it only if both are on this machine.
        if not self._is_here or not _is_loopback(urlsplit(url).hostname or ""):
            return ""
        try:
            read = Read("its webhook", f"get {url.partition('?')[0]}", of="a host")
            said = self.reads.once(read, lambda: _handshake(url, client["caBundle"]))
        except NotRead:
            return ""
        return f"{url}: {said}" if said else ""

    @property
    def _is_here(self) -> bool:
        host = self.api.configuration.host if self.api else ""
        return self.api is None or _is_loopback(urlsplit(host).hostname or "")

    def _service_silence(self, service: ServiceReference) -> str:
        namespace, name = service.get("namespace", ""), service.get("name", "")
        try:
            if self.cluster.get("service", name, namespace) is None:
                return f"no service {name} in namespace {namespace}"
            endpoints = self.cluster.get("endpoints", name, namespace) or {}
        except NotRead:
            return ""
        ready = any(subset.get("addresses") for subset in endpoints.get("subsets") or [])
        return "" if ready else f"the service {namespace}/{name} has no ready endpoint"


def _certificates(bundle: str) -> list[Any]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(base64.b64decode(bundle))
    except (binascii.Error, ValueError):
        return []


def _handshake(url: str, bundle: str) -> str:
    """Return why the TLS handshake fails; empty if the handshake succeeds."""
    parts = urlsplit(url)
    context = ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
    try:
        with (
            socket.create_connection((parts.hostname, parts.port or 443), timeout=WITHIN) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except OSError as error:
        return error.strerror or "no answer"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
