"""Whether an object may be stored: the causes that an API server gives, in its words and its order."""

import re
from collections.abc import Callable, Iterable

from labkit.emulator.kubernetes.api import rbac_validation, services
from labkit.emulator.kubernetes.api.kinds import Kind
from labkit.emulator.kubernetes.api.selectors import object_selector
from labkit.emulator.kubernetes.api.spec_difference import difference
from labkit.emulator.kubernetes.api.status import (
    Cause,
    duplicate,
    forbidden_field,
    invalid,
    invalid_value,
    quote,
    required,
    unsupported,
)

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    f" an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')"
)
SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    f" end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{SUBDOMAIN}')"
)
KEY_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric"
    f" character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{QUALIFIED}')"
)
VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
CONFIG_KEY = r"[-._a-zA-Z0-9]+"
CONFIG_KEY_TEXT = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME', "
    f" or 'key-name', regex used for validation is '{CONFIG_KEY}')"
)
CONFIG_LIMIT = 1024 * 1024
LABEL_NAMED = {"Namespace"}
ANY_NAME = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
ENVIRONMENT_TEXT = "a valid environment variable name must consist only of printable ASCII characters other than '='"
POD_UPDATE_TEXT = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def validate(kind: Kind, obj: dict) -> None:
    """Raises Invalid with every cause."""
    causes = _metadata(kind, obj["metadata"])
    if check := _CHECKS.get(kind.kind):
        causes += check(obj)
    if causes:
        raise invalid(kind.kind, kind.group, obj["metadata"].get("name", ""), causes)


def validate_update(kind: Kind, new: dict, old: dict) -> None:
    """Raises Invalid where a change is not allowed."""
    validate(kind, new)
    causes = _pod_update(new, old) if kind.kind == "Pod" else []
    if kind.kind in ("ConfigMap", "Secret") and old.get("immutable"):
        causes += [
            forbidden_field(field, "field is immutable when `immutable` is set")
            for field in ("data", "binaryData", "immutable")
            if new.get(field) != old.get(field)
        ]
    if kind.kind in ("RoleBinding", "ClusterRoleBinding") and new.get("roleRef") != old.get("roleRef"):
        causes.append(invalid_value("roleRef", new["roleRef"], "cannot change roleRef"))
    if kind.kind in ("Deployment", "ReplicaSet") and new["spec"]["selector"] != old["spec"]["selector"]:
        causes.append(invalid_value("spec.selector", new["spec"]["selector"], "field is immutable"))
    if kind is services.SERVICE:
        causes += services.validate_update(new, old)
    if kind.kind == "Secret" and new.get("type") != old.get("type"):
        causes.append(invalid_value("type", new.get("type", ""), "field is immutable"))
    if causes:
        raise invalid(kind.kind, kind.group, new["metadata"]["name"], causes)


def label_name(field: str, value: str) -> list[Cause]:
    if len(value) > 63:
        return [_too_long(field, value, 63)]
    return [] if re.fullmatch(LABEL, value) else [invalid_value(field, value, LABEL_TEXT)]


def _too_long(field: str, value: str, limit: int) -> Cause:
    return Cause(field, f'Invalid value: "{value}": must be no more than {limit} bytes')


def _metadata(kind: Kind, metadata: dict) -> list[Cause]:
    name, causes = metadata.get("name", ""), []
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    elif kind.kind in ANY_NAME:
        if "/" in name or "%" in name or name in (".", ".."):
            causes.append(invalid_value("metadata.name", name, "may not contain '/'"))
    elif kind.kind in LABEL_NAMED:
        causes += label_name("metadata.name", name)
    elif len(name) > 253:
        causes.append(_too_long("metadata.name", name, 253))
    elif not re.fullmatch(SUBDOMAIN, name) and kind.kind != "Event":
        causes.append(invalid_value("metadata.name", name, SUBDOMAIN_TEXT))
    causes += _labels(metadata, "metadata") + _annotations(metadata, "metadata")
    return causes + _owners(metadata.get("ownerReferences") or ())


