"""AWS's state outlives the lab's server: every answer is the same after a kill, down and up, and a restore."""

import configparser
import contextlib
import itertools
import json
import os
import re
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.response import StreamingBody

from labkit.errors import LabError
from labkit.simulator import process
from labkit.simulator.folder import Folder
from labkit.simulator.process import State
from tests import commands

ACCOUNT = "123456789012"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"},
            {
                "Effect": "Allow",
                "Principal": {"Service": "pods.eks.amazonaws.com"},
                "Action": ["sts:AssumeRole", "sts:TagSession"],
            },
        ],
    }
)
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})
READ_ONLY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
SERVICES = (
    "account", "cloudtrail", "dynamodb", "dynamodbstreams", "eks", "iam", "kms", "organizations", "s3",
    "secretsmanager", "sns", "sqs", "ssm", "sts",
)  # fmt: skip
READ = re.compile(r"(Describe|Get|Head|List|Query|Scan)")
# moto answers these with the current time or random data, not with stored state.
NOT_COMPARED = {"GetDelegatedAccessToken", "GetParametersForImport", "GetRandomPassword", "GetShardIterator"}
TAGS = [{"Key": "team", "Value": "blue"}]


class Aws:
    """The lab's AWS, and the parameter values, by service, that name the resources a test made."""

    def __init__(self, folder: Folder):
        self.folder = folder
        self.state = process.start(folder)
        self.made: dict[str, dict[str, list[Any]]] = {service: {} for service in SERVICES}
        self.clients: dict[str, Any] = {}

    def client(self, service: str, credentials: Any = None) -> Any:
        if credentials is None and service in self.clients:
            return self.clients[service]
        state = self.state
        keys = (state.access_key_id, state.secret_access_key, None)
        if credentials:
            keys = (credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials.get("SessionToken"))
        found = boto3.client(
            service,
            region_name=state.region,
            endpoint_url=state.endpoint_url,
            aws_access_key_id=keys[0],
            aws_secret_access_key=keys[1],
            aws_session_token=keys[2],
            config=Config(retries={"total_max_attempts": 1}),
        )
        if credentials is None:
            self.clients[service] = found
        return found

    def knows(self, service: str, **values: Any) -> None:
        """Let `answers` pass these values to the read calls, too."""
        for name, value in values.items():
            self.made[service].setdefault(name, []).append(value)

    def open_session(self, role_arn: str) -> None:
        made = self.client("sts").assume_role(RoleArn=role_arn, RoleSessionName="before")
        self.session = made["Credentials"]
        self.knows("sts", AccessKeyId=self.session["AccessKeyId"])

    def kill(self) -> None:
        server = psutil.Process(State.read(self.folder).pid)
        os.kill(server.pid, signal.SIGKILL)
        psutil.wait_procs([server], timeout=20)
        self._start()

    def down_and_up(self) -> None:
        process.stop(self.folder)
        self._start()

    def restore(self) -> None:
        """Take a snapshot of the running lab and restore the lab from it. It then has new keys."""
        taken = commands.labkit("snapshot", "here")
        restored = commands.labkit("restore", "here", "--force", "--yes")
        assert (taken.returncode, restored.returncode) == (0, 0), taken.stderr + restored.stderr
        self.state = State.read(self.folder)
        self.clients = {"organizations": self.client("organizations", self.management)}

    @property
    def administrator(self) -> dict[str, str]:
        return {"AccessKeyId": self.state.access_key_id, "SecretAccessKey": self.state.secret_access_key}

    @property
    def management(self) -> dict[str, str]:
        """The keys of the organization's administrator."""
        profiles = configparser.ConfigParser()
        profiles.read_string(self.folder.aws_credentials.read_text())
        own = profiles["management"]
        return {"AccessKeyId": own["aws_access_key_id"], "SecretAccessKey": own["aws_secret_access_key"]}

    def _start(self) -> None:
        before, self.state = self.state, process.start(self.folder)
        assert self.state.endpoint_url == before.endpoint_url

    def answers(self) -> dict[str, Any]:
        """Return the answer of every read call whose required parameters are known, for each known value."""
        return {service: dict(self._answers(service)) for service in SERVICES}

    def _answers(self, service: str):
        client, known = self.client(service), self.made[service]
        for operation in client.meta.service_model.operation_names:
            if not READ.match(operation) or operation in NOT_COMPARED:
                continue
            shape = client.meta.service_model.operation_model(operation).input_shape
            required = list(shape.required_members) if shape else []
            # Optional parameters that select a resource.
            named = [n for n in (shape.members if shape else ()) if n in known and n not in required and n in OPTIONAL]
            for names in {tuple(required), (*required, *named)}:
                if not set(names) <= set(known):
                    continue
                for values in itertools.product(*(known[name] for name in names)):
                    asked = dict(zip(names, values, strict=True))
                    told = f"{operation} {json.dumps(asked, sort_keys=True, default=str)}"
                    if told not in NOT_COMPARED:
                        yield told, _answer(client, operation, asked)


