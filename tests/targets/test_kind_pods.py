"""Pods of an existing cluster that has joined the lab: they reach AWS and get their role; others' objects are kept."""

import dataclasses
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from kubernetes.client import RbacAuthorizationV1Api
from kubernetes.config import new_client_from_config
from nbclient import NotebookClient

import labkit
from labkit import doctor, simulator
from labkit.execution import execute
from labkit.run_parameters import Parameters
from labkit.simulator import Folder
from labkit.steps.ownership import NotThisRuns
from labkit.steps.pod import ImageNotPulled, build, wait_until_running
from labkit.targets import kind
from labkit.targets.kind import AnotherCluster

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "09-break-and-repair-sts.ipynb"


def variables(pod: Any) -> dict[str, str]:
    return {variable.name: variable.value for variable in pod.spec.containers[0].env or []}


def test_a_pod_finds_the_lab_although_its_manifest_does_not_name_it(joined, existing):
    joined.ready(through="service_account")
    made = existing.core.create_namespaced_pod("default", build(joined.parameters))
    endpoint = simulator.State.read(Folder.find()).endpoint_url
    assert variables(made)["AWS_ENDPOINT_URL"] == endpoint
    assert variables(made)["AWS_EC2_METADATA_DISABLED"] == "true"
    assert variables(made)["AWS_ROLE_ARN"] == joined.role_arn
    # With a tag and IfNotPresent, a node pulls the image only once.
    container = made.spec.containers[0]
    assert (container.image.partition(":")[2] != "", container.image_pull_policy) == (True, "IfNotPresent")
    wait_until_running(joined)
    done = execute(
        existing.api, "my-pod", "default", ["aws", "s3api", "put-object", "--bucket", "irsa-lab", "--key", "x"]
    )
    assert "(AccessDenied)" in done.error


@pytest.mark.parametrize(("namespace", "labels", "env", "led"), [
    ("default", {}, [{"name": "AWS_ENDPOINT_URL", "value": "http://mine"}], "http://mine"),
    ("default", {"labkit/skip-lab-network": "true"}, [], None),
    ("kube-system", {}, [], None),
], ids=["a variable of its own", "opted out", "the cluster's own"])  # fmt: skip
def test_lab_network_skips_own_variables_opted_out_pods_and_kube_system(joined, existing, namespace, labels, env, led):
    pod = {"metadata": {"name": "other", "labels": labels}, "spec": {"containers": [{"name": "a", "image": "python"}]}}
    pod["spec"]["containers"][0]["env"] = env
    made = existing.core.create_namespaced_pod(namespace, pod, dry_run="All")
    assert variables(made).get("AWS_ENDPOINT_URL") == led


