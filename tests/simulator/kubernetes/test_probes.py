"""Probes decide whether a container has started, is ready or must be restarted."""

from collections.abc import Iterator

import pytest

from labkit.simulator.listener import bind
from tests.simulator.kubernetes.node_lab import SLEEP, Host, ended, shell, short_folder, started, until

READY = {"exec": {"command": ["cat", "/run/share/ready"]}, "periodSeconds": 1}
SHARE = {"volumeMounts": [{"name": "share", "mountPath": "/run/share"}]}
SHARED = [{"name": "share", "emptyDir": {}}]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    host = started(short_folder("probes"))
    yield host
    ended(host)


def create(host: Host, name: str, script: str = SLEEP, **more) -> None:
    container = shell(script, **SHARE, **more)
    host.create(name, container, volumes=SHARED, restartPolicy="Always", terminationGracePeriodSeconds=1)
    host.running(name)


def status(host: Host, name: str):
    return next(each for each in host.read(name).status.container_statuses if each.name == "app")


def test_readiness_follows_the_probe(host):
    create(host, "ready", readinessProbe={**READY, "failureThreshold": 1})
    said = "Readiness probe failed: cat: /run/share/ready: No such file or directory\n"
    until(lambda: ("Unhealthy", said) in host.events("ready"))
    found = status(host, "ready")
    assert (found.started, found.ready) == (True, False)
    [condition] = [found for found in host.read("ready").status.conditions if found.type == "Ready"]
    assert (condition.status, condition.reason) == ("False", "ContainersNotReady")
    file = host.pod_folder("ready") / "volumes/share/ready"
    file.touch()
    until(lambda: status(host, "ready").ready)
    file.unlink()
    until(lambda: not status(host, "ready").ready)
    assert status(host, "ready").restart_count == 0


def test_a_container_that_fails_its_liveness_probe_is_restarted(host):
    create(
        host,
        "alive",
        "trap exit TERM; touch /run/share/ready; sleep 600 & wait",
        livenessProbe={**READY, "failureThreshold": 2},
    )
    file = host.pod_folder("alive") / "volumes/share/ready"
    until(file.exists)
    file.unlink()
    until(lambda: status(host, "alive").restart_count == 1)
    until(lambda: ("Killing", "Container app failed liveness probe, will be restarted") in host.events("alive"))
    assert status(host, "alive").last_state.terminated.exit_code == 143


def test_the_liveness_probe_waits_until_the_startup_probe_succeeds(host):
    dead = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    create(host, "slow", startupProbe={**READY, "failureThreshold": 60}, livenessProbe=dead)
    until(lambda: [m for r, m in host.events("slow") if r == "Unhealthy" and m.startswith("Startup probe failed: cat")])
    found = status(host, "slow")
    assert (found.started, found.ready, found.restart_count) == (False, False, 0)
    (host.pod_folder("slow") / "volumes/share/ready").touch()
    until(lambda: ("Killing", "Container app failed liveness probe, will be restarted") in host.events("slow"))


def test_a_container_that_fails_its_startup_probe_is_restarted(host):
    create(host, "never", startupProbe={**READY, "failureThreshold": 1})
    until(lambda: ("Killing", "Container app failed startup probe, will be restarted") in host.events("never"))
    until(lambda: status(host, "never").restart_count)


SERVER = """
import http.server, socketserver, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({"/good": 200, "/moved": 302, "/bad": 503}[self.path])
        if self.path == "/moved":
            self.send_header("Location", "/bad" if self.headers["X-Bad"] else "/good")
        self.end_headers()
    def log_message(self, *_): pass
socketserver.TCPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
"""


@pytest.mark.parametrize(("name", "probe", "says"), [
    ("good", {"httpGet": {"path": "/good"}}, ""),
    ("moved", {"httpGet": {"path": "/moved"}}, ""),
    ("header", {"httpGet": {"path": "/moved", "httpHeaders": [{"name": "X-Bad", "value": "1"}]}},
     "Readiness probe failed: HTTP probe failed with statuscode: 503"),
    ("bad", {"httpGet": {"path": "bad"}}, "Readiness probe failed: HTTP probe failed with statuscode: 503"),
    ("tcp", {"tcpSocket": {}}, ""),
    ("named", {"tcpSocket": {"port": "web"}}, ""),
    ("unnamed", {"httpGet": {"port": "http"}},
     'Readiness probe errored and resulted in unknown state: strconv.Atoi: parsing "http": invalid syntax'),
    ("closed", {"httpGet": {"path": "/x", "port": 1}},
     'Readiness probe failed: Get "http://127.0.0.1:1/x": dial tcp 127.0.0.1:1: connect: connection refused'),
    ("refused", {"tcpSocket": {"port": 1}},
     "Readiness probe failed: dial tcp 127.0.0.1:1: connect: connection refused"),
    ("slow", {"exec": {"command": ["sleep", "600"]}},
     'Readiness probe errored and resulted in unknown state: command timed out: "sleep 600" timed out after 1s'),
    ("missing", {"exec": {"command": ["nonesuch"]}},
     "Readiness probe errored and resulted in unknown state: rpc error: code = Unknown desc = failed to exec in "
     'container: exec: "nonesuch": executable file not found in $PATH'),
])  # fmt: skip
def test_each_kind_of_probe_succeeds_or_reports_why_it_failed(host, name, probe, says):
    name = f"asks-{name}"
    [(kind, asked)] = probe.items()
    with bind(0) as free:
        port = free.getsockname()[1]
    probe = {kind: asked if kind == "exec" else {"port": port, **asked}, "periodSeconds": 1}
    app = shell(SLEEP, readinessProbe=probe, ports=[{"name": "web", "containerPort": port}])
    server = {"name": "server", "image": "python", "command": ["python", "-c", SERVER, str(port)]}
    host.create(name, app, *([] if kind == "exec" else [server]), terminationGracePeriodSeconds=1)
    says = says.replace("127.0.0.1", host.running(name).status.pod_ip)
    if says:
        until(lambda: ("Unhealthy", says) in host.events(name))
        assert not status(host, name).ready
    else:
        until(lambda: status(host, name).ready)
