"""The webhook with an API server: it follows the service accounts, and answers over HTTP."""

import asyncio
import base64
import json

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from labkit.webhook import ServiceAccounts, WebhookServer, mutating_webhook_configuration

pytestmark = pytest.mark.anyio

ROLE = "arn:aws:iam::123456789012:role/my-role"


class Api:
    """As much of the Kubernetes API as a watch on service accounts needs, with the events in the test's hands."""

    def __init__(self):
        self.accounts = {}
        self.version = 1
        self.lists = 0
        self.watched_from = []
        self.events: asyncio.Queue = asyncio.Queue()
        self.slow: asyncio.Event | None = None
        self.asked = 0
        self.watch_answers: list[int | str] = []
        self.app = Starlette(
            routes=[
                Route("/api/v1/serviceaccounts", self.accounts_of_all),
                Route("/api/v1/namespaces/{namespace}/serviceaccounts/{name}", self.account),
            ]
        )

    async def accounts_of_all(self, request):
        if "watch" not in request.query_params:
            self.lists += 1
            items = list(self.accounts.values())
            return JSONResponse({"metadata": {"resourceVersion": str(self.version)}, "items": items})
        if self.watch_answers:
            answer = self.watch_answers.pop(0)
            return PlainTextResponse("nonsense\n") if answer == "nonsense" else PlainTextResponse("no", answer)
        self.watched_from.append(request.query_params["resourceVersion"])

        async def lines():
            while event := await self.events.get():
                yield json.dumps(event, ensure_ascii=False) + "\n"

        return StreamingResponse(lines(), media_type="application/json")

    async def account(self, request):
        found = self.accounts.get((request.path_params["namespace"], request.path_params["name"]))
        self.asked += 1
        if self.slow:
            await self.slow.wait()
        return JSONResponse(found or {"kind": "Status", "code": 404}, 200 if found else 404)

    def put(self, name, namespace="default", tell=True, kind="ADDED", **annotations):
        self.version += 1
        found = {f"eks.amazonaws.com/{key.replace('_', '-')}": value for key, value in annotations.items()}
        metadata = {"name": name, "namespace": namespace, "annotations": found, "resourceVersion": str(self.version)}
        self.accounts[(namespace, name)] = {"metadata": metadata}
        if tell:
            self.events.put_nowait({"type": kind, "object": {"metadata": metadata}})


class Streaming(httpx.AsyncBaseTransport):
    """A transport for watches: httpx's own ASGI transport waits until an answer is complete, and a watch never is."""

    def __init__(self, app):
        self.app = app

    async def handle_async_request(self, request):
        parts: asyncio.Queue = asyncio.Queue()
        scope = {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "query_string": request.url.query,
            "headers": [],
        }

        async def receive():
            await asyncio.Event().wait()

        serving = asyncio.create_task(self.app(scope, receive, parts.put))
        start = await parts.get()

        class Body(httpx.AsyncByteStream):
            async def __aiter__(self):
                more = True
                while more:
                    part = await parts.get()
                    more = part.get("more_body", False)
                    yield part.get("body", b"")

            async def aclose(self):
                serving.cancel()

        return httpx.Response(start["status"], headers=start["headers"], stream=Body())


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def api():
    return Api()


@pytest.fixture
async def accounts(anyio_backend, api):
    """The webhook's service accounts, which follow the API."""
    async with httpx.AsyncClient(transport=Streaming(api.app), base_url="http://api") as client:
        accounts = ServiceAccounts(client)
        await accounts.start()
        yield accounts
        await accounts.stop()


def client_of(accounts, **options):
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(WebhookServer(accounts, **options)), base_url="http://webhook"
    )


@pytest.fixture
async def webhook(accounts):
    async with client_of(accounts, region="us-east-1", grace=5) as client:
        yield client


def asking(name, namespace="default"):
    spec = {"serviceAccountName": name, "containers": [{"name": "app"}]}
    request = {"uid": "7", "namespace": namespace, "object": {"metadata": {"name": "my-pod"}, "spec": spec}}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


async def test_the_webhook_follows_added_changed_and_deleted_accounts(api, accounts):
    assert accounts.get("default", "a") is None
    api.put("a", role_arn=ROLE, audience="vault")
    await until(lambda: accounts.get("default", "a"))
    assert accounts.get("default", "a").audience == "vault"
    api.put("a", role_arn=ROLE + "2", kind="MODIFIED")
    await until(lambda: accounts.get("default", "a").role_arn == ROLE + "2")
    api.put("a", kind="DELETED")
    await until(lambda: accounts.get("default", "a") is None)


