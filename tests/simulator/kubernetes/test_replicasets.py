"""ReplicaSets, their pods and cascading deletion. Each test plays the kubelet and marks pods as ready."""

import httpx
import pytest

from labkit.simulator.certificates import Authority
from tests.simulator.kubernetes.apps import MERGE, Apps, deployment, replica_set, until
from tests.simulator.kubernetes.conftest import Cluster, base64_text, listening, pod
from tests.simulator.kubernetes.test_api_admission import PATH as WEBHOOKS
from tests.simulator.kubernetes.test_api_admission import Webhook


@pytest.fixture
def apps(cluster: Cluster, admin: httpx.Client, namespace: str) -> Apps:
    return Apps(cluster, admin, namespace)


# ReplicaSets and their pods


def test_pod_creation_with_a_missing_service_account_is_reported_and_retried(apps: Apps):
    apps.create(deployment(pod_spec={"serviceAccountName": "nope"}))
    failure = apps.condition("ReplicaFailure", "FailedCreate")
    (one,) = apps.replica_sets()
    name = one["metadata"]["name"]
    refusal = (
        f'pods "{name}-" is forbidden: error looking up service account {apps.namespace}/nope:'
        ' serviceaccount "nope" not found'
    )
    assert (failure["status"], failure["message"]) == ("True", refusal)
    assert one["status"]["conditions"][0]["message"] == refusal
    assert apps.events("FailedCreate", "ReplicaSet") == [f"Error creating: {refusal}"]
    apps.http.post(f"{apps.core}/serviceaccounts", json={"metadata": {"name": "nope"}})
    apps.pod_count(1)
    apps.rolled_out()
    until(lambda: "conditions" not in apps.replica_sets()[0]["status"], "the ReplicaSet says nothing any more")
    both = {"Available", "Progressing"}
    until(lambda: {one["type"] for one in apps.deployment()["status"]["conditions"]} == both, "nor the Deployment")


def test_a_deleted_or_failed_pod_is_replaced(apps: Apps):
    apps.create(replica_set(replicas=2))
    first, second = (one["metadata"]["name"] for one in apps.pod_count(2))
    apps.http.delete(f"{apps.core}/pods/{first}")
    until(lambda: len(pods := apps.pods()) == 2 and first not in str(pods), "another one comes")
    apps.http.patch(f"{apps.core}/pods/{second}/status", json={"status": {"phase": "Failed"}}, headers=MERGE)
    apps.pod_count(3)
    assert len(apps.events("SuccessfulCreate", "ReplicaSet")) == 4


def test_a_replica_set_adopts_matching_pods_and_releases_others(apps: Apps):
    loose = pod("loose")
    loose["metadata"]["labels"] = {"app": "web"}
    apps.http.post(f"{apps.core}/pods", json=loose)
    apps.create(replica_set(replicas=2))
    other = next(one["metadata"]["name"] for one in apps.pod_count(2) if one["metadata"]["name"] != "loose")
    owners = apps.http.get(f"{apps.core}/pods/loose").json()["metadata"]["ownerReferences"]
    assert [(owner["kind"], owner["name"]) for owner in owners] == [("ReplicaSet", "web")]
    apps.http.patch(f"{apps.core}/pods/loose", json={"metadata": {"labels": {"app": "x"}}}, headers=MERGE)
    apps.pod_count(3)
    assert "ownerReferences" not in apps.http.get(f"{apps.core}/pods/loose").json()["metadata"]
    # The pod matches again, so there is one too many. The pod that isn't ready is deleted.
    apps.set_ready("loose")
    apps.set_ready(other)
    apps.http.patch(f"{apps.core}/pods/loose", json={"metadata": {"labels": {"app": "web"}}}, headers=MERGE)
    assert {one["metadata"]["name"] for one in apps.pod_count(2)} == {"loose", other}


def test_scaling_down_deletes_the_newest_ready_pods_first(apps: Apps, lab_time):
    apps.create(replica_set(replicas=1))
    (oldest,) = apps.pod_count(1)
    apps.run_all()
    lab_time.advance(hours=1)
    apps.http.patch(f"{apps.apps}/replicasets/web/scale", json={"spec": {"replicas": 3}}, headers=MERGE)
    apps.pod_count(3)
    apps.run_all()
    lab_time.advance(minutes=1)
    apps.http.patch(f"{apps.apps}/replicasets/web/scale", json={"spec": {"replicas": 1}}, headers=MERGE)
    assert apps.pod_count(1)[0]["metadata"]["name"] == oldest["metadata"]["name"]
    assert len(apps.events("SuccessfulDelete", "ReplicaSet")) == 2


