"""Whatever happens to a lab's folder, files and processes: a command ends soon and harms no other process."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from labkit.simulator import process
from labkit.simulator.folder import Folder
from labkit.simulator.process import State
from tests import commands
from tests.lifecycle.processes import gone, run_a_pod, server

SOON = 90  # seconds, enough on a busy machine; a command that waits forever fails the test
CONTAINER = ("unshare", "--map-root-user", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child")
ACTIVATED = {"PATH": os.pathsep.join([str(commands.LABKIT.parent), os.environ["PATH"]])}
# A process that looks like a server: it holds the lock, listens, and does what the last argument says.
LIKE_A_SERVER = """
import fcntl, json, os, socket, sys
os.chdir(sys.argv[1])
lock = open("server.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
listening = socket.socket(socket.AF_UNIX)
listening.bind("server.sock")
listening.listen()
print("ready", flush=True)
while True:
    with listening.accept()[0] as asking:
        word = asking.makefile().readline()
        if sys.argv[2] == "hangs":
            sys.stdin.read()
        answer = {"state": {"of_another_version": 1}, "network": os.readlink("/proc/self/ns/net")}
        asking.sendall(json.dumps(answer).encode() + b"\\n")
    if word == "end\\n":
        sys.exit()
"""


@pytest.fixture
def stranger():
    """A process that has nothing to do with a lab."""
    innocent = subprocess.Popen(["sleep", "1000"])
    yield innocent
    innocent.kill()
    innocent.wait()


@pytest.fixture
def like_a_server(labkit):
    """Start a process in the place of the lab's server."""
    started = []

    def start(does: str) -> subprocess.Popen:
        labkit.folder.create()
        command = [sys.executable, "-c", LIKE_A_SERVER, labkit.folder.path, does]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "ready\n"
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


def command(labkit, *arguments: str) -> str:
    """Run labkit in a process of its own, which must end soon. Return its output."""
    environment = os.environ | {"LABKIT_HOME": str(labkit.folder.path)}
    done = subprocess.run([commands.LABKIT, *arguments], env=environment, capture_output=True, text=True, timeout=SOON)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("away", ["deleted", "moved"])
def test_a_lab_whose_folder_is_deleted_or_moved_ends_and_up_starts_a_new_one(labkit, tmp_path, away):
    labkit("up")
    old = [server(labkit), *run_a_pod(labkit)]
    if away == "deleted":
        shutil.rmtree(labkit.folder.path)
    else:
        labkit.folder.path.rename(tmp_path / "moved")
    assert "The lab is up" in command(labkit, "up")
    assert gone(old) == []
    assert f"(process {server(labkit).pid})" in labkit("status")
    assert "The lab has ended" in command(labkit, "down")


@pytest.mark.parametrize("name", ["server.sock", "server.lock"])
def test_a_server_ends_when_its_socket_or_lock_file_is_deleted(labkit, name):
    labkit("up", "--bare")
    bare = labkit.folder.bare
    old = psutil.Process(State.read(bare).pid)
    (bare.path / name).unlink()
    assert gone([old]) == []
    assert "Only an API server is up" in command(labkit, "up", "--bare")
    assert "The lab has ended" in command(labkit, "down", "--bare")


def test_a_changed_server_file_does_not_mislead_the_commands(labkit, stranger):
    before = json.loads(labkit("up", "--json"))
    lives = server(labkit)
    file = labkit.folder.path / "server.json"
    innocent = json.dumps(json.loads(file.read_text()) | {"pid": stranger.pid})
    for content in (None, "", "[]", json.dumps({"pid": stranger.pid}), innocent):
        file.unlink() if content is None else file.write_text(content)
        assert f"runs (process {lives.pid})" in command(labkit, "status")
        file.unlink() if content is None else file.write_text(content)
        assert json.loads(command(labkit, "up", "--json")) == before
        assert server(labkit) == lives
    file.write_text(innocent)
    assert "The lab has ended" in command(labkit, "down")
    assert gone([lives]) == []
    file.write_text(innocent)
    for words in ("down", "reset", "status"):
        command(labkit, words)
    assert stranger.poll() is None


def test_status_and_up_name_a_stopped_server_and_down_ends_it(labkit):
    labkit("up")
    stopped = [server(labkit), *run_a_pod(labkit)]
    stopped[0].send_signal(signal.SIGSTOP)
    for words in ("status", "up"):
        said = command(labkit, words)
        assert f"does not answer: process {stopped[0].pid} was stopped." in said
        assert "labkit down" in said
    assert "does not answer" in command(labkit, "status", "--report")
    assert "The lab has ended" in command(labkit, "down")
    assert gone(stopped) == []
    assert "was killed" not in labkit("up")


def test_reset_ends_a_stopped_server(labkit):
    labkit("up")
    stopped = server(labkit)
    stopped.send_signal(signal.SIGSTOP)
    assert "is empty" in command(labkit, "reset")
    assert gone([stopped]) == []


def test_up_gives_up_on_a_hanging_server_and_down_ends_it(labkit, like_a_server, monkeypatch):
    hangs = like_a_server("hangs")
    monkeypatch.setattr(process, "ANSWERS_WITHIN", 1.5)
    monkeypatch.setattr("labkit.cli.status.ANSWERS_WITHIN", 0.5)
    assert f"process {hangs.pid} hangs, or was stopped. Next:  labkit down" in labkit("status")
    said = labkit("up", fails=True)
    assert "Waiting for an answer from the server of the lab" in said
    assert "next:  labkit down" in said
    assert "The lab has ended" in labkit("down")
    assert hangs.wait(10) == -signal.SIGKILL


def test_up_replaces_a_server_of_another_labkit_version(labkit, like_a_server):
    other = like_a_server("answers")
    assert "Another version of labkit" in labkit("status")
    assert "The lab is up" in labkit("up")
    assert other.wait(10) == 0


def test_commands_do_not_wait_forever_for_a_server_lock_without_a_server(labkit, monkeypatch):
    monkeypatch.setattr(process, "ANSWERS_WITHIN", 0.1)
    with labkit.folder.lock("server.lock"):
        assert f"The lab in {labkit.folder.path} has a server that labkit cannot reach" in labkit("status")
        for words in ("up", "down", "reset"):
            said = labkit(words, fails=True)
            assert f"The lab in {labkit.folder.path} has a server that labkit cannot reach" in said
            assert "next:  labkit down" in said


@pytest.mark.network
def test_commands_in_another_container_find_and_end_the_lab(labkit):
    """Each container has its own process ids: the server's id belongs to another program there."""
    environment = os.environ | {"LABKIT_HOME": str(labkit.folder.path), "LABKIT": str(commands.LABKIT)} | ACTIVATED
    one = subprocess.Popen(
        [*CONTAINER, "bash", "-c", '"$LABKIT" up >&2 && echo up && exec cat'],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def in_another(script: str, *isolated: str) -> str:
        # In this container, the server's process id belongs to one of these.
        strangers = "for i in {1..60}; do sleep 1000 & done;"
        alive = 'alive=$(jobs -r | wc -l); echo "$alive alive"'
        run = [*CONTAINER, *isolated, "bash", "-c", f"{strangers} {script}; {alive}"]
        done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=SOON)
        assert done.stdout.endswith("60 alive\n"), done.stdout + done.stderr
        return done.stdout + done.stderr

    try:
        assert one.stdout.readline() == "up\n", one.communicate()
        assert 0 < State.read(labkit.folder).pid < 60
        assert "runs (in another container)" in in_another('"$LABKIT" status')
        assert "The lab is up" in in_another('"$LABKIT" up')
        said = in_another('ip link set lo up; "$LABKIT" up', "--net")
        assert "runs in another container, with another network" in said
        assert "next:  labkit down" in said
        assert "The lab has ended" in in_another('"$LABKIT" down', "--net")
        assert "No lab runs" in in_another('"$LABKIT" status')
    finally:
        one.kill()
        one.communicate()


@pytest.mark.network
def test_commands_say_to_run_down_in_the_container_whose_server_hangs(labkit, like_a_server):
    like_a_server("hangs")
    environment = os.environ | {"LABKIT_HOME": str(labkit.folder.path), "LABKIT": str(commands.LABKIT)} | ACTIVATED
    run = [*CONTAINER, "bash", "-c", '"$LABKIT" status; "$LABKIT" down']
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=SOON)
    assert "a process of another container hangs, or was stopped" in done.stderr
    assert "labkit down, in that container" in done.stderr
    assert "Next:  labkit down, in that container" in done.stdout


