"""Validate objects before they are stored. The errors are in an API server's words and order."""

import base64
import re
from collections.abc import Callable, Iterable
from functools import partial

from labkit.simulator.kubernetes.api import match_conditions
from labkit.simulator.kubernetes.api.field_rules import (
    FieldRule,
    between,
    errors,
    items,
    matching,
    needed,
    not_negative,
    one_of,
)
from labkit.simulator.kubernetes.api.name_validation import (
    QUALIFIED,
    SUBDOMAIN,
    SUBDOMAIN_TEXT,
    VALUE_TEXT,
    config_key,
    label_key,
    label_name,
    too_long,
)
from labkit.simulator.kubernetes.api.pod_validation import pod_spec, pod_update
from labkit.simulator.kubernetes.api.requests import parse
from labkit.simulator.kubernetes.objects import services
from labkit.simulator.kubernetes.objects.kinds import RBAC, Kind, Object
from labkit.simulator.kubernetes.objects.schema import json_type
from labkit.simulator.kubernetes.objects.selectors import object_selector
from labkit.simulator.kubernetes.objects.status import (
    StatusCause,
    forbidden_field,
    invalid,
    invalid_value,
    quote,
    required,
    unsupported,
)

CONFIG_LIMIT = 1024 * 1024
LABEL_NAMED = {"Namespace"}
ANY_NAME = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def validate(kind: Kind, obj: Object) -> None:
    """Raise Invalid, with all errors, if the object has errors."""
    causes = _metadata(kind, obj["metadata"])
    if check := _CHECKS.get(kind.kind):
        causes += check(obj)
    if causes:
        raise invalid(kind.kind, kind.group, obj["metadata"].get("name", ""), causes)


def validate_update(kind: Kind, new: Object, old: Object) -> None:
    """Raise Invalid if the new object has errors, or if the change isn't allowed."""
    validate(kind, new)
    causes = pod_update(new, old) if kind.kind == "Pod" else []
    if kind.kind in ("ConfigMap", "Secret") and old.get("immutable"):
        causes += [
            forbidden_field(field, "field is immutable when `immutable` is set")
            for field in ("data", "binaryData", "immutable")
            if new.get(field) != old.get(field)
        ]
    if kind.kind in ("RoleBinding", "ClusterRoleBinding") and new.get("roleRef") != old.get("roleRef"):
        causes.append(invalid_value("roleRef", dict(sorted(new["roleRef"].items())), "cannot change roleRef"))
    if kind.kind in ("Deployment", "ReplicaSet") and new["spec"]["selector"] != old["spec"]["selector"]:
        causes.append(invalid_value("spec.selector", new["spec"]["selector"], "field is immutable"))
    if kind is services.SERVICE:
        causes += services.validate_update(new, old)
    if kind.kind == "Secret" and new.get("type") != old.get("type"):
        causes.append(invalid_value("type", new.get("type", ""), "field is immutable"))
    if causes:
        raise invalid(kind.kind, kind.group, new["metadata"]["name"], causes)


def _metadata(kind: Kind, metadata: Object) -> list[StatusCause]:
    name, causes = metadata.get("name", ""), []
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    elif kind.kind in ANY_NAME:
        if "/" in name or "%" in name or name in (".", ".."):
            causes.append(invalid_value("metadata.name", name, "may not contain '/'"))
    elif kind.kind in LABEL_NAMED:
        causes += label_name("metadata.name", name)
    elif len(name) > 253:
        causes.append(too_long("metadata.name", name, 253))
    elif not re.fullmatch(SUBDOMAIN, name) and kind.kind != "Event":
        causes.append(invalid_value("metadata.name", name, SUBDOMAIN_TEXT))
    causes += _labels(metadata, "metadata") + _annotations(metadata, "metadata")
    return causes + _owners(metadata.get("ownerReferences") or ())


def _owners(references: Iterable[Object]) -> list[StatusCause]:
    causes, field = [], "metadata.ownerReferences"
    for reference in references:
        if not reference.get("apiVersion"):
            causes.append(invalid_value(f"{field}.apiVersion", "", "version must not be empty"))
        for key in ("kind", "name", "uid"):
            if not reference.get(key):
                causes.append(invalid_value(f"{field}.{key}", "", "must not be empty"))
    controllers = [reference for reference in references if reference.get("controller")]
    if len(controllers) > 1:
        first, second = (reference.get("name", "") for reference in controllers[:2])
        both = f'Found "true" in references for {first} and {second}'
        more = f"Only one reference can have Controller set to true. {both}"
        causes.append(StatusCause(field, f"Invalid value: {quote(list(references))}: {more}"))
    return causes


