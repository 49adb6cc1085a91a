"""A stand-in for the internet between the target eks and the simulator.

It is a proxy that connects an issuer's name to the lab's own listener, as DNS would, and refuses every other name.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import StreamRequestHandler, ThreadingTCPServer


class _Connect(StreamRequestHandler):
    def handle(self) -> None:
        request = self.rfile.readline().decode("latin-1").split()
        while self.rfile.readline().strip():
            pass
        host = request[1].partition(":")[0] if len(request) > 1 else ""
        self.server.requested.append(host)
        if request[:1] != ["CONNECT"] or host not in self.server.hosts:
            self.wfile.write(b"HTTP/1.1 502 Not in this internet\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", self.server.hosts[host])) as upstream:
            self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            back = threading.Thread(target=_copy, args=(upstream, self.connection))
            back.start()
            _copy(self.connection, upstream)
            back.join()


class Internet(ThreadingTCPServer):
    """The proxy. `hosts` maps each known name to its port on loopback; `asked` lists the requested names."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, hosts: dict[str, int]):
        super().__init__(("127.0.0.1", 0), _Connect)
        self.hosts = hosts
        self.requested: list[str] = []

    @property
    def url(self) -> str:
        """The value for HTTPS_PROXY."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def internet(hosts: dict[str, int]) -> Iterator[Internet]:
    """Run the proxy until the block ends."""
    with Internet(hosts) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side has gone
