"""IAM users and their access keys: what users may do, and when a key stops working.

https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html
"""

import pytest

from tests.simulator.aws.conftest import ACCOUNT, OTHER, Account, document, refused, statement, trusting

ARN = f"arn:aws:iam::{ACCOUNT}:user/ops/ann"
READ_ONLY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
DENIED = f'User: {ARN} is not authorized to perform: s3:GetObject on resource: "arn:aws:s3:::irsa-lab/hello.txt" '
NO_IDENTITY = "because no identity-based policy allows the s3:GetObject action"
UNKNOWN = "The security token included in the request is invalid."
READ = statement("s3:GetObject")


class Ann:
    """A user with an access key."""

    def __init__(self, aws, iam=None, **about):
        self.aws, self.iam = aws, iam or aws.client("iam")
        self.user = self.iam.create_user(UserName="ann", Path="/ops/", **about)["User"]
        self.key = self.iam.create_access_key(UserName="ann")["AccessKey"]

    def client(self, service, token=None):
        return self.aws.new_client(service, self.key["AccessKeyId"], self.key["SecretAccessKey"], token)

    def permit(self, *statements):
        self.iam.put_user_policy(UserName="ann", PolicyName="inline", PolicyDocument=document(*statements))

    def read(self):
        return self.client("s3").get_object(Bucket="irsa-lab", Key="hello.txt")["Body"].read()


@pytest.fixture
def ann(aws, irsa):
    return Ann(aws)


def test_a_call_with_an_access_key_counts_as_the_key_s_user(aws, ann):
    answer = ann.client("sts").get_caller_identity()
    assert (answer["Arn"], answer["Account"], answer["UserId"]) == (ARN, ACCOUNT, ann.user["UserId"])
    identity = aws.last()["userIdentity"]
    assert (identity["type"], identity["userName"], identity["accessKeyId"]) == (
        "IAMUser",
        "ann",
        ann.key["AccessKeyId"],
    )
    assert ann.key["SecretAccessKey"] not in aws.trail_file.read_text()
    assert aws.client("sts").get_access_key_info(AccessKeyId=ann.key["AccessKeyId"])["Account"] == ACCOUNT


@pytest.mark.parametrize(("statements", "tail"), [
    ([], NO_IDENTITY),
    ([READ], None),
    ([statement("s3:GetObject", Condition={"StringEquals": {"aws:username": "ann"}})], None),
    ([statement("s3:GetObject", Condition={"StringEquals": {"aws:username": "bob"}})], NO_IDENTITY),
    ([statement("s3:GetObject", Condition={"ArnEquals": {"aws:PrincipalArn": ARN}})], None),
    ([statement("s3:GetObject", Condition={"StringEquals": {"aws:PrincipalTag/team": "blue"}})], None),
    ([statement("s3:GetObject", "arn:aws:s3:::irsa-lab/${aws:username}.txt")], NO_IDENTITY),
    ([READ, {**READ, "Effect": "Deny"}], "with an explicit deny in an identity-based policy"),
])  # fmt: skip
def test_a_user_may_do_what_its_own_policies_allow(ann, statements, tail):
    ann.iam.tag_user(UserName="ann", Tags=[{"Key": "team", "Value": "blue"}])
    if statements:
        ann.permit(*statements)
    if tail:
        refused(ann.read, 403, "AccessDenied", DENIED + tail)
    else:
        assert ann.read() == b"hello"


def test_a_group_s_policies_count_for_a_user_while_it_is_a_member(ann):
    ann.iam.create_group(GroupName="readers")
    ann.iam.attach_group_policy(GroupName="readers", PolicyArn=READ_ONLY)
    refused(ann.read, 403, "AccessDenied", DENIED + NO_IDENTITY)
    ann.iam.add_user_to_group(GroupName="readers", UserName="ann")
    assert ann.read() == b"hello"
    ann.iam.put_group_policy(GroupName="readers", PolicyName="no", PolicyDocument=document({**READ, "Effect": "Deny"}))
    refused(ann.read, 403, "AccessDenied", DENIED + "with an explicit deny in an identity-based policy")
    ann.iam.remove_user_from_group(GroupName="readers", UserName="ann")
    refused(ann.read, 403, "AccessDenied", DENIED + NO_IDENTITY)


@pytest.mark.parametrize("with_the_user", [True, False])
def test_a_permissions_boundary_limits_a_user(aws, irsa, with_the_user):
    policy = aws.client("iam").create_policy(PolicyName="bound", PolicyDocument=document(statement("sqs:*")))
    bound = policy["Policy"]["Arn"]
    ann = Ann(aws, **({"PermissionsBoundary": bound} if with_the_user else {}))
    ann.permit(READ)
    if not with_the_user:
        assert ann.read() == b"hello"
        ann.iam.put_user_permissions_boundary(UserName="ann", PermissionsBoundary=bound)
    refused(ann.read, 403, "AccessDenied", DENIED + "because no permissions boundary allows the s3:GetObject action")
    ann.iam.delete_user_permissions_boundary(UserName="ann")
    assert ann.read() == b"hello"
    missing = f"arn:aws:iam::{ACCOUNT}:policy/missing"
    refused(
        lambda: ann.iam.put_user_permissions_boundary(UserName="ann", PermissionsBoundary=missing),
        404, "NoSuchEntity", f"Policy {missing} does not exist or is not attachable.",
    )  # fmt: skip


def inactive(ann):
    ann.iam.update_access_key(UserName="ann", AccessKeyId=ann.key["AccessKeyId"], Status="Inactive")


