"""The lab's server: it starts despite damaged files, says what it did, and ends with every process it started."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from labkit import Lab
from labkit.errors import LabError
from labkit.simulator.folder import Folder
from labkit.simulator.process import State
from tests import another_user, commands
from tests.lifecycle.processes import gone, run_a_pod, server

KEYS = {"target", "cluster", "region", "account_id", "aws", "kubeconfig", "issuer", "ca_file"}


def test_two_ups_at_once_start_one_server(labkit):
    with ThreadPoolExecutor(2) as pool:
        home = {"LABKIT_HOME": str(labkit.folder.path)}
        done = list(pool.map(lambda _: commands.labkit_process("up", "--json", **home), range(2)))
        answers = [json.loads(each.stdout) for each in done]
    assert answers[0] == answers[1]
    assert set(answers[0]) == KEYS
    assert set(answers[0]["aws"]) == {"endpoint_url", "access_key_id", "secret_access_key"}
    found = [p for p in psutil.process_iter(["cmdline"]) if str(labkit.folder.path) in (p.info["cmdline"] or [])]
    assert len(found) == 1


def test_down_ends_every_process(labkit):
    labkit("up")
    processes = [server(labkit), *run_a_pod(labkit)]
    assert "ended" in labkit("down")
    assert gone(processes) == []
    assert "No lab runs" in labkit("status")
    assert "No lab runs" in labkit("down")


def test_a_killed_server_s_processes_end_and_status_and_up_say_it_was_killed(labkit):
    issuer = json.loads(labkit("up", "--json"))["issuer"]
    processes = [server(labkit), *run_a_pod(labkit)]
    processes[0].send_signal(signal.SIGKILL)
    assert gone(processes) == []
    assert "was killed" in labkit("status")
    said = labkit("up")
    assert "was killed and was started again" in said
    assert "blue" in said
    assert issuer in said


def test_a_notebook_reports_that_its_server_was_killed(labkit, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(labkit.folder.path))
    with Lab.open() as opened:
        opened.ready(through="iam_role")
        killed = server(labkit)
        killed.kill()
        gone([killed])
        for asks in (lambda: opened.check("iam_role"), lambda: opened.ready(through="pod"), opened.diagnose):
            with pytest.raises(LabError, match="no longer answers") as failure:
                asks()
            assert re.search(r"//127\.0\.0\.1:|the cluster's API server", failure.value.where)


def test_up_replaces_a_port_that_is_in_use_and_says_so(labkit):
    before = json.loads(labkit("up", "--json"))
    labkit("down")
    taken = int(before["aws"]["endpoint_url"].rpartition(":")[2])
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", taken))
        other.listen()
        said = labkit("up")
    assert f"Port {taken} was in use: the lab's gate now listens on" in said
    assert f"Port {taken} was in use" in labkit("status")
    after = json.loads(labkit("up", "--json"))
    assert after["aws"]["endpoint_url"] != before["aws"]["endpoint_url"]
    assert after["issuer"] == before["issuer"]


def test_ports_keys_and_ids_are_the_same_after_down_and_up(labkit):
    before = labkit("up", "--json", "--cluster", "green")
    labkit("down")
    assert labkit("up", "--json", "--cluster", "green") == before


def test_an_issuer_s_replaced_keys_stay_until_the_lab_is_reset(labkit):
    issuer = json.loads(labkit("up", "--json"))["issuer"]
    override = labkit.folder.published.override(issuer, "keys")
    override.set(403, "")
    assert "403" in labkit("fetch", f"{issuer}/keys", fails=True)
    labkit("down")
    labkit("up")
    assert "403" in labkit("fetch", f"{issuer}/keys", fails=True)
    labkit("reset")
    labkit("up")
    assert override.get() is None
    assert json.loads(labkit("fetch", f"{issuer}/keys"))["keys"]


@pytest.mark.parametrize("content", ["[1]", '{"gate": "x", "issuer/us-east-1": null}', '{"gate": 99999}'])
def test_up_starts_despite_a_damaged_ports_file(labkit, content):
    labkit.folder.create()
    (labkit.folder.path / "ports.json").write_text(content)
    assert "The lab is up" in labkit("up")


@pytest.mark.parametrize("content", ["", "{", '{"pid": 1}', '{"pid": 1, "unknown": 2}', "[]"])
def test_up_starts_despite_stale_files_of_an_old_server(labkit, content):
    labkit.folder.create()
    (labkit.folder.path / "server.json").write_text(content)
    (labkit.folder.path / "server.lock").write_text("")
    (labkit.folder.path / "ports.json").write_text("nonsense")
    assert "The lab is up" in labkit("up")


def test_down_while_the_lab_starts_ends_only_the_lab(labkit):
    stranger = subprocess.Popen(["sleep", "100"])
    try:
        labkit.folder.write_json("server.json", {"pid": stranger.pid})
        up = subprocess.Popen(
            [commands.LABKIT, "up"],
            env={**os.environ, "LABKIT_HOME": str(labkit.folder.path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not labkit.folder.is_running():
            assert up.poll() is None
        assert "The lab has ended" in labkit("down")
        assert "Traceback" not in up.communicate()[1]
        assert stranger.poll() is None
        assert not labkit.folder.is_running()
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_whose_up_was_interrupted_ends_and_status_says_so(labkit):
    labkit("up")
    labkit("down")
    reading, writing = os.pipe()
    arguments = [sys.executable, "-m", "labkit.simulator", str(labkit.folder.path), str(writing)]
    with (
        labkit.folder.log_file.open("w") as log,
        subprocess.Popen(arguments, pass_fds=[writing], stderr=log) as started,
    ):
        os.close(writing)
        os.close(reading)
        assert started.wait(60) == 0
    assert labkit.folder.log_file.read_text() == ""
    assert "The last server was interrupted while it started." in labkit("status")
    assert "The lab's server was interrupted while it started and was started again, with" in labkit("up")


def test_reset_forgets_everything_except_the_ports(labkit):
    before = json.loads(labkit("up", "--json"))
    labkit("clock", "+2h")
    labkit("reset")
    assert {file.name for file in labkit.folder.path.iterdir()} <= {"ports.json", "server.lock", "start.lock"}
    assert "the machine's time" in labkit("clock")
    after = json.loads(labkit("up", "--json"))
    assert (after["aws"]["endpoint_url"], after["issuer"]) == (before["aws"]["endpoint_url"], before["issuer"])
    assert after["aws"]["secret_access_key"] != before["aws"]["secret_access_key"]


def test_up_makes_key_files_again_that_a_full_disk_left_empty(labkit):
    labkit("up")
    keys = State.read(labkit.folder).secret_access_key
    labkit("down")
    names = ["secret", *(f"{name}.{kind}" for name in ("ca", "clusters/blue/ca") for kind in ("pem", "key"))]
    names.append("clusters/blue/sa.key")
    for name in names:
        (labkit.folder.path / name).write_bytes(b"")
    assert "The lab is up" in labkit("up")
    assert all((labkit.folder.path / name).stat().st_size for name in names)
    assert len(labkit.folder.secret) == 32
    assert State.read(labkit.folder).secret_access_key != keys
    endpoint = State.read(labkit.folder).clusters["blue"]["endpoint"]
    assert httpx.get(f"{endpoint}/version", verify=False, timeout=60).status_code == 200


@pytest.mark.parametrize("content", ["1e300", "-1e400", "nan", "tomorrow", "9" * 5000])
def test_a_clock_file_without_a_valid_offset_means_the_machine_s_time(labkit, content):
    labkit.folder.create()
    labkit.folder.clock.file.write_text(content)
    assert "the machine's time" in labkit("clock")
    if content == "1e300":
        said = labkit("up")
        assert "held '1e300', which is not a valid offset. The lab's clock was reset." in said
        assert float(labkit.folder.clock.file.read_text()) == 0


def test_up_needs_a_hard_limit_of_256_open_files_and_names_it(labkit):
    arguments = f"cd {labkit.folder.path.parent} && LABKIT_HOME={labkit.folder.path} {commands.LABKIT} up"
    done = subprocess.run(["sh", "-c", f"ulimit -n 64; {arguments}"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    told, where, then, *_ = done.stderr.splitlines()
    assert told.endswith("A process may have 64 open files here, and the lab's server needs 256.")
    assert (where, then[:22]) == ("where: ulimit -Hn", "next:  ulimit -n 1024 ")
    soft = subprocess.run(["sh", "-c", f"ulimit -S -n 64; {arguments}"], capture_output=True, text=True, check=False)
    assert (soft.returncode, "The lab is up" in soft.stdout) == (0, True), soft.stderr


@pytest.fixture
def on_disk(labkit):
    """Return a function that runs a shell script with the lab's folder on a disk of a given size."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a user namespace, for a disk of its own")
    labkit.folder.create()

    def run(size: str, script: str) -> subprocess.CompletedProcess:
        leading = {**os.environ, "LABKIT_HOME": str(labkit.folder.path), "LABKIT": str(commands.LABKIT)}
        script = f'mount -t tmpfs -o size={size} tmpfs "$LABKIT_HOME" && {script}'
        return subprocess.run(
            ["unshare", "-rm", "sh", "-c", script], env=leading, capture_output=True, text=True, check=False
        )

    return run


