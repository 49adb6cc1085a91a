"""The webhook as its own process, with its own certificate, for an API server that isn't the lab's."""

import asyncio
import contextlib
import datetime
import ipaddress
import os
import re
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from labkit.errors import LabError
from labkit.webhook.accounts import ASKING, ServiceAccounts
from labkit.webhook.server import NAME, WebhookServer, cluster_role, mutating_webhook_configuration

VALIDITY = datetime.timedelta(days=365)
RENEWED_BEFORE = datetime.timedelta(days=30)  # a new certificate is made this long before the old one expires


@dataclass(frozen=True)
class Address:
    """The address that the webhook listens on, and the host name or address by which the API server reaches it."""

    listen: str
    port: int
    host: str

    @classmethod
    def of(cls, listen: str, host: str = "") -> "Address":
        """Parse `listen`: an address and port such as `127.0.0.1:8443` or `[::1]:8443`.

        The API server calls the webhook at `host`, by default the address in `listen`. Raises LabError if `listen` or
        `host` is invalid.
        """
        match = re.fullmatch(r"\[([0-9a-fA-F:.]+)\]:(\d{1,5})|([^:\s]+):(\d{1,5})", listen)
        if not match or int(match[2] or match[4]) > 65535:
            raise LabError(f"{listen!r} is not HOST:PORT, with a port up to 65535.", next="--listen 127.0.0.1:8443")
        at = match[1] or match[3]
        host = host or at
        address = _address(host)
        if address and address.is_unspecified:
            raise LabError(
                f"{host} is not an address that an API server can call.",
                next=f"--listen {listen} --host NAME, the name or address by which the API server reaches this machine",
            )
        if not address and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", host):
            raise LabError(f"{host!r} is not a host name or address.", next="--host webhook.example.com")
        return cls(at, int(match[2] or match[4]), host)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}/mutate"

    @property
    def socket(self) -> str:
        return f"[{self.listen}]:{self.port}" if ":" in self.listen else f"{self.listen}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        address = _address(self.listen)
        return address.is_loopback if address else self.listen == "localhost"


@dataclass(frozen=True)
class ServingCertificate:
    """The files of the webhook's certificate and its key. The certificate is also the CA bundle."""

    certificate: Path
    key: Path

    @classmethod
    def of(cls, address: Address, folder: Path, given: Path | None, key: Path | None) -> "ServingCertificate":
        """Return the user's certificate file `given` and its `key`. Without them, return the files in `folder`.

        Raises LabError if the files can't be used.
        """
        if given and key:
            made = cls(given, key)
            made.context()
            return made
        if given or key:
            raise LabError(
                "--certificate needs --key, and --key needs --certificate.", next="--certificate FILE --key FILE"
            )
        try:
            return cls(*stored_certificate(folder, address.host))
        except OSError as error:
            raise LabError(
                f"The webhook's certificate cannot be stored: {error.strerror}", where=str(folder)
            ) from error

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Without a password function, OpenSSL would ask in the terminal for an encrypted key's password.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", "") or getattr(error, "strerror", "") or error
            raise LabError(
                f"The certificate and key cannot be used: {reason}",
                where=f"{self.certificate}, {self.key}",
                next="name two PEM files: the certificate with its chain, and its key without a password",
            ) from error
        return context


def stored_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """Return the certificate and key files in `folder` for this host name or address.

    Make them if they are missing, or if the certificate expires within 30 days. The certificate is its own CA bundle.
    Only the owner can read the key. Raises OSError if the folder can't be used.
    """
    certificate, key = folder / f"{host.replace(':', '_')}.pem", folder / f"{host.replace(':', '_')}.key"
    if not (key.exists() and _lasts(certificate)):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        certificate_pem, key_pem = _new_certificate(host)
        _write(key, key_pem)
        _write(certificate, certificate_pem)
    return certificate, key


def _lasts(file: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, ValueError):
        ends = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
        return ends - datetime.datetime.now(datetime.UTC) > RENEWED_BEFORE
    return False


