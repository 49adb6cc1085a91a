"""Condition keys that services add to requests. A row has a condition, a call, and whether the gate allows it."""

import contextlib
import json

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.simulator.aws.conftest import ACCOUNT, REGION, Irsa

BOUNDARY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)
URL = f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/queue"
ONE, TWO = {"k": {"S": "one"}}, {"k": {"S": "two"}}
LEADING = {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["one"]}}
ATTRIBUTES = {"ForAllValues:StringEquals": {"dynamodb:Attributes": ["k", "tint"]}}
TEAM = {"StringEquals": {"aws:ResourceTag/team": "blue"}}
GIVEN = {"StringEquals": {"aws:RequestTag/team": "blue"}, "ForAllValues:StringEquals": {"aws:TagKeys": ["team"]}}
COUNTED = {"StringEquals": {"dynamodb:Select": "COUNT"}}
HOME = {"StringEquals": {"s3:prefix": "home/"}}
FEW = {"NumericLessThanEquals": {"s3:max-keys": "10"}}
ROLE = {"RoleName": "new", "AssumeRolePolicyDocument": TRUST}


BLUE_ALONE = {"StringEquals": {"s3:RequestObjectTag/team": "blue"}}
NOT_RED = {"StringNotEquals": {"s3:RequestObjectTag/team": "red"}}


def tagged(team):
    return {"Bucket": "irsa-lab", "Key": "other.txt", "Tagging": {"TagSet": [{"Key": "team", "Value": team}]}}


