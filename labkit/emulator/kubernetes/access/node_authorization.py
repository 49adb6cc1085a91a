"""What a node may do: its own objects, its pods, and what its pods refer to; nothing of other nodes'.

https://kubernetes.io/docs/reference/access-authn-authz/node/
https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction
"""

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from labkit.emulator.kubernetes.access.authentication import User
from labkit.emulator.kubernetes.access.roles import CLUSTER_ROLES
from labkit.emulator.kubernetes.access.rules import Attributes, allows
from labkit.emulator.kubernetes.objects.kinds import NODE, POD, SERVICE_ACCOUNT
from labkit.emulator.kubernetes.objects.status import ApiError, forbidden
from labkit.emulator.kubernetes.objects.storage import Storage, Stored

if TYPE_CHECKING:
    from labkit.emulator.kubernetes.access.authorization import Authorization
    from labkit.emulator.kubernetes.api.admission import Review

NODES, USER_PREFIX = "system:nodes", "system:node:"
LEASES = "kube-node-lease"
MIRROR = "kubernetes.io/config.mirror"
READ = ("get", "list", "watch")
CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
# The labels of kubernetes.io and k8s.io that a node may give to itself.
OWN_LABELS = re.compile(
    r"kubernetes\.io/(hostname|os|arch)|beta\.kubernetes\.io/(os|arch|instance-type)|node\.kubernetes\.io/.+"
    r"|(topology\.kubernetes\.io|failure-domain\.beta\.kubernetes\.io)/(zone|region)|kubelet\.kubernetes\.io/.+"
)


def node_of(user: User) -> str:
    """The name of the node that the user is; "" for anybody else."""
    return user.name.removeprefix(USER_PREFIX) if NODES in user.groups and user.name.startswith(USER_PREFIX) else ""


def refusal(storage: Storage, node: str, wanted: Attributes) -> str | None:
    """Why the node may not do it ("" where the server gives no reason); None where it may."""
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
        related = pod is not None and _node_name(pod.object) == node
    else:
        pods = (pod.object for pod in storage.list(POD, wanted.namespace) if _node_name(pod.object) == node)
        related = any(wanted.name in REFERENCES[wanted.resource](pod) for pod in pods)
    return None if related else f"no relationship found between node '{node}' and this object"


def _node_name(pod: dict) -> str:
    return pod["spec"].get("nodeName", "")


def _accounts(pod: dict) -> Iterator[str]:
    if MIRROR not in (pod["metadata"].get("annotations") or {}):
        yield pod["spec"].get("serviceAccountName", "")


def _secrets(pod: dict) -> Iterator[str]:
    yield from (reference.get("name", "") for reference in pod["spec"].get("imagePullSecrets") or ())
    yield from _named(pod, "secret")


def _config_maps(pod: dict) -> Iterator[str]:
    yield from _named(pod, "configMap")


REFERENCES: dict[str, Callable[[dict], Iterator[str]]] = {
    "secrets": _secrets,
    "configmaps": _config_maps,
    "serviceaccounts": _accounts,
}


def _named(pod: dict, what: str) -> Iterator[str]:
    """The secrets or config maps that the pod's volumes and its containers' environments name."""
    if MIRROR in (pod["metadata"].get("annotations") or {}):
        return
    for volume in pod["spec"].get("volumes") or ():
        for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            if found := source.get(what):
                yield found.get("secretName") or found.get("name", "")
    for container in (each for kind in CONTAINERS for each in pod["spec"].get(kind) or ()):
        for source in container.get("envFrom") or ():
            yield (source.get(f"{what}Ref") or {}).get("name", "")
        for variable in container.get("env") or ():
            yield ((variable.get("valueFrom") or {}).get(f"{what}KeyRef") or {}).get("name", "")


# Admission


