"""Pods on the node, seen through the Kubernetes API, with private mounts or mapped paths."""

import base64
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from kubernetes import client

from labkit.tokens import read_jwt
from tests.simulator.kubernetes.node_lab import SLEEP, shell, short_folder, started, until

TOKEN_FOLDER = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
TOKEN_VOLUME = {
    "name": "aws-iam-token",
    "projected": {"sources": [{"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": 86400,
            "path": "token"}}]},
}  # fmt: skip
CONFIG_ERROR, CREATE_ERROR = "CreateContainerConfigError", "CreateContainerError"
TOKEN_MOUNT = {"name": "aws-iam-token", "mountPath": TOKEN_FOLDER, "readOnly": True}


def waiting(host, name, reason, restarts=0):
    """Wait until the pod's container waits for this reason, and return the container's status."""

    def status():
        [status] = host.read(name).status.container_statuses or [None]
        waits = status and status.state.waiting and status.state.waiting.reason == reason
        return status if waits and status.restart_count == restarts else None

    return until(status, reason)


def test_a_pod_reads_its_token_at_aws_web_identity_token_file(host):
    container = shell(
        'cat "$AWS_WEB_IDENTITY_TOKEN_FILE"; echo; stat -L -c %a "$AWS_WEB_IDENTITY_TOKEN_FILE"',
        env=[{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": TOKEN_FOLDER + "/token"}],
        volumeMounts=[TOKEN_MOUNT],
    )
    token, mode = host.output_of("token", container, volumes=[TOKEN_VOLUME]).split()

    claims = read_jwt(token)[1]
    assert (claims["aud"], claims["sub"]) == (["sts.amazonaws.com"], "system:serviceaccount:default:default")
    assert claims["kubernetes.io"]["pod"]["name"] == "token"
    assert mode == "644"


@pytest.mark.parametrize("host", ["private"], indirect=True)  # a mapped mount is at another path
def test_a_private_mount_is_at_its_own_path_and_invisible_outside_the_pod(host):
    script = (
        "exec 2>&1;"  # one stream keeps its order
        f" cat {TOKEN_FOLDER}/token; ls /run; touch {TOKEN_FOLDER}/x; echo kept >/made/in/data; cat /made/in/data;"
        " cat /etc/made/greeting; ls /etc/passwd"
    )
    container = shell(
        script,
        volumeMounts=[
            TOKEN_MOUNT,
            {"name": "scratch", "mountPath": "/made/in"},
            {"name": "words", "mountPath": "/etc/made"},
        ],
    )
    host.api.create_namespaced_config_map("default", {"metadata": {"name": "words"}, "data": {"greeting": "hello\n"}})
    volumes = [TOKEN_VOLUME, {"name": "scratch", "emptyDir": {}}, {"name": "words", "configMap": {"name": "words"}}]

    printed = host.output_of("private", container, volumes=volumes)

    assert printed.split("secrets")[0].count(".") == 2
    assert "Read-only file system" in printed
    assert "kept\nhello\n/etc/passwd\n" in printed
    assert "secrets" in printed
    assert not Path("/made").exists()
    assert not Path("/etc/made").exists()


def test_containers_of_one_pod_have_their_own_mounts(host):
    read = "cat /run/only/here/token >/dev/null 2>&1 && echo there || echo missing"
    host.create(
        "two",
        {**shell(read, volumeMounts=[{"name": "aws-iam-token", "mountPath": "/run/only/here"}]), "name": "with"},
        {**shell(read), "name": "without"},
        volumes=[TOKEN_VOLUME],
    )
    host.in_phase("two", "Succeeded")
    assert host.log("two", container="with") == "there\n"
    assert host.log("two", container="without") == "missing\n"


def test_a_container_gets_the_variables_of_its_spec_and_none_of_the_hosts(host):
    host.api.create_namespaced_config_map("default", {"metadata": {"name": "settings"}, "data": {"A": "1", "B": "2"}})
    secret = {"metadata": {"name": "hidden"}, "data": {"password": base64.b64encode(b"s3cret").decode()}}
    host.api.create_namespaced_secret("default", secret)
    container = {
        "name": "app",
        "image": "python:3.12",
        "command": ["python", "-c", "import os, json; print(json.dumps(dict(os.environ)))", "$(PLAIN)"],
        "envFrom": [{"prefix": "S_", "configMapRef": {"name": "settings"}}],
        "env": [
            {"name": "PLAIN", "value": "x"},
            {"name": "JOINED", "value": "$(PLAIN)-$(S_A)-$(NONE)-$$(PLAIN)"},
            {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "B"}}},
            {"name": "HIDDEN", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "password"}}},
            {"name": "MISSING", "valueFrom": {"secretKeyRef": {"name": "no", "key": "no", "optional": True}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "AWS_ENDPOINT_URL", "value": "https://sts.amazonaws.com"},
        ],
    }
    env = json.loads(host.output_of("variables", container))

    assert env["JOINED"] == "x-1-$(NONE)-$(PLAIN)"
    assert (env["S_A"], env["S_B"], env["ONE"], env["HIDDEN"]) == ("1", "2", "2", "s3cret")
    assert (env["POD"], env["LABEL"], env["HOSTNAME"]) == ("variables", "variables", "variables")
    assert env["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"
    assert env["HOME"] == "/root" if host.mounts == "private" else env["HOME"].startswith(str(host.folder))
    assert "MISSING" not in env
    assert [name for name in env if name.startswith("AWS_")] == ["AWS_ENDPOINT_URL"]
    assert not {"HTTPS_PROXY", "VIRTUAL_ENV", "USER"} & env.keys()
    spec = host.read("variables").spec.containers[0]
    assert "LD_PRELOAD" not in [variable.name for variable in spec.env]


def test_aws_and_python_are_those_of_this_environment(host):
    python = {
        "name": "app",
        "image": "public.ecr.aws/lambda/python:3.12",
        "command": ["python3", "-c", "import boto3, sys; print(sys.prefix)"],
    }
    assert host.output_of("python", python).strip() == str(Path(sys.executable).parents[1])
    aws = {"name": "app", "image": "public.ecr.aws/aws-cli/aws-cli:2.17", "args": ["--version"]}
    assert host.output_of("aws", aws).startswith("aws-cli/")


WITH_CURL = pytest.mark.skipif(not shutil.which("curl"), reason="no curl")


@pytest.mark.parametrize(("image", "args", "printed"), [
    ("python:3", ["sh", "-c", "echo hi"], "hi\n"),
    ("busybox", ["echo", "hi"], "hi\n"),
    ("curlimages/curl", ["sh", "-c", "echo hi"], "hi\n"),
    pytest.param("curlimages/curl", ["--version"], "curl ", marks=WITH_CURL),
])  # fmt: skip
def test_arguments_run_as_the_images_entrypoint_runs_them(host, image, args, printed):
    name = f"{image.partition(':')[0].replace('/', '-')}-{len(args)}"
    assert host.output_of(name, {"name": "app", "image": image, "args": args}).startswith(printed)


def test_a_pods_status_reports_how_its_program_ended(host):
    host.create("ends", shell("exit 3"))
    pod = host.in_phase("ends", "Failed")
    [status] = pod.status.container_statuses
    ended = status.state.terminated
    assert (ended.exit_code, ended.reason, status.ready, status.restart_count) == (3, "Error", False, 0)
    assert ended.started_at <= ended.finished_at
    conditions = {condition.type: (condition.status, condition.reason) for condition in pod.status.conditions}
    assert conditions["Ready"] == ("False", "PodFailed")
    assert conditions["PodScheduled"][0] == "True"
    assert (pod.status.pod_ip, pod.status.host_ip) == ("127.0.0.1", "127.0.0.1")


def test_a_pod_ends_with_its_program_and_so_does_a_leftover_child_process(host):
    host.create("leaves", shell("sleep 300 & echo $!"))
    host.in_phase("leaves", "Succeeded")
    folder = str(host.pod_folder("leaves"))
    until(lambda: not processes_with(folder), "the child has ended")


def test_a_missing_program_fails_the_pod(host):
    host.create("missing", {"name": "app", "image": "python", "command": ["nonesuch"]})
    [status] = host.in_phase("missing", "Failed").status.container_statuses
    ended = status.state.terminated
    assert (ended.exit_code, ended.reason) == (128, "StartError")
    assert 'exec: "nonesuch": executable file not found in $PATH' in ended.message


def test_a_pod_with_an_unknown_image_waits_and_lists_the_known_images(host):
    host.create("nginx", {"name": "app", "image": "nginx:1.27"})
    message = waiting(host, "nginx", "ErrImagePull").state.waiting.message
    assert 'failed to pull image "nginx:1.27"' in message
    assert "only these images work: alpine, amazon/aws-cli, amazonlinux, " in message
    assert "public.ecr.aws/aws-cli/aws-cli, public.ecr.aws/lambda/python, python, ubuntu. Use one" in message
    assert "Back-off pulling image" in waiting(host, "nginx", "ImagePullBackOff").state.waiting.message
    until(lambda: ("BackOff", 'Back-off pulling image "nginx:1.27"') in host.events("nginx"), "the event")
    with pytest.raises(client.ApiException) as refused:
        host.log("nginx")
    assert refused.value.status == 400
    assert "is waiting to start: trying and failing to pull image" in json.loads(refused.value.body)["message"]


def test_a_container_waits_for_a_missing_config_map(host):
    variable = {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "x"}}}
    host.create("waits", shell("echo $X", env=[variable]))
    assert waiting(host, "waits", CONFIG_ERROR).state.waiting.message == 'configmap "late" not found'
    host.api.create_namespaced_config_map("default", {"metadata": {"name": "late"}, "data": {"x": "came"}})
    host.in_phase("waits", "Succeeded")
    assert host.log("waits") == "came\n"


