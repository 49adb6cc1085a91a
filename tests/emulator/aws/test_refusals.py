"""What sts:AssumeRoleWithWebIdentity must refuse: each bad request beside the good one."""

import base64
import hmac
import json
import re
import time

import jwt
import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import serialization

from labkit.emulator.aws.web_identity import GENERIC
from tests.emulator.aws.conftest import ACCOUNT, AUDIENCE, ISSUER, SUBJECT, key_pair, refused, trust_policy

NAME = ISSUER.removeprefix("https://")
NOT_AUTHORIZED = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
TEXT = "1 validation error detected: Value '{}' at '{}' failed to satisfy constraint: Member must {}"


# --- sts:AssumeRoleWithWebIdentity, rows 1 to 5: what the request is made of

PARAMETERS = [
    (1, {"WebIdentityToken": None}, "1 validation error detected: Value null at 'webIdentityToken' failed to satisfy "
        "constraint: Member must not be null"),
    (2, {"RoleArn": "arn:aws:iam::1"}, TEXT.format("arn:aws:iam::1", "roleArn",
        "have length greater than or equal to 20")),
    (2, {"RoleArn": "short", "RoleSessionName": "a"},
        "2 validation errors detected: Value 'short' at 'roleArn' failed to satisfy constraint: Member must have "
        "length greater than or equal to 20; Value 'a' at 'roleSessionName' failed to satisfy constraint: Member "
        "must have length greater than or equal to 2"),
    (3, {"RoleArn": f"arn:aws:iam::{ACCOUNT}:policy/my-role"}, "Request ARN is invalid"),
    (3, {"RoleArn": f"an:aws:iam::{ACCOUNT}:role/my-role"}, "Request ARN is invalid"),
    (4, {"RoleSessionName": "my pod"}, TEXT.format("my pod", "roleSessionName",
        r"satisfy regular expression pattern: [\w+=,.@-]*")),
    (4, {"RoleSessionName": "p" * 65}, TEXT.format("p" * 65, "roleSessionName",
        "have length less than or equal to 64")),
    (5, {"DurationSeconds": 899}, TEXT.format(899, "durationSeconds", "have value greater than or equal to 900")),
    (5, {"DurationSeconds": 43201}, TEXT.format(43201, "durationSeconds", "have value less than or equal to 43200")),
    (17, {"DurationSeconds": 3601}, "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."),
]  # fmt: skip


@pytest.mark.parametrize(("row", "changes", "message"), PARAMETERS)
def test_parameters(irsa, row, changes, message):
    irsa.assume()
    refused(lambda: irsa.assume(**changes), 400, "ValidationError", message)


def test_row_18_a_session_policy_that_is_no_policy(irsa):
    good = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})
    assert irsa.assume(Policy=good)["PackedPolicySize"] > 0
    assert "PackedPolicySize" not in irsa.assume()
    with pytest.raises(ClientError) as caught:
        irsa.assume(Policy='{"Statement": "none"}')
    assert caught.value.response["Error"]["Code"] == "MalformedPolicyDocument"


def test_row_19_a_provider_id_with_an_oidc_token(irsa):
    message = "Provided Token is not a Login With Amazon token"
    refused(lambda: irsa.assume(ProviderId="www.amazon.com"), 400, "InvalidIdentityToken", message)


# --- rows 6 to 15: what the token says

NO_JWT = "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"
NO_KEY = (
    "Couldn't retrieve verification key from your identity provider,  "
    "please reference AssumeRoleWithWebIdentity documentation for requirements"
)


now = int(time.time())


def unsigned(issuer):
    claims = {"iss": ISSUER, "sub": SUBJECT, "aud": AUDIENCE, "iat": now, "exp": now + 600}
    return jwt.encode(claims, None, algorithm="none")


def hmac_with_public_key(issuer):
    """The oldest trick: HS256, with the public key, which everybody has, as the secret."""
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


