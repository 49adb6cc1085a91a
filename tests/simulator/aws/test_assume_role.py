"""A session of a pod assumes a role of another account; the AWS CLI does it by profiles.

https://docs.aws.amazon.com/eks/latest/userguide/cross-account-access.html
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.simulator.aws.accounts import NO_RESOURCE, OUR_SESSION, OURS, READ, SAID, THEIRS, admitting, who
from tests.simulator.aws.conftest import (
    ACCOUNT,
    ADMINISTRATOR,
    ENTRANCE,
    OTHER,
    REGION,
    THIRD,
    document,
    refused,
    statement,
    trust_policy,
    trusting,
)

ASSUME = statement("sts:AssumeRole", THEIRS)
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
BOTH = "no role trust policy allows sts:AssumeRole"


@pytest.mark.parametrize(("permitted", "trust", "parameters", "allowed"), [
    (ASSUME, trusting(ROOT), {}, True),
    (ASSUME, trusting(ACCOUNT), {}, True),
    (ASSUME, trusting(OURS), {}, True),
    (ASSUME, trusting(OUR_SESSION), {}, True),
    (None, trusting(ROOT), {}, False),
    (None, trusting(OURS), {}, False),
    (ASSUME, trusting(THIRD), {}, False),
    (ASSUME, trusting(f"arn:aws:iam::{ACCOUNT}:role/neighbour"), {}, False),
    (statement("sts:AssumeRole", f"arn:aws:iam::{OTHER}:role/another"), trusting(ROOT), {}, False),
    (ASSUME, trusting(ROOT, StringEquals={"sts:ExternalId": "42"}), {"ExternalId": "42"}, True),
    (ASSUME, trusting(ROOT, StringEquals={"sts:ExternalId": "42"}), {"ExternalId": "41"}, False),
    (ASSUME, trusting(ROOT, StringEquals={"sts:ExternalId": "42"}), {}, False),
    (ASSUME, trusting(ROOT, ArnEquals={"aws:PrincipalArn": OURS}), {}, True),
    (ASSUME, trusting(ROOT, ArnEquals={"aws:PrincipalArn": OUR_SESSION}), {}, False),
    (ASSUME, trusting("*", StringEquals={"aws:PrincipalAccount": ACCOUNT}), {}, True),
    (ASSUME, trusting("*", StringEquals={"aws:PrincipalAccount": THIRD}), {}, False),
    # Only calls that an AWS service makes for a resource have aws:SourceAccount.
    (ASSUME, trusting(ROOT, StringEquals={"aws:SourceAccount": ACCOUNT}), {}, False),
    ({**ASSUME, "Condition": {"StringEquals": {"aws:ResourceAccount": OTHER}}}, trusting(ROOT), {}, True),
    ({**ASSUME, "Condition": {"StringEquals": {"aws:ResourceAccount": ACCOUNT}}}, trusting(ROOT), {}, False),
])  # fmt: skip
def test_both_accounts_must_allow_a_cross_account_assume_role(
    aws, irsa, pod, other, permitted, trust, parameters, allowed
):
    aws.client("iam").create_role(RoleName="neighbour", AssumeRolePolicyDocument=json.dumps(trust_policy()))
    if permitted:
        irsa.permit(permitted)
    other.role("theirs", trust)

    def call():
        return aws.client("sts", pod).assume_role(RoleArn=THEIRS, RoleSessionName="chained", **parameters)

    if allowed:
        chained = call()
        session = f"arn:aws:sts::{OTHER}:assumed-role/theirs/chained"
        assert who(aws.client("sts", chained["Credentials"])) == (OTHER, session)
    else:
        said = f"User: {OUR_SESSION} is not authorized to perform: sts:AssumeRole on resource: {THEIRS}"
        refused(call, 403, "AccessDenied", said)
        assert aws.last()["recipientAccountId"] == ACCOUNT


@pytest.mark.parametrize(
    ("parameters", "seconds"), [({}, 3600), ({"DurationSeconds": 3600}, 3600), ({"DurationSeconds": 900}, 900)]
)
def test_a_chained_session_lasts_an_hour_at_most(aws, irsa, pod, other, parameters, seconds):
    irsa.permit(ASSUME)
    other.role("theirs", trusting(ROOT))
    other.iam.update_role(RoleName="theirs", MaxSessionDuration=43200)
    sts = aws.client("sts", pod)
    ends = sts.assume_role(RoleArn=THEIRS, RoleSessionName="chained", **parameters)["Credentials"]["Expiration"]
    assert abs(ends.timestamp() - aws.clock.now() - seconds) < 60
    refused(
        lambda: sts.assume_role(RoleArn=THEIRS, RoleSessionName="chained", DurationSeconds=3601),
        400, "ValidationError",
        "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.",
    )  # fmt: skip


def test_both_accounts_get_a_record_when_a_role_is_assumed(aws, irsa, pod, other):
    irsa.permit(ASSUME)
    other.role("theirs", trusting(ROOT))
    aws.client("sts", pod).assume_role(RoleArn=THEIRS, RoleSessionName="chained")
    ours, theirs = aws.trail()[-2:]
    assert [record["recipientAccountId"] for record in (ours, theirs)] == [ACCOUNT, OTHER]
    assert ours["sharedEventID"] == theirs["sharedEventID"]
    assert ours["eventID"] != theirs["eventID"]
    assert (ours["userIdentity"]["type"], theirs["userIdentity"]["type"]) == ("AssumedRole", "AWSAccount")
    assert theirs["userIdentity"]["accountId"] == ACCOUNT
    for client, account_id in ((aws.client("cloudtrail"), ACCOUNT), (other.client("cloudtrail"), OTHER)):
        page = client.lookup_events(LookupAttributes=[{"AttributeKey": "ResourceName", "AttributeValue": THEIRS}])
        records = [json.loads(event["CloudTrailEvent"]) for event in page["Events"]]
        assert {record["recipientAccountId"] for record in records} == {account_id}
        assert [r["eventName"] for r in records if r.get("sharedEventID") == ours["sharedEventID"]] == ["AssumeRole"]


def test_sts_takes_session_policies_only_from_the_role_s_account(aws, irsa, pod, other):
    irsa.permit(ASSUME)
    other.role("theirs", trusting(ROOT), statement("s3:*"))
    mine = aws.client("iam").create_policy(PolicyName="p", PolicyDocument=document(statement("s3:*")))["Policy"]["Arn"]
    theirs = other.iam.create_policy(PolicyName="p", PolicyDocument=document(statement("s3:*")))["Policy"]["Arn"]
    sts = aws.client("sts", pod)
    assert sts.assume_role(RoleArn=THEIRS, RoleSessionName="chained", PolicyArns=[{"arn": theirs}])
    with pytest.raises(ClientError, match="MalformedPolicyDocument"):
        sts.assume_role(RoleArn=THEIRS, RoleSessionName="chained", PolicyArns=[{"arn": mine}])


@pytest.mark.parametrize("account", [ACCOUNT, OTHER])
def test_policies_do_not_trust_a_role_that_was_created_again(aws, irsa, other, account):
    iam = aws.client("iam") if account == ACCOUNT else other.iam
    irsa.permit(statement("sts:AssumeRole", "*"), statement(READ))
    iam.create_role(RoleName="trusting", AssumeRolePolicyDocument=trusting([OURS, ROOT]))
    iam.update_assume_role_policy(RoleName="trusting", PolicyDocument=trusting(OURS))
    other.bucket("theirs", admitting(OURS))
    role_id = aws.client("iam").get_role(RoleName="my-role")["Role"]["RoleId"]
    role_arn = f"arn:aws:iam::{account}:role/trusting"

    def assume():
        return aws.client("sts", irsa.assume()["Credentials"]).assume_role(RoleArn=role_arn, RoleSessionName="chained")

    def read():
        return aws.client("s3", irsa.assume()["Credentials"]).get_object(Bucket="theirs", Key="hello.txt")

    assert assume()
    assert read()
    aws.client("iam").delete_role_policy(RoleName="my-role", PolicyName="inline")
    aws.client("iam").delete_role(RoleName="my-role")
    aws.client("iam").create_role(RoleName="my-role", AssumeRolePolicyDocument=json.dumps(trust_policy()))
    aws.client("iam").put_role_policy(
        RoleName="my-role", PolicyName="inline", PolicyDocument=document(statement("sts:AssumeRole"), statement(READ))
    )
    shown = iam.get_role(RoleName="trusting")["Role"]["AssumeRolePolicyDocument"]
    assert shown["Statement"][0]["Principal"] == {"AWS": role_id}
    shown = json.loads(other.s3.get_bucket_policy(Bucket="theirs")["Policy"])
    assert shown["Statement"][0]["Principal"] == {"AWS": role_id}
    said = f"User: {OUR_SESSION} is not authorized to perform: sts:AssumeRole on resource: {role_arn}"
    refused(assume, 403, "AccessDenied", said)
    refused(read, 403, "AccessDenied", SAID + NO_RESOURCE)
    refused(
        lambda: iam.update_assume_role_policy(RoleName="trusting", PolicyDocument=trusting(role_id)),
        400, "MalformedPolicyDocument", f'Invalid principal in policy: "AWS":"{role_id}"',
    )  # fmt: skip
    iam.update_assume_role_policy(RoleName="trusting", PolicyDocument=trusting(OURS))
    assert assume()


# Profiles, as the AWS CLI and every SDK read them


PROFILES = f"""
[profile admin-of-other]
role_arn = arn:aws:iam::{OTHER}:role/{ENTRANCE}
source_profile = me

