"""Watches: no event is lost, and none comes twice."""

import json
from collections.abc import Iterator

import httpx
import pytest
from kubernetes import client, watch

from labkit.simulator.clock import Clock


def lines(answer: httpx.Response) -> Iterator[dict]:
    for line in answer.iter_lines():
        yield json.loads(line)


@pytest.fixture
def config_maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def test_a_watch_sends_existing_objects_and_then_each_change(admin: httpx.Client, config_maps: str):
    with admin.stream("GET", config_maps, params={"watch": "true"}) as answer:
        events = lines(answer)
        assert next(events)["object"]["metadata"]["name"] == "kube-root-ca.crt"
        admin.post(config_maps, json={"metadata": {"name": "a"}})
        admin.put(f"{config_maps}/a", json={"metadata": {"name": "a"}, "data": {"n": "1"}})
        admin.delete(f"{config_maps}/a")
        seen = [next(events) for _ in range(3)]
    assert [event["type"] for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert {event["object"]["kind"] for event in seen} == {"ConfigMap"}
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen]
    assert versions == sorted(set(versions))


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "HEAD", "PROPFIND"])
@pytest.mark.parametrize("path", ["", "/kube-root-ca.crt"])
def test_only_get_watches(admin: httpx.Client, config_maps: str, method: str, path: str):
    answer = admin.request(method, f"{config_maps}{path}", params={"watch": "1", "timeoutSeconds": 1})
    assert answer.status_code == 405
    if method != "HEAD":
        assert answer.json()["reason"] == "MethodNotAllowed"


def test_a_watch_resumes_from_a_resource_version(admin: httpx.Client, config_maps: str):
    version = admin.get(config_maps).json()["metadata"]["resourceVersion"]
    admin.post(config_maps, json={"metadata": {"name": "a"}})
    admin.delete(f"{config_maps}/a")
    query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": 1}
    with admin.stream("GET", config_maps, params=query) as answer:
        assert [event["type"] for event in lines(answer)] == ["ADDED", "DELETED"]


def test_a_watch_from_an_unknown_resource_version_is_expired(admin: httpx.Client, config_maps: str):
    query = {"watch": "1", "resourceVersion": "99999999", "timeoutSeconds": 1}
    with admin.stream("GET", config_maps, params=query) as answer:
        (event,) = lines(answer)
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")


def test_a_watch_reports_an_object_that_no_longer_matches_as_deleted(admin: httpx.Client, config_maps: str):
    query = {"watch": "1", "labelSelector": "app=a"}
    body = {"metadata": {"name": "a", "labels": {"app": "a"}}}
    with admin.stream("GET", config_maps, params=query) as answer:
        events = lines(answer)
        admin.post(config_maps, json=body)
        admin.put(f"{config_maps}/a", json={"metadata": {"name": "a", "labels": {"app": "b"}}})
        admin.put(f"{config_maps}/a", json=body)
        seen = [(event["type"], event["object"]["metadata"]["labels"]["app"]) for _, event in zip(range(3), events)]
    assert seen == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a")]


def test_the_server_unsubscribes_a_watch_client_that_disconnects(admin: httpx.Client, config_maps: str, cluster):
    kind = next(kind for kind in cluster.api.storage.subscribers if kind.kind == "ConfigMap")
    before = len(cluster.api.storage.subscribers[kind])
    with admin.stream("GET", config_maps, params={"watch": "1"}) as answer:
        events = lines(answer)  # the answer is closed with the last reference to its lines
        next(events)
        assert len(cluster.api.storage.subscribers[kind]) == before + 1
    for n in range(200):  # the server notices only when it next uses the connection
        admin.post(config_maps, json={"metadata": {"name": f"a{n}"}})
        if len(cluster.api.storage.subscribers[kind]) == before:
            break
    assert len(cluster.api.storage.subscribers[kind]) == before


def test_initial_events_end_with_a_bookmark(admin: httpx.Client, config_maps: str):
    query = {
        "watch": "1",
        "sendInitialEvents": "true",
        "allowWatchBookmarks": "true",
        "resourceVersionMatch": "NotOlderThan",
    }
    with admin.stream("GET", config_maps, params=query) as answer:
        events = lines(answer)
        assert next(events)["type"] == "ADDED"
        mark = next(events)
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


ALONE = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
UNMATCHED = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
CONTINUED = "resourceVersionMatch is forbidden when continue is provided"