def _new_certificate(host: str) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pod-identity-webhook")])
    now = datetime.datetime.now(datetime.UTC)
    alternative: x509.GeneralName
    try:
        alternative = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(file: Path, content: bytes) -> None:
    """Write a file in full or not at all, readable only by its owner."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(content)
    draft.replace(file)


def manifest(address: Address, identity: ServingCertificate) -> str:
    """Return YAML for `kubectl apply`: the webhook's permissions, and its registration."""
    pem = identity.certificate.read_bytes()
    return yaml.safe_dump_all([cluster_role(), mutating_webhook_configuration(address.url, pem)], sort_keys=False)


def bind(address: Address) -> socket.socket:
    """Return a TCP socket bound to the address. Raises LabError if that fails, such as for an address in use."""
    try:
        family, *_, where = socket.getaddrinfo(address.listen, address.port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise LabError(f"The webhook cannot listen on {address.listen}: {error.strerror or error}") from error
    try:
        return bound(family, where)
    except OSError as error:
        raise LabError(
            f"The webhook cannot listen on port {address.port} of {address.listen}: {error.strerror}",
            next="labkit webhook serve --listen 127.0.0.1:8444, or another port that is free",
        ) from error


def bound(family: socket.AddressFamily, where: tuple[object, ...]) -> socket.socket:
    """Return a TCP socket bound to an address. Raises OSError."""
    # asyncio sends small answers at once (TCP_NODELAY) only if the socket names its protocol.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
    except OSError:
        made.close()
        raise
    return made


async def serve(
    app: WebhookServer,
    client: httpx.AsyncClient,
    at: socket.socket,
    identity: ServingCertificate,
    ready: Callable[[], None],
) -> None:
    """Serve `app` on the socket `at` until SIGTERM or SIGINT. Call `ready` as soon as the server answers.

    At the end, close `client`, the client that `app.accounts` uses. Raises LabError if the service accounts can't be
    read.
    """
    config = uvicorn.Config(
        app,
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(ASKING) + 1,
    )
    config.load()
    config.ssl = identity.context()
    server = _WebhookServing(config, ready)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.end)
    async with client:
        try:
            await _started(app.accounts, str(client.base_url))
            await server.serve(sockets=[at])
        finally:
            await app.accounts.stop()


async def _started(accounts: ServiceAccounts, api: str) -> None:
    try:
        await accounts.start()
    except httpx.HTTPStatusError as error:
        raise _refused(error.response, api) from error
    except httpx.HTTPError as error:
        raise LabError(
            f"The API server does not answer: {error or type(error).__name__}", where=api, next="kubectl cluster-info"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise LabError("This server is not a Kubernetes API server.", where=api, next="kubectl cluster-info") from error


def _refused(response: httpx.Response, api: str) -> LabError:
    try:
        message = response.json()["message"]
    except (ValueError, KeyError, TypeError):
        message = f"the API server answers {response.status_code} {response.reason_phrase}"
    if response.status_code == 401:
        return LabError("The API server does not accept these credentials.", where=api, next="kubectl auth whoami")
    if response.status_code != 403:
        return LabError(message, where=api)
    user = re.search(r'User "([^"]+)"', message)
    return LabError(
        f"The webhook isn't allowed to read service accounts: {message}",
        where=api,
        next="as an administrator: labkit webhook manifest | kubectl apply -f -   and then\n"
        f"       kubectl create clusterrolebinding {NAME} --clusterrole={NAME} --user={user[1] if user else 'USER'}",
    )


class EmbeddedServer(uvicorn.Server):
    """A uvicorn server that doesn't handle signals, and that calls `ready` when it's up."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


class _WebhookServing(EmbeddedServer):
    def end(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Closing a TLS connection waits for the other side's answer. An idle client never answers, so abort its
        # connection.
        for connection in list(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)
            if cycle is None or cycle.response_complete:
                connection.transport.abort()
        await super().shutdown(sockets)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(text)
    return None
