"""Exec with kubectl and the Python client, into containers with private mounts or mapped paths."""

import asyncio
import json
import os
import shutil
import ssl
from pathlib import Path

import psutil
import pytest
from kubernetes import client
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config
from kubernetes.stream import stream
from kubernetes.stream.ws_client import ERROR_CHANNEL
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.simulator.kubernetes.node_kubectl import PROMPT, Kubectl, end_of
from tests.simulator.kubernetes.node_lab import SLEEP, Host, shell, until

pytestmark = pytest.mark.kubectl
STARTING = (
    "error: Internal error occurred: Internal error occurred: error executing command in container: failed to exec in"
    " container: failed to start exec "
)


@pytest.fixture(scope="module")
def sleeper(host) -> str:
    """A pod with a sidecar and two containers: one sleeps, the other has ended."""
    host.create(
        "sleeper",
        shell("exec sleep 600", env=[{"name": "X", "value": "1"}]),
        {"name": "over", "image": "amazon/aws-cli", "command": ["true"]},
        initContainers=[shell("exec sleep 600") | {"name": "side", "restartPolicy": "Always"}],
        terminationGracePeriodSeconds=1,
    )
    over = lambda: any(status.state.terminated for status in host.read("sleeper").status.container_statuses or ())  # noqa: E731
    host.running("sleeper")
    until(over, "the second container has ended")
    return "sleeper"


@pytest.fixture
def python(host, kubectl) -> CoreV1Api:
    """A separate client, because the stream functions change the client that they get."""
    return CoreV1Api(new_client_from_config(kubectl._environment["KUBECONFIG"]))


def test_exec_returns_output_errors_and_the_exit_code(kubectl, sleeper):
    done = kubectl("exec", sleeper, "-c", "app", "--", "sh", "-c", "echo out $X; echo err >&2; exit 5", code=5)
    assert done.stdout == b"out 1\n"
    assert done.stderr == b"err\ncommand terminated with exit code 5\n"
    defaulted = kubectl("exec", sleeper, "--", "true").stderr.decode()
    assert defaulted == 'Defaulted container "app" out of: app, over, side (init)\n'


def test_exec_reports_a_program_ended_by_sigterm_as_exit_code_143(kubectl, sleeper):
    kubectl("exec", sleeper, "-c", "app", "--", "sh", "-c", "kill -TERM $$", code=143)


def test_exec_passes_30_mb_through_without_keeping_it_in_memory(host, kubectl, sleeper):
    data = os.urandom(30_000_000)
    kubectl("exec", "-i", sleeper, "-c", "app", "--", "cat", given=data[:1000])
    before = psutil.Process(host.process.pid).memory_info().rss
    assert kubectl("exec", "-i", sleeper, "-c", "app", "--", "cat", given=data).stdout == data
    assert psutil.Process(host.process.pid).memory_info().rss - before < 10_000_000


def test_exec_accepts_a_command_of_100_000_characters(kubectl, sleeper):
    """People pass whole scripts as an argument."""
    done = kubectl("exec", sleeper, "-c", "app", "--", "sh", "-c", f"printf %s '{'x' * 100_000}' | wc -c")
    assert done.stdout.strip() == b"100000"


def test_a_program_may_end_without_reading_all_its_input(kubectl, sleeper):
    given = b"first\n" + bytes(10_000_000)
    assert kubectl("exec", "-i", sleeper, "-c", "app", "--", "head", "-n", "1", given=given).stdout == b"first\n"


def test_exec_works_in_a_sidecar(kubectl, sleeper):
    assert kubectl.out("exec", sleeper, "-c", "side", "--", "echo", "side") == "side\n"


def test_exec_works_in_an_init_container_while_it_runs(host, kubectl):
    host.create("init", shell("true"), initContainers=[shell("exec sleep 600") | {"name": "first"}])
    running = lambda: any(s.state.running for s in host.read("init").status.init_container_statuses or ())  # noqa: E731
    until(running, "the init container runs")
    assert kubectl.out("exec", "init", "-c", "first", "--", "echo", "first") == "first\n"
    waits = kubectl.error("exec", "init", "-c", "app", "--", "true")
    assert waits == 'error: Internal error occurred: unable to upgrade connection: container not found ("app")\n'


