"""Requests that services must refuse, row by row: status, code and message. Each row has a good request, too."""

import html
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError

from labkit.simulator.aws.service import Service
from labkit.simulator.aws.services import SERVICES as EVERY
from labkit.simulator.aws.web_identity import GENERIC
from labkit.simulator.certificates import Authority
from tests.simulator.aws import bad_requests as bad
from tests.simulator.aws.conftest import (
    ACCOUNT,
    ADMINISTRATOR,
    AUDIENCE,
    ISSUER,
    SUBJECT,
    Issuer,
    key_pair,
    trust_policy,
)

NAME = ISSUER.removeprefix("https://")
ANYTHING = re.compile(".+")


@dataclass(frozen=True)
class Row:
    """One row of a table. ``ask`` makes the bad request, and ``good`` a similar good one. Both take an ``Irsa``."""

    number: int | str
    request: str
    ask: Callable[[Any], Any]
    status: int
    code: str
    message: str | re.Pattern = ANYTHING
    telling: str | re.Pattern = ""
    """How the trail's reason begins, or what is in it."""
    good: Callable[[Any], Any] = field(default=lambda irsa: irsa.assume())

    def __str__(self):
        return f"{self.number} {self.request}".strip()


def check(aws, irsa, row):
    row.good(irsa)
    with pytest.raises(ClientError) as caught:
        row.ask(irsa)
    answer = caught.value.response
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == (row.status, row.code)
    message = answer["Error"].get("Message") or ""
    assert row.message.fullmatch(message) if isinstance(row.message, re.Pattern) else message == row.message
    lab = aws.last()["lab"]
    assert lab["code"] == row.code
    reason = lab["reason"]
    assert row.telling.search(reason) if isinstance(row.telling, re.Pattern) else reason.startswith(row.telling)


# --- sts:AssumeRoleWithWebIdentity


def asks(**changes):
    """AssumeRoleWithWebIdentity with these parameters; None leaves one out."""
    return lambda irsa: irsa.assume(**changes)


def token(**claims):
    return lambda irsa: irsa.assume(WebIdentityToken=irsa.aws.issuer.token(**claims))


def made(make):
    return lambda irsa: irsa.assume(WebIdentityToken=make(irsa.aws.issuer))


def served(break_it):
    """Break the issuer before STS fetches its keys."""

    def ask(irsa):
        irsa.aws.gate.issuers.forget(ISSUER)
        break_it(irsa.aws.issuer)
        irsa.assume()

    return ask


def trusts(**changes):
    """Change the trust policy, then make the exchange."""

    def ask(irsa):
        irsa.trust(trust_policy(**changes))
        irsa.assume()

    return ask


def later(irsa):
    irsa.aws.clock.advance(hours=2)
    irsa.assume()


def of_an_issuer_elsewhere(irsa):
    url = "https://token.actions.githubusercontent.com"
    irsa.iam.create_open_id_connect_provider(Url=url, ClientIDList=[AUDIENCE], ThumbprintList=["b" * 40])
    irsa.assume(WebIdentityToken=irsa.aws.issuer.token(iss=url))