def test_init_containers_run_in_order_and_a_sidecar_ends_with_the_pod(host):
    share = {"volumeMounts": [{"name": "share", "mountPath": "/run/share"}]}
    host.create(
        "ordered",
        shell("cat /run/share/order", **share),
        initContainers=[
            {**shell("echo first >>/run/share/order", **share), "name": "first"},
            {**shell(SLEEP), "name": "sidecar", "restartPolicy": "Always"},
            {**shell("echo second >>/run/share/order", **share), "name": "second"},
        ],
        volumes=[{"name": "share", "emptyDir": {}}],
    )
    pod = host.in_phase("ordered", "Succeeded")
    assert host.log("ordered", container="app") == "first\nsecond\n"
    folder = str(host.pod_folder("ordered"))
    until(lambda: not processes_with(folder), "the sidecar has ended")
    assert [status.name for status in pod.status.init_container_statuses] == ["first", "sidecar", "second"]


def test_a_failed_init_container_fails_the_pod(host):
    host.create("unready", shell("echo never"), initContainers=[{**shell("exit 4"), "name": "setup"}])
    pod = host.in_phase("unready", "Failed")
    assert pod.status.init_container_statuses[0].state.terminated.exit_code == 4
    assert pod.status.container_statuses[0].state.waiting.reason == "PodInitializing"