TOKENS = [
    (6, "no JWT", lambda issuer: "ya29.an-access-token", NO_JWT),
    (6, "two parts", lambda issuer: issuer.token().rpartition(".")[0], NO_JWT),
    (6, "not base64", lambda issuer: "!!!!.????.----", NO_JWT),
    (8, "alg none", unsigned, "The token is signed with none"),
    (8, "HS256 with the public key", hmac_with_public_key, "The token is signed with HS256"),
    (9, "another issuer", lambda issuer: issuer.token(iss=ISSUER + "X"),
        f"No OpenIDConnect provider found in your account for {ISSUER}X"),
    (10, "another audience", lambda issuer: issuer.token(aud=["kubernetes.default.svc"]), "Incorrect token audience"),
    (10, "azp counts before aud", lambda issuer: issuer.token(azp="somebody"), "Incorrect token audience"),
    (12, "not valid yet", lambda issuer: issuer.token(nbf=now + 600), "The token is not valid before"),
    (12, "issued in the future", lambda issuer: issuer.token(iat=now + 600), "The token is not valid before"),
    (13, "unknown key id", lambda issuer: issuer.token(headers={"kid": "2"}), NO_KEY),
    (15, "another key", lambda issuer: issuer.token(key=key_pair()), "The token's signature is not the issuer's"),
    (15, "changed claims", changed_claims, "The token's signature is not the issuer's"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "fault", "make", "telling"), TOKENS, ids=[f"row {row}: {fault}" for row, fault, *_ in TOKENS]
)
def test_token_is_refused_in_one_sentence_and_the_trail_tells_why(aws, irsa, row, fault, make, telling):
    irsa.assume()
    token = make(aws.issuer)
    refused(lambda: irsa.assume(WebIdentityToken=token), 400, "InvalidIdentityToken", GENERIC)
    record = aws.last()
    assert record["eventName"] == "AssumeRoleWithWebIdentity"
    assert record["errorCode"] == "InvalidIdentityToken"
    assert record["lab"]["decision"] == "refused"
    assert record["lab"]["reason"].startswith(telling)


@pytest.mark.parametrize("claim", ["iss", "sub", "aud", "exp", "iat"])
def test_row_7_a_missing_claim(aws, irsa, claim):
    if claim == "iss":
        content = {"sub": SUBJECT, "aud": [AUDIENCE], "iat": now, "exp": now + 600}
        token = jwt.encode(content, aws.issuer.key, algorithm="RS256", headers={"kid": "1"})
    else:
        token = aws.issuer.token(**{claim: None})
    message = f"Missing a required claim: {claim}"
    refused(lambda: irsa.assume(WebIdentityToken=token), 400, "InvalidIdentityToken", message)


def test_row_9_the_provider_is_looked_for_in_the_role_s_account(aws, irsa):
    elsewhere = "arn:aws:iam::210987654321:role/my-role"
    refused(lambda: irsa.assume(RoleArn=elsewhere), 400, "InvalidIdentityToken", GENERIC)
    assert aws.last()["lab"]["reason"] == f"No OpenIDConnect provider found in your account for {ISSUER}"


def test_row_11_an_expired_token(aws, irsa):
    irsa.assume()
    expires = int(time.time()) - 1
    token = aws.issuer.token(iat=expires - 600, nbf=expires - 600, exp=expires)
    with pytest.raises(ClientError) as caught:
        irsa.assume(WebIdentityToken=token)
    error = caught.value.response["Error"]
    assert error["Code"] == "ExpiredTokenException"
    told = r"Token expired: current date/time (\d+) must be before the expiration date/time (\d+)"
    assert int(re.fullmatch(told, error["Message"])[2]) == expires


def test_row_11_follows_the_lab_s_clock(aws, irsa):
    token = aws.issuer.token()
    irsa.assume(WebIdentityToken=token)
    aws.clock.advance(hours=2)
    with pytest.raises(ClientError, match="ExpiredTokenException"):
        irsa.assume(WebIdentityToken=token)


def withdrawn(issuer):
    issuer.documents.clear()


def keys_withdrawn(issuer):
    del issuer.documents[f"/id/{NAME.rpartition('/')[2]}/keys"]


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


ISSUERS = [
    (withdrawn, "answers 404"),
    (keys_withdrawn, "answers 404"),
    (no_json, "is not JSON"),
    (too_long, "answers more than"),
    (a_redirect, "answers 302"),
    (keys_elsewhere, "is on another host than the registered provider"),
    (keys_in_the_clear, "is not an https URL"),
    (lambda issuer: issuer.publish(issuer=ISSUER + "/"), "names another issuer"),
    (lambda issuer: issuer.publish(key_id="9"), "hold none with the id '1'"),
]


