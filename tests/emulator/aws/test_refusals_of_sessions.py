"""What a call with a role session's credentials is refused for: a row a fault, a column a kind of service."""

import datetime
import hashlib
import json
import re
from typing import ClassVar

import botocore.auth
import httpx
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.emulator.aws.conftest import ACCOUNT, ADMINISTRATOR, REGION, refused, trust_policy


class Call:
    """A signed request that a test can spoil after it was signed, or before."""

    requests: ClassVar = {
        "s3": ("GET", "/irsa-lab/hello.txt", b"", {}),
        "sts": ("POST", "/", b"Action=GetCallerIdentity&Version=2011-06-15",
                {"Content-Type": "application/x-www-form-urlencoded"}),
        "sqs": ("POST", "/", b"{}",
                {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "AmazonSQS.ListQueues"}),
        "dynamodb": ("POST", "/", b"{}",
                     {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "DynamoDB_20120810.ListTables"}),
    }  # fmt: skip

    def __init__(self, aws, service, session):
        self.aws, self.service, self.region = aws, service, REGION
        self.key, self.secret, self.token = (session[n] for n in ("AccessKeyId", "SecretAccessKey", "SessionToken"))
        self.method, self.path, self.body, self.headers = self.requests[service]
        self.signed = True
        self.after = lambda headers: None

    def send(self):
        request = AWSRequest(self.method, self.aws.endpoint + self.path, data=self.body, headers=dict(self.headers))
        if self.signed:
            signer = botocore.auth.S3SigV4Auth if self.service == "s3" else botocore.auth.SigV4Auth
            signer(Credentials(self.key, self.secret, self.token), self.service, self.region).add_auth(request)
        headers = {name: str(value) for name, value in request.headers.items()}
        self.after(headers)
        with httpx.Client(trust_env=False) as client:
            return client.request(self.method, self.aws.endpoint + self.path, content=self.body, headers=headers)


def unknown_key(call, other):
    call.key = "ASIAIOSFODNN7EXAMPLE"


def wrong_secret(call, other):
    call.secret = "not" + call.secret


def changed_header(call, other):
    call.headers = {**call.headers, "X-Amz-Meta-Colour": "red"}
    call.after = lambda headers: headers.update({"X-Amz-Meta-Colour": "blue"})


def changed_body(call, other):
    call.method, call.path, call.body = (
        ("PUT", "/irsa-lab/new.txt", b"one") if call.service == "s3" else (call.method, call.path, call.body)
    )
    call.after = lambda headers: setattr(call, "body", call.body + b" ")


def skewed(call, other):
    call.skew = datetime.timedelta(minutes=-16)


def token_missing(call, other):
    call.token = None


def token_of_another_session(call, other):
    call.token = other["SessionToken"]


def token_that_is_none(call, other):
    call.token = "bm90IGEgdG9rZW4="


def expired(call, other):
    call.aws.clock.advance(hours=2)