def _labels(metadata: Object, path: str) -> list[StatusCause]:
    causes, field = [], f"{path}.labels"
    for key, value in (metadata.get("labels") or {}).items():
        causes += label_key(field, key)
        if len(value) > 63:
            causes.append(too_long(field, value, 63))
        elif value and not re.fullmatch(QUALIFIED, value):
            causes.append(invalid_value(field, value, VALUE_TEXT))
    return causes


def _annotations(metadata: Object, path: str) -> list[StatusCause]:
    causes, field = [], f"{path}.annotations"
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        causes += label_key(field, key.lower())
    if sum(len(key) + len(value) for key, value in annotations.items()) > 256 * 1024:
        causes.append(StatusCause(field, "Too long: may not be more than 262144 bytes", "FieldValueTooLong"))
    return causes


def _config_map(config_map: Object) -> list[StatusCause]:
    texts, binaries = config_map.get("data") or {}, config_map.get("binaryData") or {}
    causes = []
    for key in sorted(texts):
        causes += config_key(f"data[{key}]", key)
        if key in binaries:
            causes.append(invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData"))
    for key in sorted(binaries):
        causes += config_key(f"binaryData[{key}]", key)
    size = sum(len(text.encode()) for text in texts.values()) + sum(map(_decoded_size, binaries.values()))
    return causes + ([_too_large("[]")] if size > CONFIG_LIMIT else [])


def _secret(secret: Object) -> list[StatusCause]:
    data = secret.get("data") or {}
    causes = [cause for key in sorted(data) for cause in config_key(f"data[{key}]", key)]
    causes += [_too_large("data")] if sum(map(_decoded_size, data.values())) > CONFIG_LIMIT else []
    return causes + _secret_type(secret, data)


def _secret_type(secret: Object, data: Object) -> list[StatusCause]:
    """https://kubernetes.io/docs/concepts/configuration/secret/#secret-types"""
    match secret.get("type", ""):
        case "kubernetes.io/service-account-token":
            account = "kubernetes.io/service-account.name"
            named = (secret["metadata"].get("annotations") or {}).get(account)
            return [] if named else [required(f"metadata.annotations[{account}]")]
        case "kubernetes.io/dockercfg":
            return _json_object(data, ".dockercfg")
        case "kubernetes.io/dockerconfigjson":
            return _json_object(data, ".dockerconfigjson")
        case "kubernetes.io/basic-auth":
            either = "username" in data or "password" in data
            return [] if either else [required("data[username]"), required("data[password]")]
        case "kubernetes.io/ssh-auth":
            return [] if data.get("ssh-privatekey") else [required("data[ssh-privatekey]")]
        case "kubernetes.io/tls":
            return [required(f"data[{key}]") for key in ("tls.crt", "tls.key") if key not in data]
    return []


def _json_object(data: Object, key: str) -> list[StatusCause]:
    if key not in data:
        return [required(f"data[{key}]")]
    try:
        value, _ = parse(base64.b64decode(data[key] or ""))
    except ValueError as error:
        return [invalid_value(f"data[{key}]", "<secret contents redacted>", str(error))]
    if isinstance(value, dict | None):
        return []
    more = f"json: cannot unmarshal {json_type(value)} into Go value of type map[string]interface {{}}"
    return [invalid_value(f"data[{key}]", "<secret contents redacted>", more)]


def _decoded_size(text: str | None) -> int:
    return len(text.rstrip("=")) * 3 // 4 if text else 0


def _too_large(field: str) -> StatusCause:
    return StatusCause(field, f"Too long: may not be more than {CONFIG_LIMIT} bytes", "FieldValueTooLong")


def _deployment(deployment: Object) -> list[StatusCause]:
    spec = deployment["spec"]
    causes = _workload(deployment, "deployment")
    strategy, path = spec["strategy"], "spec.strategy"
    causes += errors(strategy, path, {"type": one_of("Recreate", "RollingUpdate")})
    rolling = strategy.get("rollingUpdate")
    if strategy["type"] == "Recreate" and rolling is not None:
        more = "may not be specified when strategy `type` is 'Recreate'"
        causes.append(forbidden_field(f"{path}.rollingUpdate", more))
    elif rolling is not None:
        unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
        field = f"{path}.rollingUpdate.maxUnavailable"
        causes += errors(rolling, f"{path}.rollingUpdate", _ROLLING_UPDATE)
        if unavailable in (0, "0%") and surge in (0, "0%"):
            causes.append(invalid_value(field, unavailable, "may not be 0 when `maxSurge` is 0"))
        elif re.fullmatch(r"[0-9]+%", str(unavailable)) and int(unavailable[:-1]) > 100:
            causes.append(invalid_value(field, unavailable, "must not be greater than 100%"))
    causes += errors(spec, "spec", _DEPLOYMENT)
    if (deadline := spec["progressDeadlineSeconds"]) <= spec.get("minReadySeconds", 0):
        more = "must be greater than minReadySeconds"
        causes.append(invalid_value("spec.progressDeadlineSeconds", deadline, more))
    return causes


def _workload(obj: Object, called: str) -> list[StatusCause]:
    """Return the errors in the fields that Deployments and ReplicaSets have in common."""
    spec, template, path = obj["spec"], obj["spec"]["template"], "spec.template"
    causes = errors(spec, "spec", _WORKLOAD)
    selector, labels = spec.get("selector"), template["metadata"].get("labels")
    if selector is None:
        causes.append(required("spec.selector"))
    else:
        causes += _selector(selector, "spec.selector")
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            more = f"empty selector is invalid for {called}"
            causes.append(invalid_value("spec.selector", selector, more))
        elif not causes and not object_selector(selector)(labels or {}):
            more = "`selector` does not match template `labels`"
            causes.append(invalid_value(f"{path}.metadata.labels", labels, more))
    causes += _labels(template["metadata"], path) + _annotations(template["metadata"], path)
    causes += pod_spec(template["spec"], f"{path}.spec")
    policy = template["spec"]["restartPolicy"]
    if policy in ("OnFailure", "Never"):
        causes.append(unsupported(f"{path}.spec.restartPolicy", policy, ["Always"]))
    if template["spec"].get("activeDeadlineSeconds") is not None:
        more = "activeDeadlineSeconds in ReplicaSet is not Supported"
        causes.append(forbidden_field(f"{path}.spec.activeDeadlineSeconds", more))
    return causes


def _selector(selector: Object, path: str) -> list[StatusCause]:
    causes = []
    for key, value in (selector.get("matchLabels") or {}).items():
        causes += label_key(f"{path}.matchLabels", key)
        if value and (len(value) > 63 or not re.fullmatch(QUALIFIED, value)):
            causes.append(invalid_value(f"{path}.matchLabels", value, VALUE_TEXT))
    for field, expression in items(selector, path, "matchExpressions"):
        operator, values = expression.get("operator", ""), expression.get("values")
        if operator in ("In", "NotIn") and not values:
            causes.append(required(f"{field}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist") and values:
            more = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            causes.append(forbidden_field(f"{field}.values", more))
        elif operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            causes.append(invalid_value(f"{field}.operator", operator, "not a valid selector operator"))
        causes += label_key(f"{field}.key", expression.get("key", ""))
    return causes


def _count_or_percent(field: str, value: int | str | None) -> list[StatusCause]:
    if not isinstance(value, str):
        return not_negative(field, value)
    more = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex"
    return matching("[0-9]+%", f"{more} used for validation is '[0-9]+%')")(field, value)


def _event(event: Object) -> list[StatusCause]:
    involved, own = event.get("involvedObject", {}).get("namespace", ""), event["metadata"].get("namespace", "")
    if involved != own and not (not involved and own == "default"):
        return [invalid_value("involvedObject.namespace", involved, "does not match event.namespace")]
    return []


def _webhooks(configuration: Object) -> list[StatusCause]:
    hooks = items(configuration, "", "webhooks")
    return [cause for path, webhook in hooks for cause in errors(webhook, path, _WEBHOOK)]


def _review_versions(field: str, versions: list[str]) -> list[StatusCause]:
    more = "must include at least one of v1, v1beta1"
    return [] if {"v1", "v1beta1"} & set(versions) else [invalid_value(field, versions, more)]


def _client_config(path: str, config: Object | None) -> list[StatusCause]:
    url = (config or {}).get("url", "")
    scheme = url.partition("://")[0]
    more = "'https' is the only allowed URL scheme; desired format: https://host[/path]"
    return [invalid_value(f"{path}.url", scheme, more)] if url and scheme != "https" else []


def _role(obj: Object, *, namespaced: bool) -> list[StatusCause]:
    """Return the errors in a role's rules. A namespaced role may not have rules about paths (nonResourceURLs).

    https://kubernetes.io/docs/reference/access-authn-authz/rbac/
    """
    causes = []
    for path, rule in items(obj, "", "rules"):
        causes += errors(rule, path, _RULE)
        if paths := rule.get("nonResourceURLs"):
            if namespaced:
                more = "namespaced rules cannot apply to non-resource URLs"
                causes.append(invalid_value(f"{path}.nonResourceURLs", paths, more))
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                more = "rules cannot apply to both regular resources and non-resource URLs"
                causes.append(invalid_value(f"{path}.nonResourceURLs", paths, more))
            continue
        causes += errors(rule, path, _RESOURCE_RULE)
        if rule.get("resourceNames") and len(rule.get("resources") or ()) > 1:
            causes.append(required(f"{path}.resourceNames", "resource names cannot apply to multiple resources"))
    return causes


def _binding(obj: Object, *, kinds: tuple[str, ...]) -> list[StatusCause]:
    """Return the errors in a binding's subjects and roleRef. The roleRef must refer to one of the ``kinds``."""
    rules = {"apiGroup": one_of(RBAC), "kind": one_of(*kinds), "name": needed()}
    return errors(obj.get("roleRef") or {}, "roleRef", rules) + _subjects(obj)


def _subjects(obj: Object) -> list[StatusCause]:
    causes = []
    for path, subject in items(obj, "", "subjects"):
        kind, group, name = (subject.get(key, "") for key in ("kind", "apiGroup", "name"))
        causes += errors(subject, path, {"name": needed()})
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


# The rules that need only the field's own value, in the order in which the API server reports errors.
_WORKLOAD: dict[str, FieldRule] = {"replicas": not_negative, "minReadySeconds": not_negative}
_DEPLOYMENT: dict[str, FieldRule] = {"revisionHistoryLimit": not_negative, "progressDeadlineSeconds": not_negative}
_ROLLING_UPDATE: dict[str, FieldRule] = {"maxUnavailable": _count_or_percent, "maxSurge": _count_or_percent}
_WEBHOOK: dict[str, FieldRule] = {
    "admissionReviewVersions": needed(_review_versions, "must specify one of v1, v1beta1"),
    "sideEffects": needed(one_of("None", "NoneOnDryRun"), "must specify one of None, NoneOnDryRun"),
    "clientConfig": _client_config,
    "timeoutSeconds": between(1, 30, "the timeout value must be between 1 and 30 seconds"),
    "failurePolicy": one_of("Fail", "Ignore"),
    "matchConditions": lambda field, value: match_conditions.validate(value or [], field),
}
_RULE: dict[str, FieldRule] = {"verbs": needed(more="verbs must contain at least one value")}
_RESOURCE_RULE: dict[str, FieldRule] = {
    "apiGroups": needed(more="resource rules must supply at least one api group"),
    "resources": needed(more="resource rules must supply at least one resource"),
}
_CHECKS: dict[str, Callable[[Object], list[StatusCause]]] = {
    "ConfigMap": _config_map,
    "Secret": _secret,
    "Service": services.validate,
    "Pod": lambda pod: pod_spec(pod["spec"], "spec"),
    "Deployment": _deployment,
    "ReplicaSet": partial(_workload, called="replicaset"),
    "Event": _event,
    "MutatingWebhookConfiguration": _webhooks,
    "Role": partial(_role, namespaced=True),
    "ClusterRole": partial(_role, namespaced=False),
    "RoleBinding": partial(_binding, kinds=("Role", "ClusterRole")),
    "ClusterRoleBinding": partial(_binding, kinds=("ClusterRole",)),
}