def chains(seconds):
    """Assume a second role with the first role's session."""

    def ask(irsa):
        trust = {"Effect": "Allow", "Principal": {"AWS": irsa.role_arn}, "Action": "sts:AssumeRole"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        role = {"RoleName": f"chained-{seconds}", "AssumeRolePolicyDocument": document, "MaxSessionDuration": 43200}
        arn = irsa.iam.create_role(**role)["Role"]["Arn"]
        sts = irsa.aws.client("sts", irsa.assume()["Credentials"])
        sts.assume_role(RoleArn=arn, RoleSessionName="second", DurationSeconds=seconds)

    return ask


@pytest.fixture(scope="module")
def private(running):
    """An issuer with a certificate that no public root has signed."""
    authority = Authority.create("an issuer's own root")
    certificate = authority.issue("localhost", dns=["localhost"])
    chain = type(certificate)(certificate.certificate_pem + authority.certificate_pem, certificate.key_pem)
    issuer = Issuer("https://localhost/private")
    issuer.url = f"https://localhost:{running.listen(issuer, certificate=chain)}/private"
    issuer.publish()
    running.private = issuer


def of_the_private_issuer(irsa):
    issuer = irsa.aws.private
    arn = irsa.iam.create_open_id_connect_provider(Url=issuer.url, ClientIDList=[AUDIENCE])["OpenIDConnectProviderArn"]
    irsa.trust(trust_policy(Principal={"Federated": arn}, Condition=None))
    irsa.assume(WebIdentityToken=issuer.token())


def with_another_thumbprint(irsa):
    issuer = irsa.aws.private
    arn = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{issuer.url.removeprefix('https://')}"
    irsa.iam.update_open_id_connect_provider_thumbprint(OpenIDConnectProviderArn=arn, ThumbprintList=["c" * 40])
    irsa.assume(WebIdentityToken=issuer.token())


ONE, TWO = "1 validation error detected: ", "2 validation errors detected: "
MISSING = "Value null at '{}' failed to satisfy constraint: Member must not be null"
MUST = "Value '{}' at '{}' failed to satisfy constraint: Member must {}"
AT_LEAST, AT_MOST = "have length greater than or equal to {}", "have length less than or equal to {}"
FROM, UNTIL = "have value greater than or equal to 900", "have value less than or equal to 43200"
PATTERN = r"satisfy regular expression pattern: [\w+=,.@-]*"
NOT_AUTHORIZED = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
NO_JWT = "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"
NO_KEY = (
    "Couldn't retrieve verification key from your identity provider,  "
    "please reference AssumeRoleWithWebIdentity documentation for requirements"
)
NO_THUMBPRINT = "OpenIDConnect provider's HTTPS certificate doesn't match configured thumbprint"
NO_PROVIDER = "No OpenIDConnect provider found in your account for "
CHAINED = "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."
EXPIRED = r"Token expired: current date/time \d+ must be before the expiration date/time "
S3_POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'

INVALID = (400, "ValidationError")
TOKEN = (400, "InvalidIdentityToken")
GENERICALLY = (*TOKEN, GENERIC)
DENIED = (403, "AccessDenied", NOT_AUTHORIZED)
PAST, LATER = int(time.time()) - 5, int(time.time()) + 86_400
OTHER_ISSUER = NAME[:-1] + "B"


# A wildcard counts only with StringLike.
LIKE = trusts(Condition={"StringLike": {f"{NAME}:sub": "system:serviceaccount:default:*"}})


def of(constraint, value, name):
    return ONE + MUST.format(value, name, constraint)


WEB_IDENTITY = [
    Row(1, "no token", asks(WebIdentityToken=None), *INVALID, ONE + MISSING.format("webIdentityToken")),
    Row(1, "no role", asks(RoleArn=None), *INVALID, ONE + MISSING.format("roleArn")),
    Row(1, "no session name", asks(RoleSessionName=None), *INVALID, ONE + MISSING.format("roleSessionName")),
    Row(2, "19 characters of RoleArn", asks(RoleArn="arn:aws:iam::123456"), *INVALID,
        of(AT_LEAST.format(20), "arn:aws:iam::123456", "roleArn")),
    Row(2, "2049 characters of RoleArn", asks(RoleArn="a" * 2049), *INVALID,
        of(AT_MOST.format(2048), "a" * 2049, "roleArn")),
    Row(2, "several faults", asks(RoleArn="short", RoleSessionName="a"), *INVALID,
        TWO + MUST.format("short", "roleArn", AT_LEAST.format(20)) + "; "
        + MUST.format("a", "roleSessionName", AT_LEAST.format(2))),
    Row(3, "a policy's ARN", asks(RoleArn=f"arn:aws:iam::{ACCOUNT}:policy/my-role"), *INVALID,
        "Request ARN is invalid"),
    Row(3, "no ARN", asks(RoleArn=f"an:aws:iam::{ACCOUNT}:role/my-role"), *INVALID, "Request ARN is invalid"),
    Row(4, "a blank in the name", asks(RoleSessionName="my pod"), *INVALID, of(PATTERN, "my pod", "roleSessionName")),
    Row(4, "a name of 1", asks(RoleSessionName="p"), *INVALID, of(AT_LEAST.format(2), "p", "roleSessionName")),
    Row(4, "a name of 65", asks(RoleSessionName="p" * 65), *INVALID,
        of(AT_MOST.format(64), "p" * 65, "roleSessionName"), good=asks(RoleSessionName="p" * 64)),
    Row(5, "899 seconds", asks(DurationSeconds=899), *INVALID, of(FROM, 899, "durationSeconds"),
        good=asks(DurationSeconds=900)),
    Row(5, "43201 seconds", asks(DurationSeconds=43201), *INVALID, of(UNTIL, 43201, "durationSeconds")),
    Row(6, "an access token", asks(WebIdentityToken="ya29.an-access-token"), *GENERICALLY, NO_JWT),
    Row(6, "two parts", made(lambda issuer: issuer.token().rpartition(".")[0]), *GENERICALLY, NO_JWT),
    Row(6, "no base64", asks(WebIdentityToken="!!!!.????.----"), *GENERICALLY, NO_JWT),
    *(Row(7, f"no {claim}", made(bad.without(claim)), *TOKEN, f"Missing a required claim: {claim}")
      for claim in ("iss", "sub", "aud", "exp", "iat")),
    Row(8, "alg none", made(bad.unsigned), *GENERICALLY, "The token is signed with none"),
    Row(8, "HS256 with the public key", made(bad.hmac_with_public_key), *GENERICALLY,
        "The token is signed with HS256, but must be signed with RS256, RS384, RS512, ES256, ES384 or ES512"),
    Row(9, "no provider of the issuer", token(iss=ISSUER + "X"), *GENERICALLY, NO_PROVIDER + ISSUER + "X"),
    Row(9, "none in the role's account", asks(RoleArn="arn:aws:iam::210987654321:role/my-role"), *GENERICALLY,
        NO_PROVIDER + ISSUER),
    Row(10, "another audience", token(aud=["kubernetes.default.svc"]), *GENERICALLY, "Incorrect token audience"),
    Row(10, "another azp", token(azp="somebody"), *GENERICALLY, "Incorrect token audience"),
    Row(11, "expired", made(lambda issuer: bad.expired_at(issuer, PAST)), 400, "ExpiredTokenException",
        re.compile(f"{EXPIRED}{PAST}")),
    Row(11, "expired by the lab's clock", later, 400, "ExpiredTokenException", re.compile(rf"{EXPIRED}\d+")),
    Row(12, "not valid yet", token(nbf=LATER), *GENERICALLY, "The token is not valid before"),
    Row(12, "issued in the future", token(iat=LATER, exp=LATER + 600), *GENERICALLY, "The token is not valid before"),
    *(Row(13, f"an issuer whose document {detail}", served(break_it), *GENERICALLY, NO_KEY + f": {where}")
      for break_it, detail, where in (
        (bad.withdrawn, "answers 404", f"{ISSUER}/.well-known/openid-configuration answers 404"),
        (bad.keys_withdrawn, "of keys answers 404", f"{ISSUER}/keys answers 404"),
        (bad.no_json, "is not JSON", f"{ISSUER}/.well-known/openid-configuration is not JSON"),
        (bad.too_long, "is too long", f"{ISSUER}/.well-known/openid-configuration answers more than"),
        (bad.a_redirect, "is a redirect", f"{ISSUER}/.well-known/openid-configuration answers 302"),
        (bad.keys_elsewhere, "names keys elsewhere", "https://127.0.0.1:1/keys is on another host than the registered"),
        (bad.keys_in_the_clear, "names keys in the clear", f"http://{NAME}/keys is not an https URL"),
        (lambda issuer: issuer.publish(issuer=ISSUER + "/"), "names another issuer",
         f"the discovery document names another issuer: '{ISSUER}/'"),
        (lambda issuer: issuer.publish(key_id="9"), "has no such key",
         f"none of the keys of {ISSUER} has the id '1'"))),
    Row(13, "an unknown key id", token(headers={"kid": "2"}), *GENERICALLY, NO_KEY),
    Row(13, "an issuer outside the lab", of_an_issuer_elsewhere, *GENERICALLY,
        NO_KEY + ": token.actions.githubusercontent.com is neither an issuer of this lab nor on this machine: the lab "
        "does not contact it"),
    Row(14, "another thumbprint", with_another_thumbprint, *GENERICALLY, NO_THUMBPRINT, good=of_the_private_issuer),
    Row(15, "another key", token(key=key_pair()), *GENERICALLY, "The token's signature is not the issuer's"),
    Row(15, "changed claims", made(bad.changed_claims), *GENERICALLY, "The token's signature is not the issuer's"),
    Row(16, "no such role", asks(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/none"), *DENIED,
        f"the role arn:aws:iam::{ACCOUNT}:role/none does not exist"),
    *(Row(16, f"a token of {subject}", token(sub=subject), *DENIED, re.compile(subject)) for subject in (
        "system:serviceaccount:default:other", "system:serviceaccount:other:my-service-account")),
    *(Row(16, what, trusts(**changes), *DENIED, re.compile(".{30}"), good=LIKE) for what, changes in (
        ("other sub", {"Condition": {"StringEquals": {f"{NAME}:sub": "system:serviceaccount:default:other"}}}),
        ("other aud", {"Condition": {"StringEquals": {f"{NAME}:aud": "sts.us-east-1.amazonaws.com"}}}),
        ("other provider", {"Principal": {"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/{OTHER_ISSUER}"}}),
        ("key of another issuer", {"Condition": {"StringEquals": {f"{OTHER_ISSUER}:sub": SUBJECT}}}),
        ("wildcard under StringEquals",
            {"Condition": {"StringEquals": {f"{NAME}:sub": "system:serviceaccount:default:*"}}}),
        ("action sts:AssumeRole", {"Action": "sts:AssumeRole"}),
        ("explicit Deny", {"Effect": "Deny"}),
        ("no federated principal", {"Principal": {"Service": "ec2.amazonaws.com"}, "Condition": None}))),
    Row(17, "3601 seconds, over the role's", asks(DurationSeconds=3601), *INVALID,
        "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        good=asks(DurationSeconds=3600)),
    Row(18, "a malformed session policy", asks(Policy='{"Statement": "none"}'), 400, "MalformedPolicyDocument",
        good=asks(Policy=S3_POLICY)),
    Row(19, "a ProviderId", asks(ProviderId="www.amazon.com"), *TOKEN,
        "Provided Token is not a Login With Amazon token"),
    Row(20, "role chaining for 3601 seconds", chains(3601), *INVALID, CHAINED, good=chains(3600)),
]  # fmt: skip


@pytest.mark.parametrize("row", WEB_IDENTITY, ids=str)
def test_sts_refuses_an_exchange(aws, irsa, private, row):
    check(aws, irsa, row)
    assert aws.last()["eventName"] == ("AssumeRole" if row.number == 20 else "AssumeRoleWithWebIdentity")
    assert aws.last()["lab"]["decision"] == "refused"
    if row.number == 13:
        aws.issuer.publish()
        irsa.assume()


def test_the_table_of_exchanges_has_rows_for_all_20_refusals():
    assert {row.number for row in WEB_IDENTITY} == set(range(1, 21))


# --- documents that IAM must refuse when they are written


def updates(text=None, **changes):
    document = text or json.dumps(trust_policy(**changes))
    return lambda irsa: irsa.iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=document)


def creates(text=None, **changes):
    document = text or json.dumps(trust_policy(**changes))
    return lambda irsa: irsa.iam.create_role(RoleName="new", AssumeRolePolicyDocument=document)


def permits(document):
    text = document if isinstance(document, str) else json.dumps({"Version": "2012-10-17", "Statement": [document]})
    return lambda irsa: irsa.iam.put_role_policy(RoleName="my-role", PolicyName="inline", PolicyDocument=text)


def registers(url, **changes):
    request = {"Url": url, "ClientIDList": [AUDIENCE], "ThumbprintList": ["a" * 40]} | changes
    request = {name: value for name, value in request.items() if value is not None}
    return lambda irsa: irsa.iam.create_open_id_connect_provider(**request)


def registers_the_private_one(irsa):
    arn = registers(irsa.aws.private.url, ThumbprintList=None)(irsa)["OpenIDConnectProviderArn"]
    stored = irsa.iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)["ThumbprintList"]
    assert [len(thumbprint) for thumbprint in stored] == [40]


READ = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
MALFORMED, LIMIT = (400, "MalformedPolicyDocument"), (409, "LimitExceeded")
NO_URL = (*INVALID, "Invalid Open ID Connect Provider URL")
FIRST, SECOND = "https://example.com/first", "https://example.com/second"
TRUSTS = [
    ("https:// left in a condition key", {"Condition": {"StringEquals": {f"{ISSUER}:sub": SUBJECT}}},
        *MALFORMED, "Condition can contain only one colon."),
    ("Federated that is a URL", {"Principal": {"Federated": ISSUER}},
        *MALFORMED, "Federated principals must be valid domain names or SAML metadata ARNs"),
    ("an action of S3", {"Action": "s3:GetObject"},
        *MALFORMED, "AssumeRole policy may only specify STS AssumeRole actions."),
    ("a Resource", {"Resource": "*"}, *MALFORMED, "Has prohibited field Resource"),
    ("no Principal", {"Principal": None}, *MALFORMED, "Missing required field Principal"),
    ("a principal that does not exist", {"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:role/none"}},
        *MALFORMED, f'Invalid principal in policy: "AWS":"arn:aws:iam::{ACCOUNT}:role/none"'),
    ("no JSON", {"text": "{"}, *MALFORMED, "This policy contains invalid Json"),
    ("an unknown operator", {"Condition": {"StringSame": {f"{NAME}:sub": SUBJECT}}}, *MALFORMED),
    ("more than 2048 characters", {"Condition": {"StringLike": {"a:sub": ["x" * 2048]}}},
        *LIMIT, "Cannot exceed quota for ACLSizePerRole: 2048"),
]  # fmt: skip
DOCUMENTS = [
    *(Row("update:", what, updates(**changes), *refusal, good=updates()) for what, changes, *refusal in TRUSTS),
    *(Row("create:", what, creates(**changes), *refusal, good=updates()) for what, changes, *refusal in TRUSTS),
    Row("", "permissions that are no JSON", permits("{"), *MALFORMED, "Syntax errors in policy.", good=permits(READ)),
    Row("", "permissions with an unknown operator", permits(READ | {"Condition": {"StringSame": {"a:b": "c"}}}),
        *MALFORMED, good=permits(READ | {"Condition": {"StringLike": {"a:b": "c"}}})),
    *(Row("a provider at", url, registers(url), *NO_URL, good=registers(f"{FIRST}:8443")) for url in (
        "http://example.com", "example.com", "https://", "https://example.com/a?b=c", "https://example.com/?",
        "https://example.com/#a", "https://[::1", "https://example.com:none", "https://example.com/a b")),
    Row("a provider at", "256 characters", registers("https://example.com/" + "x" * 236), *INVALID,
        re.compile(".*at 'url' failed to satisfy constraint: Member must have length less than or equal to 255"),
        good=registers("https://example.com/" + "x" * 235)),
    Row("a provider", "that exists", registers(ISSUER), 409, "EntityAlreadyExists",
        f"Provider with url {ISSUER} already exists.", good=registers(FIRST)),
    Row("a provider", "of an unknown host, without a thumbprint", registers(FIRST, ThumbprintList=None),
        400, "OpenIdIdpCommunicationError", good=registers_the_private_one),
    Row("a provider", "with 6 thumbprints", registers(FIRST, ThumbprintList=[f"{n:040}" for n in range(6)]),
        400, "InvalidInput", good=registers(SECOND, ThumbprintList=[f"{n:040}" for n in range(5)])),
    Row("a provider", "with a thumbprint of 39", registers(FIRST, ThumbprintList=["a" * 39]), *INVALID,
        good=registers(SECOND)),
    Row("a provider", "with 101 client ids", registers(FIRST, ClientIDList=[f"id-{n}" for n in range(101)]),
        *LIMIT, "Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: 100",
        good=registers(SECOND, ClientIDList=[f"id-{n}" for n in range(100)])),
    Row("", "a role that exists", creates(), 409, "EntityAlreadyExists",
        "Role with name new already exists.", good=creates()),
    Row("", "a role that does not", lambda irsa: irsa.iam.get_role(RoleName="none"), 404, "NoSuchEntity",
        "The role with name none cannot be found.", good=lambda irsa: irsa.iam.get_role(RoleName="my-role")),
]  # fmt: skip


