"""The role's permissions: each fault gives one finding, and its repair mends it."""

import json
import re

import pytest

from labkit import doctor
from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, Reads
from tests.doctor.recording import (
    ACCOUNT_ID,
    ATTACHED,
    BUCKET_POLICY,
    CONNECTION,
    INLINE,
    PARAMETERS,
    ROLE,
    ROLE_ARN,
    SERVICE_ACCOUNTS,
    healthy,
)
from tests.doctor.repairing import commands, repaired
from tests.notebooks.books import prose, read

READ_ONLY = PARAMETERS.policy_arn
ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"
BOUNDARY = f"arn:aws:iam::{ACCOUNT_ID}:policy/boundary"
BUCKET = "arn:aws:s3:::irsa-lab"
WANTED = {"action": "s3:ListBucket", "resource": BUCKET}
SIMULATED = f"iam:SimulatePrincipalPolicy {ROLE_ARN} s3:ListBucket {BUCKET} ({ACCOUNT_ID})"


def policy(*statements):
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action, resource="*", **more):
    return {"Effect": "Deny", "Action": action, "Resource": resource, **more}


def document(arn, content):
    return {f"iam:GetPolicyVersion {arn} ({ACCOUNT_ID})": content}


def attached(*arns):
    return {ATTACHED: [{"PolicyName": "", "PolicyArn": arn} for arn in arns]}


def inline(**policies):
    documents = {f"iam:GetRolePolicy my-role {name} ({ACCOUNT_ID})": content for name, content in policies.items()}
    return {INLINE: list(policies), **documents}


def bounded(content):
    """The role with this permissions boundary, and with AWS's policy for reading S3."""
    role = healthy()[ROLE] | {"PermissionsBoundary": {"PermissionsBoundaryArn": BOUNDARY}}
    reading = policy(allow(["s3:Get*", "s3:List*", "s3:Describe*"]))
    return {ROLE: role, **document(BOUNDARY, content), **document(READ_ONLY, reading)}


def bucket_denies(**more):
    return {BUCKET_POLICY: json.dumps(policy(deny("s3:*", [BUCKET, f"{BUCKET}/*"], **{"Principal": "*", **more})))}


def simulated(decision, boundary=None):
    detail = (
        {} if boundary is None else {"PermissionsBoundaryDecisionDetail": {"AllowedByPermissionsBoundary": boundary}}
    )
    return {SIMULATED: {"EvalDecision": decision, **detail}}


def not_of_the_lab(answers):
    """Remove the run's labels from the service account, so that nothing says which policy its role needs."""
    for account in answers[SERVICE_ACCOUNTS]:
        account["metadata"]["labels"] = {}
    return answers


def examine(answers, **settings):
    return doctor.examine(Evidence(PARAMETERS, CONNECTION, reads=Reads(answers), **settings))


def found(answers, **settings):
    return [finding.id for finding in examine(answers, **settings).findings]


CUSTOM = f"arn:aws:iam::{ACCOUNT_ID}:policy/custom"


