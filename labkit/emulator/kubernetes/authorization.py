"""What a caller may do: RBAC (https://kubernetes.io/docs/reference/access-authn-authz/rbac/)."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from labkit.emulator.kubernetes.authentication import User
from labkit.emulator.kubernetes.kinds import BY_NAME, Kind
from labkit.emulator.kubernetes.status import ApiError
from labkit.emulator.kubernetes.storage import Storage, Stored

ROLE, CLUSTER_ROLE = BY_NAME["Role"], BY_NAME["ClusterRole"]
ROLE_BINDING, CLUSTER_ROLE_BINDING = BY_NAME["RoleBinding"], BY_NAME["ClusterRoleBinding"]


@dataclass(frozen=True)
class Attributes:
    """What is asked for: a verb on a resource (``resource`` set) or on a ``path``."""

    verb: str
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def full_resource(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


@dataclass(frozen=True)
class Authorized:
    """``allowed``, and the rule that allowed it in the server's words ("" where none did)."""

    allowed: bool
    reason: str = ""


@dataclass(frozen=True)
class Grant:
    """A ClusterRole that a user has by other means than a binding; in some ``namespaces`` (``*`` allowed) or in all."""

    role: str
    namespaces: list[str] | None
    reason: str


class Authorization:
    """``others`` tell of what a user is allowed beside RBAC, e.g. by EKS's access policies."""

    def __init__(self, storage: Storage):
        self.storage = storage
        self.others: list[Callable[[User], Iterable[Grant]]] = []

    def authorize(self, user: User, wanted: Attributes) -> Authorized:
        """Whether some role that the user is bound to allows it."""
        if "system:masters" in user.groups:
            return Authorized(True)
        for rules, reason in itertools.chain(self._bound(user, wanted.namespace), self._granted(user, wanted)):
            if any(_covers(rule, wanted) for rule in rules):
                return Authorized(True, reason)
        return Authorized(False)

    def require(self, user: User, wanted: Attributes) -> None:
        """Raises Forbidden, in the server's words."""
        if not self.authorize(user, wanted).allowed:
            raise denied(user, wanted)

    def rules(self, user: User, namespace: str) -> list[dict]:
        """Every rule that applies to the user in the namespace."""
        if "system:masters" in user.groups:
            return [
                {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
                {"verbs": ["*"], "nonResourceURLs": ["*"]},
            ]
        return [rule for rules, _ in self._bound(user, namespace) for rule in rules]

    def _bound(self, user: User, namespace: str) -> Iterator[tuple[list[dict], str]]:
        for binding in self.storage.list(CLUSTER_ROLE_BINDING):
            yield from self._rules(binding, user, CLUSTER_ROLE_BINDING, "")
        if namespace:
            for binding in self.storage.list(ROLE_BINDING, namespace):
                yield from self._rules(binding, user, ROLE_BINDING, namespace)

    def _granted(self, user: User, wanted: Attributes) -> Iterator[tuple[list[dict], str]]:
        for grant in itertools.chain.from_iterable(tell(user) for tell in self.others):
            role = self.storage.find(CLUSTER_ROLE, "", grant.role)
            if role and (grant.namespaces is None or any(fnmatchcase(wanted.namespace, n) for n in grant.namespaces)):
                yield role.object.get("rules") or [], grant.reason

    def _rules(self, binding: Stored, user: User, kind: Kind, namespace: str) -> Iterator[tuple[list[dict], str]]:
        for subject in binding.object.get("subjects") or ():
            if _is(subject, user):
                reference = binding.object["roleRef"]
                role_kind = CLUSTER_ROLE if reference["kind"] == "ClusterRole" else ROLE
                role = self.storage.find(role_kind, "" if role_kind is CLUSTER_ROLE else namespace, reference["name"])
                if role is None:
                    continue
                name = f"{binding.name}/{namespace}" if namespace else binding.name
                who = subject["name"] + (f"/{subject['namespace']}" if subject.get("namespace") else "")
                of = f'{role_kind.kind} "{role.name}" to {subject["kind"]} "{who}"'
                yield role.object.get("rules") or [], f'RBAC: allowed by {kind.kind} "{name}" of {of}'


def denied(user: User, wanted: Attributes) -> ApiError:
    """Forbidden, e.g. ``pods is forbidden: User "x" cannot list resource "pods" in API group "" …``."""
    if not wanted.resource:
        message = f'forbidden: User "{user.name}" cannot {wanted.verb} path "{wanted.path}"'
        return ApiError(403, "Forbidden", message, {})
    details = {"name": wanted.name} if wanted.name else {}
    if wanted.group:
        details["group"] = wanted.group
    qualified = f"{wanted.resource}.{wanted.group}" if wanted.group else wanted.resource
    subject = f'{qualified} "{wanted.name}"' if wanted.name else qualified
    where = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    message = (
        f'{subject} is forbidden: User "{user.name}" cannot {wanted.verb} resource "{wanted.full_resource}"'
        f' in API group "{wanted.group}" {where}'
    )
    return ApiError(403, "Forbidden", message, details | {"kind": wanted.resource})


def _is(subject: dict, user: User) -> bool:
    match subject.get("kind"):
        case "User":
            return subject["name"] == user.name
        case "Group":
            return subject["name"] in user.groups
        case "ServiceAccount":
            return user.name == f"system:serviceaccount:{subject.get('namespace', '')}:{subject['name']}"
    return False


def _covers(rule: dict, wanted: Attributes) -> bool:
    verbs = rule.get("verbs") or ()
    if wanted.verb not in verbs and "*" not in verbs:
        return False
    if not wanted.resource:
        return any(_path_matches(path, wanted.path) for path in rule.get("nonResourceURLs") or ())
    groups = rule.get("apiGroups") or ()
    if wanted.group not in groups and "*" not in groups:
        return False
    names = rule.get("resourceNames") or ()
    if names and wanted.name not in names:
        return False
    resources = rule.get("resources") or ()
    if "*" in resources or wanted.full_resource in resources:
        return True
    return bool(wanted.subresource) and f"*/{wanted.subresource}" in resources


def _path_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def impersonated(headers: list[tuple[bytes, bytes]], user: User, authorization: Authorization) -> User:
    """The caller, or whom the `Impersonate-*` headers name if the caller may be that.

    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
    """
    values = [
        (key.decode().lower(), value.decode()) for key, value in headers if key.lower().startswith(b"impersonate-")
    ]
    name = next((value for key, value in values if key == "impersonate-user"), "")
    if not name:
        return user
    groups = tuple(value for key, value in values if key == "impersonate-group")
    if name.startswith("system:serviceaccount:"):
        _, _, namespace, account = name.split(":", 3)
        authorization.require(
            user, Attributes("impersonate", resource="serviceaccounts", namespace=namespace, name=account)
        )
        if not groups:
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    else:
        authorization.require(user, Attributes("impersonate", resource="users", name=name))
    for group in groups:
        if not name.startswith("system:serviceaccount:"):
            authorization.require(user, Attributes("impersonate", resource="groups", name=group))
    last = "system:unauthenticated" if name == "system:anonymous" else "system:authenticated"
    return replace(User(name, groups), groups=groups if last in groups else (*groups, last))
