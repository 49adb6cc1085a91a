"""Validate objects before they are stored. The errors are in an API server's words and order."""

import base64
import re
from functools import cache, partial

from labkit.simulator.kubernetes.api import match_conditions
from labkit.simulator.kubernetes.api.field_rules import (
    FieldRule,
    Rules,
    between,
    each,
    errors,
    matching,
    needed,
    no_longer_than,
    not_negative,
    numbered,
    one_of,
    part,
)
from labkit.simulator.kubernetes.api.name_validation import (
    QUALIFIED,
    VALUE_TEXT,
    config_key,
    label_key,
    label_name,
    label_value,
    subdomain_name,
)
from labkit.simulator.kubernetes.api.pod_validation import PORT_NUMBER, pod_spec, pod_update, repeated_name
from labkit.simulator.kubernetes.api.requests import parse
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


def validate(kind: Kind, obj: Object) -> None:
    """Raise Invalid, with all errors, if the object has errors."""
    if causes := errors(obj, "", _rules(kind)):
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
    if kind.kind == "Service":
        before, after = (service["spec"].get("clusterIP") for service in (old, new))
        if before and after != before and new["spec"]["type"] == old["spec"]["type"]:
            causes.append(invalid_value("spec.clusterIPs[0]", [after or ""], "may not change once set"))
    if kind.kind == "Secret" and new.get("type") != old.get("type"):
        causes.append(invalid_value("type", new.get("type", ""), "field is immutable"))
    if causes:
        raise invalid(kind.kind, kind.group, new["metadata"]["name"], causes)


@cache
def _rules(kind: Kind) -> Rules:
    name = needed(_NAMES.get(kind.kind, subdomain_name), "name or generateName is required")
    return {"metadata": part({"name": name, **_METADATA, "ownerReferences": _owners}), **_KINDS.get(kind.kind, {})}


def _path_segment(field: str, name: str) -> list[StatusCause]:
    is_wrong = "/" in name or "%" in name or name in (".", "..")
    return [invalid_value(field, name, "may not contain '/'")] if is_wrong else []


def _owners(field: str, references: list[Object]) -> list[StatusCause]:
    texts = {"apiVersion": "version must not be empty", **dict.fromkeys(("kind", "name", "uid"), "must not be empty")}
    causes = [
        invalid_value(f"{field}.{key}", "", text)
        for reference in references
        for key, text in texts.items()
        if not reference.get(key)
    ]
    controllers = [reference for reference in references if reference.get("controller")]
    if len(controllers) > 1:
        first, second = (reference.get("name", "") for reference in controllers[:2])
        both = f'Found "true" in references for {first} and {second}'
        more = f"Only one reference can have Controller set to true. {both}"
        causes.append(StatusCause(field, f"Invalid value: {quote(references)}: {more}"))
    return causes


def _labels(field: str, labels: dict[str, str]) -> list[StatusCause]:
    return [cause for key, value in labels.items() for cause in label_key(field, key) + label_value(field, value)]


def _annotations(field: str, annotations: dict[str, str]) -> list[StatusCause]:
    causes = [cause for key in annotations for cause in label_key(field, key.lower())]
    if sum(len(key) + len(value) for key, value in annotations.items()) > 256 * 1024:
        causes.append(StatusCause(field, "Too long: may not be more than 262144 bytes", "FieldValueTooLong"))
    return causes


def _config_map(_path: str, config_map: Object) -> list[StatusCause]:
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


def _secret(_path: str, secret: Object) -> list[StatusCause]:
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


def _deployment(path: str, deployment: Object) -> list[StatusCause]:
    spec = deployment["spec"]
    causes = _workload(path, deployment, called="deployment")
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


def _workload(_path: str, obj: Object, *, called: str) -> list[StatusCause]:
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
    causes += errors(template["metadata"], path, _METADATA) + pod_spec(f"{path}.spec", template["spec"])
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
    for field, expression in numbered(f"{path}.matchExpressions", selector.get("matchExpressions") or ()):
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


def _service_spec(path: str, spec: Object) -> list[StatusCause]:
    causes = errors(spec, path, _SERVICE)
    if spec["type"] == "ExternalName":
        return causes + errors(spec, path, {"externalName": needed()})
    ports: list[Object] = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None":
        causes.append(required(f"{path}.ports"))
    names: set[str] = set()
    for field, port in numbered(f"{path}.ports", ports):
        if not port.get("name") and len(ports) > 1:
            causes.append(required(f"{field}.name"))
        causes += repeated_name(field, port, names) + errors(port, field, _SERVICE_PORT)
    return causes


def _count_or_percent(field: str, value: int | str) -> list[StatusCause]:
    if isinstance(value, int):
        return not_negative(field, value)
    more = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex"
    return matching("[0-9]+%", f"{more} used for validation is '[0-9]+%')")(field, value)


def _event(_path: str, event: Object) -> list[StatusCause]:
    involved, own = event.get("involvedObject", {}).get("namespace", ""), event["metadata"].get("namespace", "")
    if involved != own and not (not involved and own == "default"):
        return [invalid_value("involvedObject.namespace", involved, "does not match event.namespace")]
    return []


