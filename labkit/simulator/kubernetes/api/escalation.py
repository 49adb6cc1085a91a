"""Check a role or a binding before it's stored: users can't grant permissions that they don't have.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
"""

from labkit.simulator.kubernetes.access.authorization import EVERYTHING, MASTERS, Authorizer
from labkit.simulator.kubernetes.access.rules import Attributes, compact, missing
from labkit.simulator.kubernetes.api.review import Review
from labkit.simulator.kubernetes.objects.kinds import RBAC, Object
from labkit.simulator.kubernetes.objects.status import forbidden
from labkit.simulator.kubernetes.objects.storage import quoted_list


def check(authorization: Authorizer, review: Review) -> None:
    """Raise Forbidden if a role or a binding grants permissions that its author doesn't have.

    The verbs ``escalate`` and ``bind`` allow such grants. Raise NotFound if a binding refers to a missing role.
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
