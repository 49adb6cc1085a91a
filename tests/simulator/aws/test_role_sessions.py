"""Role sessions: permissions, presigned URLs and the trail. ``test_refusals.py`` has the table of refused calls."""

import hashlib
import html
import json
import re

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.simulator.aws import bad_requests as bad
from tests.simulator.aws.conftest import ACCOUNT, ADMINISTRATOR, refused, trust_policy


def test_s3_refuses_a_skewed_call_unless_the_lab_s_clock_agrees_with_it(aws, irsa, monkeypatch):
    call = bad.Call(aws, "s3", irsa.assume()["Credentials"])
    bad.skewed(call, None)
    assert "<MaxAllowedSkewMilliseconds>900000<" in call.send(monkeypatch).text
    aws.clock.advance(minutes=-16)
    assert call.send(monkeypatch).status_code == 200


def test_iam_refuses_a_call_that_is_signed_for_sts(aws, irsa, monkeypatch):
    call = bad.Call(aws, "iam", irsa.assume()["Credentials"])
    call.service = "sts"
    answer = call.send(monkeypatch)
    assert (answer.status_code, "<Code>SignatureDoesNotMatch</Code>" in answer.text) == (403, True)
    assert "Credential should be scoped to correct service: 'iam'." in html.unescape(answer.text)


def test_a_bucket_policy_is_enough_for_a_role_of_the_same_account(aws, irsa):
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


def test_a_presigned_url_has_the_permissions_of_the_session_that_signed_it(aws, irsa):
    s3 = aws.client("s3", irsa.assume()["Credentials"], signature_version="s3v4")
    read = s3.generate_presigned_url("get_object", Params={"Bucket": "irsa-lab", "Key": "hello.txt"}, ExpiresIn=600)
    write = s3.generate_presigned_url("put_object", Params={"Bucket": "irsa-lab", "Key": "hello.txt"})
    with httpx.Client(trust_env=False, timeout=60) as client:
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


def test_a_role_session_counts_as_signed_in_without_mfa(aws, irsa):
    s3 = aws.client("s3", irsa.assume()["Credentials"])
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    denied = statement | {"Effect": "Deny", "Condition": {"Bool": {"aws:MultiFactorAuthPresent": "false"}}}
    irsa.permit(statement, denied)
    with pytest.raises(ClientError, match="with an explicit deny in an identity-based policy"):
        s3.get_object(Bucket="irsa-lab", Key="hello.txt")
    # A call with a long-term key doesn't have the condition key, so the Deny doesn't match.
    aws.client("iam").create_user(UserName="me")
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement, denied]})
    aws.client("iam").put_user_policy(UserName="me", PolicyName="x", PolicyDocument=document)
    key = aws.client("iam").create_access_key(UserName="me")["AccessKey"]
    user = aws.new_client("s3", key["AccessKeyId"], key["SecretAccessKey"])
    assert user.get_object(Bucket="irsa-lab", Key="hello.txt")["ContentLength"] == 5


def test_s3_refuses_signature_version_2(aws, irsa):
    s3 = aws.client("s3", irsa.assume()["Credentials"], signature_version="s3")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "irsa-lab", "Key": "hello.txt"})
    message = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
    for headers, address in (({}, url), ({"Authorization": "AWS a:b"}, f"{aws.endpoint}/irsa-lab/hello.txt")):
        answer = httpx.get(address, headers=headers, trust_env=False, timeout=60)
        assert answer.status_code == 400
        assert f"<Code>InvalidRequest</Code><Message>{message}</Message>" in answer.text


def test_s3_refuses_a_presigned_post_and_the_trail_says_why(aws, irsa):
    form = aws.client("s3", irsa.assume()["Credentials"]).generate_presigned_post("irsa-lab", "up.txt")
    answer = httpx.post(form["url"], data=form["fields"], files={"file": b"x"}, trust_env=False, timeout=60)
    assert (answer.status_code, "<Code>AccessDenied</Code>" in answer.text) == (403, True)
    assert aws.last()["lab"]["reason"] == "the lab cannot verify an upload by a form (presigned POST)"


