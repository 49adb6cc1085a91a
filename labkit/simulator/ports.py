"""The lab's ports. Each port is chosen once, and kept in the lab's folder."""

import socket

from labkit.simulator.folder import Folder
from labkit.simulator.listener import bind


class Ports:
    """The lab's ports, by name. If a port is in use, another port replaces it, and ``notes`` says so."""

    def __init__(self, folder: Folder):
        self.folder = folder
        # A damaged entry is ignored, so its port is chosen again.
        kept = folder.read_json("ports.json").items()
        self.ports: dict[str, int] = {name: port for name, port in kept if type(port) is int and 0 < port < 65536}
        self.notes: list[str] = []

    def bind(self, name: str, address: str = "127.0.0.1") -> socket.socket:
        """Return a socket bound to the port with this name. Raises OSError if this machine doesn't have ``address``."""
        wanted = self.ports.get(name, 0)
        try:
            bound = bind(wanted, address)
        except OSError:
            bound = bind(0, address)
            self.notes.append(f"Port {wanted} was in use: the lab's {name} now listens on {bound.getsockname()[1]}.")
        if (port := bound.getsockname()[1]) != wanted:
            self.ports[name] = port
            self.folder.write_json("ports.json", self.ports)
        return bound
