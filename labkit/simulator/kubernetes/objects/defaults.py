"""The defaults that the API server fills in when an object is written."""

import base64
from collections.abc import Callable

from labkit.simulator.kubernetes.objects import services
from labkit.simulator.kubernetes.objects.kinds import Kind, Object


def with_defaults(kind: str, obj: Object) -> Object:
    """Return the object with the defaults of the kind, such as Pod; `obj` itself isn't changed."""
    fill = _DEFAULTS.get(kind)
    return fill(dict(obj)) if fill else obj


def pod_spec(spec: Object) -> Object:
    """https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#PodSpec"""
    spec = dict(spec)
    for lists in ("initContainers", "containers"):
        if lists in spec:
            spec[lists] = [_container(container) for container in spec[lists]]
    if "volumes" in spec:
        spec["volumes"] = [_volume(volume) for volume in spec["volumes"]]
    if spec.get("hostNetwork"):
        spec["containers"] = [
            container | {"ports": [{"hostPort": port.get("containerPort", 0), **port} for port in container["ports"]]}
            if "ports" in container
            else container
            for container in spec.get("containers", ())
        ]
    if account := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    return _filled(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        securityContext={},
        schedulerName="default-scheduler",
        enableServiceLinks=True,
    )


def first_status(kind: Kind, obj: Object) -> Object:
    """Return the object with its first status, whatever status the client sent.

    Only a Pod, a Deployment or a ReplicaSet has a first status. Other objects are returned unchanged.
    """
    match kind.kind:
        case "Pod":
            return {**obj, "status": {"phase": "Pending", "qosClass": quality_of_service(obj["spec"])}}
        case "Deployment":
            return {**obj, "status": {}}
        case "ReplicaSet":
            return {**obj, "status": {"replicas": 0}}
    return obj


def quality_of_service(spec: Object) -> str:
    """https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/"""
    containers = [*spec.get("containers", ()), *spec.get("initContainers", ())]
    resources = [container.get("resources") or {} for container in containers]
    if not any(part.get("requests") or part.get("limits") for part in resources):
        return "BestEffort"
    amounts = [(part.get("limits") or {}, part.get("requests") or part.get("limits") or {}) for part in resources]
    is_guaranteed = all(
        name in limits and requests.get(name) == limits[name]
        for limits, requests in amounts
        for name in ("cpu", "memory")
    )
    return "Guaranteed" if is_guaranteed else "Burstable"


def _filled(obj: Object, **defaults: object) -> Object:
    return obj | {key: value for key, value in defaults.items() if key not in obj}


def _container(container: Object) -> Object:
    image = container.get("image", "")
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    latest = "@" not in image and tag in ("", "latest")
    container = _filled(
        container,
        resources={},
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        imagePullPolicy="Always" if latest else "IfNotPresent",
    )
    if "ports" in container:
        container["ports"] = [{"protocol": "TCP", **port} for port in container["ports"]]
    if "env" in container:
        container["env"] = [
            {**variable, "valueFrom": _with_version(variable["valueFrom"])} if variable.get("valueFrom") else variable
            for variable in container["env"]
        ]
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in container:
            container[probe] = _probe(container[probe])
    requests = container["resources"].get("limits", {}) | container["resources"].get("requests", {})
    if requests and requests != container["resources"].get("requests"):
        container["resources"] = container["resources"] | {"requests": requests}
    return container


