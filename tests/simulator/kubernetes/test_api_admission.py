"""Admission webhooks are called for real: HTTPS, the CA bundle, selectors, the failure policy."""

import base64
import json
from collections.abc import Iterator

import httpx
import pytest

from labkit.simulator.certificates import Authority
from tests.simulator.kubernetes.conftest import base64_text, listening, pod

PATH = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


class Webhook:
    """A webhook that adds a container and a variable. At ``/deny`` it denies the request."""

    def __init__(self) -> None:
        self.reviews: list[dict] = []

    async def __call__(self, scope, receive, send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        review = json.loads(body)
        self.reviews.append(review)
        response = {"uid": review["request"]["uid"], "allowed": scope["path"] != "/deny"}
        if scope["path"] == "/deny":
            response["status"] = {"message": "not today"}
        else:
            patch = [
                {"op": "add", "path": "/spec/containers/0/env", "value": [{"name": "A", "value": "b"}]},
                {"op": "add", "path": "/spec/containers/-", "value": {"name": "sidecar", "image": "i"}},
            ]
            response |= {"patchType": "JSONPatch", "patch": base64_text(json.dumps(patch).encode())}
        answer = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


@pytest.fixture
def webhook(cluster) -> Iterator[tuple[Webhook, str, Authority]]:
    app, authority = Webhook(), Authority.create("webhook")
    with listening(cluster.loop, app, authority) as port:
        yield app, f"https://127.0.0.1:{port}", authority


@pytest.fixture
def register(admin: httpx.Client, namespace: str, webhook) -> Iterator:
    _, url, authority = webhook

    def register(path: str = "/mutate", *, ca: Authority = authority, base: str = url, **changes: object) -> None:
        hook = {
            "name": "pods.lab.example",
            "clientConfig": {"url": base + path, "caBundle": base64_text(ca.certificate_pem)},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            **changes,
        }
        made = admin.post(PATH, json={"metadata": {"name": "lab"}, "webhooks": [hook]})
        assert made.status_code == 201, made.text

    yield register
    admin.delete(f"{PATH}/lab")


def condition(expression: str, name: str = "only") -> list[dict[str, str]]:
    return [{"name": name, "expression": expression}]


@pytest.fixture
def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def test_a_webhook_changes_a_pod(admin: httpx.Client, pods: str, register, webhook):
    register()
    containers = admin.post(pods, json=pod("p")).json()["spec"]["containers"]
    assert containers[0]["env"] == [{"name": "A", "value": "b"}]
    # A container that a webhook adds also gets its defaults and the token volume.
    assert containers[1]["imagePullPolicy"] == "Always"
    assert containers[1]["volumeMounts"] == containers[0]["volumeMounts"]
    (review,) = webhook[0].reviews
    request = review["request"]
    assert (review["apiVersion"], request["operation"], request["name"]) == ("admission.k8s.io/v1", "CREATE", "p")
    assert request["object"]["spec"]["serviceAccountName"] == "default"
    assert request["userInfo"]["username"] == "admin"


def test_a_webhook_can_deny_a_pod(admin: httpx.Client, pods: str, register):
    register("/deny")
    answer = admin.post(pods, json=pod("p"))
    assert answer.status_code == 400
    assert answer.json()["message"] == 'admission webhook "pods.lab.example" denied the request: not today'


def test_the_api_server_calls_a_webhook_only_for_the_objects_it_selects(admin, pods, register, webhook):
    expression = {"key": "eks.amazonaws.com/skip-pod-identity-webhook", "operator": "DoesNotExist"}
    register("/deny", objectSelector={"matchExpressions": [expression]})
    skipped = pod("p")
    skipped["metadata"]["labels"] = {"eks.amazonaws.com/skip-pod-identity-webhook": "true"}
    assert admin.post(pods, json=skipped).status_code == 201
    elsewhere = admin.post("/api/v1/namespaces/default/pods", json=pod("p"))
    assert elsewhere.status_code == 201
    admin.delete("/api/v1/namespaces/default/pods/p")
    assert admin.post(pods.replace("pods", "configmaps"), json={"metadata": {"name": "a"}}).status_code == 201
    assert webhook[0].reviews == []


@pytest.mark.parametrize(("policy", "code"), [("Ignore", 201), ("Fail", 500)])
def test_the_failure_policy_decides_when_a_webhook_is_down(admin: httpx.Client, pods: str, register, policy, code):
    register(base="https://127.0.0.1:1", failurePolicy=policy)
    answer = admin.post(pods, json=pod("p"))
    assert answer.status_code == code
    if code == 500:
        assert answer.json()["message"] == (
            'Internal error occurred: failed calling webhook "pods.lab.example": failed to call webhook: Post'
            ' "https://127.0.0.1:1/mutate?timeout=10s": dial tcp 127.0.0.1:1: connect: connection refused'
        )


@pytest.mark.parametrize(
    "host", ["10.255.255.1", "169.254.169.254", "[2001:db8::1]", "example.com", "0.0.0.0", "127.0.0.1.example.com"]
)
def test_the_api_server_never_calls_a_webhook_outside_loopback(admin: httpx.Client, pods: str, register, host):
    register(base=f"https://{host}:443")
    answer = admin.post(pods, json=pod("p"))
    assert answer.status_code == 500
    told = f"dial tcp: the lab's API server calls only loopback addresses, and \"{host.strip('[]')}\" isn't one"
    assert answer.json()["message"].endswith(told)


def test_the_api_server_never_calls_a_kubelet_outside_loopback(admin: httpx.Client, pods: str, node: str):
    addresses = [{"type": "InternalIP", "address": "169.254.169.254"}]
    patched = {"status": {"addresses": addresses}}
    kind = {"content-type": "application/merge-patch+json"}
    assert admin.patch(f"/api/v1/nodes/{node}/status", json=patched, headers=kind).status_code == 200
    assert admin.post(pods, json=pod("p", nodeName=node)).status_code == 201
    answer = admin.get(f"{pods}/p/log")
    assert answer.status_code == 500
    assert '"169.254.169.254" isn\'t one' in answer.json()["message"]


def test_the_api_server_verifies_a_webhooks_certificate(admin: httpx.Client, pods: str, register, webhook):
    register(ca=Authority.create("another"))
    answer = admin.post(pods, json=pod("p"))
    assert answer.status_code == 500
    assert "x509: certificate signed by unknown authority" in answer.json()["message"]
    assert webhook[0].reviews == []


def test_a_webhook_is_told_that_a_request_is_a_dry_run(admin: httpx.Client, pods: str, register, webhook):
    register()
    admin.post(pods, json=pod("p"), params={"dryRun": "All"})
    assert webhook[0].reviews[0]["request"]["dryRun"] is True


def test_a_broken_ca_bundle_fails_the_call(admin: httpx.Client, pods: str, register, webhook):
    config = {"url": webhook[1], "caBundle": base64.b64encode(b"nothing").decode()}
    register(clientConfig=config)
    answer = admin.post(pods, json=pod("p"))
    assert answer.status_code == 500
    assert "unable to load root certificates" in answer.json()["message"]


FAIL_OPEN = "apiserver_admission_webhook_fail_open_count"
REJECTION = "apiserver_admission_webhook_rejection_count"


@pytest.mark.parametrize(("changes", "counter"), [
    ({"base": "https://127.0.0.1:1", "failurePolicy": "Ignore"}, FAIL_OPEN + '{name="pods.lab.example",type="admit"}'),
    ({"ca": Authority.create("other"), "failurePolicy": "Ignore"},
     FAIL_OPEN + '{name="pods.lab.example",type="admit"}'),
    ({"base": "https://127.0.0.1:1"},
     REJECTION + '{error_type="calling_webhook_error",name="pods.lab.example",operation="CREATE",'
     'rejection_code="503",type="admit"}'),
    ({"path": "/deny"},
     REJECTION + '{error_type="no_error",name="pods.lab.example",operation="CREATE",rejection_code="400",'
     'type="admit"}'),
], ids=["no answer, ignored", "another authority, ignored", "no answer", "denied"])  # fmt: skip
def test_metrics_count_failed_and_denied_webhook_calls_even_in_dry_runs(admin, pods, register, changes, counter):
    register(changes.pop("path", "/mutate"), **changes)
    before = counted(admin, counter)
    for options in ({}, {"dryRun": "All"}):
        admin.post(pods, json=pod("p"), params=options)
    assert counted(admin, counter) == before + 2


def test_metrics_count_an_allowed_webhook_call_only_as_a_request(admin: httpx.Client, pods: str, register):
    register(failurePolicy="Ignore")
    called = (
        'apiserver_admission_webhook_request_total{code="200",name="pods.lab.example",operation="CREATE",'
        'rejected="false",type="admit"}'
    )
    before, others = counted(admin, called), [counted(admin, FAIL_OPEN), counted(admin, REJECTION)]
    admin.post(pods, json=pod("p"))
    assert counted(admin, called) == before + 1
    assert [counted(admin, FAIL_OPEN), counted(admin, REJECTION)] == others


def test_rbac_decides_who_reads_the_metrics(cluster, admin: httpx.Client):
    assert admin.get("/metrics").headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    answers = {}
    for group in ("system:authenticated", "system:monitoring"):
        headers = {"Impersonate-User": "somebody", "Impersonate-Group": group}
        answers[group] = admin.get("/metrics", headers=headers)
    assert answers["system:monitoring"].status_code == 200
    refused = answers["system:authenticated"]
    assert (refused.status_code, refused.json()["message"]) == (
        403,
        'forbidden: User "somebody" cannot get path "/metrics"',
    )


def counted(admin: httpx.Client, counter: str) -> float:
    """Return the sum of the counters in /metrics that start with this text."""
    lines = [line for line in admin.get("/metrics").text.splitlines() if line.startswith(counter)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


# matchConditions.


@pytest.mark.parametrize(("expression", "called"), [
    ("request.name != 'demo'", False),
    ("request.name == 'demo' && request.operation == 'CREATE' && oldObject == null", True),
    ("!has(object.metadata.labels) || !('team' in object.metadata.labels)", True),
    ("object.spec.containers.all(c, c.image.startsWith('example.com/'))", False),
    ("object.spec.containers.exists(c, size(c.name) > 0 && c.name.matches('^[a-z]+$'))", True),
    ("!(request.userInfo.username.startsWith('system:serviceaccount:'))", True),
    ("'system:masters' in request.userInfo.groups", True),
])  # fmt: skip
def test_the_api_server_calls_a_webhook_only_if_its_conditions_are_true(
    admin, pods, webhook, register, expression, called
):
    register(matchConditions=condition(expression))
    assert admin.post(pods, json=pod("demo")).status_code == 201
    assert bool(webhook[0].reviews) == called


def test_a_false_condition_skips_the_webhook_even_if_another_one_fails(admin, pods, webhook, register):
    fails = condition("object.metadata.labels['none'] == 'x'", "fails")
    register(failurePolicy="Fail", matchConditions=[*fails, *condition("false")])
    assert admin.post(pods, json=pod("demo")).status_code == 201
    assert webhook[0].reviews == []


@pytest.mark.parametrize(("policy", "status"), [("Ignore", 201), ("Fail", 403)])
def test_the_failure_policy_decides_when_a_condition_cannot_be_evaluated(
    admin, pods, webhook, register, policy, status
):
    expression = "object.spec.none == 1"
    register(failurePolicy=policy, matchConditions=condition(expression))
    answer = admin.post(pods, json=pod("demo"))
    assert answer.status_code == status
    assert webhook[0].reviews == []
    if status == 403:
        told = f"pods \"demo\" is forbidden: expression '{expression}' resulted in error: no such key: none"
        assert answer.json()["message"] == told


@pytest.mark.parametrize(("conditions", "field", "told"), [
    (condition("authorizer.group('').resource('pods').check('get').allowed()"), "[0].expression", "authorizer"),
    (condition("request.name.lowerAscii() == 'x'"), "[0].expression", "doesn't evaluate lowerAscii"),
    (condition("object.?metadata.hasValue()"), "[0].expression", "compilation failed"),
    (condition("request.name =="), "[0].expression", "compilation failed"),
    (condition(" "), "[0].expression", "Required value"),
    (condition("true", ""), "[0].name", "Required value"),
    (condition("true", "a b"), "[0].name", "Invalid value"),
    (condition("true") * 2, "[1].name", "Duplicate value"),
    (condition("[1].all(a, [1].all(b, [1].all(c, a == b && b == c)))"), "[0].expression", "at most 2 loops"),
    ([condition("true", f"n{n}")[0] for n in range(65)], "", "Too many: 65"),
])  # fmt: skip
def test_invalid_or_unsupported_match_conditions_are_refused(admin, namespace, conditions, field, told):
    hook = {
        "name": "pods.lab.example",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "matchConditions": conditions,
    }
    answer = admin.post(PATH, json={"metadata": {"name": "refused"}, "webhooks": [hook]})
    assert answer.status_code == 422, answer.text
    (cause,) = answer.json()["details"]["causes"]
    assert cause["field"] == f"webhooks[0].matchConditions{field}"
    assert told in cause["message"]