async def test_a_unicode_line_separator_in_an_annotation_does_not_split_a_watch_event(api, accounts):
    api.put("a", role_arn="one\u2028two\x85three")
    api.put("b", role_arn=ROLE)
    await until(lambda: accounts.get("default", "b"))
    assert accounts.get("default", "a").role_arn == "one\u2028two\x85three"
    assert (api.lists, len(api.watched_from)) == (1, 1)


async def test_a_watch_that_ends_continues_from_its_last_version(api, accounts):
    api.put("a", role_arn=ROLE)
    await until(lambda: accounts.get("default", "a"))
    api.events.put_nowait(None)
    api.put("b", role_arn=ROLE)
    await until(lambda: accounts.get("default", "b"))
    assert (api.watched_from, api.lists) == (["1", "2"], 1)


async def test_a_watch_that_is_too_old_starts_with_a_new_list(api, accounts):
    api.put("missed", tell=False, role_arn=ROLE)
    gone = {"kind": "Status", "code": 410, "reason": "Expired"}
    api.events.put_nowait({"type": "ERROR", "object": gone})
    await until(lambda: accounts.get("default", "missed"))
    assert api.lists == 2


@pytest.fixture
def quick_retry(monkeypatch):
    monkeypatch.setattr("labkit.webhook.watch.RETRY", 0.01)


@pytest.mark.parametrize("answer", [500, 403, "nonsense"])
async def test_a_watch_that_fails_is_tried_again(quick_retry, api, accounts, caplog, answer):
    api.watch_answers = [answer, answer]
    api.events.put_nowait(None)
    await until(lambda: not api.watch_answers)
    api.put("a", role_arn=ROLE)
    await until(lambda: accounts.get("default", "a"))
    assert [record.getMessage().split(":")[0] for record in caplog.records if record.levelname == "WARNING"] == [
        "the watch on service accounts is tried again"
    ] * 2


async def test_a_pod_that_comes_just_after_its_account_gets_the_role(api, webhook):
    api.put("a", tell=False, role_arn=ROLE)  # created, but the watch has not reported it yet
    answer = (await webhook.post("/mutate", json=asking("a"))).json()
    assert answer["response"]["uid"] == "7"
    assert ROLE in base64.b64decode(answer["response"]["patch"]).decode()


async def test_the_webhook_waits_the_grace_period_for_a_new_account(api, webhook):
    asked = asyncio.create_task(webhook.post("/mutate", json=asking("a")))
    await asyncio.sleep(0)
    api.put("a", role_arn=ROLE)
    assert ROLE in base64.b64decode((await asked).json()["response"]["patch"]).decode()


async def test_a_pod_of_an_unknown_account_is_let_through_after_the_grace_period(accounts):
    async with client_of(accounts, grace=0.01) as webhook:
        answer = await webhook.post("/mutate", json=asking("nobody"))
    assert answer.json()["response"] == {"uid": "7", "allowed": True}


async def test_a_pod_that_comes_just_after_its_accounts_annotation_gets_the_role(api, accounts, webhook):
    api.put("a")
    await until(lambda: accounts.get("default", "a"))
    api.put("a", tell=False, role_arn=ROLE)  # annotated, but the watch has not reported it yet
    answer = (await webhook.post("/mutate", json=asking("a"))).json()
    assert ROLE in base64.b64decode(answer["response"]["patch"]).decode()


async def test_an_older_answer_does_not_replace_a_newer_event_of_the_watch(api, accounts, webhook):
    api.slow = asyncio.Event()
    asked = asyncio.create_task(webhook.post("/mutate", json=asking("a")))
    api.put("a", tell=False)
    await until(lambda: api.asked)
    api.put("a", role_arn=ROLE)
    await until(lambda: accounts.get("default", "a"))
    api.slow.set()
    assert ROLE in base64.b64decode((await asked).json()["response"]["patch"]).decode()


