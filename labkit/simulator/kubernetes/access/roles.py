"""The roles and bindings that every cluster has from the start.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings
"""

from labkit.simulator.kubernetes.objects.kinds import ADMISSION, APPS, AUTHENTICATION, AUTHORIZATION, RBAC, Object

READ = ["get", "list", "watch"]
WRITE = ["create", "delete", "deletecollection", "patch", "update"]
LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}


def _rule(verbs: list[str], resources: list[str], group: str = "") -> Object:
    return {"verbs": verbs, "apiGroups": [group], "resources": resources}


def _paths(*paths: str) -> Object:
    return {"verbs": ["get"], "nonResourceURLs": list(paths)}


DISCOVERY = _paths("/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz")
VERSION = ["/version", "/version/"]
# With these, a caller can act as a pod. So `view` doesn't include them, not even for reading.
INTO_PODS = ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]
WORKLOADS = ["deployments", "deployments/scale", "replicasets", "replicasets/scale"]

# admin includes edit, and edit includes view.
VIEW = [
    _rule(READ, ["configmaps", "pods", "serviceaccounts", "services", "events", "namespaces"]),
    _rule(READ, ["namespaces/status", "pods/log", "pods/status"]),
    _rule(READ, [*WORKLOADS, "deployments/status", "replicasets/status"], APPS),
]
EDIT = [
    _rule(READ, [*INTO_PODS, "secrets"]),
    _rule(["impersonate"], ["serviceaccounts"]),
    _rule(WRITE, ["pods", *INTO_PODS]),
    _rule(["create"], ["pods/eviction"]),
    _rule(WRITE, ["configmaps", "secrets", "serviceaccounts", "services", "events"]),
    _rule(["create"], ["serviceaccounts/token"]),
    _rule(WRITE, WORKLOADS, APPS),
    _rule(READ + WRITE, ["leases"], "coordination.k8s.io"),
]
ADMIN = [
    _rule(["create"], ["localsubjectaccessreviews"], AUTHORIZATION),
    _rule(READ + WRITE, ["roles", "rolebindings"], RBAC),
]

CLUSTER_ROLES: dict[str, list[Object]] = {
    "cluster-admin": [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
        {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ],
    "admin": EDIT + VIEW + ADMIN,
    "edit": EDIT + VIEW,
    "view": VIEW,
    "system:aggregate-to-admin": ADMIN,
    "system:aggregate-to-edit": EDIT,
    "system:aggregate-to-view": VIEW,
    "system:basic-user": [
        _rule(["create"], ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], AUTHORIZATION),
        _rule(["create"], ["selfsubjectreviews"], AUTHENTICATION),
    ],
    "system:discovery": [DISCOVERY | {"nonResourceURLs": [*DISCOVERY["nonResourceURLs"], *VERSION]}],
    "system:public-info-viewer": [_paths("/healthz", "/livez", "/readyz", *VERSION)],
    "system:monitoring": [
        _paths("/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*")
    ],
    "system:service-account-issuer-discovery": [
        _paths("/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks")
    ],
    "system:auth-delegator": [
        _rule(["create"], ["tokenreviews"], AUTHENTICATION),
        _rule(["create"], ["subjectaccessreviews"], AUTHORIZATION),
    ],
    "system:node": [
        _rule(READ, ["pods", "nodes", "configmaps", "secrets", "services"]),
        _rule(["create", "delete"], ["pods"]),
        _rule(["create", "patch", "update"], ["nodes", "nodes/status", "events"]),
        _rule(["patch", "update"], ["pods/status"]),
        _rule(["create"], ["serviceaccounts/token"]),
        _rule(["create", "get", "patch", "update", "delete"], ["leases"], "coordination.k8s.io"),
        _rule(["create"], ["tokenreviews"], AUTHENTICATION),
        _rule(["create"], ["subjectaccessreviews", "localsubjectaccessreviews"], AUTHORIZATION),
    ],
    "system:pod-identity-webhook": [
        _rule(READ, ["serviceaccounts", "pods"]),
        _rule(["get", "update", "patch"], ["mutatingwebhookconfigurations"], ADMISSION),
    ],
}

# Key: a role. Value: the role that includes the first role's rules, by a label.
GATHERED = {
    "edit": "admin",
    "view": "edit",
    "system:aggregate-to-admin": "admin",
    "system:aggregate-to-edit": "edit",
    "system:aggregate-to-view": "view",
}

# Key: a role. Value: the groups and users that have the role in the whole cluster. The Node authorizer handles nodes.
CLUSTER_BINDINGS: dict[str, list[tuple[str, str]]] = {
    "cluster-admin": [("Group", "system:masters")],
    "system:basic-user": [("Group", "system:authenticated")],
    "system:discovery": [("Group", "system:authenticated")],
    "system:public-info-viewer": [("Group", "system:authenticated"), ("Group", "system:unauthenticated")],
    "system:monitoring": [("Group", "system:monitoring")],
    "system:service-account-issuer-discovery": [("Group", "system:serviceaccounts")],
    "system:node": [],
    "system:pod-identity-webhook": [("User", "system:pod-identity-webhook")],
}


def cluster_role(name: str) -> Object:
    labels = LABELS | (_gathered(GATHERED[name]) if name in GATHERED else {})
    role = {"metadata": {"name": name, "labels": labels}, "rules": CLUSTER_ROLES[name]}
    if name in GATHERED.values():
        role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": _gathered(name)}]}
    return role


def _gathered(by: str) -> Object:
    return {f"rbac.authorization.k8s.io/aggregate-to-{by}": "true"}


def cluster_binding(name: str) -> Object:
    subjects = [{"kind": kind, "apiGroup": RBAC, "name": subject} for kind, subject in CLUSTER_BINDINGS[name]]
    return {
        "metadata": {"name": name, "labels": LABELS},
        **({"subjects": subjects} if subjects else {}),
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
    }