def _review_versions(field: str, versions: list[str]) -> list[StatusCause]:
    more = "must include at least one of v1, v1beta1"
    return [] if {"v1", "v1beta1"} & set(versions) else [invalid_value(field, versions, more)]


def _client_config(path: str, config: Object) -> list[StatusCause]:
    url = config.get("url", "")
    scheme = url.partition("://")[0]
    more = "'https' is the only allowed URL scheme; desired format: https://host[/path]"
    return [invalid_value(f"{path}.url", scheme, more)] if url and scheme != "https" else []


def _role_rule(path: str, rule: Object, *, namespaced: bool) -> list[StatusCause]:
    """Return the errors in a role's rule. A namespaced role may not have rules about paths (nonResourceURLs).

    https://kubernetes.io/docs/reference/access-authn-authz/rbac/
    """
    if not (paths := rule.get("nonResourceURLs")):
        causes = errors(rule, path, _RESOURCE_RULE)
        if rule.get("resourceNames") and len(rule.get("resources") or ()) > 1:
            causes.append(required(f"{path}.resourceNames", "resource names cannot apply to multiple resources"))
        return causes
    texts = ["namespaced rules cannot apply to non-resource URLs"] if namespaced else []
    if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
        texts.append("rules cannot apply to both regular resources and non-resource URLs")
    return [invalid_value(f"{path}.nonResourceURLs", paths, text) for text in texts]


def _subject(path: str, subject: Object, *, namespaced: bool) -> list[StatusCause]:
    """Return the errors in a binding's subject. A namespaced binding's service account is in the same namespace."""
    kind, group, causes = subject.get("kind", ""), subject.get("apiGroup", ""), []
    if kind == "ServiceAccount":
        if group:
            causes.append(unsupported(f"{path}.apiGroup", group, [""]))
        if not subject.get("namespace") and not namespaced:
            causes.append(required(f"{path}.namespace"))
    elif kind in ("User", "Group"):
        if not subject.get("name"):
            causes.append(invalid_value(f"{path}.name", "", f"{kind.lower()} name cannot be empty"))
        if group != RBAC:
            causes.append(unsupported(f"{path}.apiGroup", group, [RBAC]))
    else:
        causes.append(unsupported(f"{path}.kind", kind, ["ServiceAccount", "User", "Group"]))
    return causes


def _role(*, namespaced: bool) -> Rules:
    verbs = needed(more="verbs must contain at least one value")
    return {"rules": each({"verbs": verbs, "": partial(_role_rule, namespaced=namespaced)})}


def _binding(*kinds: str, namespaced: bool) -> Rules:
    """Return the rules for a binding. Its roleRef must refer to one of the ``kinds``."""
    return {
        "roleRef": part({"apiGroup": one_of(RBAC), "kind": one_of(*kinds), "name": needed()}),
        "subjects": each({"name": needed(), "": partial(_subject, namespaced=namespaced)}),
    }


# Tables of rules. The fields are in the order in which the API server reports errors.
_NAMES: dict[str, FieldRule] = {
    "Namespace": label_name,
    "Event": no_longer_than(253),
    **dict.fromkeys(("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"), _path_segment),
}
_METADATA: Rules = {"labels": _labels, "annotations": _annotations}
_WORKLOAD: Rules = {"replicas": not_negative, "minReadySeconds": not_negative}
_DEPLOYMENT: Rules = {"revisionHistoryLimit": not_negative, "progressDeadlineSeconds": not_negative}
_ROLLING_UPDATE: Rules = {"maxUnavailable": _count_or_percent, "maxSurge": _count_or_percent}
_SERVICE: Rules = {"type": one_of("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")}
_SERVICE_PORT: Rules = {
    "": lambda path, port: PORT_NUMBER(f"{path}.port", port.get("port", 0)),
    "protocol": one_of("SCTP", "TCP", "UDP"),
}
_WEBHOOK: Rules = {
    "admissionReviewVersions": needed(_review_versions, "must specify one of v1, v1beta1"),
    "sideEffects": needed(one_of("None", "NoneOnDryRun"), "must specify one of None, NoneOnDryRun"),
    "clientConfig": _client_config,
    "timeoutSeconds": between(1, 30, "the timeout value must be between 1 and 30 seconds"),
    "failurePolicy": one_of("Fail", "Ignore"),
    "matchConditions": match_conditions.validate,
}
_RESOURCE_RULE: Rules = {
    "apiGroups": needed(more="resource rules must supply at least one api group"),
    "resources": needed(more="resource rules must supply at least one resource"),
}
_KINDS: dict[str, Rules] = {
    "ConfigMap": {"": _config_map},
    "Secret": {"": _secret},
    "Service": {"spec": _service_spec},
    "Pod": {"spec": pod_spec},
    "Deployment": {"": _deployment},
    "ReplicaSet": {"": partial(_workload, called="replicaset")},
    "Event": {"": _event},
    "MutatingWebhookConfiguration": {"webhooks": each(_WEBHOOK)},
    "Role": _role(namespaced=True),
    "ClusterRole": _role(namespaced=False),
    "RoleBinding": _binding("Role", "ClusterRole", namespaced=True),
    "ClusterRoleBinding": _binding("ClusterRole", namespaced=False),
}
