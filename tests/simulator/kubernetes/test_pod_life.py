"""The node as a kubelet: restarts, hooks, changing volumes, deadlines and kubectl's output."""

import json
import re
from collections.abc import Iterator

import pytest
from kubernetes import client
from kubernetes.watch import Watch

from tests.simulator.kubernetes.node_lab import SLEEP, Host, ended, shell, short_folder, started, until

pytestmark = pytest.mark.kubectl


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    host = started(short_folder("life"))
    yield host
    ended(host)


def shown(host: Host, name: str) -> list[str]:
    """READY, STATUS and RESTARTS as kubectl prints them."""
    columns = re.split(r"\s{2,}", host.kubectl("get", "pod", name, "--no-headers").strip())
    return columns[1:4]


def until_shown(host: Host, name: str, *statuses: str) -> list[str]:
    return until(lambda: (found := shown(host, name))[1] in statuses and found, f"{name} is {statuses}")


def status_of(host: Host, name: str, container: str = "app") -> client.V1ContainerStatus | None:
    status = host.read(name).status
    every = [*(status.container_statuses or ()), *(status.init_container_statuses or ())]
    return next((found for found in every if found.name == container), None)


def until_status(host: Host, name: str, condition, container: str = "app") -> client.V1ContainerStatus:
    return until(lambda: (found := status_of(host, name, container)) and condition(found) and found)


def until_said(host: Host, name: str, reason: str, message: str) -> None:
    """Wait for an event, because a kubelet may send it after the status."""
    until(lambda: any(each == reason and text.startswith(message) for each, text in host.events(name)), reason)


def gone(host: Host, name: str) -> bool:
    return not host.api.list_namespaced_pod("default", field_selector=f"metadata.name={name}").items


def share(path: str = "/run/share", **more) -> dict:
    return {"volumeMounts": [{"name": "share", "mountPath": path, **more}]}


def shell_named(name: str, script: str, **more) -> dict:
    return {**shell(script, **more), "name": name}


SHARED = [{"name": "share", "emptyDir": {}}]


# Restarts


def test_a_crash_looping_container_backs_off_by_the_labs_clock(host):
    host.create("loop", shell("echo run; exit 3"), restartPolicy="Always")
    uid = host.read("loop").metadata.uid
    pod = f"loop_default({uid})"
    try:
        for restarts, wait in enumerate(["10s", "20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s"], 1):
            message = f"back-off {wait} restarting failed container=app pod={pod}"
            found = until_status(host, "loop", lambda s, m=message, n=restarts: s.state.waiting
                                 and s.state.waiting.message == m and s.restart_count == n)  # fmt: skip
            assert found.state.waiting.reason == "CrashLoopBackOff"
            assert (found.last_state.terminated.exit_code, found.last_state.terminated.reason) == (3, "Error")
            host.clock.advance(minutes=5, seconds=5)
        assert host.log("loop", previous=True) == "run\n"
    finally:
        host.clock.reset()
    until_said(host, "loop", "BackOff", f"Back-off restarting failed container app in pod {pod}")
    host.kubectl("delete", "pod", "loop", "--now")


def test_kubectl_shows_a_crash_loop(host):
    host.create("crash", shell("exit 1"), restartPolicy="Always")
    ready, _, restarts = until_shown(host, "crash", "CrashLoopBackOff")
    assert ready == "0/1"
    assert re.fullmatch(r"1 \(\d+s ago\)", restarts)
    until_said(host, "crash", "BackOff", "Back-off restarting failed container app in pod crash_default")
    described = host.kubectl("describe", "pod", "crash")
    for line in [
        r"State: +Waiting\n +Reason: +CrashLoopBackOff\n +Last State: +Terminated\n +Reason: +Error\n +Exit Code: +1\n",
        r"Restart Count: +1\n",
        r"Normal +Pulled .*Container image \"amazon/aws-cli\" already present on machine and can be accessed",
        r"Normal +Created .*Container created",
        r"Normal +Started .*Container started",
        r"Warning +BackOff .*Back-off restarting failed container app in pod crash_default",
    ]:
        assert re.search(line, described), (line, described)
    host.kubectl("delete", "pod", "crash", "--now")


@pytest.mark.parametrize(
    ("policy", "code", "phase", "restarts"),
    [("Never", 1, "Failed", 0), ("Never", 0, "Succeeded", 0), ("OnFailure", 0, "Succeeded", 0)],
)
def test_a_pod_ends_after_one_run_if_its_policy_asks_for_no_restart(host, policy, code, phase, restarts):
    name = f"once-{policy.lower()}-{code}"
    host.create(name, shell(f"exit {code}"), restartPolicy=policy)
    host.in_phase(name, phase)
    assert status_of(host, name).restart_count == restarts
    assert shown(host, name)[1] == ("Error" if code else "Completed")


