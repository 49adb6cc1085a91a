import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.course import token as shown
from labkit.policy import Policy
from labkit.tokens import Claims, NotAToken, refused

PROVIDER = "oidc.eks.us-east-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
ARN = f"arn:aws:iam::123456789012:oidc-provider/{PROVIDER}"
SUBJECT = "system:serviceaccount:default:my-service-account"
NOW = 1_767_225_600  # 2026-01-01T00:00:00Z


def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def token(**changes):
    claims = {
        "iss": f"https://{PROVIDER}",
        "sub": SUBJECT,
        "aud": ["sts.amazonaws.com"],
        "exp": NOW + 3600,
        "iat": NOW - 60,
        "nbf": NOW - 60,
        "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "my-service-account", "uid": "1"}},
    } | changes
    kept = {name: value for name, value in claims.items() if value is not None}
    return f"{part({'alg': 'RS256', 'kid': 'key-1'})}.{part(kept)}.c2lnbmF0dXJl"


def trust(sub=SUBJECT, operator="StringEquals", issuer=PROVIDER):
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": ARN},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {operator: {f"{issuer}:sub": sub, f"{issuer}:aud": "sts.amazonaws.com"}},
    }
    return Policy.parse({"Version": "2012-10-17", "Statement": [statement]}, kind="trust", name="my-role")


def rows(claims=None, url=PROVIDER, client_ids=("sts.amazonaws.com",), policy=None, now=NOW):
    claims = claims or Claims.parse(token())
    return shown.compare(claims, url, list(client_ids), policy or trust(), ARN, now=now)


def row(field, compared):
    (result,) = [comparison for comparison in compared if comparison.field == field]
    return result


def test_parsing_a_token_returns_its_claims():
    claims = Claims.parse(token())
    assert claims.issuer == f"https://{PROVIDER}"
    assert claims.provider == PROVIDER
    assert claims.subject == SUBJECT
    assert claims.audiences == ("sts.amazonaws.com",)
    assert claims.expires == NOW + 3600
    assert claims.kubernetes["serviceaccount"]["name"] == "my-service-account"


def test_an_audience_may_be_a_string_or_a_list():
    assert Claims.parse(token(aud="one")).audiences == ("one",)
    assert Claims.parse(token(aud=["one", "two"])).audiences == ("one", "two")


def test_claims_of_the_wrong_type_count_as_missing():
    claims = Claims.parse(token(iss=7, sub=None, aud={"a": 1}, exp="soon", iat=True, **{"kubernetes.io": "x"}))
    assert (claims.issuer, claims.subject, claims.audiences) == (None, None, ())
    assert (claims.expires, claims.kubernetes) == (None, {})


@pytest.mark.parametrize(("text", "message"), [
    ("", "has three parts with dots between them, but this text has 1"),
    ("a.b", "this text has 2"),
    ("a.b.c.d", "this text has 4"),
    ("!!.e30.x", "the header part of the token"),
    ("e30.e30=e30.x", "the claims part of the token"),
    ("e30.bm90IGpzb24.x", "the claims part of the token is not base64url-encoded JSON"),
    ("e30.W10.x", "the claims part of the token is not a JSON object"),
    ("é.e30.x", "the header part of the token"),
    (f"e30.{base64.urlsafe_b64encode(b'[' * 100_000).decode().rstrip('=')}.x", "the claims part of the token"),
])  # fmt: skip
def test_parsing_text_that_is_not_a_token_says_what_is_wrong(text, message):
    with pytest.raises(NotAToken, match=message):
        Claims.parse(text)


@given(st.text() | st.binary() | st.lists(st.text(alphabet="eyJh0_-=W1"), max_size=4).map(".".join))
def test_parsing_any_text_returns_claims_or_raises_not_a_token(text):
    try:
        Claims.parse(text)
    except NotAToken as refused:
        assert str(refused)


def test_a_token_s_claims_become_condition_keys():
    assert Claims.parse(token()).context() == {f"{PROVIDER}:sub": [SUBJECT], f"{PROVIDER}:aud": ["sts.amazonaws.com"]}
    with_party = Claims.parse(token(azp="app", aud=["a", "b"])).context()
    assert with_party[f"{PROVIDER}:aud"] == ["app"]
    assert with_party[f"{PROVIDER}:oaud"] == ["a", "b"]
    assert with_party[f"{PROVIDER}:azp"] == ["app"]
    assert Claims.parse(token(email="me@shop")).context()[f"{PROVIDER}:email"] == ["me@shop"]
    assert Claims.parse(token(azp="")).compared == ("sts.amazonaws.com",)


def test_every_claim_of_a_valid_token_matches():
    compared = rows()
    assert [comparison.field for comparison in compared] == ["iss", "aud", "exp", "provider", "sub", "aud"]
    assert all(comparison.matches for comparison in compared)


def test_a_row_shows_the_wanted_and_the_presented_value_and_where():
    compared = row("sub", rows(policy=trust(sub="system:serviceaccount:default:other")))
    assert compared.wanted == 'StringEquals "system:serviceaccount:default:other"'
    assert compared.presented == SUBJECT
    assert not compared.matches
    assert compared.where == f"trust policy: {PROVIDER}:sub"


