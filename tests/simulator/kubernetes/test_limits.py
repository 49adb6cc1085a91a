"""A container's limits: memory and processes, by control groups and by measuring."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from labkit.simulator.kubernetes.node import limits
from tests import another_user
from tests.simulator.kubernetes.node_lab import SLEEP, Host, ended, shell, short_folder, started, until

EAT = "exec python -c 'import time; eaten = bytearray(200 << 20); time.sleep(600)'"
FORK = "import os, signal\ntry:\n    while os.fork(): pass\n    signal.pause()\nexcept OSError as error: print(error)"


def limited(script: str, **limits: str) -> dict:
    return shell(script, resources={"limits": limits})


@pytest.mark.kubectl
def test_a_container_above_its_memory_limit_is_killed_as_the_kubelet_reports_it(host):
    host.create("neighbour", shell(SLEEP))
    host.create("eater", limited(EAT, memory="64Mi"))
    ended = host.in_phase("eater", "Failed").status.container_statuses[0].state.terminated
    assert (ended.reason, ended.exit_code) == ("OOMKilled", 137)
    assert "OOMKilled" in host.kubectl("get", "pod", "eater")
    host.create("again", limited(EAT, memory="64Mi"), restartPolicy="Always")
    until(lambda: "CrashLoopBackOff" in host.kubectl("get", "pod", "again"), "it backs off")
    described = " ".join(host.kubectl("describe", "pod", "again").split())
    assert "Reason: CrashLoopBackOff Last State: Terminated Reason: OOMKilled Exit Code: 137" in described
    host.kubectl("delete", "pod", "again", "--now")
    assert host.read("neighbour").status.container_statuses[0].restart_count == 0
    assert host.running("neighbour")


def test_a_container_below_its_memory_limit_runs_to_its_end(host):
    small = "python -c 'kept = bytearray(20 << 20); print(len(kept))'"
    assert host.output_of("modest", limited(small, memory="128Mi")) == f"{20 << 20}\n"


def test_pods_are_the_first_that_the_kernel_ends_if_the_machines_memory_is_used_up(host):
    assert host.output_of("first", shell("cat /proc/self/oom_score_adj")) == "1000\n"


@pytest.mark.parametrize("host", ["private"], indirect=True)  # without control groups, nothing limits root's processes
def test_a_container_that_forks_without_end_stops_at_the_nodes_limit(host):
    assert host.output_of("bomb", shell(f"exec python -c '{FORK}'")) == "[Errno 11] Resource temporarily unavailable\n"


@pytest.mark.parametrize("host", ["private"], indirect=True)
def test_a_pod_of_1000_containers_leaves_its_neighbours_time_and_can_be_deleted_before_all_run(host):
    host.create("many", *({**shell(SLEEP), "name": f"app-{number}"} for number in range(1000)))
    assert host.output_of("meanwhile", shell("echo goes on")) == "goes on\n"
    containers = host.read("many").status.container_statuses or []
    assert not all(each.state.running for each in containers)
    folder = host.pod_folder("many")
    host.api.delete_namespaced_pod("many", "default", grace_period_seconds=1)
    until(lambda: not folder.exists(), "its files are gone")
    assert host.output_of("after", shell("echo goes on")) == "goes on\n"


def test_a_node_that_ends_leaves_no_control_group_of_a_pod_that_was_deleted_by_force():
    host = started(short_folder("forced"), "private")
    prefixes = limits.NodeLimits.here((host.folder / "node").resolve(), private=True).prefixes
    names = [f"stays-{number}" for number in range(6)]
    for name in names:
        host.create(name, shell("trap '' TERM; while :; do sleep 1; done"), restartPolicy="Always")
    for name in names:
        host.running(name)
    for name in names:
        host.api.delete_namespaced_pod(name, "default", grace_period_seconds=0)
    ended(host)
    assert not [group for prefix in prefixes for group in prefix.parent.glob(f"{prefix.name}*")]


SHARE = {"volumeMounts": [{"name": "share", "mountPath": "/run/share"}]}
FILL = f"trap exit TERM; head -c 20M /dev/zero >/run/share/file; {SLEEP}"


@pytest.mark.parametrize(
    ("name", "fields", "volume", "message"),
    [
        ("pod", {"resources": {"limits": {"ephemeral-storage": "10Mi"}}}, {},
         "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. "),
        ("volume", {}, {"sizeLimit": "5Mi"}, 'Usage of EmptyDir volume "share" exceeds the limit "5Mi". '),
    ],
)  # fmt: skip
def test_a_pod_above_its_storage_limit_is_evicted_as_the_kubelet_reports_it(host, name, fields, volume, message):
    volumes = [{"name": "share", "emptyDir": volume}]
    host.create(f"full-{name}", shell(FILL, **SHARE, **fields), volumes=volumes, restartPolicy="Always")
    status = host.in_phase(f"full-{name}", "Failed").status
    assert (status.reason, status.message) == ("Evicted", message)
    until(lambda: ("Evicted", message) in host.events(f"full-{name}"), "the event")
    until(lambda: host.read(f"full-{name}").status.container_statuses[0].state.terminated, "it has ended")
    until(lambda: not (host.pod_folder(f"full-{name}") / "volumes").exists(), "its files are gone")


@pytest.fixture(scope="module")
def ordinary() -> Iterator[Host]:
    """A node of an ordinary user, who can't make control groups."""
    within = another_user.command()
    folder = short_folder("ordinary")
    owner = f"uid={another_user.UID},gid={another_user.UID}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=64m,mode=755,{owner}", "lab", folder], check=True)
    host = started(folder, "private", within=within)
    yield host
    host.process.terminate()
    host.process.wait(15)
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


