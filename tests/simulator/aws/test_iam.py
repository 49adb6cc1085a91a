"""Roles, policies and providers as IAM stores and lists them, and bucket policies."""

import hashlib
import json
import socket
import ssl

import pytest
from botocore.exceptions import ClientError

from tests.simulator.aws.conftest import ACCOUNT, AUDIENCE, ISSUER, ISSUER_HOST, Irsa, refused, trust_policy

DOCUMENT = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
READ_ONLY = "arn:aws:iam::aws:policy/ReadOnlyAccess"
ATTACHED = "Cannot delete a policy attached to entities."


def policy(iam, name="bound"):
    return iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(DOCUMENT))["Policy"]["Arn"]


def role(iam, name="my-role"):
    return iam.get_role(RoleName=name)["Role"]


# Roles.


@pytest.mark.parametrize(
    ("value", "rule"),
    [("a,b", r"satisfy regular expression pattern: \[\\p"), ("a" * 257, "length less than or equal to 256")],
)
def test_iam_calls_that_take_tags_refuse_an_invalid_value(iam, value, rule):
    tag = {"Key": "run", "Value": value}
    iam.create_role(RoleName="tagged", AssumeRolePolicyDocument=json.dumps(trust()))
    for call in (
        lambda: iam.create_role(RoleName="tags", AssumeRolePolicyDocument=json.dumps(trust()), Tags=[tag]),
        lambda: iam.tag_role(RoleName="tagged", Tags=[tag]),
        lambda: iam.create_policy(PolicyName="tags", PolicyDocument=json.dumps(DOCUMENT), Tags=[tag]),
        lambda: iam.create_user(UserName="tags", Tags=[tag]),
    ):
        with pytest.raises(ClientError, match=f"ValidationError.*at 'tags.1.member.value'.*{rule}"):
            call()
    iam.delete_role(RoleName="tagged")


@pytest.mark.parametrize("key", ["aws:run", "AWS:run", "aws:"])
def test_iam_calls_that_take_tags_refuse_keys_that_begin_with_aws(iam, irsa, key):
    tags = [{"Key": "run", "Value": "aws:"}, {"Key": key, "Value": "x"}]
    for call in (
        lambda: iam.create_role(RoleName="tags", AssumeRolePolicyDocument=json.dumps(trust()), Tags=tags),
        lambda: iam.tag_role(RoleName=irsa.role_name, Tags=tags),
        lambda: iam.create_policy(PolicyName="tags", PolicyDocument=json.dumps(DOCUMENT), Tags=tags),
        lambda: iam.tag_open_id_connect_provider(OpenIDConnectProviderArn=irsa.provider_arn, Tags=tags),
        lambda: iam.create_user(UserName="tags", Tags=tags),
    ):
        refused(call, 400, "InvalidInput", "aws: prefixed tag key names are not allowed for external use.")
    iam.tag_role(RoleName=irsa.role_name, Tags=tags[:1])
    assert role(iam)["Tags"] == tags[:1]


def test_update_role_keeps_each_property_that_the_call_leaves_out(iam):
    role_trust = json.dumps(trust())
    iam.create_role(RoleName="told", Description="reads", MaxSessionDuration=7200, AssumeRolePolicyDocument=role_trust)
    iam.update_role(RoleName="told", MaxSessionDuration=43200)
    assert (role(iam, "told")["Description"], role(iam, "told")["MaxSessionDuration"]) == ("reads", 43200)
    iam.update_role(RoleName="told", Description="reads on")
    assert (role(iam, "told")["Description"], role(iam, "told")["MaxSessionDuration"]) == ("reads on", 43200)
    iam.update_role(RoleName="told")
    assert (role(iam, "told")["Description"], role(iam, "told")["MaxSessionDuration"]) == ("reads on", 43200)


def trust():
    statement = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement]}


@pytest.mark.parametrize(
    ("seconds", "bound"), [(3599, "greater than or equal to 3600"), (43201, "less than or equal to 43200")]
)
def test_iam_refuses_a_maximum_session_duration_outside_1_to_12_hours(iam, irsa, seconds, bound):
    message = f"1 validation error detected: Value '{seconds}' at 'maxSessionDuration' failed to satisfy constraint: "
    message += f"Member must have value {bound}"
    document = json.dumps(trust())
    for call in (
        lambda: iam.update_role(RoleName=irsa.role_name, MaxSessionDuration=seconds),
        lambda: iam.create_role(RoleName="long", MaxSessionDuration=seconds, AssumeRolePolicyDocument=document),
    ):
        refused(call, 400, "ValidationError", message)
    assert role(iam)["MaxSessionDuration"] == 3600