def test_on_failure_restarts_a_container_until_it_succeeds(host):
    script = "test -e /run/share/x && exit 0; touch /run/share/x; exit 1"
    host.create("twice", shell(script, **share()), restartPolicy="OnFailure", volumes=SHARED)
    host.in_phase("twice", "Succeeded")
    assert status_of(host, "twice").restart_count == 1


# Init containers


def test_a_failing_init_container_is_restarted_or_fails_the_pod(host):
    host.create("init", shell(SLEEP), restartPolicy="Always", initContainers=[{**shell("exit 2"), "name": "i"}])
    until_shown(host, "init", "Init:CrashLoopBackOff")
    assert host.read("init").status.phase == "Pending"
    conditions = {condition.type: condition for condition in host.read("init").status.conditions}
    assert conditions["Initialized"].message == "containers with incomplete status: [i]"
    host.create("failed", shell("true"), initContainers=[{**shell("exit 2"), "name": "i"}])
    until_shown(host, "failed", "Init:Error")
    assert host.read("failed").status.phase == "Failed"
    host.kubectl("delete", "pod", "init", "--now")


def test_kubectl_shows_how_many_init_containers_are_done(host):
    script = "until test -e /run/share/go; do sleep 0.05; done"
    host.create(
        "counted",
        shell(SLEEP),
        initContainers=[shell_named("one", "true"), shell_named("two", script, **share())],
        volumes=SHARED,
        terminationGracePeriodSeconds=1,
    )
    until_shown(host, "counted", "Init:1/2")
    (host.pod_folder("counted") / "volumes/share/go").touch()
    host.running("counted")
    assert until_shown(host, "counted", "Running")[0] == "1/1"


def test_sidecars_start_in_order_and_end_last_in_reverse(host):
    def says(name: str, **more) -> dict:
        on_end = f"trap 'echo {name} ends >>/run/share/log; exit 0' TERM"
        return shell_named(name, f"{on_end}; echo {name} starts >>/run/share/log; sleep 600 & wait", **share(), **more)

    started_first = {"exec": {"command": ["grep", "-q", "first starts", "/run/share/log"]}}
    host.create(
        "sidecars",
        says("app"),
        initContainers=[
            says("first", restartPolicy="Always", startupProbe={**started_first, "periodSeconds": 1}),
            says("second", restartPolicy="Always"),
        ],
        volumes=[{"name": "share", "hostPath": {"path": str(host.folder / "node")}}],
    )
    file = host.folder / "node/log"
    host.running("sidecars")
    assert shown(host, "sidecars")[0] == "3/3"
    until(lambda: "app starts" in file.read_text())
    host.kubectl("delete", "pod", "sidecars")
    assert file.read_text().splitlines() == [
        "first starts", "second starts", "app starts", "app ends", "second ends", "first ends",
    ]  # fmt: skip


# Variables and volumes


def test_variables_can_hold_a_containers_resources(host):
    def of(resource: str, **more) -> dict:
        return {"resourceFieldRef": {"resource": resource, **more}}

    env = [
        {"name": "CPU", "valueFrom": of("limits.cpu", divisor="1m")},
        {"name": "MEMORY", "valueFrom": of("requests.memory")},
        {"name": "OTHER", "valueFrom": of("limits.cpu", containerName="other")},
    ]
    resources = {"limits": {"cpu": "500m"}, "requests": {"memory": "1Mi"}}
    other = {**shell("true", resources={"limits": {"cpu": "3"}, "requests": {"cpu": "1m"}}), "name": "other"}
    host.create("resources", shell("echo $CPU $MEMORY $OTHER", env=env, resources=resources), other)
    host.in_phase("resources", "Succeeded")
    assert host.log("resources", container="app") == "500 1048576 3\n"


def test_variables_that_expand_beyond_the_machines_limit_are_refused(host):
    """Each variable repeats the one before twice: 20 of them need 10 MB, 40 more than any machine has."""
    env = [{"name": "V0", "value": "x" * 10}]
    env += [{"name": f"V{number}", "value": f"$(V{number - 1})" * 2} for number in range(1, 20)]
    host.create("doubling", shell("true", env=env))
    until_shown(host, "doubling", "CreateContainerConfigError")
    message = "the container's variables and arguments are longer than this machine allows"
    assert message in status_of(host, "doubling").state.waiting.message
    host.kubectl("delete", "pod", "doubling")