def test_up_on_a_full_disk_says_to_make_room(labkit, on_disk):
    done = on_disk("4k", "$LABKIT up")
    assert done.returncode == 1
    assert "no space is left on the disk" in done.stderr
    assert f"df -h {labkit.folder.path}, make room" in done.stderr
    assert "Traceback" not in done.stderr


POD_ON_A_FULL_DISK = """
import os
from kubernetes import client, config, watch
api = client.CoreV1Api(config.new_client_from_config(os.environ["LABKIT_HOME"] + "/kubeconfig"))
container = {"name": "c", "image": "amazon/aws-cli", "command": ["sleep", "100"]}
pod = {"metadata": {"name": "full"}, "spec": {"containers": [container]}}
try:
    api.create_namespaced_pod("default", pod)
except client.ApiException as error:
    print(error.body)
os.unlink(os.environ["LABKIT_HOME"] + "/fill")
api.create_namespaced_pod("default", pod)
pods = watch.Watch().stream(api.list_namespaced_pod, "default", timeout_seconds=60)
print(next(event["object"].status.phase for event in pods if event["object"].status.phase == "Running"))
"""


def test_a_running_lab_names_the_full_disk_and_works_again_with_room(on_disk):
    done = on_disk(
        "16m",
        f"$LABKIT up && ! cat /dev/zero > $LABKIT_HOME/fill; ! $LABKIT clock +1h && "
        f"{sys.executable} -c '{POD_ON_A_FULL_DISK}'; $LABKIT down",
    )
    assert "labkit: The clock cannot be moved: No space left on device: " in done.stderr
    *_, told, phase, _ = done.stdout.splitlines()
    assert "the lab's state could not be written: no space is left on the disk" in told, done.stdout + done.stderr
    assert phase == "Running"


