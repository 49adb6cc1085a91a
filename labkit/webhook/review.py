"""Answer an admission review: a new pod comes in, and the patch for it goes out."""

import base64
import json
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

from labkit.connection import AGENT_URL
from labkit.webhook import annotations
from labkit.webhook.accounts import AccountSettings
from labkit.webhook.annotations import Object

VOLUME = "aws-iam-token"
MOUNT_PATH = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
TOKEN = "token"  # noqa: S105 - the file's name

REGION = {"AWS_REGION", "AWS_DEFAULT_REGION"}
STS_ENDPOINTS = "AWS_STS_REGIONAL_ENDPOINTS"


@dataclass(frozen=True)
class Method:
    """A way to give a pod its role: IRSA or EKS Pod Identity.

    The webhook sets `variable` to `value`, and `file_variable` to the path of the token's file. SDKs read the two
    variables, and exchange the token for credentials.
    """

    variable: str
    value: str
    file_variable: str
    audience: str
    volume: str
    mount_path: str
    token: str
    """The name of the token's file."""


POD_IDENTITY = Method(
    variable="AWS_CONTAINER_CREDENTIALS_FULL_URI",
    value=AGENT_URL,
    file_variable="AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    audience="pods.eks.amazonaws.com",
    volume="eks-pod-identity-token",
    mount_path="/var/run/secrets/pods.eks.amazonaws.com/serviceaccount",
    token="eks-pod-identity-token",  # noqa: S106 - the file's name
)
"""EKS Pod Identity: the node's agent, at a link-local address, exchanges the token for credentials.

https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html
"""


class Operation(TypedDict):
    """One operation of a JSON Patch.

    https://datatracker.ietf.org/doc/html/rfc6902#section-4
    """

    op: str
    path: str
    value: object


Associated = Callable[[str, str], bool]
"""A function that tells whether the service account of this namespace and name has a Pod Identity association."""


class KnownAccounts(Protocol):
    def get(self, namespace: str, name: str) -> AccountSettings | None: ...


def review(
    admission_review: Object,
    accounts: KnownAccounts,
    *,
    region: str = "",
    prefix: str = annotations.PREFIX,
    mount_path: str = MOUNT_PATH,
    associated: Associated = lambda _namespace, _name: False,
) -> Object:
    """Return the AdmissionReview that answers `admission_review`. A pod without a role stays unchanged.

    With IRSA, containers get the token at `mount_path`. Containers without a region get `region` as AWS_REGION and
    AWS_DEFAULT_REGION. The names of the pod's annotations begin with `prefix`. The answer refuses anything that isn't a
    review of a pod.

    `associated` tells whether a service account has a Pod Identity association. Such an account's pods get Pod
    Identity's variables and token instead of IRSA's, as on EKS.

    https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#response
    """
    if wrong := malformed(admission_review):
        return refusal(admission_review, wrong)
    request = admission_review["request"]
    pod = request["object"]
    named = account_of(admission_review)
    account = accounts.get(*named)
    if associated(*named):
        patch = pod_patch(pod, account or AccountSettings(), region=region, prefix=prefix, method=POD_IDENTITY)
        return patched(admission_review, patch)
    if account is None or not account.role_arn:
        return _answer(admission_review, {"allowed": True})
    patch = pod_patch(pod, account, region=region, prefix=prefix, mount_path=mount_path)
    return patched(admission_review, patch)


def account_of(admission_review: Object) -> tuple[str, str]:
    """Return the namespace and name of a reviewed pod's service account; the name is empty if the pod has none."""
    request = admission_review["request"]
    spec = request["object"].get("spec") or {}
    return request.get("namespace") or "", spec.get("serviceAccountName") or ""


def pod_patch(
    pod: Object,
    account: AccountSettings,
    *,
    region: str = "",
    prefix: str = annotations.PREFIX,
    mount_path: str = MOUNT_PATH,
    method: Method | None = None,
) -> list[Operation]:
    """Return the JSON patch that gives a pod its service account's role: variables, token volume and mounts.

    Without a `method`, use IRSA with `account.role_arn` and `mount_path`.

    https://docs.aws.amazon.com/eks/latest/userguide/pod-configuration.html
    """
    spec = pod["spec"]
    of_pod = annotations.under(prefix, pod)
    skipped = annotations.skipped_containers(of_pod)
    method = method or _web_identity(account, mount_path)
    token_file = posixpath.normpath(f"{method.mount_path}/{method.token}")
    selector = spec.get("nodeSelector") or {}
    if "windows" in (selector.get("kubernetes.io/os"), selector.get("beta.kubernetes.io/os")):
        token_file = "C:" + token_file.replace("/", "\\")

    patch: list[Operation] = []
    volumes = spec.get("volumes")
    if not any(volume.get("name") == method.volume for volume in volumes or ()):
        expiration = annotations.expiration(of_pod, account.token_expiration)
        token = {"audience": method.audience, "expirationSeconds": expiration, "path": method.token}
        volume = {"name": method.volume, "projected": {"sources": [{"serviceAccountToken": token}]}}
        if volumes is None:
            patch.append({"op": "add", "path": "/spec/volumes", "value": [volume]})
        else:
            patch.append({"op": "add", "path": "/spec/volumes/0", "value": volume})
    for field in ("containers", "initContainers"):  # native sidecars are init containers
        containers = [
            container
            if container.get("name") in skipped
            else _with_role(container, account, method, token_file, region)
            for container in spec.get(field) or ()
        ]
        if containers:
            patch.append({"op": "add", "path": f"/spec/{field}", "value": containers})
    return patch


