"""Start and end a workshop, say how it is, and delete what it kept."""

import hashlib
import http.client
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from labkit import simulator
from labkit.errors import LabError
from labkit.showing import counted
from labkit.workshop import homes, keeper, limits, machine, networks, seats, words
from labkit.workshop.board import orders
from labkit.workshop.settings import FILE, HUB_FILE, KEY_PRINT, Workshop
from labkit.workshop.spawner import clear

PROXY = Path(__file__).parent / "proxy"
STARTS_WITHIN = 120  # seconds


@dataclass(frozen=True)
class Status:
    """How a workshop is."""

    workshop: Workshop
    answers: bool
    """Whether the hub answers."""
    people: list[str]
    """Everybody who has logged in."""
    at_work: list[str]
    """Who has a server that accepts connections."""
    left: dict[str, int]
    """How many of the workshop's parts are on this machine, by their kind."""
    key: str = ""
    """The fingerprint of the class's key for certificates; empty before the first `up`."""

    def __str__(self) -> str:
        parts = ", ".join(counted(count, kind) for kind, count in self.left.items() if count)
        return "\n".join([
            f"{self.workshop.title}: {f'open at {self.workshop.url}' if self.answers else 'closed'}",
            f"people:     {len(self.people)} of {self.workshop.users}",
            f"at work:    {', '.join(self.at_work) or 'nobody'}",
            f"on this machine: {parts or 'nothing'}",
            f"files:      {self.workshop.state}",
            *([f"key of certificates: {self.key}"] if self.key else []),
        ])  # fmt: skip


def up(workshop: Workshop) -> str:
    """Start the workshop. If it runs, start its hub and proxy again with workshop.yaml as it is now; labs go on.

    Return the fingerprint of the certificate; empty without TLS. Raises `LabError` that says what is missing,
    or which other workshop has its files in the same folder.
    """
    if not (workshop.folder / HUB_FILE).exists():
        raise LabError(f"{workshop.folder} has no {HUB_FILE}.", next="labkit workshop init FOLDER, for an example")
    if os.geteuid() == 0:
        _end_own(workshop)
    if missing := machine.lacks(workshop):
        raise LabError(
            "\n".join(lack.what for lack in missing),
            where=str(workshop.folder / FILE),
            next="\n       ".join(lack.next for lack in missing),
        )
    workshop.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in ("homes", "images", "accounts", "logs"):
        (workshop.state / folder).mkdir(mode=0o700, exist_ok=True)
    words.cards(workshop)
    _write_tokens(workshop)
    with ThreadPoolExecutor(2) as side_by_side:
        installed = side_by_side.submit(_install_proxy, workshop)
        side_by_side.submit(_compile, workshop).result()
        installed.result()
    fingerprint = _certify(workshop)
    networks.guard(workshop)
    _start_keeper(workshop)
    return fingerprint


def weaker() -> list[str]:
    """Return a sentence for each protection that this machine can't give."""
    return machine.weaker()


def urls(workshop: Workshop) -> list[str]:
    """Return the addresses that browsers can use: for 0.0.0.0, one for each address of this machine's own networks."""
    host, port = workshop.host_and_port()
    if host != "0.0.0.0":  # noqa: S104
        return [workshop.url]
    links = {name: each for name, each in psutil.net_if_addrs().items() if not name.startswith(("lo", "lk"))}
    own = [each.address for addresses in links.values() for each in addresses if each.family == socket.AF_INET]
    return [f"https://{address}:{port}/" for address in own] or [workshop.url]


def down(workshop: Workshop) -> dict[str, int]:
    """End everything that the workshop runs. Homes stay. Return what is left all the same, by kind.

    Raises `LabError` if another workshop runs that has its files in the same folder.
    """
    _end_own(workshop)
    orders.file(workshop).unlink(missing_ok=True)
    everybody = [*seats.taken(workshop).values(), seats.Seat(workshop, "trial", workshop.users)]
    with ThreadPoolExecutor(8) as side_by_side:
        list(side_by_side.map(clear, everybody))
    limits.remove(workshop)
    networks.unguard(workshop)
    return {kind: count for kind, count in _parts(workshop).items() if count}


def status(workshop: Workshop) -> Status:
    """Return how the workshop is."""
    taken = seats.taken(workshop)
    namespaces = networks.namespaces(workshop)
    at_work = [name for name, seat in taken.items() if seat.label in namespaces and networks.serves(seat)]
    key = file.read_text() if (file := workshop.state / KEY_PRINT).is_file() else ""
    return Status(workshop, _answers(workshop), sorted(taken), sorted(at_work), _parts(workshop), key)


def forget(workshop: Workshop) -> None:
    """Delete all that the workshop kept: homes, words, names and the hub's database.

    Raises `LabError` while the workshop runs.
    """
    if any(_parts(workshop).values()):
        raise LabError("The workshop still runs.", next=f"labkit workshop down {workshop.folder}")
    if workshop.state.exists():
        shutil.rmtree(workshop.state)


