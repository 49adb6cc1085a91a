"""Requests with one fault each: tokens that are forged, issuers that are broken, calls that are spoilt."""

import base64
import datetime
import hmac
import json
import time
from typing import ClassVar

import botocore.auth
import httpx
import jwt
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import serialization

from tests.simulator.aws.conftest import AUDIENCE, ISSUER, REGION, SUBJECT, key_pair, trust_policy

# --- tokens: each is given the issuer


def without(claim):
    """A correctly signed token without this claim."""

    def make(issuer):
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE], "iat": now, "exp": now + 600}
        del claims[claim]
        return jwt.encode(claims, issuer.key, algorithm="RS256", headers={"kid": issuer.key_id})

    return make


def expired_at(issuer, second):
    return issuer.token(iat=second - 600, nbf=second - 600, exp=second)


def unsigned(issuer):
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": SUBJECT, "aud": AUDIENCE, "iat": now, "exp": now + 600}
    return jwt.encode(claims, None, algorithm="none")


def hmac_with_public_key(issuer):
    """A well-known attack: HS256 with the public key, which everybody has, as the secret."""
    public = issuer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head, claims, _ = issuer.token().split(".")
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT","kid":"1"}').rstrip(b"=").decode()
    mac = hmac.digest(public, f"{head}.{claims}".encode(), "sha256")
    return f"{head}.{claims}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def changed_claims(issuer):
    """A good token's signature under other claims."""
    head, _, signature = issuer.token().split(".")
    claims = issuer.token(sub="system:serviceaccount:kube-system:admin", key=key_pair()).split(".")[1]
    return f"{head}.{claims}.{signature}"


# --- issuers: what they serve in place of discovery and keys


def withdrawn(issuer):
    issuer.documents.clear()


def keys_withdrawn(issuer):
    del issuer.documents[f"/{ISSUER.split('/', 3)[3]}/keys"]


def no_json(issuer):
    issuer.documents = dict.fromkeys(issuer.documents, b"<html>")


def too_long(issuer):
    issuer.documents = dict.fromkeys(issuer.documents, b" " * 600_000)


