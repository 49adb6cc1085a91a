import pytest

from labkit.policy import Policy, evaluate_service_trust, evaluate_trust, names_service
from labkit.policy.trust import CLAIMS
from labkit.tokens import Claims

ACTION = "sts:AssumeRoleWithWebIdentity"


@pytest.fixture
def admit(issuer, provider):
    """Return a function that asks a trust policy to admit a service account's token from the lab's issuer."""

    def decide(document, subject="my-service-account", audience="sts.amazonaws.com", provider_arn=provider):
        trust = document if isinstance(document, Policy) else Policy.parse(document, kind="trust", name="my-role")
        context = {f"{issuer}:sub": f"system:serviceaccount:default:{subject}", f"{issuer}:aud": audience}
        return evaluate_trust(trust, provider_arn=provider_arn, context=context)

    return decide


def test_a_trust_policy_admits_the_right_token(admit, web_identity):
    decision = admit(web_identity(), audience=["sts.amazonaws.com"])
    assert decision.allowed
    assert decision.reason == f"statement 1 of the trust policy allows {ACTION}"
    assert decision.denial is None and decision.failed == ()


def test_a_trust_policy_refuses_another_service_account_and_says_why(admit, web_identity, issuer):
    decision = admit(web_identity(), subject="b")
    assert not decision.allowed
    assert decision.reason == (
        f'the trust policy wants {issuer}:sub StringEquals "system:serviceaccount:default:my-service-account" '
        'and the token has "system:serviceaccount:default:b"'
    )
    (failed,) = decision.failed
    assert (failed.operator, failed.key, failed.matched) == ("StringEquals", f"{issuer}:sub", False)
    assert failed.wanted == ("system:serviceaccount:default:my-service-account",)
    assert failed.actual == ("system:serviceaccount:default:b",)


def test_a_trust_policy_refuses_a_token_for_another_audience(admit, web_identity, issuer):
    decision = admit(web_identity(), audience="sts.us-east-1.amazonaws.com")
    assert decision.reason == (
        f'the trust policy wants {issuer}:aud StringEquals "sts.amazonaws.com" '
        'and the token has "sts.us-east-1.amazonaws.com"'
    )


def test_only_string_like_expands_wildcards(admit, web_identity, issuer):
    wildcard = {f"{issuer}:sub": "system:serviceaccount:default:*"}
    assert admit(web_identity(Condition={"StringLike": wildcard})).allowed
    for pattern in ("system:serviceaccount:default:*", "system:serviceaccount:default:my?service?account"):
        refused = admit(web_identity(Condition={"StringEquals": {f"{issuer}:sub": pattern}}))
        assert not refused.allowed
        assert refused.reason.endswith("(StringEquals compares * and ? literally; StringLike treats them as wildcards)")


def test_a_condition_on_another_issuer_s_key_refuses_the_token_and_says_why(admit, web_identity, issuer):
    other = issuer.replace("0123", "FFFF")
    decision = admit(web_identity(Condition={"StringEquals": {f"{other}:aud": "sts.amazonaws.com"}}))
    assert not decision.allowed
    assert decision.reason == (
        f'the trust policy wants {other}:aud StringEquals "sts.amazonaws.com", '
        f"a key of another issuer: the token's provider is {issuer}"
    )


def test_a_denial_names_a_condition_key_that_the_request_lacks(admit, web_identity):
    decision = admit(web_identity(Condition={"StringEquals": {"aws:RequestTag/labkit:run": "x"}}))
    assert decision.reason == (
        'the trust policy wants aws:RequestTag/labkit:run StringEquals "x" '
        "and the request has no aws:RequestTag/labkit:run"
    )


@pytest.mark.parametrize("claim", ["iss", "kubernetes.io"])
def test_a_denial_names_a_claim_without_a_condition_key(admit, web_identity, issuer, claim):
    """The token has this claim, but IAM doesn't put it into the request's context."""
    decision = admit(web_identity(Condition={"StringEquals": {f"{issuer}:{claim}": "x"}}))
    assert decision.reason == (
        f'the trust policy wants {issuer}:{claim} StringEquals "x", and IAM has no such key: '
        "the keys for a token are sub, aud, oaud, azp, amr and email"
    )


