"""The repair of a Deny opens one action on one resource, and nothing else."""

import itertools
import json
import shlex

import pytest

from labkit.doctor.repairs.policies import excepting
from labkit.policy import Policy, Principal, Request, verdict
from tests.doctor.recording import ACCOUNT_ID, ROLE_ARN, healthy
from tests.doctor.repairing import commands
from tests.doctor.test_permissions import READ_ONLY, allow, deny, document, examine, inline, policy

BUCKET, OTHER = "arn:aws:s3:::carts", "arn:aws:s3:::orders"
PRINCIPAL = Principal.role_session(f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/my-role/x", ROLE_ARN)
ACTIONS = ("s3:ListBucket", "s3:GetObject", "s3:ListAllMyBuckets", "sqs:SendMessage", "iam:PassRole")
RESOURCES = ("*", BUCKET, f"{BUCKET}/a", f"{BUCKET}/b", OTHER, f"{OTHER}/a", f"arn:aws:sqs:us-east-1:{ACCOUNT_ID}:q")
TLS = {"Condition": {"Bool": {"aws:SecureTransport": "true"}}}
EXACT = [
    deny("*"),
    deny("s3:ListBucket"),
    deny("S3:listbucket", Sid="Guard"),
    deny(["s3:ListBucket", "s3:GetObject"], [BUCKET, OTHER], Sid="Guard", **TLS),
    deny(["*", "s3:Get*"], "*", Sid="Guard"),
    deny("*", BUCKET),
    {"Effect": "Deny", "NotAction": ["iam:*"], "Resource": "*"},
    {"Effect": "Deny", "NotAction": "iam:*", "NotResource": OTHER},
]
PATTERNS = [
    deny("s3:*"),
    deny("s3:List*"),
    deny(["s3:ListBucket", "s3:List*"]),
    deny("s3:ListBucket", "arn:aws:s3:::*"),
]


def denied(*statements):
    """The calls that a policy denies."""
    read = Policy.read(policy(allow("*"), *statements), kind="identity", name="guard")
    calls = itertools.product(ACTIONS, RESOURCES)
    context = {"aws:SecureTransport": "true"}
    return {each for each in calls if verdict([read], Request(PRINCIPAL, *each, context)) == "explicitDeny"}


@pytest.mark.parametrize("statement", EXACT)
def test_the_new_statements_deny_all_but_the_action_on_the_resource(statement):
    call = ("s3:ListBucket", BUCKET)
    assert call in denied(statement)
    made = excepting(statement, *call)
    assert denied(*made) == denied(statement) - {call}
    assert all(each.get("Condition") == statement.get("Condition") for each in made)
    sids = [each["Sid"] for each in made if "Sid" in each]
    assert sids == ["Guard"] * ("Sid" in statement and bool(made))


def test_without_a_resource_the_action_is_excepted_on_all_resources():
    (other,) = excepting(deny("*"), "s3:ListAllMyBuckets", "*")
    assert other == {"Effect": "Deny", "NotAction": "s3:ListAllMyBuckets", "Resource": "*"}
    assert excepting(deny("s3:ListAllMyBuckets"), "s3:ListAllMyBuckets", "*") == []


@pytest.mark.parametrize("statement", PATTERNS)
def test_a_pattern_without_one_of_its_names_cannot_be_written(statement):
    assert excepting(statement, "s3:ListBucket", BUCKET) is None


@pytest.mark.parametrize("resource", [f"{BUCKET}/a?", f"{BUCKET}/${{aws:username}}"])
def test_a_name_that_iam_would_read_as_a_pattern_is_not_excepted(resource):
    assert excepting(deny("*"), "s3:GetObject", resource) is None


def guarded(*statements, action="s3:ListBucket", resource=BUCKET, **more):
    answers = healthy() | inline(guard=policy(*statements)) | document(READ_ONLY, policy(allow("s3:*")))
    answers[f"iam:SimulatePrincipalPolicy {ROLE_ARN} {action} {resource} ({ACCOUNT_ID})"] = {
        "EvalDecision": "explicitDeny"
    }
    (finding,) = examine(answers | more, action=action, resource=resource).findings
    assert finding.id == "role-lacks-permission"
    return finding


@pytest.mark.parametrize("statement", PATTERNS)
def test_the_repair_of_a_deny_of_a_pattern_has_no_command(statement):
    repair = guarded(statement).repair
    assert commands(repair) == []
    assert repair.startswith("# Nothing is changed: ") and "more than s3:ListBucket" in repair


def test_the_repair_of_a_deny_of_a_whole_service_without_a_resource_has_no_command():
    repair = guarded(deny("s3:*"), action="s3:ListAllMyBuckets", resource="*").repair
    assert commands(repair) == []


def test_the_repair_keeps_what_else_the_deny_denies():
    repair = guarded(allow("sqs:*"), deny(["s3:ListBucket", "s3:PutObject"], Sid="Guard")).repair
    (line,) = commands(repair)
    assert line.startswith("aws iam put-role-policy --role-name my-role --policy-name guard ")
    assert json.loads(shlex.split(line)[-1])["Statement"] == [
        allow("sqs:*"),
        deny(["s3:PutObject"], Sid="Guard"),
        {"Effect": "Deny", "NotResource": BUCKET, "Action": "s3:ListBucket"},
    ]
    assert "Everything else that the policy denies stays denied." in repair
    assert "Someone wrote the Deny on purpose: ask them first." in repair


def test_the_repair_deletes_a_policy_that_denies_only_the_action_on_the_resource():
    assert commands(guarded(deny("s3:ListBucket", BUCKET)).repair) == [
        "aws iam delete-role-policy --role-name my-role --policy-name guard"
    ]


def test_the_repair_of_two_denies_has_no_command_if_one_of_them_cannot_be_narrowed():
    assert commands(guarded(deny("s3:ListBucket", BUCKET), deny("s3:*")).repair) == []


# A bucket's policy.

OTHER_ROLE = f"arn:aws:iam::{ACCOUNT_ID}:role/other"
IN_BUCKET = itertools.product(
    (ROLE_ARN, OTHER_ROLE),
    ("s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:GetBucketPolicy"),
    (BUCKET, f"{BUCKET}/a", f"{BUCKET}/b/c"),
)
CALLS = list(IN_BUCKET)


def denied_by_bucket(document):
    """The calls that a bucket's policy denies, each with the role that makes it."""
    read = Policy.read(document, kind="resource", name="carts")
    return {each for each in CALLS if verdict([read], called(*each)) == "explicitDeny"}


def called(role, action, resource):
    session = f"{role.replace(':iam:', ':sts:').replace(':role/', ':assumed-role/')}/x"
    return Request(Principal.role_session(session, role), action, resource, {"aws:SecureTransport": "true"})


def of_bucket(statement, action, resource):
    answers = healthy() | document(READ_ONLY, policy(allow("s3:*")))
    answers[f"s3:GetBucketPolicy carts ({ACCOUNT_ID})"] = policy(statement)
    call = f"iam:SimulatePrincipalPolicy {ROLE_ARN} {action} {resource} ({ACCOUNT_ID})"
    (finding,) = examine(answers | {call: {"EvalDecision": "allowed"}}, action=action, resource=resource).findings
    assert finding.id == "role-denied-by-bucket-policy"
    return finding


WHOLE = [BUCKET, f"{BUCKET}/*"]
BY_ROLE = {"Condition": {"ArnEquals": {"aws:PrincipalArn": [ROLE_ARN, OTHER_ROLE]}}}


@pytest.mark.parametrize("statement", [
    deny("s3:*", WHOLE, Principal="*", Sid="Guard"),
    deny(["s3:Get*", "s3:*"], f"{BUCKET}/*", Principal="*"),
    deny("s3:GetObject", f"{BUCKET}*", Principal="*", **BY_ROLE),
    deny("s3:*", [f"{BUCKET}/*", "arn:aws:s3:::cart?"], Principal="*"),
    deny("*", "*", Principal={"AWS": [ROLE_ARN, OTHER_ROLE]}),
    {"Effect": "Deny", "Principal": "*", "NotAction": "s3:PutObject", "Resource": WHOLE},
])  # fmt: skip
@pytest.mark.parametrize(
    ("action", "resource"),
    [("s3:ListBucket", BUCKET), ("s3:GetObject", f"{BUCKET}/a"), ("s3:getobject", f"{BUCKET}/a")],
)
def test_the_repair_of_a_bucket_policy_opens_only_the_action_on_the_resource(statement, action, resource):
    call = next(each for each in CALLS if (each[0], each[1].lower(), each[2]) == (ROLE_ARN, action.lower(), resource))
    before = denied_by_bucket(policy(statement))
    if call not in before:
        return
    (line,) = commands(of_bucket(statement, action, resource).repair)
    after = json.loads(shlex.split(line)[-1])
    assert denied_by_bucket(after) == before - {call}
    assert len({each["Sid"] for each in after["Statement"] if "Sid" in each}) == ("Sid" in statement)


def test_the_repair_of_a_bucket_policy_that_denies_a_pattern_has_no_command():
    repair = of_bucket(deny("s3:Get*", WHOLE, Principal="*"), "s3:GetObject", f"{BUCKET}/a").repair
    assert commands(repair) == []
    assert "more than s3:GetObject" in repair
