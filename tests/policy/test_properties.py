"""True for any policy and any request: nothing raises, a Deny wins, and an unreadable statement never allows."""

import json
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.policy import MalformedPolicy, Policy, Principal, Request, evaluate, evaluate_trust, matching
from labkit.policy.conditions import known_operator

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/my-role"
ME = Principal.role_session(f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-session")
KINDS = ("identity", "trust", "resource", "session", "boundary")

ACTIONS = ["*", "s3:*", "s3:Get*", "S3:getobject", "s3:PutObject", "sqs:SendMessage"]
RESOURCES = [
    "*",
    "arn:aws:s3:::b/*",
    "arn:aws:s3:::b/k",
    "arn:aws:s?:::b/k",
    "arn:aws:s3:::${aws:PrincipalTag/bucket}/k",
    "arn:aws:s3:::${aws:PrincipalTag/bucket, 'b'}/${*}",
]
OPERATORS = ["StringEquals", "StringNotLike", "ForAllValues:StringLike", "NumericLessThanIfExists", "Null", "Bool",
             "IpAddress", "DateGreaterThan", "ArnLike", "ForAnyValue:StringNotEquals", "NoSuch"]  # fmt: skip
KEYS = ["aws:SourceIp", "aws:PrincipalArn", "aws:PrincipalTag/bucket", "aws:TagKeys", "aws:CurrentTime"]
VALUES = ["true", "1", "b", "*", "10.0.0.0/8", ROLE, "${aws:PrincipalTag/bucket}", "2026-01-01", "YQ==", ""]


def one_or_two(values):
    return [[value] for value in values] + [list(pair) for pair in permutations(values, 2)]


# Each draw picks from a ready-made list. Hypothesis draws nested values several times more slowly: too slowly for its
# health check on a busy machine.
TESTS = [*product(OPERATORS, KEYS, [[], *one_or_two(VALUES)])]
ASKED = [*product(one_or_two(ACTIONS), one_or_two(RESOURCES))]


def statements(effects=("Allow", "Deny"), principals=(None,)):
    def build(shape, asked, tested):
        effect, action, resource, principal = shape
        statement = {"Effect": effect, "Condition": {}, action: asked[0], resource: asked[1]}
        for operator, key, values in tested:
            statement["Condition"].setdefault(operator, {})[key] = values
        return statement if principal is None else statement | {"Principal": principal}

    shapes = [*product(effects, ("Action", "NotAction"), ("Resource", "NotResource"), principals)]
    return st.builds(
        build, st.sampled_from(shapes), st.sampled_from(ASKED), st.lists(st.sampled_from(TESTS), max_size=3)
    )


denies = statements(effects=("Deny",))
documents = st.lists(statements(), max_size=3)
bucket_documents = st.lists(
    statements(principals=["*", {"AWS": ROLE}, {"AWS": ACCOUNT}, {"AWS": ME.arn}, {"Service": "ec2.amazonaws.com"}]),
    max_size=2,
)
requests = st.builds(
    lambda action, resource, context: Request(ME, action, resource, context),
    st.sampled_from(["s3:GetObject", "s3:PutObject", "sqs:SendMessage"]),
    st.sampled_from(["arn:aws:s3:::b/k", "arn:aws:s3:::c", "*"]),
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from([*VALUES, [], *one_or_two(VALUES)])),
)
policy_sets = st.fixed_dictionaries(
    {
        "identity": documents,
        "boundary": st.none() | documents,
        "session": st.none() | documents,
        "resource": st.none() | bucket_documents,
        "same_account": st.booleans(),
    }
)


def read(document, kind):
    return Policy.read({"Version": "2012-10-17", "Statement": document}, kind=kind, name=kind)


def decide(request, sets):
    return evaluate(
        request,
        identity=[read(sets["identity"], "identity")],
        boundary=None if sets["boundary"] is None else read(sets["boundary"], "boundary"),
        session=() if sets["session"] is None else [read(sets["session"], "session")],
        resource=() if sets["resource"] is None else [read(sets["resource"], "resource")],
        same_account=sets["same_account"],
    )


@given(requests, policy_sets)
def test_every_decision_has_one_of_three_outcomes_and_explains_itself(request_made, sets):
    decision = decide(request_made, sets)
    assert decision.outcome in ("allowed", "explicitDeny", "implicitDeny")
    assert decision.allowed is (decision.denial is None)
    assert decision.reason and decision.explain() and decision._repr_html_()
    json.dumps(decision.to_dict())


@given(requests, policy_sets, st.sampled_from(["identity", "boundary", "session", "resource"]), denies)
def test_one_more_deny_never_allows_more_and_one_that_matches_wins(request_made, sets, layer, deny):
    before = decide(request_made, sets)
    deny = deny | {"Principal": "*"} if layer == "resource" else deny
    # Don't add a policy of a missing kind: a first boundary limits the request by itself, whatever its Deny says.
    if sets[layer] is None:
        return
    after = decide(request_made, sets | {layer: [*sets[layer], deny]})
    assert before.allowed or not after.allowed
    if matching([read([deny], layer)], request_made, allow=False):
        assert after.outcome == "explicitDeny"