def test_the_lab_listens_only_on_loopback_and_on_the_aws_host(empty, existing):
    own = "127.0.0.2"  # loopback, too, but not the usual address
    try:
        socket.create_server((own, 0)).close()
    except OSError:
        pytest.skip("this machine has no second loopback address")
    connection = kind.up(Parameters.checked(**existing.parameters), aws_host=own)
    lab = labkit.Lab(Parameters.checked(**existing.parameters), connection)
    lab.ready(through="pod")
    pod = existing.core.read_namespaced_pod("my-pod", "default")
    assert variables(pod)["AWS_ENDPOINT_URL"].startswith(f"http://{own}:")
    assert lab.check("credentials")
    server = psutil.Process(simulator.State.read(empty).pid)
    listening = {one.laddr.ip for one in server.net_connections("inet") if one.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1", own}
    with pytest.raises(AnotherCluster, match=own):
        kind.up(Parameters.checked(**existing.parameters), aws_host="127.0.0.1")
    lab.remove()
    lab.close()


@pytest.mark.kubectl
def test_the_printed_command_restores_a_deleted_webhook(joined, existing):
    registered = existing.webhooks.read_mutating_webhook_configuration("pod-identity-webhook").webhooks[0]
    (known,) = joined.connection.webhook_registration()["webhooks"]
    assert known["clientConfig"] == existing.api.sanitize_for_serialization(registered.client_config)
    existing.webhooks.delete_mutating_webhook_configuration("pod-identity-webhook")
    joined.ready(through="service_account")
    pod = build(joined.parameters)
    assert "AWS_ROLE_ARN" not in variables(existing.core.create_namespaced_pod("default", pod, dry_run="All"))
    state = simulator.State.read(Folder.find())
    environment = os.environ | {"KUBECONFIG": str(state.kubeconfig)}
    subprocess.run(
        ["sh", "-c", joined.connection.webhook_restored_by], env=environment, check=True, capture_output=True
    )
    assert "AWS_ROLE_ARN" in variables(existing.core.create_namespaced_pod("default", pod, dry_run="All"))
    kind.down()
    assert existing.registered() == []
    labkit.Lab.open(**existing.parameters).close()


VIEWER = "viewer"


@pytest.fixture
def viewer(existing):
    """A client that may read all objects and create pods, but may not read the API server's counters (`/metrics`)."""
    rbac = RbacAuthorizationV1Api(existing.api)
    rules = [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]},
        {"nonResourceURLs": ["/openid/v1/jwks"], "verbs": ["get"]},
    ]
    subject = {"kind": "User", "name": VIEWER, "apiGroup": "rbac.authorization.k8s.io"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": VIEWER}
    rbac.create_cluster_role({"metadata": {"name": VIEWER}, "rules": rules})
    rbac.create_cluster_role_binding({"metadata": {"name": VIEWER}, "subjects": [subject], "roleRef": role})
    api = new_client_from_config(str(existing.kubeconfig), context="existing")
    api.set_default_header("Impersonate-User", VIEWER)
    yield api
    api.close()
    rbac.delete_cluster_role_binding(VIEWER)
    rbac.delete_cluster_role(VIEWER)


def test_the_doctor_finds_an_unreachable_webhook_by_the_api_servers_counters(joined, existing, viewer):
    joined.ready(through="service_account")
    registration = existing.webhooks.read_mutating_webhook_configuration("pod-identity-webhook")
    registration.webhooks[0].client_config.url += "d"
    existing.webhooks.replace_mutating_webhook_configuration("pod-identity-webhook", registration)
    # Date the annotation back, so that the pod is surely newer.
    account = existing.core.read_namespaced_service_account("my-service-account", "default")
    managed = [
        {**existing.api.sanitize_for_serialization(each), "time": "2020-01-01T00:00:00Z"}
        for each in account.metadata.managed_fields
    ]
    account.metadata.managed_fields = managed
    existing.core.replace_namespaced_service_account("my-service-account", "default", account)
    existing.core.create_namespaced_pod("default", build(joined.parameters))
    wait_until_running(joined)

    def diagnosed(**changes):
        connection = dataclasses.replace(joined.connection, **changes)
        return doctor.diagnose(
            namespace="default", service_account="my-service-account", connection=connection, probe=True
        )

    (finding,) = diagnosed().findings
    assert finding.id == "webhook-unreachable"
    assert finding.found.startswith("apiserver_admission_webhook_fail_open_count{")
    blind = diagnosed(kubernetes=viewer)
    assert [each.id for each in blind.findings] == ["webhook-passed-over-pod"]
    (unread,) = [each for each in blind.unread if each.read.name == "/metrics"]
    assert "cannot get path" in unread.why and unread.needs == "get --raw /metrics"
    assert [pod.metadata.name for pod in existing.core.list_namespaced_pod("default").items] == ["my-pod"]


def test_an_image_that_cannot_be_pulled_leaves_no_pod(empty, existing):
    with labkit.Lab.open(**existing.parameters, image="example/nothing") as lab:
        with pytest.raises(ImageNotPulled, match="image example/nothing of the pod") as refusal:
            lab.ready(through="pod")
        assert "set the parameter image" in refusal.value.next
        assert existing.core.list_namespaced_pod("default").items == []
        lab.remove()


def test_another_owners_objects_are_never_taken_over_or_deleted(joined, existing):
    account = {"metadata": {"name": "my-service-account"}}
    made = existing.core.create_namespaced_service_account("default", account)
    try:
        with pytest.raises(NotThisRuns) as refusal:
            joined.ready(through="service_account")
        joined.remove()
        kept = existing.core.read_namespaced_service_account("my-service-account", "default")
    finally:
        existing.core.delete_namespaced_service_account("my-service-account", "default")
    assert kept.metadata.uid == made.metadata.uid
    assert kept.metadata.annotations == made.metadata.annotations
    assert "another namespace or service_account" in refusal.value.next


def test_the_break_and_repair_notebook_changes_no_webhook_of_an_existing_cluster(joined, existing):
    parameters = "".join(f"\n{name} = {value!r}" for name, value in existing.parameters.items())
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells[2].source += parameters
    before = existing.webhooks.list_mutating_webhook_configuration().items
    NotebookClient(notebook, allow_errors=True).execute()
    errors = [output for cell in notebook.cells for output in cell.get("outputs", ()) if output.output_type == "error"]
    assert "lacks a cluster of the lab's own, which can be broken" in errors[0].evalue
    assert {error.ename for error in errors[1:]} == {"NameError"}
    assert existing.webhooks.list_mutating_webhook_configuration().items == before
