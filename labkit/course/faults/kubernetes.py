"""Read a run's objects from Kubernetes into a `Situation`, or change the objects to those of a `Situation`.

If a pod's spec has to change, the pod is deleted and created again.
"""

import copy
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kubernetes.client.exceptions import ApiException

from labkit.connection import awaited
from labkit.course.faults import admission
from labkit.course.faults.situation import ROLE_ARN, WEBHOOK, Document, Situation, key_of
from labkit.doctor import call_api
from labkit.errors import LabError
from labkit.run_parameters import RUN_LABEL
from labkit.steps.pod import HOPELESS
from labkit.steps.pod import delete as delete_pod

if TYPE_CHECKING:
    from labkit.workspace import Workspace

PATHS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Pod": "/api/v1/namespaces/{}/pods",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Event": "/api/v1/namespaces/{}/events",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "MutatingWebhookConfiguration": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
}
CONTROLLERS = {"ReplicaSet", "StatefulSet", "DaemonSet", "Job"}
OWN = ("ConfigMap", "Secret", "Deployment", "Event")
METADATA = ("name", "namespace", "labels", "ownerReferences")
# The annotations that clients and controllers write for themselves.
NOTED = ("kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/revision")
WITHIN = 30  # seconds


def read_objects(lab: "Workspace", situation: Situation, registration: Document | None) -> None:
    """Read the run's objects into the situation, and set `situation.registration`.

    `situation.registration` becomes a copy of `registration`, the registration with which the webhook works.
    Without `registration`, the cluster's present registration is copied instead.
    """
    objects = _objects(lab)
    situation.objects = {key: _plain(obj) for key, obj in objects.items()}
    situation.fails_to_start = any(
        obj["kind"] == "Pod" and obj["status"]["phase"] != "Running" for obj in objects.values()
    )
    situation.registration = copy.deepcopy(registration or situation.objects.get(WEBHOOK) or {})
    _read_pods_as_applied(situation)


def make(lab: "Workspace", now: Situation, wanted: Situation) -> None:
    """Change the objects from `now` to `wanted`, and wait until the pods run.

    If `wanted.fails_to_start`, pods may also fail. Raises `LabError` if a pod neither runs nor fails in time.
    """
    pods = {
        key
        for key in (*now.pod_keys, *wanted.pod_keys)
        if (now.objects.get(key), now.admitted.get(key)) != (wanted.objects.get(key), wanted.admitted.get(key))
    }
    for key in pods:
        if key in now.objects:
            namespace, _, name = key.partition(" ")[2].partition("/")
            delete_pod(lab, name, namespace)
    without_pods = {key: obj for key, obj in wanted.objects.items() if not key.startswith("Pod ")}
    present: dict[str, Document | None] = {**now.objects}
    if again := pods & wanted.objects.keys():
        before = {WEBHOOK: None, **{key: obj for key, obj in without_pods.items() if not key.startswith("Deployment ")}}
        _put_all(lab, before | _when_made(now, wanted), present)
        for key in again:
            _make_pod(lab, wanted, key)
    _put_all(lab, without_pods, present)
    for key in present.keys() - wanted.objects.keys():
        if not key.startswith("Pod ") and present[key] is not None:
            _delete(lab, key)
    for key in without_pods:
        if key.startswith("Deployment ") and wanted.objects[key] != now.objects.get(key):
            _wait_for_deployment(lab, key)


def _objects(lab: "Workspace") -> dict[str, Document]:
    namespace, account = lab.parameters.namespace, lab.parameters.service_account
    keys = [f"Namespace {namespace}", f"ServiceAccount {namespace}/{account}", WEBHOOK]
    objects = [present for key in keys if (present := _get(lab, key))]
    for pod in _items(lab, "Pod", namespace):
        is_of_run = (pod["metadata"].get("labels") or {}).get(RUN_LABEL) == lab.labels[RUN_LABEL]
        is_of_account = pod["spec"].get("serviceAccountName") == account
        # Its controller would create it again.
        owners = {owner["kind"] for owner in pod["metadata"].get("ownerReferences") or []}
        if (is_of_run or is_of_account) and not owners & CONTROLLERS:
            objects.append(pod)
    for kind in OWN:
        objects += _items(lab, kind, namespace, labelSelector=f"{RUN_LABEL}={lab.labels[RUN_LABEL]}")
    return {key_of(obj): obj for obj in objects}


def _plain(obj: Document) -> Document:
    """Return the object without its status and without generated metadata."""
    metadata = {key: obj["metadata"][key] for key in METADATA if obj["metadata"].get(key)}
    annotations = obj["metadata"].get("annotations") or {}
    if kept := {key: value for key, value in annotations.items() if key not in NOTED}:
        metadata["annotations"] = kept
    return {key: value for key, value in obj.items() if key != "status"} | {"metadata": metadata}


def _read_pods_as_applied(situation: Situation) -> None:
    """Replace each live pod in `situation.objects` with the manifest that the pod had before admission.

    Store the live pod's spec in `situation.admitted`. If an admission of the manifest would now give a different spec,
    also store in `situation.made_with` the annotations that the webhook used for the live pod. These are {} if the
    webhook didn't change the pod, or if no known annotations explain its changes.
    """
    region = situation.parameters.region
    for key in situation.pod_keys:
        live = admission.plain(situation.objects[key])
        situation.admitted[key] = live["spec"]
        pod, annotations = admission.applied(live, situation.annotations, region)
        situation.objects[key] = pod
        if situation.admission_of(pod) != live["spec"]:
            situation.made_with = annotations


