"""Calls that moto can't answer: the lab says so in the service's own error format, and leaves nothing half made."""

import re

import httpx
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.loaders import Loader

from tests.simulator.aws.conftest import ACCOUNT, ADMINISTRATOR, REGION, refused

SENTENCE = "The lab does not emulate {}, or not with these parameters."


@pytest.mark.parametrize(("service", "method", "parameters", "sentence"), [
    ("cloudformation", "create_stack", {"StackName": "s", "TemplateBody": "{}"},
     "The lab does not emulate cloudformation."),
    ("iam", "generate_organizations_access_report", {"EntityPath": "o-1234567890/r-abcd"},
     SENTENCE.format("iam:GenerateOrganizationsAccessReport")),
    ("eks", "list_addons", {"clusterName": "blue"}, SENTENCE.format("eks:ListAddons")),
    ("account", "get_contact_information", {}, SENTENCE.format("account:GetContactInformation")),
    ("organizations", "leave_organization", {}, SENTENCE.format("organizations:LeaveOrganization")),
    ("route53", "list_cidr_collections", {}, SENTENCE.format("route53:ListCidrCollections")),
    ("ec2", "describe_vpc_endpoint_services", {}, SENTENCE.format("ec2:DescribeVpcEndpointServices")),
    ("sts", "assume_root",
     {"TargetPrincipal": ACCOUNT, "TaskPolicyArn": {"arn": "arn:aws:iam::aws:policy/root-task/IAMAudit"}},
     "The lab does not emulate sts:AssumeRoot."),
    ("sts", "get_web_identity_token", {"Audience": ["x"], "SigningAlgorithm": "RS256"},
     "The lab does not emulate sts:GetWebIdentityToken."),
    ("workdocs", "describe_users", {}, "The lab does not emulate workdocs."),
])  # fmt: skip
def test_the_lab_says_which_call_it_does_not_emulate(aws, service, method, parameters, sentence):
    refused(lambda: getattr(aws.client(service), method)(**parameters), 501, "NotImplemented", sentence)
    assert aws.last()["lab"]["reason"].startswith(sentence[:-1])


def test_a_call_that_is_not_emulated_is_refused_in_the_service_s_own_format(aws):
    # moto knows the last path only with another method, and answers this one with an empty 404.
    for service, path in (("eks", "/clusters/blue/addons"), ("ses", "/nonsense"), ("ses", "/v2/email/identities")):
        content_type = "application/json"
        request = AWSRequest("GET", aws.endpoint + path)
        SigV4Auth(
            Credentials(ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key), service, "us-east-1"
        ).add_auth(request)
        answer = httpx.get(request.url, headers=dict(request.headers), timeout=60)
        assert (answer.status_code, answer.headers["content-type"]) == (501, content_type)
        assert answer.json()["message"].startswith("The lab does not emulate")


def test_s3_does_not_take_a_call_on_a_sub_resource_for_the_plain_call(aws):
    """For example, DeleteBucketMetricsConfiguration doesn't delete the bucket."""
    s3, message = aws.client("s3"), []
    s3.create_bucket(Bucket="empty")
    s3.create_bucket(Bucket="full")
    s3.put_object(Bucket="full", Key="key", Body=b"content of the object")
    # Not from a client: a client that calls an operation takes the bucket out of its URI, in a model that all share.
    for operation, described in Loader().load_service_model("s3", "service-2")["operations"].items():
        http = described["http"]
        if "{Bucket}?" not in http["requestUri"] and "{Key+}?" not in http["requestUri"]:
            continue
        if operation in ("DeleteObjects", "ListObjectsV2"):
            continue
        answer = s3_call(aws, http["method"], http["requestUri"])
        assert b"content of the object" not in answer.content, operation
        assert b"<ListBucketResult" not in answer.content, operation
        assert s3.get_object(Bucket="full", Key="key")["Body"].read() == b"content of the object", operation
        assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["empty", "full"], operation
        if answer.status_code == 501:
            assert SENTENCE.partition("{}")[0] in answer.text
            message.append(operation)
    assert {"DeleteBucketMetricsConfiguration", "GetBucketRequestPayment", "GetObjectRetention"} <= {*message}


def s3_call(aws, method: str, path: str) -> httpx.Response:
    bucket = "full" if "{Key+}" in path else "empty"
    path = path.replace("{Bucket}", bucket).replace("{Key+}", "key")
    path += "" if re.search("[?&]uploads", path) else "&id=one"
    body = b"<x/>" if method in ("POST", "PUT") else b""
    request = AWSRequest(method, aws.endpoint + path, data=body)
    S3SigV4Auth(Credentials(ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key), "s3", REGION).add_auth(
        request
    )
    return httpx.request(method, request.url, headers=dict(request.headers), content=body, timeout=60)


@pytest.mark.parametrize(("operation", "parameters", "missing"), [
    ("CreateRole", {"AssumeRolePolicyDocument": "{}"}, "roleName"),
    ("CreatePolicy", {"PolicyName": "p"}, "policyDocument"),
    ("CreateUser", {}, "userName"),
    ("CreateOpenIDConnectProvider", {}, "url"),
])  # fmt: skip
def test_iam_refuses_the_administrator_s_create_call_without_a_required_member(aws, operation, parameters, missing):
    iam = aws.client("iam")
    members = iam.meta.service_model.operation_model(operation).input_shape.required_members
    assert any(name.lower() == missing.lower() for name in members)
    with pytest.raises(ClientError) as caught:
        iam._make_api_call(operation, parameters)
    error = caught.value.response["Error"]
    assert (error["Code"], caught.value.response["ResponseMetadata"]["HTTPStatusCode"]) == ("ValidationError", 400)
    message = (
        f"1 validation error detected: Value null at '{missing}' failed to satisfy constraint: Member must not be null"
    )
    assert error["Message"] == message
    assert iam.list_roles()["Roles"] == iam.list_users()["Users"] == []
    assert iam.list_policies(Scope="Local")["Policies"] == []
    assert aws.client("sts").get_caller_identity()["Account"] == ACCOUNT