def test_a_second_command_names_the_command_that_it_waits_for(labkit):
    environment = os.environ | {"LABKIT_HOME": str(labkit.folder.path)}
    with labkit.folder.turn("start.lock", doing="starting the lab", within=0):
        second = subprocess.Popen([commands.LABKIT, "up"], env=environment, stderr=subprocess.PIPE, text=True)
        said = second.stderr.readline()
    assert f"Waiting for another command: process {os.getpid()} is starting the lab" in said
    assert second.communicate(timeout=SOON)[1] == ""
    assert second.returncode == 0


def test_commands_do_not_wait_forever_for_a_stopped_command(labkit, monkeypatch):
    monkeypatch.setattr(process, "READY_WITHIN", 0.1)
    monkeypatch.setattr(process, "ENDED_WITHIN", 0.1)
    with labkit.folder.turn("start.lock", doing="starting the lab", within=0):
        for words in ("up", "down", "reset"):
            said = labkit(words, fails=True)
            assert f"Another command does not finish: process {os.getpid()} is starting the lab." in said
            assert "next:" in said


def test_a_folder_that_is_not_a_lab_is_left_alone(tmp_path):
    thesis, bare = tmp_path / "thesis", tmp_path / "lab-bare"
    for home in (thesis, bare):
        home.mkdir()
        (home / "chapter-1").write_text("Once")
    for words in ("up", "reset", "clock +1h", "down", "status", "up --bare"):
        home = tmp_path / "lab" if "--bare" in words else thesis
        done = commands.labkit(*words.split(), LABKIT_HOME=str(home))
        assert "Traceback" not in done.stderr
        if words in ("down", "status"):
            assert "No lab runs" in done.stdout
        else:
            assert "is not a lab's folder: it holds chapter-1. Nothing was changed." in done.stderr
            assert "next:" in done.stderr
    assert [file.name for home in (thesis, bare) for file in home.iterdir()] == ["chapter-1"] * 2


