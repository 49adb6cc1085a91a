"""Notebook 04: the webhook's changes to a new pod, and the moment when a pod gets its role."""

from functools import partial
from typing import Any

from kubernetes.client import AppsV1Api

from labkit import documents
from labkit.connection import as_document, awaited, core_api
from labkit.course.exercises.asking import injected
from labkit.course.exercises.exercise import Exercise, ensure_account, make_account, make_role
from labkit.course.faults.kubernetes import is_rolled_out
from labkit.doctor import ClusterApi, Comparison, PodSpec, Reads, service_account_of
from labkit.steps import oidc_provider
from labkit.steps.ownership import existing
from labkit.workspace import Workspace

STARTED_WITHIN = 30  # seconds until the pods of a restarted Deployment run
RUNNING = "Running"
NONE = "no role of its own"  # the pod may still use its node's role


def _deployment_before_its_annotation(place: Workspace) -> None:
    oidc_provider.ensure(place)
    make_role(place)
    core, namespace = core_api(place.kubernetes), place.parameters.namespace
    make_account(place, "cart", {})
    labels = {"app": "cart"}
    template = {"metadata": {"labels": labels}, "spec": {**documents.pod(place.parameters, place.image)["spec"]}}
    apps: Any = AppsV1Api(place.kubernetes)  # its types want a model, but the client also takes a manifest
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    apps.create_namespaced_deployment(namespace, {"metadata": {"name": "cart", "labels": place.labels}, "spec": spec})
    _pods(place)
    annotated = {"metadata": {"annotations": {documents.ROLE_ANNOTATION: place.role_arn}}}
    core.patch_namespaced_service_account("cart", namespace, annotated)


def _account_alone(place: Workspace) -> None:
    ensure_account(place)
    make_role(place)


def _running_pods_have_the_role(place: Workspace) -> list[Comparison]:
    running = [pod for pod in _pods(place) if pod["status"]["phase"] == RUNNING]
    roles = ", ".join(sorted({_role_of(place, pod, "aws") for pod in running})) or "no pod runs"
    return [
        Comparison("a new pod of cart", place.role_arn, injected(place)),
        Comparison(
            "the pods of the Deployment cart", place.role_arn, roles if _deployment(place) else "no Deployment cart"
        ),
    ]


def _only_one_container_has_the_role(place: Workspace) -> list[Comparison]:
    pod = awaited(partial(_pod_cart, place), _has_started, within=STARTED_WITHIN, every=0.2)
    roles = {name: _role_of(place, pod, name) if pod else "no pod cart" for name in ("aws", "proxy")}
    listed = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])] if pod else []
    others = {each["name"]: _role_of(place, pod, each["name"]) for each in listed if each["name"] not in roles}
    phase = pod["status"]["phase"] if pod else RUNNING
    return [
        Comparison("the container aws", place.role_arn, roles["aws"]),
        Comparison("the container proxy", NONE, roles["proxy"]),
        # Show the other rows only if they are wrong.
        *(Comparison(f"the container {name}", NONE, role) for name, role in others.items() if role == place.role_arn),
        *([Comparison("the pod cart", RUNNING, phase)] if phase != RUNNING else []),
    ]


def _pod_cart(place: Workspace) -> dict[str, Any] | None:
    return next((pod for pod in _live(place) if pod["metadata"]["name"] == "cart"), None)


def _has_started(pod: dict[str, Any] | None) -> bool:
    """Return whether to stop waiting: the pod is missing, runs or has ended, or the node can't pull its image."""
    if pod is None or pod["status"]["phase"] != "Pending":
        return True
    states = [each["state"].get("waiting") or {} for each in pod["status"].get("containerStatuses") or []]
    return any("Image" in (state.get("reason") or "") for state in states)


def _role_of(place: Workspace, pod: Any, name: str) -> str:
    """Return the ARN of the container's role; `NONE` if it has no token with which cart can get a role."""
    spec = PodSpec(pod, ClusterApi(place.kubernetes, Reads()))
    container = next((each for each in spec.containers if each.name == name), None)
    if container is None:
        return "no such container"
    file = container.value("AWS_WEB_IDENTITY_TOKEN_FILE")
    token = container.token_at(file) if file else None
    if token is None or token.get("audience") != documents.AUDIENCE:
        return NONE
    if (account := service_account_of(spec.spec)) != place.parameters.service_account:
        return f"{NONE}: its service account is {account}"
    return container.value("AWS_ROLE_ARN") or NONE


def _pods(place: Workspace) -> list[dict[str, Any]]:
    """Return the live pods of the Deployment cart, after a rollout."""
    awaited(partial(_rolled_out, place), within=STARTED_WITHIN, every=0.2)
    return _of_deployment(place)


def _rolled_out(place: Workspace) -> bool:
    deployment, pods = _deployment(place), _of_deployment(place)
    # A Deployment's status still counts a pod that was deleted a moment ago.
    return deployment is None or (
        is_rolled_out(deployment)
        and len(pods) >= deployment["spec"]["replicas"]
        and all(pod["status"]["phase"] == RUNNING for pod in pods)
    )


def _deployment(place: Workspace) -> dict[str, Any] | None:
    read = partial(AppsV1Api(place.kubernetes).read_namespaced_deployment, "cart", place.parameters.namespace)
    deployment = existing(read)
    return as_document(place.kubernetes, deployment) if deployment else None


def _of_deployment(place: Workspace) -> list[dict[str, Any]]:
    sets = AppsV1Api(place.kubernetes).list_namespaced_replica_set(place.parameters.namespace)
    own = [each["metadata"]["name"] for each in _items(place, sets) if ("Deployment", "cart") in _owners(each)]
    return [pod for pod in _live(place) if any(("ReplicaSet", name) in _owners(pod) for name in own)]


def _owners(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(each["kind"], each["name"]) for each in document["metadata"].get("ownerReferences") or []}


def _live(place: Workspace) -> list[dict[str, Any]]:
    pods = core_api(place.kubernetes).list_namespaced_pod(place.parameters.namespace)
    return [pod for pod in _items(place, pods) if "deletionTimestamp" not in pod["metadata"]]


def _items(place: Workspace, listed: object) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = as_document(place.kubernetes, listed)["items"]
    return items


EXERCISES = (
    Exercise("04-a", _deployment_before_its_annotation, _running_pods_have_the_role),
    Exercise("04-b", _account_alone, _only_one_container_has_the_role),
)