@pytest.mark.parametrize(("break_it", "detail"), ISSUERS, ids=[detail for _, detail in ISSUERS])
def test_row_13_the_issuer_s_keys_cannot_be_had(aws, irsa, break_it, detail):
    break_it(aws.issuer)
    refused(irsa.assume, 400, "InvalidIdentityToken", GENERIC)
    reason = aws.last()["lab"]["reason"]
    assert reason.startswith(NO_KEY)
    assert detail in reason
    aws.issuer.publish()
    irsa.assume()


def test_row_13_no_host_outside_the_lab_is_contacted(aws, irsa):
    url = "https://token.actions.githubusercontent.com"
    irsa.iam.create_open_id_connect_provider(Url=url, ClientIDList=[AUDIENCE], ThumbprintList=["b" * 40])
    token = aws.issuer.token(iss=url)
    refused(lambda: irsa.assume(WebIdentityToken=token), 400, "InvalidIdentityToken", GENERIC)
    assert "the lab does not contact it" in aws.last()["lab"]["reason"]


# --- row 16: what the trust policy says

ISSUER_B = NAME[:-1] + "B"
TRUST = [
    ("other sub", {"Condition": {"StringEquals": {f"{NAME}:sub": "system:serviceaccount:default:other"}}}),
    ("other aud", {"Condition": {"StringEquals": {f"{NAME}:aud": "sts.us-east-1.amazonaws.com"}}}),
    ("other provider", {"Principal": {"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/{ISSUER_B}"}}),
    ("key of another issuer", {"Condition": {"StringEquals": {f"{ISSUER_B}:sub": SUBJECT}}}),
    ("wildcard under StringEquals", 
        {"Condition": {"StringEquals": {f"{NAME}:sub": "system:serviceaccount:default:*"}}}),
    ("action sts:AssumeRole", {"Action": "sts:AssumeRole"}),
    ("explicit Deny", {"Effect": "Deny"}),
    ("no federated principal", {"Principal": {"Service": "ec2.amazonaws.com"}, "Condition": None}),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "changes"), TRUST, ids=[fault for fault, _ in TRUST])
def test_row_16_the_trust_policy_does_not_admit_the_token(aws, irsa, fault, changes):
    irsa.assume()
    irsa.trust(trust_policy(**changes))
    refused(irsa.assume, 403, "AccessDenied", NOT_AUTHORIZED)
    assert len(aws.last()["lab"]["reason"]) > 30
    irsa.trust(trust_policy(Condition={"StringLike": {f"{NAME}:sub": "system:serviceaccount:default:*"}}))
    irsa.assume()


@pytest.mark.parametrize(
    "subject", ["system:serviceaccount:default:other", "system:serviceaccount:other:my-service-account"]
)
def test_row_16_another_service_account_s_token(aws, irsa, subject):
    refused(lambda: irsa.assume(WebIdentityToken=aws.issuer.token(sub=subject)), 403, "AccessDenied", NOT_AUTHORIZED)
    assert subject in aws.last()["lab"]["reason"]


def test_row_16_sts_does_not_say_that_there_is_no_role(aws, irsa):
    missing = f"arn:aws:iam::{ACCOUNT}:role/no-such-role"
    refused(lambda: irsa.assume(RoleArn=missing), 403, "AccessDenied", NOT_AUTHORIZED)
    assert aws.last()["lab"]["reason"] == f"the role {missing} does not exist"


def test_row_20_role_chaining_ends_after_an_hour(aws, irsa):
    chained = f"arn:aws:iam::{ACCOUNT}:role/chained"
    document = {"Effect": "Allow", "Principal": {"AWS": irsa.role_arn}, "Action": "sts:AssumeRole"}
    irsa.iam.create_role(
        RoleName="chained",
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [document]}),
        MaxSessionDuration=43200,
    )
    sts = aws.client("sts", irsa.assume()["Credentials"])
    answer = sts.assume_role(RoleArn=chained, RoleSessionName="second", DurationSeconds=3600)
    assert aws.client("sts", answer["Credentials"]).get_caller_identity()["Arn"].endswith("assumed-role/chained/second")
    message = "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."
    refused(
        lambda: sts.assume_role(RoleArn=chained, RoleSessionName="second", DurationSeconds=3601),
        400,
        "ValidationError",
        message,
    )
    told = f"User: arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod is not authorized to perform: "
    told += "sts:AssumeRole on resource: "
    refused(
        lambda: sts.assume_role(RoleArn=irsa.role_arn, RoleSessionName="itself"),
        403,
        "AccessDenied",
        told + irsa.role_arn,
    )
