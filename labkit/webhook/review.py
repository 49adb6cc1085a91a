"""One admission review: a pod that is about to be made goes in, what is added to it comes out."""

import base64
import copy
import json
from typing import Protocol

from labkit.webhook import annotations
from labkit.webhook.accounts import Account

VOLUME = "aws-iam-token"
MOUNT_PATH = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
TOKEN = "token"  # noqa: S105 - the file's name

WEB_IDENTITY = {"AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"}
REGION = {"AWS_REGION", "AWS_DEFAULT_REGION"}
STS_ENDPOINTS = "AWS_STS_REGIONAL_ENDPOINTS"


class KnownAccounts(Protocol):
    def get(self, namespace: str, name: str) -> Account | None: ...


def review(admission_review: dict, accounts: KnownAccounts, *, region: str = "") -> dict:
    """Return the AdmissionReview that answers this one; a pod whose account has no role is let through unchanged.

    `region` is what containers get as AWS_REGION and AWS_DEFAULT_REGION where neither is set.
    https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#response
    """
    request = admission_review.get("request")
    pod = request.get("object") if isinstance(request, dict) else None
    if not isinstance(pod, dict) or not isinstance(pod.get("spec"), dict):
        return _answer(admission_review, {"allowed": False, "status": {"message": "bad content"}})
    account = accounts.get(request.get("namespace", ""), pod["spec"].get("serviceAccountName", ""))
    if account is None or not account.role_arn:
        return _answer(admission_review, {"allowed": True})
    patch = json.dumps(pod_patch(pod, account, region=region)).encode()
    response = {"allowed": True, "patchType": "JSONPatch", "patch": base64.b64encode(patch).decode()}
    return _answer(admission_review, response)


def pod_patch(pod: dict, account: Account, *, region: str = "") -> list[dict]:
    """The JSON patch that gives a pod its service account's role: variables, token volume and mounts.

    A volume that already bears the token volume's name is kept, whatever it holds: so does the webhook of EKS.
    https://docs.aws.amazon.com/eks/latest/userguide/pod-configuration.html
    """
    spec = pod["spec"]
    of_pod = pod.get("metadata", {}).get("annotations") or {}
    skipped = annotations.skipped_containers(of_pod)
    token_file = f"{MOUNT_PATH}/{TOKEN}"
    selector = spec.get("nodeSelector") or {}
    if "windows" in (selector.get("kubernetes.io/os"), selector.get("beta.kubernetes.io/os")):
        token_file = "C:" + token_file.replace("/", "\\")

    patch = []
    volumes = spec.get("volumes")
    if not any(volume.get("name") == VOLUME for volume in volumes or ()):
        volume = _token_volume(account.audience, annotations.expiration(of_pod, account.token_expiration))
        if volumes is None:
            patch.append({"op": "add", "path": "/spec/volumes", "value": [volume]})
        else:
            patch.append({"op": "add", "path": "/spec/volumes/0", "value": volume})
    for field in ("containers", "initContainers"):  # native sidecars are init containers, too
        containers = [
            container if container.get("name") in skipped else _with_role(container, account, token_file, region)
            for container in spec.get(field) or ()
        ]
        if containers:
            patch.append({"op": "add", "path": f"/spec/{field}", "value": containers})
    return patch


def _with_role(container: dict, account: Account, token_file: str, region: str) -> dict:
    """The container with what it lacks. One of a pair of variables that is already there keeps out the other."""
    present = {variable.get("name") for variable in container.get("env") or ()}
    has_identity, has_region, has_endpoints = present & WEB_IDENTITY, present & REGION, STS_ENDPOINTS in present
    if has_identity and has_region and has_endpoints:
        return container
    added = {}
    if not has_endpoints and account.sts_regional_endpoints:
        added[STS_ENDPOINTS] = "regional"
    if not has_region and region:
        added |= {"AWS_DEFAULT_REGION": region, "AWS_REGION": region}
    if not has_identity:
        added |= {"AWS_ROLE_ARN": account.role_arn, "AWS_WEB_IDENTITY_TOKEN_FILE": token_file}
    container = copy.deepcopy(container)
    if added:
        env = [{"name": name, "value": value} for name, value in added.items()]
        container["env"] = [*(container.get("env") or ()), *env]
    mounts = container.get("volumeMounts") or []
    if not any(mount.get("name") == VOLUME for mount in mounts):
        container["volumeMounts"] = [*mounts, {"name": VOLUME, "readOnly": True, "mountPath": MOUNT_PATH}]
    return container


def _token_volume(audience: str, expiration: int) -> dict:
    token = {"audience": audience, "expirationSeconds": expiration, "path": TOKEN}
    return {"name": VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}}


def _answer(admission_review: dict, response: dict) -> dict:
    request = admission_review.get("request")
    uid = request.get("uid", "") if isinstance(request, dict) else ""
    version = admission_review.get("apiVersion") or "admission.k8s.io/v1"
    return {"apiVersion": version, "kind": "AdmissionReview", "response": {"uid": uid, **response}}
