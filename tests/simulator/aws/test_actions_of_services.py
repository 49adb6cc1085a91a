"""The permissions that each call of a role session needs, and AWS's error if the last of them is missing."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.simulator.aws.conftest import ACCOUNT, REGION, Irsa, refused, trust_policy

SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod"
TABLE = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/table"
OTHER = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/other"
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue"
SECRET = "SECRET"  # stands for the stored secret's ARN with its suffix
CLUSTER = f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/blue"
IAM = f"arn:aws:iam::{ACCOUNT}:"
BUCKET = f"arn:aws:s3:::{Irsa.bucket}"
HELLO = {"Bucket": Irsa.bucket, "Key": "hello.txt"}
COPY = {"Bucket": Irsa.bucket, "Key": "copy.txt", "CopySource": f"{Irsa.bucket}/tagged.txt"}
URL = f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/queue"
KEY = {"k": {"S": "one"}}
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)
DOCUMENT = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'


@dataclass
class Row:
    """A call, and the pairs of action and resource that policies must allow."""

    service: str
    method: str
    parameters: dict[str, Any]
    needed: list[tuple[str, str]]
    shown: str | None = None
    """How the denial names the resource of the last; as its ARN: None."""

    def __str__(self) -> str:
        return f"{self.service}-{self.method}-{self.needed[-1][0]}"


def dynamodb(method, needed, **parameters):
    return Row("dynamodb", method, parameters, needed)


def sqs(method, needed, **parameters):
    return Row("sqs", method, parameters, needed)


def secrets(method, needed, shown=None, **parameters):
    return Row("secretsmanager", method, parameters, needed, shown)


def iam(method, needed, shown=None, **parameters):
    return Row("iam", method, parameters, needed, shown)


def s3(method, needed, shown=None, **parameters):
    return Row("s3", method, parameters, needed, shown)


def s3control(method, needed, **parameters):
    return Row("s3control", method, {"AccountId": ACCOUNT, **parameters}, needed, "")


def eks(method, needed, **parameters):
    return Row("eks", method, parameters, needed)


NEW_TABLE = {
    "TableName": "new",
    "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
}
NEW = TABLE.replace("/table", "/new")
VALUES = {"ExpressionAttributeValues": {":k": {"S": "one"}}}
TAGS = [{"Key": "team", "Value": "blue"}]

ROWS = [
    dynamodb("create_table", [("dynamodb:CreateTable", NEW)], **NEW_TABLE),
    dynamodb("create_table", [("dynamodb:CreateTable", NEW), ("dynamodb:TagResource", NEW)], **NEW_TABLE, Tags=TAGS),
    dynamodb("delete_table", [("dynamodb:DeleteTable", TABLE)], TableName="table"),
    dynamodb("describe_table", [("dynamodb:DescribeTable", TABLE)], TableName=TABLE),
    dynamodb("list_tables", [("dynamodb:ListTables", TABLE.replace("/table", "/*"))]),
    dynamodb("put_item", [("dynamodb:PutItem", TABLE)], TableName="table", Item=KEY),
    dynamodb("get_item", [("dynamodb:GetItem", TABLE)], TableName="table", Key=KEY),
    dynamodb("delete_item", [("dynamodb:DeleteItem", TABLE)], TableName="table", Key=KEY),
    dynamodb("update_item", [("dynamodb:UpdateItem", TABLE)], TableName="table", Key=KEY,
             UpdateExpression="SET n = :k", **VALUES),
    dynamodb("scan", [("dynamodb:Scan", TABLE)], TableName="table"),
    dynamodb("scan", [("dynamodb:Scan", f"{TABLE}/index/by-c")], TableName="table", IndexName="by-c"),
    dynamodb("query", [("dynamodb:Query", TABLE)], TableName="table", KeyConditionExpression="k = :k", **VALUES),
    dynamodb("query", [("dynamodb:Query", f"{TABLE}/index/by-c")], TableName="table", IndexName="by-c",
             KeyConditionExpression="c = :k", **VALUES),
    dynamodb("batch_get_item", [("dynamodb:BatchGetItem", TABLE), ("dynamodb:BatchGetItem", OTHER)],
             RequestItems={"table": {"Keys": [KEY]}, "other": {"Keys": [KEY]}}),
    dynamodb("batch_write_item", [("dynamodb:BatchWriteItem", TABLE), ("dynamodb:BatchWriteItem", OTHER)],
             RequestItems={"table": [{"PutRequest": {"Item": KEY}}], "other": [{"DeleteRequest": {"Key": KEY}}]}),
    dynamodb("transact_get_items", [("dynamodb:GetItem", TABLE), ("dynamodb:GetItem", OTHER)],
             TransactItems=[{"Get": {"TableName": "table", "Key": KEY}}, {"Get": {"TableName": "other", "Key": KEY}}]),
    dynamodb("transact_write_items", [("dynamodb:PutItem", TABLE), ("dynamodb:DeleteItem", OTHER)],
             TransactItems=[{"Put": {"TableName": "table", "Item": KEY}},
            {"Delete": {"TableName": "other", "Key": KEY}}]),
    dynamodb("tag_resource", [("dynamodb:TagResource", TABLE)], ResourceArn=TABLE, Tags=TAGS),
    dynamodb("list_tags_of_resource", [("dynamodb:ListTagsOfResource", TABLE)], ResourceArn=TABLE),
    sqs("create_queue", [("sqs:createqueue", QUEUE + "2")], QueueName="queue2"),
    sqs("create_queue", [("sqs:createqueue", QUEUE + "2"), ("sqs:tagqueue", QUEUE + "2")],
        QueueName="queue2", tags={"team": "blue"}),
    sqs("get_queue_url", [("sqs:getqueueurl", QUEUE)], QueueName="queue"),
    sqs("list_queues", [("sqs:listqueues", QUEUE.removesuffix("queue"))]),
    sqs("send_message", [("sqs:sendmessage", QUEUE)], QueueUrl=URL, MessageBody="hello"),
    sqs("send_message_batch", [("sqs:sendmessage", QUEUE)], QueueUrl=URL,
        Entries=[{"Id": "1", "MessageBody": "hello"}]),
    sqs("receive_message", [("sqs:receivemessage", QUEUE)], QueueUrl=URL, WaitTimeSeconds=0),
    sqs("get_queue_attributes", [("sqs:getqueueattributes", QUEUE)], QueueUrl=URL, AttributeNames=["QueueArn"]),
    sqs("purge_queue", [("sqs:purgequeue", QUEUE)], QueueUrl=URL),
    sqs("tag_queue", [("sqs:tagqueue", QUEUE)], QueueUrl=URL, Tags={"team": "blue"}),
    sqs("delete_queue", [("sqs:deletequeue", QUEUE)], QueueUrl=URL),
    secrets("create_secret",
            [("secretsmanager:CreateSecret", f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:new-??????")],
            "new", Name="new", SecretString="hush"),
    secrets("get_secret_value", [("secretsmanager:GetSecretValue", SECRET)], SecretId="lab/secret"),
    secrets("get_secret_value", [("secretsmanager:GetSecretValue", SECRET)], SecretId=SECRET),
    secrets("get_secret_value", [("secretsmanager:GetSecretValue", SECRET)], SecretId="PARTIAL"),
    secrets("describe_secret", [("secretsmanager:DescribeSecret", SECRET)], SecretId="lab/secret"),
    secrets("put_secret_value", [("secretsmanager:PutSecretValue", SECRET)], SecretId="lab/secret",
            SecretString="a=b&c"),
    secrets("delete_secret", [("secretsmanager:DeleteSecret", SECRET)], SecretId="lab/secret"),
    secrets("list_secrets", [("secretsmanager:ListSecrets", "*")], ""),
    secrets("batch_get_secret_value", [("secretsmanager:BatchGetSecretValue", "*"),
            ("secretsmanager:GetSecretValue", SECRET)], SecretIdList=["lab/secret"]),
    iam("get_role", [("iam:GetRole", f"{IAM}role/team/pathed")], "role pathed", RoleName="pathed"),
    iam("create_role", [("iam:CreateRole", f"{IAM}role/team/new")],
        RoleName="new", Path="/team/", AssumeRolePolicyDocument=TRUST),
    iam("delete_role", [("iam:DeleteRole", f"{IAM}role/team/pathed")], "role pathed", RoleName="pathed"),
    iam("put_role_policy", [("iam:PutRolePolicy", Irsa.role_arn)], "role my-role",
        RoleName="my-role", PolicyName="p", PolicyDocument=DOCUMENT),
    iam("list_roles", [("iam:ListRoles", f"{IAM}role/")]),
    iam("list_roles", [("iam:ListRoles", f"{IAM}role/team/")], PathPrefix="/team/"),
    iam("list_users", [("iam:ListUsers", f"{IAM}user/")]),
    iam("list_policies", [("iam:ListPolicies", "*")], "policy path /", Scope="Local"),
    iam("create_policy", [("iam:CreatePolicy", f"{IAM}policy/p")], "policy p", PolicyName="p", PolicyDocument=DOCUMENT),
    iam("get_policy", [("iam:GetPolicy", Irsa.policy_arn)], f"policy {Irsa.policy_arn}", PolicyArn=Irsa.policy_arn),
    iam("create_user", [("iam:CreateUser", f"{IAM}user/ann")], UserName="ann"),
    iam("create_access_key", [("iam:CreateAccessKey", f"{IAM}user/bob")], "user bob", UserName="bob"),
    iam("update_user", [("iam:UpdateUser", f"{IAM}user/bob"), ("iam:UpdateUser", f"{IAM}user/bobby")], "user bobby",
        UserName="bob", NewUserName="bobby"),
    iam("add_role_to_instance_profile", [("iam:AddRoleToInstanceProfile", f"{IAM}instance-profile/profile"),
            ("iam:PassRole", f"{IAM}role/team/pathed")], InstanceProfileName="profile", RoleName="pathed"),
    iam("create_open_id_connect_provider",
        [("iam:CreateOpenIDConnectProvider", f"{IAM}oidc-provider/issuer.example/id/1")],
        Url="https://issuer.example/id/1", ThumbprintList=["a" * 40]),
    iam("get_open_id_connect_provider", [("iam:GetOpenIDConnectProvider", Irsa.provider_arn)],
        OpenIDConnectProviderArn=Irsa.provider_arn),
    iam("get_account_summary", [("iam:GetAccountSummary", "*")]),
    s3("list_buckets", [("s3:ListAllMyBuckets", "*")], ""),
    s3control("put_public_access_block", [("s3:PutAccountPublicAccessBlock", "*")],
              PublicAccessBlockConfiguration={"BlockPublicAcls": True}),
    s3control("get_public_access_block", [("s3:GetAccountPublicAccessBlock", "*")]),
    s3control("delete_public_access_block", [("s3:PutAccountPublicAccessBlock", "*")]),
    s3("list_objects_v2", [("s3:ListBucket", BUCKET)], Bucket=Irsa.bucket),
    s3("list_object_versions", [("s3:ListBucketVersions", BUCKET)], Bucket=Irsa.bucket),
    s3("list_multipart_uploads", [("s3:ListBucketMultipartUploads", BUCKET)], Bucket=Irsa.bucket),
    s3("create_bucket", [("s3:CreateBucket", "arn:aws:s3:::new-one")], Bucket="new-one"),
    s3("create_bucket", [("s3:CreateBucket", "arn:aws:s3:::new-one")], Bucket="new-one", ACL="private"),
    s3("create_bucket", [("s3:CreateBucket", "arn:aws:s3:::new-one"), ("s3:PutBucketAcl", "arn:aws:s3:::new-one")],
       Bucket="new-one", ACL="public-read"),
    s3("get_bucket_location", [("s3:GetBucketLocation", BUCKET)], Bucket=Irsa.bucket),
    s3("put_bucket_versioning", [("s3:PutBucketVersioning", BUCKET)], Bucket=Irsa.bucket,
       VersioningConfiguration={"Status": "Enabled"}),
    s3("put_bucket_tagging", [("s3:PutBucketTagging", BUCKET)], Bucket=Irsa.bucket, Tagging={"TagSet": TAGS}),
    s3("get_object", [("s3:GetObject", f"{BUCKET}/hello.txt")], **HELLO),
    s3("get_object_attributes", [("s3:GetObject", f"{BUCKET}/hello.txt"),
            ("s3:GetObjectAttributes", f"{BUCKET}/hello.txt")], **HELLO, ObjectAttributes=["ETag"]),
    s3("put_object", [("s3:PutObject", f"{BUCKET}/new")], Bucket=Irsa.bucket, Key="new", Body=b"new"),
    s3("put_object", [("s3:PutObject", f"{BUCKET}/new"), ("s3:PutObjectAcl", f"{BUCKET}/new")],
       Bucket=Irsa.bucket, Key="new", ACL="private"),
    s3("put_object", [("s3:PutObject", f"{BUCKET}/new"), ("s3:PutObjectTagging", f"{BUCKET}/new")],
       Bucket=Irsa.bucket, Key="new", Tagging="team=blue"),
    s3("copy_object", [("s3:PutObject", f"{BUCKET}/copy.txt"), ("s3:GetObject", f"{BUCKET}/hello.txt")],
       **COPY | {"CopySource": f"{Irsa.bucket}/hello.txt"}),
    s3("copy_object", [("s3:PutObject", f"{BUCKET}/copy.txt"), ("s3:GetObject", f"{BUCKET}/tagged.txt"),
                       ("s3:GetObjectTagging", f"{BUCKET}/tagged.txt"), ("s3:PutObjectTagging", f"{BUCKET}/copy.txt")],
       **COPY),
    s3("delete_object", [("s3:DeleteObject", f"{BUCKET}/hello.txt")], **HELLO),
    s3("create_multipart_upload", [("s3:PutObject", f"{BUCKET}/hello.txt")], **HELLO),
    s3("upload_part", [("s3:PutObject", f"{BUCKET}/hello.txt")], **HELLO, UploadId="UPLOAD", PartNumber=1, Body=b"x"),
    s3("list_parts", [("s3:ListMultipartUploadParts", f"{BUCKET}/hello.txt")], **HELLO, UploadId="UPLOAD"),
    s3("abort_multipart_upload", [("s3:AbortMultipartUpload", f"{BUCKET}/hello.txt")], **HELLO, UploadId="UPLOAD"),
    s3("put_object_tagging", [("s3:PutObjectTagging", f"{BUCKET}/hello.txt")], **HELLO, Tagging={"TagSet": TAGS}),
    s3("delete_bucket_policy", [("s3:DeleteBucketPolicy", BUCKET)], Bucket=Irsa.bucket),
    Row("cloudtrail", "lookup_events", {}, [("cloudtrail:LookupEvents", "*")], ""),
    eks("describe_cluster", [("eks:DescribeCluster", CLUSTER)], name="blue"),
    eks("list_clusters", [("eks:ListClusters", CLUSTER.replace("/blue", "/*"))]),
    eks("list_pod_identity_associations", [("eks:ListPodIdentityAssociations", CLUSTER)], clusterName="blue"),
    eks("list_identity_provider_configs", [("eks:ListIdentityProviderConfigs", CLUSTER)], clusterName="blue"),
    eks("create_pod_identity_association",
        [("eks:CreatePodIdentityAssociation", CLUSTER), ("iam:PassRole", Irsa.role_arn)],
        clusterName="blue", namespace="default", serviceAccount="new", roleArn=Irsa.role_arn),
    eks("associate_identity_provider_config", [("eks:AssociateIdentityProviderConfig", CLUSTER)], clusterName="blue",
        oidc={"identityProviderConfigName": "users", "issuerUrl": "https://users.example.com", "clientId": "kubectl"}),
    eks("list_access_entries", [("eks:ListAccessEntries", CLUSTER)], clusterName="blue"),
    eks("create_access_entry", [("eks:CreateAccessEntry", CLUSTER)], clusterName="blue", principalArn=Irsa.role_arn),
    eks("list_tags_for_resource", [("eks:ListTagsForResource", CLUSTER)], resourceArn=CLUSTER),
    eks("create_cluster", [("eks:CreateCluster", CLUSTER.replace("blue", "green")), ("iam:PassRole", Irsa.role_arn)],
        name="green", roleArn=Irsa.role_arn, resourcesVpcConfig={}),
    eks("create_nodegroup", [("eks:CreateNodegroup", CLUSTER), ("iam:PassRole", Irsa.role_arn)],
        clusterName="blue", nodegroupName="nodes", nodeRole=Irsa.role_arn, subnets=["subnet-1"]),
    eks("delete_cluster", [("eks:DeleteCluster", CLUSTER)], name="blue"),
]  # fmt: skip


@pytest.fixture
def stocked(aws, irsa):
    """Create one resource of each kind that the rows name; return the secret's ARN."""
    policy = trust_policy()
    for_pods = {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}, "Action": "sts:*"}
    irsa.trust({**policy, "Statement": [*policy["Statement"], for_pods]})
    for name in ("table", "other"):
        aws.client("dynamodb").create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in ("k", "c")],
            BillingMode="PAY_PER_REQUEST",
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "by-c",
                    "KeySchema": [{"AttributeName": "c", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "ALL"},
                }
            ],
        )
    aws.client("s3").put_object(Bucket=irsa.bucket, Key="tagged.txt", Body=b"", Tagging="team=blue")
    blocked = {"BlockPublicAcls": True}
    aws.client("s3control").put_public_access_block(AccountId=ACCOUNT, PublicAccessBlockConfiguration=blocked)
    aws.client("sqs").create_queue(QueueName="queue")
    aws.client("eks").create_cluster(name="blue", roleArn=irsa.role_arn, resourcesVpcConfig={})
    irsa.iam.create_role(RoleName="pathed", Path="/team/", AssumeRolePolicyDocument=TRUST)
    irsa.iam.create_user(UserName="bob")
    irsa.iam.create_instance_profile(InstanceProfileName="profile")
    return aws.client("secretsmanager").create_secret(Name="lab/secret", SecretString="hush")["ARN"]