OPTIONAL = {"UserName", "VersionId", "Path", "SecretId", "StreamArn"}


def _answer(client: Any, operation: str, asked: dict[str, Any]) -> Any:
    method = next(name for name, known in client.meta.method_to_api_mapping.items() if known == operation)
    try:
        answer = getattr(client, method)(**asked)
    except ClientError as error:
        return error.response["Error"]
    except BotoCoreError as error:
        return repr(error)
    answer.pop("ResponseMetadata")
    return {
        name: value.read() if isinstance(value, StreamingBody) else value
        for name, value in answer.items()
        if name != "RequestId"
    }


@pytest.fixture(scope="module")
def aws(home):
    return Aws(Folder(home))


@pytest.fixture(scope="module")
def filled(aws):
    """Fill every service whose state the lab keeps."""
    for fill in (fill_iam, fill_s3, fill_messages, fill_dynamodb, fill_secrets, fill_organization, fill_eks):
        fill(aws)
    return aws


def fill_iam(aws: Aws) -> None:
    iam = aws.client("iam")
    role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=TRUST, Tags=TAGS, Description="reads")["Role"]
    iam.put_role_policy(RoleName="reader", PolicyName="inline", PolicyDocument=POLICY)
    iam.attach_role_policy(RoleName="reader", PolicyArn=READ_ONLY)
    policy = iam.create_policy(PolicyName="own", PolicyDocument=POLICY, Tags=TAGS)["Policy"]["Arn"]
    iam.create_policy_version(PolicyArn=policy, PolicyDocument=POLICY.replace("s3:*", "sqs:*"), SetAsDefault=True)
    iam.create_user(UserName="ada", Tags=TAGS, PermissionsBoundary=policy)
    iam.attach_user_policy(UserName="ada", PolicyArn=policy)
    iam.put_user_policy(UserName="ada", PolicyName="inline", PolicyDocument=POLICY)
    aws.key = iam.create_access_key(UserName="ada")["AccessKey"]
    iam.create_group(GroupName="team")
    iam.add_user_to_group(GroupName="team", UserName="ada")
    iam.put_group_policy(GroupName="team", PolicyName="inline", PolicyDocument=POLICY)
    iam.create_instance_profile(InstanceProfileName="profile")
    iam.add_role_to_instance_profile(InstanceProfileName="profile", RoleName="reader")
    provider = iam.create_open_id_connect_provider(
        Url="https://example.com/id", ClientIDList=["sts.amazonaws.com"], ThumbprintList=["a" * 40]
    )["OpenIDConnectProviderArn"]
    iam.create_account_alias(AccountAlias="the-lab")
    iam.create_login_profile(UserName="ada", Password="not-a-Secret-1")
    aws.knows("iam", RoleName="reader", PolicyName="inline", UserName="ada", GroupName="team", PolicyArn=policy)
    aws.knows(
        "iam", PolicyArn=READ_ONLY, VersionId="v1", InstanceProfileName="profile", OpenIDConnectProviderArn=provider
    )
    aws.knows("iam", AccessKeyId=aws.key["AccessKeyId"], PolicySourceArn=role["Arn"])
    aws.open_session(role["Arn"])


