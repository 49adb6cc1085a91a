"""The checks and changes that the API server itself makes before it stores an object.

https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

import re
from dataclasses import dataclass, field

from labkit.simulator.kubernetes.access.authentication import User
from labkit.simulator.kubernetes.access.authorization import EVERYTHING, MASTERS, Authorizer
from labkit.simulator.kubernetes.access.node_authorization import MIRROR, node_name, node_of
from labkit.simulator.kubernetes.access.rules import Attributes, compact, missing
from labkit.simulator.kubernetes.objects.kinds import NODE, POD, RBAC, SERVICE_ACCOUNT, Kind, Object
from labkit.simulator.kubernetes.objects.status import ApiError, forbidden
from labkit.simulator.kubernetes.objects.storage import Storage, Stored, quoted_list

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 (a path)
TOLERATIONS = [
    {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for state in ("not-ready", "unreachable")
]
# The labels of kubernetes.io and k8s.io that a node may set on itself.
OWN_LABELS = re.compile(
    r"kubernetes\.io/(hostname|os|arch)|beta\.kubernetes\.io/(os|arch|instance-type)|node\.kubernetes\.io/.+"
    r"|(topology\.kubernetes\.io|failure-domain\.beta\.kubernetes\.io)/(zone|region)|kubelet\.kubernetes\.io/.+"
)


@dataclass
class Review:
    """One write that admission checks. ``obj`` is empty for a delete, and ``old`` is empty for a create.

    The API server sends the ``warnings`` with its answer.
    """

    kind: Kind
    operation: str
    user: User
    obj: Object = field(default_factory=dict)
    old: Object = field(default_factory=dict)
    subresource: str = ""
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        metadata = (self.obj or self.old)["metadata"]
        self.name, self.namespace = str(metadata.get("name", "")), str(metadata.get("namespace", ""))


def with_service_account(storage: Storage, pod: Object) -> Object:
    """Return a new pod with its service account, a token for the API, and default tolerations and priority.

    Raises Forbidden if the service account doesn't exist.
    """
    metadata, spec = pod["metadata"], dict(pod["spec"])
    # Messages call a pod without a name by its generateName.
    called = metadata.get("name") or metadata.get("generateName", "")
    namespace, name = metadata["namespace"], spec.get("serviceAccountName") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = storage.find(SERVICE_ACCOUNT, namespace, name)
    if account is None:
        why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
        raise forbidden(POD, called, why)
    automount = spec.get("automountServiceAccountToken", account.object.get("automountServiceAccountToken", True))
    if automount:
        _mount_token(spec, storage.name_suffix("volume", f"{namespace}/{called}"))
    if "imagePullSecrets" not in spec and account.object.get("imagePullSecrets"):
        spec["imagePullSecrets"] = account.object["imagePullSecrets"]
    there = {(toleration.get("key"), toleration.get("effect")) for toleration in spec.get("tolerations") or ()}
    if ("", "") not in there:
        lacking = [toleration for toleration in TOLERATIONS if (toleration["key"], "NoExecute") not in there]
        spec["tolerations"] = [*(spec.get("tolerations") or ()), *lacking]
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    return {**pod, "spec": spec}


def _mount_token(spec: Object, random: str) -> None:
    """Mount a token for the API in every container, as the ServiceAccount admission plugin does."""
    volumes = spec.get("volumes") or []
    name = next((v["name"] for v in volumes if v.get("name", "").startswith("kube-api-access-")), "")
    wanted = name or f"kube-api-access-{random}"
    mount = {"name": wanted, "readOnly": True, "mountPath": TOKEN_PATH}
    added = False
    for lists in ("initContainers", "containers"):
        containers = []
        for container in spec.get(lists) or ():
            mounts = container.get("volumeMounts") or []
            if any(there.get("mountPath") == TOKEN_PATH for there in mounts):
                containers.append(container)
            else:
                containers.append({**container, "volumeMounts": [*mounts, mount]})
                added = True
        if containers:
            spec[lists] = containers
    if added and not name:
        namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
        sources = [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [namespace]}},
        ]
        spec["volumes"] = [*volumes, {"name": wanted, "projected": {"sources": sources, "defaultMode": 0o644}}]


def prevent_escalation(authorization: Authorizer, review: Review) -> None:
    """Raise Forbidden if a role or a binding grants permissions that its author doesn't have.

    The verbs ``escalate`` and ``bind`` allow such grants. Raise NotFound if a binding refers to a missing role.
    https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
    """
    user, kind, name, obj, old = review.user, review.kind, review.name, review.obj, review.old
    if kind.group != RBAC or not obj or MASTERS in user.groups:
        return

    def may(verb: str, resource: str, role: str) -> bool:
        wanted = Attributes(verb, group=RBAC, resource=resource, namespace=review.namespace, name=role)
        return authorization.authorize(user, wanted).allowed

    def lacks(rules: list[Object]) -> list[Object]:
        return missing(rules, authorization.rules(user, review.namespace))

    if kind.plural in ("roles", "clusterroles"):
        if old and all(obj.get(part) == old.get(part) for part in ("rules", "aggregationRule")):
            return
        if may("escalate", kind.plural, name):
            return
        if obj.get("aggregationRule") and lacks(EVERYTHING):
            raise forbidden(kind, name, "must have cluster-admin privileges to use an aggregationRule")
        lacking = lacks(obj.get("rules") or [])
    else:
        reference = obj["roleRef"]
        if may("bind", "clusterroles" if reference["kind"] == "ClusterRole" else "roles", reference["name"]):
            return
        lacking = lacks(authorization.rules_of(reference, review.namespace))
    if lacking:
        who = f'user "{user.name}" (groups={quoted_list(list(user.groups))})'
        lines = "\n".join(sorted({compact(rule) for rule in lacking}))
        raise forbidden(kind, name, f"{who} is attempting to grant RBAC permissions not currently held:\n{lines}")


def check_token(authorization: Authorizer, user: User, account: Stored, spec: Object) -> None:
    """Raise Forbidden if a node requests a token that isn't for a pod on this node.

    Also raise Forbidden if the pod doesn't use the token's audience.
    https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction
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


def restrict_node(storage: Storage, review: Review) -> None:
    """Raise Forbidden if a node writes another node's object, or a field that a node may not change."""
    if (node := node_of(review.user)) and (why := _why_restricted(storage, node, review)):
        raise forbidden(review.kind, review.name, why)


def _why_restricted(storage: Storage, node: str, review: Review) -> str:
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