def _owners(references: Iterable[dict]) -> list[Cause]:
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
        found = f'Found "true" in references for {first} and {second}'
        more = f"Only one reference can have Controller set to true. {found}"
        causes.append(Cause(field, f"Invalid value: {quote(list(references))}: {more}"))
    return causes


def _labels(metadata: dict, path: str) -> list[Cause]:
    causes, field = [], f"{path}.labels"
    for key, value in (metadata.get("labels") or {}).items():
        causes += _key(field, key)
        if len(value) > 63:
            causes.append(_too_long(field, value, 63))
        elif value and not re.fullmatch(QUALIFIED, value):
            causes.append(invalid_value(field, value, VALUE_TEXT))
    return causes


def _annotations(metadata: dict, path: str) -> list[Cause]:
    causes, field = [], f"{path}.annotations"
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        causes += _key(field, key.lower())
    if sum(len(key) + len(value) for key, value in annotations.items()) > 256 * 1024:
        causes.append(Cause(field, "Too long: may not be more than 262144 bytes", "FieldValueTooLong"))
    return causes


def _key(field: str, key: str) -> list[Cause]:
    prefix, slash, name = key.rpartition("/")
    if slash and not re.fullmatch(SUBDOMAIN, prefix):
        return [invalid_value(field, key, f"prefix part {SUBDOMAIN_TEXT}")]
    if not name:
        return [invalid_value(field, key, "name part must be non-empty")]
    if len(name) > 63:
        return [invalid_value(field, key, "name part must be no more than 63 bytes")]
    return [] if re.fullmatch(QUALIFIED, name) else [invalid_value(field, key, KEY_TEXT)]