async def test_an_api_that_does_not_answer_does_not_block_a_pod(api, accounts, monkeypatch):
    monkeypatch.setattr("labkit.webhook.accounts.ASKING", 0.01)
    api.slow = asyncio.Event()
    async with client_of(accounts, grace=0.01) as webhook:
        answer = await webhook.post("/mutate", json=asking("a"))
    assert answer.json()["response"] == {"uid": "7", "allowed": True}


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(("content", "headers", "status", "says"), [
    (b"{}", {"content-type": "text/plain"}, 415, "Invalid Content-Type, expected `application/json`"),
    (b"{}", {}, 415, "Invalid Content-Type"),
    (b"{}", {"content-type": "application/json; charset=utf-8"}, 415, "Invalid Content-Type"),
    (b"", JSON, 200, "couldn't decode the body"),
    (b"{", JSON, 200, "couldn't decode the body"),
    (b"\xff\xfe{", JSON, 200, "couldn't decode the body"),
    (b"apiVersion: admission.k8s.io/v1", JSON, 200, "couldn't decode the body"),
    (b'{"apiVersion": NaN}', JSON, 200, "NaN is not a JSON number"),
    (b'{"apiVersion": 1e999}', JSON, 200, "1e999 is not a JSON number"),
    (b"[" * 100_000, JSON, 200, "couldn't decode the body"),
    (b"[]", JSON, 200, "bad content"),
    (b"null", JSON, 200, "bad content"),
    (b"{}", JSON, 200, "bad content"),
    (b'{"apiVersion": 1, "request": {"uid": "\\ud800", "object": []}}', JSON, 200, "has to be an object"),
    (b" " * (8 * 2**20 + 1), JSON, 413, "8388608 bytes at most"),
], ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else "")  # fmt: skip
async def test_anything_but_an_admission_review_is_refused(webhook, content, headers, status, says):
    answer = await webhook.post("/mutate", content=content, headers=headers)
    assert answer.status_code == status
    assert says in answer.text
    if status == 200:
        assert answer.json()["response"]["allowed"] is False


@pytest.mark.parametrize("half", ["\\ud800", b"\xed\xa0\x80".decode("latin-1")], ids=["escaped", "raw"])
async def test_a_review_with_half_a_surrogate_pair_is_allowed(webhook, half):
    content = json.dumps(asking("HALF")).replace("HALF", half).encode("latin-1")
    answer = await webhook.post("/mutate", content=content, headers=JSON)
    assert (answer.status_code, answer.json()["response"]["allowed"]) == (200, True)


async def test_a_deeply_nested_pod_is_patched_or_refused(api, accounts, webhook):
    api.put("a", role_arn=ROLE)
    await until(lambda: accounts.get("default", "a"))
    found = []
    for depth in (10, *range(850, 1000), 5000, 100_000):
        deep = json.dumps(asking("a")).replace('{"name": "app"}', '{"x": ' + "[" * depth + "]" * depth + "}")
        answer = await webhook.post("/mutate", content=deep, headers=JSON)
        assert answer.status_code == 200
        response = answer.json()["response"]
        assert response["allowed"] == ("patch" in response)
        found.append(response["allowed"])
    assert (found[0], found[-1]) == (True, False)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/mutate", 405), ("POST", "/healthz", 405), ("POST", "/", 404)]
)
async def test_other_methods_and_paths_are_refused(webhook, method, path, status):
    assert (await webhook.request(method, path)).status_code == status


async def test_a_review_is_one_log_line_without_the_pods_contents(api, accounts, webhook, caplog):
    caplog.set_level("INFO", "labkit.webhook")
    api.put("a", role_arn=ROLE)
    await until(lambda: accounts.get("default", "a"))
    asked = asking("a")
    asked["request"]["object"]["metadata"] = {"generateName": "my-\npod-"}
    asked["request"]["object"]["spec"]["containers"][0]["env"] = [{"name": "PASSWORD", "value": "hunter2"}]
    await webhook.post("/mutate", json=asked)
    await webhook.post("/mutate", json=asking("", "kube-system"))
    await webhook.post("/mutate", content=b"", headers=JSON)
    await webhook.post("/mutate", json={})
    lines = [record.getMessage() for record in caplog.records if record.name == "labkit.webhook.server"]
    assert lines == [
        "pod default/my-?pod-*, service account a: given the role",
        "pod kube-system/my-pod, service account (none): left unchanged: the account has no role",
        "refused: couldn't decode the body: Expecting value: line 1 column 1 (char 0)",
        "refused: bad content",
    ]


async def test_healthz_answers_ok(webhook):
    answer = await webhook.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok")


def test_the_webhook_configuration_has_the_url_ca_policy_and_skip_label():
    manifest = mutating_webhook_configuration("https://127.0.0.1:9443/mutate", b"PEM")

    assert manifest["metadata"]["name"] == "pod-identity-webhook"
    [webhook] = manifest["webhooks"]
    assert webhook["clientConfig"] == {"url": "https://127.0.0.1:9443/mutate", "caBundle": "UEVN"}
    assert (webhook["failurePolicy"], webhook["sideEffects"]) == ("Ignore", "None")
    assert webhook["objectSelector"] == {
        "matchExpressions": [{"key": "eks.amazonaws.com/skip-pod-identity-webhook", "operator": "DoesNotExist"}]
    }
    assert webhook["rules"][0]["operations"] == ["CREATE"]