def _end_own(workshop: Workshop) -> None:
    """End the keeper and what it started, also orphans.

    Raises `LabError` if the keeper is that of another folder, whose class may be at work.
    """
    own = own_processes(workshop)
    for process in own:
        with suppress(psutil.NoSuchProcess):
            command = process.cmdline()
            if "labkit.workshop.keeper" in command and command[-1] != str(workshop.folder):
                raise LabError(
                    f"The workshop of {command[-1]} runs, and has its files in {workshop.state}, too.",
                    where=str(workshop.folder / FILE),
                    next=f"another state in workshop.yaml, or first: labkit workshop down {command[-1]}",
                )
    # The keeper first: it would start the others again.
    for process in sorted(own, key=lambda process: "labkit.workshop.keeper" not in process.cmdline()):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
            if "labkit.workshop.keeper" in process.cmdline():
                process.wait(25)
    _, alive = psutil.wait_procs(own, 10)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, 5)
    keeper.processes_file(workshop).unlink(missing_ok=True)


def own_processes(workshop: Workshop) -> list[psutil.Process]:
    """Return the keeper and what it started, also orphans."""
    file = keeper.processes_file(workshop)
    own = []
    for number in file.read_text().split() if file.exists() else []:
        # Numbers of processes are used again, so compare where the process logs.
        with suppress(psutil.NoSuchProcess, OSError):
            if Path(f"/proc/{number}/fd/1").readlink().parent == workshop.state:
                own.append(psutil.Process(int(number)))
    return own


def _parts(workshop: Workshop) -> dict[str, int]:
    namespaces = networks.namespaces(workshop)
    inside = {pid for namespace in namespaces for pid in networks.processes(namespace)}
    return {
        "program": len(inside | set(limits.processes(workshop)) | {process.pid for process in own_processes(workshop)}),
        "namespace": len(namespaces),
        "interface": len(networks.links(workshop)),
        "nft table": int(networks.guarded(workshop)),
        "control group": limits.count(workshop),
        "mounted home": homes.attached(workshop),
    }


def _start_keeper(workshop: Workshop) -> None:
    hub_log = workshop.state / "hub.log"
    begin = hub_log.stat().st_size if hub_log.exists() else 0
    with (workshop.state / "keeper.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "labkit.workshop.keeper", str(workshop.folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with keeper.processes_file(workshop).open("a") as file:
        file.write(f"{process.pid}\n")
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        if _answers(workshop):
            return
        said = hub_log.read_bytes()[begin:].decode(errors="replace") if hub_log.exists() else ""
        if said.count("Traceback (most recent call last)") > 2:
            break
        time.sleep(0.2)
    last = hub_log.read_text(errors="replace").strip().splitlines()[-1:] if hub_log.exists() else []
    _end_own(workshop)
    raise LabError(f"The hub doesn't start: {' '.join(last)}", where=str(hub_log), next="correct what the log says")


def _answers(workshop: Workshop) -> bool:
    address = urlsplit(workshop.url)
    host, port = str(address.hostname), address.port
    # This machine's own listener: who it is was decided when the port was bound.
    context = ssl._create_unverified_context()  # noqa: S323
    connection = (
        http.client.HTTPSConnection(host, port, timeout=2, context=context)
        if address.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=2)
    )
    try:
        connection.request("GET", "/hub/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _write_tokens(workshop: Workshop) -> None:
    for name in ("proxy-token", "hub-token", "board-token"):
        file = workshop.state / name
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex(32))


def _install_proxy(workshop: Workshop) -> None:
    """Install the proxy that package-lock.json pins with its hash, unless it's there."""
    folder = workshop.state / "proxy"
    lock = (PROXY / "package-lock.json").read_bytes()
    done = folder / "installed"
    if done.exists() and done.read_text() == hashlib.sha256(lock).hexdigest():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("package.json", "package-lock.json"):
        (folder / name).write_bytes((PROXY / name).read_bytes())
    installed = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder, capture_output=True, text=True
    )
    if installed.returncode:
        said = [line for line in installed.stderr.splitlines() if "code" not in line and "npm error" in line]
        raise LabError(
            f"npm couldn't install the proxy: {(said or ['no output'])[0].removeprefix('npm error').strip()}",
            where=str(folder),
            next=f"connect to a network once, then: labkit workshop up {workshop.folder}",
        )
    done.write_text(hashlib.sha256(lock).hexdigest())


def _compile(workshop: Workshop) -> None:
    """Write bytecode. Participants can't, and without it each server would compile all that it imports."""
    packages = machine.packages()
    newest = str(max(Path(folder).stat().st_mtime for folder in packages))
    done = workshop.state / "compiled"
    if done.exists() and done.read_text() == newest:
        return
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-j", "0", *packages], capture_output=True)
    done.write_text(newest)


def _certify(workshop: Workshop) -> str:
    """Make a certificate if the workshop needs one. Return its SHA-256 fingerprint, as browsers show it."""
    files = keeper.certificate(workshop)
    if files is None:
        return ""
    certificate, key = files
    if not certificate.exists() and workshop.tls is None:
        addresses = {
            each.address for all_ in psutil.net_if_addrs().values() for each in all_ if each.family == socket.AF_INET
        }
        authority = simulator.Authority.create(f"labkit workshop {workshop.key}")
        issued = authority.issue(socket.gethostname(), dns=["localhost", socket.gethostname()], ips=sorted(addresses))
        key.touch(mode=0o600)
        key.write_bytes(issued.key_pem)
        certificate.write_bytes(issued.certificate_pem)
        (workshop.state / "ca.crt").write_bytes(authority.certificate_pem)
    try:
        der = ssl.PEM_cert_to_DER_cert(
            certificate.read_text().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
        )
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise LabError(
            f"The certificate can't be used: {error}", where=str(certificate), next=f"correct tls in {FILE}"
        ) from None
    digest = hashlib.sha256(der).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
