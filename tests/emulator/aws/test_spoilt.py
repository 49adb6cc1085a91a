"""What no service takes: a member that is missing, of another type, too long, or that cannot be printed."""

import json
import os
from xml.etree import ElementTree

import pytest
from botocore.exceptions import ClientError

from tests.emulator.aws import spoilt
from tests.emulator.aws.conftest import Irsa, refused, trust_policy

# All of them with LABKIT_WALK=all (make walk); else one in so many.
EACH = 1 if os.environ.get("LABKIT_WALK") == "all" else 12
# What lists all that there is of a service, without being told of what.
READS = ("List", "Describe", "Get")
NOT_READ = {"GetRandomPassword", "GetUser", "GetCredentialReport"}
TRUST = json.dumps(trust_policy())
CHARACTERS = "It must contain only alphanumeric characters and/or the following: +=,.@_-"
TOO_LONG = "failed to satisfy constraint: Member must have length less than or equal to"


def everything(aws, service, model):
    """The answers of the service's operations that read and need no parameter."""
    answers = {}
    # ListPolicies, which has moto load AWS's own policies, before GetAccountAuthorizationDetails, which shows them.
    for name in sorted(model.operation_names, reverse=True):
        shape = model.operation_model(name).input_shape
        if name.startswith(READS) and name not in NOT_READ and not (shape and shape.required_members):
            try:
                answer = aws.client(service)._make_api_call(name, {})
            except ClientError as error:
                answer = error.response
            answer.pop("ResponseMetadata")
            answers[name] = answer
    return answers


@pytest.mark.parametrize("service", spoilt.SERVICES)
def test_every_operation_refuses_a_spoilt_member_and_changes_nothing(aws, service):
    Irsa(aws)
    model = aws.client(service).meta.service_model
    cases = list(spoilt.cases(service, model))[::EACH]
    before = everything(aws, service, model)
    answers = {case: spoilt.send(aws, case) for case in cases if case.bounded}
    assert everything(aws, service, model) == before
    # A text that the model leaves unbounded may be taken.
    answers |= {case: spoilt.send(aws, case) for case in cases if not case.bounded}
    wrong = {case: told for case, answer in answers.items() if (told := spoilt.complaint(case, answer))}
    # What the lab has not at all is 501 whatever is asked.
    has = {case: answers[case].status != 501 or spoilt.is_emulated(aws, case) for case in wrong}
    assert {str(case): told for case, told in wrong.items() if has[case]} == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("with space", f"The specified value for roleName is invalid. {CHARACTERS}"),
        ("é", f"The specified value for roleName is invalid. {CHARACTERS}"),
        ("a/b", f"The specified value for roleName is invalid. {CHARACTERS}"),
        ("a\x01", f"The specified value for roleName is invalid. {CHARACTERS}"),
        ("a" * 65, f"1 validation error detected: Value '{'a' * 65}' at 'roleName' {TOO_LONG} 64"),
    ],
    ids=["space", "accent", "slash", "control", "long"],
)
def test_a_role_s_name(aws, name, message):
    iam = aws.client("iam")
    role = {"RoleName": name, "AssumeRolePolicyDocument": TRUST}
    if "\x01" in name:
        with pytest.raises(ClientError) as caught:
            iam.create_role(**role)
        assert caught.value.response["Error"]["Code"] == "ValidationError"
    else:
        refused(lambda: iam.create_role(**role), 400, "ValidationError", message)
    assert iam.list_roles()["Roles"] == []


BAD_BUCKETS = ["Upper", "under_score", "-a-", "a..b", "192.168.5.4", "xn--abc", "sthree-abc", "amzn-s3-demo-bucket",
               "abc-s3alias", "abc--ol-s3", "abc.mrap", "abc--x-s3", "abc--table-s3", "b" * 64, "a\x01b"]  # fmt: skip


@pytest.mark.parametrize("name", BAD_BUCKETS)
def test_a_bucket_s_name(aws, name):
    written = {"url_path": f"/{spoilt.quote(name)}", "query_string": {}, "method": "PUT", "headers": {}, "body": b""}
    answer = spoilt.respond(aws, "s3", written)
    assert (answer.status, answer.error_code) == (400, "InvalidBucketName")
    assert ElementTree.fromstring(answer.body).findtext("BucketName")
    assert aws.client("s3").list_buckets()["Buckets"] == []


@pytest.mark.parametrize("name", ["abc", "a.b", "0-9", "my.bucket-1", "b" * 63])
def test_a_bucket_s_name_that_aws_allows(aws, name):
    aws.client("s3").create_bucket(Bucket=name)
    assert aws.client("s3").head_bucket(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_a_key_with_control_characters_is_listed_as_xml(aws, irsa):
    aws.client("s3").put_object(Bucket=irsa.bucket, Key="a\x01\x0bb", Body=b"\x01")
    written = {"url_path": f"/{irsa.bucket}", "query_string": {}, "method": "GET", "headers": {}, "body": b""}
    answer = spoilt.respond(aws, "s3", written)
    assert (answer.status, spoilt.well_formed(answer.body) is not None) == (200, True)
    aws.client("s3").put_object(Bucket=irsa.bucket, Key="x.xml", Body=b"<a>\x01</a>", ContentType="text/xml")
    assert aws.client("s3").get_object(Bucket=irsa.bucket, Key="x.xml")["Body"].read() == b"<a>\x01</a>"


def test_a_key_that_is_too_long(aws, irsa):
    with pytest.raises(ClientError, match="KeyTooLongError"):
        aws.client("s3").put_object(Bucket=irsa.bucket, Key="é" * 513, Body=b"")


def test_an_operation_that_moto_would_take_for_another(aws, irsa):
    """A PUT with an unknown sub-resource is neither a CreateBucket nor a PutObject."""
    for path in (f"/{irsa.bucket}", f"/{irsa.bucket}/hello.txt"):
        written = {"url_path": path, "query_string": {"anew": ""}, "method": "PUT", "headers": {}, "body": b"x"}
        answer = spoilt.respond(aws, "s3", written)
        assert (answer.status, answer.error_code) == (501, "NotImplemented")
    assert aws.client("s3").get_object(Bucket=irsa.bucket, Key="hello.txt")["Body"].read() == b"hello"
