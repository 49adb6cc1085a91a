"""A socket for this user only: who gets an answer, and who gets a closed connection."""

import os
import socket
import subprocess
import sys

import pytest

from labkit.simulator.peer_credentials import is_available, peer_uid, same_user

OTHER = ("setpriv", "--reuid=1234", "--regid=1234", "--clear-groups")
ASKS = 'exec 3<>"/dev/tcp/127.0.0.1/$1" && echo hello >&3 && cat <&3'
ANSWERS = """
import socket
from labkit.simulator.peer_credentials import is_available, same_user
with same_user(socket.create_server(("127.0.0.1", 0))) as listening:
    print(listening.getsockname()[1], is_available(), flush=True)
    while True:
        try:
            connection, _ = listening.accept()
        except ConnectionAbortedError:
            continue
        with connection:
            connection.sendall(connection.recv(9))
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux names the user of a connection")


@pytest.fixture
def server():
    """Return a function that starts a server, with a command before Python. It returns what the server prints."""
    started = []

    def start(*before: str) -> tuple[int, str]:
        done = subprocess.Popen([*before, sys.executable, "-c", ANSWERS], stdout=subprocess.PIPE, text=True)
        started.append(done)
        port, _, available = done.stdout.readline().strip().partition(" ")
        return int(port), available

    yield start
    for process in started:
        process.kill()
        process.communicate()


def heard(port: int, *before: str) -> str:
    """Return the answer that a program hears, with a command before the program."""
    done = subprocess.run([*before, "bash", "-c", ASKS, "bash", str(port)], capture_output=True, text=True, timeout=60)
    return done.stdout


@pytest.mark.parametrize("namespaces", [(), ("unshare", "--map-root-user"), ("unshare", "--user")], ids=" ".join)
def test_the_same_user_is_answered_also_from_a_user_namespace(server, namespaces):
    assert heard(server()[0], *namespaces) == "hello\n"


@needs_root
@pytest.mark.parametrize("namespaces", [(), ("unshare", "--map-root-user"), ("unshare", "--user")], ids=" ".join)
def test_another_user_hears_nothing_also_as_root_of_a_user_namespace(server, namespaces):
    port, _ = server()
    assert heard(port, *OTHER, *namespaces) == ""
    assert heard(port) == "hello\n"


def test_a_server_in_a_user_namespace_answers_its_own_user_only(server):
    port, available = server("unshare", "--map-root-user")
    assert (available, heard(port)) == ("True", "hello\n")
    if os.geteuid() == 0:
        assert heard(port, *OTHER) == ""


def test_a_server_that_sees_every_user_as_nobody_cannot_tell(server):
    port, available = server("unshare", "--user")
    assert (available, heard(port)) == ("False", "hello\n")


@pytest.fixture
def listening():
    with same_user(socket.create_server(("127.0.0.1", 0))) as listening:
        listening.settimeout(30)
        yield listening


def test_an_ipv6_socket_with_a_mapped_address_and_another_source_address_are_known(listening):
    port = listening.getsockname()[1]
    with socket.socket(socket.AF_INET6) as mapped:
        mapped.connect(("::ffff:127.0.0.1", port))
        from_elsewhere = socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.9", 0))
        with from_elsewhere, listening.accept()[0] as first, listening.accept()[0] as second:
            assert (peer_uid(first), peer_uid(second)) == (os.geteuid(), os.geteuid())


@pytest.mark.parametrize("resets", [False, True])
def test_a_connection_that_was_closed_before_is_nobodys(listening, resets):
    """Older kernels name root as the user of a closed connection."""
    caller = socket.create_connection(listening.getsockname())
    caller.sendall(b"PUT /latest/api/token HTTP/1.1\r\n\r\n")
    if resets:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    caller.close()
    with pytest.raises(ConnectionAbortedError):
        listening.accept()


def test_another_caller_cannot_make_the_trial_fail(monkeypatch):
    connect = socket.create_connection

    def after_another(address):
        connect(address).close()
        return connect(address)

    monkeypatch.setattr(socket, "create_connection", after_another)
    assert is_available()


def test_without_an_answer_from_the_kernel_nobody_is_known(listening, monkeypatch):
    with socket.create_connection(listening.getsockname()), listening.accept()[0] as connection:
        monkeypatch.setattr("labkit.simulator.peer_credentials.SOCK_DIAG_BY_FAMILY", 999)
        assert peer_uid(connection) is None
        assert not is_available()
        open_to_all = same_user(socket.create_server(("127.0.0.1", 0)))
        with open_to_all, socket.create_connection(open_to_all.getsockname()), open_to_all.accept()[0] as accepted:
            assert peer_uid(accepted) is None