def test_a_pod_that_fills_the_disk_is_evicted_and_its_neighbour_goes_on(ordinary):
    ordinary.create("small", shell(SLEEP))
    ordinary.create("greedy", shell(f"cat /dev/zero >/run/share/file; {SLEEP}", **SHARE),
                    volumes=[{"name": "share", "emptyDir": {}}])  # fmt: skip
    status = ordinary.in_phase("greedy", "Failed").status
    assert status.reason == "Evicted"
    assert re.fullmatch(
        r"The node was low on resource: ephemeral-storage\. Threshold quantity: 6710886, available: \d+([KM]i)?\. "
        r"Container app was using \d+[KM]i, request is 0, has larger consumption of ephemeral-storage\. ",
        status.message,
    )
    assert ordinary.running("small").status.container_statuses[0].restart_count == 0
    assert "goes on\n" in ordinary.output_of("next", shell("echo goes on"))


def test_a_node_without_control_groups_measures_memory_and_limits_processes(ordinary):
    ordinary.create("eater", limited("cat /dev/zero | tail -c 200M", memory="64Mi"))
    over = ordinary.in_phase("eater", "Failed").status.container_statuses[0].state.terminated
    assert (over.reason, over.exit_code) == ("OOMKilled", 137)
    assert "Cannot fork" in ordinary.output_of("bomb", shell("while :; do sleep 600 & done"))


@pytest.fixture
def version_2(monkeypatch, tmp_path) -> Path:
    """A folder like a mount of control groups 2, which gives a node the group `/lab`. Its files limit nothing."""
    (tmp_path / "lab" / "session").mkdir(parents=True)
    for group, controllers in (("", "cpu memory pids"), ("lab", "memory pids"), ("lab/session", "")):
        (tmp_path / group / "cgroup.subtree_control").write_text(f"{controllers}\n")
    mounted = [SimpleNamespace(fstype="proc", mountpoint="/proc", opts="rw"),
               SimpleNamespace(fstype="cgroup2", mountpoint=str(tmp_path), opts="rw,nsdelegate")]  # fmt: skip
    monkeypatch.setattr(limits.psutil, "disk_partitions", lambda all: mounted)
    read = Path.read_text
    own = {"/proc/self/cgroup": "0::/lab/session\n"}
    monkeypatch.setattr(Path, "read_text", lambda path, *more: own.get(str(path)) or read(path, *more))
    made = Path.mkdir

    def mkdir(folder: Path, *arguments, **options) -> None:
        """Make a group with the files that the kernel would give it."""
        made(folder, *arguments, **options)
        for name in ("cgroup.procs", "memory.max", "memory.oom.group", "memory.swap.max", "pids.max"):
            (folder / name).touch()
        (folder / "memory.events").write_text("max 3\noom 1\noom_kill 0\noom_group_kill 0\n")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    return tmp_path


def test_a_node_uses_control_groups_2(version_2, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    node = limits.NodeLimits.here(folder, private=True)
    assert node.parents == dict.fromkeys(("memory", "pids"), version_2 / "lab")
    assert str(node) == "memory and processes, by the kernel's control groups"
    run = node.of("run", "64Mi")
    group = version_2 / "lab" / f"{node.name}-run"
    assert node.prefixes == {version_2 / "lab" / f"{node.name}-"}
    said = subprocess.run([*run.prefix, "cat", "/proc/self/oom_score_adj"], capture_output=True, text=True, check=True)
    assert said.stdout == "1000\n"
    written = {file.name: file.read_text().strip() for file in group.iterdir() if file.name != "memory.events"}
    assert written == {
        "cgroup.procs": "0", "memory.max": str(64 << 20), "memory.oom.group": "1", "memory.swap.max": "0",
        "pids.max": "1024",
    }  # fmt: skip
    assert not run.out_of_memory
    (group / "memory.events").write_text("max 9\noom 2\noom_kill 2\noom_group_kill 1\n")
    assert run.out_of_memory


def test_a_container_without_a_memory_limit_has_a_limit_of_processes_in_control_groups_2(version_2, tmp_path_factory):
    node = limits.NodeLimits.here(tmp_path_factory.getbasetemp(), private=True)
    node.of("free")
    group = version_2 / "lab" / f"{node.name}-free"
    assert ((group / "memory.max").read_text(), (group / "pids.max").read_text()) == ("", "1024")


@pytest.mark.parametrize("lacking", ["memory", "pids"])
def test_a_node_without_a_controller_of_control_groups_2_measures(version_2, tmp_path_factory, lacking):
    for file in version_2.rglob("cgroup.subtree_control"):
        file.write_text(file.read_text().replace(lacking, ""))
    node = limits.NodeLimits.here(tmp_path_factory.getbasetemp(), private=True)
    assert node.parents == {} and str(node).startswith("memory, measured four times a second")
