"""Deployments without a node: each test plays the kubelet and marks pods as ready."""

import subprocess

import httpx
import pytest

from tests.simulator.kubernetes.apps import MERGE, REVISION, Apps, deployment, until
from tests.simulator.kubernetes.conftest import Cluster


@pytest.fixture
def apps(cluster: Cluster, admin: httpx.Client, namespace: str) -> Apps:
    return Apps(cluster, admin, namespace)


# The output of kubectl


@pytest.mark.kubectl
def test_kubectl_create_deployment_makes_a_pod_named_after_the_template_hash(apps: Apps):
    made = apps.kubectl("create", "deployment", "web", "--image=amazon/aws-cli", "--", "sleep", "3600")
    assert made == "deployment.apps/web created\n"
    (one,) = apps.pod_count(1)
    (owner,) = one["metadata"]["ownerReferences"]
    label = one["metadata"]["labels"]["pod-template-hash"]
    assert one["metadata"]["labels"] == {"app": "web", "pod-template-hash": label}
    assert set(label) <= set("bcdf456789")
    assert (owner["kind"], owner["name"], owner["controller"]) == ("ReplicaSet", f"web-{label}", True)
    assert one["metadata"]["name"].startswith(f"web-{label}-")
    assert len(one["metadata"]["name"]) == len(f"web-{label}-") + 5
    apps.rolled_out()
    assert "successfully rolled out" in apps.kubectl("rollout", "status", "deployment/web", "--timeout=10s")
    assert apps.kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=10s") == (
        "deployment.apps/web condition met\n"
    )