@pytest.mark.network
def test_commands_name_a_read_only_file_system(tmp_path):
    folder = Folder(tmp_path / "lab")
    folder.write_json("ports.json", {})
    read_only = f"mount --bind {folder.path} {folder.path} && mount -o remount,ro,bind {folder.path}"
    for words in ("up", "reset", "down", "clock +1h", "status"):
        run = ["unshare", "--map-root-user", "--mount", "bash", "-c", f"{read_only} && {commands.LABKIT} {words}"]
        environment = os.environ | {"LABKIT_HOME": str(folder.path)}
        done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=SOON)
        assert "Traceback" not in done.stderr, done.stderr
        if words == "status":
            assert "No lab runs" in done.stdout
        else:
            assert "Read-only file system" in done.stderr, words + done.stderr
            assert done.returncode == 1


def test_commands_survive_a_pipe_or_a_folder_in_place_of_a_lab_file(tmp_path):
    """A pipe that nobody writes to replaces the clock, and folders replace two files."""
    folder = Folder(tmp_path / "lab-bare")
    folder.create()
    os.mkfifo(folder.clock.file)
    for name in ("server.sock", "server.json"):
        (folder.path / name).mkdir()
    environment = os.environ | {"LABKIT_HOME": str(tmp_path / "lab")}

    def said(*words: str) -> str:
        done = subprocess.run([commands.LABKIT, *words], env=environment, capture_output=True, text=True, timeout=SOON)
        return done.stdout + done.stderr

    try:
        for name in ("server.json", "server.sock"):
            for words in ("up", "down"):
                refused = said(words, "--bare")
                assert words == "down" or name in refused
                assert "Traceback" not in refused
            (folder.path / name).rmdir()
        assert "Only an API server is up" in said("up", "--bare")
    finally:
        assert "has ended" in said("down", "--bare")


def test_a_bare_api_server_starts_in_a_path_too_long_for_a_socket(tmp_path):
    folder = Folder(tmp_path.joinpath(*["a-folder-with-a-long-name"] * 6))
    home = {"LABKIT_HOME": str(folder.path)}
    try:
        assert "Only an API server is up" in commands.labkit("up", "--bare", **home).stdout
        assert len(str(folder.bare.path)) > 150
    finally:
        assert "The lab has ended" in commands.labkit("down", "--bare", **home).stdout


def test_another_program_on_the_labs_port_is_not_mistaken_for_the_lab(labkit):
    before = json.loads(labkit("up", "--json"))
    killed = server(labkit)
    killed.kill()
    assert gone([killed]) == []
    called: list[str] = []

    class Stranger(BaseHTTPRequestHandler):
        def do_POST(self):
            called.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"cluster": {"name": "blue", "status": "ACTIVE"}}')

        do_GET = do_POST

    port = int(before["aws"]["endpoint_url"].rpartition(":")[2])
    with ThreadingHTTPServer(("127.0.0.1", port), Stranger) as like_a_lab:
        threading.Thread(target=like_a_lab.serve_forever).start()
        try:
            assert "No lab runs" in labkit("status")
            assert f"Port {port} was in use" in labkit("up")
            assert "The lab has ended" in labkit("down")
        finally:
            like_a_lab.shutdown()
    assert called == []


@pytest.mark.network
def test_up_without_loopback_says_so(labkit):
    command = ["unshare", "--map-root-user", "--net", commands.LABKIT, "up"]
    done = subprocess.run(
        command, env=os.environ | {"LABKIT_HOME": str(labkit.folder.path)}, capture_output=True, text=True, timeout=SOON
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0].endswith("Network is unreachable. Loopback may be down.")
    assert "ip link set lo up" in done.stderr