def test_a_failed_container_is_restarted_after_a_back_off_by_the_labs_clock(host):
    host.create("crashes", shell("echo run; exit 1"), restartPolicy="Always")
    status = waiting(host, "crashes", "CrashLoopBackOff", restarts=1)
    assert "back-off 10s restarting failed container=app pod=crashes_default(" in status.state.waiting.message
    assert (status.last_state.terminated.exit_code, host.log("crashes", previous=True)) == (1, "run\n")
    try:
        host.clock.advance(seconds=11)
        assert "back-off 20s" in waiting(host, "crashes", "CrashLoopBackOff", restarts=2).state.waiting.message
    finally:
        host.clock.reset()
    host.api.delete_namespaced_pod("crashes", "default")


@pytest.fixture(scope="module")
def sleeper(host) -> str:
    host.create(
        "sleeper", shell("exec sleep 600", env=[{"name": "X", "value": "1"}], volumeMounts=[TOKEN_MOUNT]),
        volumes=[TOKEN_VOLUME], terminationGracePeriodSeconds=1,
    )  # fmt: skip
    host.running("sleeper")
    return "sleeper"


def test_the_kubelet_refuses_a_client_without_a_certificate(host, sleeper):
    [node] = host.api.list_node().items
    port = node.status.daemon_endpoints.kubelet_endpoint.port
    url = f"https://127.0.0.1:{port}/containerLogs/default/{sleeper}/app"
    answer = httpx.get(url, verify=False, trust_env=False, timeout=60)
    assert answer.status_code == 401


