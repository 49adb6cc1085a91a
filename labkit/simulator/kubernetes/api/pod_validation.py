"""Validate pods, and changes of pods. The errors are in an API server's words and order.

https://github.com/kubernetes/kubernetes/blob/v1.36.0/pkg/apis/core/validation/validation.go
"""

import re
from collections.abc import Iterable

from labkit.simulator.kubernetes.access.tokens import token_duration
from labkit.simulator.kubernetes.api.field_rules import (
    Rules,
    between,
    each,
    errors,
    matching,
    needed,
    not_negative,
    numbered,
    one_of,
    optional,
    part,
)
from labkit.simulator.kubernetes.api.name_validation import config_key, label_key, label_name, subdomain_name
from labkit.simulator.kubernetes.api.spec_difference import difference, internal
from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.kubernetes.objects.quantities import quantity
from labkit.simulator.kubernetes.objects.status import (
    StatusCause,
    duplicate,
    forbidden_field,
    invalid_value,
    required,
    unsupported,
)

ENVIRONMENT_TEXT = "a valid environment variable name must consist only of printable ASCII characters other than '='"
ENVIRONMENT_NAME = matching("[ -<>-~]+", ENVIRONMENT_TEXT)
PORT_NUMBER = between(1, 65535, "must be between 1 and 65535, inclusive")
HEADER = r"[-A-Za-z0-9]+"
HEADER_NAME = matching(
    HEADER,
    "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for"
    f" validation is '{HEADER}')",
)
ENVIRONMENT_FIELDS = (
    *("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName"),
    *("status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"),
)
# Fields that exist, but that an environment variable can't refer to.
OTHER_FIELDS = ("metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase")
RESOURCES = tuple(
    f"{kind}.{name}" for kind in ("limits", "requests") for name in ("cpu", "ephemeral-storage", "memory")
)
OF_PROBES, OF_HOOKS = ("exec", "httpGet", "tcpSocket", "grpc"), ("exec", "httpGet", "tcpSocket", "sleep")
NOT_FOR_INIT = "may not be set for init containers without restartPolicy=Always"
ONE_SOURCE = "may not have more than one field specified at a time"
POD_UPDATE_TEXT = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def pod_spec(path: str, spec: Object) -> list[StatusCause]:
    """Return the errors in a pod's spec. ``path`` is the spec's path in the object, e.g. ``spec.template.spec``."""
    volumes = spec.get("volumes") or ()
    names = {volume.get("name", "") for volume in volumes}
    return _volumes(f"{path}.volumes", volumes) + _containers(spec, path, names) + errors(spec, path, _SPEC)


def pod_update(new: Object, old: Object) -> list[StatusCause]:
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


def _volumes(field: str, volumes: Iterable[Object]) -> list[StatusCause]:
    causes: list[StatusCause] = []
    names: set[str] = set()
    for path, volume in numbered(field, volumes):
        causes += repeated_name(path, volume, names) or errors(volume, path, {"name": needed(label_name)})
        causes += errors(volume, path, _VOLUME)
    return causes


def repeated_name(path: str, item: Object, names: set[str]) -> list[StatusCause]:
    """Return the error that the item's name is already in ``names``. If it isn't, add it."""
    name = item.get("name", "")
    if name and name in names:
        return [duplicate(f"{path}.name", name)]
    names.add(name)
    return []


def _downward(path: str, source: Object) -> list[StatusCause]:
    return [cause for item in source.get("items") or () for cause in errors(item, path, _FILE)]


def _token(path: str, token: Object) -> list[StatusCause]:
    causes = token_duration(f"{path}.expirationSeconds", token["expirationSeconds"])
    # A real server, too, names the path of the whole volume here, not of the source.
    return causes + errors(token, path.rpartition(".sources[")[0], _FILE)


def _volume_path(field: str, path: str) -> list[StatusCause]:
    """Return the errors in a file's path in a volume."""
    # The kubelet's own names in a volume start with `..`.
    reserved = path.startswith("..") and not path.startswith("../")
    return _descending(field, path) + ([invalid_value(field, path, "must not start with '..'")] if reserved else [])


def _descending(field: str, path: str) -> list[StatusCause]:
    causes = [invalid_value(field, path, "must be a relative path")] if path.startswith("/") else []
    return causes + _without_steps_back(field, path)


def _without_steps_back(field: str, path: str) -> list[StatusCause]:
    return [invalid_value(field, path, "must not contain '..'")] if ".." in path.split("/") else []