def allow(*needed):
    return [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in needed]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_each_call_needs_exactly_the_listed_permissions(aws, irsa, stocked, row):
    needed = [(action, stocked if resource == SECRET else resource) for action, resource in row.needed]
    partial = stocked.rpartition("-")[0]
    known = {SECRET: stocked, "PARTIAL": partial}
    if row.parameters.get("UploadId"):
        known["UPLOAD"] = aws.client("s3").create_multipart_upload(**HELLO)["UploadId"]
    parameters = {k: known.get(v, v) if isinstance(v, str) else v for k, v in row.parameters.items()}
    session = irsa.assume()["Credentials"]
    call = getattr(aws.client(row.service, session), row.method)

    action, resource = needed[-1]
    other = "arn:aws:s3:::other" if resource == "*" else resource + "-not"
    irsa.permit(*allow(*needed[:-1], (action, other), (action + "x", "*")))
    named = resource if row.shown is None else row.shown
    named = f'"{named}"' if named and row.service == "s3" else named
    on = f" on resource: {named}" if named else ""
    message = f"User: {SESSION} is not authorized to perform: {action}{on} "
    message += f"because no identity-based policy allows the {action} action"
    code = "AccessDenied" if row.service in ("iam", "s3", "s3control", "sqs") else "AccessDeniedException"
    status = 400 if row.service in ("cloudtrail", "dynamodb", "secretsmanager") else 403
    refused(lambda: call(**parameters), status, code, message)
    assert aws.last()["lab"]["decision"] == "refused"

    irsa.permit(*allow(*needed))
    assert call(**parameters)["ResponseMetadata"]["HTTPStatusCode"] in (200, 201, 204)


def test_a_missing_secret_is_a_bad_request(aws):
    said = "Secrets Manager can't find the specified secret."
    secrets = aws.client("secretsmanager")
    refused(lambda: secrets.get_secret_value(SecretId="none"), 400, "ResourceNotFoundException", said)


def test_sts_tells_a_session_an_access_key_s_account_only_with_permission(aws, irsa):
    """Two other calls still fail if ``sts:*`` is allowed."""
    session = irsa.assume()["Credentials"]
    sts = aws.client("sts", session)

    def info():
        return sts.get_access_key_info(AccessKeyId=session["AccessKeyId"])

    ending = "is not authorized to perform: sts:GetAccessKeyInfo because no identity-based policy allows"
    refused(info, 403, "AccessDenied", f"User: {SESSION} {ending} the sts:GetAccessKeyInfo action")
    irsa.permit(*allow(("sts:*", "*")))
    assert info()["Account"] == ACCOUNT
    code = "InvalidAuthorizationMessageException"
    refused(lambda: sts.decode_authorization_message(EncodedMessage="x" * 20), 400, code, "Message is not valid")
    message = "Cannot call GetSessionToken with session credentials"
    refused(sts.get_session_token, 403, "AccessDenied", message)