def test_a_token_is_renewed_by_the_labs_clock(host, sleeper):
    def token():
        return host.exec(sleeper, "cat", TOKEN_FOLDER + "/token").stdout

    before = token()
    try:
        host.clock.advance(hours=20)
        after = until(lambda: (found := token()) != before and found, "a new token")
        claims = read_jwt(after)[1]
        assert abs(claims["iat"] - host.clock.now()) < 60
    finally:
        host.clock.reset()
    back = until(lambda: (found := token()) != after and found, "a token of the time that the clock was set back to")
    assert abs(read_jwt(back)[1]["iat"] - time.time()) < 60


def test_pods_see_the_labs_time(host, sleeper):
    if not json.loads((host.folder / "ready").read_text())["clock"]:
        pytest.skip("libfaketime's library does not load here")
    try:
        host.clock.advance(hours=2)
        seen = float(host.exec(sleeper, "date", "+%s").stdout)
    finally:
        host.clock.reset()
    assert abs(seen - time.time() - 7200) < 30


def test_a_deleted_pod_gets_sigterm_and_is_removed(host):
    script = "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    host.create("polite", shell(script))
    host.running("polite")
    until(lambda: host.log("polite") == "ready\n", "it is ready")
    folder = host.pod_folder("polite")
    lines = host.api.read_namespaced_pod_log("polite", "default", follow=True, _preload_content=False).stream()
    host.api.delete_namespaced_pod("polite", "default")
    assert b"".join(lines) == b"ready\nasked\n"
    until(lambda: not host.api.list_namespaced_pod("default", label_selector="app=polite").items, "it is gone")
    until(lambda: not folder.exists(), "its folder is gone")
    until(lambda: ("Killing", "Stopping container app") in host.events("polite"), "the event")


def test_a_pod_that_ignores_sigterm_is_killed(host):
    host.create("stubborn", shell("trap '' TERM; echo ready; while :; do sleep 0.05; done"))
    host.running("stubborn")
    until(lambda: host.log("stubborn") == "ready\n", "it is ready")
    folder = str(host.pod_folder("stubborn"))
    host.api.delete_namespaced_pod("stubborn", "default", grace_period_seconds=1)
    until(lambda: not host.api.list_namespaced_pod("default", label_selector="app=stubborn").items, "it is gone")
    until(lambda: not processes_with(folder), "its processes are gone")