def deleted(ann):
    ann.iam.delete_access_key(UserName="ann", AccessKeyId=ann.key["AccessKeyId"])


def user_deleted(ann):
    deleted(ann)
    ann.iam.delete_user(UserName="ann")
    ann.iam.create_user(UserName="ann", Path="/ops/")


@pytest.mark.parametrize("end", [inactive, deleted, user_deleted])
def test_a_deleted_or_disabled_access_key_is_refused(ann, end):
    end(ann)
    refused(ann.client("sts").get_caller_identity, 403, "InvalidClientTokenId", UNKNOWN)
    message = "The AWS Access Key Id you provided does not exist in our records."
    refused(ann.read, 403, "InvalidAccessKeyId", message)


def test_an_access_key_needs_its_own_secret_and_no_session_token(ann, irsa):
    token = irsa.assume()["Credentials"]["SessionToken"]
    refused(ann.client("sts", token).get_caller_identity, 403, "InvalidClientTokenId", UNKNOWN)
    ann.key["SecretAccessKey"] = "x" * 40
    refused(
        ann.client("sts").get_caller_identity, 403, "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access "
        "Key and signing method. Consult the service documentation for details.",
    )  # fmt: skip


def test_a_user_can_ask_iam_about_itself_without_naming_itself(ann):
    ann.permit(statement(["iam:GetUser", "iam:ListAccessKeys"], ARN))
    iam = ann.client("iam")
    assert iam.get_user()["User"]["Arn"] == ARN
    assert [key["UserName"] for key in iam.list_access_keys()["AccessKeyMetadata"]] == ["ann"]
    refused(
        iam.create_access_key, 403, "AccessDenied",
        f"User: {ARN} is not authorized to perform: iam:CreateAccessKey on resource: user ann "
        "because no identity-based policy allows the iam:CreateAccessKey action",
    )  # fmt: skip


def test_the_administrator_can_ask_iam_about_itself_and_a_session_cannot(aws, irsa):
    iam, caller = aws.client("iam"), aws.client("sts").get_caller_identity()
    user = iam.get_user()["User"]
    assert (user["Arn"], user["UserId"], user["UserName"]) == (caller["Arn"], caller["UserId"], "administrator")
    assert iam.get_user(UserName="administrator")["User"] == user == iam.get_user()["User"]
    irsa.permit({"Effect": "Allow", "Action": "iam:GetUser", "Resource": "*"})
    refused(
        aws.client("iam", irsa.assume()["Credentials"]).get_user, 400, "ValidationError",
        "Must specify userName when calling with non-User credentials",
    )  # fmt: skip


def test_a_user_assumes_roles_of_its_own_and_of_another_account(aws, ann):
    other = Account(aws, OTHER)
    ann.iam.create_role(RoleName="long", AssumeRolePolicyDocument=trusting(ARN), MaxSessionDuration=7200)
    theirs = other.role("theirs", trusting(ACCOUNT))
    ours = f"arn:aws:iam::{ACCOUNT}:role/long"
    sts = ann.client("sts")
    # This isn't role chaining, so the session may last more than an hour.
    assert sts.assume_role(RoleArn=ours, RoleSessionName="ann", DurationSeconds=7200)
    said = f"User: {ARN} is not authorized to perform: sts:AssumeRole on resource: {theirs}"
    refused(lambda: sts.assume_role(RoleArn=theirs, RoleSessionName="ann"), 403, "AccessDenied", said)
    ann.permit(statement("sts:AssumeRole", theirs))
    taken = sts.assume_role(RoleArn=theirs, RoleSessionName="ann")["AssumedRoleUser"]["Arn"]
    assert taken == f"arn:aws:sts::{OTHER}:assumed-role/theirs/ann"


def test_a_user_of_another_account_also_needs_the_bucket_policy(aws, irsa):
    ann = Ann(aws, Account(aws, OTHER).iam)
    ann.permit(READ)
    arn = f"arn:aws:iam::{OTHER}:user/ops/ann"
    assert ann.client("sts").get_caller_identity()["Arn"] == arn
    said = DENIED.replace(ARN, arn) + "because no resource-based policy allows the s3:GetObject action"
    refused(ann.read, 403, "AccessDenied", said)
    aws.client("s3").put_bucket_policy(
        Bucket="irsa-lab", Policy=document({**READ, "Resource": "arn:aws:s3:::irsa-lab/*", "Principal": {"AWS": arn}})
    )
    assert ann.read() == b"hello"


def test_a_trust_policy_shows_the_old_id_of_a_user_that_was_created_again(aws, ann):
    ann.iam.create_role(RoleName="trusting", AssumeRolePolicyDocument=trusting(ARN))
    user_deleted(ann)
    shown = ann.iam.get_role(RoleName="trusting")["Role"]["AssumeRolePolicyDocument"]
    assert shown["Statement"][0]["Principal"] == {"AWS": ann.user["UserId"]}


def test_the_lab_says_what_it_cannot_do_for_a_user(aws, ann):
    refused(ann.client("sts").get_session_token, 501, "NotImplemented", "The lab does not emulate sts:GetSessionToken.")
    ann.iam.attach_user_policy(UserName="ann", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    said = f"User: {ARN} is not authorized to perform this call: the lab cannot yet authorize ses:ListIdentities"
    refused(ann.client("ses").list_identities, 403, "AccessDenied", said)
    refused(
        lambda: ann.iam.create_user(UserName="administrator"),
        409, "EntityAlreadyExists", "User with name administrator already exists.",
    )  # fmt: skip