def test_an_aws_call_refused_by_a_full_disk_leaves_nothing_behind(on_disk, monkeypatch):
    """Nor after a restart. With this hash seed, the set of regions changes its order when it's stored."""
    monkeypatch.setenv("PYTHONHASHSEED", "17")
    done = on_disk("24m", f"$LABKIT up && {sys.executable} -m tests.lifecycle.full_disk; $LABKIT down")
    assert "PutObject" in done.stdout, done.stdout + done.stderr
    refused = json.loads(done.stdout.splitlines()[-2])
    assert {"CreateRole", "PutObject", "CreateAccessEntry", "EnableRegion"} <= {*refused}, refused


def test_snapshot_and_restore_on_a_full_disk_say_so_and_the_lab_runs_on(on_disk):
    fill = "! cat /dev/zero > $LABKIT_HOME/fill"
    done = on_disk(
        "16m",
        f"$LABKIT up && {fill}; ! $LABKIT snapshot one && rm $LABKIT_HOME/fill && $LABKIT snapshot one && "
        f"{fill}; ! $LABKIT restore one --force && rm $LABKIT_HOME/fill && $LABKIT status; $LABKIT down",
    )
    told = [line for line in done.stderr.splitlines() if line.startswith("labkit: ")]
    assert len(told) == 2, done.stderr
    assert all("no space is left on the disk" in line for line in told), told
    assert "The lab's state is saved in" in done.stdout
    assert " runs (process " in done.stdout
    assert "Traceback" not in done.stderr


