"""Give each aggregated ClusterRole the rules of the ClusterRoles that its label selectors match.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles
"""

from collections.abc import Iterable

from labkit.simulator.kubernetes.objects.kinds import BY_NAME, Object
from labkit.simulator.kubernetes.objects.selectors import object_selector
from labkit.simulator.kubernetes.objects.storage import Change, Later, Storage, Stored

CLUSTER_ROLE = BY_NAME["ClusterRole"]


class Aggregation:
    """Update the aggregated ClusterRoles after every change of a ClusterRole."""

    def __init__(self, storage: Storage, later: Later):
        self.storage, self.later = storage, later
        storage.observers.append(self._observe)

    def _observe(self, change: Change) -> None:
        if change.kind is CLUSTER_ROLE:
            self.later(self._gather)

    def _gather(self) -> None:
        for role in list(self.storage.list(CLUSTER_ROLE)):
            if rule := role.object.get("aggregationRule"):
                rules = self._rules(role, rule.get("clusterRoleSelectors", ()))
                if rules != (role.object.get("rules") or []):
                    self.storage.replace(CLUSTER_ROLE, role, {**role.object, "rules": rules}, role.managers)

    def _rules(self, aggregate: Stored, selectors: Iterable[Object]) -> list[Object]:
        matching = [object_selector(selector) for selector in selectors]
        rules: list[Object] = []
        for role in self.storage.list(CLUSTER_ROLE):
            labels = role.metadata.get("labels") or {}
            if role.name != aggregate.name and any(matches(labels) for matches in matching):
                rules += [rule for rule in role.object.get("rules") or () if rule not in rules]
        return rules