[profile me]
aws_access_key_id = {ADMINISTRATOR.access_key_id}
aws_secret_access_key = {ADMINISTRATOR.secret_access_key}

[profile pod]
role_arn = {OURS}
web_identity_token_file = TOKEN_FILE
role_session_name = my-pod

[profile pod-in-other]
role_arn = {THEIRS}
source_profile = pod
role_session_name = chained
external_id = 42
"""


@pytest.mark.parametrize(("profile", "arn"), [
    ("me", f"arn:aws:iam::{ACCOUNT}:user/administrator"),
    ("admin-of-other", f"arn:aws:sts::{OTHER}:assumed-role/{ENTRANCE}/"),
    ("pod", OUR_SESSION),
    ("pod-in-other", f"arn:aws:sts::{OTHER}:assumed-role/theirs/chained"),
])  # fmt: skip
def test_the_aws_cli_enters_other_accounts_by_profiles(aws, irsa, other, tmp_path, profile, arn):
    irsa.permit(ASSUME)
    other.role("theirs", trusting(OURS, StringEquals={"sts:ExternalId": "42"}))
    (tmp_path / "token").write_text(aws.issuer.token())
    (tmp_path / "config").write_text(PROFILES.replace("TOKEN_FILE", str(tmp_path / "token")))
    environment = {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }
    program = [Path(sys.executable).with_name("aws"), "--profile", profile]
    command = [*program, "sts", "get-caller-identity", "--query", "Arn", "--output", "text"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(arn), done.stderr
