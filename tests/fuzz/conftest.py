"""The number of cases, an app's listener, and raw requests."""

import contextlib
import http.client
import os
from collections.abc import Callable, Iterator

from hypothesis import HealthCheck, settings

from labkit.simulator.listener import Listener, bind
from tests.simulator.aws.conftest import running
from tests.simulator.kubernetes.conftest import Loop, admin, cluster, signing_key

__all__ = ["admin", "cases", "cluster", "running", "signing_key"]


def cases(few: int) -> settings:
    """With LABKIT_EXAMPLES (`make fuzz`), that many cases, new ones each time. Without it, the same few each time."""
    asked = int(os.environ.get("LABKIT_EXAMPLES") or 0)
    return settings(
        max_examples=asked or few,
        deadline=None,
        derandomize=not asked,
        print_blob=True,
        suppress_health_check=[*HealthCheck],
    )


@contextlib.contextmanager
def served(app: Callable) -> Iterator[int]:
    """Serve the app without TLS; give its port."""
    loop, listener = Loop(), Listener(app, port_socket=bind(0))
    loop.run(listener.start())
    yield listener.port
    loop.run(listener.stop())
    loop.close()


def sent(port: int, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> tuple[int, bytes]:
    """Send a request exactly as given, with no client that corrects it. Return the status and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection._validate_method = connection._validate_path = lambda _: None
    with contextlib.closing(connection):
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value.encode("utf-8", "surrogatepass"))
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()
