"""Whatever comes as a web identity token, STS accepts only the issuer's own and refuses every other clearly."""

import base64
import json
import re
import string
import time

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.simulator.aws.conftest import ACCOUNT, AUDIENCE, ISSUER, SUBJECT, Irsa, key_pair

REFUSALS = {
    (400, "ValidationError"),
    (400, "InvalidIdentityToken"),
    (400, "ExpiredTokenException"),
    (403, "AccessDenied"),
}
STRANGER = key_pair()
CURVE = ec.generate_private_key(ec.SECP256R1())
some = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Sts:
    """AssumeRoleWithWebIdentity over plain HTTP, so that no client corrects the token on its way."""

    def __init__(self, aws, client):
        self.aws, self.client = aws, client

    def __call__(self, token, role_arn=Irsa.role_arn):
        """Return the status, and the code of a refusal or None."""
        form = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": role_arn,
                "RoleSessionName": "my-pod", "WebIdentityToken": token}  # fmt: skip
        answer = self.client.post("/", data=form)
        code = re.search("<Code>(.*)</Code>", answer.text)
        return answer.status_code, code[1] if code else None


@pytest.fixture(scope="module")
def sts(running):
    running.begin_anew()
    Irsa(running)
    with httpx.Client(base_url=running.endpoint, trust_env=False, timeout=60) as client:
        yield Sts(running, client)


@pytest.fixture(scope="module")
def elsewhere(running):
    """A server that a token may name. ``paths`` holds the paths that the lab asked for there."""
    paths = []

    async def app(scope, receive, send):
        paths.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps({"keys": [stranger_s_jwk()]}).encode()})

    app.paths = paths
    app.url = f"http://127.0.0.1:{running.listen(app)}/keys"
    return app


def stranger_s_jwk():
    return json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(STRANGER.public_key())) | {"kid": "1"}


def good_claims(**changes):
    now = int(time.time())
    return {"iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE], "iat": now, "nbf": now, "exp": now + 3600} | changes


def part(content):
    text = content if isinstance(content, str) else json.dumps(content)
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).rstrip(b"=").decode()