def _when_made(now: Situation, wanted: Situation) -> dict[str, Document | None]:
    """Return the service account and the webhook's registration that must exist when the wanted pods are created.

    The result is a dict of these two objects by their keys. The value None means that the object must not exist. If
    `wanted.made_with` has the value None, return {}.
    """
    if wanted.made_with is None:
        return {}
    account = wanted.objects.get(wanted.service_account_key) or now.objects.get(now.service_account_key)
    metadata = {"name": wanted.parameters.service_account, "namespace": wanted.parameters.namespace}
    account = account or {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    if not wanted.made_with:
        # The pod gets no role without the webhook. The role's annotation is set later, because its time shows that the
        # pod is older.
        kept = {key: value for key, value in (account["metadata"].get("annotations") or {}).items() if key != ROLE_ARN}
        bare = {**account, "metadata": {**account["metadata"], "annotations": kept}}
        return {wanted.service_account_key: bare, WEBHOOK: None}
    annotated = {**account, "metadata": {**account["metadata"], "annotations": wanted.made_with}}
    return {wanted.service_account_key: annotated, WEBHOOK: wanted.registration or None}


def _put_all(lab: "Workspace", objects: Mapping[str, Document | None], present: dict[str, Document | None]) -> None:
    """Create, replace or delete the objects in the cluster, and record each change in `present`."""
    for key, obj in objects.items():
        if obj == present.get(key):
            continue
        if obj is None:
            _delete(lab, key)
        elif present.get(key) is None:
            _call(lab, "POST", _collection(key), obj)
        else:
            _call(lab, "PUT", _path(key), obj)
        present[key] = obj


def _make_pod(lab: "Workspace", wanted: Situation, key: str) -> None:
    pod, expected = wanted.objects[key], wanted.admitted[key]

    def is_admitted_so() -> bool:
        # The webhook learns of a changed service account a moment later, from a watch.
        dry = _call(lab, "POST", _collection(key), pod, dryRun="All")
        return bool(admission.plain(dry)["spec"] == expected)

    _wait(is_admitted_so, f"The webhook doesn't change the pod {key.partition('/')[2]} as it should.")
    _call(lab, "POST", _collection(key), pod)
    _wait(lambda: _runs_or_fails(lab, key, wanted), f"{key} neither runs nor fails.")


def _runs_or_fails(lab: "Workspace", key: str, wanted: Situation) -> bool:
    status = (_get(lab, key) or {}).get("status") or {}
    containers = status.get("containerStatuses") or []
    if status.get("phase") == "Running" and all(container["ready"] for container in containers):
        return True
    waiting = [(container.get("state") or {}).get("waiting") or {} for container in containers]
    failed = [each for each in waiting if each.get("reason") in HOPELESS]
    if failed and not wanted.fails_to_start:
        raise LabError(f"{key} does not run: {failed[0]['reason']}: {failed[0].get('message', '')}", next="labkit mend")
    return bool(failed)


def _delete(lab: "Workspace", key: str) -> None:
    body = {"propagationPolicy": "Foreground"} if key.startswith("Deployment ") else None
    _call(lab, "DELETE", _path(key), body)
    if key.startswith("Deployment "):
        _wait(lambda: not _get(lab, key), f"The {key} was not deleted in time.")


def _wait_for_deployment(lab: "Workspace", key: str) -> None:
    _wait(lambda: is_rolled_out(_get(lab, key) or {}), f"The {key} neither runs nor fails.")


def is_rolled_out(deployment: Document) -> bool:
    """Return True if all pods of a Deployment run with its present template, or if pods can't be created.

    https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status
    """
    status = deployment.get("status") or {}
    if status.get("observedGeneration") != deployment["metadata"]["generation"]:
        return False
    failed = any(condition["type"] == "ReplicaFailure" for condition in status.get("conditions") or [])
    replicas = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return failed or replicas == [deployment["spec"]["replicas"]] * 3


def _wait(is_so: Callable[[], bool], otherwise: str) -> None:
    if not awaited(is_so, within=WITHIN, every=0.02):
        raise LabError(otherwise, next="labkit mend")


# The API.


def _call(lab: "Workspace", method: str, path: str, body: Document | None = None, **query: str) -> Any:
    return json.loads(call_api(lab.kubernetes, method, path, body, **query))


def _collection(key: str) -> str:
    kind, _, name = key.partition(" ")
    return PATHS[kind].format(name.rpartition("/")[0])


def _path(key: str) -> str:
    return f"{_collection(key)}/{key.rpartition(' ')[2].rpartition('/')[2]}"


def _get(lab: "Workspace", key: str) -> Document | None:
    try:
        obj: Document = _call(lab, "GET", _path(key))
        return obj
    except ApiException as error:
        if error.status != 404:
            raise
        return None


def _items(lab: "Workspace", kind: str, namespace: str, **query: str) -> list[Document]:
    listed = _call(lab, "GET", PATHS[kind].format(namespace), None, **query)
    version = listed["apiVersion"]
    return [{"apiVersion": version, "kind": kind, **item} for item in listed["items"]]
