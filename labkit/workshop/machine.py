"""What a workshop needs of this machine, and the command that gets what is missing."""

import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from labkit.workshop import homes, limits, networks, sandbox
from labkit.workshop.seats import Seat
from labkit.workshop.settings import Workshop
from labkit.workshop.spawner import clear

# Each program, and the package of Debian and Ubuntu that has it.
PROGRAMS = {
    "bwrap": "bubblewrap",
    "ip": "iproute2",
    "nft": "nftables",
    "node": "nodejs",
    "npm": "npm",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}
OLDEST_NODE = 20
EACH = 400  # MiB of a participant at work; an opened lab with one kernel needs 290
MIB = 2**20


@dataclass(frozen=True)
class Lack:
    """Something that the workshop needs and doesn't have, and what to do about it."""

    what: str
    next: str


def lacks(workshop: Workshop) -> list[Lack]:
    """Return what is missing on this machine. The list is empty if the workshop can start."""
    if sys.platform != "linux":
        return [Lack("A workshop needs Linux: network namespaces and bubblewrap.", "use a Linux machine")]
    if os.geteuid() != 0:
        return [Lack("A workshop needs root, to make namespaces and homes.", f"sudo {' '.join(sys.argv)}")]
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        packages = " ".join(dict.fromkeys(PROGRAMS[program] for program in missing))
        return [Lack(f"{', '.join(missing)}: not found.", f"apt-get install {packages}")]
    return [*_node(), *_ports(workshop), *_network(workshop), *_uids(workshop), *_memory(workshop)] or [
        *_trial(workshop)
    ]


def weaker() -> list[str]:
    """Return a sentence for each protection that this machine can't give a workshop, which starts all the same."""
    said = []
    if not limits.version():
        said.append("No control groups for memory and processes: a participant's limits hold for each process alone.")
    if not homes.limited():
        said.append("No loop devices: homes have no limit, and one participant can fill the disk.")
    return said


def _node() -> Iterator[Lack]:
    said = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout
    version = re.match(r"v(\d+)", said)
    if not version or int(version[1]) < OLDEST_NODE:
        yield Lack(
            f"The proxy needs Node.js {OLDEST_NODE} or newer; this is {said.strip() or 'none'}.", "https://nodejs.org"
        )


def _ports(workshop: Workshop) -> Iterator[Lack]:
    host, port = workshop.host_and_port()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            user = next(
                (
                    f" Process {one.pid} has it."
                    for one in psutil.net_connections("tcp")
                    if one.pid and one.laddr and one.laddr[1] == port and one.status == psutil.CONN_LISTEN
                ),
                "",
            )
            yield Lack(
                f"The address {workshop.address} can't be had: {error.strerror}.{user}",
                "another address in workshop.yaml",
            )


def _network(workshop: Workshop) -> Iterator[Lack]:
    if clashes := networks.clashes(workshop):
        more = f" and {len(clashes) - 1} more" if clashes[1:] else ""
        yield Lack(
            f"The network {workshop.network} overlaps with {clashes[0]}{more}.",
            "another network in workshop.yaml: network: 10.77.0.0/20",
        )


def _uids(workshop: Workshop) -> Iterator[Lack]:
    own = range(workshop.uids, workshop.uids + workshop.users + 1)
    named = [user.pw_name for user in pwd.getpwall() if user.pw_uid in own]
    if named:
        yield Lack(
            f"{named[0]} of this machine has a uid of the participants.", "another uid in workshop.yaml: uids: 500000"
        )
        return
    ours = {pid for namespace in networks.namespaces(workshop) for pid in networks.processes(namespace)}
    for process in psutil.process_iter(["uids", "status"]):
        ended = process.info["status"] in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        if process.info["uids"] and process.info["uids"].real in own and process.pid not in ours and not ended:
            yield Lack(
                f"Process {process.pid} of this machine has a uid of the participants.",
                f"end it, or write another uid into workshop.yaml: uids: {workshop.uids + 10_000}",
            )
            return


def _memory(workshop: Workshop) -> Iterator[Lack]:
    total = psutil.virtual_memory().total // MIB
    needed = workshop.users * EACH + limits.KEPT
    if total < needed:
        yield Lack(
            f"{workshop.users} users need {needed // 1024 + 1} GiB of memory; this machine has {total // 1024}.",
            f"a larger machine, or users: {max(1, (total - limits.KEPT) // EACH)} in workshop.yaml",
        )


def _trial(workshop: Workshop) -> Iterator[Lack]:
    """Start an interpreter in the sandbox of a seat that nobody has."""
    seat = Seat(workshop, "trial", workshop.users)
    try:
        clear(seat)  # also what an earlier trial left that was killed
        sandbox.write_accounts(seat)
        networks.build(seat)
        seat.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(seat.home, seat.uid, seat.uid)
        program = sandbox.command(seat, ["unshare", "--user", sys.executable, "-P", "-c", "import labkit.cli.main"])
        done = subprocess.run(program, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    except subprocess.CalledProcessError as error:
        said = (error.stderr or b"") if isinstance(error.stderr, bytes) else error.stderr.encode()
        yield Lack(f"A network namespace can't be made: {said.decode().strip()}", "a machine that isn't a container")
        return
    finally:
        clear(seat)
        shutil.rmtree(seat.home, ignore_errors=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no output"]
        yield Lack(
            f"A participant couldn't start Python in the sandbox: {said[0]}",
            f"chmod -R o+rX {sys.prefix}   (and for bubblewrap: sysctl kernel.apparmor_restrict_unprivileged_userns=0)",
        )


def packages() -> list[str]:
    """Return the folders whose bytecode must be there, because participants can't write any."""
    return [sysconfig.get_path("purelib"), str(sandbox.LABKIT)]