def role_deleted(call, other):
    iam = call.aws.client("iam")
    iam.detach_role_policy(RoleName="my-role", PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
    iam.delete_role(RoleName="my-role")


def role_made_again(call, other):
    role_deleted(call, other)
    call.aws.client("iam").create_role(RoleName="my-role", AssumeRolePolicyDocument=json.dumps(trust_policy()))


def no_credentials(call, other):
    call.signed = False


def wrong_region(call, other):
    call.region = "mars-west-1"


def wrong_service(call, other):
    call.after = lambda headers: headers.update(
        {"Authorization": headers["Authorization"].replace("/aws4_request", "/aws5_request")}
    )


UNKNOWN = (
    (403, "InvalidAccessKeyId"),
    (403, "InvalidClientTokenId"),
    (400, "UnrecognizedClientException"),
)
SIGNATURE = (
    (403, "SignatureDoesNotMatch"),
    (403, "SignatureDoesNotMatch"),
    (400, "InvalidSignatureException"),
)
CALLS = [
    (unknown_key, *UNKNOWN),
    (wrong_secret, *SIGNATURE),
    (changed_header, *SIGNATURE),
    (changed_body, *SIGNATURE),
    (skewed, (403, "RequestTimeTooSkewed"), (403, "SignatureDoesNotMatch"), (400, "InvalidSignatureException")),
    (token_missing, *UNKNOWN),
    (token_of_another_session, *UNKNOWN),
    (token_that_is_none, (400, "InvalidToken"), *UNKNOWN[1:]),
    (expired, (400, "ExpiredToken"), (403, "ExpiredToken"), (400, "ExpiredTokenException")),
    (role_deleted, *UNKNOWN),
    (role_made_again, *UNKNOWN),
    (no_credentials, (403, "AccessDenied"), (403, "MissingAuthenticationToken"),
        (400, "MissingAuthenticationTokenException")),
    (wrong_region, (400, "AuthorizationHeaderMalformed"), *SIGNATURE[1:]),
    (wrong_service, (400, "AuthorizationHeaderMalformed"), *SIGNATURE[1:]),
]  # fmt: skip
MESSAGES = {
    "ExpiredToken": {
        "s3": "The provided token has expired.",
        "sts": "The security token included in the request is expired",
    },
    "InvalidClientTokenId": {"sts": "The security token included in the request is invalid."},
    "AuthorizationHeaderMalformed": {"s3": "The authorization header is malformed"},
}


@pytest.mark.parametrize("service", ["s3", "sts", "sqs", "dynamodb"])
@pytest.mark.parametrize(("spoil", "s3", "sts", "dynamodb"), CALLS, ids=[row[0].__name__ for row in CALLS])
def test_calls_with_a_role_session(aws, irsa, monkeypatch, service, spoil, s3, sts, dynamodb):
    session, other = irsa.assume()["Credentials"], irsa.assume()["Credentials"]
    good = Call(aws, service, session).send()
    # No policy of the role's is about DynamoDB and SQS: the good call to them is refused only by the last check.
    assert good.status_code == {"dynamodb": 400, "sqs": 403}.get(service, 200)
    if good.status_code != 200:
        assert good.json()["__type"] == ("AccessDenied" if service == "sqs" else "AccessDeniedException")
    call = Call(aws, service, session)
    spoil(call, other)
    if skew := getattr(call, "skew", None):
        moment = datetime.datetime.now(datetime.UTC) + skew
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: moment)
    answer = call.send()
    json_spoken = service in ("dynamodb", "sqs")
    code = answer.json()["__type"] if json_spoken else re.search("<Code>(.*)</Code>", answer.text)[1]
    assert (answer.status_code, code) == {"s3": s3, "sts": sts, "sqs": sts, "dynamodb": dynamodb}[service]
    assert MESSAGES.get(code, {}).get(service, "") in answer.text
    assert aws.last()["errorCode"] == code


def test_skew_is_told_as_each_service_tells_it(aws, irsa, monkeypatch):
    session = irsa.assume()["Credentials"]
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=16)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: moment)
    assert "<MaxAllowedSkewMilliseconds>900000<" in Call(aws, "s3", session).send().text
    assert re.search(
        r"Signature expired: \d{8}T\d{6}Z is now earlier than \d{8}T\d{6}Z \(\d{8}T\d{6}Z - 15 min.\)",
        Call(aws, "sts", session).send().text,
    )
    aws.clock.advance(minutes=-16)
    assert Call(aws, "s3", session).send().status_code == 200


ME = f"User: arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod is not authorized to perform: "
ALLOW = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}


