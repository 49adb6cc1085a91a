"""The answers that notebooks show are the same in every run, and hold no secret."""

import datetime
import json
import pickle
from pathlib import Path

import pytest

from labkit import expect_denied
from labkit.course import Calls, Check
from labkit.doctor import Comparison
from labkit.errors import LabError, NotDenied, UnknownName
from labkit.showing import as_text, show, stable


def test_an_answer_of_boto3_is_shown_without_secrets_and_dates():
    answer = {
        "Credentials": {
            "AccessKeyId": "ASIAQWERTYUIOPASDFGH",
            "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG",
            "SessionToken": "FwoGZXIvYXdzEBY",
            "Expiration": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        },
        "AssumedRoleUser": {"Arn": "arn:aws:sts::123456789012:assumed-role/my-role/botocore-session-17"},
        "ResponseMetadata": {"RequestId": "x"},
    }
    assert json.loads(as_text(answer)) == {
        "Credentials": {
            "AccessKeyId": "<access key>",
            "SecretAccessKey": "<secret access key>",
            "SessionToken": "<session token>",
            "Expiration": "<expiration>",
        },
        "AssumedRoleUser": {"Arn": "arn:aws:sts::123456789012:assumed-role/my-role/<session name>"},
    }


@pytest.mark.parametrize(("text", "shown"), [
    ("token eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.c2ln end", "token <token> end"),
    ("AKIAABCDEFGHIJKLMNOP", "<access key>"),
    ("2026-11-24 23:48:01 irsa-lab", "<date> irsa-lab"),
    ("2026-11-24T23:48:01.123Z", "<date>"),
    ("https://127.0.0.1:40123/api", "https://127.0.0.1:<port>/api"),
    ("6f1c2a34-0000-4000-8000-123456789abc", "<id>"),
    ("current date/time 1764028081 must be before the expiration date/time 1764024481",
     "current date/time <now> must be before the expiration date/time <expiration>"),
    (f"{Path.home()}/x", "~/x"),
    ("arn:aws:iam::123456789012:role/my-role", "arn:aws:iam::123456789012:role/my-role"),
])  # fmt: skip
def test_a_value_that_differs_between_runs_becomes_a_placeholder(text, shown):
    assert stable(text) == shown


def test_labkit_live_shows_sessions_dates_ports_and_a_tokens_start_but_no_secret(monkeypatch):
    made = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    token = "eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.c2ln"
    answer = {
        "Arn": "arn:aws:sts::123456789012:assumed-role/my-role/botocore-session-17",
        "Expiration": made,
        "exp": 1764028081,
        "token": token,
        "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG",
        "SessionToken": "FwoGZXIvYXdzEBY",
        "said": f"2026-11-24 23:48:01 http://127.0.0.1:40123 {token}",
    }
    masked = as_text(answer)
    assert all(text not in masked for text in ("2026", "botocore", "eyJ", "40123"))
    monkeypatch.setenv("LABKIT_LIVE", "1")
    assert json.loads(as_text(answer)) == {
        "Arn": "arn:aws:sts::123456789012:assumed-role/my-role/botocore-session-17",
        "Expiration": "2026-01-01 00:00:00+00:00",
        "exp": 1764028081,
        "token": "eyJhbGciOiJS…",
        "SecretAccessKey": "<secret access key>",
        "SessionToken": "<session token>",
        "said": "2026-11-24 23:48:01 http://127.0.0.1:40123 eyJhbGciOiJS…",
    }
    arn = "arn:aws:sts::123456789012:assumed-role/my-role/botocore-session-17"
    calls = Calls([{"eventName": "ListBuckets", "userIdentity": {"arn": arn}, "lab": {"decision": "allowed"}}])
    assert "my-role/botocore-session-17" in repr(calls)
    assert len(calls.only(who="my-role")) == 1


def test_an_object_of_kubernetes_is_shown_as_its_manifest():
    from kubernetes.client import V1ObjectMeta, V1ServiceAccount

    account = V1ServiceAccount(metadata=V1ObjectMeta(name="a", uid="1", annotations={"k": "v"}))
    assert json.loads(as_text(account)) == {"metadata": {"name": "a", "uid": "<uid>", "annotations": {"k": "v"}}}


def test_an_answer_is_shown_with_its_command(capsys):
    show("2026-11-24 23:48:01 irsa-lab\n", command="aws s3 ls")
    assert capsys.readouterr().out == "$ aws s3 ls\n<date> irsa-lab\n"


def refusal(code, message="User: arn:aws:sts::1:assumed-role/my-role/s1 is not authorized"):
    from botocore.exceptions import ClientError

    return ClientError({"Error": {"Code": code, "Message": message}}, "PutObject")


