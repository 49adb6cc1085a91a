"""kubectl attach and run -it: a container's own streams."""

import json

import psutil
import pytest
from kubernetes.client import CoreV1Api
from kubernetes.config import new_client_from_config
from kubernetes.stream import stream

from tests.simulator.kubernetes.node_kubectl import PROMPT, end_of
from tests.simulator.kubernetes.node_lab import shell, until

pytestmark = pytest.mark.kubectl
RUN = ("--image=amazon/aws-cli", "--restart=Never", "--command")
HINT = "If you don't see a command prompt, try pressing enter.\n"


def test_kubectl_run_opens_a_terminal_and_deletes_the_pod_afterwards(kubectl):
    child = kubectl.at_terminal("run", "interactive", "-it", "--rm", *RUN, "--", "sh", rows=20, columns=90)
    child.expect("If you don't see a command prompt, try pressing enter.")
    child.sendline("")
    child.expect(PROMPT)
    child.sendline("stty size; tty")
    child.expect("20 90")
    child.expect("/dev/pts/")
    child.sendline("exit 3")
    said, code = end_of(child)
    assert 'pod "interactive" deleted\n' in said
    assert code == 3
    assert kubectl.error("get", "pod", "interactive").startswith("Error from server (NotFound)")


def test_kubectl_run_passes_input_from_a_pipe(kubectl):
    done = kubectl("run", "piped", "-i", "--rm", *RUN, "--", "sh", given=b"echo got it\nexit 4\n", code=4)
    assert done.stdout == b'got it\npod "piped" deleted\n'
    assert done.stderr.decode().startswith(HINT)


def test_kubectl_run_attached_returns_the_programs_exit_code(host, kubectl):
    # The program waits, because its output before the client attaches is only in the log.
    script = 'until [ -e "$HOME/go" ]; do sleep 0.05; done; echo hello; exit 3'
    with kubectl.started("run", "attached", "--attach", *RUN, "--", "sh", "-c", script) as child:
        assert child.stderr.readline().decode() == HINT
        home = host.home("attached")
        until(lambda: _attached(host, "attached"), "the client has attached")
        (home / "go").touch()
        assert child.wait(20) == 3
        assert child.stdout.read() == b"hello\n"
    assert kubectl.out("logs", "attached") == "hello\n"


def test_kubectl_run_reads_the_log_if_the_program_ended_before_it_attached(kubectl):
    # kubectl attaches when a pod is ready or has ended. This pod ends without ever being ready.
    probe = {"exec": {"command": ["true"]}, "initialDelaySeconds": 600}
    never_ready = json.dumps({"spec": {"containers": [{"name": "quick", "readinessProbe": probe}]}})
    override = ("--override-type=strategic", f"--overrides={never_ready}")
    done = kubectl(
        "run", "quick", "-i", "--rm", *override, *RUN, "--", "sh", "-c", "echo hi; exit 3", given=b"", code=3
    )
    assert done.stdout == b'hi\npod "quick" deleted\n'


def _attached(host, name: str) -> bool:
    """Return whether a client has attached: the kubelet then has an open connection."""
    [node] = host.api.list_node().items
    port = node.status.daemon_endpoints.kubelet_endpoint.port
    connections = psutil.Process(host.process.pid).net_connections()
    return any(c.status == "ESTABLISHED" and c.laddr.port == port for c in connections)


def test_a_shell_keeps_running_until_a_client_attaches_again(kubectl):
    first = kubectl.at_terminal("run", "shell", "-it", *RUN, "--", "sh")
    first.expect("try pressing enter")
    first.sendline("x=kept; echo ready''.")
    first.expect("ready\\.")
    first.close(force=True)
    second = kubectl.at_terminal("attach", "-it", "shell")
    second.sendline('echo "is $x."')
    second.expect("is kept\\.")
    second.sendcontrol("d")
    assert end_of(second)[1] == 0
    log = kubectl.out("logs", "shell")
    assert "ready." in log
    assert "is kept." in log


def test_all_attached_clients_see_the_same_output(host, kubectl):
    host.create("shared", shell("while read line; do echo got $line; done", stdin=True))
    host.running("shared")
    with kubectl.started("attach", "-i", "shared") as one, kubectl.started("attach", "-i", "shared") as other:
        for child in (one, other):
            # The answer to an empty line shows that its sender is attached. Other clients may also see it.
            child.stderr.readline()
            child.stdin.write(b"\n")
            assert child.stdout.readline() == b"got\n"
        one.stdin.write(b"word\n")
        for child in (one, other):
            assert b"got word\n" in iter(child.stdout.readline, b"")
        one.stdin.close()
        assert one.wait(20) == 0  # one client's end of input doesn't end the container's input
        other.stdin.write(b"more\n")
        assert b"got more\n" in iter(other.stdout.readline, b"")
        other.kill()
    assert host.running("shared")


def test_with_stdin_once_the_containers_input_ends_with_the_client(host, kubectl):
    host.create("once", shell("cat; echo over", stdin=True, stdinOnce=True))
    host.running("once")
    assert kubectl.out("attach", "-i", "once", given=b"all\n") == "all\nover\n"
    host.in_phase("once", "Succeeded")


def test_without_a_client_the_log_has_the_output(host, kubectl):
    host.create("alone", shell("tty; echo out; echo err >&2", tty=True, stdin=True))
    host.in_phase("alone", "Succeeded")
    device, *lines = kubectl.out("logs", "alone").splitlines()
    assert device.startswith("/dev/pts/")
    assert lines == ["out", "err"]


def test_attach_is_refused_if_the_container_ended_is_unknown_or_has_no_tty(host, kubectl):
    host.create("two", shell("exec sleep 600"), {"name": "over", "image": "amazon/aws-cli", "command": ["true"]})
    until(lambda: any(s.state.terminated for s in host.read("two").status.container_statuses or ()), "one has ended")
    assert kubectl.error("attach", "two", "-c", "over").splitlines()[-1] == (
        "error: Internal error occurred: unable to upgrade connection: container over not found in pod two_default"
    )
    assert kubectl.error("attach", "two", "-c", "nope") == (
        "error: cannot attach to the container: container nope not found in pod two\n"
    )
    host.create("done", shell("true"))
    host.in_phase("done", "Succeeded")
    assert kubectl.error("attach", "done") == (
        "error: cannot attach a container in a completed pod; current phase is Succeeded\n"
    )
    child = kubectl.at_terminal("attach", "-it", "two", "-c", "app")
    child.expect("error: Unable to use a TTY - container app did not allocate one")
    child.close(force=True)


def test_port_forward_is_refused_because_ports_are_already_local(host, kubectl):
    host.create("ports", shell("exec sleep 600"))
    host.running("ports")
    assert kubectl.error("port-forward", "ports", "8080").splitlines()[-1] == (
        "error: error upgrading connection: the lab forwards no ports: containers are processes of this machine,"
        " so use their ports at 127.0.0.1"
    )


def test_the_python_client_attaches_to_a_container(host, kubectl):
    host.create("py", shell("while read line; do echo got $line; done", stdin=True, stdinOnce=True))
    host.running("py")
    own = CoreV1Api(new_client_from_config(kubectl._environment["KUBECONFIG"]))
    wanted = {"stdin": True, "stdout": True, "stderr": True, "tty": False, "_preload_content": False}
    session = stream(own.connect_get_namespaced_pod_attach, "py", "default", **wanted)
    session.write_stdin("one\n")
    assert session.readline_stdout(timeout=20) == "got one"
    session.close()
    host.in_phase("py", "Succeeded")
