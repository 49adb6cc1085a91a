"""The watch on AWS calls: who calls which party, a call's details, and how new calls arrive."""

import threading

import pytest
from botocore.exceptions import ClientError
from kubernetes.client import CoreV1Api

from labkit.course.widgets import live
from labkit.course.widgets.trail import MOST, PARTIES, CallArrow, Watch

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"


def record(number=1, *, event="ListObjects", source="s3", identity=None, **more):
    """A record of a pod's call in the trail. Arguments replace its fields."""
    pod = {
        "type": "AssumedRole",
        "arn": "arn:aws:sts::123456789012:assumed-role/my-role/botocore-session-1",
        "sessionContext": {"webIdFederationData": {"federatedProvider": "arn:…"}},
    }
    return {
        "eventID": str(number),
        "eventTime": "2026-11-27T00:00:00Z",
        "eventSource": f"{source}.amazonaws.com",
        "eventName": event,
        "userIdentity": identity or pod,
        "lab": {"decision": "allowed", "reason": "because"},
        **more,
    }


@pytest.fixture
def trail():
    """A trail's records, oldest first, and a watch on them."""
    records = []
    return records, Watch(lambda: iter(records[::-1]), "0", lambda _: True)


def session(name, role="my-role"):
    """The identity of a session that wasn't made with a web identity."""
    return {"type": "AssumedRole", "arn": f"arn:aws:sts::123456789012:assumed-role/{role}/{name}", "sessionContext": {}}


NODE = session("i-0123456789abcdef0", role="node")
YOU = {"type": "IAMUser", "arn": "arn:aws:iam::123456789012:user/administrator"}
WEB = {"type": "WebIdentityUser", "userName": "system:serviceaccount:default:my-service-account"}


@pytest.mark.parametrize(("made", "arrow", "step"), [
    (record(), ("pod", "S3"), 10),
    (record(event="AssumeRoleWithWebIdentity", source="sts", identity=WEB), ("pod", "STS"), 7),
    (record(event="CreateRole", source="iam", identity=YOU), ("you", "IAM"), 2),
    (record(event="CreateOpenIDConnectProvider", source="iam", identity=YOU), ("you", "IAM"), 1),
    (record(event="ListBuckets", identity=NODE), ("node", "S3"), 0),
    (record(identity=session("eks-blue-my-pod-01234567-89ab-cdef-0123-456789abcdef")), ("pod", "S3"), 10),
    (record(identity=session("botocore-session-1", role="reader-of-another-account")), ("pod", "S3"), 10),
    (record(identity=session("me", role="OrganizationAccountAccessRole")), ("you", "S3"), 0),
    (record(event="SendMessage", source="sqs"), ("pod", "other"), 10),
    (record(identity={"type": "AWSAccount", "accountId": "ANONYMOUS_PRINCIPAL"}), ("you", "S3"), 0),
    ({}, ("you", "other"), 0),
])  # fmt: skip
def test_each_call_shows_its_sender_receiver_and_step(made, arrow, step):
    call = CallArrow.of(made, 1)
    assert (call.sender, call.receiver) == arrow and call.step == step
    assert {call.sender, call.receiver} <= set(PARTIES)


def test_an_opened_call_shows_request_answer_and_reason_without_secrets():
    credentials = {"accessKeyId": "ASIAR32JQFNRHPKRNA7V", "sessionToken": TOKEN}
    call = CallArrow.of(record(requestParameters={"token": TOKEN}, responseElements={"credentials": credentials}), 1)
    assert call.reason == "because" and '"accessKeyId": "<access key>"' in call.answer
    assert TOKEN not in str(call) and "ASIA" not in str(call)
    refused = CallArrow.of(record(errorCode="AccessDenied", errorMessage="<b>no</b>", lab={"reason": "why"}), 1)
    assert refused.refused and refused.answer == "AccessDenied: <b>no</b>"
    long = CallArrow.of(record(requestParameters={"key": "x" * 10_000}), 1)
    assert len(long.request) < 5000 and long.request.endswith("…")


