"""Deployments and ReplicaSets at the API server alone: a test is the kubelet and says which pods are ready."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest
from kubernetes import client
from kubernetes.config import new_client_from_config

from labkit.emulator.certificates import Authority
from labkit.emulator.kubernetes.storage import timestamp
from tests.emulator.kubernetes.conftest import Cluster, base64_text, listening, pod
from tests.emulator.kubernetes.test_api_admission import PATH as WEBHOOKS
from tests.emulator.kubernetes.test_api_admission import Webhook

STRATEGIC = {"Content-Type": "application/strategic-merge-patch+json"}
MERGE = {"Content-Type": "application/merge-patch+json"}
REVISION = "deployment.kubernetes.io/revision"


def until(condition: Callable, what: str = "", seconds: float = 15):
    """Returns the first true result."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"{what or condition} did not come true"
        time.sleep(0.01)
    return result


def deployment(name: str = "web", labels: dict | None = None, pod_spec: dict | None = None, **spec: object) -> dict:
    labels = labels or {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {**pod("x")["spec"], **(pod_spec or {})}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }


def replica_set(name: str = "web", **spec: object) -> dict:
    return {**deployment(name, **spec), "kind": "ReplicaSet"}


@dataclass
class Apps:
    """The Deployments of one namespace, as a client sees them, and their pods, as a kubelet does."""

    cluster: Cluster
    http: httpx.Client
    namespace: str

    @property
    def apps(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}"

    @property
    def core(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}"

    def kubectl(self, *arguments: str, given: object = None, code: int = 0) -> str:
        done = self.cluster.kubectl("-n", self.namespace, *arguments, given=given, code=code)
        return done.stdout if code == 0 else done.stderr

    def create(self, obj: dict) -> dict:
        answer = self.http.post(f"{self.apps}/{obj['kind'].lower()}s", json=obj)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def deployment(self, name: str = "web") -> dict:
        return self.http.get(f"{self.apps}/deployments/{name}").json()

    def patch(self, patch: dict, name: str = "web") -> dict:
        answer = self.http.patch(f"{self.apps}/deployments/{name}", json=patch, headers=STRATEGIC)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def replica_sets(self) -> list[dict]:
        return self.http.get(f"{self.apps}/replicasets").json()["items"]

    def sizes(self) -> dict[str, int]:
        """The wanted size of each ReplicaSet by its revision."""
        sets = self.replica_sets()
        return {one["metadata"]["annotations"].get(REVISION, ""): one["spec"]["replicas"] for one in sets}

    def pods(self) -> list[dict]:
        return self.http.get(f"{self.core}/pods").json()["items"]

    def pod_count(self, count: int) -> list[dict]:
        until(lambda: len(self.pods()) == count, f"{count} pods")
        return self.pods()

    def set_ready(self, name: str, *, ready: bool = True) -> None:
        condition = {
            "type": "Ready",
            "status": str(ready),
            "lastTransitionTime": timestamp(self.cluster.clock.now()),
        }
        status = {"phase": "Running", "conditions": [condition]}
        answer = self.http.patch(f"{self.core}/pods/{name}/status", json={"status": status}, headers=STRATEGIC)
        assert answer.status_code in (200, 404), answer.text

    def run_all(self) -> None:
        for one in self.pods():
            if not _is_ready(one):
                self.set_ready(one["metadata"]["name"])

    def rolled_out(self, name: str = "web") -> dict:
        """Makes every pod ready as it comes, until the rollout is complete."""

        def complete() -> dict | None:
            self.run_all()
            found = self.deployment(name)
            status, wanted = found["status"], found["spec"]["replicas"]
            counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
            seen = status.get("observedGeneration") == found["metadata"]["generation"]
            return found if seen and counts == [wanted] * 3 else None

        return until(complete, "the rollout is complete")

    def condition(self, type_: str, reason: str, name: str = "web") -> dict:
        def found() -> dict | None:
            conditions = self.deployment(name)["status"].get("conditions") or []
            return next((one for one in conditions if (one.get("type"), one.get("reason")) == (type_, reason)), None)

        return until(found, f"{type_} {reason}")

    def events(self, reason: str, kind: str = "Deployment") -> list[str]:
        events = self.http.get(f"{self.core}/events").json()["items"]
        return [e["message"] for e in events if e["reason"] == reason and e["involvedObject"]["kind"] == kind]


def _is_ready(pod: dict) -> bool:
    return any(one["status"] == "True" for one in pod["status"].get("conditions") or () if one["type"] == "Ready")


@pytest.fixture
def apps(cluster: Cluster, admin: httpx.Client, namespace: str) -> Apps:
    return Apps(cluster, admin, namespace)


# What kubectl shows


