"""Make AWS calls in a lab whose disk is full. The server's tests run this in a mount namespace of its own.

Print the refused calls as JSON. Fail if a refused call left something behind.
"""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import httpx
import psutil
from botocore.config import Config
from botocore.exceptions import ClientError

from labkit.errors import LabError
from labkit.simulator import process
from labkit.simulator.aws_cli import S3_CONTROL, keep_host
from labkit.simulator.folder import Folder
from labkit.simulator.process import State

FOLDER = Folder(Path(os.environ["LABKIT_HOME"]))
FILL = FOLDER.path / "fill"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)


class Aws:
    """AWS clients for the lab, and the answers to their read calls."""

    def __init__(self):
        state = process.start(FOLDER)
        self.account_id = state.account_id
        os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(FOLDER.aws_credentials)
        own, management = boto3.Session(), boto3.Session(profile_name="management")
        own.events.register_first(S3_CONTROL, keep_host)
        names = (
            "account", "cloudtrail", "dynamodb", "dynamodbstreams", "eks", "iam", "kms", "organizations", "s3",
            "s3control", "secretsmanager", "sns", "sqs", "ssm",
        )  # fmt: skip
        self.clients: dict[str, Any] = {
            name: (management if name == "organizations" else own).client(
                name,
                region_name=state.region,
                endpoint_url=state.endpoint_url,
                config=Config(retries={"total_max_attempts": 1}),
            )
            for name in names
        }
        self.account, self.eks, self.iam, self.s3, self.sqs, self.ssm = (
            self.clients[name] for name in ("account", "eks", "iam", "s3", "sqs", "ssm")
        )

    def fill(self) -> None:
        self.s3.create_bucket(Bucket="bucket")
        self.s3.put_object(Bucket="bucket", Key="key", Body=b"before")
        self.iam.create_role(RoleName="reader", AssumeRolePolicyDocument=TRUST)
        self.ssm.put_parameter(Name="parameter", Value="before", Type="String")
        self.queue = self.sqs.create_queue(QueueName="queue")["QueueUrl"]
        self.sqs.send_message(QueueUrl=self.queue, MessageBody="before")
        self.account.enable_region(RegionName="af-south-1")
        self.clients["cloudtrail"].create_trail(Name="trail", S3BucketName="bucket")
        self.create_table("table")
        self.clients["kms"].create_alias(AliasName="alias/before", TargetKeyId=self.create_key())
        self.block_public_access(True)
        self.clients["secretsmanager"].create_secret(Name="secret", SecretString="before")
        topic = self.clients["sns"].create_topic(Name="topic")["TopicArn"]
        self.clients["sns"].subscribe(
            TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:us-east-1:{self.account_id}:queue"
        )
        role = f"arn:aws:iam::{self.account_id}:role/reader"
        self.eks.create_cluster(name="red", roleArn=role, resourcesVpcConfig={"subnetIds": []})
        self.eks.get_waiter("cluster_active").wait(name="red")

    def create_table(self, name: str) -> None:
        self.clients["dynamodb"].create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )
        self.put_item(name, "before")

    def put_item(self, table: str, value: str) -> None:
        self.clients["dynamodb"].put_item(TableName=table, Item={"id": {"S": value}})

    def create_key(self) -> str:
        return self.clients["kms"].create_key()["KeyMetadata"]["KeyId"]

    def block_public_access(self, blocked: bool) -> None:
        self.clients["s3control"].put_public_access_block(
            AccountId=self.account_id, PublicAccessBlockConfiguration={"BlockPublicAcls": blocked}
        )

    def create_unit(self) -> None:
        organizations = self.clients["organizations"]
        root = organizations.list_roots()["Roots"][0]["Id"]
        organizations.create_organizational_unit(ParentId=root, Name="unit")

    def other_answers(self) -> dict[str, object]:
        """The answers of the services that have no place in `answers`, without the answers' own ids."""
        ask = {
            "cloudtrail": lambda aws: [aws.describe_trails(), aws.get_trail_status(Name="trail")],
            "dynamodb": lambda aws: [aws.list_tables(), aws.scan(TableName="table")],
            "dynamodbstreams": lambda aws: [aws.list_streams()],
            "kms": lambda aws: [aws.list_keys(), aws.list_aliases()],
            "organizations": lambda aws: [
                aws.list_organizational_units_for_parent(ParentId=aws.list_roots()["Roots"][0]["Id"]),
            ],
            "s3control": lambda aws: [aws.get_public_access_block(AccountId=self.account_id)],
            "secretsmanager": lambda aws: [aws.list_secrets(), aws.describe_secret(SecretId="secret")],
            "sns": lambda aws: [aws.list_topics(), aws.list_subscriptions()],
        }  # fmt: skip
        given = {service: asking(self.clients[service]) for service, asking in ask.items()}
        return {service: [one | {"ResponseMetadata": None} for one in answers] for service, answers in given.items()}

    def answers(self) -> dict[str, object]:
        counts = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answers = {
            "object": self.s3.get_object(Bucket="bucket", Key="key")["Body"].read().decode()[:10],
            "keys": [one["Key"] for one in self.s3.list_objects_v2(Bucket="bucket")["Contents"]],
            "buckets": [one["Name"] for one in self.s3.list_buckets()["Buckets"]],
            "roles": sorted(one["RoleName"] for one in self.iam.list_roles()["Roles"]),
            "trust": self.iam.get_role(RoleName="reader")["Role"]["AssumeRolePolicyDocument"],
            "parameter": self.ssm.get_parameter(Name="parameter")["Parameter"]["Value"],
            "messages": self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=counts)["Attributes"],
            "clusters": sorted(self.eks.list_clusters()["clusters"]),
            "cluster": self.eks.describe_cluster(name="blue")["cluster"]["status"],
            "API servers": [self.version_of(name) for name in self.eks.list_clusters()["clusters"]],
            "entries": self.eks.list_access_entries(clusterName="blue")["accessEntries"],
            "regions": [
                self.account.get_region_opt_status(RegionName=region)["RegionOptStatus"]
                for region in ("af-south-1", "ap-east-1")
            ],
        }
        return json.loads(json.dumps(answers | self.other_answers(), default=str))

    def version_of(self, cluster: str) -> str:
        endpoint = self.eks.describe_cluster(name=cluster)["cluster"]["endpoint"]
        return httpx.get(f"{endpoint}/version", verify=False, trust_env=False).json()["gitVersion"]

    @property
    def calls(self) -> dict[str, Callable[[], object]]:
        role = f"arn:aws:iam::{self.account_id}:role/reader"
        two = TRUST.replace("ec2.", "pods.eks.")
        cloudtrail, secrets, sns = (self.clients[name] for name in ("cloudtrail", "secretsmanager", "sns"))
        topic = f"arn:aws:sns:us-east-1:{self.account_id}:topic"
        return {
            "CreateRole": lambda: self.iam.create_role(RoleName="new", AssumeRolePolicyDocument=TRUST),
            "UpdateAssumeRolePolicy": lambda: self.iam.update_assume_role_policy(RoleName="reader", PolicyDocument=two),
            "CreateBucket": lambda: self.s3.create_bucket(Bucket="another"),
            "PutObject": lambda: self.s3.put_object(Bucket="bucket", Key="key", Body=b"after" * 200_000),
            "PutObject, new": lambda: self.s3.put_object(Bucket="bucket", Key="new", Body=b"after" * 200_000),
            "PutParameter": lambda: self.ssm.put_parameter(
                Name="parameter", Value="after", Type="String", Overwrite=True
            ),
            "SendMessage": lambda: self.sqs.send_message(QueueUrl=self.queue, MessageBody="after"),
            "ReceiveMessage": lambda: self.sqs.receive_message(QueueUrl=self.queue),
            "CreateAccessEntry": lambda: self.eks.create_access_entry(clusterName="blue", principalArn=role),
            "EnableRegion": lambda: self.account.enable_region(RegionName="ap-east-1"),
            "DisableRegion": lambda: self.account.disable_region(RegionName="af-south-1"),
            "CreateCluster": lambda: self.eks.create_cluster(
                name="green", roleArn=role, resourcesVpcConfig={"subnetIds": []}
            ),
            "DeleteCluster": lambda: self.eks.delete_cluster(name="red"),
            "DeleteRole": lambda: self.iam.delete_role(RoleName="reader"),
            "CreateUser": lambda: self.iam.create_user(UserName="new"),
            "CreateTrail": lambda: cloudtrail.create_trail(Name="new", S3BucketName="bucket"),
            "StartLogging": lambda: cloudtrail.start_logging(Name="trail"),
            "PutItem": lambda: self.put_item("table", "after"),
            "CreateTable": lambda: self.create_table("new"),
            "CreateKey": self.create_key,
            "DeleteAlias": lambda: self.clients["kms"].delete_alias(AliasName="alias/before"),
            "CreateOrganizationalUnit": self.create_unit,
            "PutPublicAccessBlock": lambda: self.block_public_access(False),
            "CreateSecret": lambda: secrets.create_secret(Name="new", SecretString="after"),
            "PutSecretValue": lambda: secrets.put_secret_value(SecretId="secret", SecretString="after"),
            "CreateTopic": lambda: sns.create_topic(Name="new"),
            "Publish": lambda: sns.publish(TopicArn=topic, Message="after"),
            "DeleteTopic": lambda: sns.delete_topic(TopicArn=topic),
        }


def fill_disk() -> None:
    with FILL.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def main() -> None:
    aws = Aws()
    aws.fill()
    expected, refused = aws.answers(), []
    fill_disk()
    for name, call in aws.calls.items():
        try:
            call()
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 500, (name, error)
            refused.append(name)
        else:
            expected = aws.answers()
        assert aws.answers() == expected, (name, aws.answers(), expected)
    server = psutil.Process(State.read(FOLDER).pid)
    server.kill()
    psutil.wait_procs([server])
    fill_disk()
    try:
        process.start(FOLDER)
    except LabError as error:
        assert "no space is left on the disk: " in str(error)
        assert "make room" in error.next, error
    else:
        raise AssertionError("the server started on a full disk")
    FILL.unlink()
    queue, aws = aws.queue, Aws()
    aws.queue = queue
    assert aws.answers() == expected, (aws.answers(), expected)
    for call in aws.calls.values():
        call()
    print(json.dumps(refused))


if __name__ == "__main__":
    main()