@pytest.mark.parametrize("claim", ["amr", "OAUD"])
def test_a_denial_names_a_condition_key_that_the_token_lacks(admit, web_identity, issuer, claim):
    decision = admit(web_identity(Condition={"StringEquals": {f"{issuer}:{claim}": "x"}}))
    assert decision.reason == f'the trust policy wants {issuer}:{claim} StringEquals "x" and the token has no {claim}'


def test_every_key_that_the_lab_makes_of_a_token_counts_as_a_key_for_tokens():
    token = {"iss": "https://x", "sub": "a", "aud": "b", "azp": "c", "amr": ["d"], "email": "e", "exp": 1, "iat": 1}
    assert {key.rpartition(":")[2] for key in Claims.of(token).context()} == {*CLAIMS}


def test_a_trust_policy_refuses_a_token_of_another_provider(admit, web_identity, provider):
    decision = admit(web_identity(), provider_arn=provider + "0")
    assert not decision.allowed
    assert decision.reason == f"the trust policy trusts {provider}, and the token's provider is {provider}0"


@pytest.mark.parametrize(("changes", "reason"), [
    ({"Action": "sts:AssumeRole"}, f"the trust policy lets the provider do sts:AssumeRole, and not {ACTION}"),
    ({"Principal": {"Service": "ec2.amazonaws.com"}},
     "the trust policy names no federated principal; it trusts ec2.amazonaws.com"),
    ({"Principal": {"AWS": "arn:aws:iam::123456789012:root"}},
     "the trust policy names no federated principal; it trusts account 123456789012"),
    ({"Principal": {"AWS": "*"}}, "the trust policy names no federated principal; it trusts *"),
    ({"Effect": "Deny"}, "the trust policy has no Allow statement"),
])  # fmt: skip
def test_a_denial_says_why_the_trust_policy_does_not_apply_to_the_token(admit, web_identity, changes, reason):
    decision = admit(web_identity(**changes), subject="b")
    assert not decision.allowed
    assert decision.reason == reason
    assert decision.denial == f"because no role trust policy allows the {ACTION} action"


@pytest.mark.parametrize("principal", [{"AWS": "*"}, {"Federated": "PROVIDER"}])
def test_an_explicit_deny_wins_wherever_it_stands(admit, web_identity, provider, principal):
    principal = {"Federated": provider} if principal == {"Federated": "PROVIDER"} else principal
    deny = {"Sid": "Never", "Effect": "Deny", "Principal": principal, "Action": "sts:*"}
    for order in (1, -1):
        document = web_identity()
        document["Statement"] = [*document["Statement"], deny][::order]
        decision = admit(document)
        assert not decision.allowed
        assert decision.reason == f'an explicit Deny, statement "Never" of the trust policy, refuses {ACTION}'
        assert decision.denial == "with an explicit deny in the role trust policy"


def test_the_nearest_statement_is_reported(admit, web_identity, issuer):
    document = web_identity()
    far, near = dict(document["Statement"][0]), dict(document["Statement"][0])
    far["Condition"] = {"StringEquals": {f"{issuer}:sub": "x", f"{issuer}:aud": "y"}}
    near["Condition"] = {"StringEquals": {f"{issuer}:sub": "z"}}
    document["Statement"] = [far, near]
    decision = admit(document)
    assert decision.near[0].statement.position == 2
    assert [failed.wanted for failed in decision.failed] == [("z",)]


def test_the_first_of_two_admitting_statements_is_named(admit, web_identity):
    document = web_identity()
    document["Statement"] *= 2
    assert admit(document).statement.position == 1


def test_an_unreadable_statement_is_named_if_no_other_is_nearer(admit, web_identity):
    document = web_identity(Action="sts:AssumeRole")
    broken = {"Effect": "Allow", "Action": "sts:*"}
    document["Statement"].insert(0, broken)
    assert "lets the provider do sts:AssumeRole" in admit(Policy.read(document, kind="trust", name="my-role")).reason
    document["Statement"] = [broken, {"Effect": "Allow", "Principal": "*"}]
    told = "statement 1 of the trust policy cannot be evaluated: Missing required field Principal"
    assert admit(Policy.read(document, kind="trust", name="my-role")).reason == told