def test_a_server_that_cannot_start_says_why(labkit):
    labkit.folder.write_json("ports.json", {})
    (labkit.folder.path / "secret").mkdir()
    said = labkit("up", fails=True)
    assert "did not come up" in said
    assert "next:  labkit up, which tries again and loses nothing" in said


def test_a_server_without_a_library_names_it_and_suggests_no_reset(tmp_path):
    (tmp_path / "flask.py").write_text("raise ModuleNotFoundError(\"No module named 'flask'\")")
    done = commands.labkit_process("up", LABKIT_HOME=str(tmp_path / ".lab"), PYTHONPATH=str(tmp_path))
    first, *_, last = done.stderr.splitlines()
    assert first == "labkit: the lab's server could not be loaded: No module named 'flask'."
    assert last.endswith("in a clone of the repository: make -B setup")
    assert "reset" not in done.stderr


def test_other_users_cannot_read_the_lab_s_files(labkit):
    before, folder = os.umask(0), labkit.folder
    try:
        folder.path.mkdir()
        labkit("up")
        run_a_pod(labkit)
        labkit("clock", "+1h")
        labkit("snapshot", "kept")
    finally:
        os.umask(before)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    own = [path for path in folder.path.rglob("*") if folder.pods not in path.parents and not path.is_symlink()]
    assert {path.name: oct(path.stat().st_mode) for path in own if path.stat().st_mode & 0o077} == {}
    assert {"clock", "pods", "server.log", "server.sock"} <= {path.name for path in own}


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
OTHER = ("setpriv", "--reuid=1234", "--regid=1234", "--clear-groups")
CLOSED = {35, 52, 56}  # curl's exit codes for a connection that ends before an answer


def asked(folder: Folder, *before: str) -> dict[str, int]:
    """Return curl's exit code for the ports that ask for no key, with a command before curl."""
    ports = folder.read_json("ports.json")
    urls = {
        "metadata": f"http://127.0.0.1:{ports['blue/metadata']}/latest/api/token",
        "agent": f"http://127.0.0.1:{ports['blue/pod-identity-agent']}/v1/credentials",
        "webhook": f"https://127.0.0.1:{ports['blue/webhook']}/healthz",
        "issuer": f"https://127.0.0.1:{ports['issuer/us-east-1']}/",  # it's public
    }
    curl = [*before, "curl", "--noproxy", "*", "--insecure", "--silent", "--max-time", "60"]
    return {name: subprocess.run([*curl, url], capture_output=True).returncode for name, url in urls.items()}


@needs_root
def test_another_user_gets_nothing_from_the_ports_of_roots_lab(labkit):
    labkit("up")
    assert set(asked(labkit.folder).values()) == {0}
    other = asked(labkit.folder, *OTHER)
    assert other.pop("issuer") == 0
    assert set(other.values()) <= CLOSED, other
    agent = f"http://127.0.0.1:{labkit.folder.read_json('ports.json')['blue/pod-identity-agent']}/v1/credentials"
    curl = f"id -u; curl --noproxy '*' --silent --output /dev/null --max-time 60 {agent}; echo $?"
    assert said_by_a_pod(labkit.folder, curl, securityContext={"runAsUser": 1234}) == "1234\n0\n"
    assert "callers   checked: " in labkit("status")
    assert "users     as in the manifest" in labkit("status")
    assert "- callers: checked" in labkit("status", "--report")


