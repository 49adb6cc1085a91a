"""Invalid pods: the API server refuses each with the message of a real API server."""

import httpx
import pytest

from tests.simulator.kubernetes.conftest import pod

PROBE = {"httpGet": {"port": 80}}
FIELDS = (
    '"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",'
    ' "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"'
)
SECURITY = (
    '{"Capabilities":null,"Privileged":true,"SELinuxOptions":null,"WindowsOptions":null,"RunAsUser":null,'
    '"RunAsGroup":null,"RunAsNonRoot":null,"ReadOnlyRootFilesystem":null,"AllowPrivilegeEscalation":false,'
    '"ProcMount":null,"SeccompProfile":null,"AppArmorProfile":null}'
)
RANGE = "must be between 1 and 65535, inclusive"
NEGATIVE = "must be greater than or equal to 0"


def field_reference(path: str) -> dict:
    return {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}]}


def amounts(requests: dict, limits: dict) -> dict:
    return {"resources": {"requests": requests, "limits": limits}}


@pytest.mark.parametrize(("fields", "message"), [
    ({"ports": [{"containerPort": 0}]}, "ports[0].containerPort: Required value"),
    ({"ports": [{"containerPort": 65536}]}, f"ports[0].containerPort: Invalid value: 65536: {RANGE}"),
    ({"ports": [{"containerPort": 1, "hostPort": -1}]}, f"ports[0].hostPort: Invalid value: -1: {RANGE}"),
    ({"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]},
     'ports[1].name: Duplicate value: "a"'),
    ({"ports": [{"containerPort": 1, "name": "a--b"}]},
     'ports[0].name: Invalid value: "a--b": must not contain consecutive hyphens'),
    ({"ports": [{"containerPort": 1, "protocol": "ICMP"}]},
     'ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'),
    ({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
     'env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty'),
    ({"env": [{"name": "A", "valueFrom": {}}]},
     'env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`,'
     " `configMapKeyRef` or `secretKeyRef`"),
    (field_reference("status.phase"),
     f'env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: {FIELDS}'),
    (field_reference("spec.nothing"),
     'env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.nothing": error converting fieldPath:'
     " field label not supported: spec.nothing"),
    ({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.disk"}}}]},
     'env[0].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.disk": supported values:'
     ' "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage",'
     ' "requests.memory"'),
    ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a"}}}]},
     "env[0].valueFrom.secretKeyRef.key: Required value"),
    ({"envFrom": [{}]}, 'envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`'),
    ({"envFrom": [{"configMapRef": {"name": "a"}, "secretRef": {"name": "a"}}]},
     'envFrom: Invalid value: "": may not have more than one field specified at a time'),
    ({"envFrom": [{"secretRef": {}}]}, "envFrom[0].secretRef.name: Required value"),
    (amounts({"memory": "2"}, {"memory": "1"}),
     'resources.requests: Invalid value: "2": must be less than or equal to memory limit of 1'),
    (amounts({"memory": "1Ki"}, {"memory": "1k"}),
     'resources.requests: Invalid value: "1Ki": must be less than or equal to memory limit of 1k'),
    (amounts({"cpu": "-1"}, {}), f'resources.requests[cpu]: Invalid value: "-1": {NEGATIVE}'),
    ({"livenessProbe": {}}, "livenessProbe: Required value: must specify a handler type"),
    ({"readinessProbe": PROBE | {"periodSeconds": -1}}, f"readinessProbe.periodSeconds: Invalid value: -1: {NEGATIVE}"),
    ({"livenessProbe": PROBE | {"successThreshold": 2}}, "livenessProbe.successThreshold: Invalid value: 2: must be 1"),
    ({"startupProbe": PROBE | {"exec": {"command": ["true"]}}},
     "startupProbe.httpGet: Forbidden: may not specify more than 1 handler type"),
    ({"livenessProbe": {"exec": {}}}, "livenessProbe.exec.command: Required value"),
    ({"livenessProbe": {"tcpSocket": {}}}, f"livenessProbe.tcpSocket.port: Invalid value: 0: {RANGE}"),
    ({"lifecycle": {"preStop": {}}}, "lifecycle.preStop: Required value: must specify a handler type"),
    ({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}},
     "lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than"
     " terminationGracePeriodSeconds (30)"),
    ({"terminationMessagePolicy": "Log"},
     'terminationMessagePolicy: Unsupported value: "Log": supported values: "File", "FallbackToLogsOnError"'),
    ({"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}},
     f"securityContext: Invalid value: {SECURITY}: cannot set `allowPrivilegeEscalation` to false and"
     " `privileged` to true"),
])  # fmt: skip
def test_an_invalid_container_is_refused(admin: httpx.Client, namespace: str, fields: dict, message: str):
    made = pod("p", containers=[{"name": "c", "image": "i", **fields}])
    answer = admin.post(f"/api/v1/namespaces/{namespace}/pods", json=made)
    expected = f'Pod "p" is invalid: spec.containers[0].{message}'
    assert (answer.status_code, answer.json()["message"]) == (422, expected)


@pytest.mark.parametrize(("fields", "message"), [
    ({"restartPolicy": "Sometimes"},
     'restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"'),
    ({"livenessProbe": PROBE},
     "livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"),
    ({"restartPolicy": "Always", "livenessProbe": {}}, "livenessProbe: Required value: must specify a handler type"),
    ({"name": "main"}, 'name: Duplicate value: "main"'),
])  # fmt: skip
def test_an_invalid_init_container_is_refused(admin: httpx.Client, namespace: str, fields: dict, message: str):
    made = pod("p", initContainers=[{"name": "i", "image": "i", **fields}])
    answer = admin.post(f"/api/v1/namespaces/{namespace}/pods", json=made)
    expected = f'Pod "p" is invalid: spec.initContainers[0].{message}'
    assert (answer.status_code, answer.json()["message"]) == (422, expected)


def test_two_containers_cannot_have_the_same_host_port(admin: httpx.Client, namespace: str):
    ports = [{"containerPort": 80, "hostPort": 80}]
    containers = [{"name": name, "image": "i", "ports": ports} for name in ("a", "b")]
    answer = admin.post(f"/api/v1/namespaces/{namespace}/pods", json=pod("p", containers=containers))
    expected = 'Pod "p" is invalid: spec.containers[1].ports[0].hostPort: Duplicate value: "TCP//80"'
    assert (answer.status_code, answer.json()["message"]) == (422, expected)


def test_a_pod_with_valid_fields_is_accepted(admin: httpx.Client, namespace: str):
    references = [{"fieldRef": {"fieldPath": "metadata.labels['a']"}}, {"resourceFieldRef": {"resource": "limits.cpu"}}]
    fields = {
        "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}],
        "env": [{"name": f"A{i}", "valueFrom": reference} for i, reference in enumerate(references)],
        "envFrom": [{"configMapRef": {"name": "a"}, "prefix": "A_"}],
        "resources": {"requests": {"memory": "1Gi", "cpu": "100m"}, "limits": {"memory": "1024Mi", "cpu": 1}},
        "livenessProbe": {"grpc": {"port": 1}},
        "readinessProbe": {"httpGet": {"port": "http", "httpHeaders": [{"name": "X-A", "value": "b"}]}},
        "lifecycle": {"postStart": {"httpGet": {"port": 80}}, "preStop": {"sleep": {"seconds": 5}}},
        "securityContext": {"allowPrivilegeEscalation": False},
    }
    sidecar = {"name": "s", "image": "i", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["true"]}}}
    made = pod("p", containers=[{"name": "c", "image": "i", **fields}], initContainers=[sidecar])
    answer = admin.post(f"/api/v1/namespaces/{namespace}/pods", json=made)
    assert answer.status_code == 201, answer.text


