"""A session without policies is refused every operation of every service that the lab authorizes."""

import re
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.exceptions import ClientError

from labkit.simulator.aws.service import Service
from labkit.simulator.aws.services import SERVICES as EVERY
from tests.simulator.aws.conftest import ACCOUNT, REGION, Irsa

if TYPE_CHECKING:
    from labkit.simulator.aws.sessions import Credentials

AUTHORIZED = {name for name, service in EVERY.items() if service.permissions is not Service.permissions}
SERVICES = sorted(AUTHORIZED | {"s3", "sts"})
# The operations that need no permission, or that fail in another way.
FREE = {
    ("sts", "GetCallerIdentity"),
    ("sts", "AssumeRoleWithWebIdentity"),
    # The call isn't signed.
    ("sts", "AssumeRoleWithSAML"),
    # EKS Auth checks the token first.
    ("eks-auth", "AssumeRoleForPodIdentity"),
    # The answer has a refusal for each key.
    ("s3", "DeleteObjects"),
}
# The denial, and the errors that a session gets before AWS checks its permissions.
MESSAGE = re.compile(
    r"is not authorized to perform|Forbidden|Must specify userName|Could not find operation"
    r"|with session credentials|The lab does not emulate sts:"
)
# Of EC2's hundreds of operations, those about nodes, and some of those that only administrators may use.
OF_EC2 = {"DescribeInstances", "ModifyInstanceMetadataOptions", "GetLaunchTemplateData", "RunInstances"}
TEXTS = {
    "Bucket": Irsa.bucket,
    "Key": "hello.txt",
    "CopySource": f"{Irsa.bucket}/hello.txt",
    "QueueUrl": f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/queue",
    "RoleArn": Irsa.role_arn,
    "clusterName": "blue",
    "principalArn": Irsa.role_arn,
    "resourceArn": f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/blue",
    "ResourceArn": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/table",
    "TableArn": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/table",
    "SourceArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue",
    "UploadId": "upload",
}


def operations():
    session = boto3.Session(region_name=REGION)
    for service in SERVICES:
        model = session.client(service, aws_access_key_id="a", aws_secret_access_key="b").meta.service_model
        for name in model.operation_names:
            if (service, name) not in FREE and (service != "ec2" or name in OF_EC2):
                yield service, name


def example(shape, name="", depth=0):
    """Return the smallest value that the model allows."""
    match shape.type_name:
        case "structure":
            members = shape.required_members or (list(shape.members)[:1] if depth else [])
            return (
                {member: example(shape.members[member], member, depth + 1) for member in members} if depth < 5 else {}
            )
        case "list":
            return [example(shape.member, name, depth + 1)] if depth < 5 else []
        case "map":
            return {"table": example(shape.value, name, depth + 1)}
        case "string":
            return TEXTS.get(name) or (shape.enum[0] if shape.enum else "name".ljust(shape.metadata.get("min", 4), "x"))
        case "blob":
            return b"blob"
        case "boolean":
            return True
        case "timestamp":
            return 1_750_000_000
    return max(1, shape.metadata.get("min", 1))


@pytest.fixture(scope="module")
def nobody(running):
    """The lab, and clients with a session of a role without policies. All tests share it: none changes anything."""
    running.begin_anew()
    irsa = Irsa(running)
    irsa.iam.detach_role_policy(RoleName=irsa.role_name, PolicyArn=irsa.policy_arn)
    issued: Credentials = running.gate.sessions.issue(irsa.role_arn, "nobody", 3600)
    session = {
        "AccessKeyId": issued.access_key_id,
        "SecretAccessKey": issued.secret_access_key,
        "SessionToken": issued.session_token,
    }
    clients = {
        service: running.client(service, session, inject_host_prefix=False, s3={"addressing_style": "path"})
        for service in SERVICES
    }
    return running, clients


@pytest.mark.parametrize(("service", "operation"), list(operations()))
def test_without_policies_every_call_is_refused(nobody, service, operation):
    assert_refused(*nobody, service, operation)


def test_without_policies_every_other_call_of_ec2_is_refused_in_its_own_words(nobody):
    aws, clients = nobody
    # One test, because a case of its own for each of them takes longer than its call.
    others = set(clients["ec2"].meta.service_model.operation_names) - OF_EC2
    assert len(others) > 700
    for operation in sorted(others):
        error = assert_refused(aws, clients, "ec2", operation)
        assert error["Code"] == "UnauthorizedOperation", operation
        assert error["Message"].startswith("You are not authorized to perform this operation. User: arn:"), operation


def assert_refused(aws, clients, service, operation):
    """Make the call, and return the error that the refused caller gets."""
    client = clients[service]
    shape = client.meta.service_model.operation_model(operation).input_shape
    with pytest.raises(ClientError) as caught:
        client._make_api_call(operation, example(shape) if shape else {})
    assert MESSAGE.search(caught.value.response["Error"]["Message"]), caught.value
    record = aws.last()
    assert record["lab"]["decision"] == "refused"
    # CloudTrail has other names for S3's operations.
    if service != "s3":
        assert record["eventName"] == operation
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] < 500 or service == "sts"
    return caught.value.response["Error"]