@pytest.mark.parametrize(("id", "answers", "settings"), [
    ("role-policy-not-attached", attached(), {}),
    ("role-policy-not-attached", attached(), {"role_is_known": False}),
    ("role-denied-by-boundary", bounded(policy(allow("ec2:*"))), {}),
    ("role-denied-by-boundary", bounded(policy(allow("*"), deny("s3:*"))), {}),
    ("role-denied-by-boundary", bounded(policy(allow("*"))) | simulated("implicitDeny", False), WANTED),
    ("role-denied-by-bucket-policy", bucket_denies(), {}),
    ("role-denied-by-bucket-policy", bucket_denies(Principal={"AWS": ROLE_ARN}), {"role_is_known": False}),
    ("role-denied-by-bucket-policy",
     bucket_denies(Condition={"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/my-*"}}), {}),
    ("role-denied-by-bucket-policy", bucket_denies(Action="s3:GetObject"), {}),
    ("role-is-administrator", attached(READ_ONLY, ADMINISTRATOR), {}),
    ("role-is-administrator", attached(READ_ONLY, CUSTOM) | document(CUSTOM, policy(allow("*"))), {}),
    ("role-is-administrator", inline(all=policy(allow(["s3:*", "*"]))), {}),
    ("role-is-administrator",
     inline(most={"Statement": {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}}), {}),
    ("role-lacks-permission", attached(CUSTOM, READ_ONLY) | document(CUSTOM,
            policy(allow("ec2:*"))) | document(READ_ONLY,
            policy(allow("s3:GetObject"))) | simulated("implicitDeny"), WANTED),
    ("role-lacks-permission", inline(lists=policy(deny("s3:ListBucket"))) | document(READ_ONLY,
            policy(allow("s3:*"))) | simulated("explicitDeny"), WANTED),
])  # fmt: skip
def test_a_fault_of_the_permissions_gives_one_finding_and_its_repair_mends_it(id, answers, settings):
    answers = healthy() | answers
    (finding,) = examine(answers, **settings).findings
    assert (finding.id, finding.severity) == (id, "warning" if id == "role-is-administrator" else "error")
    assert finding.expected != finding.found
    if id in ("role-denied-by-boundary", "role-is-administrator"):
        # Somebody set it on purpose, or uses it.
        assert not commands(finding.repair)
        assert re.search("so no command removes it|Nothing is changed", finding.repair)
        return
    after = repaired(answers, finding.repair)
    if SIMULATED in after:
        after[SIMULATED] = {"EvalDecision": "allowed"}
    assert found(after, **settings) == []


