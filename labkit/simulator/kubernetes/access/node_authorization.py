"""Decide what a node may do. A node may use its own objects, its pods, and the objects that its pods refer to.

https://kubernetes.io/docs/reference/access-authn-authz/node/
"""

from collections.abc import Callable, Iterator

from labkit.simulator.kubernetes.access.authentication import User
from labkit.simulator.kubernetes.access.roles import CLUSTER_ROLES
from labkit.simulator.kubernetes.access.rules import Attributes, allows
from labkit.simulator.kubernetes.objects.kinds import POD, Object
from labkit.simulator.kubernetes.objects.storage import Storage

NODES, USER_PREFIX = "system:nodes", "system:node:"
LEASES = "kube-node-lease"
MIRROR = "kubernetes.io/config.mirror"
READ = ("get", "list", "watch")
CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


def node_of(user: User) -> str:
    """Return the node's name if the user is a node; "" for any other user."""
    return user.name.removeprefix(USER_PREFIX) if NODES in user.groups and user.name.startswith(USER_PREFIX) else ""


def node_name(pod: Object) -> str:
    """Return the name of the pod's node; "" if the pod is not yet bound to a node."""
    return str(pod["spec"].get("nodeName", ""))


def refusal(storage: Storage, node: str, wanted: Attributes) -> str | None:
    """Return why the node's request ``wanted`` is refused; None if it's allowed.

    The text is "" if the API server gives no reason.
    """
    match wanted.group, wanted.resource:
        case "", "secrets" | "configmaps":
            return _refuse_reading(storage, node, wanted)
        case "", "serviceaccounts":
            return _refuse_token(storage, node, wanted)
        case "", "nodes":
            return _refuse_node(node, wanted)
        case "", "pods":
            return _refuse_pod(storage, node, wanted)
        case "coordination.k8s.io", "leases":
            return _refuse_lease(node, wanted)
    return None if any(allows(rule, wanted) for rule in CLUSTER_ROLES["system:node"]) else ""


def _refuse_reading(storage: Storage, node: str, wanted: Attributes) -> str | None:
    if wanted.verb not in READ:
        return "can only read resources of this type"
    if wanted.subresource:
        return "cannot read subresource"
    if not wanted.namespace:
        return "can only read namespaced object of this type"
    if not wanted.name:
        return "No Object name found"
    return _refuse_unrelated(storage, node, wanted)


def _refuse_token(storage: Storage, node: str, wanted: Attributes) -> str | None:
    if wanted.verb != "create" or not wanted.name:
        return "can only create tokens for individual service accounts"
    if wanted.subresource != "token":
        return "can only create token subresource of serviceaccount"
    return _refuse_unrelated(storage, node, wanted)


def _refuse_node(node: str, wanted: Attributes) -> str | None:
    match wanted.subresource, wanted.verb:
        case ("", "create" | "update" | "patch") | ("status", "update" | "patch"):
            return None
        case "", "get" | "list" | "watch":
            if wanted.name == node:
                return None
            which = f"'{wanted.name}'" if wanted.name else "all nodes"
            return f"node '{node}' cannot read {which}, only its own Node object"
    return ""


def _refuse_pod(storage: Storage, node: str, wanted: Attributes) -> str | None:
    match wanted.subresource, wanted.verb:
        case ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create"):
            return None
        case "", "get":
            return _refuse_unrelated(storage, node, wanted)
        case "", "list" | "watch":
            if f"spec.nodeName={node}" in wanted.fields.replace("==", "=").split(","):
                return None
            if wanted.name:
                return _refuse_unrelated(storage, node, wanted)
            return "can only list/watch pods with spec.nodeName field selector"
    return ""


def _refuse_lease(node: str, wanted: Attributes) -> str | None:
    if wanted.verb not in ("get", "create", "update", "patch", "delete"):
        return "can only get, create, update, patch, or delete a node lease"
    if wanted.namespace != LEASES:
        return f'can only access leases in the "{LEASES}" system namespace'
    if wanted.verb != "create" and wanted.name != node:
        return "can only access node lease with the same name as the requesting node"
    return None


def _refuse_unrelated(storage: Storage, node: str, wanted: Attributes) -> str | None:
    if wanted.resource == "pods":
        pod = storage.find(POD, wanted.namespace, wanted.name)
        related = pod is not None and node_name(pod.object) == node
    else:
        pods = (pod.object for pod in storage.list(POD, wanted.namespace) if node_name(pod.object) == node)
        related = any(wanted.name in REFERENCES[wanted.resource](pod) for pod in pods)
    return None if related else f"no relationship found between node '{node}' and this object"


def _accounts(pod: Object) -> Iterator[str]:
    if MIRROR not in (pod["metadata"].get("annotations") or {}):
        yield pod["spec"].get("serviceAccountName", "")


def _secrets(pod: Object) -> Iterator[str]:
    yield from (reference.get("name", "") for reference in pod["spec"].get("imagePullSecrets") or ())
    yield from _named(pod, "secret")


REFERENCES: dict[str, Callable[[Object], Iterator[str]]] = {
    "secrets": _secrets,
    "configmaps": lambda pod: _named(pod, "configMap"),
    "serviceaccounts": _accounts,
}


def _named(pod: Object, what: str) -> Iterator[str]:
    """Yield the names of the Secrets or ConfigMaps that the pod uses."""
    if MIRROR in (pod["metadata"].get("annotations") or {}):
        return
    for volume in pod["spec"].get("volumes") or ():
        for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            if reference := source.get(what):
                yield reference.get("secretName") or reference.get("name", "")
    for container in (each for kind in CONTAINERS for each in pod["spec"].get(kind) or ()):
        for source in container.get("envFrom") or ():
            yield (source.get(f"{what}Ref") or {}).get("name", "")
        for variable in container.get("env") or ():
            yield ((variable.get("valueFrom") or {}).get(f"{what}KeyRef") or {}).get("name", "")