def test_exec_is_refused_for_ended_and_unknown_containers_and_pods(host, kubectl, sleeper):
    over = kubectl.error("exec", sleeper, "-c", "over", "--", "true")
    assert over == 'error: Internal error occurred: unable to upgrade connection: container not found ("over")\n'
    unknown = kubectl.error("exec", sleeper, "-c", "nope", "--", "true")
    assert unknown == "Error from server (BadRequest): container nope is not valid for pod sleeper\n"
    assert kubectl.error("exec", "nope", "--", "true") == 'Error from server (NotFound): pods "nope" not found\n'
    host.create("completed", shell("true"))
    host.in_phase("completed", "Succeeded")
    completed = kubectl.error("exec", "completed", "--", "true")
    assert completed == "error: cannot exec into a container in a completed pod; current phase is Succeeded\n"


@pytest.mark.parametrize(("program", "says"), [
    ("nonesuch", 'exec: "nonesuch": executable file not found in $PATH'),
    ("/nonesuch", 'exec: "/nonesuch": stat /nonesuch: no such file or directory'),
    ("/tmp", 'exec: "/tmp": is a directory'),
    ("/etc/hostname", 'exec: "/etc/hostname": permission denied'),
    ("/" + "x" * 300, f"file name too long: /{'x' * 99}…{'x' * 100}"),
])  # fmt: skip
def test_exec_reports_why_a_program_cannot_be_started(kubectl, sleeper, program, says):
    error = kubectl.error("exec", sleeper, "-c", "app", "--", program)
    assert error.startswith(STARTING)
    assert error.endswith(f": OCI runtime exec failed: exec failed: unable to start container process: {says}\n")


def test_exec_at_a_terminal_passes_size_interrupt_and_exit_code(kubectl, sleeper):
    child = kubectl.at_terminal("exec", "-it", sleeper, "-c", "app", "--", "sh", rows=20, columns=90)
    child.expect(PROMPT)
    child.sendline("tty; stty size; echo TERM=$TERM")
    child.expect("/dev/pts/")
    child.expect("20 90")
    child.expect("TERM=xterm")
    child.setwinsize(33, 77)
    child.sendline("until [ \"$(stty size)\" = '33 77' ]; do sleep 0.05; done; echo resi''zed")
    child.expect("resized")
    child.sendline("sleep 614")
    until(lambda: _processes("sleep", "614"), "it sleeps")
    child.sendcontrol("c")
    child.expect(PROMPT)
    child.sendline("echo code=$?")
    child.expect("code=130")
    child.sendline("exit 7")
    assert end_of(child)[1] == 7


def test_ctrl_d_ends_a_shell_at_a_terminal(kubectl, sleeper):
    child = kubectl.at_terminal("exec", "-it", sleeper, "-c", "app", "--", "sh")
    child.expect(PROMPT)
    child.sendcontrol("d")
    assert end_of(child)[1] == 0


def test_ctrl_c_interrupts_the_program_in_the_container(kubectl, sleeper):
    script = "trap 'echo interrupted' INT; echo ready; while :; do sleep 0.05; done"
    child = kubectl.at_terminal("exec", "-it", sleeper, "-c", "app", "--", "sh", "-c", script)
    child.expect("ready")
    for _ in range(2):
        child.sendcontrol("c")
        child.expect("interrupted")
    child.close(force=True)


def test_a_client_that_disconnects_ends_the_input_but_not_the_program(host, kubectl, sleeper):
    script = 'echo ready; cat >"$HOME/input"; echo over >"$HOME/over"'
    with kubectl.started("exec", "-i", sleeper, "-c", "app", "--", "sh", "-c", script) as child:
        assert child.stdout.readline() == b"ready\n"
        child.stdin.write(b"some")
        home = host.home(sleeper)
        until(lambda: (home / "input").exists() and (home / "input").read_text() == "some", "it came through")
        child.kill()
    until((home / "over").exists, "the program went on")


def test_a_client_that_disconnects_hangs_up_its_terminal(host, kubectl, sleeper):
    script = "trap 'echo over >$HOME/hung-up; exit' HUP; echo ready; while :; do sleep 0.05; done"
    child = kubectl.at_terminal("exec", "-it", sleeper, "-c", "app", "--", "sh", "-c", script)
    child.expect("ready")
    child.close(force=True)
    until((host.home(sleeper) / "hung-up").exists, "it was hung up")


