"""Other accounts: how to enter them, which resources are theirs, and two ways from a pod into another account.

https://docs.aws.amazon.com/eks/latest/userguide/cross-account-access.html
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.simulator.aws.conftest import (
    ACCOUNT,
    ADMINISTRATOR,
    AUDIENCE,
    ISSUER,
    REGION,
    SUBJECT,
    refused,
    trust_policy,
)

OTHER, THIRD = "222222222222", "333333333333"
ENTRANCE = "OrganizationAccountAccessRole"
PROVIDER = f"oidc-provider/{ISSUER.removeprefix('https://')}"
OURS, THEIRS = f"arn:aws:iam::{ACCOUNT}:role/my-role", f"arn:aws:iam::{OTHER}:role/theirs"
OUR_SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod"
GENERIC = (
    "The web identity token provided could not be validated. "
    "See the AssumeRoleWithWebIdentity documentation for requirements."
)
NO_PROVIDER = f"No OpenIDConnect provider found in your account for {ISSUER}"
MISTRUSTED = "Not authorized to perform sts:AssumeRoleWithWebIdentity"


def statement(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def trusting(principal, **condition):
    return document(
        {
            "Effect": "Allow",
            "Principal": {"AWS": principal},
            "Action": "sts:AssumeRole",
            **({"Condition": condition} if condition else {}),
        }
    )


class Account:
    """Another account, which the lab's administrator has entered."""

    def __init__(self, aws, account_id):
        self.aws, self.account_id = aws, account_id
        role = f"arn:aws:iam::{account_id}:role/{ENTRANCE}"
        self.entered = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="me")
        self.iam, self.s3, self.sts = (self.client(service) for service in ("iam", "s3", "sts"))

    def client(self, service):
        return self.aws.client(service, self.entered["Credentials"])

    def role(self, name, trust, *statements):
        self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
        if statements:
            self.iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=document(*statements))
        return f"arn:aws:iam::{self.account_id}:role/{name}"

    def bucket(self, name, *policy):
        self.s3.create_bucket(Bucket=name)
        self.s3.put_object(Bucket=name, Key="hello.txt", Body=b"theirs")
        if policy:
            self.s3.put_bucket_policy(Bucket=name, Policy=document(*policy))


@pytest.fixture
def other(aws):
    return Account(aws, OTHER)


@pytest.fixture
def pod(aws, irsa):
    """The session of a pod of our account."""
    return irsa.assume()["Credentials"]


def who(sts):
    answer = sts.get_caller_identity()
    return answer["Account"], answer["Arn"]


# Another account, and its resources


def test_the_administrator_enters_an_account_by_organization_account_access_role(aws, other):
    session = f"arn:aws:sts::{OTHER}:assumed-role/{ENTRANCE}/me"
    assert other.entered["AssumedRoleUser"]["Arn"] == session
    assert who(other.sts) == (OTHER, session)
    role = other.iam.get_role(RoleName=ENTRANCE)["Role"]
    assert role["Arn"] == f"arn:aws:iam::{OTHER}:role/{ENTRANCE}"
    assert role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    attached = other.iam.list_attached_role_policies(RoleName=ENTRANCE)["AttachedPolicies"]
    assert [policy["PolicyName"] for policy in attached] == ["AdministratorAccess"]
    assert aws.client("iam").list_roles()["Roles"] == []


