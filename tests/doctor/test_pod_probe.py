"""What is tried in the pod: its token, STS's answer to it, and who AWS says it is."""

import pytest

from labkit import doctor
from labkit.diagnosis.evidence import Evidence, Reads
from tests.doctor.applying import applied
from tests.doctor.recording import (
    ACCOUNT_ID,
    CALLER,
    CLAIMS,
    CONNECTION,
    EXCHANGE,
    PARAMETERS,
    PODS,
    ROLE_ARN,
    SERVICE_ACCOUNTS,
    TOKEN,
    a_pod,
    healthy,
)

REFUSED = {"arn": "", "error": "An error occurred (AccessDenied) when calling AssumeRoleWithWebIdentity"}
CALLS = f"cloudtrail:LookupEvents AssumeRoleWithWebIdentity ({ACCOUNT_ID})"


def examine(answers, **settings):
    return doctor.examine(Evidence(PARAMETERS, CONNECTION, reads=Reads(answers), **settings))


def changed(**calls):
    answers = healthy()
    for call, change in calls.items():
        answers[{"token": TOKEN, "exchange": EXCHANGE, "caller": CALLER}[call]] |= change
    return answers


def refusal(code, message="…"):
    return {"arn": "", "code": code, "message": message}


@pytest.mark.parametrize(
    ("id", "answers", "says"),
    [
        ("token-malformed", changed(token={"claims": {}, "malformed": "this has 5"}, caller=REFUSED), "this has 5"),
        (
            "token-unreadable",
            changed(token={"claims": {}, "unreadable": "cat: token: Permission denied"}, caller=REFUSED),
            "Permission denied",
        ),
        (
            "token-expired",
            changed(exchange=refusal("ExpiredTokenException", "Token expired: …"), caller=REFUSED),
            "ExpiredTokenException: Token expired: …",
        ),
        (
            "credentials-refused",
            changed(exchange=refusal("AccessDenied", "Not authorized"), caller=REFUSED),
            "AccessDenied: Not authorized",
        ),
        ("credentials-refused", changed(caller=REFUSED), REFUSED["error"]),
        (
            "credentials-of-another-identity",
            changed(caller={"arn": f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/blue-node-role/i-0123"}),
            "assumed-role/blue-node-role",
        ),
    ],
)
def test_what_the_pod_says_is_found_alone(id, answers, says):
    diagnosis = examine(answers)
    assert [finding.id for finding in diagnosis.findings] == [id]
    (finding,) = diagnosis.findings
    assert says in finding.found
    assert applied(answers, finding.repair)[PODS] != answers[PODS]


def test_without_leave_to_look_into_the_pod_nothing_of_it_is_said():
    diagnosis = examine(changed(token={"malformed": "this has 5"}, caller=REFUSED), probe=False)
    assert not diagnosis.findings
    assert {unread.needs for unread in diagnosis.unread} == {"--probe"}


def test_an_unreadable_token_is_given_a_group():
    answers = changed(token={"claims": {}, "unreadable": "cat: token: Permission denied"}, caller=REFUSED)
    (finding,) = examine(answers).findings
    assert applied(answers, finding.repair)[PODS][0]["spec"]["securityContext"] == {"fsGroup": 65534}


def test_a_container_s_own_words_tell_of_an_unreadable_token_without_a_look_into_it():
    said = "open /var/run/secrets/eks.amazonaws.com/serviceaccount/token: permission denied"
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    container = {"name": "aws", "state": state, "lastState": {"terminated": {"message": said}}}
    broken = a_pod() | {"status": {"phase": "Running", "containerStatuses": [container]}}
    (finding,) = examine(healthy() | {PODS: [broken]}, probe=False).findings
    assert (finding.id, finding.found) == ("token-unreadable", f"container aws: {said}")


def test_a_token_for_somebody_else_is_found_and_made_for_sts_again():
    answers = healthy()
    answers[SERVICE_ACCOUNTS][0]["metadata"]["annotations"]["eks.amazonaws.com/audience"] = "vault"
    answers[PODS][0]["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["audience"] = "vault"
    (finding,) = examine(answers, probe=False).findings
    assert (finding.id, finding.expected, finding.found) == ("token-audience-mismatch", "sts.amazonaws.com", "vault")
    assert not examine(applied(answers, finding.repair), probe=False).findings


def test_an_application_that_read_its_token_once_is_known_by_what_cloudtrail_has_of_it():
    late = {
        "errorCode": "ExpiredTokenException",
        "errorMessage": "Token expired: …",
        "eventTime": "2026-01-02T01:00:00Z",
        "requestParameters": {"roleArn": ROLE_ARN},
    }
    renewed = {**CLAIMS, "iat": CLAIMS["iat"] + 90000, "exp": CLAIMS["exp"] + 90000}
    answers = changed(token={"claims": renewed}) | {CALLS: [late]}
    (finding,) = examine(answers).findings
    assert (finding.id, finding.found) == (
        "token-read-once",
        "ExpiredTokenException: Token expired: … at 2026-01-02T01:00:00Z",
    )
    # An earlier pod sent that, which is gone.
    assert not examine(answers | {CALLS: [late | {"eventTime": "2025-12-31T23:00:00Z"}]}).findings
    # Of a token that has not been renewed CloudTrail is not asked.
    assert not examine(healthy() | {CALLS: [late]}).findings


@pytest.mark.parametrize("call", [TOKEN, CALLER])
def test_a_container_without_the_program_is_said_to_be_not_looked_at(call):
    answers = healthy()
    answers[call] |= {"no_program": True}
    diagnosis = examine(answers)
    assert not diagnosis.findings
    assert call in [unread.call for unread in diagnosis.unread]


def test_where_there_is_no_aws_in_the_pod_sts_is_asked_with_its_token():
    answers = changed(exchange=refusal("AccessDenied", "Not authorized"))
    answers[CALLER] |= {"no_program": True}
    assert [finding.id for finding in examine(answers).findings] == ["credentials-refused"]
