"""Make AWS calls in a lab whose disk is full. The server's tests run this in a mount namespace of its own.

Print the refused calls as JSON. Fail if a refused call left something behind.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import boto3
import httpx
import psutil
from botocore.config import Config
from botocore.exceptions import ClientError

from labkit.simulator import process
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
        names = ("account", "eks", "iam", "s3", "sqs", "ssm")
        self.account, self.eks, self.iam, self.s3, self.sqs, self.ssm = (
            boto3.client(
                name,
                region_name=state.region,
                endpoint_url=state.endpoint_url,
                aws_access_key_id=state.access_key_id,
                aws_secret_access_key=state.secret_access_key,
                config=Config(retries={"total_max_attempts": 1}),
            )
            for name in names
        )

    def fill(self) -> None:
        self.s3.create_bucket(Bucket="bucket")
        self.s3.put_object(Bucket="bucket", Key="key", Body=b"before")
        self.iam.create_role(RoleName="reader", AssumeRolePolicyDocument=TRUST)
        self.ssm.put_parameter(Name="parameter", Value="before", Type="String")
        self.queue = self.sqs.create_queue(QueueName="queue")["QueueUrl"]
        self.sqs.send_message(QueueUrl=self.queue, MessageBody="before")
        self.account.enable_region(RegionName="af-south-1")
        role = f"arn:aws:iam::{self.account_id}:role/reader"
        self.eks.create_cluster(name="red", roleArn=role, resourcesVpcConfig={"subnetIds": []})
        self.eks.get_waiter("cluster_active").wait(name="red")

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
        return json.loads(json.dumps(answers))

    def version_of(self, cluster: str) -> str:
        endpoint = self.eks.describe_cluster(name=cluster)["cluster"]["endpoint"]
        return httpx.get(f"{endpoint}/version", verify=False, trust_env=False).json()["gitVersion"]

    @property
    def calls(self) -> dict[str, Callable[[], object]]:
        role = f"arn:aws:iam::{self.account_id}:role/reader"
        two = TRUST.replace("ec2.", "pods.eks.")
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
        }


def main() -> None:
    aws = Aws()
    aws.fill()
    expected, refused = aws.answers(), []
    with FILL.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    for name, call in aws.calls.items():
        try:
            call()
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 500, (name, error)
            refused.append(name)
        else:
            expected = aws.answers()
        assert aws.answers() == expected, (name, aws.answers(), expected)
    FILL.unlink()
    server = psutil.Process(State.read(FOLDER).pid)
    server.kill()
    psutil.wait_procs([server])
    queue, aws = aws.queue, Aws()
    aws.queue = queue
    assert aws.answers() == expected, (aws.answers(), expected)
    for call in aws.calls.values():
        call()
    print(json.dumps(refused))


if __name__ == "__main__":
    main()
