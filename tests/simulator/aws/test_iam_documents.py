"""Policy documents that IAM accepts without a version or quotation marks, and those that are too long or broken."""

import json

import pytest
from botocore.exceptions import ClientError

from tests.simulator.aws.conftest import ACCOUNT, refused, trust_policy


def sized(size):
    """A policy of this many characters, white space not counted."""
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::"}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    statement["Resource"] += "x" * (size - len(json.dumps(document, separators=(",", ":"))))
    return json.dumps(document, indent=2)


def test_a_trust_policy_needs_no_version(aws):
    iam = aws.client("iam")
    document = {key: value for key, value in trust_policy().items() if key != "Version"}
    iam.create_role(RoleName="one", AssumeRolePolicyDocument=json.dumps(document))
    document["Statement"] = document["Statement"][0]  # a single statement doesn't need a list
    iam.update_assume_role_policy(RoleName="one", PolicyDocument=json.dumps(document))
    assert iam.get_role(RoleName="one")["Role"]["AssumeRolePolicyDocument"] == document
    wrong = {"RoleName": "none", "PolicyDocument": json.dumps(trust_policy())}
    message = "The role with name none cannot be found."
    refused(lambda: iam.update_assume_role_policy(**wrong), 404, "NoSuchEntity", message)


@pytest.mark.parametrize("version", [{}, {"Version": "2008-10-17"}])
def test_an_inline_policy_needs_no_new_version_but_a_managed_policy_does(aws, irsa, version):
    iam = aws.client("iam")
    document = {**version, "Statement": [{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}]}
    iam.create_user(UserName="one")
    iam.create_group(GroupName="one")
    for kind, name in (("Role", irsa.role_name), ("User", "one"), ("Group", "one")):
        named = {f"{kind}Name": name, "PolicyName": "inline"}
        getattr(iam, f"put_{kind.lower()}_policy")(**named, PolicyDocument=json.dumps(document))
        assert getattr(iam, f"get_{kind.lower()}_policy")(**named)["PolicyDocument"] == document
        missing = {f"{kind}Name": "none", "PolicyName": "inline", "PolicyDocument": json.dumps(document)}
        message = f"The {kind.lower()} with name none cannot be found."
        refused(lambda: getattr(iam, f"put_{kind.lower()}_policy")(**missing), 404, "NoSuchEntity", message)
    message = "Policy document must be version 2012-10-17 or greater."
    managed = {"PolicyName": "managed", "PolicyDocument": json.dumps(document)}
    refused(lambda: iam.create_policy(**managed), 400, "MalformedPolicyDocument", message)


