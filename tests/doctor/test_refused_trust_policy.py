"""A trust policy that IAM refused to take: CloudTrail has the refusal, and the doctor shows it."""

import json

import pytest

from tests.doctor.recording import (
    NAME,
    ROLES_MADE,
    TRUST_WRITTEN,
    healthy,
)
from tests.doctor.repairing import repaired
from tests.doctor.trusting import MISSING, document, examine, found, sub, trusting


def refused(answers, code, message, *, name="UpdateAssumeRolePolicy", at="2026-01-02T00:00:00Z"):
    """A try to write the right trust policy, with the condition's keys as the answers have them."""
    written = document(healthy())
    text = json.dumps(written).replace(f'"{NAME}:', f'"https://{NAME}:') if "colon" in message else json.dumps(written)
    key = "policyDocument" if name.startswith("Update") else "assumeRolePolicyDocument"
    call = {"eventTime": at, "eventName": name, "errorCode": code, "errorMessage": message, "caller": ""}
    call["requestParameters"] = {"roleName": "my-role", key: text}
    return answers | {TRUST_WRITTEN if name.startswith("Update") else ROLES_MADE: [call]}


COLON = ("MalformedPolicyDocumentException", "Condition can contain only one colon.")
TOO_LONG = ("LimitExceededException", "Cannot exceed quota for ACLSizePerRole: 2048")


@pytest.mark.parametrize(
    ("id", "answers"),
    [
        ("trust-policy-condition-key-with-scheme", refused(trusting(sub("default:a")), *COLON)),
        ("trust-policy-condition-key-with-scheme", refused(MISSING, *COLON, name="CreateRole")),
        ("trust-policy-too-long", refused(trusting(sub("default:a")), *TOO_LONG)),
        ("trust-policy-too-long", refused(MISSING, *TOO_LONG, name="CreateRole")),
    ],
)
def test_a_trust_policy_that_iam_refused_is_what_is_wrong(id, answers):
    (finding,) = examine(answers).findings
    assert finding.id == id
    assert "at 2026-01-02T00:00:00Z" in finding.source
    assert found(repaired(answers, finding.repair)) == []


@pytest.mark.parametrize(
    "change",
    [
        # Another role's, one that was refused for something else, and one after which another was taken.
        lambda calls: calls[0]["requestParameters"].update(roleName="other"),
        lambda calls: calls[0].update(errorCode="AccessDenied"),
        lambda calls: calls.insert(0, {**calls[0], "errorCode": None}),
    ],
)
def test_an_old_refusal_or_one_of_another_kind_explains_nothing(change):
    answers = refused(trusting(sub("default:a")), *COLON)
    change(answers[TRUST_WRITTEN])
    assert found(answers) == ["trust-policy-sub-mismatch"]


def test_what_was_written_to_a_role_before_it_went_does_not_count():
    answers = refused(MISSING, *COLON, name="CreateRole")
    (call,) = answers[ROLES_MADE]
    answers[TRUST_WRITTEN] = [{**call, "eventName": "UpdateAssumeRolePolicy", "errorCode": None}]
    assert found(answers) == ["trust-policy-condition-key-with-scheme"]


def test_a_refused_try_is_not_looked_for_where_the_role_admits_the_account():
    answers = refused(healthy(), *COLON)
    diagnosis = examine(answers)
    assert list(diagnosis.findings) == []
    assert TRUST_WRITTEN not in diagnosis.looked


def test_the_fault_is_found_without_reading_cloudtrail():
    answers = trusting(sub("default:a"))
    del answers[TRUST_WRITTEN]
    diagnosis = examine(answers)
    assert [finding.id for finding in diagnosis.findings] == ["trust-policy-sub-mismatch"]
    assert TRUST_WRITTEN in [error.call for error in diagnosis.unread]