def test_a_container_reports_and_waits_for_a_missing_config_map_key(host):
    host.api.create_namespaced_config_map("default", {"metadata": {"name": "half"}, "data": {"a": "1"}})
    variable = {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "half", "key": "b"}}}
    host.create("half", shell("echo $X", env=[variable]))
    until_shown(host, "half", "CreateContainerConfigError")
    message = "couldn't find key b in ConfigMap default/half"
    assert status_of(host, "half").state.waiting.message == message
    until(lambda: ("Failed", f"Error: {message}") in host.events("half"))
    host.api.patch_namespaced_config_map("half", "default", {"data": {"b": "2"}})
    host.in_phase("half", "Succeeded")
    assert host.log("half") == "2\n"


def test_a_volume_waits_for_its_config_map_and_changes_with_it(host):
    container = shell(SLEEP, **share("/made/config"))
    volumes = [{"name": "share", "configMap": {"name": "later"}}]
    host.create("mounts", container, volumes=volumes, terminationGracePeriodSeconds=1)
    said = ("FailedMount", 'MountVolume.SetUp failed for volume "share" : configmap "later" not found')
    until(lambda: said in host.events("mounts"))
    until(lambda: shown(host, "mounts")[:2] == ["0/1", "ContainerCreating"], "the node reports the pod")

    host.api.create_namespaced_config_map("default", {"metadata": {"name": "later"}, "data": {"a": "one"}})
    host.running("mounts")
    assert host.exec("mounts", "cat", "/made/config/a").stdout == "one"
    host.api.replace_namespaced_config_map("later", "default", {"metadata": {"name": "later"}, "data": {"a": "two"}})
    until(lambda: host.exec("mounts", "cat", "/made/config/a").stdout == "two")


def test_labels_in_a_volume_change_with_the_pod(host):
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    volumes = [{"name": "share", "downwardAPI": {"items": items}}]
    host.create("labels", shell(SLEEP, **share()), volumes=volumes, terminationGracePeriodSeconds=1)
    host.running("labels")
    host.kubectl("label", "pod", "labels", "tier=web")
    until(lambda: host.exec("labels", "cat", "/run/share/labels").stdout == 'app="labels"\ntier="web"')


def test_containers_can_mount_a_part_of_a_volume(host):
    host.api.create_namespaced_config_map("default", {"metadata": {"name": "parts"}, "data": {"a": "A", "b": "B"}})
    mounts = [
        {"name": "config", "mountPath": "/made/one/file", "subPath": "a"},
        {"name": "share", "mountPath": "/made/own", "subPathExpr": "$(WHO)/x"},
    ]
    env = [{"name": "WHO", "value": "me"}]
    host.create(
        "parts",
        shell("cat /made/one/file; echo kept >/made/own/file", volumeMounts=mounts, env=env),
        shell_named("other", "until cat /run/share/me/x/file 2>/dev/null; do sleep 0.05; done", **share(readOnly=True)),
        volumes=[*SHARED, {"name": "config", "configMap": {"name": "parts"}}],
    )
    host.in_phase("parts", "Succeeded")
    assert (host.log("parts", container="app"), host.log("parts", container="other")) == ("A", "kept\n")


def test_a_deleted_service_account_is_reported_when_the_token_expires(host):
    host.api.create_namespaced_service_account("default", {"metadata": {"name": "brief"}})
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600, "audience": "sts.amazonaws.com"}}
    volumes = [{"name": "share", "projected": {"sources": [source]}}]
    host.create(
        "orphan",
        shell(SLEEP, **share()),
        volumes=volumes,
        serviceAccountName="brief",
        automountServiceAccountToken=False,
        terminationGracePeriodSeconds=1,
    )
    host.running("orphan")
    host.api.delete_namespaced_service_account("brief", "default")
    try:
        host.clock.advance(minutes=9)
        assert host.exec("orphan", "cat", "/run/share/token").stdout.count(".") == 2
        host.clock.advance(minutes=9)
        said = (
            'MountVolume.SetUp failed for volume "share" : failed to fetch token: '
            'token expired and refresh failed: serviceaccounts "brief" not found'
        )
        until(lambda: ("FailedMount", said) in host.events("orphan"))
    finally:
        host.clock.reset()


# The end of a pod


