"""Pods: defaults, scheduling, deletion, and the logs and exec requests passed on to their node."""

import json
from collections.abc import Iterator

import httpx
import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config
from kubernetes.stream import stream
from kubernetes.stream.ws_client import ERROR_CHANNEL

from labkit.simulator.listener import Peer
from tests.simulator.kubernetes.conftest import pod


@pytest.fixture
def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def test_a_pod_gets_its_defaults(admin: httpx.Client, pods: str):
    made = admin.post(pods, json=pod("p")).json()
    spec = made["spec"]
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    assert (spec["restartPolicy"], spec["dnsPolicy"]) == ("Always", "ClusterFirst")
    assert spec["terminationGracePeriodSeconds"] == 30
    (container,), (volume,) = spec["containers"], spec["volumes"]
    assert container["imagePullPolicy"] == "Always"
    assert container["volumeMounts"][0]["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    assert volume["name"].startswith("kube-api-access-")
    assert volume["projected"]["sources"][0] == {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
    assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


def test_a_pod_can_opt_out_of_its_token_volume(admin: httpx.Client, pods: str):
    assert "volumes" not in admin.post(pods, json=pod("p", automountServiceAccountToken=False)).json()["spec"]


def test_a_pod_with_a_missing_service_account_is_refused(admin: httpx.Client, pods: str, namespace: str):
    answer = admin.post(pods, json=pod("p", serviceAccountName="missing"))
    assert answer.status_code == 403
    assert answer.json()["message"] == (
        f'pods "p" is forbidden: error looking up service account {namespace}/missing:'
        ' serviceaccount "missing" not found'
    )


@pytest.mark.parametrize(("spec", "message"), [
    ({"containers": []}, "spec.containers: Required value"),
    ({"containers": [{"name": "X", "image": "i"}]}, "a lowercase RFC 1123 label must consist of"),
    ({"containers": [{"name": "a"}]}, "spec.containers[0].image: Required value"),
    ({"containers": [{"name": "a", "image": "i"}] * 2}, 'spec.containers[1].name: Duplicate value: "a"'),
    ({"restartPolicy": "No"}, 'supported values: "Always", "OnFailure", "Never"'),
])  # fmt: skip
def test_an_invalid_pod_is_refused(admin: httpx.Client, pods: str, spec: dict, message: str):
    answer = admin.post(pods, json=pod("p", **spec))
    assert answer.status_code == 422
    assert message in answer.json()["message"]


def test_a_pods_service_account_cannot_be_changed(admin: httpx.Client, pods: str):
    admin.post(pods, json=pod("p"))
    merge = {"Content-Type": "application/merge-patch+json"}
    patch = {"spec": {"serviceAccountName": "other", "serviceAccount": "other"}}
    answer = admin.patch(f"{pods}/p", json=patch, headers=merge)
    assert answer.status_code == 422
    assert "pod updates may not change fields other than" in answer.json()["message"]


def test_only_the_status_subresource_changes_a_pods_status(admin: httpx.Client, pods: str):
    admin.post(pods, json=pod("p"))
    merge = {"Content-Type": "application/merge-patch+json"}
    admin.patch(f"{pods}/p", json={"status": {"phase": "Failed"}}, headers=merge)
    assert admin.get(f"{pods}/p").json()["status"]["phase"] == "Pending"
    admin.patch(f"{pods}/p/status", json={"status": {"phase": "Running"}}, headers=merge)
    assert admin.get(f"{pods}/p").json()["status"]["phase"] == "Running"


def test_an_unscheduled_pod_is_deleted_at_once(admin: httpx.Client, pods: str):
    admin.post(pods, json=pod("p"))
    assert admin.delete(f"{pods}/p").json()["metadata"]["deletionGracePeriodSeconds"] == 0
    assert admin.get(f"{pods}/p").status_code == 404


def test_a_scheduled_pods_grace_period_can_be_shortened_but_not_extended(admin: httpx.Client, pods: str, node: str):
    admin.post(pods, json=pod("p"))
    assert admin.get(f"{pods}/p").json()["spec"]["nodeName"] == node
    going = admin.delete(f"{pods}/p").json()["metadata"]
    assert (going["deletionGracePeriodSeconds"], going["generation"]) == (30, 2)
    shorter = admin.delete(f"{pods}/p", params={"gracePeriodSeconds": 5}).json()["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 5
    longer = admin.delete(f"{pods}/p", params={"gracePeriodSeconds": 60}).json()["metadata"]
    assert longer["deletionGracePeriodSeconds"] == 5
    admin.delete(f"{pods}/p", params={"gracePeriodSeconds": 0})
    assert admin.get(f"{pods}/p").status_code == 404


def test_a_pending_pod_is_scheduled_when_a_node_joins(admin: httpx.Client, pods: str, namespace: str, request):
    admin.post(pods, json=pod("p"))
    assert "nodeName" not in admin.get(f"{pods}/p").json()["spec"]
    name = request.getfixturevalue("node")
    bound = admin.get(f"{pods}/p").json()
    assert bound["spec"]["nodeName"] == name
    assert bound["status"]["conditions"][0]["type"] == "PodScheduled"
    (event,) = admin.get(f"/api/v1/namespaces/{namespace}/events").json()["items"]
    assert event["message"] == f"Successfully assigned {namespace}/p to {name}"


def test_the_api_server_gets_a_pods_logs_from_its_kubelet(admin, pods, namespace, node, cluster):
    admin.post(pods, json=pod("p"))
    assert admin.get(f"{pods}/p/log", params={"tailLines": 5}).text == "first\n"
    assert cluster.kubelet.requests[-1] == (f"/containerLogs/{namespace}/p/main", [("tailLines", "5")])
    assert cluster.kubelet.peers[-1] == Peer("kube-apiserver-kubelet-client", ())
    refused = admin.get(f"{pods}/p/log", params={"previous": "true"})
    assert refused.status_code == 400
    assert refused.json()["message"] == 'previous terminated container "main" in pod "p" not found'


def test_a_client_can_follow_a_pods_logs(admin: httpx.Client, pods: str, node: str, cluster):
    admin.post(pods, json=pod("p"))
    with admin.stream("GET", f"{pods}/p/log", params={"follow": "true"}) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "first"
        cluster.loop.run(cluster.kubelet.lines.put(b"second\n"))
        assert next(lines) == "second"
        cluster.loop.run(cluster.kubelet.lines.put(b""))
        assert list(lines) == []


def test_logs_of_a_pod_with_two_containers_need_a_container_name(admin: httpx.Client, pods: str):
    containers = [{"name": name, "image": "i"} for name in ("a", "b")]
    admin.post(pods, json=pod("p", containers=containers))
    answer = admin.get(f"{pods}/p/log")
    assert answer.json()["message"] == "a container name must be specified for pod p, choose one of: [a b]"
    other = admin.get(f"{pods}/p/log", params={"container": "c"})
    assert other.json()["message"] == "container c is not valid for pod p"


@pytest.fixture
def own(cluster) -> client.CoreV1Api:
    """A separate client, because the stream functions change the client that they get."""
    return client.CoreV1Api(new_client_from_config(str(cluster.kubeconfig)))


def test_the_api_server_passes_an_exec_command_to_the_kubelet(own, admin, pods, namespace, node, cluster):
    admin.post(pods, json=pod("p"))
    wanted = {"stderr": True, "stdin": False, "stdout": True, "tty": False}
    text = stream(own.connect_get_namespaced_pod_exec, "p", namespace, command=["aws", "s3", "ls"], **wanted)
    assert text == "aws s3 ls\n"
    query = cluster.kubelet.requests[-1][1]
    assert query == [("output", "1"), ("error", "1"), ("command", "aws"), ("command", "s3"), ("command", "ls")]


def test_exec_passes_input_and_exit_codes(own, admin, pods, namespace, node):
    admin.post(pods, json=pod("p"))
    wanted = {"stderr": True, "stdout": True, "tty": False, "_preload_content": False}
    session = stream(own.connect_get_namespaced_pod_exec, "p", namespace, command=["cat"], stdin=True, **wanted)
    session.write_stdin("hello")
    session.run_forever(timeout=10)
    assert session.read_stderr() == "hello"
    assert session.returncode == 0
    session = stream(own.connect_get_namespaced_pod_exec, "p", namespace, command=["false"], stdin=False, **wanted)
    session.run_forever(timeout=10)
    assert session.returncode == 7


def test_exec_is_refused_if_the_pod_or_its_container_is_not_running(own, admin, pods, namespace, request):
    def refused(command: str) -> ApiException:
        with pytest.raises(ApiException) as caught:
            stream(own.connect_get_namespaced_pod_exec, "p", namespace, command=[command], stdout=True)
        return caught.value

    assert "404" in refused("true").reason
    admin.post(pods, json=pod("p"))
    assert "400" in refused("true").reason
    assert admin.post(f"{pods}/p/exec?command=true").json()["message"] == "pod p does not have a host assigned"
    request.getfixturevalue("node")
    session = stream(
        own.connect_get_namespaced_pod_exec, "p", namespace, command=["missing"], stdout=True, _preload_content=False
    )
    session.run_forever(timeout=10)
    said = 'Internal error occurred: unable to upgrade connection: container "main" has ended'
    assert json.loads(session.read_channel(ERROR_CHANNEL))["message"] == said


@pytest.mark.parametrize(("spec", "unschedulable", "reason"), [
    ({"nodeSelector": {"disk": "ssd"}}, False, "1 node(s) didn't match Pod's node affinity/selector"),
    ({}, True, "1 node(s) were unschedulable"),
])  # fmt: skip
def test_an_unschedulable_pod_gets_a_condition_and_one_event(admin, pods, namespace, node, spec, unschedulable, reason):
    merge = {"Content-Type": "application/merge-patch+json"}
    path = f"/api/v1/nodes/{node}"
    admin.patch(path, json={"spec": {"unschedulable": unschedulable}}, headers=merge)
    admin.post(pods, json=pod("p", **spec))
    admin.post(pods, json=pod("another", **spec))
    made = admin.get(f"{pods}/p").json()
    [condition] = made["status"]["conditions"]
    message = (
        f"0/1 nodes are available: {reason}. no new claims to deallocate, preemption: 0/1 nodes are available:"
        " 1 Preemption is not helpful for scheduling."
    )
    assert (condition["type"], condition["status"], condition["reason"]) == ("PodScheduled", "False", "Unschedulable")
    assert condition["message"] == message
    assert made["status"]["phase"] == "Pending"
    about = {"fieldSelector": "involvedObject.name=p"}
    events = admin.get(f"/api/v1/namespaces/{namespace}/events", params=about).json()["items"]
    found = [(event["type"], event["reason"], event["message"], event["count"]) for event in events]
    assert found == [("Warning", "FailedScheduling", message, 1)]
    wanted = {"metadata": {"labels": {"disk": "ssd"}}, "spec": {"unschedulable": None}}
    admin.patch(path, json=wanted, headers=merge)
    made = admin.get(f"{pods}/p").json()
    assert made["spec"]["nodeName"] == node
    assert [(c["status"], c.get("message")) for c in made["status"]["conditions"]] == [("True", None)]


@pytest.mark.parametrize("subresource", ["exec", "attach"])
def test_exec_and_attach_refuse_a_request_without_a_websocket(admin, pods, node, subresource):
    admin.post(pods, json=pod("p"))
    plain = admin.post(f"{pods}/p/{subresource}?command=true&stdout=true")
    assert (plain.status_code, plain.json()["message"]) == (400, "Upgrade request required")
    spdy = admin.post(
        f"{pods}/p/{subresource}?command=true&stdout=true", headers={"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
    )
    assert spdy.status_code == 400
    assert "WebSocket, not SPDY" in spdy.json()["message"]


@pytest.mark.kubectl
def test_kubectl_logs_and_exec_reach_the_kubelet(cluster, admin: httpx.Client, pods: str, namespace: str, node: str):
    admin.post(pods, json=pod("p"))
    assert cluster.kubectl("logs", "-n", namespace, "p").stdout == "first\n"
    assert cluster.kubectl("exec", "-n", namespace, "p", "--", "aws", "s3").stdout == "aws s3\n"
    failed = cluster.kubectl("exec", "-n", namespace, "p", "--", "false", code=7)
    assert failed.stderr == "command terminated with exit code 7\n"
    echoed = cluster.kubectl("exec", "-i", "-n", namespace, "p", "--", "cat", given="hello")
    assert (echoed.stdout, echoed.stderr) == ("cat\n", "hello")


@pytest.fixture
def no_pods_left(admin: httpx.Client, pods: str) -> Iterator[None]:
    """Delete the test's pods, because pending ones would take room on the next test's node."""
    yield
    admin.delete(pods, params={"gracePeriodSeconds": 0})


NOT_HELPFUL = "1 Preemption is not helpful for scheduling"


def resources(**requested: str) -> dict:
    return {"containers": [{"name": "c", "image": "i", "resources": {"requests": requested}}]}


def affinity(**expression: object) -> dict:
    terms = [{"matchExpressions": [{"key": "disk", **expression}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {"affinity": {"nodeAffinity": required}}


@pytest.mark.usefixtures("no_pods_left")
@pytest.mark.parametrize(("spec", "reason", "preemption"), [
    ({"tolerations": []}, "1 node(s) had untolerated taint(s)", NOT_HELPFUL),
    ({"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute"}]},
     "1 node(s) had untolerated taint(s)", NOT_HELPFUL),
    (affinity(operator="In", values=["hdd"]), "1 node(s) didn't match Pod's node affinity/selector", NOT_HELPFUL),
    (affinity(operator="DoesNotExist"), "1 node(s) didn't match Pod's node affinity/selector", NOT_HELPFUL),
    (resources(memory="2000Gi"), "1 Insufficient memory", NOT_HELPFUL),
    (resources(memory="2000Gi", cpu="3000"), "1 Insufficient cpu, 1 Insufficient memory", NOT_HELPFUL),
    (resources(**{"example.com/gpu": "1"}), "1 Insufficient example.com/gpu", NOT_HELPFUL),
    (resources(cpu="750"), "1 Insufficient cpu", "1 No preemption victims found for incoming pod"),
    (affinity(operator="In", values=["ssd"]), "", ""),
    (resources(memory="500Gi", cpu="400"), "", ""),
])  # fmt: skip
def test_a_pod_is_scheduled_only_on_a_node_that_fits_it(admin, pods, node, spec, reason, preemption):
    merge = {"Content-Type": "application/merge-patch+json"}
    path, taints = f"/api/v1/nodes/{node}", [{"key": "a", "value": "b", "effect": "NoSchedule"}]
    tolerations = [{"key": "a", "value": "b"}]
    admin.patch(f"{path}/status", json={"status": {"allocatable": {"cpu": "1000", "memory": "1000Gi"}}}, headers=merge)
    admin.patch(path, json={"metadata": {"labels": {"disk": "ssd"}}, "spec": {"taints": taints}}, headers=merge)
    admin.post(pods, json=pod("first", tolerations=tolerations, **resources(cpu="500")))
    assert admin.get(f"{pods}/first").json()["spec"]["nodeName"] == node
    admin.post(pods, json=pod("p", **{"tolerations": tolerations, **spec}))
    made = admin.get(f"{pods}/p").json()
    [condition] = made["status"]["conditions"]
    if not reason:
        assert made["spec"]["nodeName"] == node
        return
    assert condition["message"] == (
        f"0/1 nodes are available: {reason}. no new claims to deallocate, preemption: 0/1 nodes are available:"
        f" {preemption}."
    )
    admin.delete(f"{pods}/first", params={"gracePeriodSeconds": 0})
    moved = admin.get(f"{pods}/p").json()["spec"].get("nodeName")
    assert moved == (None if preemption == NOT_HELPFUL else node)
