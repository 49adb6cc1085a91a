"""Probes decide whether a container has started, is ready or must be restarted."""

from collections.abc import Iterator

import pytest

from tests.simulator.kubernetes.node_lab import Lab, ended, shell, short_folder, started, until

READY = {"exec": {"command": ["cat", "/run/share/ready"]}, "periodSeconds": 1}
SHARE = {"volumeMounts": [{"name": "share", "mountPath": "/run/share"}]}
SHARED = [{"name": "share", "emptyDir": {}}]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    lab = started(short_folder("probes"))
    yield lab
    ended(lab)


def create(lab: Lab, name: str, script: str = "exec sleep 600", **more) -> None:
    container = shell(script, **SHARE, **more)
    lab.create(name, container, volumes=SHARED, restartPolicy="Always", terminationGracePeriodSeconds=1)
    lab.running(name)


def status(lab: Lab, name: str):
    [found] = lab.read(name).status.container_statuses
    return found


def test_readiness_follows_the_probe(lab):
    create(lab, "ready", readinessProbe={**READY, "failureThreshold": 1})
    said = "Readiness probe failed: cat: /run/share/ready: No such file or directory\n"
    until(lambda: ("Unhealthy", said) in lab.events("ready"))
    found = status(lab, "ready")
    assert (found.started, found.ready) == (True, False)
    [condition] = [found for found in lab.read("ready").status.conditions if found.type == "Ready"]
    assert (condition.status, condition.reason) == ("False", "ContainersNotReady")
    file = lab.pod_folder("ready") / "volumes/share/ready"
    file.touch()
    until(lambda: status(lab, "ready").ready)
    file.unlink()
    until(lambda: not status(lab, "ready").ready)
    assert status(lab, "ready").restart_count == 0


def test_a_container_that_fails_its_liveness_probe_is_restarted(lab):
    create(lab, "alive", "touch /run/share/ready; exec sleep 600", livenessProbe={**READY, "failureThreshold": 2})
    file = lab.pod_folder("alive") / "volumes/share/ready"
    until(file.exists)
    file.unlink()
    until(lambda: status(lab, "alive").restart_count == 1)
    until(lambda: ("Killing", "Container app failed liveness probe, will be restarted") in lab.events("alive"))
    assert status(lab, "alive").last_state.terminated.exit_code == 143


def test_the_liveness_probe_waits_until_the_startup_probe_succeeds(lab):
    dead = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    create(lab, "slow", startupProbe={**READY, "failureThreshold": 60}, livenessProbe=dead)
    until(lambda: [m for r, m in lab.events("slow") if r == "Unhealthy" and m.startswith("Startup probe failed: cat")])
    found = status(lab, "slow")
    assert (found.started, found.ready, found.restart_count) == (False, False, 0)
    (lab.pod_folder("slow") / "volumes/share/ready").touch()
    until(lambda: ("Killing", "Container app failed liveness probe, will be restarted") in lab.events("slow"))


def test_a_container_that_fails_its_startup_probe_is_restarted(lab):
    create(lab, "never", startupProbe={**READY, "failureThreshold": 1})
    until(lambda: ("Killing", "Container app failed startup probe, will be restarted") in lab.events("never"))
    until(lambda: status(lab, "never").restart_count)


SERVER = """
import http.server, pathlib, socketserver
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({"/good": 200, "/moved": 302, "/bad": 503}[self.path])
        if self.path == "/moved":
            self.send_header("Location", "/bad" if self.headers["X-Bad"] else "/good")
        self.end_headers()
    def log_message(self, *_): pass
server = socketserver.TCPServer(("127.0.0.1", 0), Page)
pathlib.Path("/run/share/port").write_text(str(server.server_address[1]))
server.serve_forever()
"""


@pytest.fixture(scope="module")
def port(lab) -> int:
    container = {"name": "app", "image": "python", "command": ["python", "-c", SERVER], **SHARE}
    lab.create("server", container, volumes=SHARED, terminationGracePeriodSeconds=1)
    lab.running("server")
    file = lab.pod_folder("server") / "volumes/share/port"
    return int(until(lambda: file.exists() and file.read_text()))


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
def test_each_kind_of_probe_succeeds_or_reports_why_it_failed(lab, port, name, probe, says):
    name = f"asks-{name}"
    [(kind, asked)] = probe.items()
    probe = {kind: asked if kind == "exec" else {"port": port, **asked}, "periodSeconds": 1}
    ports = [{"name": "web", "containerPort": port}]
    create(lab, name, readinessProbe=probe, ports=ports)
    if says:
        until(lambda: ("Unhealthy", says) in lab.events(name))
        assert not status(lab, name).ready
    else:
        until(lambda: status(lab, name).ready)
