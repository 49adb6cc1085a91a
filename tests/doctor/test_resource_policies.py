"""What the doctor says of an action whose answer depends on the resource's policy, or on values of the pod's call."""

import json
from dataclasses import replace

import pytest

from labkit import doctor
from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, Reads
from labkit.errors import NotAllowed
from tests.doctor.recording import ACCOUNT_ID, BUCKET_POLICY, CONNECTION, PARAMETERS, ROLE, ROLE_ARN, healthy
from tests.doctor.test_permissions import (
    BUCKET,
    READ_ONLY,
    WANTED,
    allow,
    deny,
    document,
    examine,
    found,
    inline,
    policy,
)

KEY = f"arn:aws:kms:us-east-1:{ACCOUNT_ID}:key/1"
OUTSIDE = {"StringNotEquals": {"aws:SourceVpce": "vpce-1"}}
EVERYBODY = {"Principal": "*"}
OF_ROLE = {"Principal": {"AWS": ROLE_ARN}}
OF_ACCOUNT = {"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT_ID}:root"}}
RESOURCES = {
    "kms:Decrypt": (KEY, "kms:GetKeyPolicy 1"),
    "sqs:SendMessage": (f"arn:aws:sqs:us-east-1:{ACCOUNT_ID}:q", "sqs:GetQueueAttributes q"),
    "sns:Publish": (f"arn:aws:sns:us-east-1:{ACCOUNT_ID}:t", "sns:GetTopicAttributes t"),
    "secretsmanager:GetSecretValue": (
        f"arn:aws:secretsmanager:us-east-1:{ACCOUNT_ID}:secret:a/b-1",
        "secretsmanager:GetResourcePolicy secret:a/b-1",
    ),
    "dynamodb:GetItem": (f"arn:aws:dynamodb:us-east-1:{ACCOUNT_ID}:table/t", "dynamodb:GetResourcePolicy t"),
    "ecr:BatchGetImage": (f"arn:aws:ecr:us-east-1:{ACCOUNT_ID}:repository/a/b", "ecr:GetRepositoryPolicy a/b"),
    "s3:ListBucket": (BUCKET, "s3:GetBucketPolicy irsa-lab"),
}


def asked(action, *statements, decision="allowed", missing=(), resource=""):
    """The answers about an action on a resource with this policy, and the settings that ask for it."""
    arn, call = RESOURCES[action]
    arn = resource or arn
    simulated = f"iam:SimulatePrincipalPolicy {ROLE_ARN} {action} {arn} ({ACCOUNT_ID})"
    answers = healthy() | inline(own=policy(allow("*"))) | document(READ_ONLY, policy())
    answers[simulated] = {"EvalDecision": decision, "MissingContextValues": [*missing]}
    answers[f"{call} ({ACCOUNT_ID})"] = json.dumps(policy(*statements)) if statements else None
    return answers, {"action": action, "resource": arn}


def result(answers, settings):
    """The findings' ids without warnings, and why the permissions have no tick."""
    seen = examine(answers, **settings)
    ids = [finding.id for finding in seen.findings if finding.severity == "error"]
    return ids, seen.checks[stages.PERMISSIONS].missing, seen.headline[:1]


@pytest.mark.parametrize("action", RESOURCES)
def test_a_condition_on_the_pods_network_gives_no_tick_and_its_name(action):
    answers, settings = asked(action, allow("*", **OF_ROLE), deny("*", Condition=OUTSIDE, **EVERYBODY))
    answers[f"iam:ListRolePolicies my-role ({ACCOUNT_ID})"] = []
    assert result(answers, settings) == ([], ["depends on aws:SourceVpce"], "·")
    assert examine(answers, **settings).exit_code == 0
    assert "\nDepends on aws:SourceVpce: statement 2 of the policy of " in repr(examine(answers, **settings))


@pytest.mark.parametrize("action", RESOURCES)
def test_a_policy_that_may_not_be_read_is_listed_as_unread(action):
    answers, settings = asked(action)
    call = f"{RESOURCES[action][1]} ({ACCOUNT_ID})"
    del answers[call]
    assert result(answers, settings)[:2] == ([], [call])
    assert examine(answers, **settings).exit_code == 2


@pytest.mark.parametrize("action", [each for each in RESOURCES if each != "s3:ListBucket"])
def test_a_deny_of_the_resource_is_an_error_without_a_command(action):
    answers, settings = asked(action, allow("*", **OF_ACCOUNT), deny("*", **EVERYBODY))
    assert result(answers, settings)[0] == ["role-not-admitted-by-resource-policy"]
    finding, *_ = examine(answers, **settings).findings
    assert all(line.startswith("#") for line in finding.repair.splitlines())


