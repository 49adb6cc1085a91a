"""Steps 4 and 5: create a pod that names the service account. The webhook and the node add the role and the token."""

import json
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from kubernetes.client.exceptions import ApiException
from kubernetes.watch import Watch

from labkit import documents, execution
from labkit.connection import awaited, core_api
from labkit.documents import NO_IMAGE
from labkit.documents import POD_NAME as NAME
from labkit.errors import LabError
from labkit.showing import doing
from labkit.steps.namespace import ensure_namespace
from labkit.steps.ownership import OwnedResource, Owner, existing, of_labels, refuse_another_runs, take_name

if TYPE_CHECKING:
    from labkit.workspace import Workspace

TITLE = "the pod"
RUNNING_WITHIN = 90  # seconds; pulling the image can take most of it
# STS's refusals for a role or a provider that it doesn't know yet.
NOT_YET = tuple(
    f"({code}) when calling the AssumeRoleWithWebIdentity" for code in ("AccessDenied", "InvalidIdentityToken")
)
AGAIN_AFTER = 2  # seconds between the pod's attempts to assume its role
build = documents.pod
# A container that waits with one of these reasons will never run.
HOPELESS = (*NO_IMAGE, "CrashLoopBackOff", "CreateContainerConfigError")


class PodDoesNotRun(LabError):
    """The pod didn't start, or a deleted pod didn't end. The text quotes the container's or the scheduler's message."""


class ImageNotPulled(PodDoesNotRun):
    """A node can't pull the container's image."""


def ensure(lab: "Workspace") -> None:
    """Create the pod, or replace it if it differs from the wanted pod. Wait until the pod runs.

    Raises `PodDoesNotRun` and `NotThisRuns`.
    """
    core = core_api(lab.kubernetes)
    ensure_namespace(lab)
    wanted = build(lab.parameters, lab.image)
    if present := existing(lambda: core.read_namespaced_pod(NAME, lab.parameters.namespace)):
        refuse_another_runs(lab, present.metadata, f"pod {NAME}")
        if _is_as_wanted(lab, present, wanted):
            wait_until_running(lab)
            return
        delete(lab, NAME, lab.parameters.namespace)
    if existing(partial(core.create_namespaced_pod, lab.parameters.namespace, wanted), none_at=409):
        wait_until_running(lab)
    else:  # another kernel has just created it
        ensure(lab)


def resources(lab: "Workspace") -> Iterator[OwnedResource]:
    """Yield the cluster's pods, each with its owner."""
    for present in core_api(lab.kubernetes).list_pod_for_all_namespaces().items:
        name, namespace = present.metadata.name, present.metadata.namespace
        owner = of_labels(lab, present.metadata.labels, same_name=(name, namespace) == (NAME, lab.parameters.namespace))
        yield OwnedResource(f"pod {namespace}/{name}", owner, partial(delete, lab, name, namespace))


def make_way(lab: "Workspace") -> list[str]:
    """On the lab's own cluster, delete the pod `NAME` if it carries another run's label.

    On any other cluster, delete nothing. There, raise `NotThisRuns` if the pod lacks this run's label.

    Return one line about the deletion; an empty list if nothing was deleted. Raises `PodDoesNotRun` if the deleted pod
    doesn't end.
    """
    namespace = lab.parameters.namespace
    present = existing(lambda: core_api(lab.kubernetes).read_namespaced_pod(NAME, namespace))
    return take_name(lab, "pod", NAME, present, partial(delete, lab, NAME, namespace))


def delete(lab: "Workspace", name: str, namespace: str) -> None:
    """Delete a pod, and wait until it's gone. Raises `PodDoesNotRun` if it still exists after `RUNNING_WITHIN` s."""
    core = core_api(lab.kubernetes)
    try:
        # `sleep` as process 1 ignores SIGTERM, so the usual grace of 30 s would be lost time.
        core.delete_namespaced_pod(name, namespace, grace_period_seconds=1)
    except ApiException as error:
        if error.status != 404:
            raise
        return
    kept, command = "", f"delete pod {name} -n {namespace} --force"
    for kind, present in _watch(core, name, namespace, RUNNING_WITHIN):
        if kind == "DELETED" or present is None:
            return
        if held := present.metadata.finalizers:
            kept = f" The finalizer {', '.join(held)} keeps it. If it's yours, remove it."
            mine = {"op": "test", "path": "/metadata/uid", "value": present.metadata.uid}  # not a later pod's
            patch = json.dumps([mine, {"op": "remove", "path": "/metadata/finalizers"}])
            command = f"patch pod {name} -n {namespace} --type json -p '{patch}'"
    raise PodDoesNotRun(
        f"The pod {name} was deleted, and still exists after {RUNNING_WITHIN} s.{kept}",
        where=f"namespace {namespace}",
        next=f"{lab.kubectl} {command}",
    )