@pytest.mark.parametrize(("query", "told"), [
    ("watch=1&resourceVersionMatch=NotOlderThan", [ALONE]),
    ("watch=1&resourceVersionMatch=foo", [ALONE, ("foo", '"NotOlderThan"')]),
    ("watch=1&sendInitialEvents=true", [UNMATCHED]),
    ("watch=1&sendInitialEvents=false", [UNMATCHED]),
    ("watch=1&sendInitialEvents=true&resourceVersionMatch=Exact", [UNMATCHED, ("Exact", '"NotOlderThan"')]),
    ("watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=a", [CONTINUED]),
    ("resourceVersionMatch=Exact", ["resourceVersionMatch is forbidden unless resourceVersion is provided"]),
    ("resourceVersionMatch=foo&resourceVersion=1", [("foo", '"Exact", "NotOlderThan", ""')]),
    ("resourceVersionMatch=NotOlderThan&resourceVersion=1&continue=a", [CONTINUED]),
    ("resourceVersionMatch=Exact&resourceVersion=0",
     ['resourceVersionMatch "exact" is forbidden for resourceVersion "0"']),
])  # fmt: skip
def test_list_options_that_contradict_each_other_are_refused(admin, config_maps, query, told):
    causes = [
        {"reason": "FieldValueForbidden", "message": f"Forbidden: {each}", "field": "resourceVersionMatch"}
        if isinstance(each, str)
        else {
            "reason": "FieldValueNotSupported",
            "message": f'Unsupported value: "{each[0]}": supported values: {each[1]}',
            "field": "resourceVersionMatch",
        }
        for each in told
    ]
    answer = admin.get(f"{config_maps}?{query}&timeoutSeconds=1")
    assert answer.status_code == 422
    assert answer.json()["details"] == {"group": "meta.k8s.io", "kind": "ListOptions", "causes": causes}
    texts = ", ".join(f"{cause['field']}: {cause['message']}" for cause in causes)
    texts = f"[{texts}]" if len(causes) > 1 else texts
    assert answer.json()["message"] == f'ListOptions.meta.k8s.io "" is invalid: {texts}'
    assert admin.delete(f"{config_maps}?{query}").json() == answer.json()
    query = "resourceVersionMatch=NotOlderThan&resourceVersion=0"
    assert [each["metadata"]["name"] for each in admin.get(f"{config_maps}?{query}").json()["items"]] == [
        "kube-root-ca.crt"
    ]


def test_send_initial_events_is_refused_for_a_list(admin: httpx.Client, config_maps: str):
    answer = admin.get(config_maps, params={"sendInitialEvents": "true"})
    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")
    assert answer.json()["message"] == (
        'ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list'
    )


def test_the_python_client_watches_service_accounts(typed: client.CoreV1Api, namespace: str):
    names = []
    stream = watch.Watch()
    typed.create_namespaced_service_account(namespace, {"metadata": {"name": "first"}})
    for event in stream.stream(typed.list_namespaced_service_account, namespace, timeout_seconds=20):
        names.append((event["type"], event["object"].metadata.name))
        if len(names) == 2:
            typed.create_namespaced_service_account(namespace, {"metadata": {"name": "second"}})
        if len(names) == 3:
            stream.stop()
    assert names == [("ADDED", "default"), ("ADDED", "first"), ("ADDED", "second")]


def test_events_expire_an_hour_after_their_last_change(admin: httpx.Client, namespace: str, lab_time: Clock):
    events = f"/api/v1/namespaces/{namespace}/events"
    about = {"kind": "Pod", "namespace": namespace, "name": "a"}
    # An event written while the clock was ahead must not keep the others from expiring.
    lab_time.advance(days=1)
    admin.post(events, json={"metadata": {"name": "ahead.1"}, "involvedObject": about, "reason": "A"})
    lab_time.advance(days=-1)
    made = admin.post(events, json={"metadata": {"name": "a.1"}, "involvedObject": about, "reason": "A"})
    assert made.status_code == 201
    lab_time.advance(minutes=50)
    patch = {"count": 2}
    admin.patch(f"{events}/a.1", json=patch, headers={"Content-Type": "application/merge-patch+json"})
    lab_time.advance(minutes=50)
    assert admin.get(f"{events}/a.1").status_code == 200
    version = made.json()["metadata"]["resourceVersion"]
    with admin.stream("GET", events, params={"watch": "true", "resourceVersion": version}, timeout=60) as answer:
        seen = lines(answer)
        assert next(seen)["type"] == "MODIFIED"
        lab_time.advance(minutes=11)
        assert next(seen)["type"] == "DELETED"
    assert [event["metadata"]["name"] for event in admin.get(events).json()["items"]] == ["ahead.1"]