def test_denials_say_which_kind_of_policy_decided(aws, irsa):
    s3 = aws.client("s3", irsa.assume()["Credentials"])

    def put():
        return s3.put_object(Bucket="irsa-lab", Key="new.txt", Body=b"new")

    put_object = ME + 's3:PutObject on resource: "arn:aws:s3:::irsa-lab/new.txt" '
    refused(put, 403, "AccessDenied", put_object + "because no identity-based policy allows the s3:PutObject action")
    assert "AmazonS3ReadOnlyAccess" in aws.last()["lab"]["reason"] or "identity" in aws.last()["lab"]["reason"]

    irsa.permit(ALLOW)
    put()
    irsa.permit(ALLOW, {"Effect": "Deny", "Action": "s3:PutObject", "Resource": "*"})
    refused(put, 403, "AccessDenied", put_object + "with an explicit deny in an identity-based policy")

    irsa.permit({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"})
    message = ME + "s3:ListAllMyBuckets because no identity-based policy allows the s3:ListAllMyBuckets action"
    refused(s3.list_buckets, 403, "AccessDenied", message)

    irsa.permit(ALLOW)
    boundary = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}]}
    arn = irsa.iam.create_policy(PolicyName="boundary", PolicyDocument=json.dumps(boundary))["Policy"]["Arn"]
    irsa.iam.put_role_permissions_boundary(RoleName="my-role", PermissionsBoundary=arn)
    refused(put, 403, "AccessDenied", put_object + "because no permissions boundary allows the s3:PutObject action")
    irsa.iam.delete_role_permissions_boundary(RoleName="my-role")

    narrowed = aws.client("s3", irsa.assume(Policy=json.dumps(boundary))["Credentials"])
    refused(
        lambda: narrowed.put_object(Bucket="irsa-lab", Key="new.txt", Body=b""),
        403,
        "AccessDenied",
        put_object + "because no session policy allows the s3:PutObject action",
    )

    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::irsa-lab/*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    aws.client("s3").put_bucket_policy(Bucket="irsa-lab", Policy=document)
    refused(put, 403, "AccessDenied", put_object + "with an explicit deny in a resource-based policy")


def test_a_bucket_policy_alone_allows_in_the_same_account(aws, irsa):
    s3 = aws.client("s3", irsa.assume()["Credentials"])
    allow = {
        "Effect": "Allow",
        "Principal": {"AWS": irsa.role_arn},
        "Action": "s3:PutObject",
        "Resource": "arn:aws:s3:::irsa-lab/*",
        "Condition": {"Bool": {"aws:SecureTransport": "true"}},
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    aws.client("s3").put_bucket_policy(Bucket="irsa-lab", Policy=document)
    s3.put_object(Bucket="irsa-lab", Key="new.txt", Body=b"new")


def test_get_caller_identity_is_allowed_under_an_explicit_deny(aws, irsa):
    irsa.permit({"Effect": "Deny", "Action": "*", "Resource": "*"})
    sts = aws.client("sts", irsa.assume()["Credentials"])
    assert sts.get_caller_identity()["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod"
    with pytest.raises(ClientError, match="Cannot call GetSessionToken with session credentials"):
        sts.get_session_token()


def test_changed_permissions_take_effect_at_once_and_a_changed_trust_policy_ends_no_session(aws, irsa):
    s3 = aws.client("s3", irsa.assume()["Credentials"])
    s3.list_buckets()
    irsa.trust(trust_policy(Effect="Deny"))
    s3.list_buckets()
    irsa.iam.detach_role_policy(RoleName="my-role", PolicyArn=irsa.policy_arn)
    with pytest.raises(ClientError, match="because no identity-based policy allows"):
        s3.list_buckets()


def test_a_presigned_url_is_judged_as_the_session_that_signed_it(aws, irsa):
    s3 = aws.client("s3", irsa.assume()["Credentials"], signature_version="s3v4")
    read = s3.generate_presigned_url("get_object", Params={"Bucket": "irsa-lab", "Key": "hello.txt"}, ExpiresIn=600)
    write = s3.generate_presigned_url("put_object", Params={"Bucket": "irsa-lab", "Key": "hello.txt"})
    with httpx.Client(trust_env=False) as client:
        assert client.get(read).text == "hello"
        assert client.get(read.replace("hello.txt", "other.txt")).status_code == 403
        answer = client.put(write, content=b"changed")
        assert answer.status_code == 403
        assert "because no identity-based policy allows the s3:PutObject action" in answer.text
        brief = s3.generate_presigned_url("get_object", Params={"Bucket": "irsa-lab", "Key": "hello.txt"}, ExpiresIn=1)
        late = brief.replace("X-Amz-Expires=1&", "X-Amz-Expires=600&")
        assert "<Code>SignatureDoesNotMatch</Code>" in client.get(late).text
        aws.clock.advance(hours=2)
        answer = client.get(read)
        assert (answer.status_code, "<Code>ExpiredToken</Code>" in answer.text) == (400, True)


def test_whoever_may_not_list_a_bucket_is_not_told_what_is_not_in_it(aws, irsa):
    s3 = aws.client("s3", irsa.assume()["Credentials"])
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket="irsa-lab", Key="none")
    irsa.permit({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"})
    with pytest.raises(ClientError, match="not authorized to perform: s3:ListBucket"):
        s3.get_object(Bucket="irsa-lab", Key="none")


def test_no_secret_is_in_the_trail(aws, irsa):
    token = aws.issuer.token()
    session = irsa.assume(WebIdentityToken=token)["Credentials"]
    s3 = aws.client("s3", session, signature_version="s3v4")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "irsa-lab", "Key": "hello.txt"})
    httpx.get(url, trust_env=False)
    text = aws.trail_file.read_text()
    assert aws.trail_file.stat().st_mode & 0o777 == 0o600
    signature = re.search("X-Amz-Signature=([0-9a-f]+)", url)[1]
    for secret in (token, token.split(".")[2], session["SecretAccessKey"], session["SessionToken"], signature):
        assert secret not in text
    assert ADMINISTRATOR.secret_access_key not in text
    assert hashlib.sha256(b"").hexdigest() not in text