def test_the_pre_stop_hook_runs_before_sigterm(host):
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >>/run/share/log"]}}}
    script = "trap 'cat /run/share/log; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    host.create("hooked", shell(script, lifecycle=hook, **share()), volumes=SHARED)
    until(lambda: "hooked" and host.read("hooked").status.phase == "Running" and host.log("hooked") == "ready\n")
    lines = host.api.read_namespaced_pod_log("hooked", "default", follow=True, _preload_content=False).stream()
    host.kubectl("delete", "pod", "hooked")
    assert b"".join(lines) == b"ready\nhook\n"


def test_failing_hooks_are_reported_as_events(host):
    waiting = {"exec": {"command": ["sh", "-c", "until [ -e /run/share/ready ]; do sleep 0.05; done; exit 1"]}}
    script = "trap exit TERM; touch /run/share/ready; sleep 600 & wait"
    host.create("posted", shell(script, lifecycle={"postStart": waiting}, **share()), volumes=SHARED)
    host.in_phase("posted", "Failed")
    assert status_of(host, "posted").state.terminated.exit_code == 143
    until(lambda: ("FailedPostStartHook", "PostStartHook failed") in host.events("posted"))
    until(lambda: ("Killing", "FailedPostStartHook") in host.events("posted"))

    failing = {"exec": {"command": ["sh", "-c", "exit 1"]}}
    host.create("stopped", shell(SLEEP, lifecycle={"preStop": failing}))
    host.running("stopped")
    host.kubectl("delete", "pod", "stopped")
    until(lambda: ("FailedPreStopHook", "PreStopHook failed") in host.events("stopped"))


@pytest.mark.parametrize(
    ("name", "script", "code"),
    [
        ("told-143", "trap exit TERM; echo ready; sleep 600 & wait", 143),
        ("told-137", "trap '' TERM; echo ready; while :; do sleep 0.05; done", 137),
        ("unhandled", "echo ready; exec sleep 600", 137),  # process 1
    ],
)
def test_the_exit_code_is_reported_before_a_deleted_pod_disappears(host, name, script, code):
    host.create(name, shell(script), terminationGracePeriodSeconds=1)
    running = host.running(name)
    until(lambda: host.log(name) == "ready\n")
    host.api.delete_namespaced_pod(name, "default")
    codes = []
    for event in Watch().stream(
        host.api.list_namespaced_pod,
        "default",
        field_selector=f"metadata.name={name}",
        resource_version=running.metadata.resource_version,
        timeout_seconds=20,
    ):
        [status] = event["object"].status.container_statuses
        if status.state.terminated:
            codes.append(status.state.terminated.exit_code)
        if event["type"] == "DELETED":
            break
    assert set(codes) == {code}


@pytest.mark.parametrize("how", [["--now"], ["--grace-period=0", "--force"]])
def test_kubectl_can_delete_a_pod_at_once(host, how):
    name = f"at-once-{len(how)}"
    host.create(name, shell("trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done"))
    until(lambda: host.read(name).status.phase == "Running" and host.log(name) == "ready\n")
    folder = host.pod_folder(name)
    host.kubectl("delete", "pod", name, *how)
    assert gone(host, name)
    until(lambda: not folder.exists())


@pytest.mark.parametrize("how", [["--now"], ["--grace-period=0", "--force"]])
def test_a_second_delete_can_shorten_the_grace_period(host, how):
    name = f"shortened-{len(how)}"
    script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done"
    host.create(name, shell(script), terminationGracePeriodSeconds=3600)
    until(lambda: host.read(name).status.phase == "Running" and host.log(name) == "ready\n")
    folder = host.pod_folder(name)
    host.kubectl("delete", "pod", name, "--wait=false")
    until(lambda: host.log(name) == "ready\nasked\n")
    host.kubectl("delete", "pod", name, *how)
    assert gone(host, name)
    until(lambda: not folder.exists())


def test_a_failing_sidecar_does_not_cut_short_the_other_containers_shutdown(host):
    script = "trap 'sleep 0.5; echo ended >/run/share/uneven; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    failing = shell_named("helper", "exit 1", restartPolicy="Always")
    host.create(
        "uneven",
        shell(script, **share()),
        initContainers=[failing],
        volumes=[{"name": "share", "hostPath": {"path": str(host.folder / "node")}}],
    )
    until_status(host, "uneven", lambda found: found.state.waiting, "helper")
    assert until_shown(host, "uneven", "Init:CrashLoopBackOff")[0] == "1/2"
    until(lambda: host.read("uneven").status.phase == "Running" and host.log("uneven", container="app") == "ready\n")
    host.kubectl("delete", "pod", "uneven")
    assert (host.folder / "node/uneven").read_text() == "ended\n"