def test_a_host_network_pod_cannot_leave_out_a_container_port(admin: httpx.Client, namespace: str):
    containers = [{"name": "c", "image": "i", "ports": [{"name": "http"}]}]
    answer = admin.post(f"/api/v1/namespaces/{namespace}/pods", json=pod("p", hostNetwork=True, containers=containers))
    expected = 'Pod "p" is invalid: spec.containers[0].ports[0].containerPort: Required value'
    assert (answer.status_code, answer.json()["message"]) == (422, expected)


RELATIVE, STEPS, RESERVED = "must be a relative path", "must not contain '..'", "must not start with '..'"


@pytest.mark.parametrize(("path", "why"), [
    ("/etc", [RELATIVE]),
    ("a/../b", [STEPS]),
    ("..", [STEPS, RESERVED]),
    ("..data", [RESERVED]),
    ("/..", [RELATIVE, STEPS]),
])  # fmt: skip
def test_a_volume_file_path_that_is_absolute_or_uses_dot_dot_is_refused(admin, namespace, path, why):
    item, token = {"key": "a", "path": path}, {"path": path, "expirationSeconds": 600}
    name = {"path": path, "fieldRef": {"fieldPath": "metadata.name"}}
    for source, field in (
        ({"projected": {"sources": [{"serviceAccountToken": token}]}}, "projected.path"),
        (
            {"projected": {"sources": [{"secret": {"name": "a", "items": [item]}}]}},
            "projected.sources[0].secret.items[0].path",
        ),
        ({"projected": {"sources": [{"downwardAPI": {"items": [name]}}]}}, "projected.sources[0].downwardAPI.path"),
        ({"secret": {"secretName": "a", "items": [item]}}, "secret.items[0].path"),
        ({"configMap": {"name": "a", "items": [item]}}, "configMap.items[0].path"),
        ({"downwardAPI": {"items": [name]}}, "downwardAPI.path"),
    ):
        answer = admin.post(f"/api/v1/namespaces/{namespace}/pods", json=pod("p", volumes=[{"name": "v", **source}]))
        causes = [{"reason": "FieldValueInvalid", "field": f"spec.volumes[0].{field}"}] * len(why)
        texts = [f'Invalid value: "{path}": {text}' for text in why]
        told = [cause | {"message": text} for cause, text in zip(causes, texts, strict=True)]
        assert (answer.status_code, answer.json()["details"]["causes"]) == (422, told)


