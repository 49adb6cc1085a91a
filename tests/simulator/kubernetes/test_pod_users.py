"""A container's root directory and user: as root, as a user with subordinate ids, and as a user with one id."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.simulator.kubernetes.node.volumes import LEAST_MEMORY
from labkit.simulator.listener import bind
from tests import another_user
from tests.simulator.kubernetes.node_lab import SLEEP, Host, ended, shell, short_folder, started, until

TOKEN = {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"audience": "a", "path": "token"}}]}}
AT_TOKEN = {"volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/x"}]}
STAT = "stat -L -c '%a %u %g' /var/run/secrets/x/token; "
FULL = pytest.mark.parametrize("grade", ["root", "subordinate ids"], indirect=True)


@pytest.fixture(scope="module", params=["root", "subordinate ids", "one id"])
def grade(request) -> Iterator[Host]:
    """A node of root, of a user with subordinate ids, or of a user with one id."""
    if request.param == "root":
        if os.geteuid() != 0:
            pytest.skip("this user isn't root")
        host = started(short_folder("root"), "private")
    else:
        within = another_user.command(subordinate_ids=request.param == "subordinate ids")
        folder = short_folder("user")
        os.chown(folder, another_user.UID, another_user.UID)
        host = started(folder, "private", within=within)
    yield host
    out = (host.folder / "out").read_text()
    ended(host)
    assert "Traceback" not in out


def test_a_container_writes_its_own_root_and_nothing_of_the_machine(grade):
    secret = grade.folder / "secret"
    secret.write_text("of the machine")
    script = (
        f"exec 2>&1; cat {secret}; touch /usr/made /etc/made /var/made /made; ls /etc/made /var/made /made; "
        "echo $HOME $PWD $(hostname) $(cat /etc/hostname); ls -a /home; grep rooted /etc/hosts; umount /usr"
    )
    said = grade.output_of("rooted", shell(script))
    assert f"cat: {secret}: No such file or directory" in said
    assert "touch: cannot touch '/usr/made': Read-only file system" in said
    assert "/etc/made\n/made\n/var/made\n/root /aws rooted rooted\n.\n..\n" in said
    assert "\trooted\n" in said
    assert "umount: /usr: " in said
    assert not [path for path in ("/etc/made", "/var/made", "/made", "/usr/made") if Path(path).exists()]


def test_a_container_has_a_resolver_of_its_own_which_finds_nothing(grade):
    script = "cat /etc/resolv.conf; getent hosts labkit.example || echo none"
    searches = "default.svc.cluster.local svc.cluster.local cluster.local"
    ordinary = f"search {searches}\nnameserver 127.0.0.1\noptions ndots:5\n"
    assert grade.output_of("resolver", shell(script)) == f"{ordinary}none\n"


def test_volumes_that_a_kubelet_writes_are_read_only_and_in_memory(grade):
    grade.api.create_namespaced_config_map("default", {"metadata": {"name": "settings"}, "data": {"a": "1"}})
    grade.api.create_namespaced_secret("default", {"metadata": {"name": "keys"}, "stringData": {"a": "1"}})
    name = {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}
    volumes = [TOKEN, {"name": "secret", "secret": {"secretName": "keys"}}, {"name": "own", "emptyDir": {}},
               {"name": "config", "configMap": {"name": "settings"}}, {"name": "api", "downwardAPI": {"items": [name]}},
               ]  # fmt: skip
    at = [{"name": volume["name"], "mountPath": f"/v/{volume['name']}"} for volume in volumes]
    script = f"""for each in api secret token config own; do
        findmnt -no FSTYPE --target /v/$each; touch /v/$each/made 2>/dev/null && echo {"$each"} can be written
    done; {SLEEP}"""
    grade.create("kinds", shell(script, volumeMounts=at), volumes=volumes)
    disk = subprocess.run(["findmnt", "-no", "FSTYPE", "--target", grade.folder], capture_output=True, text=True).stdout
    grade.running("kinds")
    has_room = shutil.disk_usage("/dev/shm").free > LEAST_MEMORY
    in_memory = ("tmpfs\n" if has_room else disk) * 3
    until(lambda: grade.log("kinds").endswith("own can be written\n"), "it has tried all")
    assert grade.log("kinds") == f"{in_memory}{disk * 2}own can be written\n"
    uid = grade.read("kinds").metadata.uid
    assert len([*Path("/dev/shm").glob(f"labkit-*/{uid}/token")]) == has_room
    grade.api.delete_namespaced_pod("kinds", "default")
    until(lambda: not [*Path("/dev/shm").glob(f"labkit-*/{uid}")], "its tokens are gone")


def test_sys_has_the_hardware_and_can_only_be_read(grade):
    script = "exec 2>&1; cat /sys/devices/system/cpu/online; ls /sys; touch /sys/made /sys/module/made"
    said = grade.output_of("sys", shell(script))
    assert said.startswith(Path("/sys/devices/system/cpu/online").read_text())
    assert {"bus", "class", "devices"} <= set(said.split()) and not {"fs", "kernel", "firmware"} & set(said.split())
    assert said.count("Read-only file system") == 2


def test_a_container_has_the_user_of_its_manifest(grade):
    user = {"runAsUser": 1000, "runAsGroup": 3000, "allowPrivilegeEscalation": False}
    script = (
        "exec 2>&1; id -u; id -g; touch /etc/made /root/made; echo >>/etc/hosts; echo >>/etc/passwd; "
        "touch /tmp/made && echo made; mkdir /data/deep; ls /data"
    )
    app = shell(script, securityContext=user, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    said = grade.output_of("user", app, volumes=[{"name": "data", "emptyDir": {}}])
    assert said.startswith("1000\n3000\n")
    assert said.count("ermission denied") == 4
    assert said.endswith("made\ndeep\n")
    folder = grade.pod_folder("user")
    grade.api.delete_namespaced_pod("user", "default")
    until(lambda: not folder.exists(), "the pod's folder is gone")


def test_files_that_only_a_containers_user_can_see_count_as_its_storage(grade):
    fills = "mkdir -m 700 /tmp/own /v/own; head -c 20M /dev/zero | tee /tmp/own/f >/v/own/f; " + SLEEP
    limits = {"resources": {"limits": {"ephemeral-storage": "10Mi"}}, "securityContext": {"runAsUser": 1000}}
    grade.create("closed", shell(fills, **limits, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
                 volumes=[{"name": "v", "emptyDir": {}}])  # fmt: skip
    assert grade.in_phase("closed", "Failed").status.reason == "Evicted"


def test_a_read_only_root_leaves_only_volumes_writable(grade):
    script = "exec 2>&1; touch /made /tmp/made; touch /data/made && echo made"
    only = {"readOnlyRootFilesystem": True}
    app = shell(script, securityContext=only, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    said = grade.output_of("read-only", app, volumes=[{"name": "data", "emptyDir": {}}])
    assert said.count("Read-only file system") == 2
    assert said.endswith("made\n")


@pytest.mark.parametrize(("name", "of_pod", "shown"), [
    ("root", {"runAsUser": 0}, "600 0 0"),
    ("owner", {"runAsUser": 1000}, "600 1000 0"),
    ("group", {"fsGroup": 2000}, "640 0 2000"),
    ("open", {}, "644 0 0"),
])  # fmt: skip
@FULL
def test_a_tokens_owner_and_mode_are_the_kubelets(grade, name, of_pod, shown):
    app = shell(f"{STAT} cat /var/run/secrets/x/token | wc -w", **AT_TOKEN)
    assert grade.output_of(f"token-{name}", app, securityContext=of_pod, volumes=[TOKEN]) == f"{shown}\n1\n"


@FULL
def test_a_program_that_leaves_root_cannot_read_roots_token(grade):
    drops = "exec 2>&1; setpriv --reuid 1000 --clear-groups cat /var/run/secrets/x/token"
    said = grade.output_of("drops", shell(drops, **AT_TOKEN), securityContext={"runAsUser": 0}, volumes=[TOKEN])
    assert said == "cat: /var/run/secrets/x/token: Permission denied\n"


@FULL
def test_root_becomes_another_user_with_su(grade):
    su = "su nobody -s /bin/sh -c 'id -u; su -c id' 2>&1 </dev/null"
    assert grade.output_of("su", shell(su)).startswith("65534\n")


@pytest.mark.parametrize("grade", ["one id"], indirect=True)
@pytest.mark.parametrize("uid", [0, 1000])
def test_an_event_says_that_a_pod_of_one_id_keeps_its_user(grade, uid):
    switch = shell("exec 2>&1; setpriv --reuid 2000 --clear-groups true && echo switched")
    said = grade.output_of(f"keeps-{uid}", switch, securityContext={"runAsUser": uid})
    assert "setpriv: " in said and "switched" not in said
    why = "users of pods on this machine: one id: programs of pods have your user id, see it as the manifest's user"
    told = f"runAsUser isn't enforced here: {why}, and can't change it"
    until(lambda: ("NotEnforced", told) in grade.events(f"keeps-{uid}"), told)


def test_a_user_cannot_read_a_secret_of_root(grade):
    grade.api.create_namespaced_secret("default", {"metadata": {"name": "key"}, "stringData": {"key": "k"}})
    volume = {"name": "key", "secret": {"secretName": "key", "defaultMode": 0o400}}
    at = {"volumeMounts": [{"name": "key", "mountPath": "/key"}]}
    app = shell("cat /key/key 2>&1", securityContext={"runAsUser": 1000}, **at)
    assert grade.output_of("other", app, volumes=[volume]) == "cat: /key/key: Permission denied\n"
    assert grade.output_of("its-group", app, volumes=[volume], securityContext={"fsGroup": 2000}) == "k"


@pytest.mark.parametrize(("name", "user", "why"), [
    ("image", {"runAsNonRoot": True}, "container has runAsNonRoot and image will run as root"),
    ("manifest", {"runAsNonRoot": True, "runAsUser": 0}, "container's runAsUser breaks non-root policy"),
])  # fmt: skip
def test_run_as_non_root_refuses_root(grade, name, user, why):
    pod = grade.create(f"root-of-{name}", shell("true", securityContext=user))
    told = f'{why} (pod: "root-of-{name}_default({pod.metadata.uid})", container: app)'
    until(lambda: ("Failed", f"Error: {told}") in grade.events(f"root-of-{name}"), told)
    waiting = grade.read(f"root-of-{name}").status.container_statuses[0].state.waiting
    assert (waiting.reason, waiting.message) == ("CreateContainerConfigError", told)


def test_a_volume_over_the_systems_programs_fails_the_container_alone(grade):
    over = shell("true", volumeMounts=[{"name": "data", "mountPath": "/usr"}])
    grade.create("over", over, volumes=[{"name": "data", "emptyDir": {}}])
    [status] = grade.in_phase("over", "Failed").status.container_statuses
    assert status.state.terminated.reason == "StartError"
    assert 'exec: "sh": executable file not found in $PATH' in status.state.terminated.message
    assert grade.output_of("neighbour", shell("echo here")) == "here\n"


def test_an_event_says_what_the_machine_does_not_give(grade):
    rights = {"privileged": True, "capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}
    grade.create("asks", shell("exec 2>&1; mount -t tmpfs none /mnt", securityContext=rights), hostPID=True)
    grade.in_phase("asks", "Failed")

    def said():
        found = [message.partition(" isn't enforced here: ")[0] for reason, message in grade.events("asks")]
        return {"privileged", "capabilities.add: SYS_ADMIN", "hostPID"} <= set(found)

    until(said, "the events")
    assert "mount" in grade.log("asks")


def test_a_host_path_is_read_only_and_an_event_names_it(grade):
    machines = grade.folder / "of the machine"
    machines.mkdir()
    machines.chmod(0o777)
    (machines / "file").write_text("here\n")
    app = shell("exec 2>&1; cat /data/file; touch /data/made", volumeMounts=[{"name": "data", "mountPath": "/data"}])
    said = grade.output_of("host-path", app, volumes=[{"name": "data", "hostPath": {"path": str(machines)}}])
    assert said == "here\ntouch: cannot touch '/data/made': Read-only file system\n"
    told = f"hostPath {machines} is read-only here: it's your machine's, not a node's"
    until(lambda: ("NotEnforced", told) in grade.events("host-path"), told)


def test_an_image_sets_user_home_and_directory(grade):
    script = ["sh", "-c", "exec 2>&1; id -u; id -g; echo $HOME $PWD; touch /made"]
    said = grade.output_of("image", {"name": "app", "image": "curlimages/curl", "args": script})
    assert said == "100\n101\n/home/curl_user /\ntouch: cannot touch '/made': Permission denied\n"


@pytest.fixture
def nested() -> Iterator[Host]:
    """A node in bubblewrap, as in a workshop."""
    folder = short_folder("nested")
    os.chown(folder, another_user.UID, another_user.UID)
    world = ["--bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/dev/shm"]
    alone = ("--die-with-parent", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--")
    host = started(folder, "private", within=(*another_user.command(), "bwrap", *world, *alone))
    yield host
    out = (folder / "out").read_text()
    ended(host)
    assert "Traceback" not in out


@pytest.mark.workshop
def test_pods_of_a_node_in_bubblewrap_have_a_user_a_root_a_token_and_a_port_of_their_own(nested):
    with bind(0) as free:
        port = free.getsockname()[1]
    script = f"exec 2>&1; id -u; wc -w </var/run/secrets/x/token; touch /usr/made; cat {nested.folder}/admin.pem; "
    serve = f"exec python -m http.server {port}"
    app = shell(script + serve, securityContext={"runAsUser": 1000}, ports=[{"containerPort": port}], **AT_TOKEN)
    for name in ("one", "two"):
        nested.create(name, app, volumes=[TOKEN])
    for name in ("one", "two"):
        until(lambda name=name: nested.running(name).status.container_statuses[0].ready, f"{name} is ready")
        until(lambda at=nested.read(name).status.pod_ip: connects(at, port), f"{name} listens")
    until(lambda: "/admin.pem: " in nested.log("two"), "its output")
    said = nested.log("two")
    assert said.startswith("1000\n1\ntouch: cannot touch '/usr/made': Read-only file system\n")
    assert f"cat: {nested.folder}/admin.pem: No such file or directory" in said
    assert {nested.read(name).status.pod_ip for name in ("one", "two")} == {"127.0.0.1", "127.0.0.2"}


def connects(address: str, port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((address, port)) == 0
