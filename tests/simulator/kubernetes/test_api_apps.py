"""Deployments and Services in the API: defaults, validation, scaling, permissions and discovery."""

import json

import httpx
import pytest
from kubernetes import client
from kubernetes.config import new_client_from_config

from tests.simulator.kubernetes.apps import MERGE, Apps, deployment, until
from tests.simulator.kubernetes.conftest import Cluster


@pytest.fixture
def apps(cluster: Cluster, admin: httpx.Client, namespace: str) -> Apps:
    return Apps(cluster, admin, namespace)


# Defaults, validation, the subresources


def test_a_deployment_gets_its_defaults(apps: Apps):
    made = apps.create(deployment())
    spec = made["spec"]
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
    assert spec["template"]["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    assert (spec["template"]["spec"]["restartPolicy"], made["status"]) == ("Always", {})
    assert made["metadata"]["generation"] == 1


@pytest.mark.parametrize(("spec", "message"), [
    ({"selector": None}, "spec.selector: Required value"),
    ({"selector": {}}, "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
    ({"selector": {"matchLabels": {"app": "other"}}},
     'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`'),
    ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
    ({"pod_spec": {"restartPolicy": "Never"}}, 'restartPolicy: Unsupported value: "Never": supported values: "Always"'),
    ({"pod_spec": {"containers": []}}, "spec.template.spec.containers: Required value"),
    ({"strategy": {"type": "Other"}},
     'spec.strategy.type: Unsupported value: "Other": supported values: "Recreate", "RollingUpdate"'),
    ({"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
     "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"),
    ({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
     "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"),
    ({"strategy": {"rollingUpdate": {"maxSurge": "x"}}}, 'maxSurge: Invalid value: "x": a valid percent string'),
    ({"minReadySeconds": 600},
     "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"),
    ({"labels": {"app": "-"}}, 'spec.template.labels: Invalid value: "-": a valid label must be'),
])  # fmt: skip
def test_an_invalid_deployment_is_refused(apps: Apps, spec: dict, message: str):
    answer = apps.http.post(f"{apps.apps}/deployments", json=deployment(**spec))
    assert answer.status_code == 422
    assert answer.json()["message"].startswith('Deployment.apps "web" is invalid: ')
    assert message in answer.json()["message"]


def test_a_deployments_selector_cannot_be_changed(apps: Apps):
    apps.create(deployment())
    labels = {"app": "new"}
    patch = {"spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}}
    answer = apps.http.patch(f"{apps.apps}/deployments/web", json=patch, headers=MERGE)
    assert answer.status_code == 422
    assert answer.json()["message"] == (
        'Deployment.apps "web" is invalid: spec.selector: Invalid value: {"matchLabels":{"app":"new"}}:'
        " field is immutable"
    )


def test_an_owner_reference_without_a_uid_is_refused(apps: Apps):
    metadata = {"name": "c", "ownerReferences": [{"kind": "Pod", "name": "p"}]}
    answer = apps.http.post(f"{apps.core}/configmaps", json={"metadata": metadata})
    assert answer.status_code == 422
    assert 'metadata.ownerReferences.uid: Invalid value: "": must not be empty' in answer.json()["message"]


def test_scale_is_read_replaced_and_patched(apps: Apps):
    apps.create(deployment())
    url = f"{apps.apps}/deployments/web/scale"
    scale = until(lambda: found if (found := apps.http.get(url).json())["status"]["replicas"] == 1 else None)
    assert (scale["kind"], scale["apiVersion"], scale["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 1})
    assert scale["status"] == {"replicas": 1, "selector": "app=web"}
    scale["spec"]["replicas"] = 2
    stale = {**scale, "metadata": {**scale["metadata"], "resourceVersion": "1"}}
    assert apps.http.put(url, json=stale).status_code == 409
    scale["metadata"].pop("resourceVersion")
    assert apps.http.put(url, json=scale).json()["spec"] == {"replicas": 2}
    assert apps.http.patch(url, json={"spec": {"replicas": 3}}, headers=MERGE).json()["spec"] == {"replicas": 3}
    refused = apps.http.patch(url, json={"spec": {"replicas": -1}}, headers=MERGE)
    assert (refused.status_code, refused.json()["message"]) == (
        422,
        'Scale.autoscaling "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0',
    )
    wrong = apps.http.patch(url, json={"spec": {"replicas": "many"}}, headers=MERGE)
    assert wrong.status_code == 400
    apps.pod_count(3)


@pytest.mark.kubectl
def test_kubectl_scales_a_deployment(apps: Apps):
    apps.create(deployment())
    assert apps.kubectl("scale", "deployment", "web", "--replicas=3") == "deployment.apps/web scaled\n"
    apps.pod_count(3)
    refused = apps.kubectl("scale", "deploy/web", "--current-replicas=2", "--replicas=1", code=1)
    assert "Expected replicas to be 2, was 3" in refused
    apps.kubectl("scale", "deploy/web", "--replicas=0")
    apps.pod_count(0)
    assert apps.deployment()["metadata"]["generation"] == 3


def test_the_python_client_creates_and_scales_a_deployment(apps: Apps):
    api = client.AppsV1Api(new_client_from_config(str(apps.cluster.kubeconfig)))
    api.create_namespaced_deployment(apps.namespace, deployment())
    api.patch_namespaced_deployment_scale("web", apps.namespace, {"spec": {"replicas": 2}})
    assert api.read_namespaced_deployment_scale("web", apps.namespace).spec.replicas == 2
    apps.pod_count(2)
    (one,) = api.list_namespaced_replica_set(apps.namespace, label_selector="app=web").items
    assert one.metadata.owner_references[0].name == "web"
    status = lambda: api.read_namespaced_deployment_status("web", apps.namespace).status  # noqa: E731
    until(lambda: status().unavailable_replicas == 2, "the deployment has counted its pods")


# Permissions


@pytest.mark.kubectl
@pytest.mark.parametrize(("role", "verb", "resource", "answer"), [
    ("view", "list", "deployments", True),
    ("view", "get", "deployments/scale", True),
    ("view", "patch", "deployments", False),
    ("view", "get", "pods/exec", False),
    ("view", "get", "secrets", False),
    ("edit", "patch", "deployments", True),
    ("edit", "patch", "deployments/scale", True),
    ("edit", "delete", "replicasets", True),
    ("edit", "create", "pods/attach", True),
    ("edit", "update", "deployments/status", False),
    ("edit", "create", "rolebindings", False),
    ("admin", "create", "rolebindings", True),
    ("admin", "get", "deployments/status", True),
])  # fmt: skip
def test_the_view_edit_and_admin_roles_have_their_usual_permissions(apps, role, verb, resource, answer):
    apps.kubectl("create", "rolebinding", "r", f"--clusterrole={role}", "--user=ann")
    resource, _, below = resource.partition("/")
    attributes = {"namespace": apps.namespace, "verb": verb, "resource": resource, "subresource": below}
    attributes["group"] = {
        "deployments": "apps",
        "replicasets": "apps",
        "rolebindings": "rbac.authorization.k8s.io",
    }.get(resource, "")
    body = {"spec": {"user": "ann", "resourceAttributes": attributes}}
    review = apps.http.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", json=body)
    assert review.json()["status"]["allowed"] is answer


@pytest.mark.kubectl
def test_discovery_lists_the_apps_api(apps: Apps):
    rows = apps.kubectl("api-resources", "--api-group=apps", "--no-headers").splitlines()
    assert [row.split() for row in rows] == [
        ["deployments", "deploy", "apps/v1", "true", "Deployment"],
        ["replicasets", "rs", "apps/v1", "true", "ReplicaSet"],
    ]
    assert "FIELD: maxSurge <" in apps.kubectl("explain", "deployment.spec.strategy.rollingUpdate.maxSurge")
    listed = apps.http.get("/apis/apps/v1").json()["resources"]
    scale = next(row for row in listed if row["name"] == "deployments/scale")
    assert (scale["group"], scale["version"], scale["kind"]) == ("autoscaling", "v1", "Scale")
    assert json.loads(apps.kubectl("get", "--raw", "/apis/apps"))["preferredVersion"]["version"] == "v1"


SERVICE = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}


def test_a_service_gets_an_address_and_keeps_it(admin: httpx.Client, namespace: str):
    services = f"/api/v1/namespaces/{namespace}/services"
    made = admin.post(services, json=SERVICE)
    assert made.status_code == 201, made.text
    assert "nothing answers at a Service's address" in made.headers["warning"]
    spec = made.json()["spec"]
    assert spec["clusterIP"].startswith("10.100.")
    assert spec["ports"] == [{"protocol": "TCP", "port": 80, "targetPort": 80}]
    replaced = admin.put(f"{services}/web", json=SERVICE | {"spec": {**SERVICE["spec"], "ports": [{"port": 81}]}})
    assert replaced.json()["spec"]["clusterIP"] == spec["clusterIP"]
    moved = admin.put(f"{services}/web", json=SERVICE | {"spec": {**SERVICE["spec"], "clusterIP": "10.100.0.1"}})
    assert (moved.status_code, moved.json()["details"]["causes"][0]["field"]) == (422, "spec.clusterIPs[0]")
    other = admin.post(services, json=SERVICE | {"metadata": {"name": "other"}}).json()["spec"]["clusterIP"]
    assert other != spec["clusterIP"]
    assert admin.delete(f"{services}/web").json()["kind"] == "Service"


def test_a_service_that_was_an_external_name_gets_an_address(admin: httpx.Client, namespace: str):
    services = f"/api/v1/namespaces/{namespace}/services"
    external = SERVICE | {"spec": {"type": "ExternalName", "externalName": "example.com"}}
    assert "clusterIP" not in admin.post(services, json=external).json()["spec"]
    assert admin.put(f"{services}/web", json=SERVICE).json()["spec"]["clusterIP"].startswith("10.100.")


@pytest.mark.parametrize(("spec", "field"), [
    ({}, "spec.ports"),
    ({"type": "Other", "ports": [{"port": 80}]}, "spec.type"),
    ({"ports": [{"port": 0}]}, "spec.ports[0].port"),
    ({"ports": [{"port": 80}, {"port": 81}]}, "spec.ports[0].name"),
    ({"type": "ExternalName"}, "spec.externalName"),
])  # fmt: skip
def test_an_invalid_service_is_refused(admin: httpx.Client, namespace: str, spec: dict, field: str):
    refused = admin.post(f"/api/v1/namespaces/{namespace}/services", json={"metadata": {"name": "a"}, "spec": spec})
    assert refused.status_code == 422, refused.text
    assert field in [cause["field"] for cause in refused.json()["details"]["causes"]]
