"""Requests that could be read in two ways: the gate refuses them, or does exactly what it authorized."""

import json

import botocore.auth
import httpx
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.simulator.aws.conftest import ACCOUNT, ADMINISTRATOR, REGION, Irsa, refused

FORM = "application/x-www-form-urlencoded"
JSON = "application/x-amz-json-1.1"
GET_SECRET = "secretsmanager.GetSecretValue"
LIST_TABLES = "DynamoDB_20120810.ListTables"
SEND = "Action=SendMessage&Version=2012-11-05&MessageBody=x"


@pytest.fixture(scope="module")
def stocked(running):
    """The lab and a session's credentials. The session may use ``mine``, but not ``theirs``, and a few other calls."""
    running.begin_anew()
    irsa = Irsa(running)
    secrets, sqs = running.client("secretsmanager"), running.client("sqs")
    mine = secrets.create_secret(Name="mine", SecretString="mine")["ARN"]
    secrets.create_secret(Name="theirs", SecretString="theirs")
    for name in ("mine", "theirs"):
        sqs.create_queue(QueueName=name)
    running.client("eks").create_cluster(name="blue", roleArn=irsa.role_arn, resourcesVpcConfig={})
    irsa.iam.create_role(RoleName="theirs", AssumeRolePolicyDocument=json.dumps(trust()))
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:mine"
    cluster = f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/blue"
    for action, resource in (
        (["secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"], mine),
        (["sqs:SendMessage", "sqs:GetQueueAttributes"], queue),
        ("iam:GetRole", irsa.role_arn),
        (["eks:DescribeCluster", "eks:TagResource", "eks:CreateAccessEntry"], cluster),
        ("s3:ListBucket", "arn:aws:s3:::irsa-lab"),
        ("dynamodb:ListTables", "*"),
    ):
        document = {"Version": "2012-10-17",
                    "Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}]}  # fmt: skip
        name = action if isinstance(action, str) else action[0]
        irsa.iam.put_role_policy(
            RoleName="my-role", PolicyName=name.replace(":", "-"), PolicyDocument=json.dumps(document)
        )
    irsa.iam.detach_role_policy(RoleName="my-role", PolicyArn=Irsa.policy_arn)
    yield running, irsa.assume()["Credentials"]


def trust():
    principal = {"Service": "ec2.amazonaws.com"}
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def send(stocked, service, method, path, body=b"", **headers):
    _, session = stocked
    keys = Credentials(session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"])
    return send_as(keys, stocked, service, method, path, body, **headers)


def send_as(keys, stocked, service, method, path, body=b"", **headers):
    aws, _ = stocked
    body = body if isinstance(body, bytes) else body.encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = AWSRequest(method, aws.endpoint + path, data=body, headers=names)
    signer = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    signer(keys, service, REGION).add_auth(request)
    signed = {name: str(value) for name, value in request.headers.items()}
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.request(method, aws.endpoint + path, content=body, headers=signed)


IAM = "Version=2010-05-08"
REFUSED = [
    ("iam", "POST", "/", f"Action=GetRole&{IAM}&RoleName=my-role&RoleName=theirs", {"content_type": FORM}),
    ("iam", "POST", "/?RoleName=theirs", f"Action=GetRole&{IAM}&RoleName=my-role", {"content_type": FORM}),
    ("iam", "POST", "/?Action=DeleteRole", f"Action=GetRole&{IAM}&RoleName=my-role", {"content_type": FORM}),
    ("iam", "POST", "/", "Action=GetRole&Version=2010-05-07&RoleName=my-role", {"content_type": FORM}),
    ("iam", "POST", f"/?Action=GetRole&{IAM}&RoleName=my-role", '{"RoleName":"theirs"}', {"content_type": JSON}),
    ("iam", "POST", "/", "{}", {"content_type": JSON, "x_amz_target": LIST_TABLES}),
    ("dynamodb", "POST", "/", "{}", {"content_type": JSON, "x_amz_target": "DynamoDB_20111205.ListTables"}),
    ("dynamodb", "POST", "/", "{}", {"content_type": JSON, "x_amz_target": "DynamoDBStreams_20120810.ListStreams"}),
    ("dynamodb", "POST", "/", "{}", {"content_type": JSON, "x_amz_target": GET_SECRET}),
    ("dynamodb", "POST", "/?Action=DeleteTable", "{}", {"content_type": JSON, "x_amz_target": LIST_TABLES}),
    ("dynamodb", "POST", "/", "{}", {"content_type": "application/cbor", "x_amz_target": LIST_TABLES}),
    ("dynamodb", "POST", "/", "Action=ListTables", {"content_type": FORM, "x_amz_target": LIST_TABLES}),
    ("dynamodb", "POST", "/", "{}", {"content_type": JSON, "smithy_protocol": "rpc-v2-cbor",
                                     "x_amz_target": LIST_TABLES}),
    ("secretsmanager", "POST", "/", '{"SecretId":"mine","SecretId":"theirs"}',
     {"content_type": JSON, "x_amz_target": GET_SECRET}),
    ("secretsmanager", "POST", "/", '{"SecretId":"theirs","SecretId":"mine"}',
     {"content_type": JSON, "x_amz_target": GET_SECRET}),
    ("secretsmanager", "POST", "/?SecretId=theirs", '{"SecretId":"mine"}',
     {"content_type": JSON, "x_amz_target": GET_SECRET}),
    ("secretsmanager", "POST", "/", '["mine"]', {"content_type": JSON, "x_amz_target": GET_SECRET}),
    ("secretsmanager", "POST", "/", '{"SecretId":["mine"]}', {"content_type": JSON, "x_amz_target": GET_SECRET}),
    ("secretsmanager", "POST", "/", '{"SecretId":', {"content_type": JSON, "x_amz_target": GET_SECRET}),
    ("secretsmanager", "POST", "/", b"\xff\xfe", {"content_type": JSON, "x_amz_target": GET_SECRET}),
    ("secretsmanager", "POST", "/", '{"SecretId":' + "[" * 100_000, {"content_type": JSON, "x_amz_target": GET_SECRET}),
    ("secretsmanager", "POST", "/", '{"SecretId":"mine"}', {"content_type": JSON, "content_encoding": "gzip",
                                                           "x_amz_target": GET_SECRET}),
    ("sqs", "POST", f"/{ACCOUNT}/theirs", SEND, {"content_type": FORM}),
    ("sqs", "POST", "/", f"{SEND}&QueueUrl=http://a/{ACCOUNT}/mine?/theirs", {"content_type": FORM}),
    ("sqs", "POST", "/", f"{SEND}&QueueUrl=http://a/{ACCOUNT}/mine/../theirs", {"content_type": FORM}),
    ("sqs", "POST", "/", SEND + "&QueueUrl=http://a/999999999999/mine", {"content_type": FORM}),
    ("eks", "GET", "/clusters/blue%2Faccess-entries", "", {}),
    ("eks", "GET", "/clusters/blue/../green", "", {}),
    ("eks", "GET", "/clusters/blue?Action=DeleteCluster&Action=x", "", {}),
    ("eks", "DELETE", "/clusters/blue", "", {}),
    ("eks", "GET", "/clusters/blue", "", {"content_type": "application/x-amz-json-1.1",
                                         "x_amz_target": "AmazonEKS.DeleteCluster"}),
    ("s3", "GET", "/irsa-lab?prefix=a&prefix=b", "", {}),
    ("s3", "GET", "/irsa-lab?versionId=a&versionId=b", "", {}),
]  # fmt: skip


@pytest.mark.parametrize(("service", "method", "path", "body", "headers"), REFUSED)
def test_a_request_that_could_be_read_in_two_ways_is_refused(stocked, service, method, path, body, headers):
    answer = send(stocked, service, method, path, body, **headers)
    assert 400 <= answer.status_code < 500, answer.text
    assert stocked[0].last()["lab"]["decision"] == "refused"
    assert "blue" in stocked[0].client("eks").list_clusters()["clusters"]


ASSUME = f"Version=2011-06-15&RoleSessionName=my-pod&RoleArn={Irsa.role_arn}&RoleArn={Irsa.role_arn}"
UNREADABLE = ("ValidationError", "The request could not be read")


@pytest.mark.parametrize(("service", "path", "body", "status", "message"), [
    ("sts", "/", f"Action=AssumeRole&{ASSUME}", 400, UNREADABLE),
    ("sts", "/?DurationSeconds=900", f"Action=AssumeRole&{ASSUME}&DurationSeconds=3600", 400, UNREADABLE),
    ("sts", "/", f"Action=AssumeRoleWithWebIdentity&WebIdentityToken={{token}}&{ASSUME}", 400, UNREADABLE),
    ("iam", "/", f"Action=DeleteRole&{IAM}&RoleName=theirs&RoleName=my-role", 400, UNREADABLE),
    ("iam", "/?x", f"Action=DeleteRole&{IAM}&RoleName=theirs&x=", 400, UNREADABLE),
    ("eks", "/clusters?Action=x&Action=y", "", 501, ("NotImplemented", "The lab does not emulate")),
])  # fmt: skip
def test_the_administrator_s_ambiguous_request_is_refused_with_a_reason(stocked, service, path, body, status, message):
    aws, _ = stocked
    keys = Credentials(ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key)
    body = body.replace("{token}", aws.issuer.token())
    answer = send_as(keys, stocked, service, "POST" if body else "GET", path, body, content_type=FORM)
    assert answer.status_code == status, answer.text
    assert all(part in answer.text for part in message), answer.text
    assert aws.client("iam").get_role(RoleName="theirs")


@pytest.mark.parametrize("text", ["x&SecretId=theirs&Action=DeleteSecret&z=;SecretId=theirs", "x&SecretId&y"])
def test_a_secret_s_text_that_looks_like_parameters_changes_no_parameter(stocked, text):
    # moto reads every body as a form, too, and prefers the parameters that it finds there.
    message = {"SecretId": "mine", "SecretString": text}
    answer = send(stocked, "secretsmanager", "POST", "/", json.dumps(message), content_type=JSON,
                  x_amz_target="secretsmanager.PutSecretValue")  # fmt: skip
    assert answer.json()["Name"] == "mine"
    secrets = stocked[0].client("secretsmanager")
    assert secrets.get_secret_value(SecretId="mine")["SecretString"] == message["SecretString"]
    assert secrets.get_secret_value(SecretId="theirs")["SecretString"] == "theirs"


def test_a_body_cannot_name_another_action(stocked):
    body = json.dumps({"tags": {"a": "&Action=DeleteCluster&name=blue&x="}})
    arn = f"arn%3Aaws%3Aeks%3A{REGION}%3A{ACCOUNT}%3Acluster%2Fblue"
    assert send(stocked, "eks", "POST", f"/tags/{arn}", body, content_type="application/json").status_code == 200
    assert "blue" in stocked[0].client("eks").list_clusters()["clusters"]


def test_the_path_names_the_cluster_whatever_the_body_says(stocked):
    body = json.dumps({"name": "green", "clusterName": "green", "principalArn": Irsa.role_arn})
    answer = send(stocked, "eks", "POST", "/clusters/blue/access-entries", body, content_type="application/json")
    assert answer.json()["accessEntry"]["clusterName"] == "blue"


def test_a_header_is_not_a_parameter(stocked):
    answer = send(stocked, "secretsmanager", "POST", "/", '{"SecretId":"mine"}', content_type=JSON,
                  SecretId="theirs", Action="DeleteSecret", x_amz_target=GET_SECRET)  # fmt: skip
    assert answer.json()["Name"] == "mine"
    # If there are no other parameters, moto takes the headers for parameters.
    answer = send(stocked, "eks", "GET", "/clusters/blue", Action="DeleteCluster")
    assert answer.json()["cluster"]["status"] == "ACTIVE"
    assert "blue" in stocked[0].client("eks").list_clusters()["clusters"]


@pytest.mark.parametrize("path", ["/", f"/{ACCOUNT}/mine"])
def test_sqs_answers_and_refuses_calls_in_its_old_query_protocol(stocked, path):
    url = "" if path != "/" else f"&QueueUrl=http%3A%2F%2Flocalhost%2F{ACCOUNT}%2Fmine"
    body = f"Action=SendMessage&Version=2012-11-05&MessageBody=a%26b{url}"
    answer = send(stocked, "sqs", "POST", path, body, content_type=FORM)
    assert answer.status_code == 200
    assert "<MessageId>" in answer.text
    denied = send(stocked, "sqs", "POST", path, body.replace("SendMessage", "PurgeQueue"), content_type=FORM)
    assert denied.status_code == 403
    assert "<Code>AccessDenied</Code>" in denied.text
    assert "is not authorized to perform: sqs:purgequeue on resource: " in denied.text


def test_sqs_takes_json_at_a_queue_s_own_url_and_refuses_another_queue(stocked):
    headers = {"content_type": "application/x-amz-json-1.0", "x_amz_target": "AmazonSQS.SendMessage"}
    for body in ({"MessageBody": "x"}, {"MessageBody": "x", "QueueUrl": f"http://localhost/{ACCOUNT}/mine"}):
        assert "MessageId" in send(stocked, "sqs", "POST", f"/{ACCOUNT}/mine", json.dumps(body), **headers).json()
    body = {"MessageBody": "x", "QueueUrl": f"http://localhost/{ACCOUNT}/theirs"}
    for path in ("/", f"/{ACCOUNT}/mine"):
        assert send(stocked, "sqs", "POST", path, json.dumps(body), **headers).status_code == 403
    assert send(stocked, "sqs", "POST", f"/{ACCOUNT}/theirs", '{"MessageBody": "x"}', **headers).status_code == 403


MISSING = "1 validation error detected: Value null at '{}' failed to satisfy constraint: Member must not be null"


@pytest.mark.parametrize(("service", "method", "code", "message"), [
    ("iam", "get_role", "ValidationError", MISSING.format("roleName")),
    ("dynamodb", "get_item", "ValidationException", MISSING.format("tableName")),
    ("secretsmanager", "get_secret_value", "ValidationException", MISSING.format("secretId")),
    ("sqs", "send_message", "MissingParameter", "The request must contain the parameter QueueUrl."),
])  # fmt: skip
def test_a_parameter_that_is_missing_is_named(stocked, service, method, code, message):
    aws, session = stocked
    refused(getattr(aws.client(service, session), method), 400, code, message)


READ_BY_THE_LAB = [
    ("organizations", "/", f"{JSON}:AWSOrganizationsV20161128.CreateAccount", '{"AccountName":"a","AccountName":"b"}'),
    ("account", "/enableRegion", "application/json:", '{"RegionName":"ap-east-1","RegionName":"us-east-1"}'),
    ("account", "/enableRegion", "application/json:", r'{"RegionName":"\ud800"}'),
    ("eks-auth", "/clusters/blue/assume-role-for-pod-identity", "application/json:", '{"token":"a","token":"b"}'),
    ("eks-auth", "/clusters/blue/assume-role-for-pod-identity", "application/json:", r'{"token":"\ud800"}'),
]


@pytest.mark.parametrize(("service", "path", "kind", "body"), READ_BY_THE_LAB)
def test_a_service_that_the_lab_answers_itself_refuses_ambiguous_json(stocked, service, path, kind, body):
    """The lab reads the JSON as strictly as for moto, and doesn't emulate another protocol."""
    content_type, _, target = kind.partition(":")
    headers = {"content_type": content_type} | ({"x_amz_target": target} if target else {})
    keys = Credentials(ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key)
    answer = send_as(keys, stocked, service, "POST", path, body, **headers)
    assert answer.status_code == 400, answer.text
    answer = send_as(keys, stocked, service, "POST", path, "{}", **headers, smithy_protocol="rpc-v2-cbor")
    assert answer.status_code == 501, answer.text