IN_IRELAND = {"StringEquals": {"s3:locationconstraint": "eu-west-1"}}
FIELDS = {"ForAllValues:StringEquals": {"s3:InventoryAccessibleOptionalFields": ["Size"]}}
REPLICATED = {"ForAllValues:StringEquals": {"secretsmanager:AddReplicaRegions": ["us-west-2"]}}
FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:rotate"
POLICY = "arn:aws:iam::aws:policy/AmazonSQSReadOnlyAccess"
ALLOW_READS = {"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}
IDENTITY = json.dumps({"Version": "2012-10-17", "Statement": [ALLOW_READS]})
ENTRY = {"clusterName": "blue", "principalArn": f"arn:aws:iam::{ACCOUNT}:role/role"}
CLUSTER = {"name": "red", "roleArn": Irsa.role_arn, "resourcesVpcConfig": {}}


def inventory(*fields):
    destination = {"S3BucketDestination": {"Bucket": "arn:aws:s3:::irsa-lab", "Format": "CSV"}}
    configuration = {
        "Id": "all", "IsEnabled": True, "IncludedObjectVersions": "All", "Schedule": {"Frequency": "Daily"},
        "Destination": destination, "OptionalFields": list(fields),
    }  # fmt: skip
    return {"Bucket": "irsa-lab", "Id": "all", "InventoryConfiguration": configuration}


def query(value, expression="k = :k", **more):
    values = {":k": {"S": value}}
    return {"TableName": "table", "KeyConditionExpression": expression, "ExpressionAttributeValues": values, **more}


ROWS = [
    (LEADING, "dynamodb", "get_item", {"TableName": "table", "Key": ONE}, True),
    (LEADING, "dynamodb", "get_item", {"TableName": "table", "Key": TWO}, False),
    (LEADING, "dynamodb", "put_item", {"TableName": "table", "Item": TWO}, False),
    (LEADING, "dynamodb", "query", query("one"), True),
    (LEADING, "dynamodb", "query", query("one", "#k = :k", ExpressionAttributeNames={"#k": "k"}), True),
    (LEADING, "dynamodb", "query", query("two"), False),
    (LEADING, "dynamodb", "query", {"TableName": "table", "KeyConditions": {
        "k": {"AttributeValueList": [{"S": "two"}], "ComparisonOperator": "EQ"}}}, False),
    (LEADING, "dynamodb", "batch_get_item", {"RequestItems": {"table": {"Keys": [ONE]}}}, True),
    (LEADING, "dynamodb", "batch_get_item", {"RequestItems": {"table": {"Keys": [ONE, TWO]}}}, False),
    (LEADING, "dynamodb", "batch_write_item", {"RequestItems": {"table": [{"DeleteRequest": {"Key": TWO}}]}}, False),
    (LEADING, "dynamodb", "transact_write_items", {"TransactItems": [{"Put": {"TableName": "table", "Item": TWO}}]},
     False),
    # The lab can't know the key of a missing table.
    (LEADING, "dynamodb", "get_item", {"TableName": "none", "Key": ONE}, False),
    (ATTRIBUTES, "dynamodb", "get_item", {"TableName": "table", "Key": ONE, "ProjectionExpression": "k, tint"}, True),
    (ATTRIBUTES, "dynamodb", "get_item", {"TableName": "table", "Key": ONE, "ProjectionExpression": "#s",
                                         "ExpressionAttributeNames": {"#s": "salary"}}, False),
    (ATTRIBUTES, "dynamodb", "get_item", {"TableName": "table", "Key": ONE}, False),
    (ATTRIBUTES, "dynamodb", "scan", {"TableName": "table", "ProjectionExpression": "tint",
            "FilterExpression": "salary > :n", "ExpressionAttributeValues": {":n": {"N": "1"}}}, False),
    (ATTRIBUTES, "dynamodb", "put_item", {"TableName": "table", "Item": ONE | {"salary": {"N": "1"}}}, False),
    (ATTRIBUTES, "dynamodb", "update_item", {"TableName": "table", "Key": ONE, "UpdateExpression": "SET tint = :n",
                                            "ExpressionAttributeValues": {":n": {"S": "red"}}}, True),
    (ATTRIBUTES, "dynamodb", "update_item", {"TableName": "table", "Key": ONE, "UpdateExpression": "SET salary = :n",
                                            "ExpressionAttributeValues": {":n": {"N": "2"}}}, False),
    (COUNTED, "dynamodb", "scan", {"TableName": "table", "Select": "COUNT"}, True),
    (COUNTED, "dynamodb", "scan", {"TableName": "table"}, False),
    ({"Bool": {"dynamodb:FullTableScan": "false"}}, "dynamodb", "scan", {"TableName": "table"}, False),
    (TEAM, "dynamodb", "describe_table", {"TableName": "table"}, True),
    (TEAM, "dynamodb", "describe_table", {"TableName": "plain"}, False),
    (GIVEN, "sqs", "create_queue", {"QueueName": "new", "tags": {"team": "blue"}}, True),
    (GIVEN, "sqs", "create_queue", {"QueueName": "new", "tags": {"team": "blue", "cost": "1"}}, False),
    (GIVEN, "sqs", "create_queue", {"QueueName": "new"}, False),
    (TEAM, "sqs", "send_message", {"QueueUrl": URL, "MessageBody": "hello"}, True),
    (TEAM, "sqs", "send_message", {"QueueUrl": "plain", "MessageBody": "hello"}, False),
    (TEAM, "secretsmanager", "get_secret_value", {"SecretId": "secret"}, True),
    (TEAM, "secretsmanager", "get_secret_value", {"SecretId": "plain"}, False),
    ({"StringEquals": {"secretsmanager:ResourceTag/team": "blue"}}, "secretsmanager", "get_secret_value",
     {"SecretId": "secret"}, True),
    ({"ArnLike": {"secretsmanager:SecretId": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:secret-*"}},
     "secretsmanager", "get_secret_value", {"SecretId": "secret"}, True),
    ({"ArnLike": {"secretsmanager:SecretId": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:secret-*"}},
     "secretsmanager", "get_secret_value", {"SecretId": "plain"}, False),
    ({"StringEquals": {"secretsmanager:VersionStage": "AWSCURRENT"}}, "secretsmanager", "get_secret_value",
     {"SecretId": "secret", "VersionStage": "AWSCURRENT"}, True),
    # The key has the stage that the request names. If it names none, AWS doesn't fill in AWSCURRENT:
    # https://github.com/aws/aws-cli/issues/5031
    ({"StringNotEquals": {"secretsmanager:VersionStage": "AWSPREVIOUS"}}, "secretsmanager", "get_secret_value",
     {"SecretId": "secret"}, True),
    ({"StringEquals": {"secretsmanager:VersionStage": "AWSCURRENT"}}, "secretsmanager", "get_secret_value",
     {"SecretId": "secret"}, False),
    ({"Bool": {"secretsmanager:ForceDeleteWithoutRecovery": "false"}}, "secretsmanager", "delete_secret",
     {"SecretId": "secret", "ForceDeleteWithoutRecovery": True}, False),
    ({"ArnEquals": {"iam:PolicyARN": BOUNDARY}}, "iam", "attach_role_policy",
     {"RoleName": "role", "PolicyArn": BOUNDARY}, True),
    ({"ArnEquals": {"iam:PolicyARN": BOUNDARY}}, "iam", "attach_role_policy",
     {"RoleName": "role", "PolicyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}, False),
    ({"StringEquals": {"iam:PermissionsBoundary": BOUNDARY}}, "iam", "create_role",
     ROLE | {"PermissionsBoundary": BOUNDARY}, True),
    ({"StringEquals": {"iam:PermissionsBoundary": BOUNDARY}}, "iam", "create_role", ROLE, False),
    ({"StringEquals": {"iam:PermissionsBoundary": BOUNDARY}}, "iam", "put_role_policy",
     {"RoleName": "role", "PolicyName": "p", "PolicyDocument": TRUST}, False),
    ({"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}, "iam", "add_role_to_instance_profile",
     {"RoleName": "role", "InstanceProfileName": "profile"}, False),
    (GIVEN, "iam", "create_role", ROLE | {"Tags": [{"Key": "team", "Value": "blue"}]}, True),
    (GIVEN, "iam", "tag_role", {"RoleName": "role", "Tags": [{"Key": "team", "Value": "red"}]}, False),
    (TEAM, "iam", "get_role", {"RoleName": "role"}, True),
    (TEAM, "iam", "get_role", {"RoleName": "my-role"}, False),
    ({"StringEquals": {"iam:ResourceTag/team": "blue"}}, "iam", "get_user", {"UserName": "bob"}, True),
    (TEAM, "eks", "describe_cluster", {"name": "blue"}, True),
    ({"ArnEquals": {"eks:principalArn": Irsa.role_arn}}, "eks", "create_access_entry",
     {"clusterName": "blue", "principalArn": Irsa.role_arn}, True),
    ({"ArnEquals": {"eks:principalArn": Irsa.role_arn}}, "eks", "create_access_entry",
     {"clusterName": "blue", "principalArn": f"arn:aws:iam::{ACCOUNT}:role/role"}, False),
    (HOME, "s3", "list_objects_v2", {"Bucket": "irsa-lab", "Prefix": "home/"}, True),
    (HOME, "s3", "list_objects_v2", {"Bucket": "irsa-lab"}, False),
    (FEW, "s3", "list_objects", {"Bucket": "irsa-lab", "MaxKeys": 5}, True),
    (FEW, "s3", "list_objects", {"Bucket": "irsa-lab"}, False),
    ({"StringEquals": {"s3:x-amz-acl": "private"}}, "s3", "put_object",
     {"Bucket": "irsa-lab", "Key": "k", "ACL": "private"}, True),
    ({"StringEquals": {"s3:x-amz-acl": "private"}}, "s3", "put_object",
     {"Bucket": "irsa-lab", "Key": "k", "ACL": "public-read"}, False),
    ({"StringEquals": {"s3:RequestObjectTag/team": "blue"}}, "s3", "put_object",
     {"Bucket": "irsa-lab", "Key": "k", "Tagging": "team=blue"}, True),
    ({"StringEquals": {"s3:ExistingObjectTag/team": "blue"}}, "s3", "get_object",
     {"Bucket": "irsa-lab", "Key": "hello.txt"}, False),
    ({"NumericGreaterThanEquals": {"s3:TlsVersion": "1.2"}}, "s3", "get_object",
     {"Bucket": "irsa-lab", "Key": "hello.txt"}, True),
    (BLUE_ALONE, "s3", "put_object_tagging", tagged("blue"), True),
    (BLUE_ALONE, "s3", "put_object_tagging", tagged("red"), False),
    (NOT_RED, "s3", "put_object_tagging", tagged("red"), False),
    (NOT_RED, "s3", "put_object", {"Bucket": "irsa-lab", "Key": "k", "Tagging": "team=red"}, False),
    ({"StringNotEquals": {"s3:object-lock-mode": "COMPLIANCE"}}, "s3", "put_object_retention",
     {"Bucket": "irsa-lab", "Key": "hello.txt", "Retention": {"Mode": "COMPLIANCE", "RetainUntilDate": "2030-01-01"}},
     False),
    # Only a signature in the URL has an age.
    ({"NumericLessThan": {"s3:signatureAge": "1000"}}, "s3", "get_object",
     {"Bucket": "irsa-lab", "Key": "hello.txt"}, False),
    ({"Null": {"s3:signatureAge": "true"}}, "s3", "get_object", {"Bucket": "irsa-lab", "Key": "hello.txt"}, True),
    (IN_IRELAND, "s3", "create_bucket", {"Bucket": "new-bucket", "CreateBucketConfiguration": {
        "LocationConstraint": "eu-west-1"}}, True),
    (IN_IRELAND, "s3", "create_bucket", {"Bucket": "new-bucket", "CreateBucketConfiguration": {
        "LocationConstraint": "eu-west-2"}}, False),
    (IN_IRELAND, "s3", "create_bucket", {"Bucket": "new-bucket"}, False),
    ({"Bool": {"s3:ObjectCreationOperation": "false"}}, "s3", "put_object", {"Bucket": "irsa-lab", "Key": "k"}, False),
    ({"Bool": {"s3:ObjectCreationOperation": "false"}}, "s3", "create_multipart_upload",
     {"Bucket": "irsa-lab", "Key": "k"}, True),
    ({"StringEquals": {"s3:object-lock-legal-hold": "OFF"}}, "s3", "put_object_legal_hold",
     {"Bucket": "irsa-lab", "Key": "hello.txt", "LegalHold": {"Status": "ON"}}, False),
    ({"NumericLessThanEquals": {"s3:object-lock-remaining-retention-days": "10"}}, "s3", "put_object_retention",
     {"Bucket": "irsa-lab", "Key": "hello.txt", "Retention": {"Mode": "COMPLIANCE", "RetainUntilDate": "2090-01-01"}},
     False),
    (FIELDS, "s3", "put_bucket_inventory_configuration", inventory("Size"), True),
    (FIELDS, "s3", "put_bucket_inventory_configuration", inventory("Size", "ETag"), False),
    ({"StringNotLike": {"s3:BucketTag/team": "red"}}, "s3", "get_object",
     {"Bucket": "irsa-lab", "Key": "hello.txt"}, True),
    (REPLICATED, "secretsmanager", "create_secret", {"Name": "new", "SecretString": "x", "AddReplicaRegions": [
        {"Region": "us-west-2"}]}, True),
    (REPLICATED, "secretsmanager", "create_secret", {"Name": "new", "SecretString": "x", "AddReplicaRegions": [
        {"Region": "us-west-2"}, {"Region": "eu-west-1"}]}, False),
    ({"Bool": {"secretsmanager:BlockPublicPolicy": "true"}}, "secretsmanager", "put_resource_policy",
     {"SecretId": "plain", "ResourcePolicy": "{}"}, False),
    ({"ArnEquals": {"secretsmanager:resource/AllowRotationLambdaArn": FUNCTION}}, "secretsmanager", "describe_secret",
     {"SecretId": "secret"}, True),
    ({"ForAllValues:ArnEquals": {"secretsmanager:resource/AllowRotationLambdaArn": f"{FUNCTION}2"}}, "secretsmanager",
     "describe_secret", {"SecretId": "secret"}, False),
    ({"ArnLike": {"secretsmanager:KmsKeyArn": f"arn:aws:kms:*:{ACCOUNT}:key/one"}}, "secretsmanager", "update_secret",
     {"SecretId": "plain", "KmsKeyId": "one"}, True),
    ({"ForAllValues:ArnLike": {"secretsmanager:KmsKeyArn": f"arn:aws:kms:*:{ACCOUNT}:key/one"}}, "secretsmanager",
     "update_secret", {"SecretId": "plain", "KmsKeyId": "alias/two"}, False),
    ({"ForAllValues:StringEquals": {"dynamodb:FirstPartitionKeyValues": ["one"]}}, "dynamodb", "get_item",
     {"TableName": "table", "Key": TWO}, False),
    # ForAllValues also matches an absent key, so the gate must not treat an existing key as absent.
    ({"ForAllValues:StringEquals": {"eks:username": "ann"}}, "eks", "describe_access_entry", ENTRY, False),
    ({"StringEquals": {"eks:username": "bob"}}, "eks", "describe_access_entry", ENTRY, True),
    ({"ForAllValues:StringEquals": {"eks:kubernetesGroups": ["a"]}}, "eks", "describe_access_entry", ENTRY, False),
    ({"ForAllValues:StringEquals": {"eks:kubernetesGroups": ["a", "b"]}}, "eks", "list_associated_access_policies",
     ENTRY, True),
    ({"ForAllValues:StringEquals": {"eks:username": "ann"}}, "eks", "update_access_entry",
     ENTRY | {"kubernetesGroups": ["a", "b"]}, False),
    ({"ForAllValues:ArnEquals": {"iam:PermissionsBoundary": POLICY}}, "iam", "tag_role",
     {"RoleName": "bounded", "Tags": [{"Key": "a", "Value": "b"}]}, False),
    ({"ForAllValues:ArnEquals": {"iam:PermissionsBoundary": POLICY}}, "iam", "detach_role_policy",
     {"RoleName": "bounded", "PolicyArn": POLICY}, False),
    ({"ForAllValues:ArnEquals": {"iam:PermissionsBoundary": BOUNDARY}}, "iam", "put_role_policy",
     {"RoleName": "bounded", "PolicyName": "p", "PolicyDocument": IDENTITY}, True),
    ({"ForAllValues:ArnEquals": {"iam:PermissionsBoundary": BOUNDARY}}, "iam", "update_assume_role_policy",
     {"RoleName": "bounded", "PolicyDocument": TRUST}, True),
    ({"ForAllValues:ArnEquals": {"iam:PermissionsBoundary": POLICY}}, "iam", "update_assume_role_policy",
     {"RoleName": "bounded", "PolicyDocument": TRUST}, False),
    ({"StringEquals": {"eks:authenticationMode": "API"}}, "eks", "create_cluster",
     CLUSTER | {"accessConfig": {"authenticationMode": "CONFIG_MAP"}}, False),
    ({"Bool": {"eks:endpointPublicAccess": "false"}}, "eks", "create_cluster",
     CLUSTER | {"resourcesVpcConfig": {"endpointPublicAccess": True}}, False),
    ({"Bool": {"eks:loggingType/audit": "true"}}, "eks", "create_cluster", CLUSTER, False),
    ({"ArnLike": {"iam:AssociatedResourceArn": "arn:aws:ec2:*:999999999999:instance/*"}}, "iam",
     "add_role_to_instance_profile", {"RoleName": "role", "InstanceProfileName": "profile"}, False),
    # If the lab can't know a key's value, no condition on the key matches, not even Null.
    ({"NumericLessThan": {"s3:NewerThanTheLab": "1"}}, "s3", "get_object",
     {"Bucket": "irsa-lab", "Key": "hello.txt"}, False),
    ({"Null": {"s3:NewerThanTheLab": "true"}}, "s3", "get_object", {"Bucket": "irsa-lab", "Key": "hello.txt"}, False),
    # AWS's reference lists the key only for UpdateJobStatus, so it's absent here.
    ({"NumericLessThan": {"s3:JobSuspendedCause": "1"}}, "s3", "get_object",
     {"Bucket": "irsa-lab", "Key": "hello.txt"}, False),
    ({"Null": {"s3:JobSuspendedCause": "true"}}, "s3", "get_object", {"Bucket": "irsa-lab", "Key": "hello.txt"}, True),
    ({"StringEquals": {"eks:clusterName": "blue"}}, "eks", "list_nodegroups", {"clusterName": "blue"}, False),
    ({"StringEquals": {"eks:clusterName": "blue"}}, "eks", "describe_access_entry", ENTRY, True),
    ({"StringEquals": {"secretsmanager:Name": "new"}}, "secretsmanager", "create_secret",
     {"Name": "new", "SecretString": "x", "Tags": [{"Key": "a", "Value": "b"}]}, False),
    ({"StringEquals": {"iam:AWSServiceName": "rds.amazonaws.com"}}, "iam", "create_service_linked_role",
     {"AWSServiceName": "rds.amazonaws.com"}, True),
    ({"StringEquals": {"iam:AWSServiceName": "rds.amazonaws.com"}}, "iam", "create_service_linked_role",
     {"AWSServiceName": "elasticloadbalancing.amazonaws.com"}, False),
    ({"ArnEquals": {"iam:PermissionsBoundary": BOUNDARY}}, "iam", "get_role", {"RoleName": "bounded"}, True),
    ({"ArnEquals": {"iam:PermissionsBoundary": POLICY}}, "iam", "delete_role", {"RoleName": "bounded"}, False),
    ({"Bool": {"s3:object-lock-event-hold": "true"}}, "s3", "put_object", {"Bucket": "irsa-lab", "Key": "k"}, False),
    ({"Null": {"s3:object-lock-event-hold": "true"}}, "s3", "put_object", {"Bucket": "irsa-lab", "Key": "k"}, True),
]  # fmt: skip


@pytest.fixture(scope="module")
def stocked(running):
    """The lab with pairs of resources, of which one has the tag team=blue."""
    running.begin_anew()
    irsa = Irsa(running)
    tags = [{"Key": "team", "Value": "blue"}]
    for name, given in (("table", {"Tags": tags}), ("plain", {})):
        running.client("dynamodb").create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            **given,
        )
    running.client("s3").put_object(Bucket="irsa-lab", Key="other.txt", Body=b"")
    running.client("sqs").create_queue(QueueName="queue", tags={"team": "blue"})
    running.client("sqs").create_queue(QueueName="plain")
    running.client("secretsmanager").create_secret(Name="secret", SecretString="hush", Tags=tags)
    running.client("secretsmanager").create_secret(Name="plain", SecretString="hush")
    running.client("secretsmanager").create_secret(Name="rotated", SecretString="hush")
    settings = {"resourcesVpcConfig": {}, "tags": {"team": "blue"}}
    running.client("eks").create_cluster(name="blue", roleArn=irsa.role_arn, **settings)
    irsa.iam.create_role(RoleName="role", AssumeRolePolicyDocument=TRUST, Tags=tags)
    irsa.iam.create_role(RoleName="bounded", AssumeRolePolicyDocument=TRUST, PermissionsBoundary=BOUNDARY)
    irsa.iam.attach_role_policy(RoleName="bounded", PolicyArn=POLICY)
    running.client("eks").create_access_entry(**ENTRY, username="bob", kubernetesGroups=["a", "b"])
    # Set here, because moto's call takes only a function that moto has.
    secrets = running.gate.backend.store("secretsmanager", REGION, ACCOUNT).secrets
    for name in ("secret", "rotated"):
        secrets.get(name).rotation_lambda_arn = FUNCTION
    irsa.iam.create_user(UserName="bob", Tags=tags)
    irsa.iam.create_instance_profile(InstanceProfileName="profile")
    yield running, irsa


@pytest.mark.parametrize(("condition", "service", "method", "parameters", "allowed"), ROWS)
def test_a_policy_s_condition_on_a_service_s_own_key_decides(stocked, condition, service, method, parameters, allowed):
    aws, irsa = stocked
    irsa.permit({"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition})
    client = aws.client(service, irsa.assume()["Credentials"])
    if allowed:
        getattr(client, method)(**parameters)
    else:
        with pytest.raises(ClientError) as caught:
            getattr(client, method)(**parameters)
        assert "is not authorized to perform" in caught.value.response["Error"]["Message"]
    with contextlib.suppress(ClientError):
        irsa.iam.delete_role(RoleName="new")
    with contextlib.suppress(ClientError):
        aws.client("s3").delete_bucket(Bucket="new-bucket")
    with contextlib.suppress(ClientError):
        aws.client("secretsmanager").delete_secret(SecretId="new", ForceDeleteWithoutRecovery=True)
    with contextlib.suppress(ClientError):
        aws.client("sqs").delete_queue(QueueUrl="new")


def test_a_deny_with_a_condition_key_of_unknown_value_denies_its_resource(stocked):
    aws, irsa = stocked
    irsa.permit(
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::irsa-lab/*",
         "Condition": {"StringEquals": {"s3:NewerThanTheLab": "600000"}}},
    )  # fmt: skip
    session = irsa.assume()["Credentials"]
    aws.client("s3", session).list_objects_v2(Bucket="irsa-lab")
    aws.client("sqs", session).list_queues()
    with pytest.raises(ClientError) as caught:
        aws.client("s3", session).get_object(Bucket="irsa-lab", Key="hello.txt")
    assert caught.value.response["Error"]["Message"].endswith("with an explicit deny in an identity-based policy")
    assert "the lab does not know the value of s3:newerthanthelab in this call" in aws.last()["lab"]["reason"]


@pytest.mark.parametrize("kind", ["sqs", "secretsmanager", "dynamodb"])
def test_a_deny_in_a_resource_s_own_policy_refuses_the_call(stocked, kind):
    aws, irsa = stocked
    irsa.permit({"Effect": "Allow", "Action": "*", "Resource": "*"})
    client = aws.client(kind, irsa.assume()["Credentials"])
    statement = {"Effect": "Deny", "Principal": "*", "Action": f"{kind}:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    admin = aws.client(kind)
    if kind == "sqs":
        # A separate queue: its policy shuts the administrator out, too, so that it can't be removed.
        closed = admin.create_queue(QueueName="closed", Attributes={"Policy": policy})["QueueUrl"]
        call, undo = lambda: client.purge_queue(QueueUrl=closed), lambda: None
    elif kind == "secretsmanager":
        admin.put_resource_policy(SecretId="secret", ResourcePolicy=policy)
        call, undo = (
            lambda: client.get_secret_value(SecretId="secret"),
            lambda: admin.delete_resource_policy(SecretId="secret"),
        )
    else:
        arn = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/table"
        admin.put_resource_policy(ResourceArn=arn, Policy=policy)
        call, undo = (lambda: client.scan(TableName="table"), lambda: admin.delete_resource_policy(ResourceArn=arn))
    with pytest.raises(ClientError) as caught:
        call()
    undo()
    assert caught.value.response["Error"]["Message"].endswith("with an explicit deny in a resource-based policy")


@pytest.mark.parametrize(("age", "allowed"), [("60000", True), ("0", False)])
def test_a_policy_can_limit_the_age_of_a_presigned_url(stocked, age, allowed):
    aws, irsa = stocked
    irsa.permit(
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*",
         "Condition": {"NumericLessThan": {"s3:signatureAge": age}}},
    )  # fmt: skip
    signed = {"Bucket": "irsa-lab", "Key": "hello.txt"}
    client = aws.client("s3", irsa.assume()["Credentials"], signature_version="s3v4")
    answer = httpx.get(client.generate_presigned_url("get_object", Params=signed), timeout=60)
    assert answer.status_code == (200 if allowed else 403)


REPLICATION = {
    "Bucket": "irsa-lab",
    "ReplicationConfiguration": {"Role": f"arn:aws:iam::{ACCOUNT}:role/role",
        "Rules": [{"ID": "all", "Status": "Enabled", "Prefix": "",
                   "Destination": {"Bucket": "arn:aws:s3:::elsewhere"}}]},
}  # fmt: skip
PASS = {"Effect": "Allow", "Action": "iam:PassRole", "Resource": REPLICATION["ReplicationConfiguration"]["Role"]}


def to(service):
    return PASS | {"Condition": {"StringEquals": {"iam:PassedToService": service}}}


@pytest.mark.parametrize(("more", "denied"), [
    ([], "iam:PassRole"),
    ([to("ec2.amazonaws.com")], "iam:PassRole"),
    ([PASS | {"Resource": f"arn:aws:iam::{ACCOUNT}:role/another"}], "iam:PassRole"),
    ([to("s3.amazonaws.com")], ""),
    ([PASS], ""),
])  # fmt: skip
def test_put_bucket_replication_needs_iam_pass_role(stocked, more, denied):
    aws, irsa = stocked
    aws.client("s3").put_bucket_versioning(Bucket="irsa-lab", VersioningConfiguration={"Status": "Enabled"})
    irsa.permit({"Effect": "Allow", "Action": "s3:PutReplicationConfiguration", "Resource": "*"}, *more)
    client = aws.client("s3", irsa.assume()["Credentials"])
    if denied:
        with pytest.raises(ClientError, match=f"not authorized to perform: {denied} on resource"):
            client.put_bucket_replication(**REPLICATION)
    else:
        client.put_bucket_replication(**REPLICATION)


@pytest.mark.parametrize("given", [{"RotationLambdaARN": FUNCTION}, {}], ids=["named", "kept"])
def test_rotate_secret_needs_permission_to_invoke_the_rotation_function(stocked, given):
    aws, irsa = stocked
    rotate = {"Effect": "Allow", "Action": "secretsmanager:RotateSecret", "Resource": "*"}
    irsa.permit(rotate)
    client = aws.client("secretsmanager", irsa.assume()["Credentials"])
    message = (
        f"not authorized to perform: lambda:InvokeFunction on resource: {FUNCTION} because no identity-based policy"
    )
    with pytest.raises(ClientError, match=message):
        client.rotate_secret(SecretId="rotated", **given)
    irsa.permit(rotate, {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": FUNCTION})
    with contextlib.suppress(ClientError):
        # moto doesn't have the function and fails, but by then the gate has allowed the call.
        client.rotate_secret(SecretId="rotated", **given)
    assert aws.last()["lab"]["decision"] == "allowed" or "not authorized" not in aws.last()["lab"]["reason"]
    aws.client("secretsmanager").get_random_password()


def test_reading_a_deleted_object_with_kept_versions_ends_in_no_such_key(stocked):
    aws, irsa = stocked
    admin = aws.client("s3")
    admin.create_bucket(Bucket="versions")
    admin.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    admin.put_object(Bucket="versions", Key="k", Body=b"x")
    admin.delete_object(Bucket="versions", Key="k")
    irsa.permit({"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"})
    with pytest.raises(ClientError) as caught:
        aws.client("s3", irsa.assume()["Credentials"]).get_object(Bucket="versions", Key="k")
    assert caught.value.response["Error"]["Code"] == "NoSuchKey"


def test_a_policy_can_ask_for_a_replica_s_primary_region_and_tags(stocked):
    aws, irsa = stocked
    aws.client("secretsmanager").create_secret(
        Name="far", SecretString="x", AddReplicaRegions=[{"Region": "us-west-2"}], Tags=[{"Key": "team", "Value": "b"}]
    )
    primary = {"StringEquals": {"secretsmanager:SecretPrimaryRegion": REGION, "aws:ResourceTag/team": "b"}}
    irsa.permit({"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": primary})
    session = irsa.assume()["Credentials"]
    far = aws.session.client(
        "secretsmanager", endpoint_url=aws.endpoint, region_name="us-west-2",
        aws_access_key_id=session["AccessKeyId"], aws_secret_access_key=session["SecretAccessKey"],
        aws_session_token=session["SessionToken"],
    )  # fmt: skip
    assert far.describe_secret(SecretId="far")["Name"] == "far"