def _containers(spec: Object, path: str, volumes: set[str]) -> list[StatusCause]:
    containers, grace = spec.get("containers") or (), spec["terminationGracePeriodSeconds"]
    causes = [] if containers else [required(f"{path}.containers")]
    names: set[str] = set()
    for where, container in numbered(f"{path}.containers", containers):
        causes += _container(container, where, volumes) + repeated_name(where, container, names)
        causes += _life(container, where, grace) + errors(container, where, _RESTART)
    causes += _host_ports(containers, f"{path}.containers")
    for where, container in numbered(f"{path}.initContainers", spec.get("initContainers") or ()):
        causes += _container(container, where, volumes) + errors(container, where, _RESTART)
        causes += repeated_name(where, container, names) + _host_ports([container], f"{path}.initContainers")
        if container.get("restartPolicy") == "Always":
            causes += _life(container, where, grace)
        else:
            unsuitable = [key for key in ("lifecycle", *_PROBES) if key in container]
            causes += [forbidden_field(f"{where}.{key}", NOT_FOR_INIT) for key in unsuitable]
    return causes


def _container(container: Object, path: str, volumes: set[str]) -> list[StatusCause]:
    causes = errors(container, path, _CONTAINER) + _mounts(container, path, volumes)
    return causes + errors(container, path, _AFTER_MOUNTS)


def _ports(field: str, ports: Iterable[Object]) -> list[StatusCause]:
    causes, names = [], set()
    for path, port in numbered(field, ports):
        name = port.get("name", "")
        wrong = _port_name(f"{path}.name", name) if name else []
        if name in names:
            causes.append(duplicate(f"{path}.name", name))
        elif name and not wrong:
            names.add(name)
        causes += wrong + errors(port, path, _PORT)
    return causes


def _host_ports(containers: Iterable[Object], path: str) -> list[StatusCause]:
    causes, taken = [], set()
    for where, container in numbered(path, containers):
        for field, port in numbered(f"{where}.ports", container.get("ports") or ()):
            if not port.get("hostPort"):
                continue
            host_port = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{port['hostPort']}"
            if host_port in taken:
                causes.append(duplicate(f"{field}.hostPort", host_port))
            taken.add(host_port)
    return causes


def _port_name(field: str, name: str) -> list[StatusCause]:
    wrong = {
        "must be no more than 15 bytes": len(name) > 15,
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)": not re.fullmatch("[-a-z0-9]+", name),
        "must contain at least one letter (a-z)": not re.search("[a-z]", name),
        "must not contain consecutive hyphens": "--" in name,
        "must not begin or end with a hyphen": name.startswith("-") or name.endswith("-"),
    }
    return [invalid_value(field, name, text) for text, is_so in wrong.items() if is_so]


def _port(path: str, action: Object) -> list[StatusCause]:
    """Return the errors in the port of a probe's or a hook's action."""
    field, port = f"{path}.port", action.get("port", 0)
    return _port_name(field, port) if isinstance(port, str) else PORT_NUMBER(field, port)


def _value_from(path: str, variable: Object) -> list[StatusCause]:
    if (source := variable.get("valueFrom")) is None:
        return []
    path = f"{path}.valueFrom"
    causes = errors(source, path, _VALUE_FROM)
    if not source:
        more = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        causes.append(invalid_value(path, "", more))
    elif variable.get("value"):
        causes.append(invalid_value(path, "", "may not be specified when `value` is not empty"))
    elif len(source) > 1:
        causes.append(invalid_value(path, "", ONE_SOURCE))
    return causes


def _field_reference(path: str, reference: Object) -> list[StatusCause]:
    for key in ("apiVersion", "fieldPath"):
        if not reference.get(key):
            return [required(f"{path}.{key}")]
    name, version = reference["fieldPath"], reference["apiVersion"]
    subscripted = re.fullmatch(r"(.+)\['(.*)'\]", name, re.DOTALL)
    if version != "v1":
        why = f"unsupported pod version: {version}"
    elif subscripted and subscripted[1] not in ("metadata.annotations", "metadata.labels"):
        why = f"field label does not support subscript: {name}"
    elif not subscripted and name not in (*ENVIRONMENT_FIELDS, *OTHER_FIELDS, "spec.host"):
        why = f"field label not supported: {name}"
    else:
        why = ""
    if why:
        return [invalid_value(f"{path}.fieldPath", name, f"error converting fieldPath: {why}")]
    if subscripted:
        key = subscripted[2]
        return label_key(path, key.lower() if subscripted[1] == "metadata.annotations" else key)
    return [unsupported(f"{path}.fieldPath", name, ENVIRONMENT_FIELDS)] if name in OTHER_FIELDS else []


