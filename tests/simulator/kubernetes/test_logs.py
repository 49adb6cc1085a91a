"""kubectl logs of containers that run, have ended, were restarted or wait."""

import re

import pytest

from tests.simulator.kubernetes.node_lab import shell, until

pytestmark = pytest.mark.kubectl
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"

# A container's own files end with it.
COUNTS = "echo >>/share/runs; n=$(wc -l </share/runs); echo run $n; "
SHARE = {"volumeMounts": [{"name": "share", "mountPath": "/share"}]}
VOLUMES = [{"name": "share", "emptyDir": {}}]


@pytest.fixture(scope="module")
def lines(host) -> str:
    host.create("lines", shell("for i in 1 2 3; do echo line $i; done; printf end"))
    host.in_phase("lines", "Succeeded")
    return "lines"


def test_kubectl_logs_shows_the_whole_log_or_a_part(kubectl, lines):
    assert kubectl.out("logs", lines) == "line 1\nline 2\nline 3\nend"
    assert kubectl.out("logs", lines, "--tail=2") == "line 3\nend"
    assert kubectl.out("logs", lines, "--tail=0") == ""
    assert kubectl.out("logs", lines, "--limit-bytes=4") == "line"
    stamped = kubectl.out("logs", lines, "--timestamps", "--tail=2")
    assert re.fullmatch(rf"{STAMP} line 3\n{STAMP} end", stamped)


def test_kubectl_logs_shows_100_000_lines(host, kubectl):
    host.create("long", shell("seq 100000"))
    host.in_phase("long", "Succeeded")
    assert kubectl.out("logs", "long").split() == [str(number) for number in range(1, 100_001)]


def test_since_filters_lines_by_lab_time(host, kubectl, lines):
    assert kubectl.out("logs", lines, "--since=1h").startswith("line 1\n")
    host.clock.advance(hours=2)
    try:
        assert kubectl.out("logs", lines, "--since=1h") == ""
        assert kubectl.out("logs", lines, "--since-time=2020-01-01T00:00:00Z").startswith("line 1\n")
    finally:
        host.clock.reset()


def test_a_log_is_followed_to_the_containers_end(host, kubectl):
    share = [{"name": "share", "mountPath": "/run/share"}]
    script = "mkfifo /run/share/go; echo one; read x </run/share/go; echo $x"
    host.create("follows", shell(script, volumeMounts=share), volumes=[{"name": "share", "emptyDir": {}}])
    host.running("follows")
    with kubectl.started("logs", "-f", "follows") as child:
        assert child.stdout.readline() == b"one\n"
        (host.pod_folder("follows") / "volumes/share/go").write_text("two\n")
        assert child.stdout.read() == b"two\n"
        assert child.wait(20) == 0


def test_the_log_stays_readable_after_a_follower_disconnects(host, kubectl):
    host.create("left", shell("echo one; exec sleep 600"))
    host.running("left")
    with kubectl.started("logs", "-f", "left") as child:
        assert child.stdout.readline() == b"one\n"
        child.kill()
    assert kubectl.out("logs", "left") == "one\n"


def test_previous_shows_the_log_of_the_run_before_the_restart(host, kubectl):
    host.create(
        "again",
        shell(COUNTS + "[ $n = 1 ] || exec sleep 600; exit 1", **SHARE),
        restartPolicy="Always",
        volumes=VOLUMES,
    )
    until(lambda: _restarts(host, "again") == 1 and host.log("again") == "run 2\n", "it runs again")
    assert kubectl.out("logs", "again", "--previous") == "run 1\n"
    host.create("first", shell("echo first; exec sleep 600"))
    host.running("first")
    assert kubectl.error("logs", "first", "--previous") == (
        'Error from server (BadRequest): previous terminated container "app" in pod "first" not found\n'
    )


