"""Refuse a node's writes to another node's objects, and a node's requests for tokens of another node's pods.

https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction
"""

import re

from labkit.simulator.kubernetes.access.authentication import User
from labkit.simulator.kubernetes.access.authorization import Authorizer
from labkit.simulator.kubernetes.access.node_authorization import MIRROR, node_name, node_of
from labkit.simulator.kubernetes.access.rules import Attributes
from labkit.simulator.kubernetes.api.review import Review
from labkit.simulator.kubernetes.objects.kinds import NODE, POD, SERVICE_ACCOUNT, Object
from labkit.simulator.kubernetes.objects.status import ApiError, forbidden
from labkit.simulator.kubernetes.objects.storage import Storage, Stored

# The labels of kubernetes.io and k8s.io that a node may set on itself.
OWN_LABELS = re.compile(
    r"kubernetes\.io/(hostname|os|arch)|beta\.kubernetes\.io/(os|arch|instance-type)|node\.kubernetes\.io/.+"
    r"|(topology\.kubernetes\.io|failure-domain\.beta\.kubernetes\.io)/(zone|region)|kubelet\.kubernetes\.io/.+"
)


def check_token(authorization: Authorizer, user: User, account: Stored, spec: Object) -> None:
    """Raise Forbidden if a node requests a token that isn't for a pod on this node.

    Also raise Forbidden if the pod doesn't use the token's audience.
    """
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
    if node_name(pod.object) != node:
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


def check_write(storage: Storage, review: Review) -> None:
    """Raise Forbidden if a node writes another node's object, or a field that a node may not change."""
    if (node := node_of(review.user)) and (why := _refuse(storage, node, review)):
        raise forbidden(review.kind, review.name, why)


def _refuse(storage: Storage, node: str, review: Review) -> str:
    """Return the reason to refuse the node's write."""
    match review.kind.plural, review.subresource, review.operation:
        case "pods", "", "CREATE":
            return _refuse_mirror_pod(storage, node, review.obj)
        case "pods", "", "DELETE" if node_name(review.old) != node:
            return f'node "{node}" can only delete pods with spec.nodeName set to itself'
        case "pods", "status", "UPDATE" if node_name(review.old) != node:
            return f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'  # noqa: S608
        case "pods", "status", "UPDATE" if _labels(review.obj) != _labels(review.old):
            return f'node "{node}" cannot update labels through pod status'
        case "nodes", _, _:
            return _refuse_node_change(node, review)
        case "leases", _, "CREATE" if review.name != node:
            return "can only access node lease with the same name as the requesting node"
    return ""


def _refuse_mirror_pod(storage: Storage, node: str, pod: Object) -> str:
    metadata = pod["metadata"]
    if MIRROR not in (metadata.get("annotations") or {}):
        return f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods'
    if node_name(pod) != node:
        return f'node "{node}" can only create pods with spec.nodeName set to itself'
    owners = metadata.get("ownerReferences") or []
    itself = storage.find(NODE, "", node)
    if [(each.get("kind"), each.get("name"), each.get("uid")) for each in owners] != [
        ("Node", node, itself.uid if itself else "")
    ]:
        return f'node "{node}" can only create pods with an owner reference set to itself'
    return ""


def _refuse_node_change(node: str, review: Review) -> str:
    if review.name != node:
        return f'node "{node}" is not allowed to modify node "{review.name}"'
    if not review.obj:
        return ""
    obj, old = review.obj, review.old or {"metadata": {}}
    before, after = _labels(old), _labels(obj)
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    wrong = sorted(key for key in changed if _is_kept_from_nodes(key))
    if wrong and review.operation == "CREATE":
        return f'node "{node}" is not allowed to set the following labels: {", ".join(wrong)}'
    if wrong:
        return f"is not allowed to modify labels: {', '.join(wrong)}"
    if review.operation == "UPDATE" and (obj.get("spec") or {}).get("taints") != (old.get("spec") or {}).get("taints"):
        return f'node "{node}" is not allowed to modify taints'
    return ""


def _labels(obj: Object) -> Object:
    return obj["metadata"].get("labels") or {}


def _is_kept_from_nodes(label: str) -> bool:
    domain = label.rpartition("/")[0]
    restricted = domain == "node-restriction.kubernetes.io" or domain.endswith(".node-restriction.kubernetes.io")
    known = re.fullmatch(r"(.*\.)?(kubernetes|k8s)\.io", domain)
    return restricted or bool(known and not OWN_LABELS.fullmatch(label))