@pytest.mark.parametrize(("changes", "field", "wanted", "presented"), [
    ({"url": None}, "iss", "an OIDC provider", f"https://{PROVIDER}"),
    ({"url": f"https://{PROVIDER}/"}, "iss", f"https://{PROVIDER}/", f"https://{PROVIDER}"),
    ({"now": NOW + 3600}, "exp", "after 2026-01-01T01:00:00Z", "2026-01-01T01:00:00Z"),
    ({"policy": trust(issuer=PROVIDER + "0")}, "sub", f'StringEquals "{SUBJECT}"', ""),
    ({"policy": trust("system:serviceaccount:*:*")}, "sub", 'StringEquals "system:serviceaccount:*:*"', SUBJECT),
])  # fmt: skip
def test_a_row_shows_why_a_claim_does_not_match(changes, field, wanted, presented):
    result = row(field, rows(**changes))
    assert (result.wanted, result.presented, result.matches) == (wanted, presented, False)


def test_the_audience_is_compared_with_the_client_ids_and_with_the_trust_policy():
    by_provider, by_policy = [compared for compared in rows(client_ids=["a", "b"]) if compared.field == "aud"]
    assert (by_provider.wanted, by_provider.presented, by_provider.matches) == ("a or b", "sts.amazonaws.com", False)
    assert by_provider.where == "OIDC provider: client ids"
    assert by_policy.matches


def test_the_authorized_party_is_compared_in_place_of_the_audience():
    compared = row("azp", rows(Claims.parse(token(azp="app"))))
    assert (compared.presented, compared.matches) == ("app", False)


def test_a_wildcard_in_string_like_matches():
    assert row("sub", rows(policy=trust("system:serviceaccount:*:*", "StringLike"))).matches


def test_a_missing_expiry_does_not_match_and_a_huge_one_is_shown_as_a_number():
    assert not row("exp", rows(Claims.parse(token(exp=None)))).matches
    assert row("exp", rows(Claims.parse(token(exp=10**18)))).presented == str(10**18)


def test_without_a_trust_policy_or_a_time_there_are_no_rows_for_them():
    compared = shown.compare(Claims.parse(token()), PROVIDER, ["sts.amazonaws.com"], None, ARN)
    assert [comparison.field for comparison in compared] == ["iss", "aud"]


def test_another_provider_in_the_trust_policy_does_not_match():
    compared = shown.compare(Claims.parse(token()), PROVIDER, ["sts.amazonaws.com"], trust(), ARN + "0")
    assert not row("provider", compared).matches


def test_an_unreadable_statement_gets_a_row_of_its_own():
    broken = Policy.read({"Statement": [{"Effect": "Allow"}]}, kind="trust", name="my-role")
    compared = row("statement", rows(policy=broken))
    assert (compared.presented, compared.matches) == ("Missing required field Principal", False)


def test_a_row_names_its_statement_if_the_policy_has_several():
    statement = {"Effect": "Allow", "Principal": {"Federated": ARN}, "Action": "sts:AssumeRoleWithWebIdentity"}
    second = statement | {"Sid": "Never", "Effect": "Deny", "Principal": {"Federated": ARN + "0"}}
    policy = Policy.parse({"Version": "2012-10-17", "Statement": [statement, second]}, kind="trust", name="my-role")
    allowing, denying = [comparison for comparison in rows(policy=policy) if comparison.field == "provider"]
    assert (allowing.where, allowing.matches) == ("trust policy, statement 1: Principal", True)
    assert (denying.where, denying.matches) == ('trust policy, statement "Never" (Deny): Principal', False)


def why(audiences=("sts.amazonaws.com",), client_ids=("sts.amazonaws.com",), expires=NOW + 1, not_before=NOW):
    compared = refused(PROVIDER, audiences, client_ids=client_ids, expires=expires, not_before=not_before, now=NOW)
    return compared and (compared.check, compared.code, compared.message, compared.detail)


def test_a_token_is_accepted_to_its_last_second_and_five_seconds_early():
    assert why() is None
    assert why(not_before=NOW + 5) is None
    assert why(audiences=("another", "sts.amazonaws.com")) is None


def test_without_a_provider_nothing_else_is_checked():
    message = f"No OpenIDConnect provider found in your account for {PROVIDER}"
    assert why(client_ids=None, audiences=(), expires=0) == ("provider", "InvalidIdentityToken", message, "")


@pytest.mark.parametrize(("client_ids", "listed"), [((), "none"), (("a", "b"), "a, b")])
def test_a_token_is_refused_if_the_provider_does_not_list_its_audience(client_ids, listed):
    detail = f"the token is for x, y; the provider's client ids are {listed}"
    expected = ("audience", "InvalidIdentityToken", "Incorrect token audience", detail)
    assert why(audiences=("x", "y"), client_ids=client_ids, expires=0) == expected


def test_a_token_that_expires_now_has_expired():
    message = f"Token expired: current date/time {NOW} must be before the expiration date/time {NOW}"
    assert why(expires=NOW) == ("expiry", "ExpiredTokenException", message, "")


def test_a_token_that_is_not_valid_yet_is_refused():
    message = f"The token is not valid before {NOW + 6}; it is {NOW} now"
    assert why(not_before=NOW + 6) == ("expiry", "InvalidIdentityToken", message, "")


def test_amr_becomes_a_condition_key_only_if_it_is_a_list_of_strings():
    key = f"{PROVIDER}:amr"
    assert Claims.parse(token(amr=["mfa", "pwd"])).context()[key] == ["mfa", "pwd"]
    assert key not in Claims.parse(token(amr=["mfa", 1, "pwd"])).context()
    assert key not in Claims.parse(token(amr="mfa")).context()
    assert key not in Claims.parse(token()).context()


def test_a_principal_matches_if_it_names_the_provider():
    statement = {"Effect": "Allow", "Principal": {"Federated": ARN}, "Action": "sts:AssumeRoleWithWebIdentity"}
    policy = Policy.parse({"Version": "2012-10-17", "Statement": [statement]}, kind="trust", name="my-role")
    assert row("provider", rows(policy=policy)).matches