def test_a_role_keeps_its_boundary_until_it_is_removed(iam, irsa):
    bound = policy(iam)
    for arn in (bound, READ_ONLY):
        iam.put_role_permissions_boundary(RoleName=irsa.role_name, PermissionsBoundary=arn)
        boundary = {"PermissionsBoundaryType": "PermissionsBoundaryPolicy", "PermissionsBoundaryArn": arn}
        assert role(iam)["PermissionsBoundary"] == boundary
    iam.delete_role_permissions_boundary(RoleName=irsa.role_name)
    assert "PermissionsBoundary" not in role(iam)


def test_iam_refuses_a_permissions_boundary_that_does_not_exist(iam, irsa):
    missing = f"arn:aws:iam::{ACCOUNT}:policy/missing"
    document = json.dumps(trust())
    for call in (
        lambda: iam.put_role_permissions_boundary(RoleName=irsa.role_name, PermissionsBoundary=missing),
        lambda: iam.create_role(RoleName="new", AssumeRolePolicyDocument=document, PermissionsBoundary=missing),
    ):
        refused(call, 404, "NoSuchEntity", f"Policy {missing} does not exist or is not attachable.")
    assert "PermissionsBoundary" not in role(iam)


def test_list_roles_pages_through_roles_with_trust_policy_and_session_duration(iam, irsa):
    for name in ("one", "two"):
        iam.create_role(RoleName=name, MaxSessionDuration=7200, AssumeRolePolicyDocument=json.dumps(trust()))
    pages = list(iam.get_paginator("list_roles").paginate(PaginationConfig={"PageSize": 1}))
    assert [len(page["Roles"]) for page in pages] == [1, 1, 1]
    roles = {one["RoleName"]: one for page in pages for one in page["Roles"]}
    assert roles["my-role"]["AssumeRolePolicyDocument"] == trust_policy()
    assert roles["two"]["AssumeRolePolicyDocument"] == trust()
    assert [roles[name]["MaxSessionDuration"] for name in ("my-role", "one", "two")] == [3600, 7200, 7200]


# Policies.


def test_iam_refuses_to_delete_a_policy_that_is_attached_or_has_several_versions(iam, irsa):
    arn = policy(iam)

    def delete():
        iam.delete_policy(PolicyArn=arn)

    iam.attach_role_policy(RoleName=irsa.role_name, PolicyArn=arn)
    refused(delete, 409, "DeleteConflict", ATTACHED)
    iam.detach_role_policy(RoleName=irsa.role_name, PolicyArn=arn)
    iam.put_role_permissions_boundary(RoleName=irsa.role_name, PermissionsBoundary=arn)
    refused(delete, 409, "DeleteConflict", ATTACHED)
    iam.delete_role_permissions_boundary(RoleName=irsa.role_name)
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=json.dumps(DOCUMENT), SetAsDefault=True)
    message = "This policy has more than one version. Before you delete a policy, you must delete the policy's"
    refused(delete, 409, "DeleteConflict", f"{message} versions. The default version is deleted with the policy.")
    iam.delete_policy_version(PolicyArn=arn, VersionId="v1")
    delete()
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_policy(PolicyArn=arn)


def test_get_account_authorization_details_shows_each_role_with_its_policies(iam, irsa):
    bound = policy(iam)
    iam.put_role_policy(RoleName=irsa.role_name, PolicyName="inline", PolicyDocument=json.dumps(DOCUMENT))
    iam.attach_role_policy(RoleName=irsa.role_name, PolicyArn=bound)
    iam.put_role_permissions_boundary(RoleName=irsa.role_name, PermissionsBoundary=READ_ONLY)
    details = iam.get_account_authorization_details(Filter=["Role", "LocalManagedPolicy"])
    (role,) = details["RoleDetailList"]
    assert role["AssumeRolePolicyDocument"] == trust_policy()
    assert role["RolePolicyList"] == [{"PolicyName": "inline", "PolicyDocument": DOCUMENT}]
    attached = [one["PolicyArn"] for one in role["AttachedManagedPolicies"]]
    assert attached == [irsa.policy_arn, bound]
    assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == READ_ONLY
    (own,) = details["Policies"]
    assert (own["Arn"], own["PolicyVersionList"][0]["Document"]) == (bound, DOCUMENT)
    of_aws = iam.get_account_authorization_details(Filter=["AWSManagedPolicy"])["Policies"]
    assert {one["Arn"] for one in of_aws} == {irsa.policy_arn, READ_ONLY}


