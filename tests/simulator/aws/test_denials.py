"""The text of a denial: the action, the resource, and the kind of policy that caused it."""

import pytest
from botocore.exceptions import ClientError

from tests.simulator.aws.conftest import ACCOUNT, OTHER, document, refused

ME = f"User: arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod is not authorized to perform: "
ALLOW, DENY = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}, {"Effect": "Deny"}
PUT = {"Action": "s3:PutObject", "Resource": "*"}
READ = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
ALL_BUT_PUT = {"Effect": "Allow", "NotAction": "s3:PutObject", "Resource": "*"}


def identity(*statements):
    def arrange(irsa):
        irsa.permit(*statements)
        return {}

    return arrange


def boundary(*statements):
    def arrange(irsa):
        irsa.permit(ALLOW)
        arn = irsa.iam.create_policy(PolicyName="boundary", PolicyDocument=document(*statements))["Policy"]["Arn"]
        irsa.iam.put_role_permissions_boundary(RoleName="my-role", PermissionsBoundary=arn)
        return {}

    return arrange


def session(*statements):
    def arrange(irsa):
        irsa.permit(ALLOW)
        return {"Policy": document(*statements)}

    return arrange


def resource(*statements):
    def arrange(irsa):
        irsa.permit(ALLOW)
        irsa.aws.client("s3").put_bucket_policy(Bucket="irsa-lab", Policy=document(*statements))
        return {}

    return arrange


NOT_IDENTITY = "because no identity-based policy allows the s3:PutObject action"
NOT_BOUNDARY = "because no permissions boundary allows the s3:PutObject action"
NOT_SESSION = "because no session policy allows the s3:PutObject action"
ANYBODY_S_PUT = {"Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::irsa-lab/*"}
DENIALS = [
    (NOT_IDENTITY, identity(ALL_BUT_PUT)),
    (NOT_BOUNDARY, boundary(ALL_BUT_PUT)),
    (NOT_SESSION, session(ALL_BUT_PUT)),
    ("with an explicit deny in an identity-based policy", identity(ALLOW, DENY | PUT)),
    ("with an explicit deny in a permissions boundary", boundary(ALLOW, DENY | PUT)),
    ("with an explicit deny in a session policy", session(ALLOW, DENY | PUT)),
    ("with an explicit deny in a resource-based policy", resource(DENY | ANYBODY_S_PUT)),
]


@pytest.mark.parametrize(("text", "arrange"), DENIALS, ids=[text for text, _ in DENIALS])
def test_a_denial_names_the_kind_of_policy_that_caused_it(aws, irsa, text, arrange):
    irsa.permit(ALLOW)
    put = {"Bucket": "irsa-lab", "Key": "new.txt", "Body": b"new"}
    aws.client("s3", irsa.assume()["Credentials"]).put_object(**put)
    s3 = aws.client("s3", irsa.assume(**arrange(irsa))["Credentials"])
    on = 's3:PutObject on resource: "arn:aws:s3:::irsa-lab/new.txt" '
    refused(lambda: s3.put_object(**put), 403, "AccessDenied", ME + on + text)
    assert len(aws.last()["lab"]["reason"]) > 30
    s3.get_object(Bucket="irsa-lab", Key="new.txt")


def test_a_denial_in_another_account_names_the_resource_based_policy(aws, irsa):
    irsa.permit(ALLOW)
    entrance = f"arn:aws:iam::{OTHER}:role/OrganizationAccountAccessRole"
    theirs = aws.client("s3", aws.client("sts").assume_role(RoleArn=entrance, RoleSessionName="me")["Credentials"])
    theirs.create_bucket(Bucket="theirs")
    theirs.put_object(Bucket="theirs", Key="a", Body=b"a")
    s3 = aws.client("s3", irsa.assume()["Credentials"])

    def get():
        return s3.get_object(Bucket="theirs", Key="a")

    text = 's3:GetObject on resource: "arn:aws:s3:::theirs/a" because no resource-based policy allows the s3:GetObject'
    refused(get, 403, "AccessDenied", f"{ME}{text} action")
    allow = {"Effect": "Allow", "Principal": {"AWS": irsa.role_arn}, "Action": "s3:GetObject"}
    theirs.put_bucket_policy(Bucket="theirs", Policy=document(allow | {"Resource": "arn:aws:s3:::theirs/*"}))
    get()


def test_only_s3_s_denial_quotes_a_resource_and_a_call_without_one_names_none(aws, irsa):
    credentials = irsa.assume()["Credentials"]
    queue = f"sqs:DeleteQueue on resource: arn:aws:sqs:us-east-1:{ACCOUNT}:mine "
    url = aws.client("sqs").create_queue(QueueName="mine")["QueueUrl"]
    with pytest.raises(ClientError) as caught:
        aws.client("sqs", credentials).delete_queue(QueueUrl=url)
    message = ME + queue + "because no identity-based policy allows the sqs:DeleteQueue action"
    assert caught.value.response["Error"]["Message"].lower() == message.lower()
    irsa.permit(READ)
    message = ME + "s3:ListAllMyBuckets because no identity-based policy allows the s3:ListAllMyBuckets action"
    refused(aws.client("s3", credentials).list_buckets, 403, "AccessDenied", message)
    refused(lambda: aws.client("s3", credentials).head_bucket(Bucket="irsa-lab"), 403, "403", "Forbidden")