def test_the_reader_returns_each_call_once(trail):
    records, watch = trail
    records += [record(0), record(1), record(2)]
    read = watch.reader()
    assert [call["number"] for call in read()] == [1, 2]
    assert read() == []
    records.append(record(3))
    assert [call["number"] for call in read()] == [3]
    records += [record(n) for n in range(10, 10 + MOST + 500)]
    newest = read()
    assert len(newest) == MOST and newest[0]["number"] > 4 and read() == []


def test_a_stored_watch_shows_the_pods_calls_or_a_hint_if_no_pod_has_called(trail):
    records, watch = trail
    assert "No pod has called AWS yet" in repr(watch) and "next:  run a cell" in repr(watch)
    records += [record(1, identity=YOU), record(2), record(3, errorCode="AccessDenied", lab={})]
    assert repr(watch).splitlines()[1:] == [
        "pod → S3  ListObjects  allowed       step 10",
        "pod → S3  ListObjects  AccessDenied  step 10",
    ]
    records.append(record(4, event="<script>"))
    assert "<script>" not in watch._repr_html_() and "&lt;script&gt;" in watch._repr_html_()


def test_without_a_trail_the_watch_says_where_to_find_the_calls(monkeypatch):
    monkeypatch.setattr(live, "_in_kernel", lambda: True)
    bundle = Watch(None, None, bool, "No trail here: aws cloudtrail lookup-events")._repr_mimebundle_()
    assert live.VIEW not in bundle
    assert "lookup-events" in bundle["text/plain"] and "lookup-events" in bundle["text/html"]


def test_the_page_gets_new_calls_while_a_browser_shows_it(trail, monkeypatch):
    records, watch = trail
    (page,) = watch.panel().children
    sent, arrived = [], threading.Semaphore(0)
    monkeypatch.setattr(page, "send", lambda message: sent.append(message) or arrived.release())
    assert threading.active_count() and page._thread is None  # nothing reads the trail before a browser asks

    def numbers():
        assert arrived.acquire(timeout=30)
        return [call["number"] for call in sent.pop(0)["calls"]]

    page._handle_custom_msg("watch", [])
    assert numbers() == []
    records.append(record(1))
    assert numbers() == [1]
    page._handle_custom_msg("watch", [])  # the page was opened again
    assert numbers() == [1]
    page._handle_custom_msg("leave", [])
    page._thread.join(30)
    assert not page._thread.is_alive()


def test_the_page_says_that_the_trail_cannot_be_read(monkeypatch):
    def broken():
        raise OSError("gone")

    (page,) = Watch(broken, None, bool).panel().children
    sent, arrived = [], threading.Semaphore(0)
    monkeypatch.setattr(page, "send", lambda message: sent.append(message) or arrived.release())
    page._handle_custom_msg("watch", [])
    assert arrived.acquire(timeout=30) and arrived.acquire(timeout=30)
    assert sent == [{"calls": []}, {"failed": "OSError: gone"}]


def test_a_lab_s_watch_shows_its_pod_s_calls(lab):
    lab.ready(through="pod")
    watch = lab.watch()
    lab.check("credentials")
    assert [call.event for call in watch.calls][-2:] == ["AssumeRoleWithWebIdentity", "GetCallerIdentity"]
    assert {call.sender for call in watch.calls} == {"pod"}


def test_a_refused_call_opens_to_the_answer_that_its_caller_got(lab):
    lab.ready(through="iam_role")
    wanted = {"spec": {"audiences": ["sts.amazonaws.com"]}}
    token = CoreV1Api(lab.kubernetes).create_namespaced_service_account_token("default", "default", wanted).status.token
    request = {"RoleArn": lab.role_arn, "RoleSessionName": "refused", "WebIdentityToken": token}
    with pytest.raises(ClientError) as refused:
        lab.aws.client("sts").assume_role_with_web_identity(**request)
    error = refused.value.response["Error"]
    # CloudTrail's own record has "An unknown error occurred" here.
    assert lab.watch().calls[-1].answer == f"{error['Code']}: {error['Message']}"
    with pytest.raises(ClientError):
        lab.aws.client("s3").head_object(Bucket=lab.parameters.bucket, Key="missing")
    read = lab.watch().reader()()
    assert [call["answer"] for call in read if call["event"] == "HeadObject"][-1:] == ["404"]
