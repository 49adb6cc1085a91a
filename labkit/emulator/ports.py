"""The lab's ports: chosen once, and kept in its folder."""

import socket

from labkit.emulator.folder import Folder
from labkit.emulator.listener import bind


class Ports:
    """The lab's ports. If one is in use, it's replaced, and a note says so."""

    def __init__(self, folder: Folder):
        self.folder = folder
        # What a disk or a hand has damaged is replaced.
        kept = folder.read_json("ports.json").items()
        self.ports: dict[str, int] = {name: port for name, port in kept if type(port) is int and 0 < port < 65536}
        self.notes: list[str] = []

    def bind(self, name: str, address: str = "127.0.0.1") -> socket.socket:
        """Return a socket on the port of ``name``. Raises OSError if the address isn't one of this machine."""
        wanted = self.ports.get(name, 0)
        try:
            bound = bind(wanted, address)
        except OSError:
            bound = bind(0, address)
            self.notes.append(f"Port {wanted} was in use: the lab's {name} listens on {bound.getsockname()[1]} now.")
        if (port := bound.getsockname()[1]) != wanted:
            self.ports[name] = port
            self.folder.write_json("ports.json", self.ports)
        return bound