def test_a_namespace_stays_until_its_pods_processes_have_ended(host):
    host.api.create_namespace({"metadata": {"name": "ending"}})
    # It ignores SIGTERM and has a grace period of five minutes.
    container = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    spec = {"containers": [container], "terminationGracePeriodSeconds": 300}
    pod = host.api.create_namespaced_pod("ending", {"metadata": {"name": "stubborn"}, "spec": spec})
    until(lambda: host.api.read_namespaced_pod("stubborn", "ending").status.phase == "Running", "it runs")
    until(lambda: host.api.read_namespaced_pod_log("stubborn", "ending") == "ready\n", "it is ready")
    host.api.delete_namespace("ending")
    with pytest.raises(client.ApiException) as refusal:
        host.api.create_namespaced_pod("ending", {"metadata": {"name": "late"}, "spec": spec})
    said = json.loads(refusal.value.body)
    why = "unable to create new content in namespace ending because it is being terminated"
    assert (refusal.value.status, said["message"]) == (403, f'pods "late" is forbidden: {why}')
    assert [cause["reason"] for cause in said["details"]["causes"]] == ["NamespaceTerminating"]
    assert host.api.read_namespace("ending").status.phase == "Terminating"
    # The pods are deleted first, so that they have their service account until they end.
    assert host.api.read_namespaced_service_account("default", "ending")
    assert processes_with(str(host.folder / "node" / "pods" / pod.metadata.uid))
    host.api.delete_namespaced_pod("stubborn", "ending", grace_period_seconds=1)
    until(lambda: "ending" not in [each.metadata.name for each in host.api.list_namespace().items], "it is gone")
    until(lambda: not processes_with(str(host.folder / "node" / "pods" / pod.metadata.uid)), "its processes are gone")


@pytest.mark.parametrize("host", ["private"], indirect=True)  # a mapped mount can be anywhere
def test_a_failed_mount_is_reported(host):
    host.create(
        "refused",
        shell("true", volumeMounts=[{"name": "d", "mountPath": "/proc"}]),
        volumes=[{"name": "d", "emptyDir": {}}],
    )
    assert '"/proc"' in waiting(host, "refused", CREATE_ERROR).state.waiting.message