def test_webhooks_are_called_for_the_pods_of_a_replica_set(apps: Apps):
    webhook, authority = Webhook(), Authority.create("webhook")
    with listening(apps.cluster.loop, webhook, authority) as port:
        hook = {
            "name": "pods.lab.example",
            "clientConfig": {
                "url": f"https://127.0.0.1:{port}/mutate",
                "caBundle": base64_text(authority.certificate_pem),
            },
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": apps.namespace}},
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
        }
        made = apps.http.post(WEBHOOKS, json={"metadata": {"name": "deployments"}, "webhooks": [hook]})
        assert made.status_code == 201, made.text
        try:
            apps.create(deployment())
            (one,) = apps.pod_count(1)
        finally:
            apps.http.delete(f"{WEBHOOKS}/deployments")
    assert one["spec"]["containers"][0]["env"] == [{"name": "A", "value": "b"}]
    (review,) = webhook.reviews
    request, metadata = review["request"], review["request"]["object"]["metadata"]
    assert request["userInfo"]["username"] == "system:serviceaccount:kube-system:replicaset-controller"
    assert "system:serviceaccounts:kube-system" in request["userInfo"]["groups"]
    assert "name" not in request
    assert "name" not in metadata
    assert metadata["generateName"] == one["metadata"]["generateName"]
    apps.rolled_out()
    assert len(apps.replica_sets()) == 1, "what the webhook changed is not a new template"


# Deletions


@pytest.mark.kubectl
@pytest.mark.parametrize("cascade", ["background", "foreground"])
def test_deleting_a_deployment_deletes_its_replica_sets_and_pods(apps: Apps, cascade: str):
    apps.create(deployment(replicas=2))
    apps.pod_count(2)
    deleted = apps.kubectl("delete", "deployment", "web", f"--cascade={cascade}", "--timeout=20s")
    assert deleted == 'deployment.apps "web" deleted\n'
    if cascade == "background":
        until(lambda: not apps.replica_sets() and not apps.pods(), "all are gone")
    assert (apps.replica_sets(), apps.pods()) == ([], [])


@pytest.mark.kubectl
def test_foreground_deletion_waits_for_pods_that_end_slowly(apps: Apps, node: str):
    apps.create(deployment())
    (one,) = apps.pod_count(1)
    apps.kubectl("delete", "deployment", "web", "--cascade=foreground", "--wait=false")
    until(lambda: "deletionTimestamp" in apps.pods()[0]["metadata"], "the pod is to end")
    assert apps.deployment()["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert [len(apps.pods()), len(apps.replica_sets())] == [1, 1]
    apps.http.delete(f"{apps.core}/pods/{one['metadata']['name']}", params={"gracePeriodSeconds": 0})
    until(lambda: apps.http.get(f"{apps.apps}/deployments/web").status_code == 404, "the Deployment is gone")
    assert (apps.replica_sets(), apps.pods()) == ([], [])


@pytest.mark.kubectl
def test_orphaned_replica_sets_are_adopted_by_the_next_deployment(apps: Apps):
    apps.create(deployment())
    apps.rolled_out()
    (before,) = apps.pods()
    apps.kubectl("delete", "deployment", "web", "--cascade=orphan")
    (one,) = until(lambda: [s for s in apps.replica_sets() if "ownerReferences" not in s["metadata"]], "it is free")
    apps.create(deployment())
    apps.rolled_out()
    (again,) = apps.replica_sets()
    assert again["metadata"]["uid"] == one["metadata"]["uid"]
    assert again["metadata"]["ownerReferences"][0]["name"] == "web"
    assert [pod["metadata"]["uid"] for pod in apps.pods()] == [before["metadata"]["uid"]]


def test_a_pod_with_a_missing_owner_is_deleted_unless_the_kind_is_unknown(apps: Apps):
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "gone"}
    one = pod("p")
    one["metadata"]["ownerReferences"] = [owner]
    apps.http.post(f"{apps.core}/pods", json=one)
    apps.pod_count(0)
    # An owner of a kind that this server doesn't serve might exist, so the pod stays.
    one["metadata"]["ownerReferences"] = [{**owner, "apiVersion": "example.com/v1"}]
    assert apps.http.post(f"{apps.core}/pods", json=one).status_code == 201
    apps.create(deployment())
    apps.pod_count(2)


@pytest.mark.kubectl
def test_deleting_a_namespace_deletes_its_deployments_and_pods(apps: Apps):
    apps.create(deployment(replicas=2))
    apps.pod_count(2)
    # Pods and their events are still being created while the namespace is deleted.
    apps.create(replica_set("late", replicas=20))
    apps.kubectl("delete", "namespace", apps.namespace, "--timeout=20s")
    assert (apps.replica_sets(), apps.pods()) == ([], [])
