"""Whatever you send to the pod identity webhook, it answers, and injects no role that the service account lacks."""

import base64
import json
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.webhook import ServiceAccounts, WebhookServer
from tests.fuzz.conftest import cases, sent, served
from tests.simulator.aws.test_any_request import BODIES, HEADERS, METHODS, QUERIES
from tests.simulator.kubernetes.test_api_any_input import POD, anything, mutated

ROLE = "arn:aws:iam::123456789012:role/my-role"
ACCOUNT = {"metadata": {"name": "app", "namespace": "default", "annotations": {"eks.amazonaws.com/role-arn": ROLE}}}
WITH = "/api/v1/namespaces/default/serviceaccounts/app"
REVIEW = {
    "kind": "AdmissionReview",
    "apiVersion": "admission.k8s.io/v1",
    "request": {"uid": "7", "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"}, "operation": "CREATE",
                "namespace": "default", "object": {**POD, "spec": {**POD["spec"], "serviceAccountName": "app"}}},
}  # fmt: skip
reviews = mutated(REVIEW) | anything
JSON = [("Content-Type", "application/json")]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    def api(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=ACCOUNT) if request.url.path == WITH else httpx.Response(404)

    client = httpx.AsyncClient(base_url="https://api", transport=httpx.MockTransport(api))
    with served(WebhookServer(ServiceAccounts(client), grace=0)) as port:
        assert patch_of(port, json.dumps(REVIEW).encode())
        yield port


@cases(150)
@given(
    method=METHODS,
    path=st.sampled_from(["/mutate", "/healthz", "/", "/mutate/", "/mutate/..", "/x"]),
    query=QUERIES,
    headers=HEADERS,
    body=BODIES,
)
def test_the_webhook_answers_any_request_without_a_5xx(port, method, path, query, headers, body):
    target = quote(path + (f"?{query}" if query else ""), safe="/%?=&;+~*\\")
    status, _ = sent(port, method, target, headers, body)
    assert status < 500
    assert status >= 300 or path == "/healthz"


@cases(150)
@given(body=reviews.map(lambda value: json.dumps(value).encode()) | BODIES)
def test_the_webhook_injects_a_role_only_for_the_annotated_service_account(port, body):
    patch = patch_of(port, body)
    if ROLE.encode() in patch:
        asked = json.loads(body)["request"]
        assert (asked["namespace"], asked["object"]["spec"]["serviceAccountName"]) == ("default", "app")


def patch_of(port: int, body: bytes) -> bytes:
    """Send a review; return the patch in the answer."""
    status, text = sent(port, "POST", "/mutate", JSON, body)
    assert status == 200, text
    answer = json.loads(text)["response"]
    assert isinstance(answer["allowed"], bool)
    return base64.b64decode(answer.get("patch", ""))