def _resource(field: str, resource: str) -> list[StatusCause]:
    if resource in RESOURCES or resource.startswith(("limits.hugepages-", "requests.hugepages-")):
        return []
    return [unsupported(field, resource, RESOURCES)]


def _environment_from(field: str, sources: Iterable[Object]) -> list[StatusCause]:
    causes = []
    for path, source in numbered(field, sources):
        causes += errors(source, path, _VARIABLES)
        if "configMapRef" in source and "secretRef" in source:
            causes.append(invalid_value(field, "", ONE_SOURCE))
        elif "configMapRef" not in source and "secretRef" not in source:
            causes.append(invalid_value(field, "", "must specify one of: `configMapRef` or `secretRef`"))
    return causes


def _mounts(container: Object, path: str, volumes: set[str]) -> list[StatusCause]:
    causes: list[StatusCause] = []
    mounted: set[str] = set()
    for field, mount in numbered(f"{path}.volumeMounts", container.get("volumeMounts") or ()):
        name, target = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            causes.append(required(f"{field}.name"))
        elif name not in volumes:
            causes.append(StatusCause(f"{field}.name", f'Not found: "{name}"', "FieldValueNotFound"))
        if not target:
            causes.append(required(f"{field}.mountPath"))
        elif target in mounted:
            causes.append(invalid_value(f"{field}.mountPath", target, "must be unique"))
        mounted.add(target)
        if mount.get("subPath") and (expression := mount.get("subPathExpr")):
            more = "subPathExpr and subPath are mutually exclusive"
            causes.append(invalid_value(f"{field}.subPathExpr", expression, more))
        # A real server, too, leaves out the mount's index here.
        causes += errors(mount, f"{path}.volumeMounts", _SUB_PATHS)
    return causes


def _resources(path: str, resources: Object) -> list[StatusCause]:
    """https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/"""
    causes = errors(resources, path, _AMOUNTS)
    limits = resources.get("limits") or {}
    for name, requested in (resources.get("requests") or {}).items():
        if name in limits and quantity(requested) > quantity(limits[name]):
            more = f"must be less than or equal to {name} limit of {limits[name]}"
            causes.append(invalid_value(f"{path}.requests", requested, more))
    return causes


def _amounts(path: str, amounts: dict[str, str]) -> list[StatusCause]:
    return [
        invalid_value(f"{path}[{name}]", amount, "must be greater than or equal to 0")
        for name, amount in amounts.items()
        if quantity(amount) < 0
    ]


def _security_context(path: str, context: Object) -> list[StatusCause]:
    if context.get("allowPrivilegeEscalation") is not False:
        return []
    added = (context.get("capabilities") or {}).get("add") or ()
    why = ["`privileged` to true"] if context.get("privileged") else []
    why += ["`capabilities.Add` CAP_SYS_ADMIN"] * list(added).count("CAP_SYS_ADMIN")
    value = internal("SecurityContext", context)
    return [invalid_value(path, value, f"cannot set `allowPrivilegeEscalation` to false and {text}") for text in why]


def _life(container: Object, path: str, grace: int) -> list[StatusCause]:
    """Return the errors in a container's hooks and probes."""
    causes, lifecycle = [], container.get("lifecycle") or {}
    for hook in ("postStart", "preStop"):
        if (handler := lifecycle.get(hook)) is not None:
            causes += _handler(handler, f"{path}.lifecycle.{hook}", OF_HOOKS, grace)
    for kind, rules in _PROBES.items():
        if (probe := container.get(kind)) is not None:
            causes += _handler(probe, f"{path}.{kind}", OF_PROBES, grace) + errors(probe, f"{path}.{kind}", rules)
    return causes


def _handler(handler: Object, path: str, kinds: tuple[str, ...], grace: int) -> list[StatusCause]:
    given = [kind for kind in kinds if kind in handler]
    if not given:
        return [required(path, "must specify a handler type")]
    causes = _ACTIONS[given[0]](f"{path}.{given[0]}", handler[given[0]])
    if given[0] == "sleep" and not 0 <= (seconds := handler["sleep"].get("seconds", 0)) <= grace:
        more = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
        causes.append(invalid_value(f"{path}.sleep", seconds, more))
    more = "may not specify more than 1 handler type"
    return causes + [forbidden_field(f"{path}.{kind}", more) for kind in given[1:]]


def _headers(field: str, headers: Iterable[Object]) -> list[StatusCause]:
    return [cause for header in headers for cause in HEADER_NAME(field, header.get("name", ""))]


def _once(path: str, probe: Object) -> list[StatusCause]:
    times = probe.get("successThreshold") or 1
    return [] if times == 1 else [invalid_value(f"{path}.successThreshold", times, "must be 1")]


