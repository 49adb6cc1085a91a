"""Compute a pod's spec after admission from the pod's manifest, and the manifest from the spec."""

import copy
from typing import Any

from labkit import documents, simulator
from labkit.doctor import API_VOLUME, NODE_TROUBLE
from labkit.webhook import AccountSettings
from labkit.webhook.review import VOLUME, pod_patch

PREFIX = "eks.amazonaws.com/"
# The fields that the scheduler and admission write into a spec.
FILLED_IN = ("nodeName", "priority", "preemptionPolicy", "serviceAccount")
USUAL = {
    f"{PREFIX}audience": AccountSettings().audience,
    f"{PREFIX}token-expiration": str(AccountSettings().token_expiration),
}

Document = dict[str, Any]


def admitted(pod: Document, annotations: dict[str, str], region: str) -> Document:
    """Return the spec that the pod has after admission if its service account has these annotations."""
    account = AccountSettings.of({"metadata": {"annotations": annotations}})
    made = copy.deepcopy(pod)
    if account.role_arn:
        for change in pod_patch(pod, account, region=region):
            field = change["path"].split("/")[2]
            is_item = change["path"].endswith("/0")
            made["spec"][field] = [change["value"], *made["spec"][field]] if is_item else change["value"]
    spec: Document = with_defaults(made)["spec"]
    return spec


def applied(pod: Document, annotations: dict[str, str], region: str) -> tuple[Document, dict[str, str]]:
    """Return an admitted pod without the webhook's changes, and the annotations that the webhook used.

    Two sets of service account annotations may explain the webhook's changes. First try the set derived from the pod's
    variables and token volume. Then try `annotations`, which the service account has now.

    If the webhook didn't change the pod, or if neither set explains the changes, return the pod as it is, and an empty
    dictionary.
    """
    # First try the annotations that the pod shows. If only the present ones were tried, the role of an older annotation
    # would look as if someone had set it by hand.
    for account_annotations in (_annotations_of(pod), annotations):
        candidate = _without_role(pod, account_annotations, region)
        if candidate != pod and admitted(candidate, account_annotations, region) == pod["spec"]:
            return candidate, account_annotations
    return pod, {}


def with_defaults(obj: Document) -> Document:
    """Return the object with the API server's defaults; the object itself isn't changed.

    If the object is a pod, the spec of the returned pod lacks the fields in `FILLED_IN`.
    """
    completed = simulator.with_defaults(obj["kind"], obj)
    if obj["kind"] != "Pod":
        return completed
    return {**completed, "spec": {key: value for key, value in completed["spec"].items() if key not in FILLED_IN}}


def volumes_with_defaults(volumes: list[Document]) -> list[Document]:
    """Return the volumes with the API server's defaults."""
    completed: list[Document] = simulator.with_defaults("Pod", {"spec": {"volumes": volumes}})["spec"]["volumes"]
    return completed


def plain(pod: Document) -> Document:
    """Return a copy of a live pod without some of the cluster's additions.

    Left out are the default tolerations, the token for the API server, and the fields in `FILLED_IN`. The webhook's
    changes and the API server's defaults stay.
    """
    spec = {key: value for key, value in pod["spec"].items() if key not in FILLED_IN}
    volumes = [volume for volume in spec.pop("volumes", []) if not volume["name"].startswith(API_VOLUME)]
    tolerations = [each for each in spec.pop("tolerations", []) if each.get("key") not in NODE_TROUBLE]
    spec |= {"volumes": volumes} if volumes else {}
    spec |= {"tolerations": tolerations} if tolerations else {}
    for field in ("containers", "initContainers"):
        if field in spec:
            spec[field] = [_without_own_token(container) for container in spec[field]]
    return {**pod, "spec": spec}


def _without_own_token(container: Document) -> Document:
    mounts = [mount for mount in container.get("volumeMounts") or [] if not mount["name"].startswith(API_VOLUME)]
    rest = {key: value for key, value in container.items() if key != "volumeMounts"}
    return {**rest, "volumeMounts": mounts} if mounts else rest


def _annotations_of(pod: Document) -> dict[str, str]:
    """Return the annotations that the service account had when this pod was created."""
    annotations = {}
    for container in pod["spec"]["containers"]:
        for variable in container.get("env") or []:
            if variable["name"] == "AWS_ROLE_ARN" and variable.get("value"):
                annotations[documents.ROLE_ANNOTATION] = variable["value"]
    for volume in pod["spec"].get("volumes") or []:
        for source in (volume.get("projected") or {}).get("sources") or []:
            if volume["name"] == VOLUME and (token := source.get("serviceAccountToken")):
                annotations[f"{PREFIX}audience"] = token.get("audience", "")
                annotations[f"{PREFIX}token-expiration"] = str(token["expirationSeconds"])
    return {key: value for key, value in annotations.items() if USUAL.get(key) != value}


def _without_role(pod: Document, annotations: dict[str, str], region: str) -> Document:
    bare = copy.deepcopy(pod)
    volumes = bare["spec"].pop("volumes", [])
    if volumes and volumes[0]["name"] == VOLUME and "projected" in volumes[0]:
        volumes = volumes[1:]
    if volumes:
        bare["spec"]["volumes"] = volumes
    for field in ("containers", "initContainers"):
        if field in bare["spec"]:
            bare["spec"][field] = [
                _container_without_role(container, bare, annotations, region) for container in bare["spec"][field]
            ]
    return bare


def _container_without_role(container: Document, pod: Document, annotations: dict[str, str], region: str) -> Document:
    variables, mounts = container.get("env") or [], container.get("volumeMounts") or []
    rest = {key: value for key, value in container.items() if key not in ("env", "volumeMounts")}
    kept_mounts = mounts[:-1] if mounts and mounts[-1]["name"] == VOLUME else mounts
    for count in range(len(variables) + 1):
        for these in (kept_mounts, mounts):
            shorter = {**rest}
            if count:
                shorter["env"] = variables[:count]
            if these:
                shorter["volumeMounts"] = these
            alone = {**pod, "spec": {"containers": [shorter], "volumes": [{"name": VOLUME}]}}
            if admitted(alone, annotations, region)["containers"] == [container]:
                return shorter
    return container
