"""Other accounts: how to enter them, which resources are theirs, and two ways from a pod into another account.

https://docs.aws.amazon.com/eks/latest/userguide/cross-account-access.html
"""

import json

import pytest
from botocore.exceptions import ClientError

from tests.simulator.aws.accounts import (
    NO_IDENTITY,
    NO_RESOURCE,
    OUR_SESSION,
    OURS,
    PROVIDER,
    READ,
    SAID,
    THEIR_OBJECT,
    THEIRS,
    admitting,
    who,
)
from tests.simulator.aws.conftest import (
    ACCOUNT,
    ADMINISTRATOR,
    AUDIENCE,
    ENTRANCE,
    ISSUER,
    OTHER,
    SUBJECT,
    THIRD,
    document,
    refused,
    statement,
    trust_policy,
    trusting,
)

GENERIC = (
    "The web identity token provided could not be validated. "
    "See the AssumeRoleWithWebIdentity documentation for requirements."
)
NO_PROVIDER = f"No OpenIDConnect provider found in your account for {ISSUER}"
MISTRUSTED = "Not authorized to perform sts:AssumeRoleWithWebIdentity"


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
        PolicyName="no-ses",
        PolicyDocument=document({"Effect": "Deny", "Action": "ses:*", "Resource": "*"}),
    )
    with pytest.raises(ClientError, match="the lab cannot yet authorize ses:ListIdentities"):
        other.client("ses").list_identities()


def test_an_administrator_reaches_no_other_account_by_an_unsupported_action(aws, other):
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    with pytest.raises(ClientError, match="the lab cannot yet authorize kms:DescribeKey"):
        other.client("kms").describe_key(KeyId=key)


# Buckets of another account: both sides have to allow


@pytest.mark.parametrize(("permitted", "bucket_policy", "tail"), [
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
    ([statement(READ, Condition={"StringEquals": {"s3:ResourceAccount": ACCOUNT}})], [admitting(OURS)], NO_IDENTITY),
])  # fmt: skip
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


@pytest.mark.parametrize(("where", "trusted", "refusal", "reason"), [
    ([], OTHER, (400, "InvalidIdentityToken", GENERIC), NO_PROVIDER),
    ([], ACCOUNT, (400, "InvalidIdentityToken", GENERIC), NO_PROVIDER),
    ([OTHER], ACCOUNT, (403, "AccessDenied", MISTRUSTED), f"the trust policy trusts arn:aws:iam::{ACCOUNT}:{PROVIDER}, "
     f"and the token's provider is arn:aws:iam::{OTHER}:{PROVIDER}"),
], ids=["no provider there", "no provider there, and our own is trusted", "our own is trusted"])  # fmt: skip
def test_the_trail_names_the_fault_of_another_account_s_provider(aws, irsa, other, where, trusted, refusal, reason):
    if where:
        provider(other)
    other.role("theirs", federated(trusted))
    refused(lambda: irsa.assume(RoleArn=THEIRS), *refusal)
    assert aws.last()["lab"]["reason"] == reason


def test_sts_refuses_a_role_of_an_account_that_nobody_has_entered(aws, irsa):
    refused(lambda: irsa.assume(RoleArn=f"arn:aws:iam::{THIRD}:role/x"), 400, "InvalidIdentityToken", GENERIC)