def test_clients_that_disconnect_leave_no_open_files_or_processes(host, kubectl, sleeper):
    kubectl("exec", sleeper, "-c", "app", "--", "true")
    descriptors = lambda: len(list(Path(f"/proc/{host.process.pid}/fd").iterdir()))  # noqa: E731
    before = descriptors()
    for options in (["-i"], ["-it"]):
        children = [
            kubectl.at_terminal("exec", *options, sleeper, "-c", "app", "--", "sh", "-c", "echo ready; yes")
            for _ in range(3)
        ]
        for child in children:
            child.expect("ready")
        for child in children:
            child.close(force=True)
    until(lambda: descriptors() <= before, "the descriptors are closed")
    until(lambda: not _processes("yes"), "who writes to nobody ends")


def test_processes_started_by_exec_end_with_their_container(host, kubectl):
    host.create("parent", shell(SLEEP), terminationGracePeriodSeconds=1)
    host.running("parent")
    script = "sleep 611 >/dev/null 2>&1 </dev/null & setsid sleep 612 >/dev/null 2>&1 </dev/null & true"
    kubectl("exec", "parent", "--", "sh", "-c", script)
    until(lambda: _processes("sleep", "611") and _processes("sleep", "612"), "they run on")
    with kubectl.started("exec", "parent", "--", "sleep", "613") as child:
        until(lambda: _processes("sleep", "613"), "it runs")
        host.api.delete_namespaced_pod("parent", "default")
        assert child.wait(20) == 137
        assert child.stderr.read() == b"command terminated with exit code 137\n"
    until(lambda: not any(_processes("sleep", n) for n in ("611", "612", "613")), "they ended with it")