@pytest.mark.parametrize("answers", [
    bounded(policy(allow("*"))),
    bounded(policy(allow("s3:ListBucket"))),
    bounded(policy({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"})),
    bounded(policy(allow("s3:*"), deny("s3:Delete*"))),
    inline(read=policy(allow("s3:GetObject", f"{BUCKET}/*"))),
    inline(one=policy(allow("*", BUCKET))),
    # The doctor ignores a deny for others, and a condition that only a request can meet.
    bucket_denies(Principal={"AWS": f"arn:aws:iam::{ACCOUNT_ID}:role/other"}),
    bucket_denies(Condition={"StringNotEquals": {"aws:SourceVpce": "vpce-1"}}),
    bucket_denies(Condition={"Bool": {"aws:SecureTransport": "false"}}),
    bucket_denies(Action="s3:PutObject"),
    {BUCKET_POLICY: json.dumps(policy(allow("s3:GetObject", f"{BUCKET}/*", Principal="*")))},
])  # fmt: skip
def test_permissions_that_still_allow_the_pods_calls_are_right(answers):
    assert found(healthy() | answers) == []


def test_outside_a_run_any_policy_is_enough_but_no_policy_at_all_is_an_error():
    assert found(not_of_the_lab(healthy() | attached(CUSTOM) | document(CUSTOM, policy())), role_is_known=False) == []
    assert found(not_of_the_lab(healthy() | attached() | inline(read=policy())), role_is_known=False) == []
    (finding,) = examine(not_of_the_lab(healthy() | attached()), role_is_known=False).findings
    assert (finding.id, finding.expected) == ("role-policy-not-attached", "a policy")
    # The reader has to choose the policy.
    assert commands(finding.repair) == ["aws iam attach-role-policy --role-name my-role --policy-arn <POLICY_ARN>"]


def test_with_an_action_the_repair_of_a_role_without_policies_has_no_value_to_fill_in():
    answers = not_of_the_lab(healthy() | attached() | simulated("implicitDeny"))
    (finding,) = examine(answers, role_is_known=False, **WANTED).findings
    assert finding.id == "role-policy-not-attached"
    (command,) = commands(finding.repair)
    assert "<" not in command
    assert json.loads(command.rpartition(" --policy-document ")[2].strip("'"))["Statement"] == [
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": BUCKET}
    ]


def test_the_report_notebook_quotes_a_finding_as_the_doctor_prints_it():
    """The notebook's own run finds nothing, so only its text shows a finding."""
    (finding,) = examine(healthy() | attached()).findings
    assert f"```text\n{finding.as_text('default/my-service-account')}\n```" in prose(read("doctor.ipynb"))


def test_the_doctor_simulates_only_a_given_action():
    assert not any("Simulate" in call for call in examine(healthy()).looked)
    assert found(healthy() | simulated("allowed"), **WANTED) == []


def test_a_denial_by_the_organization_is_found_and_its_repair_has_no_command():
    answers = healthy() | document(READ_ONLY, policy(allow("s3:*"))) | simulated("explicitDeny")
    answers[SIMULATED]["OrganizationsDecisionDetail"] = {"AllowedByOrganizations": False}
    (finding,) = examine(answers, **WANTED).findings
    assert finding.id == "role-denied-by-service-control-policy"
    assert all(line.startswith("#") for line in finding.repair.splitlines())
    # Only the organization's administrators may read the names of its policies.
    attached = f"organizations:ListPoliciesForTarget {{}} SERVICE_CONTROL_POLICY ({ACCOUNT_ID})"
    assert f"could not be read: {attached.format(ACCOUNT_ID)}: " in finding.found
    names = {ACCOUNT_ID: ["FullAWSAccess"], "ou-1-1": ["FullAWSAccess", "no-uploads"], "r-1": ["FullAWSAccess"]}
    answers |= {attached.format(id): [{"Name": name} for name in named] for id, named in names.items()}
    answers |= {
        f"organizations:ListParents {child} ({ACCOUNT_ID})": [{"Id": parent}]
        for child, parent in ((ACCOUNT_ID, "ou-1-1"), ("ou-1-1", "r-1"))
    }
    (finding,) = examine(answers, **WANTED).findings
    assert finding.found.endswith(
        "; policies on the role's account, on its OUs or on the organization's root: FullAWSAccess, no-uploads"
    )


RCPS = f"organizations:ListPoliciesForTarget {{}} RESOURCE_CONTROL_POLICY ({ACCOUNT_ID})"
OURS = "o-abcdefghij"


def with_resource_control(statement, manager="111111111111"):
    """The answers that the management account, or a delegated administrator, gets about the organization."""
    answers = healthy() | simulated("allowed")
    answers[SIMULATED]["OrganizationsDecisionDetail"] = {"AllowedByOrganizations": True}
    full = {"Id": "p-RCPFullAWSAccess", "Name": "RCPFullAWSAccess", "AwsManaged": True}
    return answers | {
        f"organizations:DescribeOrganization ({ACCOUNT_ID})": {"Id": OURS, "MasterAccountId": manager},
        f"organizations:ListParents {ACCOUNT_ID} ({ACCOUNT_ID})": [{"Id": "r-1"}],
        RCPS.format(ACCOUNT_ID): [full],
        RCPS.format("r-1"): [full, {"Id": "p-1", "Name": "perimeter", "AwsManaged": False}],
        f"organizations:DescribePolicy p-1 ({ACCOUNT_ID})": json.dumps(policy(statement)),
        f"s3:ListBuckets ({ACCOUNT_ID})": [{"Name": "irsa-lab"}],
    }


@pytest.mark.parametrize(("condition", "denies"), [
    ({}, True),
    ({"StringNotEqualsIfExists": {"aws:PrincipalOrgID": "o-anotherone"}}, True),
    ({"ArnLike": {"aws:PrincipalArn": ROLE_ARN}}, True),
    ({"StringNotEqualsIfExists": {"aws:PrincipalOrgID": OURS}}, False),
    ({"BoolIfExists": {"aws:SecureTransport": "false"}}, False),
    # These keys are only known when the request is made.
    ({"StringNotEquals": {"aws:SourceVpce": "vpce-1"}}, False),
    ({"StringNotEquals": {"aws:PrincipalTag/team": "web"}}, False),
])  # fmt: skip
def test_a_resource_control_policy_is_reported_only_if_it_denies_the_roles_call(condition, denies):
    more = {"Principal": "*"} | ({"Condition": condition} if condition else {})
    answers = with_resource_control(deny("s3:*", **more))
    findings = examine(answers, **WANTED).findings
    assert [finding.id for finding in findings] == ["role-denied-by-resource-control-policy"] * denies
    if denies:
        (finding,) = findings
        assert finding.found.startswith("perimeter: {")
        assert all(line.startswith("#") for line in finding.repair.splitlines())
        # The policy doesn't apply to the management account's resources, or to another account's bucket.
        assert found(with_resource_control(deny("s3:*", **more), manager=ACCOUNT_ID), **WANTED) == []
        assert found(answers | {f"s3:ListBuckets ({ACCOUNT_ID})": []}, **WANTED) == []


def test_organization_policies_that_may_not_be_read_are_listed_as_unread():
    answers = with_resource_control(deny("s3:*", Principal="*"))
    del answers[RCPS.format(ACCOUNT_ID)]
    seen = examine(answers, **WANTED)
    assert (seen.findings, seen.exit_code, seen.results[stages.PERMISSIONS]) == ([], 0, "not looked at")
    assert seen.checks[stages.PERMISSIONS].missing == [RCPS.format(ACCOUNT_ID)]
    assert {result for stage, result in seen.results.items() if stage is not stages.PERMISSIONS} == {"right"}
    assert f"Not read: {RCPS.format(ACCOUNT_ID)}" in repr(seen)


@pytest.mark.parametrize(
    ("denied", "ids"),
    [(["s3:*"], ["role-denies-what-it-allows"]), (["*"], ["role-denies-what-it-allows"]), (["s3:List*"], [])],
)
def test_a_deny_of_a_whole_service_is_only_a_note_without_a_command(denied, ids):
    reading = policy(allow(["s3:Get*", "s3:List*"]))
    diagnosis = examine(healthy() | inline(guard=policy(deny(denied))) | document(READ_ONLY, reading))
    assert ([finding.id for finding in diagnosis.findings], diagnosis.exit_code) == (ids, 0)
    assert not any(commands(finding.repair) for finding in diagnosis.findings)


def test_the_bucket_policy_is_checked_for_an_object_with_any_key():
    wanted = {"action": "s3:GetObject", "resource": f"{BUCKET}/2026:11/a:b"}
    simulated = f"iam:SimulatePrincipalPolicy {ROLE_ARN} s3:GetObject {wanted['resource']} ({ACCOUNT_ID})"
    answers = healthy() | bucket_denies() | {simulated: {"EvalDecision": "allowed"}}
    assert found(answers, **wanted) == ["role-denied-by-bucket-policy"]


def test_a_boundary_and_a_missing_policy_are_both_found():
    answers = healthy() | bounded(policy(allow("ec2:*"))) | attached()
    assert set(found(answers)) == {"role-denied-by-boundary", "role-policy-not-attached"}


def test_an_administrator_policy_and_a_boundary_are_both_found():
    answers = healthy() | bounded(policy(allow("ec2:*"))) | attached(READ_ONLY, ADMINISTRATOR)
    assert set(found(answers)) == {"role-denied-by-boundary", "role-is-administrator"}


@pytest.mark.parametrize(("statement", "expected_text"), [
    (allow("s3:ListBucket",
           f"{BUCKET}/*"),
     f'no identity-based policy allows it. Statement 1 of "custom" allows the action, but it is for {BUCKET}/* '
     f"and the request is for {BUCKET}"),
    (allow(["s3:List*"], Condition={"StringEquals": {"aws:PrincipalTag/team": "shop"}}),
     'no identity-based policy allows it. Statement 1 of "custom" allows the action, but it has a condition on '
     "aws:PrincipalTag/team"),
    (allow("s3:GetObject"), "no identity-based policy allows it"),
])  # fmt: skip
def test_the_finding_names_a_statement_that_allows_the_action_otherwise(statement, expected_text):
    answers = healthy() | document(READ_ONLY, policy()) | inline(custom=policy(statement)) | simulated("implicitDeny")
    (finding,) = examine(answers, **WANTED).findings
    assert finding.id == "role-lacks-permission"
    assert expected_text in finding.found


def allow_all_but(*actions):
    return {"Effect": "Allow", "NotAction": list(actions), "Resource": "*"}


@pytest.mark.parametrize(("statements", "excepted"), [
    ([allow("*")], ""),
    ([allow("*"), allow_all_but("iam:*")], ""),
    ([allow_all_but("s3:DeleteObject", "iam:*")], ", except s3:DeleteObject and iam:*"),
    ([allow_all_but("s3:DeleteObject", "iam:*"), allow("iam:*")], ", except s3:DeleteObject"),
    ([allow_all_but("s3:*", "iam:*"), allow_all_but("iam:*", "sqs:*")], ", except iam:*"),
    ([allow_all_but("sqs:*"), allow_all_but("iam:*")], ""),
])  # fmt: skip
def test_the_finding_on_an_administrators_policy_names_the_actions_that_it_leaves_out(statements, excepted):
    (finding,) = examine(healthy() | inline(most=policy(*statements))).findings
    assert finding.id == "role-is-administrator"
    assert finding.summary == f"The role's policies allow every action in the account{excepted}."


def test_a_policy_that_leaves_out_every_action_allows_none():
    assert found(healthy() | inline(none=policy(allow_all_but("*", "s3:GetObject")))) == []


def test_a_permission_that_boundary_and_policies_lack_gives_a_finding_for_each():
    answers = healthy() | bounded(policy(allow("ec2:*"))) | document(READ_ONLY, policy(allow("sqs:*")))
    answers |= simulated("implicitDeny", False)
    assert set(found(answers, **WANTED)) == {"role-denied-by-boundary", "role-lacks-permission"}


@pytest.mark.parametrize("answers", [
    attached(),
    inline(lists=policy(deny("s3:ListBucket"))) | document(READ_ONLY,
        policy(allow("s3:*"))) | simulated("explicitDeny"),
    attached(CUSTOM, READ_ONLY) | document(CUSTOM, policy(allow("ec2:*"))) | document(READ_ONLY,
        policy(allow("s3:GetObject"))) | simulated("implicitDeny"),
    bucket_denies() | simulated("allowed"),
])  # fmt: skip
@pytest.mark.parametrize("other", [
    {"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT_ID}:root"}, "Action": "sts:AssumeRole"},
    {"Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"},
])  # fmt: skip
def test_the_repair_adds_no_permission_to_a_role_that_others_use(answers, other):
    answers = healthy() | answers
    answers[ROLE]["AssumeRolePolicyDocument"]["Statement"].append({"Effect": "Allow", **other})
    (finding,) = examine(answers, **WANTED).findings
    assert not commands(finding.repair)
    (named,) = other["Principal"].values()
    assert finding.repair.startswith(f"# {named} can use my-role, too, and would get new permissions.")


def test_the_repair_of_a_deny_in_a_managed_policy_only_shows_who_uses_the_policy():
    answers = healthy() | attached(CUSTOM, READ_ONLY) | document(CUSTOM, policy(deny("s3:List*")))
    answers |= document(READ_ONLY, policy(allow("s3:*"))) | simulated("explicitDeny")
    (finding,) = examine(answers, **WANTED).findings
    assert not commands(finding.repair)
    assert f"aws iam list-entities-for-policy --policy-arn {CUSTOM}" in finding.repair


def test_the_repair_never_overwrites_an_inline_policy_of_the_same_name():
    answers = healthy() | inline(**{"s3-ListBucket": policy(allow("s3:ListBucket", "arn:aws:s3:::another"))})
    answers |= document(READ_ONLY, policy(allow("s3:GetObject"))) | simulated("implicitDeny")
    (finding,) = examine(answers, **WANTED).findings
    assert "--policy-name s3-ListBucket-2 " in commands(finding.repair)[0]


def test_the_repaired_bucket_policy_excepts_the_role_and_denies_everybody_else():
    answers = healthy() | bucket_denies()
    (finding,) = examine(answers).findings
    (before,) = json.loads(answers[BUCKET_POLICY])["Statement"]
    (after,) = json.loads(repaired(answers, finding.repair)[BUCKET_POLICY])["Statement"]
    assert after == before | {"Condition": {"ArnNotEquals": {"aws:PrincipalArn": ROLE_ARN}}}
    assert any(line.startswith("#   +") and "aws:PrincipalArn" in line for line in finding.repair.splitlines())