@pytest.fixture
def ordinary():
    """Return a function that runs labkit as an ordinary user with one id, and end the user's lab after the test."""
    home = Path(tempfile.mkdtemp(prefix="ordinary-"))  # pytest's folders are root's alone
    folder = Folder(home / "lab")
    os.chown(home, another_user.UID, another_user.UID)
    user = (*another_user.command(), commands.LABKIT)
    environment = os.environ | {"HOME": str(home), "LABKIT_HOME": str(folder.path)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*user, *arguments], env=environment, cwd=home, capture_output=True, text=True)

    run.folder = folder
    yield run
    run("down")
    shutil.rmtree(home, ignore_errors=True)


@needs_root
def test_an_ordinary_users_pod_gets_the_nodes_role_and_root_gets_nothing(ordinary):
    assert ordinary("up", "--imds", "open").returncode == 0
    folder = ordinary.folder
    assert "assumed-role/blue-node-role/" in said_by_a_pod(folder, "aws sts get-caller-identity")
    assert set(asked(folder, *OTHER).values()) == {0}
    root = asked(folder)
    assert root.pop("issuer") == 0
    assert set(root.values()) <= CLOSED, root


@needs_root
def test_a_fault_that_would_show_nothing_on_this_machine_is_refused(ordinary):
    assert ordinary("up").returncode == 0
    refused = ordinary("break", "program-that-leaves-root")
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        "labkit: program-that-leaves-root would show nothing: on this machine, a pod's program can't become another "
        "user.\nwhere: users of pods: one id: "
    )
    assert "Nothing is broken" in ordinary("mend").stderr


def test_the_report_says_that_the_kernel_names_no_callers(labkit):
    folder = labkit.folder
    facts = dict.fromkeys(("account_id", "region", "endpoint_url", "access_key_id", "secret_access_key"), "")
    State(**facts, pid=1, issuers={}, ca_file=folder.ca_file, kubeconfig=folder.kubeconfig).write(folder)
    with folder.lock("server.lock"):
        assert "- callers: unchecked" in commands.labkit("status", "--report", LABKIT_HOME=str(folder.path)).stdout


def said_by_a_pod(folder: Folder, command: str, **fields: object) -> str:
    """Run a shell command in a new pod with these `fields` in its spec, and return what it prints."""
    from kubernetes import client, config, watch

    api = client.CoreV1Api(config.new_client_from_config(str(folder.kubeconfig)))
    container = {"name": "c", "image": "amazon/aws-cli", "command": ["sh", "-c", f"{command} 2>&1"]}
    spec = {"containers": [container], "restartPolicy": "Never"}
    api.create_namespaced_pod("default", {"metadata": {"name": "says"}, "spec": {**spec, **fields}})
    events = watch.Watch().stream(api.list_namespaced_pod, "default", field_selector="metadata.name=says")
    next(event for event in events if event["object"].status.phase in ("Succeeded", "Failed"))
    return api.read_namespaced_pod_log("says", "default")


def test_every_port_is_on_loopback_and_refuses_foreign_hosts_and_web_pages(labkit):
    labkit("up", "--imds", "open")  # or the metadata service would answer no pod
    listening = [c.laddr for c in server(labkit).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    # gate and issuer; the cluster's API server, webhook, kubelet, metadata service (twice) and Pod Identity agent
    assert len(listening) == 8
    assert {address.ip for address in listening} == {"127.0.0.1"}
    issuer = f"oidc.eks.us-east-1.amazonaws.com:{State.read(labkit.folder).issuers['oidc.eks.us-east-1.amazonaws.com']}"
    for address in listening:
        own = issuer if issuer.endswith(f":{address.port}") else f"127.0.0.1:{address.port}"
        answers = [
            answer(address.port, headers)
            for headers in ({"Host": own}, {"Host": "rebound.example"}, {"Host": own, "Origin": "https://page.example"})
        ]
        assert answers[0] not in (421, None), f"port {address.port} does not answer to {own}"
        assert answers[1:] == [421, 403], f"port {address.port}"


def answer(port: int, headers: dict[str, str]) -> int | None:
    """Return the status of a GET with these headers, over TLS if the port speaks it."""
    for scheme in ("https", "http"):
        try:
            url = f"{scheme}://127.0.0.1:{port}/"
            return httpx.get(url, headers=headers, verify=False, trust_env=False, timeout=60).status_code
        except httpx.TransportError:
            continue
    return None
