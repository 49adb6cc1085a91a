"""The clients people use: kubectl as they type it, and the official Python client."""

import json
import re

import httpx
import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from tests.simulator.kubernetes.conftest import pod

ROLE = "eks.amazonaws.com/role-arn"
ARN = "arn:aws:iam::123456789012:role/my-role"

kubectl = pytest.mark.kubectl


@kubectl
def test_kubectl_creates_shows_and_deletes_a_pod_with_an_irsa_account(cluster, namespace: str):
    run = lambda *arguments, **more: cluster.kubectl(arguments[0], "-n", namespace, *arguments[1:], **more)  # noqa: E731
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "my-service-account", "annotations": {ROLE: ARN}},
    }
    applied = run("apply", "-f", "-", given=yaml.safe_dump(account))
    assert applied.stdout == "serviceaccount/my-service-account created\n"
    assert run("apply", "-f", "-", given=account).stdout == "serviceaccount/my-service-account unchanged\n"
    path = rf"jsonpath={{.metadata.annotations.{ROLE.replace('.', chr(92) + '.')}}}"
    assert run("get", "sa", "my-service-account", "-o", path).stdout == ARN
    manifest = yaml.safe_dump(pod("my-pod", serviceAccountName="my-service-account"))
    assert run("apply", "-f", "-", given=manifest).stdout == "pod/my-pod created\n"
    *listed, age = run("get", "pods").stdout.split()
    assert listed == [*("NAME", "READY", "STATUS", "RESTARTS", "AGE"), *("my-pod", "0/1", "Pending", "0")]
    assert age.endswith("s")
    described = run("describe", "pod", "my-pod").stdout
    assert "Service Account:  my-service-account" in described
    refused = run("annotate", "sa", "my-service-account", f"{ROLE}=other", code=1)
    assert "--overwrite is false but found the following declared annotation(s)" in refused.stderr
    assert run("wait", "--for=jsonpath={.status.phase}=Pending", "pod/my-pod").stdout == "pod/my-pod condition met\n"
    assert run("delete", "pod", "my-pod").stdout == 'pod "my-pod" deleted\n'


@kubectl
def test_the_api_server_understands_kubectls_protobuf_requests(cluster, namespace: str):
    run = lambda *arguments, **more: cluster.kubectl(arguments[0], "-n", namespace, *arguments[1:], **more)  # noqa: E731
    assert run("create", "serviceaccount", "app").stdout == "serviceaccount/app created\n"
    assert run("create", "token", "app", "--duration", "10m", "--audience", "a").stdout.count(".") == 2
    short = run("create", "token", "app", "--duration", "1m", code=1)
    assert "may not specify a duration less than 10 minutes" in short.stderr
    run("create", "configmap", "c", "--from-literal=a=1")
    assert json.loads(run("get", "cm", "c", "-o", "json").stdout)["data"] == {"a": "1"}
    run("create", "secret", "generic", "s", "--from-literal=a=1")
    assert run("get", "secret", "s", "-o", "jsonpath={.data.a}").stdout == "MQ=="
    run("create", "role", "reader", "--verb=get", "--resource=pods")
    run("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:app")
    account = f"--as=system:serviceaccount:{namespace}:app"
    assert run("auth", "can-i", "get", "pods", account, "-n", namespace).stdout == "yes\n"
    assert run("auth", "can-i", "delete", "pods", account, "-n", namespace, code=1).stdout == "no\n"
    assert cluster.kubectl("create", "namespace", f"{namespace}-b").stdout == f"namespace/{namespace}-b created\n"
    assert cluster.kubectl("delete", "namespace", f"{namespace}-b").stdout == f'namespace "{namespace}-b" deleted\n'


@kubectl
def test_kubectl_explains_fields_and_refuses_unknown_ones(cluster, namespace: str):
    explained = cluster.kubectl("explain", "pod.spec.serviceAccountName").stdout
    assert "FIELD: serviceAccountName <string>" in explained
    bad = {**pod("p"), "spec": {"containers": [{"name": "a", "imge": "x"}]}}
    refused = cluster.kubectl("create", "-n", namespace, "-f", "-", given=bad, code=1)
    assert 'unknown field "spec.containers[0].imge"' in refused.stderr
    names = cluster.kubectl("api-resources", "-o", "name").stdout.split()
    assert {"pods", "serviceaccounts", "mutatingwebhookconfigurations.admissionregistration.k8s.io"} <= set(names)


@kubectl
def test_server_side_apply_reports_a_conflict_of_two_field_managers(cluster, namespace: str):
    def apply(value: str, *more: str, code: int = 0, **data: str):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": value, **data}}
        return cluster.kubectl("apply", "-n", namespace, "--server-side", "-f", "-", *more, given=body, code=code)

    assert apply("1").stdout == "configmap/c serverside-applied\n"
    conflict = apply("2", "--field-manager=other", code=1)
    assert 'Apply failed with 1 conflict: conflict with "kubectl": .data.a' in conflict.stderr
    apply("2", "--field-manager=other", "--force-conflicts")
    read = cluster.kubectl("get", "cm", "c", "-n", namespace, "-o", "json", "--show-managed-fields").stdout
    found = json.loads(read)
    assert found["data"] == {"a": "2"}
    assert [entry["manager"] for entry in found["metadata"]["managedFields"]] == ["other"]
    cluster.kubectl("patch", "cm", "c", "-n", namespace, "-p", '{"data": {"b": "1", "c": "1"}}')
    conflicts = apply("3", "--field-manager=third", b="2", c="2", code=1).stderr
    assert (
        'Apply failed with 3 conflicts: conflicts with "kubectl-patch" using v1:\n- .data.b\n- .data.c\n'
        'conflicts with "other":\n- .data.a\n'
    ) in conflicts