@pytest.mark.parametrize(("host_path", "why"), [
    ({"path": "/tmp/../etc"}, "Invalid value: \"/tmp/../etc\": must not contain '..'"),
    ({"path": ""}, "Required value"),
    ({}, "Required value"),
])  # fmt: skip
def test_a_host_path_that_is_empty_or_contains_dot_dot_is_refused(admin, namespace, host_path, why):
    made = pod("p", volumes=[{"name": "v", "hostPath": host_path}])
    answer = admin.post(f"/api/v1/namespaces/{namespace}/pods", json=made)
    expected = f'Pod "p" is invalid: spec.volumes[0].hostPath.path: {why}'
    assert (answer.status_code, answer.json()["message"]) == (422, expected)


@pytest.mark.parametrize("field", ["subPath", "subPathExpr"])
@pytest.mark.parametrize(("path", "why"), [("/etc", RELATIVE), ("../../secret", STEPS)])
def test_a_sub_path_outside_its_volume_is_refused(admin: httpx.Client, namespace: str, field: str, path: str, why: str):
    mount = {"name": "v", "mountPath": "/v", field: path}
    container = {"name": "c", "image": "i", "volumeMounts": [mount]}
    made = pod("p", containers=[container], volumes=[{"name": "v", "emptyDir": {}}])
    answer = admin.post(f"/api/v1/namespaces/{namespace}/pods", json=made)
    expected = f'Pod "p" is invalid: spec.containers[0].volumeMounts.{field}: Invalid value: "{path}": {why}'
    assert (answer.status_code, answer.json()["message"]) == (422, expected)


@pytest.mark.parametrize(
    ("character", "quoted"),
    [("\0", r"\x00"), ("\n", r"\n"), ("\r", r"\r"), ("\x1b", r"\x1b"), ("\x7f", r"\x7f"), ("\x85", r"\u0085")],
)
def test_error_messages_quote_control_characters_as_go_does(admin, namespace, character, quoted):
    """https://pkg.go.dev/strconv#Quote"""
    odd = f"a{character}b"
    container = {
        "name": "c",
        "image": "i",
        "env": [{"name": odd}],
        "envFrom": [{"prefix": odd, "secretRef": {"name": "s"}}],
    }
    answer = admin.post(f"/api/v1/namespaces/{namespace}/pods", json=pod("p", containers=[container]))
    why = "a valid environment variable name must consist only of printable ASCII characters other than '='"
    fields = ("spec.containers[0].env[0].name", "spec.containers[0].envFrom[0].prefix")
    told = [(field, f'Invalid value: "a{quoted}b": {why}') for field in fields]
    assert answer.status_code == 422
    assert [(cause["field"], cause["message"]) for cause in answer.json()["details"]["causes"]] == told


def test_paths_with_control_characters_are_accepted(admin: httpx.Client, namespace: str):
    """The kubelet, not the API server, refuses a path that no file can have."""
    for number, odd in enumerate(("a\0b", "a\nb", "a\x1bb")):
        items = [{"path": odd, "fieldRef": {"fieldPath": "metadata.name"}}]
        volumes = [
            {"name": "v", "emptyDir": {}},
            {"name": "d", "downwardAPI": {"items": items}},
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": odd}}]}},
        ]
        mounts = [{"name": "v", "mountPath": f"/{odd}", "subPath": odd}]
        container = {"name": "c", "image": "i", "env": [{"name": "A", "value": odd}], "volumeMounts": mounts}
        made = pod(f"p{number}", containers=[container], volumes=volumes)
        answer = admin.post(f"/api/v1/namespaces/{namespace}/pods", json=made)
        assert answer.status_code == 201, answer.text