@pytest.mark.kubectl
def test_create_deployment_makes_a_pod_with_the_hash(apps: Apps):
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
def test_tables(apps: Apps):
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
def test_describe(apps: Apps):
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


# Defaults, validation, the subresources


def test_a_deployment_gets_its_defaults(apps: Apps):
    made = apps.create(deployment())
    spec = made["spec"]
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
    }
    assert spec["template"]["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    assert (spec["template"]["spec"]["restartPolicy"], made["status"]) == ("Always", {})
    assert made["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"selector": None}, "spec.selector: Required value"),
        ({"selector": {}}, "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
        (
            {"selector": {"matchLabels": {"app": "other"}}},
            'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`',
        ),
        ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"pod_spec": {"restartPolicy": "Never"}},
            'restartPolicy: Unsupported value: "Never": supported values: "Always"',
        ),
        ({"pod_spec": {"containers": []}}, "spec.template.spec.containers: Required value"),
        (
            {"strategy": {"type": "Other"}},
            'spec.strategy.type: Unsupported value: "Other": supported values: "Recreate", "RollingUpdate"',
        ),
        (
            {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        ({"strategy": {"rollingUpdate": {"maxSurge": "x"}}}, 'maxSurge: Invalid value: "x": a valid percent string'),
        (
            {"minReadySeconds": 600},
            "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
        ),
        ({"labels": {"app": "-"}}, 'spec.template.labels: Invalid value: "-": a valid label must be'),
    ],
)
def test_a_deployment_that_cannot_be(apps: Apps, spec: dict, message: str):
    answer = apps.http.post(f"{apps.apps}/deployments", json=deployment(**spec))
    assert answer.status_code == 422
    assert answer.json()["message"].startswith('Deployment.apps "web" is invalid: ')
    assert message in answer.json()["message"]


def test_the_selector_stays(apps: Apps):
    apps.create(deployment())
    labels = {"app": "new"}
    patch = {"spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}}
    answer = apps.http.patch(f"{apps.apps}/deployments/web", json=patch, headers=MERGE)
    assert answer.status_code == 422
    assert answer.json()["message"] == (
        'Deployment.apps "web" is invalid: spec.selector: Invalid value: {"matchLabels":{"app":"new"}}:'
        " field is immutable"
    )


def test_owners_have_to_be_named(apps: Apps):
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
def test_kubectl_scale(apps: Apps):
    apps.create(deployment())
    assert apps.kubectl("scale", "deployment", "web", "--replicas=3") == "deployment.apps/web scaled\n"
    apps.pod_count(3)
    refused = apps.kubectl("scale", "deploy/web", "--current-replicas=2", "--replicas=1", code=1)
    assert "Expected replicas to be 2, was 3" in refused
    apps.kubectl("scale", "deploy/web", "--replicas=0")
    apps.pod_count(0)
    assert apps.deployment()["metadata"]["generation"] == 3


def test_the_typed_client(apps: Apps):
    api = client.AppsV1Api(new_client_from_config(str(apps.cluster.kubeconfig)))
    api.create_namespaced_deployment(apps.namespace, deployment())
    api.patch_namespaced_deployment_scale("web", apps.namespace, {"spec": {"replicas": 2}})
    assert api.read_namespaced_deployment_scale("web", apps.namespace).spec.replicas == 2
    apps.pod_count(2)
    (one,) = api.list_namespaced_replica_set(apps.namespace, label_selector="app=web").items
    assert one.metadata.owner_references[0].name == "web"
    assert api.read_namespaced_deployment_status("web", apps.namespace).status.unavailable_replicas == 2


# Rollouts


@pytest.mark.kubectl
def test_a_restart_replaces_the_pods_and_never_has_too_few(apps: Apps):
    apps.create(deployment(replicas=4))
    apps.pod_count(4)
    apps.rolled_out()
    before = {one["metadata"]["name"] for one in apps.pods()}
    assert apps.kubectl("rollout", "restart", "deployment/web") == "deployment.apps/web restarted\n"
    # One more than four, and one less that is available.
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
def test_rollout_status_tells_how_far_it_is(apps: Apps):
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


def test_recreate_waits_for_the_old_pods_to_end(apps: Apps, node: str):
    apps.create(deployment(replicas=2, strategy={"type": "Recreate"}))
    old = apps.pod_count(2)
    apps.rolled_out()
    apps.patch({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}})
    # They are on a node: they stay until that says that they have ended.
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
def test_history_and_undo(apps: Apps):
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


def test_only_so_many_old_replica_sets_stay(apps: Apps):
    apps.create(deployment(revisionHistoryLimit=1))
    for number in range(3):
        apps.rolled_out()
        apps.patch({"spec": {"template": {"metadata": {"annotations": {"n": str(number)}}}}})
    apps.rolled_out()
    until(lambda: apps.sizes() == {"3": 0, "4": 1}, "the history is short")


@pytest.mark.kubectl
def test_a_paused_deployment_is_not_rolled_out(apps: Apps):
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
    # The documentation's own example: three more for the old one, two more for the new one.
    until(lambda: apps.sizes() == {"1": 11, "2": 7}, "both have grown")


@pytest.mark.kubectl
def test_a_rollout_that_does_not_get_on_is_given_up_by_lab_time(apps: Apps, lab_time):
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


def test_a_pod_is_available_once_it_was_ready_for_long_enough(apps: Apps, lab_time):
    apps.create(deployment(minReadySeconds=30))
    (one,) = apps.pod_count(1)
    apps.set_ready(one["metadata"]["name"])
    until(lambda: apps.deployment()["status"].get("readyReplicas") == 1, "it is ready")
    assert apps.deployment()["status"].get("availableReplicas", 0) == 0
    lab_time.advance(seconds=31)
    until(lambda: apps.deployment()["status"].get("availableReplicas") == 1, "it is available")


def test_what_others_wrote_is_no_obstacle(apps: Apps):
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
def test_apply_on_the_client_and_on_the_server(apps: Apps):
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
def test_set_serviceaccount(apps: Apps):
    apps.create(deployment())
    apps.rolled_out()
    apps.kubectl("create", "serviceaccount", "reader")
    changed = apps.kubectl("set", "serviceaccount", "deployment", "web", "reader")
    assert changed == "deployment.apps/web serviceaccount updated\n"
    apps.rolled_out()
    assert [one["spec"]["serviceAccountName"] for one in apps.pods()] == ["reader"]


# ReplicaSets and their pods


def test_a_missing_service_account_is_told_and_tried_again(apps: Apps):
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
    kinds = until(lambda: {c["type"] for c in apps.deployment()["status"]["conditions"]} - {"ReplicaFailure"})
    assert kinds == {"Available", "Progressing"}


def test_a_pod_that_goes_or_fails_is_replaced(apps: Apps):
    apps.create(replica_set(replicas=2))
    first, second = (one["metadata"]["name"] for one in apps.pod_count(2))
    apps.http.delete(f"{apps.core}/pods/{first}")
    until(lambda: len(pods := apps.pods()) == 2 and first not in str(pods), "another one comes")
    apps.http.patch(f"{apps.core}/pods/{second}/status", json={"status": {"phase": "Failed"}}, headers=MERGE)
    apps.pod_count(3)
    assert len(apps.events("SuccessfulCreate", "ReplicaSet")) == 4


def test_pods_are_adopted_and_let_go(apps: Apps):
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
    # It matches again: there is one too many, and the one that is not ready goes.
    apps.set_ready("loose")
    apps.set_ready(other)
    apps.http.patch(f"{apps.core}/pods/loose", json={"metadata": {"labels": {"app": "web"}}}, headers=MERGE)
    assert {one["metadata"]["name"] for one in apps.pod_count(2)} == {"loose", other}


def test_the_newest_of_the_ready_pods_go_first(apps: Apps, lab_time):
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


def test_pods_of_a_replica_set_are_admitted_as_any_other(apps: Apps):
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
    assert len(apps.replica_sets()) == 1, "what the webhook changed is no new template"


# Deletions


@pytest.mark.kubectl
@pytest.mark.parametrize("cascade", ["background", "foreground"])
def test_a_deployment_goes_with_all_it_has(apps: Apps, cascade: str):
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
def test_orphans_stay_and_are_adopted_by_the_next(apps: Apps):
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


def test_what_names_an_owner_that_is_not_there_goes(apps: Apps):
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "gone"}
    one = pod("p")
    one["metadata"]["ownerReferences"] = [owner]
    apps.http.post(f"{apps.core}/pods", json=one)
    apps.pod_count(0)
    # A kind that is not served here might be somewhere: nothing is known of it.
    one["metadata"]["ownerReferences"] = [{**owner, "apiVersion": "example.com/v1"}]
    assert apps.http.post(f"{apps.core}/pods", json=one).status_code == 201
    apps.create(deployment())
    apps.pod_count(2)


@pytest.mark.kubectl
def test_a_namespace_goes_with_its_deployments(apps: Apps):
    apps.create(deployment(replicas=2))
    apps.pod_count(2)
    # Its pods still come, and are told of, while it goes.
    apps.create(replica_set("late", replicas=20))
    apps.kubectl("delete", "namespace", apps.namespace, "--timeout=20s")
    assert (apps.replica_sets(), apps.pods()) == ([], [])


# Who may


@pytest.mark.kubectl
@pytest.mark.parametrize(
    ("role", "verb", "resource", "answer"),
    [
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
    ],
)
def test_default_roles(apps: Apps, role: str, verb: str, resource: str, answer: bool):
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
def test_discovery(apps: Apps):
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