def test_an_inline_policy_of_2008_allows_its_action_and_has_no_variables(aws, irsa):
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_version.html"""
    irsa.permit({"Effect": "Allow", "Action": "sts:GetCallerIdentity", "Resource": "*"})

    def put(resource):
        document = {"Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": resource}]}
        irsa.iam.put_role_policy(RoleName=irsa.role_name, PolicyName="inline", PolicyDocument=json.dumps(document))

    s3 = aws.client("s3", irsa.assume()["Credentials"])
    put("arn:aws:s3:::irsa-lab/hello.txt")
    assert s3.get_object(Bucket=irsa.bucket, Key="hello.txt")["Body"].read() == b"hello"
    put("arn:aws:s3:::irsa-lab/${*}hello.txt")
    with pytest.raises(ClientError, match="no identity-based policy allows the s3:GetObject action"):
        s3.get_object(Bucket=irsa.bucket, Key="hello.txt")


@pytest.mark.parametrize(("resource", "message"), [
    ("irsa-lab", 'Resource irsa-lab must be in ARN format or "*".'),
    ("arn:aws:s3:us-east-1:123456789012:irsa-lab",
     "Resource arn:aws:s3:us-east-1:123456789012:irsa-lab can not contain region information."),
    ("arn:aws:s3:us-east-1:123456789012:job/*", ""),
    ("arn:aws:s3:*:123456789012:storage-lens/*", ""),
    ("arn:aws:s3:us-east-1:123456789012:access-grants/default", ""),
])  # fmt: skip
def test_iam_refuses_an_inline_policy_with_a_malformed_resource(irsa, resource, message):
    def put():
        irsa.permit({"Effect": "Allow", "Action": "s3:*", "Resource": resource})

    if message:
        refused(put, 400, "MalformedPolicyDocument", message)
    else:
        put()


@pytest.mark.parametrize(("kind", "longest"), [("user", 2048), ("group", 5120), ("role", 10240)])
def test_iam_limits_the_total_size_of_inline_policies(aws, kind, longest):
    iam = aws.client("iam")
    named = {f"{kind.capitalize()}Name": "one"}
    others = {"AssumeRolePolicyDocument": json.dumps(trust_policy())} if kind == "role" else {}
    getattr(iam, f"create_{kind}")(**named, **others)
    put = getattr(iam, f"put_{kind}_policy")
    message = f"Maximum policy size of {longest} bytes exceeded for {kind} one"
    long = {"PolicyName": "a", "PolicyDocument": sized(longest + 1)}
    refused(lambda: put(**named, **long), 409, "LimitExceeded", message)
    put(**named, PolicyName="a", PolicyDocument=sized(longest - 1000))
    put(**named, PolicyName="a", PolicyDocument=sized(longest - 500))  # replaces the first
    put(**named, PolicyName="b", PolicyDocument=sized(500))
    refused(lambda: put(**named, PolicyName="c", PolicyDocument=sized(200)), 409, "LimitExceeded", message)


def test_iam_refuses_a_managed_policy_of_more_than_6144_characters(aws):
    iam = aws.client("iam")
    message = "Cannot exceed quota for PolicySize: 6144"
    long = {"PolicyName": "mine", "PolicyDocument": sized(6145)}
    refused(lambda: iam.create_policy(**long), 409, "LimitExceeded", message)
    iam.create_policy(PolicyName="mine", PolicyDocument=sized(6144))
    version = {"PolicyArn": f"arn:aws:iam::{ACCOUNT}:policy/mine", "PolicyDocument": sized(6145)}
    refused(lambda: iam.create_policy_version(**version), 409, "LimitExceeded", message)


@pytest.mark.parametrize("condition", [
    {"NumericLessThan": {"aws:EpochTime": 99999999999, "aws:MultiFactorAuthAge": "1"}},
    {"DateLessThan": {"aws:CurrentTime": [1700000000, "2099-01-01T00:00:00Z"]}},
    {"DateGreaterThan": {"aws:CurrentTime": 1700000000}, "Bool": {"aws:SecureTransport": True}},
])  # fmt: skip
def test_iam_takes_numbers_and_booleans_in_conditions_without_quotation_marks(irsa, condition):
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Condition": condition}
    document = {"Version": "2012-10-17", "Statement": statement}
    named = {"RoleName": "my-role", "PolicyName": "x"}
    irsa.iam.put_role_policy(**named, PolicyDocument=json.dumps(document))
    assert irsa.iam.get_role_policy(**named)["PolicyDocument"] == document


def nested(depth):
    return '{"Version": "2012-10-17", "Statement": ' + '{"Statement":' * depth + "{}" + "}" * (depth + 1)


@pytest.mark.parametrize("document", [nested(100), nested(1000), nested(9_000), '{"Statement": "\\ud800"}', "[" * 9999])
def test_iam_and_sts_refuse_a_document_that_is_nested_too_deep_or_not_text(aws, irsa, document):
    refused(
        lambda: irsa.iam.put_role_policy(RoleName="my-role", PolicyName="x", PolicyDocument=document),
        400, "MalformedPolicyDocument", "Syntax errors in policy.",
    )  # fmt: skip
    refused(
        lambda: irsa.iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=document),
        400, "MalformedPolicyDocument", "This policy contains invalid Json",
    )  # fmt: skip
    message = "The policy is not in the valid JSON format."
    refused(lambda: irsa.assume(Policy=document[:2048]), 400, "MalformedPolicyDocument", message)
