"""A trust policy that IAM refused: CloudTrail has recorded the refusal, and the doctor reports it."""

import json

import pytest

from tests.doctor.recording import NAME, ROLES_MADE, TRUST_WRITTEN, healthy
from tests.doctor.repairing import repaired
from tests.doctor.trusting import MISSING, document, examine, found, sub, trusting


def refused(answers, code, message, *, name="UpdateAssumeRolePolicy", at="2026-01-02T00:00:00Z"):
    """The answers with a recorded attempt to write the right trust policy, which IAM refused with this error."""
    written = document(healthy())
    text = json.dumps(written).replace(f'"{NAME}:', f'"https://{NAME}:') if "colon" in message else json.dumps(written)
    key = "policyDocument" if name.startswith("Update") else "assumeRolePolicyDocument"
    call = {"eventTime": at, "eventName": name, "errorCode": code, "errorMessage": message, "caller": ""}
    call["requestParameters"] = {"roleName": "my-role", key: text}
    return answers | {TRUST_WRITTEN if name.startswith("Update") else ROLES_MADE: [call]}


COLON = ("MalformedPolicyDocumentException", "Condition can contain only one colon.")
TOO_LONG = ("LimitExceededException", "Cannot exceed quota for ACLSizePerRole: 2048")


@pytest.mark.parametrize(("id", "answers"), [
    ("trust-policy-condition-key-with-scheme", refused(trusting(sub("default:a")), *COLON)),
    ("trust-policy-condition-key-with-scheme", refused(MISSING, *COLON, name="CreateRole")),
    ("trust-policy-too-long", refused(trusting(sub("default:a")), *TOO_LONG)),
    ("trust-policy-too-long", refused(MISSING, *TOO_LONG, name="CreateRole")),
])  # fmt: skip
def test_a_trust_policy_that_iam_refused_gives_one_finding_and_its_repair_mends_it(id, answers):
    (finding,) = examine(answers).findings
    assert finding.id == id
    assert "at 2026-01-02T00:00:00Z" in finding.source
    assert found(repaired(answers, finding.repair)) == []


@pytest.mark.parametrize("change", [
    # A refusal for another role, one with another error, and one that was followed by a success.
    lambda calls: calls[0]["requestParameters"].update(roleName="other"),
    lambda calls: calls[0].update(errorCode="AccessDenied"),
    lambda calls: calls.insert(0, {**calls[0], "errorCode": None}),
])  # fmt: skip
def test_an_old_or_unrelated_refusal_is_ignored(change):
    answers = refused(trusting(sub("default:a")), *COLON)
    change(answers[TRUST_WRITTEN])
    assert found(answers) == ["trust-policy-sub-mismatch"]


def test_a_policy_that_iam_accepted_for_a_deleted_role_is_ignored():
    answers = refused(MISSING, *COLON, name="CreateRole")
    (call,) = answers[ROLES_MADE]
    answers[TRUST_WRITTEN] = [{**call, "eventName": "UpdateAssumeRolePolicy", "errorCode": None}]
    assert found(answers) == ["trust-policy-condition-key-with-scheme"]


def test_the_doctor_looks_for_no_refusal_if_the_role_admits_the_service_account():
    answers = refused(healthy(), *COLON)
    diagnosis = examine(answers)
    assert list(diagnosis.findings) == []
    assert TRUST_WRITTEN not in diagnosis.looked


def test_a_wrong_subject_is_found_even_if_cloudtrail_cannot_be_read():
    answers = trusting(sub("default:a"))
    del answers[TRUST_WRITTEN]
    diagnosis = examine(answers)
    assert [finding.id for finding in diagnosis.findings] == ["trust-policy-sub-mismatch"]
    assert TRUST_WRITTEN in [error.call for error in diagnosis.unread]