def signed(key, claims, header=None):
    """A token with this header and these claims, correctly signed with RS256. Claims can be JSON text or a value."""
    over = f"{part(header or {'alg': 'RS256', 'typ': 'JWT', 'kid': '1'})}.{part(claims)}"
    signature = key.sign(over.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{over}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


# --- who gets in by a claim


@pytest.mark.parametrize(("operator", "claim", "value", "others"), [
    ("StringEquals", "email", "ada@example.com", ["eve@example.com", ["eve@example.com"], 7, {"a": "b"}, [7], None]),
    ("ForAnyValue:StringEquals", "amr", ["mfa", "pwd"], ["pwd", ["pwd"], [], 7, ["mfa", 7], {"mfa": "mfa"}, None]),
])  # fmt: skip
def test_sts_accepts_only_a_token_with_the_claim_that_the_trust_policy_asks_for(sts, operator, claim, value, others):
    iam, name = sts.aws.client("iam"), ISSUER.removeprefix("https://")
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/{name}"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {operator: {f"{name}:{claim}": value[0] if isinstance(value, list) else value}},
    }
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    role = iam.create_role(RoleName=f"by-{claim}", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    assert sts(signed(sts.aws.issuer.key, good_claims(**{claim: value})), role) == (200, None)
    for other in others:
        claims = good_claims(**{claim: other})
        if other is None:
            del claims[claim]
        assert sts(signed(sts.aws.issuer.key, claims), role) == (403, "AccessDenied"), other


# --- no token but the issuer's


@some
@given(data=st.data())
def test_sts_refuses_a_token_with_one_character_changed_or_added(sts, data):
    token = signed(sts.aws.issuer.key, good_claims())
    at = data.draw(st.integers(0, len(token) - 1))
    kept = data.draw(st.booleans())  # add the character, or replace one
    one = data.draw(st.sampled_from(string.ascii_letters + string.digits + "-_.=+/ \n\0é"))
    changed = token[:at] + one + token[at + (not kept) :]
    assert sts(token) == (200, None)
    if changed != token:
        assert sts(changed) == (400, "InvalidIdentityToken")


def test_sts_refuses_every_other_spelling_of_a_signature_s_last_bits(sts):
    token = sts.aws.issuer.token()
    others = [token[:-1] + one for one in string.ascii_letters + string.digits + "-_" if one != token[-1]]
    assert {sts(other) for other in others} == {(400, "InvalidIdentityToken")}
    assert {sts(token + end) for end in ("=", "==", ".", "\n", " ")} == {(400, "InvalidIdentityToken")}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([10**400, -1, 1e308, 0, "", ISSUER, AUDIENCE, "\ud800", "\0", "<a>&amp;"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
HEADERS = st.fixed_dictionaries(
    {"alg": st.sampled_from(["RS256", "ES256", "HS256", "none", "None", "RS257", "PS256", "EdDSA", ""]) | JSON},
    optional={
        "kid": st.sampled_from(["1", "2", "../keys", "1\n"]) | JSON,
        "typ": st.just("JWT") | JSON,
        "crit": st.sampled_from([["exp"], ["b64"], []]) | JSON,
        "b64": JSON,
        "jwk": st.deferred(lambda: st.just(stranger_s_jwk())) | JSON,
        "jku": st.just("ELSEWHERE") | JSON,
        "x5u": st.just("ELSEWHERE") | JSON,
        "x5c": JSON,
        "enc": st.just("A256GCM"),
        "zip": st.just("DEF"),
    },
)


@some
@given(header=HEADERS)
def test_no_header_makes_sts_accept_a_stranger_s_signature_or_fetch_its_key(sts, elsewhere, header):
    header |= {name: elsewhere.url for name in ("jku", "x5u") if header.get(name) == "ELSEWHERE"}
    assert sts(signed(STRANGER, good_claims(), header)) == (400, "InvalidIdentityToken")
    assert elsewhere.paths == []


CLAIMS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("iss", "sub", "aud", "iat", "nbf", "exp", "azp", "amr", "email", "sub ", ""), JSON)
    | {"https://aws.amazon.com/tags": JSON, "https://aws.amazon.com/source_identity": JSON},
)


@some
@given(changes=CLAIMS, left_out=st.sets(st.sampled_from(["iss", "sub", "aud", "exp", "iat"]), max_size=1))
@example(changes={"exp": 10**400}, left_out=set())
@example(changes={"exp": float("nan")}, left_out=set())
@example(changes={"aud": [AUDIENCE, {}]}, left_out=set())
def test_sts_refuses_wrong_claims_even_if_the_issuer_signed_them(sts, changes, left_out):
    claims = {name: value for name, value in good_claims(**changes).items() if name not in left_out}
    answer = sts(signed(sts.aws.issuer.key, claims))
    if answer == (200, None):
        now = time.time()
        assert (claims["iss"], claims["sub"]) == (ISSUER, SUBJECT)
        assert AUDIENCE in ([claims["aud"]] if isinstance(claims["aud"], str) else claims["aud"])
        assert max(claims["iat"], claims.get("nbf", 0)) <= now + 10
        assert claims["exp"] > now
    else:
        assert answer in REFUSALS


@some
@given(claims=JSON, header=HEADERS)
def test_sts_refuses_signed_json_that_lacks_the_claims(sts, claims, header):
    for head in (None, header):
        assert sts(signed(sts.aws.issuer.key, claims, head)) == (400, "InvalidIdentityToken")


@some
@given(st.text(max_size=60) | st.lists(st.text("abcé=.-_{}\0 ", max_size=9), max_size=6).map(".".join))
def test_sts_refuses_any_text_as_a_token(sts, text):
    assert sts(text) in {(400, "InvalidIdentityToken"), (400, "ValidationError")}


# --- tokens that an attacker may think of


def duplicates(sts):
    """A token with two subjects. The last one counts everywhere, and here it's another service account."""
    claims = json.dumps(good_claims())[:-1] + ', "sub": "system:serviceaccount:kube-system:admin"}'
    return signed(sts.aws.issuer.key, claims)


def nested(depth):
    return lambda sts: signed(sts.aws.issuer.key, '{"a":' * depth + "1" + "}" * depth)


def with_claims(**changes):
    return lambda sts: signed(sts.aws.issuer.key, good_claims(**changes))


def with_header(**changes):
    header = {"alg": "RS256", "kid": "1", **changes}
    return lambda sts: signed(sts.aws.issuer.key, good_claims(), header)


def of_the_curve(sts):
    """A token that the sender signed with its own key and ES256, under the id of the issuer's RSA key."""
    return jwt.encode(good_claims(), CURVE, algorithm="ES256", headers={"kid": "1"})


def encoded_as(encoding):
    def make(sts):
        head, _, _ = sts.aws.issuer.token().split(".")
        over = f"{head}.{base64.urlsafe_b64encode(json.dumps(good_claims()).encode(encoding)).rstrip(b'=').decode()}"
        signature = sts.aws.issuer.key.sign(over.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{over}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    return make


GOOD, INVALID, TOO_LONG = (200, None), (400, "InvalidIdentityToken"), (400, "ValidationError")
LAST_SECOND = 253402300799  # of the year 9999
TOKENS = [
    ("of 1 MiB", lambda sts: sts.aws.issuer.token(more="x" * 2**20), (413, "RequestEntityTooLarge")),
    ("that is nothing", lambda sts: "", TOO_LONG),
    ("encrypted, of five parts", lambda sts: sts.aws.issuer.token() + ".AAAA.AAAA", INVALID),
    ("with no signature", lambda sts: sts.aws.issuer.token().rpartition(".")[0] + ".", INVALID),
    ("with two subjects", duplicates, (403, "AccessDenied")),
    ("nested 500 deep", nested(500), INVALID),
    ("nested 2,000 deep", nested(2000), INVALID),
    ("with a subject nested deep", lambda sts: signed(sts.aws.issuer.key, json.dumps(good_claims(sub="DEEP")).replace(
        '"DEEP"', "[" * 700 + "]" * 700)), INVALID),
    ("until 1970", with_claims(exp=1), (400, "ExpiredTokenException")),
    ("until half past a second", with_claims(exp=LAST_SECOND - 0.5), GOOD),
    ("until the year 10,000", with_claims(exp=LAST_SECOND), GOOD),
    ("until a second later", with_claims(exp=LAST_SECOND + 1), INVALID),
    ("until the end of time", with_claims(exp=10**400), INVALID),
    ("until NaN", with_claims(exp=float("nan")), INVALID),
    ("until infinity", with_claims(exp=float("inf")), INVALID),
    ("until true", with_claims(exp=True), INVALID),
    ("until some text", with_claims(exp="9999999999"), INVALID),
    ("of half a character", with_claims(sub="\ud800"), INVALID),
    ("with a critical extension", with_header(crit=["exp"], exp=1), INVALID),
    ("with a payload beside it", with_header(crit=["b64"], b64=False), INVALID),
    ("with a payload beside it that no extension tells of", with_header(b64=False), INVALID),
    ("with a key id that is a list", with_header(kid=["1"]), INVALID),
    ("in UTF-16", encoded_as("utf-16"), INVALID),
    ("with a byte order mark", encoded_as("utf-8-sig"), INVALID),
    ("of another kind of key", of_the_curve, INVALID),
]  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), [row[1:] for row in TOKENS], ids=[row[0] for row in TOKENS])
def test_sts_gives_the_right_answer_to_a_token(sts, make, expected):
    assert sts(make(sts)) == expected
    assert sts(sts.aws.issuer.token()) == (200, None)
