"""What of this machine is in a workshop's way, before anything starts."""

import os
import socket
import subprocess
import sys
from contextlib import contextmanager

import psutil
import pytest

from labkit.errors import LabError
from labkit.workshop import homes, limits, machine, networks, running
from labkit.workshop.seats import Seat
from labkit.workshop.settings import HUB_FILE, read
from tests import forked_commands
from tests.conftest import lacking
from tests.workshop.conftest import SPARE_NETWORK, UIDS
from tests.workshop.test_settings import written

pytestmark = pytest.mark.workshop


@pytest.fixture
def a_class(tmp_path, monkeypatch):
    """A workshop of two that isn't open. Its folder decides its key, so no other test's has its namespaces."""
    if sys.platform != "linux" or os.geteuid() != 0:
        lacking("root on Linux")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    # In a worker of xdist, these are a copy of the environment, whose links lead out of the sandbox.
    monkeypatch.setattr(sys, "executable", str(forked_commands.REAL / "python"))
    monkeypatch.setattr(sys, "prefix", str(forked_commands.REAL.parent))
    settings = {"names": ["ana"], "leaders": [], "users": 2, "address": address, "network": SPARE_NETWORK}
    return read(written(tmp_path, **settings, uids=UIDS + 100_000))


def sentences(workshop):
    return [lack.what for lack in machine.lacks(workshop)]


def test_a_port_in_use_is_named_with_the_process_that_has_it(a_class):
    host, port = a_class.host_and_port()
    (a_class.folder / HUB_FILE).touch()
    with socket.create_server((host, port)):
        (said,) = sentences(a_class)
        with pytest.raises(LabError, match="can't be had"):
            running.up(a_class)
        assert not a_class.state.exists() and not any(running.status(a_class).left.values())
    assert said.startswith(f"The address {a_class.address} can't be had: Address already in use.")
    assert f"Process {os.getpid()} has it." in said


def test_a_uid_in_use_is_named_with_the_process_that_has_it(a_class):
    with subprocess.Popen(["sleep", "60"], user=a_class.uids + 1) as other:
        try:
            assert sentences(a_class) == [f"Process {other.pid} of this machine has a uid of the participants."]
        finally:
            other.kill()


@contextmanager
def interface(workshop):
    """Somebody else's interface, with an address of the workshop's network."""
    name, address = f"other{workshop.key}", str(workshop.network[1])
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}b"], check=True)
    try:
        subprocess.run(["ip", "address", "add", f"{address}/30", "dev", name], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


def test_a_network_that_clashes_is_named_with_the_interface_that_has_it(a_class):
    with interface(a_class) as name:
        (said,) = sentences(a_class)
        subprocess.run(["ip", "address", "add", f"{a_class.network[5]}/30", "dev", name], check=True)
        (of_two,) = sentences(a_class)
    assert said == f"The network {a_class.network} overlaps with {a_class.network[0]}/30 on {name}."
    assert of_two == said.replace(name, f"{name} and 1 more")


def test_a_workshop_ends_no_other_that_has_its_files_in_the_same_folder(a_class, tmp_path):
    def keeper(folder):
        command = [sys.executable, "-c", "input()", "labkit.workshop.keeper", str(folder)]
        with (a_class.state / "keeper.log").open("w") as log:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log)
        (a_class.state / "processes").write_text(f"{process.pid}\n")
        return process

    a_class.state.mkdir()
    (a_class.folder / HUB_FILE).touch()
    with keeper(tmp_path / "other") as other:
        for command in (running.up, running.down):
            with pytest.raises(LabError, match=f"The workshop of {tmp_path}/other runs") as refused:
                command(a_class)
            assert refused.value.next.endswith(f"labkit workshop down {tmp_path}/other")
        with pytest.raises(LabError, match="still runs"):
            running.forget(a_class)
        assert other.poll() is None
        other.kill()
    with keeper(a_class.folder) as own:
        running.down(a_class)
        assert own.poll() is not None


def test_a_stale_namespace_with_a_process_in_it_is_replaced_and_nothing_of_it_is_left(a_class):
    stale = Seat(a_class, "trial", a_class.users)
    networks.build(stale)
    with subprocess.Popen(["ip", "netns", "exec", stale.label, "sleep", "60"]) as orphan:
        while orphan.pid not in networks.processes(stale.label):
            assert orphan.poll() is None
        assert not sentences(a_class)
        orphan.wait(10)
    assert (networks.namespaces(a_class), networks.links(a_class), limits.count(a_class)) == ([], [], 0)
    assert not stale.home.exists()


def test_a_machine_without_groups_or_loop_devices_is_named_and_enough(a_class, monkeypatch, tmp_path):
    assert not sentences(a_class)
    monkeypatch.setattr(limits, "ROOT", tmp_path / "nothing")
    monkeypatch.setattr(homes, "limited", lambda: False)
    groups, loops = machine.weaker()
    assert groups.startswith("No control groups") and loops.startswith("No loop devices")
    assert not sentences(a_class)


def test_control_groups_of_version_2_hold_each_participant_and_all_together(a_class, monkeypatch, tmp_path):
    root = tmp_path / "cgroup"
    parent = root / f"labkit-{a_class.key}"
    seat = Seat(a_class, "ana", 0)
    own = parent / seat.label
    own.mkdir(parents=True)
    (root / "cgroup.controllers").write_text("cpuset cpu memory pids\n")
    monkeypatch.setattr(limits, "ROOT", root)
    assert limits.version() == 2
    assert limits.groups(seat) == []  # the kernel made no file of a limit: here, controllers can't be allowed
    # What the kernel makes in a group otherwise.
    for file in (
        parent / "memory.max",
        *(own / name for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max")),
    ):
        file.write_text("max\n")
    (own / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 2000000\n")
    assert limits.groups(seat) == [own]
    assert (parent / "cgroup.subtree_control").read_text().startswith("+")
    allowed = seat.workshop.limits
    assert (own / "memory.max").read_text() == str(allowed.memory * 2**20)
    assert (own / "memory.swap.max").read_text() == "0"
    assert (own / "pids.max").read_text() == str(allowed.processes)
    assert (own / "cpu.max").read_text() == f"{allowed.cpu * 1000} 100000"
    assert psutil.virtual_memory().total - int((parent / "memory.max").read_text()) == limits.KEPT * 2**20
    assert limits.processor(seat) == 2.5
    with subprocess.Popen(["sleep", "60"]) as process:
        (own / "cgroup.procs").write_text(f"{process.pid}\n")
        assert limits.processes(a_class) == [process.pid] and limits.count(a_class) == 1
        process.kill()
    limits.enter([own], seat)
    assert (own / "cgroup.procs").read_text() == "0"  # the kernel reads it as the writer