def patched(admission_review: Object, patch: Sequence[Operation]) -> Object:
    """Return the AdmissionReview that allows the request, with this JSON patch."""
    encoded = base64.b64encode(json.dumps(patch).encode()).decode()
    return _answer(admission_review, {"allowed": True, "patchType": "JSONPatch", "patch": encoded})


def refusal(admission_review: Object, why: str) -> Object:
    """Return the AdmissionReview that refuses the request with the message `why`."""
    return _answer(admission_review, {"allowed": False, "status": {"message": why}})


def malformed(admission_review: Object) -> str:
    """Return why the webhook can't read `admission_review` as a review of a pod; empty if the webhook can."""
    request = admission_review.get("request")
    if not isinstance(request, dict):
        return "bad content"
    if request.get("object") is None:
        return "the request has no object"
    return _mismatch({"request": request}, _REVIEW)


# The fields of a review that the webhook reads, with their types. As everywhere in the API, each may be null or absent.
_NAMED = {"name": str}
_CONTAINER = {"name": str, "env": [_NAMED], "volumeMounts": [_NAMED]}
_POD = {
    "metadata": {"annotations": {"*": str}},
    "spec": {
        "serviceAccountName": str,
        "nodeSelector": {"*": str},
        "volumes": [_NAMED],
        "containers": [_CONTAINER],
        "initContainers": [_CONTAINER],
    },
}
_REVIEW = {"request": {"uid": str, "namespace": str, "object": _POD}}


def _mismatch(value: Any, shape: Any, where: str = "") -> str:
    """Return a sentence about the first mismatch between `value` and `shape`."""
    if value is None:
        return ""
    wanted: Any = shape if isinstance(shape, type) else type(shape)
    if not isinstance(value, wanted):
        return f"{where[1:]} has to be {_WORDS[wanted]}"
    if isinstance(shape, list):
        if None in value:
            return f"{where[1:]} has an empty item"
        inner = [(f"{where}[{number}]", item, shape[0]) for number, item in enumerate(value)]
    elif isinstance(shape, dict):
        known = value if "*" in shape else value.keys() & shape.keys()
        inner = [(f"{where}.{key}", value[key], shape.get("*") or shape[key]) for key in known]
    else:
        return ""
    return next((wrong for place, item, its in inner if (wrong := _mismatch(item, its, place))), "")


_WORDS: dict[type, str] = {str: "a text", list: "a list", dict: "an object"}


def _web_identity(account: AccountSettings, mount_path: str) -> Method:
    return Method(
        variable="AWS_ROLE_ARN",
        value=account.role_arn,
        file_variable="AWS_WEB_IDENTITY_TOKEN_FILE",
        audience=account.audience,
        volume=VOLUME,
        mount_path=mount_path,
        token=TOKEN,
    )


def _with_role(container: Object, account: AccountSettings, method: Method, token_file: str, region: str) -> Object:
    """Return the container with the variables and the mount for its role."""
    present = {variable.get("name") for variable in container.get("env") or ()}
    has_identity = present & {method.variable, method.file_variable}
    has_region, has_endpoints = present & REGION, STS_ENDPOINTS in present
    if has_identity and has_region and has_endpoints:
        return container
    added = {}
    if not has_endpoints and account.sts_regional_endpoints:
        added[STS_ENDPOINTS] = "regional"
    if not has_region and region:
        added |= {"AWS_DEFAULT_REGION": region, "AWS_REGION": region}
    if not has_identity:
        added |= {method.variable: method.value, method.file_variable: token_file}
    container = dict(container)
    if added:
        env = [{"name": name, "value": value} for name, value in added.items()]
        container["env"] = [*(container.get("env") or ()), *env]
    mounts = container.get("volumeMounts") or []
    if not any(there.get("name") == method.volume for there in mounts):
        mount = {"name": method.volume, "readOnly": True, "mountPath": method.mount_path}
        container["volumeMounts"] = [*mounts, mount]
    return container


def _answer(admission_review: Object, response: Object) -> Object:
    request, version = admission_review.get("request"), admission_review.get("apiVersion")
    uid = request.get("uid") if isinstance(request, dict) else ""
    return {
        "apiVersion": version if isinstance(version, str) and version else "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": uid if isinstance(uid, str) else "", **response},
    }