# Providers.


def test_a_provider_gets_the_thumbprint_of_its_issuer_s_top_certificate(aws, iam):
    """If the call names no thumbprint. IAM keeps a thumbprint that a later call sets."""
    made = iam.create_open_id_connect_provider(Url=ISSUER, ClientIDList=[AUDIENCE])["OpenIDConnectProviderArn"]
    context = ssl.create_default_context(cadata=aws.authority.certificate_pem.decode())
    with (
        socket.create_connection(("127.0.0.1", aws.issuer_port)) as plain,
        context.wrap_socket(plain, server_hostname=ISSUER_HOST) as served,
    ):
        # The issuer serves only its own certificate.
        top = hashlib.sha1(served.getpeercert(binary_form=True)).hexdigest()
    assert iam.get_open_id_connect_provider(OpenIDConnectProviderArn=made)["ThumbprintList"] == [top]
    stale = ["9e99a48a9960b14926bb7f3b02e22da2b0ab7280"]
    iam.update_open_id_connect_provider_thumbprint(OpenIDConnectProviderArn=made, ThumbprintList=stale)
    assert iam.get_open_id_connect_provider(OpenIDConnectProviderArn=made)["ThumbprintList"] == stale


# Buckets' policies.

NOT_APPLICABLE = "Action does not apply to any resource(s) in statement"


def bucket_policy(**changes):
    statement = {
        "Effect": "Deny",
        "Principal": {"AWS": Irsa.role_arn},
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{Irsa.bucket}/*",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement | changes]})


def test_a_bucket_policy_stays_until_it_is_deleted(aws, irsa):
    s3 = aws.client("s3")
    arn = f"arn:aws:s3:::{Irsa.bucket}"
    given = bucket_policy(Resource=[arn, f"{arn}/*", "arn:aws:s3:::irsa-*"])
    s3.put_bucket_policy(Bucket=Irsa.bucket, Policy=given)
    assert s3.get_bucket_policy(Bucket=Irsa.bucket)["Policy"] == given
    s3.delete_bucket_policy(Bucket=Irsa.bucket)
    with pytest.raises(s3.exceptions.ClientError, match="NoSuchBucketPolicy"):
        s3.get_bucket_policy(Bucket=Irsa.bucket)


@pytest.mark.parametrize(("action", "key"), [
    ("s3:ListBucket", ""),
    ("s3:ListBucket", "*"),
    ("s3:GetObject", "*"),
    ("s3:Get*", ""),
    ("s3:Get*", "/*"),
    ("s3:*", "/*"),
    ("*", ""),
    ("S3:getobjectversiontagging", "/${aws:PrincipalTag/team}/*"),
    (["s3:PutBucketCORS", "s3:PutEncryptionConfiguration", "s3:GetBucketObjectLockConfiguration"], ""),
])  # fmt: skip
def test_s3_accepts_a_bucket_policy_whose_actions_fit_its_resources(aws, irsa, action, key):
    s3 = aws.client("s3")
    s3.put_bucket_policy(
        Bucket=Irsa.bucket, Policy=bucket_policy(Action=action, Resource=f"arn:aws:s3:::{Irsa.bucket}{key}")
    )
    assert s3.get_bucket_policy(Bucket=Irsa.bucket)["Policy"]


@pytest.mark.parametrize(("changes", "message"), [
    ({"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:role/nobody"}}, "Invalid principal in policy"),
    ({"Resource": "arn:aws:s3:::another/*"}, "Policy has invalid resource"),
    ({"Resource": "arn:aws:sqs:us-east-1:123456789012:queue"}, "Policy has invalid resource"),
    *(({"Action": action, "Resource": f"arn:aws:s3:::{Irsa.bucket}{key}"}, message) for action, key,
      message in (("s3:ListBucket", "/*", NOT_APPLICABLE),
                  (["s3:GetObject", "s3:ListBucket"], "/*", NOT_APPLICABLE), ("s3:PutObject*", "", NOT_APPLICABLE),
                  ("s3:GetBucket*", "/*", NOT_APPLICABLE), ("s3:GetObjects", "/*", "Policy has invalid action"),
                  ("ec2:RunInstances", "/*", "Policy has invalid action"))),
])  # fmt: skip
def test_s3_refuses_a_bucket_policy_that_it_cannot_apply(aws, irsa, changes, message):
    s3 = aws.client("s3")
    refused(
        lambda: s3.put_bucket_policy(Bucket=Irsa.bucket, Policy=bucket_policy(**changes)),
        400, "MalformedPolicy", message,
    )  # fmt: skip