def test_without_list_bucket_a_missing_key_is_access_denied(aws, irsa):
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
    httpx.get(url, trust_env=False, timeout=60)
    text = aws.trail_file.read_text()
    assert aws.trail_file.stat().st_mode & 0o777 == 0o600
    signature = re.search("X-Amz-Signature=([0-9a-f]+)", url)[1]
    for secret in (token, token.split(".")[2], session["SecretAccessKey"], session["SessionToken"], signature):
        assert secret not in text
    assert ADMINISTRATOR.secret_access_key not in text
    assert hashlib.sha256(b"").hexdigest() not in text


def test_the_first_of_several_faults_is_reported(aws, irsa, monkeypatch):
    """In AWS's order: scope, key and token, expiry, the role, the signature, authorization."""
    credentials, other = irsa.assume()["Credentials"], irsa.assume()["Credentials"]

    def code(*faults):
        call = bad.Call(aws, "s3", credentials)
        for fault in faults:
            fault(call, other)
        return re.search("<Code>(.*)</Code>", call.send(monkeypatch).text)[1]

    bad.time_passes(aws)
    assert code(bad.wrong_region, bad.unknown_key, bad.wrong_secret) == "AuthorizationHeaderMalformed"
    assert code(bad.token_of_another_session, bad.wrong_secret) == "InvalidAccessKeyId"
    assert code(bad.wrong_secret) == "ExpiredToken"
    bad.role_deleted(aws)
    assert code(bad.wrong_secret) == "ExpiredToken"
    aws.clock.reset()
    assert code(bad.wrong_secret) == "InvalidAccessKeyId"


def test_a_wrong_signature_is_reported_before_a_missing_permission(aws, irsa, monkeypatch):
    call = bad.Call(aws, "s3", irsa.assume()["Credentials"])
    bad.not_allowed(call, None)
    bad.wrong_secret(call, None)
    assert "<Code>SignatureDoesNotMatch</Code>" in call.send(monkeypatch).text


def test_role_chaining_gives_a_session_of_the_second_role(aws, irsa):
    trust = {"Effect": "Allow", "Principal": {"AWS": irsa.role_arn}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    arn = irsa.iam.create_role(RoleName="chained", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    sts = aws.client("sts", irsa.assume()["Credentials"])
    second = aws.client("sts", sts.assume_role(RoleArn=arn, RoleSessionName="second")["Credentials"])
    assert second.get_caller_identity()["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/chained/second"
    message = f"User: arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod is not authorized to perform: sts:AssumeRole "
    itself = {"RoleArn": irsa.role_arn, "RoleSessionName": "itself"}
    refused(lambda: sts.assume_role(**itself), 403, "AccessDenied", f"{message}on resource: {irsa.role_arn}")


def test_sts_takes_at_most_ten_policy_arns(aws, irsa):
    arns = [{"arn": irsa.policy_arn}] * 11
    sts = aws.client("sts")
    parameters = {"RoleArn": irsa.role_arn, "RoleSessionName": "me", "WebIdentityToken": aws.issuer.token()}
    assert sts.assume_role_with_web_identity(**parameters, PolicyArns=arns[:10])
    with pytest.raises(ClientError, match="length less than or equal to 10") as refused:
        sts.assume_role_with_web_identity(**parameters, PolicyArns=arns)
    assert refused.value.response["Error"]["Code"] == "ValidationError"


def test_a_managed_session_policy_may_be_longer_than_an_inline_one(aws, irsa):
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""
    irsa.permit({"Effect": "Allow", "Action": "s3:*", "Resource": "*"})
    arn = "arn:aws:iam::aws:policy/ReadOnlyAccess"
    answer = irsa.assume(PolicyArns=[{"arn": arn}])
    assert answer["PackedPolicySize"] < 10
    s3 = aws.client("s3", answer["Credentials"])
    assert s3.get_object(Bucket=irsa.bucket, Key="hello.txt")["Body"].read() == b"hello"
    with pytest.raises(ClientError, match="no session policy allows the s3:DeleteObject action"):
        s3.delete_object(Bucket=irsa.bucket, Key="hello.txt")