def test_a_trust_policy_without_conditions_admits_any_service_account(admit, web_identity):
    assert admit(web_identity(Condition=None), subject="any").allowed


def test_condition_keys_ignore_case_but_values_do_not(admit, web_identity, issuer):
    subject = "system:serviceaccount:default:my-service-account"
    assert admit(web_identity(Condition={"StringEquals": {f"{issuer.lower()}:SUB": subject}})).allowed
    assert not admit(web_identity(Condition={"StringEquals": {f"{issuer}:sub": subject.upper()}})).allowed


def test_a_token_for_two_audiences_needs_a_set_operator(admit, web_identity, issuer):
    audiences = ["sts.amazonaws.com", "vault"]
    decision = admit(web_identity(), audience=audiences)
    assert not decision.allowed
    assert "has 2 values, but without ForAnyValue: or ForAllValues:, StringEquals compares only one" in decision.reason
    any_value = {"ForAnyValue:StringEquals": {f"{issuer}:aud": "sts.amazonaws.com"}}
    assert admit(web_identity(Condition=any_value), audience=audiences).allowed


@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_a_statement_with_an_unknown_operator_never_admits_a_token(admit, web_identity, issuer, effect):
    document = web_identity(Effect=effect, Condition={"StringMatches": {f"{issuer}:sub": "x"}})
    if effect == "Deny":
        document["Statement"] += web_identity()["Statement"]
    decision = admit(Policy.read(document, kind="trust", name="my-role"))
    assert not decision.allowed
    assert "cannot be evaluated" in decision.reason
    assert "the condition operator StringMatches is unknown" in decision.reason


def test_names_service_needs_an_allow_for_that_service_and_action():
    statement = {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}, "Action": "sts:AssumeRole"}

    def named(**changes):
        document = {"Version": "2012-10-17", "Statement": [statement | changes]}
        trust = Policy.read(document, kind="trust", name="t")
        return names_service(trust, service="pods.eks.amazonaws.com", action="sts:AssumeRole")

    assert named()
    assert not named(Effect="Deny")
    assert not named(Principal={"Service": "ec2.amazonaws.com"})
    assert not named(Action="sts:TagSession")
    assert not named(Sid=7)  # a broken Sid: the statement can't be evaluated


SERVICE = "pods.eks.amazonaws.com"


@pytest.mark.parametrize(("changes", "reason"), [
    ({}, "statement 1 of the trust policy allows sts:AssumeRole"),
    ({"Principal": {"Service": ["ec2.amazonaws.com", "a.amazonaws.com"]}},
     f"the trust policy doesn't name {SERVICE}; it trusts a.amazonaws.com, ec2.amazonaws.com"),
    ({"Action": ["sts:TagSession", "sts:SetSourceIdentity"]},
     "the trust policy lets the service do sts:TagSession, sts:SetSourceIdentity, and not sts:AssumeRole"),
    ({"Condition": {"StringEquals": {"aws:SourceAccount": "9"}}},
     'the trust policy wants aws:SourceAccount StringEquals "9" and the request has "123456789012"'),
    ({"Effect": "Deny"}, "an explicit Deny, statement 1 of the trust policy, refuses sts:AssumeRole"),
])  # fmt: skip
def test_a_decision_says_why_a_service_is_or_is_not_trusted(changes, reason):
    statement = {"Effect": "Allow", "Principal": {"Service": SERVICE}, "Action": "sts:AssumeRole"} | changes
    trust = Policy.parse({"Version": "2012-10-17", "Statement": [statement]}, kind="trust", name="my-role")
    context = {"aws:SourceAccount": "123456789012"}
    decision = evaluate_service_trust(trust, service=SERVICE, action="sts:AssumeRole", context=context)
    assert (decision.reason, decision.allowed) == (reason, not changes)