@pytest.mark.kubectl
def test_kubectl_get_shows_deployments_and_replica_sets_as_tables(apps: Apps):
    apps.create(deployment(replicas=2))
    apps.pod_count(2)
    apps.rolled_out()
    (one,) = apps.replica_sets()
    name, label = one["metadata"]["name"], one["metadata"]["labels"]["pod-template-hash"]

    def table(*arguments: str) -> list[list[str]]:
        return [line.split() for line in apps.kubectl("get", *arguments).splitlines()]

    head, row = table("deploy", "-o", "wide")
    assert head == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
    assert row[:4] + row[5:] == ["web", "2/2", "2", "2", "main", "amazon/aws-cli", "app=web"]
    head, row = table("rs", "-o", "wide")
    assert head == ["NAME", "DESIRED", "CURRENT", "READY", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
    assert row[:4] + row[5:] == [name, "2", "2", "2", "main", "amazon/aws-cli", f"app=web,pod-template-hash={label}"]
    everything = apps.kubectl("get", "all")
    assert all(text in everything for text in ("pod/web-", "deployment.apps/web", f"replicaset.apps/{name}"))


@pytest.mark.kubectl
def test_kubectl_describe_shows_a_deployment_and_its_events(apps: Apps):
    apps.create(deployment())
    apps.pod_count(1)
    apps.rolled_out()
    apps.condition("Progressing", "NewReplicaSetAvailable")
    (one,) = apps.replica_sets()
    text = apps.kubectl("describe", "deployment", "web")
    for words in (
        "Replicas:               1 desired | 1 updated | 1 total | 1 available | 0 unavailable",
        "RollingUpdateStrategy:  25% max unavailable, 25% max surge",
        "  Available      True    MinimumReplicasAvailable",
        "  Progressing    True    NewReplicaSetAvailable",
        f"NewReplicaSet:   {one['metadata']['name']} (1/1 replicas created)",
        f"deployment-controller  Scaled up replica set {one['metadata']['name']} from 0 to 1",
    ):
        assert words in text
    assert "replicaset-controller  Created pod: web-" in apps.kubectl("describe", "rs")


# Rollouts


@pytest.mark.kubectl
def test_a_rollout_restart_replaces_all_pods_step_by_step(apps: Apps):
    apps.create(deployment(replicas=4))
    apps.pod_count(4)
    apps.rolled_out()
    before = {one["metadata"]["name"] for one in apps.pods()}
    assert apps.kubectl("rollout", "restart", "deployment/web") == "deployment.apps/web restarted\n"
    # 25% of four pods: one pod more than four, and one fewer available.
    until(lambda: apps.sizes() == {"1": 3, "2": 2}, "the first step")
    new = [one["metadata"]["name"] for one in apps.pod_count(5) if one["metadata"]["name"] not in before]
    assert len(new) == 2
    apps.set_ready(new[0])
    until(lambda: apps.sizes() == {"1": 2, "2": 3}, "the second step")
    apps.rolled_out()
    assert apps.sizes() == {"1": 0, "2": 4}
    assert before.isdisjoint(one["metadata"]["name"] for one in apps.pods())
    progress = apps.condition("Progressing", "NewReplicaSetAvailable")
    new_set = next(one["metadata"]["name"] for one in apps.replica_sets() if one["spec"]["replicas"])
    assert progress["message"] == f'ReplicaSet "{new_set}" has successfully progressed.'
    assert f"Scaled up replica set {new_set} from 0 to 1" in apps.events("ScalingReplicaSet")


@pytest.mark.kubectl
def test_kubectl_rollout_status_shows_the_progress(apps: Apps):
    apps.create(deployment(replicas=2))
    apps.pod_count(2)
    text = apps.kubectl("rollout", "status", "deployment/web", "--timeout=1s", code=1)
    assert "timed out waiting for the condition" in text
    command = ["kubectl", "--kubeconfig", apps.cluster.kubeconfig, "-n", apps.namespace]
    command += ["rollout", "status", "deployment/web", "--timeout=20s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shown:
        first = shown.stdout.readline()
        apps.rolled_out()
        last = shown.stdout.read().splitlines()[-1]
    assert first == 'Waiting for deployment "web" rollout to finish: 0 of 2 updated replicas are available...\n'
    assert last == 'deployment "web" successfully rolled out'


def test_the_recreate_strategy_waits_for_the_old_pods_to_end(apps: Apps, node: str):
    apps.create(deployment(replicas=2, strategy={"type": "Recreate"}))
    old = apps.pod_count(2)
    apps.rolled_out()
    apps.patch({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}})
    # The pods are on a node, so they stay until the node reports their end.
    until(lambda: all("deletionTimestamp" in one["metadata"] for one in apps.pods()), "they are to end")
    apps.condition("Available", "MinimumReplicasUnavailable")
    assert len(apps.replica_sets()) == 1
    for one in old:
        apps.http.delete(f"{apps.core}/pods/{one['metadata']['name']}", params={"gracePeriodSeconds": 0})
    until(lambda: apps.sizes() == {"1": 0, "2": 2}, "the new ones come")
    apps.rolled_out()
    for one in apps.pods():
        apps.http.delete(f"{apps.core}/pods/{one['metadata']['name']}", params={"gracePeriodSeconds": 0})


@pytest.mark.kubectl
def test_kubectl_rollout_history_and_undo_show_and_restore_a_revision(apps: Apps):
    apps.kubectl("apply", "-f", "-", given=deployment())
    apps.rolled_out()
    apps.kubectl("set", "image", "deployment/web", "main=amazon/aws-cli:2")
    apps.kubectl("annotate", "deployment/web", "kubernetes.io/change-cause=a newer image")
    apps.rolled_out()
    until(lambda: "2         a newer image" in apps.kubectl("rollout", "history", "deployment/web"), "the cause")
    text = apps.kubectl("rollout", "history", "deployment/web", "--revision=2")
    assert "Image:      amazon/aws-cli:2" in text.replace("\t", "      ")
    assert apps.kubectl("rollout", "undo", "deployment/web") == "deployment.apps/web rolled back\n"
    apps.rolled_out()
    until(lambda: apps.deployment()["metadata"]["annotations"][REVISION] == "3", "the third revision")
    assert apps.sizes() == {"2": 0, "3": 1}
    first = next(one for one in apps.replica_sets() if one["spec"]["replicas"])
    assert first["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"
    assert apps.pods()[0]["spec"]["containers"][0]["image"] == "amazon/aws-cli"


def test_old_replica_sets_beyond_the_history_limit_are_deleted(apps: Apps):
    apps.create(deployment(revisionHistoryLimit=1))
    for number in range(3):
        apps.rolled_out()
        apps.patch({"spec": {"template": {"metadata": {"annotations": {"n": str(number)}}}}})
    apps.rolled_out()
    until(lambda: apps.sizes() == {"3": 0, "4": 1}, "the history is short")


@pytest.mark.kubectl
def test_a_paused_deployment_is_scaled_but_not_rolled_out(apps: Apps):
    apps.create(deployment(replicas=2))
    apps.pod_count(2)
    apps.rolled_out()
    assert apps.kubectl("rollout", "pause", "deployment/web") == "deployment.apps/web paused\n"
    assert apps.condition("Progressing", "DeploymentPaused")["message"] == "Deployment is paused"
    apps.kubectl("set", "env", "deployment/web", "A=1")
    apps.kubectl("scale", "deployment/web", "--replicas=3")
    until(lambda: apps.sizes() == {"1": 3}, "it is scaled all the same")
    assert "is already paused" in apps.kubectl("rollout", "pause", "deployment/web", code=1)
    assert apps.kubectl("rollout", "resume", "deployment/web") == "deployment.apps/web resumed\n"
    apps.rolled_out()
    assert apps.sizes() == {"1": 0, "2": 3}
    assert apps.pods()[0]["spec"]["containers"][0]["env"] == [{"name": "A", "value": "1"}]


def test_scaling_in_the_middle_of_a_rollout_is_proportional(apps: Apps):
    strategy = {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
    apps.create(deployment(replicas=10, strategy=strategy))
    apps.pod_count(10)
    apps.rolled_out()
    apps.patch({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}})
    until(lambda: apps.sizes() == {"1": 8, "2": 5}, "the rollout has begun")
    apps.patch({"spec": {"replicas": 15}})
    # The example in the Kubernetes documentation: three more old pods, two more new ones.
    until(lambda: apps.sizes() == {"1": 11, "2": 7}, "both have grown")


@pytest.mark.kubectl
def test_a_stalled_rollout_is_marked_as_failed_by_lab_time(apps: Apps, lab_time):
    apps.create(deployment(progressDeadlineSeconds=60))
    apps.pod_count(1)
    apps.condition("Progressing", "ReplicaSetUpdated")
    lab_time.advance(seconds=90)
    late = apps.condition("Progressing", "ProgressDeadlineExceeded")
    (one,) = apps.replica_sets()
    assert late["status"] == "False"
    assert late["message"] == f'ReplicaSet "{one["metadata"]["name"]}" has timed out progressing.'
    text = apps.kubectl("rollout", "status", "deployment/web", code=1)
    assert text == 'error: deployment "web" exceeded its progress deadline\n'
    apps.rolled_out()
    apps.condition("Progressing", "NewReplicaSetAvailable")


def test_a_pod_is_available_after_it_has_been_ready_for_min_ready_seconds(apps: Apps, lab_time):
    apps.create(deployment(minReadySeconds=30))
    (one,) = apps.pod_count(1)
    apps.set_ready(one["metadata"]["name"])
    until(lambda: apps.deployment()["status"].get("readyReplicas") == 1, "it is ready")
    assert apps.deployment()["status"].get("availableReplicas", 0) == 0
    lab_time.advance(seconds=31)
    until(lambda: apps.deployment()["status"].get("availableReplicas") == 1, "it is available")


def test_invalid_annotations_and_conditions_do_not_stop_a_rollout(apps: Apps):
    apps.create(deployment())
    apps.rolled_out()
    (one,) = apps.replica_sets()
    notes = {
        REVISION: "²",
        "deployment.kubernetes.io/max-replicas": "",
        "deployment.kubernetes.io/desired-replicas": "x",
    }
    url = f"{apps.apps}/replicasets/{one['metadata']['name']}"
    assert apps.http.patch(url, json={"metadata": {"annotations": notes}}, headers=MERGE).status_code == 200
    status = {"status": {"conditions": [{}, {"type": "Progressing"}, {"type": "Available", "status": "True"}]}}
    url = f"{apps.apps}/deployments/web/status"
    assert apps.http.patch(url, json=status, headers=MERGE).status_code == 200
    apps.patch({"spec": {"replicas": 2, "template": {"metadata": {"annotations": {"a": "b"}}}}})
    apps.rolled_out()
    apps.condition("Available", "MinimumReplicasAvailable")


# Applying


@pytest.mark.kubectl
def test_kubectl_applies_a_deployment_on_the_client_and_on_the_server(apps: Apps):
    assert apps.kubectl("apply", "-f", "-", given=deployment()) == "deployment.apps/web created\n"
    assert apps.kubectl("apply", "-f", "-", given=deployment()) == "deployment.apps/web unchanged\n"
    changed = deployment(pod_spec={"terminationGracePeriodSeconds": 5})
    assert apps.kubectl("apply", "-f", "-", given=changed) == "deployment.apps/web configured\n"
    applied = apps.kubectl("apply", "--server-side", "-f", "-", given=deployment("other"))
    assert applied == "deployment.apps/other serverside-applied\n"
    apps.rolled_out("other")
    changed = deployment("other", replicas=2)
    assert apps.kubectl("apply", "--server-side", "-f", "-", given=changed) == applied
    apps.rolled_out("other")
    assert apps.deployment("other")["metadata"]["annotations"][REVISION] == "1"
    apps.kubectl("scale", "deployment/other", "--replicas=1")
    conflict = apps.kubectl("apply", "--server-side", "-f", "-", given=changed, code=1)
    assert 'conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas' in conflict


@pytest.mark.kubectl
def test_kubectl_set_serviceaccount_rolls_out_pods_with_the_new_account(apps: Apps):
    apps.create(deployment())
    apps.rolled_out()
    apps.kubectl("create", "serviceaccount", "reader")
    changed = apps.kubectl("set", "serviceaccount", "deployment", "web", "reader")
    assert changed == "deployment.apps/web serviceaccount updated\n"
    apps.rolled_out()
    assert [one["spec"]["serviceAccountName"] for one in apps.pods()] == ["reader"]