@pytest.mark.parametrize(("statements", "ids"), [
    ([allow("kms:*", Principal={"AWS": f"arn:aws:iam::{ACCOUNT_ID}:role/other"})],
     ["role-not-admitted-by-resource-policy"]),
    ([allow("kms:*", **OF_ACCOUNT)], []),
    ([allow("kms:*", **OF_ROLE)], []),
    ([], ["role-not-admitted-by-resource-policy"]),
])  # fmt: skip
def test_a_key_has_to_admit_the_role_or_its_account(statements, ids):
    assert result(*asked("kms:Decrypt", *statements))[0] == ids


@pytest.mark.parametrize(("action", "resource"), [
    ("kms:Decrypt", f"arn:aws:kms:us-east-1:{ACCOUNT_ID}:alias/app"),
    ("kms:Decrypt", f"arn:aws:kms:us-east-1:{ACCOUNT_ID}:key/*"),
    ("secretsmanager:GetSecretValue", f"arn:aws:secretsmanager:us-east-1:{ACCOUNT_ID}:secret:a/*"),
    ("sqs:SendMessage", f"arn:aws:sqs:us-east-1:{ACCOUNT_ID}:job?"),
])  # fmt: skip
def test_a_resource_that_is_not_one_gives_no_tick(action, resource):
    answers, settings = asked(action, resource=resource)
    answers[f"iam:ListRolePolicies my-role ({ACCOUNT_ID})"] = []
    assert result(answers, settings) == ([], [f"the policy of {resource}"], "!")
    assert examine(answers, **settings).exit_code == 2


def test_a_queue_of_the_roles_account_need_not_admit_it_but_it_may():
    assert result(*asked("sqs:SendMessage", allow("*", Principal={"AWS": "111111111111"})))[0] == []
    assert result(*asked("sqs:SendMessage", allow("*", **OF_ROLE), decision="implicitDeny"))[0] == []
    # If the policy admits only the account, then the role's policies still decide.
    answers, settings = asked("sqs:SendMessage", allow("*", **OF_ACCOUNT), decision="implicitDeny")
    answers |= inline(own=policy(allow("s3:*")))
    assert result(answers, settings)[0] == ["role-lacks-permission"]