@given(requests, policy_sets, statements(effects=("Allow",)))
def test_one_more_allow_in_the_identity_policy_never_denies_more(request_made, sets, allow):
    before = decide(request_made, sets)
    after = decide(request_made, sets | {"identity": [*sets["identity"], allow]})
    assert after.allowed or not before.allowed
    assert (after.outcome == "explicitDeny") is (before.outcome == "explicitDeny")


@given(requests, policy_sets)
def test_no_allow_rests_on_a_condition_that_cannot_be_evaluated(request_made, sets):
    decision = decide(request_made, sets)
    if decision.allowed:
        assert not decision.statement.fault
        results = [condition.result(request_made.values) for condition in decision.statement.conditions]
        assert all(result.matched and result.problem is None for result in results)
        assert all(known_operator(result.operator) for result in results)


@given(policy_sets, requests, st.text(), st.text(max_size=5))
def test_no_text_in_a_request_makes_evaluate_raise(sets, request_made, text, key):
    context = {**request_made.context, key: text, "aws:PrincipalTag/bucket": text}
    decision = decide(Request(ME, text, text, context), sets)
    assert decision.reason


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Version", "Statement", "Effect", "Action", "Resource", "Principal", "Condition", "Sid"])
            | st.text(max_size=3)
            | st.integers(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(anything | st.text(), st.sampled_from(KINDS))
def test_every_document_is_parsed_or_refused_and_evaluating_it_never_raises(document, kind):
    try:
        Policy.parse(document, kind=kind, name="any")
    except MalformedPolicy as refused:
        assert refused.code and refused.message.encode()
    stored = Policy.read(document, kind=kind, name="any")
    request = Request(ME, "s3:GetObject", "arn:aws:s3:::b/k")
    assert evaluate(request, identity=[stored]).reason.encode()
    assert evaluate_trust(stored, provider_arn="arn:aws:iam::1:oidc-provider/x", context={}).reason.encode()


ALLOW = {"Effect": "Allow", "Action": "*", "Resource": "*"}


def nested(depth):
    return '{"a":' * depth + '"b"' + "}" * depth


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [50, 900, 1000, 100_000])
@pytest.mark.parametrize("place", ["Condition", "Principal", "Action", "Sid", "Statement"])
def test_iam_rejects_a_deeply_nested_policy_and_a_stored_one_never_allows(kind, depth, place):
    fields = json.dumps(ALLOW | {"Principal": "*"})[1:-1]
    statement = f'{{{fields}, "{place}": {nested(depth)}}}' if place != "Statement" else nested(depth)
    document = f'{{"Version": "2012-10-17", "Statement": [{statement}]}}'
    with pytest.raises(MalformedPolicy) as refused:
        Policy.parse(document, kind=kind, name="deep")
    assert refused.value.code in ("MalformedPolicyDocument", "MalformedPolicy")
    request = Request(ME, "s3:GetObject", "arn:aws:s3:::b/k")
    assert not evaluate(request, identity=[Policy.read(document, kind=kind, name="deep")])


@pytest.mark.parametrize("kind", ["identity", "boundary", "session"])
def test_ten_thousand_statements_are_refused_when_written_and_evaluated_when_stored(kind):
    document = {"Version": "2012-10-17", "Statement": [ALLOW | {"Action": f"s3:Act{i}"} for i in range(10_000)]}
    with pytest.raises(MalformedPolicy):
        Policy.parse(document, kind=kind, name="long")
    stored = Policy.read(document, kind=kind, name="long")
    assert evaluate(Request(ME, "s3:Act9999", "*"), identity=[stored])
    assert not evaluate(Request(ME, "s3:Other", "*"), identity=[stored])


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_iam_refuses_a_policy_with_half_a_surrogate_pair(text):
    for changes in ({"Sid": text}, {"Action": text}, {"Condition": {"StringEquals": {text: "x"}}}):
        document = {"Version": "2012-10-17", "Statement": [ALLOW | changes]}
        with pytest.raises(MalformedPolicy) as refused:
            Policy.parse(document, kind="identity", name="half")
        assert refused.value.message == "Syntax errors in policy."


@pytest.mark.parametrize("name", ["StringMatches", "ForSomeValues:StringEquals", "NullIfExists", "", "Bool "])
@pytest.mark.parametrize("block", [{"aws:SourceIp": "10.0.0.1"}, {"aws:SourceIp": []}, {}])
def test_an_unknown_operator_is_refused_when_written_and_never_allows_when_stored(name, block):
    document = {"Version": "2012-10-17", "Statement": [ALLOW | {"Condition": {name: block}}]}
    with pytest.raises(MalformedPolicy) as refused:
        Policy.parse(document, kind="identity", name="unknown")
    assert refused.value.code == "MalformedPolicyDocument"
    request = Request(ME, "s3:GetObject", "arn:aws:s3:::b/k", {"aws:SourceIp": "10.0.0.1"})
    assert not evaluate(request, identity=[Policy.read(document, kind="identity", name="unknown")])