def test_a_deadline_ends_a_pod_by_the_labs_clock(host):
    host.create("late", shell(SLEEP), activeDeadlineSeconds=3000, terminationGracePeriodSeconds=1)
    host.running("late")
    try:
        host.clock.advance(seconds=3001)
        pod = host.in_phase("late", "Failed")
    finally:
        host.clock.reset()
    message = "Pod was active on the node longer than the specified deadline"
    assert (pod.status.reason, pod.status.message) == ("DeadlineExceeded", message)
    until(lambda: ("DeadlineExceeded", message) in host.events("late"))
    until(lambda: status_of(host, "late").state.terminated)


def test_a_termination_message_comes_from_its_file_or_the_log(host):
    host.create("says", shell("echo done >/dev/termination-log"))
    host.create("elsewhere", shell("echo it >/made/message; exit 1", terminationMessagePath="/made/message"))
    logs = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    host.create("logged", shell("seq 100; exit 1", **logs))
    messages = {}
    for name in ["says", "elsewhere", "logged"]:
        host.in_phase(name, "Succeeded", "Failed")
        messages[name] = status_of(host, name).state.terminated.message
    assert messages["says"] == "done\n"
    assert messages["elsewhere"] == "it\n"
    assert messages["logged"] == "".join(f"{n}\n" for n in range(21, 101))


# The status of a pod


def test_a_running_pod_has_a_complete_status(host):
    host.create("whole", shell(SLEEP, **share(readOnly=True)), volumes=SHARED, terminationGracePeriodSeconds=1)
    host.running("whole")
    pod = json.loads(host.kubectl("get", "pod", "whole", "-o", "json"))
    status = pod["status"]
    assert status["observedGeneration"] == pod["metadata"]["generation"] == 1
    assert [(c["type"], c["status"]) for c in status["conditions"]] == [
        ("PodScheduled", "True"),
        ("PodReadyToStartContainers", "True"),
        ("Initialized", "True"),
        ("Ready", "True"),
        ("ContainersReady", "True"),
    ]
    assert {c.get("observedGeneration") for c in status["conditions"][1:]} == {1}
    assert status["hostIPs"] == status["podIPs"] == [{"ip": "127.0.0.1"}]
    assert status["qosClass"] == "BestEffort"
    assert status["startTime"] <= status["containerStatuses"][0]["state"]["running"]["startedAt"]
    [container] = status["containerStatuses"]
    assert (container["ready"], container["started"], container["restartCount"]) == (True, True, 0)
    mount = {"name": "share", "mountPath": "/run/share", "readOnly": True, "recursiveReadOnly": "Disabled"}
    assert mount in container["volumeMounts"]


@pytest.mark.parametrize(("image", "policy", "status", "event"), [
    ("nginx", "IfNotPresent", "ImagePullBackOff", ("Failed", "Error: ErrImagePull")),
    ("nginx", "Never", "ErrImageNeverPull",
     ("ErrImageNeverPull", 'Container image "nginx" is not present with pull policy of Never')),
    ("Nginx", "Always", "InvalidImageName", ("Failed", "Error: InvalidImageName")),
])  # fmt: skip
def test_a_pod_with_an_unavailable_image_reports_why_it_waits(host, image, policy, status, event):
    name = status.lower()
    host.create(name, {"name": "app", "image": image, "imagePullPolicy": policy})
    until_shown(host, name, status)
    until(lambda: event in host.events(name))


def test_the_node_runs_and_deletes_60_pods_at_once(host):
    names = [f"many-{number}" for number in range(60)]
    for name in names:
        host.create(name, shell(SLEEP), terminationGracePeriodSeconds=1)

    def phases() -> list[str]:
        pods = host.api.list_namespaced_pod("default").items
        return [pod.status.phase for pod in pods if pod.metadata.name in names]

    until(lambda: phases() == ["Running"] * 60, "60 pods run", 60)
    for name in names:
        host.api.delete_namespaced_pod(name, "default")
    until(lambda: not phases(), "all are gone", 60)


def test_the_node_renews_its_lease(host):
    leases = client.CoordinationV1Api(host.api.api_client)

    def lease() -> client.V1Lease:
        [found] = leases.list_namespaced_lease("kube-node-lease").items
        return found

    assert (lease().metadata.name, lease().spec.holder_identity) == ("node-1", "node-1")
    # Another test may have set the lab's clock back, so a later renewal can have an earlier time.
    before = lease().spec.renew_time
    until(lambda: lease().spec.renew_time != before, seconds=60)
    assert re.search(r"Lease:\n +HolderIdentity: +node-1\n", host.kubectl("describe", "node", "node-1"))
