"""Names and policy ARNs that IAM refuses, although moto would accept them."""

import json

import pytest
from botocore.exceptions import ClientError

from tests.simulator.aws.conftest import ACCOUNT, refused, trust_policy

READ_ONLY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}

TAG_CALLS = [("tag", ""), ("untag", ""), ("list", "_tags")]


@pytest.mark.parametrize(("operation", "more"), [
    ("CreatePolicyVersion", {"PolicyDocument": json.dumps(EVERYTHING), "SetAsDefault": True}),
    ("DeletePolicy", {}),
    ("DeletePolicyVersion", {"VersionId": "v1"}),
    ("SetDefaultPolicyVersion", {"VersionId": "v1"}),
    ("TagPolicy", {"Tags": [{"Key": "team", "Value": "red"}]}),
    ("UntagPolicy", {"TagKeys": ["team"]}),
])  # fmt: skip
def test_a_customer_may_not_change_a_policy_of_aws(aws, iam, operation, more):
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_managed-vs-inline.html#aws-managed-policies"""
    before = iam.get_policy(PolicyArn=READ_ONLY)["Policy"]
    call = getattr(iam, "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in operation)[1:])
    message = f"User: arn:aws:iam::{ACCOUNT}:user/administrator is not authorized to perform: iam:{operation} on"
    refused(lambda: call(PolicyArn=READ_ONLY, **more), 403, "AccessDenied", f"{message} resource: policy {READ_ONLY}")
    assert aws.last()["lab"]["reason"] == "nobody but AWS can change AWS's managed policies"
    assert iam.get_policy(PolicyArn=READ_ONLY)["Policy"] == before


@pytest.mark.parametrize(("arn", "status", "code", "message"), [
    ("arn:aws:iam:aws:policy/AdministratorAccess", 400, "InvalidInput", "ARN {} is not valid."),
    ("arn:aws:iam::aws:role/AdministratorAccess", 400, "InvalidInput", "ARN {} is not valid."),
    ("arn:aws:iam::aws:policy/AdministratorAccess ", 400, "InvalidInput", "ARN {} is not valid."),
    ("arn:aws-cn:iam::aws:policy/AdministratorAccess", 400, "ValidationError", "Invalid ARN partition"),
    ("arn:aws:iam::aws:policy/NoSuchPolicy", 404, "NoSuchEntity", "Policy {} does not exist or is not attachable."),
    ("arn:aws:iam::aws:policy/AWSLambdaBasicExecutionRole", 404, "NoSuchEntity",
     "Policy {} does not exist or is not attachable."),
    ("arn:aws:iam::aws:policy/aws-service-role/AmazonEKSServiceRolePolicy", 400, "PolicyNotAttachable",
     "Cannot attach a Service Role Policy to a Customer Role."),
])  # fmt: skip
def test_iam_says_why_a_policy_cannot_be_attached(iam, irsa, arn, status, code, message):
    refused(lambda: iam.attach_role_policy(RoleName=irsa.role_name, PolicyArn=arn), status, code, message.format(arn))


def test_only_aws_makes_roles_in_the_path_of_service_linked_roles(iam):
    given = {"RoleName": "svc", "AssumeRolePolicyDocument": json.dumps(trust_policy())}
    message = "Path prefix '/aws-service-role/' can only be used for AWS Service linked Roles"
    refused(lambda: iam.create_role(**given, Path="/aws-service-role/x/"), 400, "InvalidInput", message)
    assert iam.create_role(**given, Path="/service-role/")["Role"]["Path"] == "/service-role/"


def test_names_that_differ_only_in_case_are_the_same_name(iam):
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-names"""
    trust, document = json.dumps(trust_policy()), json.dumps(EVERYTHING)
    calls = {
        "Role with name cart already exists.": lambda name: iam.create_role(
            RoleName=name, AssumeRolePolicyDocument=trust
        ),
        "User with name cart already exists.": lambda name: iam.create_user(UserName=name),
        "Group with name cart already exists.": lambda name: iam.create_group(GroupName=name),
        "A policy called cart already exists.": lambda name: iam.create_policy(
            PolicyName=name, PolicyDocument=document
        ),
        "Instance Profile cart already exists.": lambda name: iam.create_instance_profile(InstanceProfileName=name),
    }
    for message, create in calls.items():
        create("Cart")
        refused(lambda: create("cart"), 409, "EntityAlreadyExists", message)
    # A name of AWS's own policies isn't in use in the account.
    iam.create_policy(PolicyName="administratoraccess", PolicyDocument=document)


def test_a_service_linked_role_may_be_tagged_but_not_changed_or_deleted(iam):
    name = iam.create_service_linked_role(AWSServiceName="eks.amazonaws.com")["Role"]["RoleName"]
    iam.tag_role(RoleName=name, Tags=[{"Key": "team", "Value": "red"}])
    message = f"Cannot perform the operation on the protected role '{name}' - this role is only modifiable by AWS"
    for call in (
        lambda: iam.put_role_policy(RoleName=name, PolicyName="more", PolicyDocument=json.dumps(EVERYTHING)),
        lambda: iam.attach_role_policy(RoleName=name, PolicyArn=READ_ONLY),
        lambda: iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trust_policy())),
        lambda: iam.put_role_permissions_boundary(RoleName=name, PermissionsBoundary=READ_ONLY),
        lambda: iam.delete_role(RoleName=name),
    ):
        refused(call, 400, "UnmodifiableEntity", message)
    with pytest.raises(ClientError, match="NoSuchEntity"):
        iam.get_role_policy(RoleName=name, PolicyName="more")


@pytest.mark.parametrize("kind", ["Role", "User"])
def test_a_principal_has_one_tag_for_keys_that_differ_only_in_case(iam, irsa, kind):
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/id_tags.html#case-sensitivity"""
    named = {f"{kind}Name": irsa.role_name if kind == "Role" else "one"}
    if kind == "User":
        iam.create_user(**named)
    tag, untag, tags = (getattr(iam, f"{verb}_{kind.lower()}{s}") for verb, s in TAG_CALLS)
    tag(**named, Tags=[{"Key": "Team", "Value": "red"}, {"Key": "Cost", "Value": "1"}])
    tag(**named, Tags=[{"Key": "team", "Value": "blue"}])
    assert tags(**named)["Tags"] == [{"Key": "Cost", "Value": "1"}, {"Key": "team", "Value": "blue"}]
    untag(**named, TagKeys=["TEAM"])
    assert tags(**named)["Tags"] == [{"Key": "Cost", "Value": "1"}]
