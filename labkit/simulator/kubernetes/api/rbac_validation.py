"""Validate roles and bindings (https://kubernetes.io/docs/reference/access-authn-authz/rbac/)."""

from labkit.simulator.kubernetes.objects.kinds import RBAC, Object
from labkit.simulator.kubernetes.objects.status import StatusCause, invalid_value, required, unsupported


def role(obj: Object, *, namespaced: bool) -> list[StatusCause]:
    """Return the errors in a role's rules. A namespaced role may not have rules about paths (nonResourceURLs)."""
    causes = []
    for i, rule in enumerate(obj.get("rules") or ()):
        path = f"rules[{i}]"
        if not rule.get("verbs"):
            causes.append(required(f"{path}.verbs", "verbs must contain at least one value"))
        if paths := rule.get("nonResourceURLs"):
            if namespaced:
                more = "namespaced rules cannot apply to non-resource URLs"
                causes.append(invalid_value(f"{path}.nonResourceURLs", paths, more))
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                more = "rules cannot apply to both regular resources and non-resource URLs"
                causes.append(invalid_value(f"{path}.nonResourceURLs", paths, more))
            continue
        if not rule.get("apiGroups"):
            causes.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            causes.append(required(f"{path}.resources", "resource rules must supply at least one resource"))
        if rule.get("resourceNames") and len(rule.get("resources") or ()) > 1:
            causes.append(required(f"{path}.resourceNames", "resource names cannot apply to multiple resources"))
    return causes


def binding(obj: Object, *, kinds: tuple[str, ...]) -> list[StatusCause]:
    """Return the errors in a binding's subjects and roleRef. The roleRef must refer to one of the ``kinds``."""
    reference, causes = obj.get("roleRef") or {}, []
    if (group := reference.get("apiGroup", "")) != RBAC:
        causes.append(unsupported("roleRef.apiGroup", group, [RBAC]))
    if (kind := reference.get("kind", "")) not in kinds:
        causes.append(unsupported("roleRef.kind", kind, kinds))
    return causes + ([] if reference.get("name") else [required("roleRef.name")]) + _subjects(obj)


def _subjects(obj: Object) -> list[StatusCause]:
    causes = []
    for i, subject in enumerate(obj.get("subjects") or ()):
        path, kind, group = f"subjects[{i}]", subject.get("kind", ""), subject.get("apiGroup", "")
        name = subject.get("name", "")
        if not name:
            causes.append(required(f"{path}.name"))
        if kind == "ServiceAccount":
            if group:
                causes.append(unsupported(f"{path}.apiGroup", group, [""]))
            if not subject.get("namespace") and "namespace" not in obj["metadata"]:
                causes.append(required(f"{path}.namespace"))
        elif kind in ("User", "Group"):
            if not name:
                causes.append(invalid_value(f"{path}.name", name, f"{kind.lower()} name cannot be empty"))
            if group != RBAC:
                causes.append(unsupported(f"{path}.apiGroup", group, [RBAC]))
        else:
            causes.append(unsupported(f"{path}.kind", kind, ["ServiceAccount", "User", "Group"]))
    return causes
