"""A network namespace for each participant, joined to this machine by a veth pair, and the rules between them.

From a namespace, only the hub's API and the board can be reached. This machine can reach the participant's server.
https://man7.org/linux/man-pages/man4/veth.4.html
"""

import ipaddress
import json
import socket
import subprocess

from labkit.workshop.seats import Seat
from labkit.workshop.settings import Workshop

INSIDE = "eth0"  # the namespace's end of the pair
HUB_PORT = 8081
BOARD_PORT = 8082  # at the hub's address
PROXY_API_PORT = 8001  # at the hub's address; participants may not reach it
SERVER_PORT = 8888  # in each participant's own namespace


def build(seat: Seat) -> None:
    """Make the participant's namespace; replace what an earlier server left."""
    remove(seat)
    inside = f"-netns {seat.label}"
    _ip(
        f"netns add {seat.label}",
        f"link add {seat.link} type veth peer name {INSIDE} netns {seat.label}",
        f"address add {seat.machine_address}/30 dev {seat.link}",
        f"link set {seat.link} addrgenmode none up",  # IPv4 alone
    )
    subprocess.run(
        ["ip", *inside.split(), "-batch", "-"],
        input=(
            f"link set lo up\naddress add {seat.address}/30 dev {INSIDE}\n"
            f"link set {INSIDE} addrgenmode none up\n"
            f"route add {seat.workshop.hub_address} via {seat.machine_address}\n"
        ),
        text=True,
        check=True,
        capture_output=True,
    )


def remove(seat: Seat) -> None:
    """Remove the namespace and the pair. The namespace itself ends with its last process."""
    # The pair ends with the namespace, perhaps in this moment.
    for command in (["netns", "delete", seat.label], ["link", "delete", seat.link]):
        subprocess.run(["ip", *command], capture_output=True)


def guard(workshop: Workshop) -> None:
    """Give this machine the hub's address, and refuse what participants send elsewhere. Calling it twice is fine."""
    if workshop.hub_address not in _addresses():
        _ip(f"address add {workshop.hub_address}/32 dev lo")
    links, hub = f'"lk{workshop.key}-*"', workshop.hub_address
    # A table that exists is replaced in one transaction, so no moment is without rules.
    rules = f"""
table inet {table(workshop)} {{}}
delete table inet {table(workshop)}
table inet {table(workshop)} {{
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname {links} ct state established,related accept
    iifname {links} ip daddr {hub} tcp dport {{ {HUB_PORT}, {BOARD_PORT} }} accept
    iifname {links} reject
    iifname != "lo" ip daddr {hub} drop
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname {links} drop
    oifname {links} drop
  }}
}}
"""
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, capture_output=True)


def unguard(workshop: Workshop) -> None:
    """Take away the hub's address and the rules."""
    if guarded(workshop):
        subprocess.run(["nft", "delete", "table", "inet", table(workshop)], check=True, capture_output=True)
    if workshop.hub_address in _addresses():
        _ip(f"address delete {workshop.hub_address}/32 dev lo")


def guarded(workshop: Workshop) -> bool:
    """Whether the rules are there."""
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True)
    return f"table inet {table(workshop)}\n" in f"{done.stdout}\n"


def table(workshop: Workshop) -> str:
    """The name of the workshop's table of rules."""
    return f"labkit_{workshop.key}"


def namespaces(workshop: Workshop) -> list[str]:
    """Return the names of the workshop's namespaces."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[0] for line in listed if line.startswith(f"labkit-{workshop.key}-")]


def links(workshop: Workshop) -> list[str]:
    """Return the names of the workshop's interfaces on this machine."""
    shown = subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True).stdout
    return [link["ifname"] for link in json.loads(shown) if link["ifname"].startswith(f"lk{workshop.key}-")]


def processes(namespace: str) -> list[int]:
    """Return the processes in a namespace of this name."""
    done = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True)
    return [int(pid) for pid in done.stdout.split()]


def serves(seat: Seat) -> bool:
    """Whether the participant's server accepts connections."""
    try:
        socket.create_connection((seat.address, SERVER_PORT), 1).close()
    except OSError:
        return False
    return True


def clashes(workshop: Workshop) -> list[str]:
    """Return what else on this machine uses the workshop's addresses: networks of interfaces, or another workshop."""
    shown = subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, text=True, check=True).stdout
    own = f"lk{workshop.key}-"
    routes = [route for route in json.loads(shown) if route["dst"] != "default"]
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    tables = [part for part in rules.split("table inet labkit_")[1:] if f"daddr {workshop.hub_address} " in part]
    others = ["another workshop" for part in tables if not part.startswith(workshop.key)]
    return others + [
        f"{route['dst']} on {route.get('dev', '')}"
        for route in routes
        if not route.get("dev", "").startswith(own) and _overlap(route["dst"], workshop)
    ]


def _overlap(destination: str, workshop: Workshop) -> bool:
    return ipaddress.IPv4Network(destination).overlaps(workshop.network)


def _addresses() -> set[str]:
    shown = json.loads(subprocess.run(["ip", "-json", "address"], capture_output=True, text=True, check=True).stdout)
    return {address["local"] for link in shown for address in link["addr_info"]}


def _ip(*commands: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True, capture_output=True)