@kubectl
def test_server_side_apply_takes_over_from_client_side_apply(cluster, namespace: str):
    def apply(data: dict, *more: str):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}
        return cluster.kubectl("apply", "-n", namespace, "-f", "-", *more, given=body)

    apply({"a": "1", "b": "2"})
    taken = apply({"a": "1", "b": "2"}, "--server-side")
    assert (taken.stdout, taken.stderr) == ("configmap/c serverside-applied\n", "")
    apply({"a": "1"}, "--server-side")
    read = json.loads(cluster.kubectl("get", "cm", "c", "-n", namespace, "-o", "json", "--show-managed-fields").stdout)
    assert read["data"] == {"a": "1"}
    managers = {entry["manager"] for entry in read["metadata"]["managedFields"]}
    assert managers == {"kubectl", "kubectl-last-applied"}


@kubectl
def test_kubectl_shows_the_subjects_of_a_role_binding(cluster, namespace: str):
    who = ("--user=ann", "--user=bob", "--group=ops", f"--serviceaccount={namespace}:app")
    cluster.kubectl("create", "rolebinding", "b", "-n", namespace, "--role=r", *who)
    wide = cluster.kubectl("get", "rolebinding", "b", "-n", namespace, "-o", "wide").stdout
    heads, row = (re.split(r" {2,}", line.strip()) for line in wide.splitlines())
    assert heads == ["NAME", "ROLE", "AGE", "USERS", "GROUPS", "SERVICEACCOUNTS"]
    assert row[:2] + row[3:] == ["b", "Role/r", "ann, bob", "ops", f"{namespace}/app"]


def test_the_python_client_manages_accounts_pods_and_tokens(typed: client.CoreV1Api, namespace: str):
    metadata = client.V1ObjectMeta(name="app", annotations={ROLE: ARN})
    made = typed.create_namespaced_service_account(namespace, client.V1ServiceAccount(metadata=metadata))
    assert made.metadata.annotations == {ROLE: ARN}
    typed.patch_namespaced_service_account("app", namespace, {"metadata": {"annotations": {ROLE: None}}})
    assert typed.read_namespaced_service_account("app", namespace).metadata.annotations is None
    container = client.V1Container(name="main", image="amazon/aws-cli", command=["sleep", "1"])
    spec = client.V1PodSpec(service_account_name="app", containers=[container])
    body = client.V1Pod(metadata=client.V1ObjectMeta(name="p", labels={"app": "demo"}), spec=spec)
    assert typed.create_namespaced_pod(namespace, body).status.phase == "Pending"
    (found,) = typed.list_namespaced_pod(namespace, label_selector="app=demo").items
    assert found.spec.service_account_name == "app"
    request = client.AuthenticationV1TokenRequest(
        spec=client.V1TokenRequestSpec(audiences=["sts.amazonaws.com"], expiration_seconds=600)
    )
    assert typed.create_namespaced_service_account_token("app", namespace, request).status.token
    typed.delete_namespaced_pod("p", namespace)
    with pytest.raises(ApiException) as missing:
        typed.read_namespaced_pod("p", namespace)
    assert (missing.value.status, json.loads(missing.value.body)["reason"]) == (404, "NotFound")


def test_a_strategic_merge_patch_merges_containers_by_name(admin: httpx.Client, namespace: str):
    pods = f"/api/v1/namespaces/{namespace}/pods"
    two = [{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:1"}]
    admin.post(pods, json=pod("p", containers=two))
    strategic = {"Content-Type": "application/strategic-merge-patch+json"}
    patch = {"spec": {"containers": [{"name": "b", "image": "i:2"}]}}
    images = {
        c["name"]: c["image"]
        for c in admin.patch(f"{pods}/p", json=patch, headers=strategic).json()["spec"]["containers"]
    }
    assert images == {"a": "i:1", "b": "i:2"}


@pytest.mark.parametrize(("kind", "patch", "code", "message"), [
    ("json-patch+json", [{"op": "remove", "path": "/data/none"}], 422, "the server rejected our request"),
    ("json-patch+json", {"op": "add"}, 400, "cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
    ("json-patch+json", [1], 422, "the server rejected our request"),
    ("merge-patch+json", [], 400, "error decoding patch"),
    ("merge-patch+json", {"metadata": {"name": "b"}}, 400, "the name of the object (b) does not match"),
    ("merge-patch+json", {"data": 1}, 422, "cannot unmarshal number into Go struct field"),
    ("strategic-merge-patch+json", {"metadata": None}, 200, ""),
    ("json", {}, 415, "415: Unsupported Media Type"),
    ("apply-patch+yaml", {}, 422, "fieldManager: Required value: is required for apply patch"),
])  # fmt: skip
def test_a_bad_patch_is_refused_unless_it_only_clears_the_metadata(admin, namespace, kind, patch, code, message):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    admin.post(path, json={"metadata": {"name": "a"}})
    headers = {"Content-Type": f"application/{kind}"}
    answer = admin.patch(f"{path}/a", content=json.dumps(patch), headers=headers)
    assert answer.status_code == code, answer.text
    if message:
        assert message in answer.json()["message"]
