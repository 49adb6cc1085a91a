"""Whatever a client sends, the API server says what is wrong and never fails itself."""

import json
from urllib.parse import quote, urlencode

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from labkit.simulator.kubernetes.objects.kinds import KINDS, SUBRESOURCES
from tests.simulator.kubernetes.conftest import pod

many = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# A real server also answers 500 with these messages (tests/contract/NOTES.md).
REAL_500 = ("resourceVersion: Invalid value", "resourceVersion should not be set on objects to be created")

words = some.sampled_from(["", "a", "default", "x" * 300, "Ä", "..", "%", "a/b", "null", "0", "-1", "status"])
scalars = some.none() | some.booleans() | some.integers(-(2**70), 2**70) | some.floats() | words
anything = some.recursive(
    scalars, lambda inner: some.lists(inner, max_size=3) | some.dictionaries(words, inner, max_size=3), max_leaves=8
)
queries = some.dictionaries(
    some.sampled_from(
        [
            *("watch", "limit", "continue", "resourceVersion", "resourceVersionMatch", "labelSelector"),
            *("fieldSelector", "timeoutSeconds", "dryRun", "fieldManager", "fieldValidation", "force", "pretty"),
            *("gracePeriodSeconds", "propagationPolicy", "orphanDependents", "sendInitialEvents", "includeObject"),
            *("container", "command", "follow", "tailLines", "sinceSeconds", "sinceTime", "limitBytes", "stdin"),
        ]
    ),
    some.sampled_from(["", "0", "1", "true", "false", "a", "-1", "a=b", "a in (b", "!=", "All", "Strict", "9" * 40]),
    max_size=3,
)
content_types = some.sampled_from(
    [
        *("application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "text/plain", ""),
        *("application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"),
        "application/strategic-merge-patch+json",
    ]
)
accepts = some.sampled_from(
    [
        *("application/json", "*/*", "text/html", "application/yaml", "application/vnd.kubernetes.protobuf"),
        "application/json;as=Table;v=v1;g=meta.k8s.io",
    ]
)
methods = some.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"])


def mutated(document: dict) -> some.SearchStrategy:
    """A strategy for the document with one or two of its values replaced by anything."""
    places = [*_places(document)]

    @some.composite
    def change(draw):
        changed = json.loads(json.dumps(document))
        for path in draw(some.lists(some.sampled_from(places), min_size=1, max_size=2)):
            inner = changed
            for key in path[:-1]:
                inner = inner[key] if isinstance(inner, dict | list) and _has(inner, key) else {}
            if isinstance(inner, dict) or (isinstance(inner, list) and _has(inner, path[-1])):
                inner[path[-1]] = draw(anything)
        return changed

    return change()


def _has(inner: dict | list, key) -> bool:
    return key in inner if isinstance(inner, dict) else isinstance(key, int) and key < len(inner)


def _places(value, path=()):
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(inner, (*path, key))


CONTAINER = {
    "name": "main",
    "image": "i",
    "ports": [{"containerPort": 80, "hostPort": 80, "name": "http"}],
    "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    "envFrom": [{"configMapRef": {"name": "a"}}],
    "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}},
    "livenessProbe": {"httpGet": {"port": "http", "httpHeaders": [{"name": "A", "value": "b"}]}},
    "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"add": ["A"]}},
}
POD = pod(
    "p",
    containers=[CONTAINER],
    initContainers=[{"name": "i", "image": "i", "restartPolicy": "Always"}],
    volumes=[
        {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 600}}]}},
        {"name": "c", "configMap": {"name": "c", "items": [{"key": "a", "path": "a"}]}},
    ],
    tolerations=[{"key": "a", "operator": "Exists", "effect": "NoExecute"}],
    nodeSelector={"a": "b"},
)
DOCUMENTS = [
    POD,
    {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c", "labels": {"a": "b"}}, "data": {"a": "1"}},
    {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}, "stringData": {"a": "1"}, "type": "Opaque"},
    {"kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1",
     "metadata": {"name": "r", "ownerReferences": [{"uid": "1", "name": "a", "kind": "Pod", "apiVersion": "v1"}]},
     "roleRef": {"kind": "Role", "name": "a", "apiGroup": "rbac.authorization.k8s.io"},
     "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "default"}]},
    {"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "r"},
     "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": ["a"]}]},
    {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "d"},
     "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
              "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
              "template": {"metadata": {"labels": {"a": "b"}}, "spec": POD["spec"]}}},
    {"kind": "Service", "apiVersion": "v1", "metadata": {"name": "s"},
     "spec": {"type": "ClusterIP", "selector": {"a": "b"}, "ports": [{"name": "a", "port": 80, "targetPort": "a"}]}},
    {"kind": "MutatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "w"},
     "webhooks": [{"name": "a.b.c", "clientConfig": {"url": "https://127.0.0.1:1/", "caBundle": "Cg=="},
                   "rules": [{"apiGroups": ["x"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["x"]}],
                   "objectSelector": {"matchLabels": {"a": "b"}}, "admissionReviewVersions": ["v1"],
                   "sideEffects": "None", "failurePolicy": "Ignore"}]},
    {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
     "spec": {"audiences": ["a"], "expirationSeconds": 600, "boundObjectRef": {"kind": "Pod", "name": "p"}}},
    {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": "a.b.c", "audiences": ["a"]}},
    {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
     "spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}},
    {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": "1"}},
    {"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}},
]  # fmt: skip
bodies = some.one_of(*[mutated(document) for document in DOCUMENTS]) | anything


def paths(namespace: str) -> some.SearchStrategy:
    names = some.sampled_from(["", "/p", "/c", "/" + "x" * 300, "/..", "/%2F", "/a b", "/p/status", "/p/a/b/c"])
    kinds = [f"{kind.path}/namespaces/{namespace}/{kind.plural}" for kind in KINDS if kind.namespaced]
    kinds += [f"{kind.path}/{kind.plural}" for kind in KINDS if kind.kind not in ("Namespace",)]
    below = [sub.name.replace("/", "/p/") for sub in SUBRESOURCES]
    groups = {sub.name.replace("/", "/p/"): sub.group for sub in SUBRESOURCES}
    under = [
        f"{'/apis/' + groups[name] if groups[name] else '/api'}/v1/namespaces/{namespace}/{name}" for name in below
    ]
    others = ["/", "/api", "/apis", "/version", "/openapi/v3", "/openapi/v2", "/openid/v1/jwks", "/api/v1/watch/pods"]
    made = some.tuples(some.sampled_from(kinds), names).map("".join)
    return made | some.sampled_from([*under, *others]) | some.text(max_size=20).map(lambda text: "/" + quote(text))


def answered(admin: httpx.Client, method: str, path: str, query: dict, headers: dict, body: bytes) -> None:
    if query.get("watch") not in (None, "", "0", "false"):
        query = {**query, "timeoutSeconds": "1"}
    with admin.stream(method, f"{path}?{urlencode(query)}", headers=headers, content=body, timeout=20) as answer:
        text = answer.read().decode("utf-8", "replace")
    if answer.status_code >= 500:
        assert any(words in text for words in REAL_500), f"{method} {path} {query} {headers} {body!r}: {text}"
    elif answer.status_code >= 400 and text and text.startswith("{"):
        status = json.loads(text)
        assert (status["kind"], status["status"], status["code"]) == ("Status", "Failure", answer.status_code)
        assert status.get("message"), text


@many
@given(data=some.data())
def test_no_request_makes_the_server_fail(admin: httpx.Client, namespace: str, data):
    headers = {"Content-Type": data.draw(content_types), "Accept": data.draw(accepts)}
    method, path, query = data.draw(methods), data.draw(paths(namespace)), data.draw(queries)
    body = data.draw(bodies.map(lambda value: json.dumps(value).encode()) | some.binary(max_size=40))
    answered(admin, method, path, query, headers, body)


@many
@given(data=some.data())
def test_no_object_makes_the_server_fail(admin: httpx.Client, namespace: str, data):
    document = data.draw(some.sampled_from(DOCUMENTS))
    body = json.dumps(data.draw(mutated(document))).encode()
    query = data.draw(some.sampled_from([{}, {"fieldValidation": "Strict"}, {"dryRun": "All"}]))
    kind = next((kind for kind in KINDS if kind.kind == document["kind"]), None)
    if kind:
        where = f"/namespaces/{namespace}" if kind.namespaced else ""
        path = f"{kind.path}{where}/{kind.plural}"
    else:
        sub = next((sub for sub in SUBRESOURCES if sub.kind == document["kind"]), None)
        if sub is None:
            path = f"/api/v1/namespaces/{namespace}/configmaps/c"
            answered(admin, "DELETE", path, query, {"Content-Type": "application/json"}, body)
            return
        base = f"/apis/{sub.group}/v1" if sub.group else "/api/v1"
        path = f"{base}{f'/namespaces/{namespace}' if sub.namespaced else ''}/{sub.name.replace('/', '/default/')}"
    answered(admin, "POST", path, query, {"Content-Type": "application/json"}, body)
    name = document["metadata"]["name"] if "metadata" in document else "default"
    for content_type in ("json", "strategic-merge-patch+json", "merge-patch+json"):
        method = "PUT" if content_type == "json" else "PATCH"
        answered(admin, method, f"{path}/{name}", query, {"Content-Type": f"application/{content_type}"}, body)
    apply = {"Content-Type": "application/apply-patch+yaml"}
    answered(admin, "PATCH", f"{path}/{name}", {"fieldManager": "a", "force": "true"}, apply, body)


@pytest.mark.parametrize("depth", [100, 10_000])
def test_a_deeply_nested_document_is_refused(admin: httpx.Client, namespace: str, depth: int):
    body = b'{"metadata":{"name":"deep"},"data":' + b"[" * depth + b"]" * depth + b"}"
    answer = admin.post(
        f"/api/v1/namespaces/{namespace}/configmaps", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