def a_redirect(issuer):
    async def redirect(send):
        headers = [(b"location", b"https://oidc.eks.us-east-1.amazonaws.com/elsewhere")]
        await send({"type": "http.response.start", "status": 302, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    issuer.documents = dict.fromkeys(issuer.documents, redirect)


def keys_elsewhere(issuer):
    next(iter(issuer.documents.values()))["jwks_uri"] = "https://127.0.0.1:1/keys"


def keys_in_the_clear(issuer):
    document = next(iter(issuer.documents.values()))
    document["jwks_uri"] = document["jwks_uri"].replace("https:", "http:")


# --- calls of a role session


class Call:
    """A request that a test can spoil before it is signed, or after."""

    FORM: ClassVar = {"Content-Type": "application/x-www-form-urlencoded"}
    REQUESTS: ClassVar = {
        "s3": ("GET", "/irsa-lab/hello.txt", b"", {}),
        "sts": ("POST", "/", b"Action=GetCallerIdentity&Version=2011-06-15", FORM),
        "iam": ("POST", "/", b"Action=ListRoles&Version=2010-05-08", FORM),
        "sqs": ("POST", "/", b"{}", {"X-Amz-Target": "AmazonSQS.ListQueues"}),
        "sns": ("POST", "/", b"Action=ListTopics&Version=2010-03-31", FORM),
        "dynamodb": ("POST", "/", b"{}", {"X-Amz-Target": "DynamoDB_20120810.ListTables"}),
        "kms": ("POST", "/", b"{}", {"X-Amz-Target": "TrentService.ListKeys"}),
        "ssm": ("POST", "/", b"{}", {"X-Amz-Target": "AmazonSSM.DescribeParameters"}),
        "secretsmanager": ("POST", "/", b"{}", {"X-Amz-Target": "secretsmanager.ListSecrets"}),
    }

    def __init__(self, aws, service, session):
        self.aws, self.service, self.region = aws, service, REGION
        self.key, self.secret, self.token = (session[n] for n in ("AccessKeyId", "SecretAccessKey", "SessionToken"))
        self.method, self.path, self.body, headers = self.REQUESTS[service]
        self.headers = dict(headers)
        if "X-Amz-Target" in headers:
            version = "1.0" if service in ("sqs", "dynamodb") else "1.1"
            self.headers["Content-Type"] = f"application/x-amz-json-{version}"
        self.signed = True
        self.skew = datetime.timedelta()
        self.after = lambda headers: None

    def send(self, monkeypatch):
        request = AWSRequest(self.method, self.aws.endpoint + self.path, data=self.body, headers=dict(self.headers))
        if self.signed:
            moment = datetime.datetime.now(datetime.UTC) + self.skew
            with monkeypatch.context() as patched:
                patched.setattr(botocore.auth, "get_current_datetime", lambda *_: moment)
                signer = botocore.auth.S3SigV4Auth if self.service == "s3" else botocore.auth.SigV4Auth
                signer(Credentials(self.key, self.secret, self.token), self.service, self.region).add_auth(request)
        headers = {name: str(value) for name, value in request.headers.items()}
        self.after(headers)
        with httpx.Client(trust_env=False, timeout=60) as client:
            return client.request(self.method, self.aws.endpoint + self.path, content=self.body, headers=headers)


def unknown_key(call, other):
    call.key = "ASIAIOSFODNN7EXAMPLE"


def wrong_secret(call, other):
    call.secret = "not" + call.secret


def changed_header(call, other):
    call.headers["X-Amz-Meta-Colour"] = "red"
    call.after = lambda headers: headers.update({"X-Amz-Meta-Colour": "blue"})


def changed_body(call, other):
    if call.service == "s3":
        call.method, call.path, call.body = "PUT", "/irsa-lab/new.txt", b"one"
    call.after = lambda headers: setattr(call, "body", call.body + b" ")


def skewed(call, other):
    call.skew = datetime.timedelta(minutes=-16)


def token_missing(call, other):
    call.token = None


def token_of_another_session(call, other):
    call.token = other["SessionToken"]


def malformed_token(call, other):
    call.token = "bm90IGEgdG9rZW4="


def no_credentials(call, other):
    call.signed = False


def not_allowed(call, other):
    if call.service == "s3":
        call.method, call.body = "PUT", b"new"
    elif call.service == "sts":
        call.body = b"Action=GetAccessKeyInfo&AccessKeyId=AKIAIOSFODNN7EXAMPLE&Version=2011-06-15"
    elif call.service == "iam":
        call.body = b"Action=ListUsers&Version=2010-05-08"
    elif call.service == "sqs":
        call.body, call.headers["X-Amz-Target"] = b'{"QueueName": "new"}', "AmazonSQS.CreateQueue"
    elif call.service == "secretsmanager":
        call.headers["X-Amz-Target"] = "secretsmanager.GetRandomPassword"
    elif call.service == "dynamodb":
        call.headers["X-Amz-Target"] = "DynamoDB_20120810.DescribeLimits"
    elif call.service == "sns":
        call.body = b"Action=CreateTopic&Name=new&Version=2010-03-31"
    # The lab can't yet authorize any call to KMS or SSM, so it refuses the unchanged call.


def unsigned_header(call, other):
    name = "X-Amz-Target" if "X-Amz-Target" in call.headers else "X-Amz-Meta-Colour"
    value = call.headers.pop(name, "red")
    call.after = lambda headers: headers.update({name: value})


def wrong_region(call, other):
    call.region = "mars-west-1"


def wrong_terminator(call, other):
    call.after = lambda headers: headers.update(
        {"Authorization": headers["Authorization"].replace("/aws4_request", "/aws5_request")}
    )


# --- what happens to a session while it lives


def time_passes(aws):
    aws.clock.advance(hours=2)


def role_deleted(aws):
    iam = aws.client("iam")
    for name in iam.list_role_policies(RoleName="my-role")["PolicyNames"]:
        iam.delete_role_policy(RoleName="my-role", PolicyName=name)
    for policy in iam.list_attached_role_policies(RoleName="my-role")["AttachedPolicies"]:
        iam.detach_role_policy(RoleName="my-role", PolicyArn=policy["PolicyArn"])
    iam.delete_role(RoleName="my-role")


def role_made_again(aws):
    role_deleted(aws)
    aws.client("iam").create_role(RoleName="my-role", AssumeRolePolicyDocument=json.dumps(trust_policy()))