def _without_grace(path: str, probe: Object) -> list[StatusCause]:
    field, seconds = f"{path}.terminationGracePeriodSeconds", probe.get("terminationGracePeriodSeconds")
    return [] if seconds is None else [invalid_value(field, seconds, "must not be set for readinessProbes")]


def _deadline(new: int | None, old: int | None) -> list[StatusCause]:
    field = "spec.activeDeadlineSeconds"
    if new is None and old is not None:
        return [invalid_value(field, None, "must not update from a positive integer to nil value")]
    if new is not None and old is not None and new > old:
        return [invalid_value(field, new, "must be less than or equal to previous value")]
    return []


def _frozen(new: Object, old: Object) -> Object:
    """Return a copy of ``new`` without its allowed changes.

    Each field that an update may change has its value from ``old``. Where the copy still differs from ``old``, the
    update is forbidden.
    """
    kept = {key: old[key] for key in ("activeDeadlineSeconds", "tolerations") if key in old}
    frozen = {key: value for key, value in new.items() if key not in ("activeDeadlineSeconds", "tolerations")} | kept
    for lists in ("containers", "initContainers"):
        if lists in new:
            frozen[lists] = [
                {**container, "image": before.get("image", "")}
                for container, before in zip(new[lists], old[lists], strict=True)
            ]
    return frozen


# Tables of rules, by type. The fields are in the order in which the API server reports errors.
_SPEC: Rules = {
    "restartPolicy": one_of("Always", "OnFailure", "Never"),
    "dnsPolicy": one_of("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "serviceAccountName": optional(subdomain_name),
    "terminationGracePeriodSeconds": not_negative,
}
_FILE: Rules = {"path": needed(_volume_path)}
_FILES: Rules = {
    **dict.fromkeys(("secret", "configMap"), part({"items": each({"key": needed(), "path": needed(_volume_path)})})),
    "downwardAPI": _downward,
}
_VOLUME: Rules = {
    "hostPath": part({"path": needed(_without_steps_back)}),
    "projected": part({"sources": each({**_FILES, "serviceAccountToken": _token})}),
    **_FILES,
}
_PORT: Rules = {
    "containerPort": needed(PORT_NUMBER),
    "hostPort": optional(PORT_NUMBER),
    "protocol": needed(one_of("SCTP", "TCP", "UDP")),
}
_NAME: Rules = {"name": needed(subdomain_name)}
_VARIABLES: Rules = {
    "prefix": optional(ENVIRONMENT_NAME),
    **dict.fromkeys(("configMapRef", "secretRef"), part(_NAME)),
}
_KEY: Rules = {"": lambda path, key: subdomain_name(f"{path}.name", key.get("name", "")), "key": needed(config_key)}
_VALUE_FROM: Rules = {
    "fieldRef": _field_reference,
    "resourceFieldRef": part({"resource": needed(_resource)}),
    **dict.fromkeys(("configMapKeyRef", "secretKeyRef"), part(_KEY)),
}
_CONTAINER: Rules = {
    "name": needed(label_name),
    "image": needed(),
    "terminationMessagePolicy": needed(one_of("File", "FallbackToLogsOnError")),
    "ports": _ports,
    "env": each({"name": needed(ENVIRONMENT_NAME), "": _value_from}),
    "envFrom": _environment_from,
}
_SUB_PATHS: Rules = {"subPath": _descending, "subPathExpr": _descending}
_AMOUNTS: Rules = {"limits": _amounts, "requests": _amounts}
_AFTER_MOUNTS: Rules = {
    "imagePullPolicy": needed(one_of("Always", "IfNotPresent", "Never")),
    "resources": _resources,
    "securityContext": _security_context,
}
# https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-restart-rules
_RESTART: Rules = {"restartPolicy": one_of("Always", "Never", "OnFailure")}
_ACTIONS: Rules = {
    "exec": part({"command": needed()}),
    "httpGet": part({"path": needed(), "": _port, "scheme": one_of("HTTP", "HTTPS"), "httpHeaders": _headers}),
    "tcpSocket": part({"": _port}),
    "grpc": part({"": _port}),
    "sleep": part({}),
}
_NUMBERS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
_PROBE: Rules = {
    **dict.fromkeys(_NUMBERS, not_negative),
    "terminationGracePeriodSeconds": between(1, float("inf"), "must be greater than 0"),
}
_PROBES: dict[str, Rules] = {
    "livenessProbe": {**_PROBE, "": _once},
    "readinessProbe": {**_PROBE, "": _without_grace},
    "startupProbe": {**_PROBE, "": _once},
}
