"""Popular Kubernetes clients for Python on a lab: service accounts, pods and watches; logs and exec if they can."""

import json

import kr8s
import pytest
from kr8s.objects import Pod, ServiceAccount
from kubernetes import watch
from kubernetes.client import ApiClient, ApiException, CoreV1Api
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import NotFoundError
from kubernetes.stream import stream

import labkit

ROLE = "eks.amazonaws.com/role-arn"
ARN = "arn:aws:iam::123456789012:role/reader"
CHANGED = "arn:aws:iam::123456789012:role/writer"
INJECTED = ["sh", "-c", "echo $AWS_ROLE_ARN"]
FAILS = ["sh", "-c", "echo wrong >&2; exit 3"]


def manifests(name: str) -> tuple[dict, dict]:
    """A service account with a role, and a pod of it that prints hello and keeps running."""
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": "default", "annotations": {ROLE: ARN}},
    }
    container = {"name": "app", "image": "amazon/aws-cli", "command": ["sh", "-c", "echo hello; exec sleep 3600"]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"serviceAccountName": name, "containers": [container], "terminationGracePeriodSeconds": 0},
    }
    return account, pod


@pytest.fixture
def kubernetes(home) -> ApiClient:
    with labkit.Lab.open() as lab:
        yield lab.kubernetes


@pytest.fixture
def name(kubernetes: ApiClient, request: pytest.FixtureRequest) -> str:
    name = request.node.name.removeprefix("test_").replace("_", "-")
    yield name
    core = CoreV1Api(kubernetes)
    for delete in (core.delete_namespaced_pod, core.delete_namespaced_service_account):
        try:
            delete(name, "default", grace_period_seconds=0)
        except ApiException as error:
            assert error.status == 404, error


def test_the_typed_kubernetes_client_works_on_the_lab(kubernetes: ApiClient, name: str):
    core = CoreV1Api(kubernetes)
    account, pod = manifests(name)
    core.create_namespaced_service_account("default", account)
    made = core.create_namespaced_pod("default", pod)
    assert {variable.name: variable.value for variable in made.spec.containers[0].env}["AWS_ROLE_ARN"] == ARN
    arguments = {"namespace": "default", "label_selector": f"app={name}", "timeout_seconds": 30}
    seen = watch.Watch()
    for event in seen.stream(core.list_namespaced_pod, **arguments):
        if event["object"].status.phase == "Running":
            break
    # A running container may not have printed yet.
    log = core.read_namespaced_pod_log(name, "default", follow=True, _preload_content=False)
    assert next(log.stream()) == b"hello\n"
    assert execute(core, name, INJECTED) == (f"{ARN}\n", "", 0)
    assert execute(core, name, FAILS) == ("", "wrong\n", 3)
    core.patch_namespaced_service_account(name, "default", {"metadata": {"annotations": {ROLE: CHANGED}}})
    assert core.read_namespaced_service_account(name, "default").metadata.annotations == {ROLE: CHANGED}
    core.delete_namespaced_pod(name, "default")
    since = {"resource_version": seen.resource_version}
    assert "DELETED" in (event["type"] for event in seen.stream(core.list_namespaced_pod, **arguments, **since))
    with pytest.raises(ApiException) as missing:
        core.read_namespaced_pod(name, "default")
    assert json.loads(missing.value.body)["message"] == f'pods "{name}" not found'


def execute(core: CoreV1Api, pod: str, command: list[str]) -> tuple[str, str, int]:
    """Run the command in the pod; return its output, its errors and its exit code."""
    streams = {"stdout": True, "stderr": True, "stdin": False, "tty": False}
    call = core.connect_get_namespaced_pod_exec
    client = stream(call, pod, "default", command=command, **streams, _preload_content=False)
    client.run_forever(timeout=30)
    return client.read_stdout(), client.read_stderr(), client.returncode


def test_a_kubernetes_client_s_watch_continues_where_it_ended(kubernetes: ApiClient, name: str):
    core = CoreV1Api(kubernetes)
    account, _ = manifests(name)
    selector = {"field_selector": f"metadata.name={name}", "timeout_seconds": 1}
    seen = watch.Watch()
    core.create_namespaced_service_account("default", account)
    first = [event["type"] for event in seen.stream(core.list_namespaced_service_account, "default", **selector)]
    selector["resource_version"] = seen.resource_version
    while_nobody_watched = {"metadata": {"annotations": {"note": "one"}}}
    core.patch_namespaced_service_account(name, "default", while_nobody_watched)
    core.delete_namespaced_service_account(name, "default")
    later = [event["type"] for event in seen.stream(core.list_namespaced_service_account, "default", **selector)]
    assert (first, later) == (["ADDED"], ["MODIFIED", "DELETED"])


def test_the_dynamic_kubernetes_client_works_on_the_lab(kubernetes: ApiClient, name: str):
    dynamic = DynamicClient(kubernetes)
    accounts = dynamic.resources.get(api_version="v1", kind="ServiceAccount")
    pods = dynamic.resources.get(api_version="v1", kind="Pod")
    account, pod = manifests(name)
    accounts.create(body=account, namespace="default")
    accounts.server_side_apply(body=account, name=name, namespace="default", field_manager="test")
    pods.create(body=pod, namespace="default")
    for event in pods.watch(namespace="default", label_selector=f"app={name}", timeout=30):
        if event["object"].status.phase == "Running":
            break
    (listed,) = pods.get(namespace="default", label_selector=f"app={name}").items
    assert listed.spec.serviceAccountName == name
    accounts.patch(
        body={"metadata": {"annotations": {ROLE: CHANGED}}},
        name=name,
        namespace="default",
        content_type="application/merge-patch+json",
    )
    assert accounts.get(name=name, namespace="default").metadata.annotations[ROLE] == CHANGED
    pods.delete(name=name, namespace="default", body={"gracePeriodSeconds": 0})
    with pytest.raises(NotFoundError):
        accounts.get(name=f"{name}-other", namespace="default")


def test_kr8s_works_on_the_lab(kubernetes: ApiClient, name: str, home):
    api = kr8s.api(kubeconfig=str(home / "kubeconfig"))
    account, pod = (made(body, api=api) for made, body in zip((ServiceAccount, Pod), manifests(name), strict=True))
    account.create()
    pod.create()
    pod.wait("condition=Ready", timeout=30)
    assert pod.status.phase == "Running"
    (listed,) = kr8s.get("pods", namespace="default", label_selector=f"app={name}", api=api)
    assert listed.spec.serviceAccountName == name
    assert next(pod.logs(follow=True)) == "hello"
    assert pod.exec(INJECTED).stdout.decode() == f"{ARN}\n"
    failed = pod.exec(FAILS, check=False)
    assert (failed.stderr.decode(), failed.returncode) == ("wrong\n", 3)
    account.annotate({ROLE: CHANGED})
    account.refresh()
    assert account.annotations[ROLE] == CHANGED
    seen = [next(iter(api.watch("pods", namespace="default", label_selector=f"app={name}")))]
    assert [(kind, found.name) for kind, found in seen] == [("ADDED", name)]
    pod.delete()
    pod.wait("delete", timeout=30)
    assert not pod.exists()
    with pytest.raises(kr8s.NotFoundError):
        ServiceAccount.get(f"{name}-other", namespace="default", api=api)