def check_token(authorization: "Authorization", user: User, account: Stored, spec: dict) -> None:
    """Raises Forbidden for a token that is not for a pod of the node, or has an audience that the pod does not name."""
    if not (node := node_of(user)):
        return
    reference = spec.get("boundObjectRef") or {}

    def refused(why: str) -> ApiError:
        return forbidden(SERVICE_ACCOUNT, account.name, why)

    if (reference.get("apiVersion"), reference.get("kind")) != ("v1", "Pod") or not reference.get("name"):
        raise refused("node requested token not bound to a pod")
    if not (uid := reference.get("uid")):
        raise refused("node requested token with a pod binding without a uid")
    pod = authorization.storage.get(POD, account.namespace, reference["name"])
    if uid != pod.uid:
        why = f"the UID in the bound object reference ({uid}) does not match the UID in record."
        raise refused(f"{why} The object might have been deleted and then recreated")
    if _node_name(pod.object) != node:
        raise refused("node requested token bound to a pod scheduled on a different node")
    audiences = spec.get("audiences") or [""]
    if len(audiences) > 1:
        raise refused("node may only request 0 or 1 audiences")
    named = {
        source["serviceAccountToken"].get("audience", "")
        for volume in pod.object["spec"].get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
        if source.get("serviceAccountToken")
    }
    verb = "request-serviceaccounts-token-audience"
    wanted = Attributes(verb, resource=audiences[0], namespace=account.namespace, name=account.name)
    if audiences[0] and audiences[0] not in named and not authorization.authorize(user, wanted).allowed:
        raise refused(
            f'audience "{audiences[0]}" not found in pod spec volume, {user.name} is not authorized'
            " to request tokens for this audience"
        )


def check_write(storage: Storage, review: "Review") -> None:
    """Raises Forbidden for a write of a node to another node's objects, or for one that reaches beyond its own."""
    if not (node := node_of(review.user)):
        return
    name, obj, old, why = review.name, review.obj, review.old, ""
    match review.kind.plural, review.subresource, review.operation:
        case "pods", "", "CREATE":
            why = _refuse_mirror_pod(storage, node, obj)
        case "pods", "", "DELETE":
            if _node_name(old) != node:
                why = f'node "{node}" can only delete pods with spec.nodeName set to itself'
        case "pods", "status", "UPDATE":
            if _node_name(old) != node:
                why = f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'  # noqa: S608
            elif (obj["metadata"].get("labels") or {}) != (old["metadata"].get("labels") or {}):
                why = f'node "{node}" cannot update labels through pod status'
        case "nodes", _, _:
            why = _refuse_node_change(node, review)
        case "leases", _, "CREATE":
            if name != node:
                why = "can only access node lease with the same name as the requesting node"
    if why:
        raise forbidden(review.kind, name, why)


def _refuse_mirror_pod(storage: Storage, node: str, pod: dict) -> str:
    metadata = pod["metadata"]
    if MIRROR not in (metadata.get("annotations") or {}):
        return f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods'
    if _node_name(pod) != node:
        return f'node "{node}" can only create pods with spec.nodeName set to itself'
    owners = metadata.get("ownerReferences") or []
    itself = storage.find(NODE, "", node)
    if [(each.get("kind"), each.get("name"), each.get("uid")) for each in owners] != [
        ("Node", node, itself.uid if itself else "")
    ]:
        return f'node "{node}" can only create pods with an owner reference set to itself'
    return ""


def _refuse_node_change(node: str, review: "Review") -> str:
    if review.name != node:
        return f'node "{node}" is not allowed to modify node "{review.name}"'
    if review.obj is None:
        return ""
    obj, old = review.obj, review.old or {"metadata": {}}
    before, after = (each["metadata"].get("labels") or {} for each in (old, obj))
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    wrong = sorted(key for key in changed if _is_kept_from_nodes(key))
    if wrong and review.operation == "CREATE":
        return f'node "{node}" is not allowed to set the following labels: {", ".join(wrong)}'
    if wrong:
        return f"is not allowed to modify labels: {', '.join(wrong)}"
    if review.operation == "UPDATE" and (obj.get("spec") or {}).get("taints") != (old.get("spec") or {}).get("taints"):
        return f'node "{node}" is not allowed to modify taints'
    return ""


def _is_kept_from_nodes(label: str) -> bool:
    domain = label.rpartition("/")[0]
    restricted = domain == "node-restriction.kubernetes.io" or domain.endswith(".node-restriction.kubernetes.io")
    known = re.fullmatch(r"(.*\.)?(kubernetes|k8s)\.io", domain)
    return restricted or bool(known and not OWN_LABELS.fullmatch(label))