def test_an_expected_denial_passes_and_prints_what_aws_said(capsys):
    with expect_denied("AccessDenied"):
        raise refusal("AccessDenied")
    assert capsys.readouterr().out == (
        "AccessDenied: User: arn:aws:sts::1:assumed-role/my-role/<session name> is not authorized\n"
    )


def test_an_expected_denial_fails_if_aws_allows_the_call():
    with pytest.raises(NotDenied, match="expected AccessDenied, but AWS allowed it"), expect_denied("AccessDenied"):
        pass


def test_an_expected_denial_fails_on_another_code():
    with pytest.raises(NotDenied, match="expected AccessDenied, but AWS said ExpiredToken"), expect_denied():
        raise refusal("ExpiredToken")


def test_an_expected_denial_lets_other_errors_through():
    with pytest.raises(KeyError), expect_denied("AccessDenied"):
        raise KeyError("not a refusal")


def test_a_check_shows_expected_beside_found():
    check = Check(
        "pod", "the pod", [Comparison("pod", "Running", "Pending"), Comparison("token for", "sts", "sts")], []
    )
    assert not check
    assert repr(check) == (
        "✗ wrong: the pod\n"
        "  ✗ wrong  pod        expected  Running\n"
        "                      found     Pending\n"
        "  ✓ right  token for  sts"
    )
    assert "<td><code>Running</code></td><td><code>Pending</code></td>" in check._repr_html_()


@pytest.mark.parametrize(("expected", "found", "part"), [
    ("system:serviceaccount:default:cart", "system:serviceaccount:staging:cart", "staging"),
    ("system:serviceaccount:shop:cart", "system:serviceaccount:shop:card", "card"),
    ("arn:aws:iam::123456789012:role/my-role", "arn:aws:iam::123456789012:role/my-role-2", "my-role-2"),
    ("system:serviceaccount:shop:cart", "system:serviceaccount:cart", "cart"),
    ("my-service-account", "default", ""),  # they share their last letter, but no whole word
    ("admits the service account", "does not admit it", ""),
])  # fmt: skip
def test_a_check_marks_the_whole_words_that_differ(expected, found, part):
    check = Check("role", "the role", [Comparison("subject", expected, found)], [])
    carets = repr(check).splitlines()[-1].strip() if part else ""
    assert carets == "^" * len(part) and ("^" in repr(check)) == bool(part)
    assert ("<u><strong>" + part + "</strong></u>" in check._repr_html_()) == bool(part)


def test_html_in_a_found_value_is_shown_as_text():
    check = Check("pod", "the pod", [Comparison("pod", "Running", "<script>")], [])
    assert "<script>" not in check._repr_html_()


RECORDS = [
    {"eventName": "AssumeRoleWithWebIdentity", "userIdentity": {"type": "WebIdentityUser",
            "userName": "system:serviceaccount:default:my-service-account"},
     "lab": {"decision": "allowed", "reason": "statement 1 allows it"}},
    {"eventName": "PutObject",
     "userIdentity": {"arn": "arn:aws:sts::123456789012:assumed-role/my-role/botocore-session-1"},
     "errorCode": "AccessDenied", "lab": {"decision": "denied", "reason": "no policy allows s3:PutObject"}},
]  # fmt: skip


def test_the_trail_is_a_table_without_ids():
    assert repr(Calls(RECORDS)).splitlines()[1:] == [
        "AssumeRoleWithWebIdentity  system:serviceaccount:default:my-service-account  allowed       "
        "statement 1 allows it",
        "PutObject                  my-role                                           AccessDenied  "
        "no policy allows s3:PutObject",
    ]
    assert len(Calls(RECORDS).only(who="my-role")) == 1
    assert Calls(RECORDS).only(last=1).rows[0][0] == "PutObject"
    assert repr(Calls([])) == "no call"


def test_a_call_that_failed_with_its_permissions_shows_why_it_failed():
    record = {
        "eventName": "GetRole",
        "userIdentity": {"type": "IAMUser", "userName": "administrator"},
        "errorCode": "NoSuchEntityException",
        "lab": {
            "decision": "allowed",
            "code": "NoSuchEntity",
            "message": "The role with name x cannot be found.",
            "reason": "the administrator may do everything",
        },
    }
    assert Calls([record]).rows == [
        (
            "GetRole",
            "administrator",
            "NoSuchEntity",
            "The role with name x cannot be found. (permitted: the administrator may do everything)",
        )
    ]


def test_ipython_shows_an_error_of_the_lab_without_a_traceback():
    error = LabError("the role is missing", where="iam:GetRole", next='lab.ready(through="iam_role")')
    assert error._render_traceback_() == [
        'LabError: the role is missing\nwhere: iam:GetRole\nnext:  lab.ready(through="iam_role")'
    ]


def test_an_error_of_the_lab_passes_from_one_process_to_another():
    error = UnknownName("step", "pood", ["pod", "iam_role"], where="lab.ready")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.nearest, type(again)) == (str(error), "pod", UnknownName)