def test_an_event_reports_a_volume_of_an_unsupported_kind(host):
    claim = {"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}
    host.create("unmounted", shell("true"), volumes=[claim])
    until(lambda: [m for r, m in host.events("unmounted") if r == "FailedMount" and "persistentVolumeClaim" in m])
    assert host.read("unmounted").status.phase == "Pending"


def processes_with(folder: str) -> list[psutil.Process]:
    """The processes whose environment or arguments name the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            values = [*process.environ().values(), *process.cmdline()]
        except psutil.Error:
            continue
        if any(value.startswith(folder) for value in values):
            found.append(process)
    return found


@pytest.mark.parametrize("mode", ["private", "mapped"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_all_pod_processes_end_when_the_nodes_host_process_ends(mode, number):
    host = started(short_folder(mode), mode)
    daemon = 'setsid sh -c "sleep 901; :" & sleep 902 & trap "" HUP TERM; sleep 903'
    own = {"name": "own", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}
    host.create("pod", {**shell(daemon), "name": "a"}, {**shell("exec sleep 904"), "name": "b"}, volumes=[own])
    groups = f"*/*{host.running('pod').metadata.uid}*"
    folder = str(host.folder)
    until(lambda: len([p for p in processes_with(folder) if "sleep" in p.cmdline()[0]]) >= 4, "all have started")
    names = [f"*faketime_s*_{process.pid}" for process in processes_with(folder)]  # shared memory of the lab's clock

    os.kill(host.process.pid, number)
    host.process.wait(20)

    until(lambda: not processes_with(folder), "all have ended")
    assert not [file for name in names for file in Path("/dev/shm").glob(name)]
    until(lambda: not list(Path("/sys/fs/cgroup").glob(groups)), "its control groups are gone")
    until(lambda: not list(Path("/dev/shm").glob(groups)), "its files in memory are gone")
    shutil.rmtree(host.folder)


ODD = "a\0b"
VOLUME = {"name": "v", "mountPath": "/v"}
UNPREPARED = 'failed to prepare subPath for volumeMount "v" of container "app"'
INVALID = f'nothing can be mounted at "/{ODD}": invalid argument'


def of_variable(value):
    return {"env": [{"name": "A", "value": value}], "volumeMounts": [{**VOLUME, "subPathExpr": "$(A)"}]}


@pytest.mark.parametrize(("name", "fields", "reason", "told"), [
    ("part", {"volumeMounts": [{**VOLUME, "subPath": ODD}]}, CONFIG_ERROR, UNPREPARED),
    ("long-part", {"volumeMounts": [{**VOLUME, "subPath": "a" * 300}]}, CONFIG_ERROR, UNPREPARED),
    ("part-of-variable", of_variable("../x"), CONFIG_ERROR,
     "unable to provision SubPath `../x`: must not contain '..'"),
    ("absolute-part", of_variable("/etc"), CONFIG_ERROR, "error SubPath `/etc` must not be an absolute path"),
    ("mount", {"volumeMounts": [{"name": "v", "mountPath": f"/{ODD}"}]}, CREATE_ERROR, INVALID),
    ("message", {"terminationMessagePath": f"/{ODD}"}, CREATE_ERROR, INVALID),
])  # fmt: skip
def test_the_kubelet_reports_an_invalid_mount_path_or_sub_path(host, name, fields, reason, told):
    """A real API server also accepts such a pod."""
    host.create(name, shell("true", **fields), volumes=[{"name": "v", "emptyDir": {}}])
    until(lambda: ("Failed", f"Error: {told}") in host.events(name))
    waiting = host.read(name).status.container_statuses[0].state.waiting
    assert (waiting.reason, waiting.message) == (reason, told)
    host.api.delete_namespaced_pod(name, "default")
    until(lambda: name not in {pod.metadata.name for pod in host.api.list_namespaced_pod("default").items})


@pytest.mark.parametrize(("name", "source"), [
    ("item", {"downwardAPI": {"items": [{"path": ODD, "fieldRef": {"fieldPath": "metadata.name"}}]}}),
    ("token-path", {"projected": {"sources": [{"serviceAccountToken": {"path": ODD}}]}}),
])  # fmt: skip
def test_the_kubelet_reports_a_volume_file_path_with_a_nul(host, name, source):
    host.create(name, shell("true"), volumes=[{"name": "v", **source}])
    told = f'MountVolume.SetUp failed for volume "v" : invalid path "{ODD}"'
    until(lambda: ("FailedMount", told) in host.events(name))
    host.api.delete_namespaced_pod(name, "default")


@pytest.mark.parametrize("fields", [{"env": [{"name": "A", "value": ODD}]}, {"args": [ODD]}], ids=["env", "args"])
def test_a_variable_or_argument_with_a_nul_is_a_start_error(host, request, fields):
    name = "nul-" + request.node.callspec.id.split("-")[-1]
    host.create(name, shell("true", **fields))
    ended = host.in_phase(name, "Failed").status.container_statuses[0].state.terminated
    assert (ended.reason, ended.exit_code) == ("StartError", 128)
    assert re.fullmatch(r"unable to start container process: exec \S+/sh: invalid argument", ended.message)


@pytest.mark.parametrize("odd", ["\n", "\r", "\x1b", "\x7f", "\x85", "\u2028", "\\", " ", "#"])
def test_odd_characters_arrive_unchanged_in_paths_and_variables(host, odd):
    """In a file's name, a subPath and a variable."""
    text = f"a{odd}b"
    volumes = [
        {"name": "v", "emptyDir": {}},
        {"name": "d", "downwardAPI": {"items": [{"path": text, "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    mounts = [{"name": "v", "mountPath": "/v", "subPath": text}, {"name": "d", "mountPath": "/d"}]
    name = f"odd-{ord(odd)}"
    script = 'test -d /v && printf %s "$A"; cat "/d/$A"'
    if host.mounts == "mapped":
        script = 'printf %s "$A"; cat "$D/$A"'
    env = [{"name": "A", "value": text}, {"name": "D", "value": "/d"}]
    printed = host.output_of(name, shell(script, env=env, volumeMounts=mounts), volumes=volumes)
    assert printed.replace("\r\n", "\n") == f"{text}{name}"
    host.api.delete_namespaced_pod(name, "default")
