"""Validate pods, and changes of pods. The errors are in an API server's words and order.

https://github.com/kubernetes/kubernetes/blob/v1.36.0/pkg/apis/core/validation/validation.go
"""

import re
from collections.abc import Iterable

from labkit.simulator.kubernetes.access.tokens import token_duration
from labkit.simulator.kubernetes.api.field_rules import (
    FieldRule,
    between,
    errors,
    items,
    matching,
    needed,
    not_negative,
    one_of,
    optional,
)
from labkit.simulator.kubernetes.api.name_validation import (
    SUBDOMAIN,
    SUBDOMAIN_TEXT,
    config_key,
    label_key,
    label_name,
    subdomain_name,
)
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
HEADER_TEXT = (
    "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for"
    f" validation is '{HEADER}')"
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
HANDLERS = {"Probe": ("exec", "httpGet", "tcpSocket", "grpc"), "Lifecycle": ("exec", "httpGet", "tcpSocket", "sleep")}
POD_UPDATE_TEXT = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def pod_spec(spec: Object, path: str) -> list[StatusCause]:
    """Return the errors in a pod's spec. ``path`` is the spec's path in the object, e.g. ``spec.template.spec``."""
    causes: list[StatusCause] = []
    volumes: set[str] = set()
    for where, volume in items(spec, path, "volumes"):
        causes += _volume(volume, where, volumes)
    return causes + _containers(spec, path, volumes) + errors(spec, path, _SPEC)


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


def _volume(volume: Object, path: str, names: set[str]) -> list[StatusCause]:
    name = volume.get("name", "")
    if not name:
        causes = [required(f"{path}.name")]
    elif name in names:
        causes = [duplicate(f"{path}.name", name)]
    else:
        causes = label_name(f"{path}.name", name)
    names.add(name)
    if (host := volume.get("hostPath")) is not None:
        causes += errors(host, f"{path}.hostPath", _HOST_PATH)
    return causes + _projected(volume.get("projected") or {}, f"{path}.projected") + errors(volume, path, _FILES)


def _projected(projected: Object, path: str) -> list[StatusCause]:
    causes = []
    for where, source in items(projected, path, "sources"):
        causes += errors(source, where, _FILES)
        if token := source.get("serviceAccountToken"):
            causes += token_duration(f"{where}.serviceAccountToken.expirationSeconds", token["expirationSeconds"])
            # A real server, too, names the path of the whole volume here, not of the source.
            causes += errors(token, path, _FILE)
    return causes


def _keys_to_paths(path: str, source: Object | None) -> list[StatusCause]:
    return [cause for where, item in items(source or {}, path, "items") for cause in errors(item, where, _KEY_TO_PATH)]


def _downward(path: str, source: Object | None) -> list[StatusCause]:
    entries = (source or {}).get("items") or ()
    return [cause for item in entries for cause in errors(item, path, _FILE)]


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
    containers = spec.get("containers") or ()
    causes = [] if containers else [required(f"{path}.containers")]
    names: set[str] = set()
    for where, container in items(spec, path, "containers"):
        causes += _container(container, where, volumes) + _duplicate_name(container, where, names)
        causes += _life(container, where, spec["terminationGracePeriodSeconds"]) + errors(container, where, _RESTART)
    causes += _host_ports(containers, f"{path}.containers")
    for where, container in items(spec, path, "initContainers"):
        causes += _container(container, where, volumes) + errors(container, where, _RESTART)
        causes += _duplicate_name(container, where, names) + _host_ports([container], f"{path}.initContainers")
        if container.get("restartPolicy") == "Always":
            causes += _life(container, where, spec["terminationGracePeriodSeconds"])
            continue
        for key in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
            if key in container:
                more = "may not be set for init containers without restartPolicy=Always"
                causes.append(forbidden_field(f"{where}.{key}", more))
    return causes


def _container(container: Object, path: str, volumes: set[str]) -> list[StatusCause]:
    causes = errors(container, path, _CONTAINER)
    causes += _ports(container, path) + _environment(container, path) + _environment_from(container, path)
    causes += _mounts(container, path, volumes) + errors(container, path, _PULL)
    causes += _resources(container["resources"], f"{path}.resources")
    return causes + _security_context(container.get("securityContext") or {}, f"{path}.securityContext")


def _duplicate_name(container: Object, path: str, names: set[str]) -> list[StatusCause]:
    name = container.get("name", "")
    known = bool(name) and name in names
    names.add(name)
    return [duplicate(f"{path}.name", name)] if known else []


def _ports(container: Object, path: str) -> list[StatusCause]:
    causes, names = [], set()
    for field, port in items(container, path, "ports"):
        name = port.get("name", "")
        wrong = _port_name(f"{field}.name", name) if name else []
        if name in names:
            causes.append(duplicate(f"{field}.name", name))
        elif name and not wrong:
            names.add(name)
        causes += wrong + errors(port, field, _PORT)
    return causes


def _host_ports(containers: Iterable[Object], path: str) -> list[StatusCause]:
    causes, taken = [], set()
    for i, container in enumerate(containers):
        for j, port in enumerate(container.get("ports") or ()):
            if not port.get("hostPort"):
                continue
            host_port = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{port['hostPort']}"
            if host_port in taken:
                causes.append(duplicate(f"{path}[{i}].ports[{j}].hostPort", host_port))
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


def _port(field: str, port: int | str | None) -> list[StatusCause]:
    return _port_name(field, port) if isinstance(port, str) else PORT_NUMBER(field, port or 0)


def _environment(container: Object, path: str) -> list[StatusCause]:
    causes = []
    for field, variable in items(container, path, "env"):
        causes += errors(variable, field, _VARIABLE)
        if (source := variable.get("valueFrom")) is not None:
            causes += _value_from(source, variable.get("value", ""), f"{field}.valueFrom")
    return causes


def _value_from(source: Object, value: str, path: str) -> list[StatusCause]:
    causes = []
    if "fieldRef" in source:
        causes += _field_reference(source["fieldRef"], f"{path}.fieldRef")
    if "resourceFieldRef" in source:
        causes += errors(source["resourceFieldRef"], f"{path}.resourceFieldRef", _RESOURCE)
    for key in ("configMapKeyRef", "secretKeyRef"):
        if key in source:
            causes += subdomain_name(f"{path}.{key}.name", source[key].get("name", ""))
            causes += errors(source[key], f"{path}.{key}", _KEY)
    if not source:
        more = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        causes.append(invalid_value(path, "", more))
    elif value:
        causes.append(invalid_value(path, "", "may not be specified when `value` is not empty"))
    elif len(source) > 1:
        causes.append(invalid_value(path, "", "may not have more than one field specified at a time"))
    return causes


def _field_reference(reference: Object, path: str) -> list[StatusCause]:
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


def _environment_from(container: Object, path: str) -> list[StatusCause]:
    causes = []
    for where, source in items(container, path, "envFrom"):
        causes += errors(source, where, _VARIABLES)
        kinds = [key for key in ("configMapRef", "secretRef") if key in source]
        for key in kinds:
            causes += errors(source[key], f"{where}.{key}", _NAME)
        if not kinds:
            causes.append(invalid_value(f"{path}.envFrom", "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(kinds) > 1:
            causes.append(invalid_value(f"{path}.envFrom", "", "may not have more than one field specified at a time"))
    return causes


def _mounts(container: Object, path: str, volumes: set[str]) -> list[StatusCause]:
    causes: list[StatusCause] = []
    mounted: set[str] = set()
    for field, mount in items(container, path, "volumeMounts"):
        if not mount.get("name"):
            causes.append(required(f"{field}.name"))
        elif mount["name"] not in volumes:
            causes.append(StatusCause(f"{field}.name", f'Not found: "{mount["name"]}"', "FieldValueNotFound"))
        if not mount.get("mountPath"):
            causes.append(required(f"{field}.mountPath"))
        elif mount["mountPath"] in mounted:
            causes.append(invalid_value(f"{field}.mountPath", mount["mountPath"], "must be unique"))
        mounted.add(mount.get("mountPath", ""))
        part, expression = mount.get("subPath", ""), mount.get("subPathExpr", "")
        if part and expression:
            more = "subPathExpr and subPath are mutually exclusive"
            causes.append(invalid_value(f"{field}.subPathExpr", expression, more))
        # A real server, too, leaves out the mount's index here.
        causes += _descending(f"{path}.volumeMounts.subPath", part)
        causes += _descending(f"{path}.volumeMounts.subPathExpr", expression)
    return causes


def _resources(resources: Object, path: str) -> list[StatusCause]:
    """https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/"""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    causes = _amounts(limits, f"{path}.limits") + _amounts(requests, f"{path}.requests")
    for name, requested in requests.items():
        if name in limits and quantity(requested) > quantity(limits[name]):
            more = f"must be less than or equal to {name} limit of {limits[name]}"
            causes.append(invalid_value(f"{path}.requests", requested, more))
    return causes


def _amounts(amounts: dict[str, str], path: str) -> list[StatusCause]:
    return [
        invalid_value(f"{path}[{name}]", amount, "must be greater than or equal to 0")
        for name, amount in amounts.items()
        if quantity(amount) < 0
    ]


def _security_context(context: Object, path: str) -> list[StatusCause]:
    causes = []
    if context.get("allowPrivilegeEscalation") is False:
        added = (context.get("capabilities") or {}).get("add") or ()
        why = ["`privileged` to true"] if context.get("privileged") else []
        why += ["`capabilities.Add` CAP_SYS_ADMIN"] * list(added).count("CAP_SYS_ADMIN")
        value = internal("SecurityContext", context)
        texts = [f"cannot set `allowPrivilegeEscalation` to false and {text}" for text in why]
        causes += [invalid_value(path, value, text) for text in texts]
    return causes


def _life(container: Object, path: str, grace: int) -> list[StatusCause]:
    """Return the errors in a container's hooks and probes."""
    causes = []
    for hook in ("postStart", "preStop"):
        handler = (container.get("lifecycle") or {}).get(hook)
        if handler is not None:
            causes += _handler(handler, f"{path}.lifecycle.{hook}", HANDLERS["Lifecycle"], grace)
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        if (probe := container.get(kind)) is not None:
            causes += _probe(probe, kind, f"{path}.{kind}", grace)
    return causes


def _probe(probe: Object, kind: str, path: str, grace: int) -> list[StatusCause]:
    causes = _handler(probe, path, HANDLERS["Probe"], grace) + errors(probe, path, _PROBE)
    seconds, field = probe.get("terminationGracePeriodSeconds"), f"{path}.terminationGracePeriodSeconds"
    if seconds is not None and seconds <= 0:
        causes.append(invalid_value(field, seconds, "must be greater than 0"))
    if kind == "readinessProbe":
        if seconds is not None:
            causes.append(invalid_value(field, seconds, "must not be set for readinessProbes"))
    elif (times := probe.get("successThreshold") or 1) != 1:
        causes.append(invalid_value(f"{path}.successThreshold", times, "must be 1"))
    return causes


def _handler(handler: Object, path: str, kinds: tuple[str, ...], grace: int) -> list[StatusCause]:
    given = [kind for kind in kinds if kind in handler]
    if not given:
        return [required(path, "must specify a handler type")]
    action, field = handler[given[0]], f"{path}.{given[0]}"
    causes = []
    match given[0]:
        case "exec":
            causes += errors(action, field, _EXEC)
        case "httpGet":
            causes += _http_get(action, field)
        case "sleep":
            if not 0 <= (seconds := action.get("seconds", 0)) <= grace:
                more = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                causes.append(invalid_value(field, seconds, more))
        case _:
            causes += errors(action, field, _SOCKET)
    return causes + [
        forbidden_field(f"{path}.{kind}", "may not specify more than 1 handler type") for kind in given[1:]
    ]


def _http_get(action: Object, path: str) -> list[StatusCause]:
    causes = errors(action, path, _HTTP_GET)
    for header in action.get("httpHeaders") or ():
        if not re.fullmatch(HEADER, name := header.get("name", "")):
            causes.append(invalid_value(f"{path}.httpHeaders", name, HEADER_TEXT))
    return causes


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


# The rules that need only the field's own value, in the order in which the API server reports errors.
_SPEC: dict[str, FieldRule] = {
    "restartPolicy": one_of("Always", "OnFailure", "Never"),
    "dnsPolicy": one_of("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "serviceAccountName": optional(matching(SUBDOMAIN, SUBDOMAIN_TEXT)),
    "terminationGracePeriodSeconds": not_negative,
}
_FILES: dict[str, FieldRule] = {"secret": _keys_to_paths, "configMap": _keys_to_paths, "downwardAPI": _downward}
_HOST_PATH: dict[str, FieldRule] = {"path": needed(_without_steps_back)}
_FILE: dict[str, FieldRule] = {"path": needed(_volume_path)}
_KEY_TO_PATH: dict[str, FieldRule] = {"key": needed(), "path": needed(_volume_path)}
_CONTAINER: dict[str, FieldRule] = {
    "name": needed(label_name),
    "image": needed(),
    "terminationMessagePolicy": needed(one_of("File", "FallbackToLogsOnError")),
}
_PULL: dict[str, FieldRule] = {"imagePullPolicy": needed(one_of("Always", "IfNotPresent", "Never"))}
# https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-restart-rules
_RESTART: dict[str, FieldRule] = {"restartPolicy": one_of("Always", "Never", "OnFailure")}
_PORT: dict[str, FieldRule] = {
    "containerPort": needed(PORT_NUMBER),
    "hostPort": optional(PORT_NUMBER),
    "protocol": needed(one_of("SCTP", "TCP", "UDP")),
}
_VARIABLE: dict[str, FieldRule] = {"name": needed(ENVIRONMENT_NAME)}
_KEY: dict[str, FieldRule] = {"key": needed(config_key)}
_RESOURCE: dict[str, FieldRule] = {"resource": needed(_resource)}
_VARIABLES: dict[str, FieldRule] = {"prefix": optional(ENVIRONMENT_NAME)}
_NAME: dict[str, FieldRule] = {"name": needed(subdomain_name)}
_EXEC: dict[str, FieldRule] = {"command": needed()}
_SOCKET: dict[str, FieldRule] = {"port": _port}
_PROBE: dict[str, FieldRule] = dict.fromkeys(
    ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"), not_negative
)
_HTTP_GET: dict[str, FieldRule] = {"path": needed(), "port": _port, "scheme": one_of("HTTP", "HTTPS")}