@pytest.mark.parametrize(("statements", "decision", "missing"), [
    ([allow("s3:*", Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})], "implicitDeny", ["aws:SourceIp"]),
    ([allow("s3:*"), deny("*", Condition={"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}})], "explicitDeny",
     ["aws:SourceIp"]),
    ([allow("s3:*"), deny("*", Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})], "allowed",
     ["aws:SourceIp"]),
    ([allow("s3:*"), deny("*", Condition={"Null": {"aws:SourceVpce": "true"}})], "explicitDeny", ["aws:SourceVpce"]),
])  # fmt: skip
def test_a_condition_of_the_roles_own_policy_on_the_pods_network_is_not_an_error(statements, decision, missing):
    answers, settings = asked("s3:ListBucket", decision=decision, missing=missing)
    answers |= inline(own=policy(*statements))
    assert result(answers, settings) == ([], [f"depends on {missing[0]}"], "·")


def test_an_expired_date_is_an_error():
    expired = {"DateLessThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}
    answers, settings = asked("s3:ListBucket", decision="implicitDeny")
    answers |= inline(own=policy(allow("s3:*", Condition=expired)))
    answers |= {f"iam:GetPolicyVersion arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess ({ACCOUNT_ID})": policy()}
    assert result(answers, settings)[0] == ["role-lacks-permission"]


@pytest.mark.parametrize(("pattern", "ids"), [
    ("AROAEXAMPLE:*", []),
    ("AROAANOTHER:*", ["role-denied-by-bucket-policy"]),
])  # fmt: skip
def test_a_bucket_that_admits_only_one_roles_id_denies_the_others(pattern, ids):
    answers = healthy() | {BUCKET_POLICY: json.dumps(policy(
        deny("s3:*", [BUCKET], **EVERYBODY, Condition={"StringNotLike": {"aws:userId": [pattern]}})))}  # fmt: skip
    answers[ROLE] = answers[ROLE] | {"RoleId": "AROAEXAMPLE"}
    assert found(answers) == ids
    organization = {"StringNotEquals": {"aws:PrincipalOrgID": "o-1"}}
    answers[BUCKET_POLICY] = json.dumps(policy(deny("s3:*", [BUCKET], **EVERYBODY, Condition=organization)))
    # Without the organization's id, nobody can say.
    assert found(answers) == []
    assert examine(answers | asked("s3:ListBucket", deny("s3:*", [BUCKET], **EVERYBODY, Condition=organization))[0],
                   **WANTED).checks[stages.PERMISSIONS].missing == ["depends on aws:PrincipalOrgID"]  # fmt: skip


ANOTHER = f"arn:aws:iam::{ACCOUNT_ID}:role/team/other"


def trusted(*statements, role=ANOTHER, decision="allowed"):
    """The answers about an sts:AssumeRole of a role with this trust policy, and the settings that ask for it."""
    name = role.rpartition("/")[2]
    answers = healthy() | inline(own=policy(allow("sts:*" if decision == "allowed" else "s3:*")))
    answers[f"iam:SimulatePrincipalPolicy {ROLE_ARN} sts:AssumeRole {role} ({ACCOUNT_ID})"] = {"EvalDecision": decision}
    trust = {"RoleName": name, "Arn": role, "AssumeRolePolicyDocument": policy(*statements)} if statements else None
    return {f"iam:GetRole {name} ({ACCOUNT_ID})": trust} | answers, {"action": "sts:AssumeRole", "resource": role}


def trusting(action="sts:AssumeRole", effect="Allow", **more):
    return {"Effect": effect, "Action": action, **more}


@pytest.mark.parametrize(("statements", "decision", "ids"), [
    ([trusting(**OF_ACCOUNT)], "allowed", []),
    ([trusting(**OF_ROLE)], "allowed", []),
    ([trusting(**OF_ROLE)], "implicitDeny", []),
    ([trusting(**OF_ACCOUNT)], "implicitDeny", ["role-lacks-permission"]),
    ([trusting(Principal={"Service": "ec2.amazonaws.com"})], "allowed", ["role-not-admitted-by-resource-policy"]),
    ([trusting("sts:TagSession", **OF_ROLE)], "allowed", ["role-not-admitted-by-resource-policy"]),
    ([trusting(**OF_ROLE), trusting(effect="Deny", **EVERYBODY)], "allowed", ["role-not-admitted-by-resource-policy"]),
    ([], "allowed", ["role-not-admitted-by-resource-policy"]),
])  # fmt: skip
def test_a_role_that_the_pod_assumes_has_to_admit_the_pods_role(statements, decision, ids):
    answers, settings = trusted(*statements, decision=decision)
    answers |= document(READ_ONLY, policy())
    assert result(answers, settings)[0] == ids


def test_a_trust_policy_with_an_external_id_gives_no_tick():
    condition = {"StringEquals": {"sts:ExternalId": "secret"}}
    answers, settings = trusted(trusting(**OF_ROLE, Condition=condition))
    assert result(answers, settings) == ([], ["depends on sts:ExternalId"], "·")


@pytest.mark.parametrize("decision", ["allowed", "implicitDeny"])
def test_a_role_that_may_not_assume_itself_is_to_be_left_out_of_the_programs_settings(decision):
    answers, settings = trusted(role=ROLE_ARN, decision=decision)
    answers |= document(READ_ONLY, policy()) | {ROLE: healthy()[ROLE]}
    (finding,) = [each for each in examine(answers, **settings).findings if each.severity == "error"]
    assert finding.id == "role-not-admitted-by-resource-policy"
    assert finding.summary.startswith("The pod already acts as my-role, and this role's trust policy doesn't let it")
    assert "program" in finding.repair
    assert "Allow" not in finding.repair


def test_the_advice_for_a_trust_policy_is_a_statement_that_iam_accepts():
    answers, settings = trusted(trusting(Principal={"Service": "ec2.amazonaws.com"}))
    finding, *_ = examine(answers, **settings).findings
    statement = json.loads(finding.repair.splitlines()[-1].lstrip("# "))
    assert statement == trusting(**OF_ROLE)
    assert finding.source == "iam:GetRole"


def test_a_role_that_does_not_exist_is_said_to_be_missing():
    finding, *_ = examine(*trusted()[:1], **trusted()[1]).findings
    assert finding.summary == f"The pod can't assume the role other: it doesn't exist in the account {ACCOUNT_ID}."
    assert finding.found == "no such role"
    assert "statement" not in finding.repair


def test_a_role_of_an_account_that_you_may_not_enter_gives_no_tick():
    def refuse(_):
        raise NotAllowed("AWS does not allow AssumeRole")

    role = "arn:aws:iam::111111111111:role/other"
    answers, settings = trusted(role=role)
    evidence = Evidence(PARAMETERS, replace(CONNECTION, account=refuse), reads=Reads(answers), **settings)
    seen = doctor.examine(evidence)
    assert (seen.findings, seen.exit_code) == ([], 2)
    assert seen.checks[stages.PERMISSIONS].missing == ["sts:AssumeRole into 111111111111 (123456789012)"]


def test_a_trust_policy_says_nothing_about_other_actions_on_the_role():
    answers, settings = trusted(trusting(Principal={"Service": "ec2.amazonaws.com"}))
    simulated = f"iam:SimulatePrincipalPolicy {ROLE_ARN} iam:PassRole {ANOTHER} ({ACCOUNT_ID})"
    answers[simulated] = {"EvalDecision": "allowed"}
    assert result(answers, settings | {"action": "iam:PassRole"})[0] == []
