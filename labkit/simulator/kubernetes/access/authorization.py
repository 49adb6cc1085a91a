"""Decide what a caller may do: the Node authorizer decides for nodes, and RBAC for everybody.

https://kubernetes.io/docs/reference/access-authn-authz/authorization/
https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from labkit.simulator.kubernetes.access import node_authorization
from labkit.simulator.kubernetes.access.authentication import User
from labkit.simulator.kubernetes.access.roles import CLUSTER_ROLES
from labkit.simulator.kubernetes.access.rules import Attributes, allows
from labkit.simulator.kubernetes.objects.kinds import BY_NAME, Kind, Object
from labkit.simulator.kubernetes.objects.status import ApiError, details_of
from labkit.simulator.kubernetes.objects.storage import Storage, Stored

ROLE, CLUSTER_ROLE = BY_NAME["Role"], BY_NAME["ClusterRole"]
ROLE_BINDING, CLUSTER_ROLE_BINDING = BY_NAME["RoleBinding"], BY_NAME["ClusterRoleBinding"]
MASTERS = "system:masters"
EVERYTHING = CLUSTER_ROLES["cluster-admin"]


@dataclass(frozen=True)
class Authorized:
    """Whether a request is ``allowed``, and the reason in the API server's words ("" if the server gives no reason)."""

    allowed: bool
    reason: str = ""


@dataclass(frozen=True)
class ClusterRoleGrant:
    """A ClusterRole that a user has without a binding.

    The names in ``namespaces`` may contain the wildcard ``*``. None means the whole cluster.
    """

    role: str
    namespaces: list[str] | None
    reason: str


class Authorizer:
    """Decide what users may do.

    ``others`` are functions that return a user's grants outside of RBAC, e.g. those from EKS access policies.
    """

    def __init__(self, storage: Storage):
        self.storage = storage
        self.others: list[Callable[[User], Iterable[ClusterRoleGrant]]] = []

    def authorize(self, user: User, wanted: Attributes) -> Authorized:
        """Return an `Authorized`: the request is allowed if at least one authorizer allows the request."""
        if MASTERS in user.groups:
            return Authorized(True)
        reasons = []
        if node := node_authorization.node_of(user):
            refusal = node_authorization.refusal(self.storage, node, wanted)
            if refusal is None:
                return Authorized(True)
            reasons.append(refusal)
        broken: list[str] = []
        bound, granted = self._bound(user, wanted.namespace, broken), self._granted(user, wanted.namespace)
        for rules, reason in itertools.chain(bound, granted):
            if any(allows(rule, wanted) for rule in rules):
                return Authorized(True, reason)
        if broken:
            text = ", ".join(dict.fromkeys(broken))
            reasons.append(f"RBAC: [{text}]" if len(set(broken)) > 1 else f"RBAC: {text}")
        return Authorized(False, "\n".join(filter(None, reasons)))

    def require(self, user: User, wanted: Attributes) -> None:
        """Raise Forbidden, in the API server's words, if the request isn't allowed."""
        decision = self.authorize(user, wanted)
        if not decision.allowed:
            raise denied(user, wanted, decision.reason)

    def rules(self, user: User, namespace: str) -> list[Object]:
        """Return all RBAC rules that apply to the user in the namespace.

        For the namespace "", return only the rules that apply in the whole cluster.
        """
        if MASTERS in user.groups:
            return EVERYTHING
        return [rule for rules, _ in self._bound(user, namespace, []) for rule in rules]

    def rules_of(self, reference: Object, namespace: str) -> list[Object]:
        """Return the rules of the role in ``reference``, the roleRef of a binding in ``namespace``. Raises NotFound."""
        kind, namespace = _role_kind(reference, namespace)
        return self.storage.get(kind, namespace, reference["name"]).object.get("rules") or []

    def unlisted(self, user: User) -> str:
        """Return why the result of :meth:`rules` is possibly incomplete for the user; "" if it's complete."""
        if node_authorization.node_of(user):
            return "node authorizer does not support user rule resolution"
        if any(True for tell in self.others for _ in tell(user)):
            return "webhook authorizer does not support user rule resolution"
        return ""

    def _bound(self, user: User, namespace: str, broken: list[str]) -> Iterator[tuple[list[Object], str]]:
        """Yield the rules that each binding gives the user, with a reason that names the binding."""
        for binding in self.storage.list(CLUSTER_ROLE_BINDING):
            yield from self._rules(binding, user, CLUSTER_ROLE_BINDING, "", broken)
        if namespace:
            for binding in self.storage.list(ROLE_BINDING, namespace):
                yield from self._rules(binding, user, ROLE_BINDING, namespace, broken)

    def _granted(self, user: User, namespace: str) -> Iterator[tuple[list[Object], str]]:
        for grant in itertools.chain.from_iterable(tell(user) for tell in self.others):
            role = self.storage.find(CLUSTER_ROLE, "", grant.role)
            if role and (grant.namespaces is None or any(fnmatchcase(namespace, each) for each in grant.namespaces)):
                yield role.object.get("rules") or [], grant.reason

    def _rules(
        self, binding: Stored, user: User, kind: Kind, namespace: str, broken: list[str]
    ) -> Iterator[tuple[list[Object], str]]:
        subject = next((each for each in binding.object.get("subjects") or () if _is(each, user, namespace)), None)
        if subject is None:
            return
        reference = binding.object["roleRef"]
        role_kind, there = _role_kind(reference, namespace)
        role = self.storage.find(role_kind, there, reference["name"])
        if role is None:
            broken.append(f'{role_kind.kind.lower()}.{role_kind.group} "{reference["name"]}" not found')
            return
        name = f"{binding.name}/{namespace}" if namespace else binding.name
        who = subject["name"]
        if subject["kind"] == "ServiceAccount":
            who += f"/{subject.get('namespace') or namespace}"
        of = f'{role_kind.kind} "{role.name}" to {subject["kind"]} "{who}"'
        yield role.object.get("rules") or [], f'RBAC: allowed by {kind.kind} "{name}" of {of}'


def denied(user: User, wanted: Attributes, reason: str = "") -> ApiError:
    """Return Forbidden, e.g. ``pods is forbidden: User "x" cannot list resource "pods" in API group "" …``."""
    why = f": {reason}" if reason else ""
    if not wanted.resource:
        message = f'forbidden: User "{user.name}" cannot {wanted.verb} path "{wanted.path}"{why}'
        return ApiError(403, "Forbidden", message, {})
    qualified = f"{wanted.resource}.{wanted.group}" if wanted.group else wanted.resource
    subject = f'{qualified} "{wanted.name}"' if wanted.name else qualified
    where = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    message = (
        f'{subject} is forbidden: User "{user.name}" cannot {wanted.verb} resource "{wanted.full_resource}"'
        f' in API group "{wanted.group}" {where}{why}'
    )
    return ApiError(403, "Forbidden", message, details_of(wanted.name, wanted.group, wanted.resource))


def _role_kind(reference: Object, namespace: str) -> tuple[Kind, str]:
    return (CLUSTER_ROLE, "") if reference["kind"] == "ClusterRole" else (ROLE, namespace)


def _is(subject: Object, user: User, namespace: str) -> bool:
    match subject.get("kind"):
        case "User":
            return bool(subject["name"] == user.name)
        case "Group":
            return subject["name"] in user.groups
        case "ServiceAccount":
            there = subject.get("namespace") or namespace
            return bool(there) and user.name == f"system:serviceaccount:{there}:{subject['name']}"
    return False