def test_only_the_lab_s_own_account_enters_another_and_only_with_permission(aws, other, irsa, pod):
    role = f"arn:aws:iam::{THIRD}:role/{ENTRANCE}"
    me = f"arn:aws:sts::{OTHER}:assumed-role/{ENTRANCE}/me"
    said = "User: {} is not authorized to perform: sts:AssumeRole on resource: {}"
    for sts, caller in ((other.sts, me), (aws.client("sts", pod), OUR_SESSION)):
        refused(
            lambda sts=sts: sts.assume_role(RoleArn=role, RoleSessionName="me"),
            403, "AccessDenied", said.format(caller, role),
        )  # fmt: skip
    irsa.permit(statement("sts:AssumeRole", role))
    entered = aws.client("sts", pod).assume_role(RoleArn=role, RoleSessionName="me")
    assert entered["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{THIRD}:assumed-role/{ENTRANCE}/me"


def test_each_account_has_its_own_roles_queues_tables_secrets_and_topics(aws, other):
    made = {
        "iam": lambda client: client.create_role(RoleName="same", AssumeRolePolicyDocument=trusting(ACCOUNT)),
        "sqs": lambda client: client.create_queue(QueueName="same"),
        "dynamodb": lambda client: client.create_table(
            TableName="same",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        ),
        "secretsmanager": lambda client: client.create_secret(Name="same", SecretString="x"),
        # The lab can't authorize calls to SNS, but an account's administrator may make them.
        "sns": lambda client: client.create_topic(Name="same"),
    }
    listed = {
        "iam": lambda client: [r["Arn"] for r in client.list_roles()["Roles"] if r["RoleName"] != ENTRANCE],
        "sqs": lambda client: client.list_queues().get("QueueUrls", []),
        "dynamodb": lambda client: client.list_tables()["TableNames"],
        "secretsmanager": lambda client: [s["ARN"] for s in client.list_secrets()["SecretList"]],
        "sns": lambda client: [t["TopicArn"] for t in client.list_topics()["Topics"]],
    }
    for service, make in made.items():
        make(other.client(service))
        assert listed[service](aws.client(service)) == [], service
        make(aws.client(service))
        ours, theirs = listed[service](aws.client(service)), listed[service](other.client(service))
        assert len(ours) == len(theirs) == 1, service
        if service != "dynamodb":
            assert (ACCOUNT in ours[0], OTHER in theirs[0]) == (True, True), service
    ids = {client.get_role(RoleName="same")["Role"]["RoleId"] for client in (aws.client("iam"), other.iam)}
    assert len(ids) == 2


def test_a_bucket_name_is_unique_across_accounts(aws, other):
    other.s3.create_bucket(Bucket="taken")
    refused(
        lambda: aws.client("s3").create_bucket(Bucket="taken"),
        409, "BucketAlreadyExists",
        "The requested bucket name is not available. The bucket namespace is shared by all users of the system. "
        "Please select a different name and try again",
    )  # fmt: skip
    assert aws.client("s3").list_buckets()["Buckets"] == []
    assert [bucket["Name"] for bucket in other.s3.list_buckets()["Buckets"]] == ["taken"]


def test_only_the_lab_s_own_account_has_clusters(aws, other):
    aws.client("eks").create_cluster(name="blue", roleArn=OURS, resourcesVpcConfig={})
    assert other.client("eks").list_clusters()["clusters"] == []
    for call in (
        lambda: other.client("eks").describe_cluster(name="blue"),
        lambda: other.client("eks").list_access_entries(clusterName="blue"),
        lambda: other.client("eks").list_identity_provider_configs(clusterName="blue"),
        lambda: other.client("eks").delete_cluster(name="blue"),
    ):
        refused(call, 404, "ResourceNotFoundException", "No cluster found for name: blue.")
    refused(
        lambda: other.client("eks").create_cluster(name="blue", roleArn=THEIRS, resourcesVpcConfig={}),
        501, "NotImplemented", f"The lab has clusters only in the account {ACCOUNT}",
    )  # fmt: skip


@pytest.mark.parametrize("header", ["x-moto-account-id", "X-Moto-Account-Id"])
def test_no_header_leads_into_another_account(aws, other, header):
    other.bucket("theirs")
    s3 = aws.new_client("s3", ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key)
    s3.meta.events.register("before-sign", lambda request, **_: request.headers.add_header(header, OTHER))
    assert s3.list_buckets()["Buckets"] == []


def test_a_role_with_a_deny_no_longer_counts_as_its_account_s_administrator(aws, other):
    other.iam.put_role_policy(
        RoleName=ENTRANCE,
        PolicyName="no-sns",
        PolicyDocument=document({"Effect": "Deny", "Action": "sns:*", "Resource": "*"}),
    )
    with pytest.raises(ClientError, match="the lab cannot yet authorize sns:ListTopics"):
        other.client("sns").list_topics()


def test_an_administrator_reaches_no_other_account_by_an_unsupported_action(aws, other):
    topic = aws.client("sns").create_topic(Name="ours")["TopicArn"]
    with pytest.raises(ClientError, match="the lab cannot yet authorize sns:Publish"):
        other.client("sns").publish(TopicArn=topic, Message="x")


# Buckets of another account: both sides have to allow


READ = "s3:GetObject"
NO_IDENTITY = "because no identity-based policy allows the s3:GetObject action"
NO_RESOURCE = "because no resource-based policy allows the s3:GetObject action"
THEIR_OBJECT = "arn:aws:s3:::theirs/hello.txt"
SAID = f'User: {OUR_SESSION} is not authorized to perform: s3:GetObject on resource: "{THEIR_OBJECT}" '


def admitting(principal, **more):
    return statement(READ, THEIR_OBJECT, Principal={"AWS": principal}, **more)


@pytest.mark.parametrize(
    ("permitted", "bucket_policy", "tail"),
    [
        ([statement(READ)], [], NO_RESOURCE),
        ([], [admitting(OURS)], NO_IDENTITY),
        ([], [admitting(OUR_SESSION)], NO_IDENTITY),
        ([statement(READ)], [admitting(OURS)], None),
        ([statement(READ)], [admitting(OUR_SESSION)], None),
        ([statement(READ)], [admitting(f"arn:aws:iam::{ACCOUNT}:root")], None),
        ([statement(READ)], [admitting(ACCOUNT)], None),
        ([statement(READ)], [admitting(THIRD)], NO_RESOURCE),
        ([statement(READ)], [admitting("*", Condition={"StringEquals": {"aws:PrincipalAccount": ACCOUNT}})], None),
        ([statement(READ)], [admitting("*", Condition={"StringEquals": {"aws:PrincipalAccount": OTHER}})], NO_RESOURCE),
        ([statement(READ)], [admitting("*", Condition={"ArnEquals": {"aws:PrincipalArn": OURS}})], None),
        ([statement(READ)], [admitting(OURS), admitting(OURS, Effect="Deny")],
         "with an explicit deny in a resource-based policy"),
        ([statement(READ, Condition={"StringEquals": {"aws:ResourceAccount": OTHER}})], [admitting(OURS)], None),
        ([statement(READ, Condition={"StringEquals": {"s3:ResourceAccount": ACCOUNT}})], [admitting(OURS)],
         NO_IDENTITY),
    ],
)  # fmt: skip
def test_both_accounts_must_allow_a_cross_account_bucket_read(aws, irsa, pod, other, permitted, bucket_policy, tail):
    irsa.permit(*(permitted or [statement("s3:ListAllMyBuckets")]))
    other.bucket("theirs", *bucket_policy)

    def call():
        return aws.client("s3", pod).get_object(Bucket="theirs", Key="hello.txt")

    if tail:
        refused(call, 403, "AccessDenied", SAID + tail)
        assert aws.last()["recipientAccountId"] == ACCOUNT
    else:
        assert call()["Body"].read() == b"theirs"


def test_a_bucket_s_owner_gets_a_record_of_another_account_s_call(aws, irsa, pod, other):
    irsa.permit(statement(READ))
    other.bucket("theirs", admitting(OURS))
    aws.client("s3", pod).get_object(Bucket="theirs", Key="hello.txt")
    ours, theirs = aws.trail()[-2:]
    assert [(r["eventName"], r["recipientAccountId"]) for r in (ours, theirs)] == [
        ("GetObject", ACCOUNT),
        ("GetObject", OTHER),
    ]
    assert ours["sharedEventID"] == theirs["sharedEventID"]
    assert (ours["userIdentity"]["arn"], theirs["userIdentity"]["accountId"]) == (OUR_SESSION, ACCOUNT)
    assert "arn" not in theirs["userIdentity"]
    bucket = {"accountId": OTHER, "type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::theirs"}
    assert bucket in ours["resources"]


def test_the_administrator_needs_a_bucket_policy_to_use_another_account_s_bucket(aws, other):
    other.bucket("theirs")
    s3 = aws.client("s3")
    user = f"arn:aws:iam::{ACCOUNT}:user/administrator"
    said = f"User: {user} is not authorized to perform: {{}} on resource: {{}} because no resource-based policy allows "
    for call, action, resource in (
        (lambda: s3.get_object(Bucket="theirs", Key="hello.txt"), READ, THEIR_OBJECT),
        (lambda: s3.put_object(Bucket="theirs", Key="x", Body=b""), "s3:PutObject", "arn:aws:s3:::theirs/x"),
        (lambda: s3.list_objects_v2(Bucket="theirs"), "s3:ListBucket", "arn:aws:s3:::theirs"),
        (lambda: s3.delete_bucket(Bucket="theirs"), "s3:DeleteBucket", "arn:aws:s3:::theirs"),
        (lambda: s3.get_bucket_policy(Bucket="theirs"), "s3:GetBucketPolicy", "arn:aws:s3:::theirs"),
    ):
        refused(call, 403, "AccessDenied", said.format(action, f'"{resource}"') + f"the {action} action")
    errors = s3.delete_objects(Bucket="theirs", Delete={"Objects": [{"Key": "hello.txt"}]})["Errors"]
    assert [(error["Key"], error["Code"]) for error in errors] == [("hello.txt", "AccessDenied")]
    with pytest.raises(ClientError, match="the lab cannot yet authorize"):
        s3.get_bucket_abac(Bucket="theirs")
    s3.create_bucket(Bucket="ours")
    source = {"Bucket": "theirs", "Key": "hello.txt"}
    refused(
        lambda: s3.copy_object(Bucket="ours", Key="copy", CopySource=source),
        403, "AccessDenied", said.format(READ, f'"{THEIR_OBJECT}"') + "the s3:GetObject action",
    )  # fmt: skip
    other.s3.put_bucket_policy(Bucket="theirs", Policy=document(admitting(f"arn:aws:iam::{ACCOUNT}:root")))
    s3.copy_object(Bucket="ours", Key="copy", CopySource=source)
    assert s3.get_object(Bucket="ours", Key="copy")["Body"].read() == b"theirs"


def test_only_the_owner_s_account_may_read_change_or_delete_a_bucket_policy(aws, irsa, pod, other):
    irsa.permit(statement("s3:*"))
    everything = statement("s3:*", "arn:aws:s3:::theirs", Principal={"AWS": [OURS, f"arn:aws:iam::{ACCOUNT}:root"]})
    other.bucket("theirs", everything)
    for s3 in (aws.client("s3", pod), aws.client("s3")):
        assert s3.list_objects_v2(Bucket="theirs")["KeyCount"] == 1
        for call in (
            lambda: s3.get_bucket_policy(Bucket="theirs"),
            lambda: s3.put_bucket_policy(Bucket="theirs", Policy=document(everything)),
            lambda: s3.delete_bucket_policy(Bucket="theirs"),
        ):
            refused(call, 405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
    assert json.loads(other.s3.get_bucket_policy(Bucket="theirs")["Policy"])["Statement"] == [everything]


def test_s3_refuses_a_call_that_expects_another_bucket_owner(aws, other):
    other.bucket("theirs")
    assert other.s3.get_object(Bucket="theirs", Key="hello.txt", ExpectedBucketOwner=OTHER)
    refused(
        lambda: other.s3.get_object(Bucket="theirs", Key="hello.txt", ExpectedBucketOwner=ACCOUNT),
        403, "AccessDenied", "Access Denied",
    )  # fmt: skip


# The first way: the provider and the role are in the other account


def provider(account):
    account.iam.create_open_id_connect_provider(Url=ISSUER, ClientIDList=[AUDIENCE], ThumbprintList=["a" * 40])


def federated(account_id):
    return json.dumps(trust_policy(Principal={"Federated": f"arn:aws:iam::{account_id}:{PROVIDER}"}))


def test_a_provider_in_the_other_account_admits_our_pods(aws, irsa, other):
    provider(other)
    other.role("theirs", federated(OTHER), statement("s3:*"))
    other.bucket("theirs")
    answer = irsa.assume(RoleArn=THEIRS)
    assert answer["Provider"] == f"arn:aws:iam::{OTHER}:{PROVIDER}"
    assert answer["SubjectFromWebIdentityToken"] == SUBJECT
    record = aws.last()
    assert (record["eventName"], record["recipientAccountId"]) == ("AssumeRoleWithWebIdentity", OTHER)
    assert who(aws.client("sts", answer["Credentials"])) == (OTHER, f"arn:aws:sts::{OTHER}:assumed-role/theirs/my-pod")
    s3 = aws.client("s3", answer["Credentials"])
    assert s3.get_object(Bucket="theirs", Key="hello.txt")["Body"].read() == b"theirs"
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["theirs"]
    with pytest.raises(ClientError, match="because no resource-based policy allows the s3:GetObject action"):
        s3.get_object(Bucket=irsa.bucket, Key="hello.txt")


@pytest.mark.parametrize(
    ("where", "trusted", "refusal", "reason"),
    [
        ([], OTHER, (400, "InvalidIdentityToken", GENERIC), NO_PROVIDER),
        ([], ACCOUNT, (400, "InvalidIdentityToken", GENERIC), NO_PROVIDER),
        ([OTHER], ACCOUNT, (403, "AccessDenied", MISTRUSTED),
         f"the trust policy trusts arn:aws:iam::{ACCOUNT}:{PROVIDER}, "
         f"and the token's provider is arn:aws:iam::{OTHER}:{PROVIDER}"),
    ],
    ids=["no provider there", "no provider there, and our own is trusted", "our own is trusted"],
)  # fmt: skip
def test_the_trail_names_the_fault_of_another_account_s_provider(aws, irsa, other, where, trusted, refusal, reason):
    if where:
        provider(other)
    other.role("theirs", federated(trusted))
    refused(lambda: irsa.assume(RoleArn=THEIRS), *refusal)
    assert aws.last()["lab"]["reason"] == reason


def test_sts_refuses_a_role_of_an_account_that_nobody_has_entered(aws, irsa):
    refused(lambda: irsa.assume(RoleArn=f"arn:aws:iam::{THIRD}:role/x"), 400, "InvalidIdentityToken", GENERIC)


# The second way: from the role of our account to one of the other


ASSUME = statement("sts:AssumeRole", THEIRS)
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
BOTH = "no role trust policy allows sts:AssumeRole"


@pytest.mark.parametrize(
    ("permitted", "trust", "parameters", "allowed"),
    [
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
    ],
)  # fmt: skip
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


@pytest.mark.parametrize(
    ("profile", "arn"),
    [
        ("me", f"arn:aws:iam::{ACCOUNT}:user/administrator"),
        ("admin-of-other", f"arn:aws:sts::{OTHER}:assumed-role/{ENTRANCE}/"),
        ("pod", OUR_SESSION),
        ("pod-in-other", f"arn:aws:sts::{OTHER}:assumed-role/theirs/chained"),
    ],
)
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