def _processes(*arguments: str) -> list[psutil.Process]:
    """Return the processes with exactly these arguments, not the kubectl, shell or nsenter around them."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if (command := process.info["cmdline"]) and [Path(command[0]).name, *command[1:]] == list(arguments)
    ]


def _may(host: Host, name: str, *verbs: str) -> Kubectl:
    """Return kubectl as a user who can read pods and has these verbs on pods/exec."""
    rbac = client.RbacAuthorizationV1Api(host.api.api_client)
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods/exec"], "verbs": list(verbs)},
    ]
    rbac.create_namespaced_role("default", {"metadata": {"name": name}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}
    rbac.create_namespaced_role_binding("default", {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]})
    return Kubectl(host, as_user=name)


def test_exec_needs_the_create_permission(host, kubectl, sleeper):
    assert _may(host, "creator", "create").out("exec", sleeper, "-c", "app", "--", "echo", "hi") == "hi\n"
    assert _may(host, "reader", "get").error("exec", sleeper, "-c", "app", "--", "true") == (
        'Error from server (Forbidden): pods "sleeper" is forbidden: User "reader" cannot create resource "pods/exec"'
        ' in API group "" in the namespace "default"\n'
    )


def test_the_python_client_gets_output_exit_code_and_errors(python, sleeper):
    wanted = {"container": "app", "stderr": True, "stdin": False, "stdout": True, "tty": False}
    connect, command = python.connect_get_namespaced_pod_exec, ["sh", "-c", "echo out; echo err >&2; exit 3"]
    assert stream(connect, sleeper, "default", command=command, **wanted) == "out\nerr\n"
    session = stream(connect, sleeper, "default", command=command, _preload_content=False, **wanted)
    session.run_forever(timeout=20)
    assert (session.read_stdout(), session.read_stderr(), session.returncode) == ("out\n", "err\n", 3)
    session = stream(connect, sleeper, "default", command=["nonesuch"], _preload_content=False, **wanted)
    session.run_forever(timeout=20)
    status = json.loads(session.read_channel(ERROR_CHANNEL))
    assert (status["status"], status["reason"], status["code"]) == ("Failure", "InternalError", 500)


def test_the_python_client_sends_input(python, sleeper):
    wanted = {"container": "app", "stderr": True, "stdin": True, "stdout": True, "tty": False}
    session = stream(
        python.connect_get_namespaced_pod_exec, sleeper, "default", command=["sh"], _preload_content=False, **wanted
    )
    session.write_stdin("echo one\n")
    assert session.readline_stdout(timeout=20) == "one"
    session.write_stdin("exit 4\n")
    session.run_forever(timeout=20)
    assert session.returncode == 4


def test_the_python_client_is_told_why_exec_is_refused(python, sleeper):
    def refused(name: str, **options) -> str:
        with pytest.raises(ApiException) as caught:
            stream(python.connect_get_namespaced_pod_exec, name, "default", command=["true"], **options)
        return caught.value.reason

    assert "404" in refused("nope", stdout=True)
    assert "a container name must be specified for pod sleeper, choose one of: [side app over]" in refused(
        sleeper, stdout=True
    )


def _frames(host: Host, query: str, protocol: str, *sent: bytes | str) -> list[bytes]:
    """Send these frames over a bare WebSocket and return the frames that the server sends."""
    context = ssl.create_default_context(cafile=host.folder / "ca.pem")
    context.load_cert_chain(host.folder / "admin.pem")
    server = host.api.api_client.configuration.host.replace("https:", "wss:")
    url = f"{server}/api/v1/namespaces/default/pods/sleeper/exec?{query}"

    # Not websockets.sync: it reads and writes TLS in two threads at once, and may wait for an answer that has arrived.
    async def talk() -> list[bytes]:
        async with connect(url, ssl=context, subprotocols=[protocol], proxy=None) as socket:
            for frame in sent:
                await socket.send(frame)
            return [frame async for frame in socket]

    return asyncio.run(talk())


def test_a_v4_client_gets_the_kubelets_error_as_an_http_answer(host, sleeper):
    def refused(query: str) -> tuple[int, bytes]:
        with pytest.raises(InvalidStatus) as caught:
            _frames(host, query, "v4.channel.k8s.io")
        return caught.value.response.status_code, caught.value.response.body

    assert refused("command=true&stdout=true&container=over") == (500, b'container not found ("over")')
    nothing = b"you must specify at least 1 of stdin, stdout, stderr"
    assert refused("command=true&container=app") == (400, nothing)


def test_exec_without_a_command_is_refused(host, sleeper):
    empty, told = _frames(host, "stdout=true&container=app", "v5.channel.k8s.io")
    assert empty == b"\x01"  # says that the stream has begun
    assert "args must not be empty" in json.loads(told[1:])["message"]


@pytest.mark.parametrize("command", ["command=%00", "command=/%00", "command=echo&command=a%00b"])
def test_a_command_with_a_nul_cannot_be_started(host, sleeper, command):
    frames = _frames(host, f"{command}&stdout=true&container=app", "v5.channel.k8s.io")
    told = json.loads(frames[-1][1:])
    assert (frames[-1][0], told["status"]) == (3, "Failure")
    assert "unable to start container process: exec" in told["message"]
    assert told["message"].endswith("invalid argument")


def test_invalid_frames_are_ignored(host, sleeper):
    senseless = (b"", b"\x09", b"\xff", b"\x04{", b"\x04[1]", b'\x04{"Width":"x","Height":-1}', "text")
    frames = _frames(
        host,
        "command=cat&stdin=true&stdout=true&tty=true&container=app",
        "v5.channel.k8s.io",
        *senseless,
        b'\x04{"Width":99999,"Height":-1}',
        b"\x00hello\n\x04",
    )
    assert b"".join(frame[1:] for frame in frames if frame[0] == 1) == b"hello\r\nhello\r\n"
    assert json.loads(frames[-1][1:])["status"] == "Success"


@pytest.mark.skipif(not shutil.which("tar"), reason="kubectl cp runs tar in the container")
def test_kubectl_cp_copies_a_file_in_and_out(kubectl, sleeper, tmp_path):
    (tmp_path / "given").write_bytes(bytes(range(256)) * 1000)
    there = kubectl.out("exec", sleeper, "-c", "app", "--", "sh", "-c", "echo $HOME").strip()
    kubectl("cp", tmp_path / "given", f"{sleeper}:{there}/copied", "-c", "app")
    kubectl("cp", f"{sleeper}:{there}/copied", tmp_path / "back", "-c", "app")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "given").read_bytes()


def test_exec_works_with_the_v4_protocol_which_cannot_end_the_input(host, kubectl):
    host.create("single", shell("exec sleep 600"))
    host.running("single")
    done = host.exec("single", "head", "-n", "1", stdin="hello\nmore\n", protocol="v4.channel.k8s.io")
    assert (done.stdout, done.status["status"]) == ("hello\n", "Success")