@pytest.mark.parametrize("row", DOCUMENTS, ids=str)
def test_iam_refuses_an_invalid_request(aws, irsa, private, row):
    check(aws, irsa, row)


# --- any call with a role session's credentials

SERVICES = {"s3": ["s3"], "query": ["sts", "iam", "sqs", "sns"], "json": ["dynamodb", "kms", "ssm", "secretsmanager"]}
# The lab can't authorize a session's calls to these services, and says so. It answers the administrator's.
UNAUTHORIZED = [name for name in SERVICES["json"] if EVERY[name].permissions is Service.permissions]
DENIED = {"sns": "AuthorizationError"}  # in place of AccessDenied
PERMITTED = {
    "Effect": "Allow",
    "Action": [
        "s3:GetObject",
        "iam:ListRoles",
        "sqs:ListQueues",
        "sns:ListTopics",
        "dynamodb:ListTables",
        "secretsmanager:ListSecrets",
    ],
    "Resource": "*",
}
IS_INVALID = "The security token included in the request is invalid."
UNKNOWN = (
    (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    (403, "InvalidClientTokenId", IS_INVALID),
    (400, "UnrecognizedClientException", IS_INVALID),
)
SIGNATURE = (403, "SignatureDoesNotMatch"), (403, "SignatureDoesNotMatch"), (400, "InvalidSignatureException")
EARLIER = r"Signature expired: \d{8}T\d{6}Z is now earlier than \d{8}T\d{6}Z \(\d{8}T\d{6}Z - 15 min.\)"
IS_EXPIRED = "The security token included in the request is expired"
NOT_SIGNED = "'X-Amz-(Target|Meta-Colour)' must be a 'SignedHeader' in the AWS Authorization."
REGION_OF = "Credential should be scoped to a valid region."
MALFORMED_HEADER = (400, "AuthorizationHeaderMalformed", "The authorization header is malformed.*")
# What is wrong with the call, or happens before it. Then the errors of S3, the query and the JSON services.
CALLS = [
    ("unknown access key", bad.unknown_key, *UNKNOWN),
    ("wrong secret", bad.wrong_secret, *SIGNATURE),
    ("changed header", bad.changed_header, *SIGNATURE),
    ("changed body", bad.changed_body, *SIGNATURE),
    ("clock off by 16 minutes", bad.skewed, (403, "RequestTimeTooSkewed"), (403, "SignatureDoesNotMatch", EARLIER),
        (400, "InvalidSignatureException", EARLIER)),
    ("session token missing", bad.token_missing, *UNKNOWN),
    ("another session's token", bad.token_of_another_session, *UNKNOWN),
    ("a malformed session token", bad.malformed_token, (400, "InvalidToken"), *UNKNOWN[1:]),
    ("session expired", bad.time_passes, (400, "ExpiredToken", "The provided token has expired."),
        (403, "ExpiredToken", IS_EXPIRED), (400, "ExpiredTokenException", IS_EXPIRED)),
    ("role deleted", bad.role_deleted, *UNKNOWN),
    ("role made again", bad.role_made_again, *UNKNOWN),
    ("no credentials at all", bad.no_credentials, (403, "AccessDenied"), (403, "MissingAuthenticationToken"),
        (400, "MissingAuthenticationTokenException")),
    ("not allowed", bad.not_allowed, (403, "AccessDenied", "User: .* is not authorized to perform.*"),
        (403, "AccessDenied", "User: .* is not authorized to perform.*"),
        (400, "AccessDeniedException", "User: .* is not authorized to perform.*")),
    ("an unsigned x-amz-* header", bad.unsigned_header, (403, "AccessDenied", "There were headers .* not signed"),
        (403, "SignatureDoesNotMatch", NOT_SIGNED), (400, "InvalidSignatureException", NOT_SIGNED)),
    ("wrong region in the scope", bad.wrong_region, MALFORMED_HEADER, (403, "SignatureDoesNotMatch", REGION_OF),
        (400, "InvalidSignatureException", REGION_OF)),
    ("wrong end of the scope", bad.wrong_terminator, MALFORMED_HEADER, *SIGNATURE[1:]),
]  # fmt: skip


def code_and_message(service, answer):
    """Code and message of a refusal, in the service's own format."""
    if service in ("s3", "sts", "iam", "sns"):
        matches = [re.search(f"<{name}>(.*)</{name}>", answer.text, re.DOTALL) for name in ("Code", "Message")]
        return tuple(html.unescape(one[1]) for one in matches)
    return answer.json()["__type"], answer.json()["message"]


@pytest.mark.parametrize(("what", "spoil", "s3", "query", "json_services"), CALLS, ids=[row[0] for row in CALLS])
def test_services_refuse_a_spoilt_call_of_a_role_session(aws, irsa, monkeypatch, what, spoil, s3, query, json_services):
    irsa.permit(PERMITTED)
    session, other = irsa.assume()["Credentials"], irsa.assume()["Credentials"]
    every = [name for names in SERVICES.values() for name in names]
    for service in every:
        good = bad.Call(aws, service, session).send(monkeypatch)
        if service in UNAUTHORIZED:
            assert "the lab cannot yet authorize" in good.text
        else:
            assert good.status_code == 200, f"{service}: PERMITTED or the call in bad_requests.py lacks it: {good.text}"
    happens = spoil in (bad.time_passes, bad.role_deleted, bad.role_made_again)
    if happens:
        spoil(aws)
    for kind, (status, code, *message) in zip(SERVICES, (s3, query, json_services), strict=True):
        for service in SERVICES[kind]:
            call = bad.Call(aws, service, session)
            if not happens:
                spoil(call, other)
            answer = call.send(monkeypatch)
            actual, shown = code_and_message(service, answer)
            expected = DENIED.get(service, code) if code == "AccessDenied" else code
            assert (service, answer.status_code, actual) == (service, status, expected)
            assert re.fullmatch(message[0] if message else ".+", shown), shown
            assert aws.last()["lab"]["code"] == expected


@pytest.mark.parametrize("service", UNAUTHORIZED)
def test_the_administrator_may_call_services_that_no_session_may_call(aws, service):
    keys = {"AccessKeyId": ADMINISTRATOR.access_key_id, "SecretAccessKey": ADMINISTRATOR.secret_access_key}
    assert bad.Call(aws, service, keys | {"SessionToken": None}).send(pytest.MonkeyPatch()).status_code == 200
