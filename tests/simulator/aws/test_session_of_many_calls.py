"""A session of some 200 calls leaves the trail that is stored beside this file: who, what, decision, reason.

A pod, an IAM user and the administrator make the same calls. So most calls are refused once, allowed once, and
repeated once. Times, ids, access keys and ports are masked, because they differ between sessions.

``LABKIT_WRITE=1`` stores the trail again. Then check the changes with `git diff`.
"""

import itertools
import json
import os
import re
from pathlib import Path

import httpx
from botocore.exceptions import ClientError

from labkit.simulator.aws.organizations import MANAGEMENT_ID
from tests.simulator.aws.conftest import ACCOUNT, MANAGEMENT, REGION, Irsa, document, trust_policy

STORED = Path(__file__).with_name("session_of_many_calls.jsonl")
FEWEST = 200
BUCKET, HELLO = Irsa.bucket, {"Bucket": Irsa.bucket, "Key": "hello.txt"}
SECRET_KEY = {"Bucket": BUCKET, "Key": "secret/plan.txt"}
OTHER_ROLE, NO_ROLE = f"arn:aws:iam::{ACCOUNT}:role/team/other", f"arn:aws:iam::{ACCOUNT}:role/none"
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
MEMBER = "222222222222"
ENTRANCE = f"arn:aws:iam::{MEMBER}:role/OrganizationAccountAccessRole"
TABLE = {"TableName": "table"}
QUEUE = {"QueueUrl": f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/queue"}
BLUE = {"clusterName": "blue"}
ENTRY = {**BLUE, "principalArn": OTHER_ROLE}
VIEW = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"
ROLE, OTHER, NONE = {"RoleName": "my-role"}, {"RoleName": "other"}, {"RoleName": "none"}
ITEM = {"k": {"S": "one"}}
NOT_A_TRUST_POLICY = '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole"}}'


def may(action, resource="*", effect="Allow", **more):
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


TRUST = document({"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": ["sts:AssumeRole", "sts:TagSession"]})
POD_MAY = [
    may(["s3:ListAllMyBuckets", "s3:GetObject*"]),
    may("s3:ListBucket", f"arn:aws:s3:::{BUCKET}", Condition={"StringLike": {"s3:prefix": "shared/*"}}),
    may("s3:GetObject", f"arn:aws:s3:::{BUCKET}/secret/*", "Deny"),
    may(["iam:GetRole", "iam:SimulatePrincipalPolicy"], f"arn:aws:iam::{ACCOUNT}:role/*"),
    may(["dynamodb:GetItem", "dynamodb:Query"], f"arn:aws:dynamodb:*:{ACCOUNT}:table/table"),
    may("sqs:SendMessage", f"arn:aws:sqs:*:{ACCOUNT}:queue"),
    may("sts:AssumeRole", OTHER_ROLE),
    may(["eks:DescribeCluster", "secretsmanager:GetSecretValue"]),
]
USER_MAY = [
    may(["s3:*", "iam:Get*", "iam:List*", "iam:TagRole", "sts:*", "eks:List*", "eks:CreatePod*"]),
    may("s3:PutObject", "*", Condition={"StringEquals": {"s3:x-amz-acl": "private"}}),
    may("dynamodb:*", Condition={"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}),
]
BOUNDARY_ALLOWS = document(may(["s3:Get*", "s3:List*", "s3:PutObject", "iam:*", "dynamodb:*", "sts:*", "eks:*"]))

# The pod, the user and the administrator each make these calls, in this order.
CALLS = [
    ("sts", "get_caller_identity", {}),
    ("sts", "assume_role", {"RoleArn": OTHER_ROLE, "RoleSessionName": "chained"}),
    ("sts", "assume_role", {"RoleArn": NO_ROLE, "RoleSessionName": "session"}),
    ("sts", "get_access_key_info", {"AccessKeyId": "AKIAIOSFODNN7EXAMPLE"}),
    ("s3", "list_buckets", {}),
    ("s3", "create_bucket", {"Bucket": "made-in-a-session"}),
    ("s3", "head_bucket", {"Bucket": BUCKET}),
    ("s3", "list_objects_v2", {"Bucket": BUCKET}),
    ("s3", "list_objects_v2", {"Bucket": BUCKET, "Prefix": "shared/"}),
    ("s3", "get_object", HELLO),
    ("s3", "get_object", HELLO | {"VersionId": "null"}),
    ("s3", "get_object", HELLO | {"Key": "none"}),
    ("s3", "get_object", SECRET_KEY),
    ("s3", "head_object", {"Bucket": BUCKET, "Key": "none"}),
    ("s3", "put_object", SECRET_KEY | {"Body": b"x"}),
    ("s3", "put_object", SECRET_KEY | {"Body": b"x", "ACL": "private", "Tagging": "team=blue"}),
    ("s3", "copy_object", {"Bucket": BUCKET, "Key": "copy", "CopySource": f"{BUCKET}/secret/plan.txt"}),
    ("s3", "delete_objects", {"Bucket": BUCKET, "Delete": {"Objects": [{"Key": "copy"}, {"Key": "none"}]}}),
    ("s3", "get_bucket_lifecycle_configuration", {"Bucket": BUCKET}),
    ("s3", "get_bucket_policy", {"Bucket": "none"}),
    ("iam", "get_role", ROLE),
    ("iam", "get_role", NONE),
    ("iam", "create_role", OTHER | {"Path": "/team/", "AssumeRolePolicyDocument": TRUST}),
    ("iam", "create_role", NONE | {"AssumeRolePolicyDocument": NOT_A_TRUST_POLICY}),
    ("iam", "put_role_policy", OTHER | {"PolicyName": "inline", "PolicyDocument": document(may("s3:*"))}),
    ("iam", "attach_role_policy", OTHER | {"PolicyArn": Irsa.policy_arn}),
    ("iam", "attach_role_policy", OTHER | {"PolicyArn": f"{Irsa.policy_arn}-none"}),
    ("iam", "tag_role", OTHER | {"Tags": [{"Key": "team", "Value": "blue"}]}),
    ("iam", "delete_role", OTHER),
    ("iam", "get_user", {}),
    ("iam", "list_attached_user_policies", {"UserName": "ann"}),
    ("iam", "simulate_principal_policy", {"PolicySourceArn": Irsa.role_arn, "ActionNames": ["s3:PutObject"]}),
    ("eks", "list_clusters", {}),
    ("eks", "describe_cluster", {"name": "blue"}),
    ("eks", "describe_cluster", {"name": "none"}),
    ("eks", "create_cluster", {"name": "blue", "roleArn": Irsa.role_arn, "resourcesVpcConfig": {}}),
    ("eks", "create_access_entry", ENTRY),
    ("eks", "associate_access_policy", ENTRY | {"policyArn": VIEW, "accessScope": {"type": "cluster"}}),
    ("eks", "delete_access_entry", BLUE | {"principalArn": NO_ROLE}),
    ("eks", "create_pod_identity_association",
     BLUE | {"namespace": "default", "serviceAccount": "default", "roleArn": Irsa.role_arn}),
    ("dynamodb", "get_item", TABLE | {"Key": ITEM}),
    ("dynamodb", "put_item", TABLE | {"Item": ITEM}),
    ("dynamodb", "query", TABLE | {"KeyConditionExpression": "k = :k", "ExpressionAttributeValues": {":k": ITEM["k"]}}),
    ("dynamodb", "scan", {"TableName": "none"}),
    ("sqs", "send_message", QUEUE | {"MessageBody": "hello"}),
    ("sqs", "receive_message", QUEUE | {"WaitTimeSeconds": 0}),
    ("secretsmanager", "get_secret_value", {"SecretId": "password"}),
    ("secretsmanager", "get_secret_value", {"SecretId": "none"}),
    ("secretsmanager", "create_secret", {"Name": "password", "SecretString": "hush"}),
    ("cloudtrail", "lookup_events", {"MaxResults": 1}),
    ("ssm", "get_parameter", {"Name": "/none"}),
    ("ec2", "describe_regions", {"RegionNames": [REGION]}),
    ("account", "list_regions", {"RegionOptStatusContains": ["DISABLED"]}),
    ("organizations", "describe_organization", {}),
    ("sns", "list_topics", {}),
]  # fmt: skip

# Exchanges that differ from a good one: in the token (claims, headers), or in the request.
EXCHANGES = [
    {},
    {"DurationSeconds": 900, "Policy": document(may("s3:GetObject"))},
    {"claims": {"sub": "system:serviceaccount:default:another"}},
    {"claims": {"aud": ["another"]}},
    {"claims": {"exp": 1_000_000_000}},
    {"claims": {"iss": "https://issuer.example/id/1"}},
    {"headers": {"kid": "another"}},
    {"WebIdentityToken": "not.a.token"},
    {"RoleArn": NO_ROLE},
    {"RoleArn": "my-role"},
    {"RoleSessionName": "a name"},
    {"DurationSeconds": 43_200},
]

# Requests that no SDK sends: method, path, headers, body.
FORM = {"content-type": "application/x-www-form-urlencoded"}
SCOPE = f"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20300101/{REGION}"
SPOILT = [
    ("GET", "/", {}, ""),
    ("GET", f"/{BUCKET}/hello.txt?versionId=null", {}, ""),
    ("GET", "/clusters/blue", {}, ""),
    ("POST", "/", {"authorization": "AWS4-HMAC-SHA256 nothing"}, ""),
    ("POST", "/", {"authorization": "Basic eDp5"}, ""),
    ("POST", "/", {"authorization": f"{SCOPE}/iam/aws4_request, SignedHeaders=host, Signature=0"} | FORM,
     "Action=GetUser&Version=2010-05-08"),
    ("POST", "/", FORM, "Action=GetCallerIdentity&Version=2011-06-15"),
    ("POST", "/", FORM, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15"),
    ("GET", "/?Action=AssumeRoleWithWebIdentity&RoleSessionName=x&WebIdentityToken=e30.e30.", {}, ""),
    ("POST", "/", FORM, "a=b&" * 10_000),
    ("POST", "/", {"x-amz-target": "DynamoDB_20120810.GetItem"}, "{"),
    ("POST", "/", {"x-amz-target": "Nobody.Knows"}, "{}"),
    ("POST", f"/{BUCKET}", {"content-type": "multipart/form-data; boundary=x"}, "--x--"),
]  # fmt: skip


def test_the_calls_of_the_session_leave_the_stored_trail(aws):
    masked = Masked()
    lines = [masked.line(record) for record in session(aws)]
    assert len(lines) >= FEWEST
    if os.environ.get("LABKIT_WRITE") == "1":
        STORED.write_text("".join(f"{line}\n" for line in lines))
    stored = STORED.read_text().splitlines()
    for number, (line, expected) in enumerate(itertools.zip_longest(lines, stored, fillvalue="null"), 1):
        assert json.loads(line) == json.loads(expected), (
            f"call {number} of the session; if you meant that:  LABKIT_WRITE=1 python -m pytest "
            f"{os.path.relpath(__file__)}"
        )


class Masked:
    """Records without the parts that differ between sessions. Each id is replaced with its number among the ids."""

    DROPPED = ("eventVersion", "eventTime", "requestID", "eventID", "sharedEventID", "userAgent", "x-amz-id-2")
    TIME = re.compile(r"\d{8}T\d{6}Z|\d{4}-\d\d-\d\dT[\d:]+Z|[A-Z][a-z]{2} \d+, \d{4}, \d+:\d\d:\d\d [AP]M")
    SECONDS = re.compile(r"\b1[789]\d{8}\b|\b\d+(?= s ago)")
    IDS = re.compile(r"\bA[A-Z]{3}[A-Z2-7]{12,17}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
    PORT = re.compile(r"127\.0\.0\.1:\d+")

    def __init__(self):
        self.ids = {}
        self.identities = {}

    def line(self, record):
        """The record as a line of JSON. A caller appears in full the first time, and then as a number."""
        record = {name: value for name, value in record.items() if name not in self.DROPPED}
        if "x-amz-id-2" in (additional := record.get("additionalEventData", {})):
            record["additionalEventData"] = {k: v for k, v in additional.items() if k != "x-amz-id-2"}
        text = json.dumps(record, sort_keys=True)
        for pattern, name in ((self.TIME, "TIME"), (self.SECONDS, "0"), (self.PORT, "HOST")):
            text = pattern.sub(name, text)
        text = self.IDS.sub(self._numbered, text)
        record = json.loads(text)
        identity = json.dumps(record["userIdentity"])
        if identity in self.identities:
            record["userIdentity"] = self.identities[identity]
        else:
            self.identities[identity] = len(self.identities) + 1
        return json.dumps(record, separators=(",", ":"))

    def _numbered(self, match):
        return self.ids.setdefault(match[0], f"{match[0][:4] if match[0][0] == 'A' else 'uuid'}-{len(self.ids) + 1}")


def session(aws):
    """Make the calls; return the trail."""
    pod, user = prepared(aws)
    callers = [
        lambda service: aws.client(service, pod),
        lambda service: aws.new_client(service, user["AccessKeyId"], user["SecretAccessKey"]),
        aws.client,
    ]
    for client in callers:
        clients = {}
        for service, method, parameters in CALLS:
            if service not in clients:
                clients[service] = client(service)
            ask(getattr(clients[service], method), **parameters)
    sts = aws.client("sts")
    for exchange in EXCHANGES:
        given = {"RoleArn": Irsa.role_arn, "RoleSessionName": "my-pod"} | exchange
        token = aws.issuer.token(headers=given.pop("headers", None), **given.pop("claims", {}))
        ask(sts.assume_role_with_web_identity, **{"WebIdentityToken": token} | given)
    with httpx.Client(base_url=aws.endpoint, trust_env=False, timeout=60) as http:
        for method, path, headers, body in SPOILT:
            http.request(method, path, headers=headers, content=body)
    by_keys(aws, pod, user)
    in_another_account(aws)
    return aws.trail()


def prepared(aws):
    """Create the resources; return the keys of a pod and of a user, who may each make some of the calls."""
    irsa = Irsa(aws)
    irsa.permit(*POD_MAY)
    irsa.iam.create_policy(PolicyName="boundary", PolicyDocument=BOUNDARY_ALLOWS)
    irsa.iam.create_user(UserName="ann", PermissionsBoundary=BOUNDARY)
    irsa.iam.put_user_policy(UserName="ann", PolicyName="inline", PolicyDocument=document(*USER_MAY))
    aws.client("dynamodb").create_table(
        **TABLE,
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    aws.client("sqs").create_queue(QueueName="queue")
    return irsa.assume()["Credentials"], irsa.iam.create_access_key(UserName="ann")["AccessKey"]


def by_keys(aws, pod, user):
    """Make calls with keys that are wrong, inactive or expired, and with presigned URLs."""
    url = aws.client("s3", pod, signature_version="s3v4").generate_presigned_url("get_object", Params=HELLO)
    for call in (url, url.replace("X-Amz-Signature=", "X-Amz-Signature=0"), url.replace("hello", "hallo")):
        httpx.get(call, trust_env=False, timeout=60)
    aws.client("iam").update_access_key(UserName="ann", AccessKeyId=user["AccessKeyId"], Status="Inactive")
    keys = [
        (user["AccessKeyId"], user["SecretAccessKey"], None),
        (pod["AccessKeyId"], pod["SecretAccessKey"], None),
        (pod["AccessKeyId"], "wrong", pod["SessionToken"]),
        (pod["AccessKeyId"], pod["SecretAccessKey"], "wrong"),
        ("AKIANOBODYHASTHISKEY", "wrong", None),
    ]
    for service, method in (("s3", "list_buckets"), ("iam", "list_roles"), ("dynamodb", "list_tables")):
        for each in keys:
            ask(getattr(aws.new_client(service, *each), method))
    aws.clock.advance(hours=2)
    for call in (aws.client("s3", pod).list_buckets, aws.client("sts", pod).get_caller_identity):
        ask(call)
    httpx.get(url, trust_env=False, timeout=60)
    aws.clock.reset()
    aws.client("iam").delete_role_policy(RoleName="my-role", PolicyName="inline")
    aws.client("iam").delete_role(RoleName="my-role")
    ask(aws.client("s3", pod).list_buckets)


def in_another_account(aws):
    """Make calls into a member account, and calls there that the organization's policies deny."""
    sts = aws.client("sts")
    entered = sts.assume_role(RoleArn=ENTRANCE, RoleSessionName="me")
    member = entered["Credentials"]
    ask(aws.client("s3", member).create_bucket, Bucket="theirs")
    ask(aws.client("s3").get_object, Bucket="theirs", Key="x")
    ask(aws.client("s3").put_bucket_policy, Bucket="theirs", Policy=document(may("s3:*") | {"Principal": "*"}))
    allowed = may("s3:*", ["arn:aws:s3:::theirs", "arn:aws:s3:::theirs/*"], Principal={"AWS": ACCOUNT})
    ask(aws.client("s3", member).put_bucket_policy, Bucket="theirs", Policy=document(allowed))
    ask(aws.client("s3").put_object, Bucket="theirs", Key="x", Body=b"x")
    ask(aws.client("s3", member).get_object, Bucket="theirs", Key="x")
    ask(aws.client("iam", member).create_role, RoleName="theirs", AssumeRolePolicyDocument=json.dumps(trust_policy()))
    ask(sts.assume_role, RoleArn=f"arn:aws:iam::{MEMBER}:role/theirs", RoleSessionName="me")
    ask(sts.assume_role, RoleArn=ENTRANCE, RoleSessionName="me", SourceIdentity="ann", ExternalId="external")
    organizations = aws.new_client("organizations", MANAGEMENT.access_key_id, MANAGEMENT.secret_access_key)
    made = ask(
        organizations.create_policy,
        Name="none",
        Description="",
        Type="SERVICE_CONTROL_POLICY",
        Content=document(may("s3:*", "*", "Deny")),
    )
    ask(organizations.attach_policy, PolicyId=made["Policy"]["PolicySummary"]["Id"], TargetId=MEMBER)
    ask(organizations.list_accounts)
    ask(organizations.describe_account, AccountId=MANAGEMENT_ID)
    ask(aws.client("s3", member).list_buckets)
    ask(aws.client("iam", member).list_roles)


def ask(call, **parameters):
    """Return the answer, or None for a refusal, which is in the trail."""
    try:
        return call(**parameters)
    except ClientError:
        return None