def _config_map(config_map: dict) -> list[Cause]:
    texts, binaries = config_map.get("data") or {}, config_map.get("binaryData") or {}
    causes = []
    for key in sorted(texts):
        causes += _config_key(f"data[{key}]", key)
        if key in binaries:
            causes.append(invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData"))
    for key in sorted(binaries):
        causes += _config_key(f"binaryData[{key}]", key)
    size = sum(len(text.encode()) for text in texts.values()) + sum(map(_decoded_size, binaries.values()))
    return causes + ([_too_large("[]")] if size > CONFIG_LIMIT else [])


def _secret(secret: dict) -> list[Cause]:
    data = secret.get("data") or {}
    causes = [cause for key in sorted(data) for cause in _config_key(f"data[{key}]", key)]
    return causes + ([_too_large("data")] if sum(map(_decoded_size, data.values())) > CONFIG_LIMIT else [])


def _config_key(field: str, key: str) -> list[Cause]:
    """https://kubernetes.io/docs/concepts/configuration/configmap/#configmap-object"""
    causes = []
    if len(key) > 253:
        causes.append(_too_long(field, key, 253))
    if not re.fullmatch(CONFIG_KEY, key):
        causes.append(invalid_value(field, key, CONFIG_KEY_TEXT))
    if key in (".", ".."):
        causes.append(invalid_value(field, key, f"must not be '{key}'"))
    elif key.startswith(".."):
        causes.append(invalid_value(field, key, "must not start with '..'"))
    return causes


def _decoded_size(text: str | None) -> int:
    return len(text.rstrip("=")) * 3 // 4 if text else 0


def _too_large(field: str) -> Cause:
    return Cause(field, f"Too long: may not be more than {CONFIG_LIMIT} bytes", "FieldValueTooLong")


def _pod(pod: dict) -> list[Cause]:
    return pod_spec(pod["spec"], "spec")


def pod_spec(spec: dict, path: str) -> list[Cause]:
    """What is wrong with a pod's spec; ``path`` is where it stands in the object."""
    causes: list[Cause] = []
    volumes: set[str] = set()
    for i, volume in enumerate(spec.get("volumes") or ()):
        causes += _volume(volume, f"{path}.volumes[{i}]", volumes)
    names: set[str] = set()
    if not spec.get("containers"):
        causes.append(required(f"{path}.containers"))
    for lists in ("containers", "initContainers"):
        for i, container in enumerate(spec.get(lists) or ()):
            causes += _container(container, f"{path}.{lists}[{i}]", names, volumes)
    if spec["restartPolicy"] not in (choices := ("Always", "OnFailure", "Never")):
        causes.append(unsupported(f"{path}.restartPolicy", spec["restartPolicy"], choices))
    if spec["dnsPolicy"] not in (choices := ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")):
        causes.append(unsupported(f"{path}.dnsPolicy", spec["dnsPolicy"], sorted(choices)))
    if (account := spec.get("serviceAccountName")) and not re.fullmatch(SUBDOMAIN, account):
        causes.append(invalid_value(f"{path}.serviceAccountName", account, SUBDOMAIN_TEXT))
    if spec["terminationGracePeriodSeconds"] < 0:
        field = f"{path}.terminationGracePeriodSeconds"
        causes.append(invalid_value(field, spec["terminationGracePeriodSeconds"], "must be greater than or equal to 0"))
    return causes


def _volume(volume: dict, path: str, names: set[str]) -> list[Cause]:
    name = volume.get("name", "")
    if not name:
        causes = [required(f"{path}.name")]
    elif name in names:
        causes = [duplicate(f"{path}.name", name)]
    else:
        causes = label_name(f"{path}.name", name)
    names.add(name)
    for i, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
        token, field = source.get("serviceAccountToken"), f"{path}.projected.sources[{i}].serviceAccountToken"
        if not token:
            continue
        seconds = token["expirationSeconds"]
        if seconds < 600:
            more = "may not specify a duration less than 10 minutes"
            causes.append(invalid_value(f"{field}.expirationSeconds", seconds, more))
        elif seconds > 1 << 32:
            more = "may not specify a duration larger than 2^32 seconds"
            causes.append(invalid_value(f"{field}.expirationSeconds", seconds, more))
        if not token.get("path"):
            causes.append(required(f"{field}.path"))
    return causes


def _container(container: dict, path: str, names: set[str], volumes: set[str]) -> list[Cause]:
    name, causes = container.get("name", ""), []
    if not name:
        causes.append(required(f"{path}.name"))
    elif name in names:
        causes.append(duplicate(f"{path}.name", name))
    else:
        causes += label_name(f"{path}.name", name)
    names.add(name)
    if not container.get("image"):
        causes.append(required(f"{path}.image"))
    for i, variable in enumerate(container.get("env") or ()):
        field = f"{path}.env[{i}].name"
        if not variable.get("name"):
            causes.append(required(field))
        elif not re.fullmatch(r"[ -<>-~]+", variable["name"]):
            causes.append(invalid_value(field, variable["name"], ENVIRONMENT_TEXT))
    mounted: set[str] = set()
    for i, mount in enumerate(container.get("volumeMounts") or ()):
        field = f"{path}.volumeMounts[{i}]"
        if not mount.get("name"):
            causes.append(required(f"{field}.name"))
        elif mount["name"] not in volumes:
            causes.append(Cause(f"{field}.name", f'Not found: "{mount["name"]}"', "FieldValueNotFound"))
        if not mount.get("mountPath"):
            causes.append(required(f"{field}.mountPath"))
        elif mount["mountPath"] in mounted:
            causes.append(invalid_value(f"{field}.mountPath", mount["mountPath"], "must be unique"))
        mounted.add(mount.get("mountPath", ""))
    if container["imagePullPolicy"] not in (choices := ("Always", "IfNotPresent", "Never")):
        causes.append(unsupported(f"{path}.imagePullPolicy", container["imagePullPolicy"], choices))
    return causes


def _pod_update(new: dict, old: dict) -> list[Cause]:
    """https://kubernetes.io/docs/concepts/workloads/pods/#pod-update-and-replacement"""
    new, old = new["spec"], old["spec"]
    for lists in ("containers", "initContainers"):
        if len(new.get(lists) or ()) != len(old.get(lists) or ()):
            return [forbidden_field(f"spec.{lists}", "pod updates may not add or remove containers")]
    causes = _deadline(new.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds"))
    kept = [toleration | {"tolerationSeconds": None} for toleration in new.get("tolerations") or ()]
    if any(toleration | {"tolerationSeconds": None} not in kept for toleration in old.get("tolerations") or ()):
        more = "existing toleration can not be modified except its tolerationSeconds"
        causes.append(forbidden_field("spec.tolerations", more))
    frozen = _frozen(new, old)
    if frozen != old and (lines := difference(old, frozen)):
        causes.append(forbidden_field("spec", f"{POD_UPDATE_TEXT}\n{lines}"))
    return causes


def _deadline(new: int | None, old: int | None) -> list[Cause]:
    field = "spec.activeDeadlineSeconds"
    if new is None and old is not None:
        return [invalid_value(field, None, "must not update from a positive integer to nil value")]
    if new is not None and old is not None and new > old:
        return [invalid_value(field, new, "must be less than or equal to previous value")]
    return []


def _frozen(new: dict, old: dict) -> dict:
    """The new spec with all that an update may change as it was."""
    kept = {key: old[key] for key in ("activeDeadlineSeconds", "tolerations") if key in old}
    frozen = {key: value for key, value in new.items() if key not in ("activeDeadlineSeconds", "tolerations")} | kept
    for lists in ("containers", "initContainers"):
        if lists in new:
            frozen[lists] = [
                {**container, "image": before.get("image", "")}
                for container, before in zip(new[lists], old[lists], strict=True)
            ]
    return frozen


def _deployment(deployment: dict) -> list[Cause]:
    spec = deployment["spec"]
    causes = _workload(deployment, "deployment")
    strategy, path = spec["strategy"], "spec.strategy"
    if strategy["type"] not in (choices := ("Recreate", "RollingUpdate")):
        causes.append(unsupported(f"{path}.type", strategy["type"], choices))
    rolling = strategy.get("rollingUpdate")
    if strategy["type"] == "Recreate" and rolling is not None:
        more = "may not be specified when strategy `type` is 'Recreate'"
        causes.append(forbidden_field(f"{path}.rollingUpdate", more))
    elif rolling is not None:
        unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
        field = f"{path}.rollingUpdate.maxUnavailable"
        causes += _count_or_percent(field, unavailable) + _count_or_percent(f"{path}.rollingUpdate.maxSurge", surge)
        if unavailable in (0, "0%") and surge in (0, "0%"):
            causes.append(invalid_value(field, unavailable, "may not be 0 when `maxSurge` is 0"))
        elif re.fullmatch(r"[0-9]+%", str(unavailable)) and int(unavailable[:-1]) > 100:
            causes.append(invalid_value(field, unavailable, "must not be greater than 100%"))
    causes += _not_negative("spec.revisionHistoryLimit", spec["revisionHistoryLimit"])
    deadline, field = spec["progressDeadlineSeconds"], "spec.progressDeadlineSeconds"
    causes += _not_negative(field, deadline)
    if deadline <= spec.get("minReadySeconds", 0):
        causes.append(invalid_value(field, deadline, "must be greater than minReadySeconds"))
    return causes


def _replica_set(replica_set: dict) -> list[Cause]:
    return _workload(replica_set, "replicaset")


def _workload(obj: dict, called: str) -> list[Cause]:
    """What a Deployment and a ReplicaSet have in common: replicas, selector and the template of their pods."""
    spec, template, path = obj["spec"], obj["spec"]["template"], "spec.template"
    causes = _not_negative("spec.replicas", spec["replicas"])
    causes += _not_negative("spec.minReadySeconds", spec.get("minReadySeconds", 0))
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
        causes.append(
            forbidden_field(
                f"{path}.spec.activeDeadlineSeconds", "activeDeadlineSeconds in ReplicaSet is not Supported"
            )
        )
    return causes


def _selector(selector: dict, path: str) -> list[Cause]:
    causes = []
    for key, value in (selector.get("matchLabels") or {}).items():
        causes += _key(f"{path}.matchLabels", key)
        if value and (len(value) > 63 or not re.fullmatch(QUALIFIED, value)):
            causes.append(invalid_value(f"{path}.matchLabels", value, VALUE_TEXT))
    for i, expression in enumerate(selector.get("matchExpressions") or ()):
        field = f"{path}.matchExpressions[{i}]"
        operator, values = expression.get("operator", ""), expression.get("values")
        if operator in ("In", "NotIn") and not values:
            causes.append(required(f"{field}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist") and values:
            more = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            causes.append(forbidden_field(f"{field}.values", more))
        elif operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            causes.append(invalid_value(f"{field}.operator", operator, "not a valid selector operator"))
        causes += _key(f"{field}.key", expression.get("key", ""))
    return causes


def _count_or_percent(field: str, value: int | str) -> list[Cause]:
    if isinstance(value, int):
        return _not_negative(field, value)
    if re.fullmatch(r"[0-9]+%", value):
        return []
    more = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex"
    return [invalid_value(field, value, f"{more} used for validation is '[0-9]+%')")]


def _not_negative(field: str, value: int) -> list[Cause]:
    return [] if value >= 0 else [invalid_value(field, value, "must be greater than or equal to 0")]


def _event(event: dict) -> list[Cause]:
    involved, own = event.get("involvedObject", {}).get("namespace", ""), event["metadata"].get("namespace", "")
    if involved != own and not (not involved and own == "default"):
        return [invalid_value("involvedObject.namespace", involved, "does not match event.namespace")]
    return []


def _webhooks(configuration: dict) -> list[Cause]:
    causes = []
    for i, webhook in enumerate(configuration.get("webhooks") or ()):
        path = f"webhooks[{i}]"
        versions = webhook.get("admissionReviewVersions") or []
        if not versions:
            causes.append(required(f"{path}.admissionReviewVersions", "must specify one of v1, v1beta1"))
        elif not {"v1", "v1beta1"} & set(versions):
            field = f"{path}.admissionReviewVersions"
            causes.append(invalid_value(field, versions, "must include at least one of v1, v1beta1"))
        if (effects := webhook.get("sideEffects")) not in (choices := ("None", "NoneOnDryRun")):
            field = f"{path}.sideEffects"
            more = "must specify one of None, NoneOnDryRun"
            causes.append(unsupported(field, effects, choices) if effects else required(field, more))
        url = (webhook.get("clientConfig") or {}).get("url", "")
        scheme = url.partition("://")[0]
        if url and scheme != "https":
            more = "'https' is the only allowed URL scheme; desired format: https://host[/path]"
            causes.append(invalid_value(f"{path}.clientConfig.url", scheme, more))
        if not 1 <= webhook["timeoutSeconds"] <= 30:
            more = "the timeout value must be between 1 and 30 seconds"
            causes.append(invalid_value(f"{path}.timeoutSeconds", webhook["timeoutSeconds"], more))
        if webhook["failurePolicy"] not in (choices := ("Fail", "Ignore")):
            causes.append(unsupported(f"{path}.failurePolicy", webhook["failurePolicy"], choices))
    return causes


_CHECKS: dict[str, Callable[[dict], list[Cause]]] = {
    "ConfigMap": _config_map,
    "Secret": _secret,
    "Service": services.validate,
    "Pod": _pod,
    "Deployment": _deployment,
    "ReplicaSet": _replica_set,
    "Event": _event,
    "MutatingWebhookConfiguration": _webhooks,
    "Role": rbac_validation.role,
    "ClusterRole": rbac_validation.cluster_role,
    "RoleBinding": rbac_validation.role_binding,
    "ClusterRoleBinding": rbac_validation.cluster_role_binding,
}