def fill_s3(aws: Aws) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="versions")
    s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    for body in (b"one", b"two"):
        version = s3.put_object(Bucket="versions", Key="key", Body=body, Metadata={"a": "b"})["VersionId"]
        aws.knows("s3", VersionId=version)
    s3.put_object(Bucket="versions", Key="gone", Body=b"three")
    s3.delete_object(Bucket="versions", Key="gone")
    s3.put_object_tagging(Bucket="versions", Key="key", Tagging={"TagSet": TAGS})
    s3.put_bucket_tagging(Bucket="versions", Tagging={"TagSet": TAGS})
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::versions/*"}
    s3.put_bucket_policy(Bucket="versions", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    s3.put_bucket_encryption(Bucket="versions", ServerSideEncryptionConfiguration={"Rules": [rule]})
    s3.put_object(Bucket="versions", Key="large", Body=b"x" * 3_000_000)
    upload = s3.create_multipart_upload(Bucket="versions", Key="parts")["UploadId"]
    s3.upload_part(Bucket="versions", Key="parts", UploadId=upload, PartNumber=1, Body=b"y" * 1000)
    done = s3.create_multipart_upload(Bucket="versions", Key="joined")["UploadId"]
    part = s3.upload_part(Bucket="versions", Key="joined", UploadId=done, PartNumber=1, Body=b"z" * 1000)["ETag"]
    s3.complete_multipart_upload(
        Bucket="versions", Key="joined", UploadId=done, MultipartUpload={"Parts": [{"ETag": part, "PartNumber": 1}]}
    )
    aws.upload = upload
    aws.knows("s3", Bucket="versions", UploadId=upload)
    for key in ("key", "gone", "large", "parts", "joined"):
        aws.knows("s3", Key=key)


def fill_messages(aws: Aws) -> None:
    sns, sqs = aws.client("sns"), aws.client("sqs")
    url = sqs.create_queue(QueueName="queue", tags={"team": "blue"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]["QueueArn"]
    fifo = sqs.create_queue(QueueName="queue.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    sqs.send_message(QueueUrl=fifo, MessageBody="first", MessageGroupId="g", MessageDeduplicationId="d")
    sqs.send_message(QueueUrl=url, MessageBody="received")
    aws.receipt = sqs.receive_message(QueueUrl=url, VisibilityTimeout=600)["Messages"][0]["ReceiptHandle"]
    sqs.send_message(QueueUrl=url, MessageBody="waiting")
    topic = sns.create_topic(Name="topic", Tags=TAGS)["TopicArn"]
    subscription = sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, ReturnSubscriptionArn=True)
    sns.publish(TopicArn=topic, Message="published")
    aws.queue = url
    aws.knows("sqs", QueueUrl=url, QueueName="queue", AttributeNames=["All"])
    aws.knows("sqs", QueueUrl=fifo, QueueName="queue.fifo")
    aws.knows("sns", TopicArn=topic, ResourceArn=topic, SubscriptionArn=subscription["SubscriptionArn"])


def fill_dynamodb(aws: Aws) -> None:
    dynamodb = aws.client("dynamodb")
    dynamodb.create_table(
        TableName="table",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        Tags=TAGS,
    )
    for number in range(3):
        dynamodb.put_item(TableName="table", Item={"id": {"S": str(number)}, "list": {"L": [{"N": "1"}]}})
    dynamodb.update_item(
        TableName="table",
        Key={"id": {"S": "0"}},
        UpdateExpression="SET v = :v",
        ExpressionAttributeValues={":v": {"N": "7"}},
    )
    described = dynamodb.describe_table(TableName="table")["Table"]
    backup = dynamodb.create_backup(TableName="table", BackupName="backup")["BackupDetails"]["BackupArn"]
    aws.knows(
        "dynamodb", TableName="table", Key={"id": {"S": "0"}}, ResourceArn=described["TableArn"], BackupArn=backup
    )
    aws.knows("dynamodbstreams", StreamArn=described["LatestStreamArn"])


def fill_secrets(aws: Aws) -> None:
    kms, ssm, secrets, trail = (aws.client(name) for name in ("kms", "ssm", "secretsmanager", "cloudtrail"))
    key = kms.create_key(Description="a key", Tags=[{"TagKey": "a", "TagValue": "b"}])["KeyMetadata"]["KeyId"]
    signing = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    rsa = kms.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/one", TargetKeyId=key)
    aws.ciphertext = kms.encrypt(KeyId="alias/one", Plaintext=b"plain")["CiphertextBlob"]
    for identifier in (key, signing, rsa):
        aws.knows("kms", KeyId=identifier)
    aws.knows("kms", PolicyName="default")
    ssm.put_parameter(Name="/a/one", Value="1", Type="String", Tags=TAGS)
    ssm.put_parameter(Name="/a/one", Value="2", Type="String", Overwrite=True)
    ssm.put_parameter(Name="/a/secret", Value="s", Type="SecureString", KeyId=key)
    ssm.create_document(Name="document", Content='{"schemaVersion": "2.2", "mainSteps": []}', DocumentType="Command")
    for name in ("/a/one", "/a/secret"):
        aws.knows("ssm", Name=name, Names=[name], ResourceId=name)
    aws.knows("ssm", Name="document", Path="/a", ResourceType="Parameter")
    secret = secrets.create_secret(Name="secret", SecretString="one", Tags=TAGS)["ARN"]
    secrets.put_secret_value(SecretId="secret", SecretString="two")
    secrets.put_resource_policy(SecretId="secret", ResourcePolicy=TRUST)
    aws.knows("secretsmanager", SecretId=secret)
    aws.client("s3").create_bucket(Bucket="trail-bucket")
    arn = trail.create_trail(Name="trail", S3BucketName="trail-bucket", TagsList=TAGS)["TrailARN"]
    trail.start_logging(Name="trail")
    aws.knows("cloudtrail", Name="trail", TrailName="trail", ResourceIdList=[arn])


def fill_organization(aws: Aws) -> None:
    aws.client("account").enable_region(RegionName="af-south-1")
    aws.knows("account", RegionName="af-south-1")
    organization = aws.clients["organizations"] = aws.client("organizations", aws.management)
    root = organization.list_roots()["Roots"][0]["Id"]
    unit = organization.create_organizational_unit(ParentId=root, Name="unit", Tags=TAGS)["OrganizationalUnit"]["Id"]
    policy = organization.create_policy(
        Name="policy", Description="", Type="SERVICE_CONTROL_POLICY", Content=POLICY.replace('"s3:*"', '"*"')
    )["Policy"]["PolicySummary"]["Id"]
    organization.attach_policy(PolicyId=policy, TargetId=unit)
    account = organization.create_account(AccountName="other", Email="other@example.com")["CreateAccountStatus"]
    aws.knows(
        "organizations", ParentId=root, ChildType="ORGANIZATIONAL_UNIT", OrganizationalUnitId=unit, PolicyId=policy
    )
    aws.knows("organizations", Filter="SERVICE_CONTROL_POLICY", TargetId=unit, ResourceId=unit, ChildId=unit)
    aws.knows("organizations", AccountId=account["AccountId"], CreateAccountRequestId=account["Id"])


def fill_eks(aws: Aws) -> None:
    eks = aws.client("eks")
    role = f"arn:aws:iam::{ACCOUNT}:role/reader"
    eks.create_cluster(name="blue", roleArn=role, resourcesVpcConfig={"subnetIds": []}, tags={"team": "blue"})
    eks.create_access_entry(clusterName="blue", principalArn=role, kubernetesGroups=["viewers"])
    eks.associate_access_policy(
        clusterName="blue",
        principalArn=role,
        policyArn="arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy",
        accessScope={"type": "cluster"},
    )
    association = eks.create_pod_identity_association(
        clusterName="blue", namespace="default", serviceAccount="app", roleArn=role
    )["association"]
    oidc = {"identityProviderConfigName": "people", "issuerUrl": "https://example.com", "clientId": "me"}
    eks.associate_identity_provider_config(clusterName="blue", oidc=oidc)
    nodes = eks.create_nodegroup(clusterName="blue", nodegroupName="nodes", subnets=["subnet-1"], nodeRole=role)
    for arn in (association["associationArn"], nodes["nodegroup"]["nodegroupArn"]):
        eks.tag_resource(resourceArn=arn, tags={"team": "blue"})
    aws.knows("eks", name="blue", clusterName="blue", principalArn=role, nodegroupName="nodes")
    aws.knows(
        "eks", associationId=association["associationId"], identityProviderConfig={"type": "oidc", "name": "people"}
    )
    aws.knows("eks", resourceArn=f"arn:aws:eks:us-east-1:{ACCOUNT}:cluster/blue")


@pytest.mark.parametrize("end", ["kill", "down_and_up"])
def test_every_aws_read_answers_the_same_after_the_server_restarts(filled, end):
    before = filled.answers()
    read = {service: sum("Code" not in answer for answer in answers.values()) for service, answers in before.items()}
    assert all(read.values()), read
    getattr(filled, end)()
    assert different(before, filled.answers()) == {}


def different(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the answers that changed, by request: before and after."""
    return {
        f"{service} {asked}": (answer, after[service].get(asked))
        for service, answers in before.items()
        for asked, answer in answers.items()
        if after[service].get(asked) != answer
    }


def test_issued_keys_and_sessions_stay_valid_after_the_server_is_killed(filled):
    """So do ciphertexts, receipt handles and multipart uploads."""
    filled.kill()
    for credentials, arn in ((filled.key, "user/ada"), (filled.session, "assumed-role/reader/before")):
        assert filled.client("sts", credentials).get_caller_identity()["Arn"].endswith(arn)
    assert filled.client("s3", filled.session).get_object(Bucket="versions", Key="key")["Body"].read() == b"two"
    assert filled.client("kms").decrypt(CiphertextBlob=filled.ciphertext)["Plaintext"] == b"plain"
    sqs = filled.client("sqs")
    sqs.delete_message(QueueUrl=filled.queue, ReceiptHandle=filled.receipt)
    counts = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    counted = sqs.get_queue_attributes(QueueUrl=filled.queue, AttributeNames=counts)["Attributes"]
    assert [counted[name] for name in counts] == ["2", "0"]
    s3 = filled.client("s3")
    part = s3.list_parts(Bucket="versions", Key="parts", UploadId=filled.upload)["Parts"][0]
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    s3.complete_multipart_upload(Bucket="versions", Key="parts", UploadId=filled.upload, MultipartUpload=parts)
    assert s3.get_object(Bucket="versions", Key="parts")["Body"].read() == b"y" * 1000


def test_a_call_refused_halfway_leaves_nothing_behind(filled):
    """moto creates the patch baseline, then refuses its tags. Other SSM calls run at the same time."""
    ssm = filled.client("ssm")
    before = ssm.describe_patch_baselines()["BaselineIdentities"]
    parameters = {name: filled.client("ssm", filled.administrator) for name in ("/a/two", "/a/three")}
    with ThreadPoolExecutor(3) as pool:
        puts = [
            pool.submit(client.put_parameter, Name=name, Value=str(value), Type="String", Overwrite=True)
            for value in range(5)
            for name, client in parameters.items()
        ]
        for number in range(5):
            with pytest.raises(ClientError, match="InvalidResourceId"):
                ssm.create_patch_baseline(Name=f"halfway-{number}", Tags=TAGS)
        versions = sorted(put.result()["Version"] for put in puts)
    assert versions == sorted([*range(1, 6)] * 2)
    for _ in range(2):
        assert ssm.describe_patch_baselines()["BaselineIdentities"] == before
        assert ssm.get_parameter(Name="/a/three")["Parameter"]["Version"] == 5
        filled.kill()


def test_a_killed_server_reuses_no_id_and_loses_no_cloudtrail_event(filled):
    iam, cloudtrail = filled.client("iam"), filled.client("cloudtrail")
    lookup = cloudtrail.get_paginator("lookup_events").paginate(
        LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "CreateBucket"}]
    )
    events = lookup.build_full_result()
    first = iam.create_role(RoleName="again", AssumeRolePolicyDocument=TRUST)["Role"]["RoleId"]
    iam.delete_role(RoleName="again")
    filled.kill()
    assert iam.create_role(RoleName="again", AssumeRolePolicyDocument=TRUST)["Role"]["RoleId"] != first
    assert events["Events"]
    assert lookup.build_full_result() == events


def test_status_names_a_service_whose_state_is_not_kept(filled):
    """The first successful change to the service adds the sentence. `labkit snapshot` then refuses."""
    with pytest.raises(ClientError, match="InvalidVpcID"):
        filled.client("ec2").delete_vpc(VpcId="vpc-12345678")
    assert not [note for note in State.read(filled.folder).notes if "is not kept" in note]
    filled.client("ec2").create_key_pair(KeyName="key")
    assert "The state of ec2 is not kept: it is lost when the lab's server ends." in State.read(filled.folder).notes
    refused = commands.labkit("snapshot", "lacking")
    assert refused.returncode == 1
    assert "The lab does not keep the state of ec2, which you have used: a snapshot would lack it." in refused.stderr


def test_a_restored_lab_answers_as_before_but_refuses_old_admin_keys_and_sessions(filled):
    """Keys of IAM users are restored. The administrator's keys, the sessions and the cluster's certificate are not."""
    filled.kill()
    before, administrator = filled.answers(), filled.administrator
    filled.restore()
    changed = different(before, filled.answers())
    assert changed.keys() == {'eks DescribeCluster {"name": "blue"}'}
    old, new = (answer["cluster"] for answer in changed.popitem()[1])
    assert old.pop("certificateAuthority") != new.pop("certificateAuthority")
    assert old == new
    assert filled.client("sts", filled.key).get_caller_identity()["Arn"].endswith("user/ada")
    for credentials, code in ((administrator, "SignatureDoesNotMatch"), (filled.session, "InvalidClientTokenId")):
        with pytest.raises(ClientError, match=code):
            filled.client("sts", credentials).get_caller_identity()
    assert filled.client("s3").get_object(Bucket="versions", Key="large")["Body"].read() == b"x" * 3_000_000
    filled.open_session(f"arn:aws:iam::{ACCOUNT}:role/reader")


def test_state_of_another_moto_version_is_refused_with_the_next_command(filled):
    process.stop(filled.folder)
    file = filled.folder.path / "aws.db"
    assert file.stat().st_mode & 0o077 == 0
    own = version("moto")
    for made_by in ("5.2.0", own):
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.execute("UPDATE about SET value = ? WHERE name = 'moto'", [made_by])
            database.commit()
        if made_by == own:
            filled.down_and_up()
            continue
        with pytest.raises(LabError, match=r"moto 5\.2\.0 wrote the AWS state of this lab") as refused:
            process.start(filled.folder)
        assert refused.value.next.startswith("labkit reset")