def test_a_container_in_crash_loop_back_off_shows_the_last_runs_log(host, kubectl):
    host.create("crashes", shell(COUNTS + "exit 1", **SHARE), restartPolicy="Always", volumes=VOLUMES)

    def waiting():
        [status] = host.read("crashes").status.container_statuses or [None]
        return status and status.state.waiting and status.state.waiting.reason == "CrashLoopBackOff"

    until(waiting, "it backs off")
    assert kubectl.out("logs", "crashes") == kubectl.out("logs", "crashes", "--previous") == "run 2\n"


def _restarts(host, name: str) -> int:
    statuses = host.read(name).status.container_statuses
    return statuses[0].restart_count if statuses else 0


def test_kubectl_logs_can_show_one_or_all_containers_of_a_pod(host, kubectl):
    other = shell("echo from other") | {"name": "other"}
    first = shell("echo from first") | {"name": "first"}
    host.create("several", shell("echo from app"), other, initContainers=[first])
    host.in_phase("several", "Succeeded")
    done = kubectl("logs", "several")
    assert done.stderr == b'Defaulted container "app" out of: app, other, first (init)\n'
    assert done.stdout == b"from app\n"
    assert kubectl.out("logs", "several", "-c", "first") == "from first\n"
    assert set(kubectl.out("logs", "several", "--all-containers", "--prefix").splitlines()) == {
        "[pod/several/first] from first",
        "[pod/several/app] from app",
        "[pod/several/other] from other",
    }
    assert kubectl.out("logs", "-l", "app=several", "-c", "other") == "from other\n"
    assert kubectl.error("logs", "several", "-c", "nope") == "error: container nope is not valid for pod several\n"


@pytest.mark.parametrize(("query", "code", "says"), [
    ("tailLines=-1", 422, "tailLines: Invalid value: -1: must be greater than or equal to 0"),
    ("limitBytes=0", 422, "limitBytes: Invalid value: 0: must be greater than 0"),
    ("sinceSeconds=0", 422, "sinceSeconds: Invalid value: 0: must be greater than 0"),
    ("stream=Stdout", 422, "stream: Forbidden: may not be specified"),
    ("tailLines=x", 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
    ("sinceTime=x", 400, 'parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006"'),
])  # fmt: skip
def test_invalid_log_options_are_refused(kubectl, lines, query, code, says):
    """https://github.com/kubernetes/kubernetes/blob/master/pkg/apis/core/validation/validation.go"""
    error = kubectl.error("get", "--raw", f"/api/v1/namespaces/default/pods/{lines}/log?{query}")
    before = f'The PodLogOptions "{lines}" is invalid: ' if code == 422 else "Error from server (BadRequest): "
    assert error == f"{before}{says}\n"


@pytest.mark.parametrize(("name", "change", "reason", "says"), [
    ("image", {"image": "nginx:1"}, "ImagePullBackOff", "trying and failing to pull image"),
    ("config", {"envFrom": [{"configMapRef": {"name": "nope"}}]}, "CreateContainerConfigError",
     "CreateContainerConfigError"),
])  # fmt: skip
def test_logs_of_a_waiting_container_say_why_it_waits(host, kubectl, name, change, reason, says):
    host.create(name, shell("true") | change)

    def waiting():
        [status] = host.read(name).status.container_statuses or [None]
        return status and status.state.waiting and status.state.waiting.reason == reason

    until(waiting, reason)
    assert kubectl.error("logs", name) == (
        f'Error from server (BadRequest): container "app" in pod "{name}" is waiting to start: {says}\n'
    )


def test_logs_say_pod_initializing_while_an_init_container_runs(host, kubectl):
    host.create("turn", shell("true"), initContainers=[shell("exec sleep 600") | {"name": "first"}])
    until(lambda: any(s.state.running for s in host.read("turn").status.init_container_statuses or ()), "first runs")
    assert kubectl.error("logs", "turn", "-c", "app") == (
        'Error from server (BadRequest): container "app" in pod "turn" is waiting to start: PodInitializing\n'
    )