def _probe(probe: Object) -> Object:
    probe = _filled(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    if "httpGet" in probe:
        probe["httpGet"] = {"path": "/", "scheme": "HTTP"} | probe["httpGet"]
    return probe


def _volume(volume: Object) -> Object:
    volume = dict(volume)
    for source in ("configMap", "secret", "downwardAPI", "projected"):
        if source in volume:
            volume[source] = _filled(volume[source], defaultMode=0o644)
    if "projected" in volume:
        sources = volume["projected"].get("sources") or []
        volume["projected"]["sources"] = [_projection(source) for source in sources]
    if "downwardAPI" in volume and "items" in volume["downwardAPI"]:
        volume["downwardAPI"]["items"] = [_with_version(item) for item in volume["downwardAPI"]["items"]]
    if "hostPath" in volume:
        volume["hostPath"] = {"type": "", **volume["hostPath"]}
    if set(volume) == {"name"}:
        volume["emptyDir"] = {}
    return volume


def _projection(source: Object) -> Object:
    if token := source.get("serviceAccountToken"):
        return {**source, "serviceAccountToken": {**token, "expirationSeconds": token.get("expirationSeconds", 3600)}}
    if items := (source.get("downwardAPI") or {}).get("items"):
        return {**source, "downwardAPI": {"items": [_with_version(item) for item in items]}}
    return source


def _with_version(source: Object) -> Object:
    """Give a `fieldRef` the default apiVersion."""
    return {**source, "fieldRef": {"apiVersion": "v1", **source["fieldRef"]}} if source.get("fieldRef") else source


def _deployment(deployment: Object) -> Object:
    """https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/deployment-v1/#DeploymentSpec"""
    spec = {
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        **_with_template(deployment.get("spec") or {}),
    }
    strategy = {"type": "RollingUpdate", **(spec.get("strategy") or {})}
    if strategy["type"] == "RollingUpdate":
        at_most = {"maxUnavailable": "25%", "maxSurge": "25%", **(strategy.get("rollingUpdate") or {})}
        strategy["rollingUpdate"] = at_most
    return {**deployment, "spec": {**spec, "strategy": strategy}}


def _replica_set(replica_set: Object) -> Object:
    spec = {"replicas": 1, **_with_template(replica_set.get("spec") or {})}
    labels = (spec["template"].get("metadata") or {}).get("labels")
    metadata = replica_set["metadata"]
    if labels and not metadata.get("labels"):
        metadata = {**metadata, "labels": labels}
    return {**replica_set, "metadata": metadata, "spec": spec}


def _with_template(spec: Object) -> Object:
    template = spec.get("template") or {}
    template = {**template, "metadata": template.get("metadata") or {}, "spec": pod_spec(template.get("spec") or {})}
    return {**spec, "template": template}


def _namespace(namespace: Object) -> Object:
    metadata = namespace["metadata"]
    if metadata.get("name"):
        labels = (metadata.get("labels") or {}) | {"kubernetes.io/metadata.name": metadata["name"]}
        namespace["metadata"] = {**metadata, "labels": labels}
    namespace["spec"] = {"finalizers": ["kubernetes"], **(namespace.get("spec") or {})}
    namespace["status"] = {"phase": "Active", **(namespace.get("status") or {})}
    return namespace


def _secret(secret: Object) -> Object:
    if texts := secret.pop("stringData", None):
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
        secret["data"] = (secret.get("data") or {}) | encoded
    return _filled(secret, type="Opaque")


def _event(event: Object) -> Object:
    times: Object = dict.fromkeys(("firstTimestamp", "lastTimestamp", "eventTime"))
    return _filled(event, source={}, **times, reportingComponent="", reportingInstance="")


def _webhooks(configuration: Object) -> Object:
    configuration["webhooks"] = [
        {
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "namespaceSelector": {},
            "objectSelector": {},
            "timeoutSeconds": 10,
            "reinvocationPolicy": "Never",
            **webhook,
            "rules": [{"scope": "*", **rule} for rule in webhook.get("rules") or ()],
        }
        for webhook in configuration.get("webhooks") or ()
    ]
    return configuration


def _binding(binding: Object) -> Object:
    group = "rbac.authorization.k8s.io"
    binding["roleRef"] = {"apiGroup": group, "kind": "", "name": "", **(binding.get("roleRef") or {})}
    if "subjects" in binding:
        binding["subjects"] = [
            subject if subject.get("kind") == "ServiceAccount" else {"apiGroup": group, **subject}
            for subject in binding["subjects"]
        ]
    return binding


_DEFAULTS: dict[str, Callable[[Object], Object]] = {
    "Pod": lambda pod: pod | {"spec": pod_spec(pod.get("spec") or {})},
    "Deployment": _deployment,
    "ReplicaSet": _replica_set,
    "Namespace": _namespace,
    "Node": lambda node: _filled(node, spec={}, status={}),
    "Secret": _secret,
    "Service": services.with_defaults,
    "Event": _event,
    "MutatingWebhookConfiguration": _webhooks,
    "RoleBinding": _binding,
    "ClusterRoleBinding": _binding,
}