@doing("Waiting until the pod runs")
def wait_until_running(lab: "Workspace", name: str = NAME, namespace: str = "") -> None:
    """Wait until the pod's containers run, and until STS lets the pod assume its role.

    Raises `PodDoesNotRun` with the reason.

    https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
    """
    core = core_api(lab.kubernetes)
    namespace = namespace or lab.parameters.namespace
    words = "the node did not start it"
    for kind, present in _watch(core, name, namespace, RUNNING_WITHIN + lab.connection.node_within):
        if kind == "DELETED" or present is None:
            words = "it was deleted"
            break
        if present.status.phase == "Running" and all(s.ready for s in present.status.container_statuses or [None]):
            _await_role(lab, present)
            return
        words = _scheduler_says(present) or words
        waiting = [s.state.waiting for s in present.status.container_statuses or [] if s.state and s.state.waiting]
        if waiting:
            words = f"{waiting[0].reason}: {waiting[0].message or ''}".rstrip(": ")
        if any(each.reason in NO_IMAGE for each in waiting):
            raise _without_image(lab, present, words)
        if present.status.phase in ("Failed", "Succeeded") or any(w.reason in HOPELESS for w in waiting):
            words = words if waiting else f"it ended ({present.status.phase})"
            break
    raise PodDoesNotRun(
        f"The pod {name} does not run: {words.rstrip('.')}.",
        where=f"namespace {namespace}",
        next=f"{lab.kubectl} describe pod {name} -n {namespace}",
    )


def _await_role(lab: "Workspace", pod: Any) -> None:
    """Wait until STS knows the pod's role, because a new IAM role takes effect only after some seconds."""
    variables = {variable.name for variable in pod.spec.containers[0].env or []}
    if not lab.connection.propagates_within or "AWS_ROLE_ARN" not in variables:
        return
    command = ["aws", "sts", "get-caller-identity"]
    awaited(
        partial(execution.execute, lab.kubernetes, pod.metadata.name, pod.metadata.namespace, command),
        lambda done: not any(refusal in done.error for refusal in NOT_YET),
        within=lab.connection.propagates_within,
        every=AGAIN_AFTER,
    )


def _scheduler_says(pod: Any) -> str:
    conditions = [one for one in pod.status.conditions or [] if (one.type, one.status) == ("PodScheduled", "False")]
    return f"{conditions[0].reason}: {conditions[0].message or ''}".rstrip(": ") if conditions else ""


def _without_image(lab: "Workspace", pod: Any, words: str) -> ImageNotPulled:
    name, namespace = pod.metadata.name, pod.metadata.namespace
    left = "left unchanged"
    if of_labels(lab, pod.metadata.labels, same_name=False) is Owner.THIS_RUN:
        delete(lab, name, namespace)
        left = "removed"
    images = ", ".join(container.image for container in pod.spec.containers)
    return ImageNotPulled(
        f"The image {images} of the pod {name} cannot be pulled: {words.rstrip('.')}. The pod was {left}.",
        where=f"namespace {namespace}; the earlier steps' resources are unchanged",
        next="set the parameter image to one that the nodes can pull, and run again   (the events: "
        f"{lab.kubectl} get events -n {namespace} --field-selector involvedObject.name={name})",
    )


def _watch(core: Any, name: str, namespace: str, seconds: int) -> Iterator[tuple[str, Any]]:
    """Yield the pod's present state, and then its changes for `seconds`, each with the event's type."""
    selected = {"namespace": namespace, "field_selector": f"metadata.name={name}"}
    listed = core.list_namespaced_pod(**selected)
    if not listed.items:
        yield "", None
        return
    yield "ADDED", listed.items[0]
    watch: Any = Watch()
    since = listed.metadata.resource_version
    changes = watch.stream(core.list_namespaced_pod, **selected, resource_version=since, timeout_seconds=seconds)
    for event in changes:
        yield event["type"], event["object"]


def _is_as_wanted(lab: "Workspace", present: Any, wanted: documents.Pod) -> bool:
    container = present.spec.containers[0]
    variables = {variable.name: variable.value for variable in container.env or []}
    return (
        present.metadata.deletion_timestamp is None
        and present.status.phase in ("Pending", "Running")
        and present.spec.service_account_name == lab.parameters.service_account
        and container.image == wanted["spec"]["containers"][0]["image"]
        and variables.get("AWS_ROLE_ARN") == lab.role_arn
        and (present.metadata.labels or {}).items() >= lab.labels.items()
    )
