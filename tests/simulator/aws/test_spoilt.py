"""Every service refuses a member that is missing, of the wrong type, too long or unprintable."""

import json
import os
from xml.etree import ElementTree

import pytest
from botocore.exceptions import ClientError

from tests.simulator.aws import spoilt
from tests.simulator.aws.conftest import Irsa, refused, trust_policy

# With LABKIT_WALK=all (make walk), every case runs; otherwise one case in twelve.
EACH = 1 if os.environ.get("LABKIT_WALK") == "all" else 12
# The operations whose answers show whether a refused call changed anything.
READS = ("List", "Describe", "Get")
NOT_READ = {"GetRandomPassword", "GetUser", "GetCredentialReport"}
TRUST = json.dumps(trust_policy())
CHARACTERS = "It must contain only alphanumeric characters and/or the following: +=,.@_-"
TOO_LONG = "failed to satisfy constraint: Member must have length less than or equal to"


def everything(aws, service, model):
    """The answers of the service's operations that read and need no parameter."""
    answers = {}
    # In reverse, so that ListPolicies comes before GetAccountAuthorizationDetails: it makes moto load AWS's own
    # policies, which the other then shows.
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
    # A service may accept a text for which its model has no limit.
    answers |= {case: spoilt.send(aws, case) for case in cases if not case.bounded}
    wrong = {case: message for case, answer in answers.items() if (message := spoilt.complaint(case, answer))}
    # If the lab doesn't emulate the operation, it answers 501 to every request.
    has = {case: answers[case].status != 501 or spoilt.is_emulated(aws, case) for case in wrong}
    assert {str(case): message for case, message in wrong.items() if has[case]} == {}


@pytest.mark.parametrize(("name", "message"), [
    ("with space", f"The specified value for roleName is invalid. {CHARACTERS}"),
    ("é", f"The specified value for roleName is invalid. {CHARACTERS}"),
    ("a/b", f"The specified value for roleName is invalid. {CHARACTERS}"),
    ("a\x01", f"The specified value for roleName is invalid. {CHARACTERS}"),
    ("a" * 65, f"1 validation error detected: Value '{'a' * 65}' at 'roleName' {TOO_LONG} 64"),
], ids=["space", "accent", "slash", "control", "long"])  # fmt: skip
def test_iam_refuses_an_invalid_role_name(aws, name, message):
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
def test_s3_refuses_an_invalid_bucket_name(aws, name):
    written = {"url_path": f"/{spoilt.quote(name)}", "query_string": {}, "method": "PUT", "headers": {}, "body": b""}
    answer = spoilt.respond(aws, "s3", written)
    assert (answer.status, answer.error_code) == (400, "InvalidBucketName")
    assert ElementTree.fromstring(answer.body).findtext("BucketName")
    assert aws.client("s3").list_buckets()["Buckets"] == []


@pytest.mark.parametrize("name", ["abc", "a.b", "0-9", "my.bucket-1", "b" * 63])
def test_s3_accepts_a_valid_bucket_name(aws, name):
    aws.client("s3").create_bucket(Bucket=name)
    assert aws.client("s3").head_bucket(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_s3_lists_a_key_with_control_characters_in_well_formed_xml(aws, irsa):
    aws.client("s3").put_object(Bucket=irsa.bucket, Key="a\x01\x0bb", Body=b"\x01")
    written = {"url_path": f"/{irsa.bucket}", "query_string": {}, "method": "GET", "headers": {}, "body": b""}
    answer = spoilt.respond(aws, "s3", written)
    assert (answer.status, spoilt.well_formed(answer.body) is not None) == (200, True)
    aws.client("s3").put_object(Bucket=irsa.bucket, Key="x.xml", Body=b"<a>\x01</a>", ContentType="text/xml")
    assert aws.client("s3").get_object(Bucket=irsa.bucket, Key="x.xml")["Body"].read() == b"<a>\x01</a>"


def test_s3_refuses_a_key_of_more_than_1024_bytes(aws, irsa):
    with pytest.raises(ClientError, match="KeyTooLongError"):
        aws.client("s3").put_object(Bucket=irsa.bucket, Key="é" * 513, Body=b"")


def test_a_put_with_an_unknown_sub_resource_is_not_implemented(aws, irsa):
    """moto would take it for a CreateBucket or a PutObject."""
    for path in (f"/{irsa.bucket}", f"/{irsa.bucket}/hello.txt"):
        written = {"url_path": path, "query_string": {"anew": ""}, "method": "PUT", "headers": {}, "body": b"x"}
        answer = spoilt.respond(aws, "s3", written)
        assert (answer.status, answer.error_code) == (501, "NotImplemented")
    assert aws.client("s3").get_object(Bucket=irsa.bucket, Key="hello.txt")["Body"].read() == b"hello"
