import json

import pytest

from labkit.policy import Control, Policy, Principal, Request, evaluate, within

ACCOUNT = "123456789012"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-session"
ME = Principal.role_session(SESSION)
OBJECT = "arn:aws:s3:::irsa-lab/key"
ALLOW = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}


def read(*statements, kind="identity", name="my-policy"):
    return Policy.read({"Version": "2012-10-17", "Statement": list(statements)}, kind=kind, name=name)


def get(*policies, action="s3:GetObject", **others):
    request = Request(ME, action, OBJECT, {"aws:SourceIp": "192.0.2.1", "aws:TagKeys": ["a", "b"]})
    return evaluate(request, identity=policies, **others)


def test_an_allow_names_the_caller_and_the_statement():
    decision = get(read(ALLOW | {"Sid": "Reading"}))
    assert decision and decision.outcome == "allowed"
    assert str(decision) == (
        f'✓ allowed: s3:GetObject on {OBJECT}\n  caller   {SESSION}\n  by       statement "Reading" of "my-policy"'
    )


def test_a_denial_names_the_wanted_and_the_found_value():
    elsewhere = ALLOW | {
        "Resource": ["arn:aws:s3:::other/*"],
        "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}},
    }
    inside = ALLOW | {"Condition": {"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "172.16.0.0/12"]}}}
    decision = get(read(elsewhere, {"Effect": "Allow", "Action": "sqs:*", "Resource": "*"}, inside))
    assert not decision and decision.outcome == "implicitDeny"
    assert [near.statement.position for near in decision.near] == [3, 1]
    assert decision.explain() == (
        f"✗ not allowed: s3:GetObject on {OBJECT}\n"
        f"  caller   {SESSION}\n"
        "  because  no identity-based policy allows the s3:GetObject action\n"
        '  near     statement 3 of "my-policy"\n'
        "    condition  aws:SourceIp IpAddress\n"
        "      wants  10.0.0.0/8, 172.16.0.0/12\n"
        "      found  192.0.2.1\n"
        '  near     statement 1 of "my-policy"\n'
        "    resource\n"
        "      wants  arn:aws:s3:::other/*\n"
        f"      found  {OBJECT}\n"
        "    condition  aws:SourceIp IpAddress\n"
        "      wants  10.0.0.0/8\n"
        "      found  192.0.2.1"
    )


@pytest.mark.parametrize(("statement", "parts", "sentence"), [
    ({"Action": ["s3:PutObject", "sqs:*"]}, ["action"], "is nearest, but it allows s3:PutObject and not s3:GetObject"),
    ({"NotAction": "s3:Get*", "Action": None}, ["action"],
     "is nearest, but it allows anything but s3:Get* and not s3:GetObject"),
    ({"Resource": "arn:aws:s3:::other/*"}, ["resource"],
     f"would allow the request, but it is for arn:aws:s3:::other/* and the request is for {OBJECT}"),
    ({"NotResource": "arn:aws:s3:::irsa-lab/*", "Resource": None}, ["resource"],
     "would allow the request, but it is for anything but arn:aws:s3:::irsa-lab/* " f"and the request is for {OBJECT}"),
    ({"Condition": {"StringEquals": {"aws:PrincipalTag/team": "blue"}}}, ["condition"],
     'would allow the request, but it wants aws:PrincipalTag/team StringEquals "blue" ' "and the request has nothing"),
    ({"Condition": {"StringMatches": {"aws:SourceIp": "x"}}}, ["condition"],
     "cannot be evaluated: the condition operator StringMatches is unknown"),
    ({"Condition": {"StringEquals": {"aws:TagKeys": "a"}}}, ["condition"],
     "cannot be evaluated: aws:TagKeys has 2 values, but without ForAnyValue: or ForAllValues:, "
     "StringEquals compares only one"),
    ({"NotResource": "arn:aws:s3:::${aws:PrincipalTag/b}", "Resource": None}, ["statement"],
     "cannot be evaluated: a policy variable in NotResource has no value"),
    ({"Unknown": "x"}, ["statement"], "cannot be evaluated: Syntax errors in policy."),
    # Not near at all: another service, or both another action and another resource.
    ({"Action": "sqs:*"}, [], ""),
    ({"Action": "s3:PutObject", "Resource": "arn:aws:s3:::other"}, [], ""),
])  # fmt: skip
def test_a_denial_names_the_part_of_the_nearest_statement_that_does_not_match(statement, parts, sentence):
    written = {name: value for name, value in (ALLOW | statement).items() if value is not None}
    decision = get(read(written))
    assert [miss.part for near in decision.near for miss in near.misses] == parts
    ending = f'; statement 1 of "my-policy" {sentence}' if sentence else ""
    assert decision.reason == f"no identity-based policy allows s3:GetObject on {OBJECT}{ending}"


def test_a_bucket_policy_that_names_another_role_is_near():
    other = f"arn:aws:iam::{ACCOUNT}:role/other"
    bucket = read(ALLOW | {"Principal": {"AWS": other}}, kind="resource", name="bucket policy")
    (near,) = get(resource=[bucket]).near
    (miss,) = near.misses
    assert (miss.part, miss.wanted, miss.actual) == ("principal", (other,), (SESSION,))


def test_near_statements_are_listed_nearest_first():
    somebody, elsewhere = {"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:role/other"}}, {"Resource": "arn:aws:s3:::b/*"}
    narrow = {"Condition": {"StringEquals": {"aws:SourceIp": "10.0.0.1", "aws:PrincipalAccount": "9"}}}
    changes = [{"Action": "s3:PutObject"}, somebody, elsewhere | narrow, elsewhere, {"Action": 7}, narrow]
    near = get(resource=[read(*(ALLOW | {"Principal": "*"} | change for change in changes), kind="resource")]).near
    assert [(each.statement.position, each.misses[0].part) for each in near] == [
        (6, "condition"),
        (5, "statement"),
        (4, "resource"),
        (3, "resource"),
        (2, "principal"),
        (1, "action"),
    ]


@pytest.mark.parametrize(
    ("letters", "told"),
    [("ABCD", "s3:PutA, s3:PutB, s3:PutC, s3:PutD"), ("ABCDEF", "s3:PutA, s3:PutB, s3:PutC, s3:PutD and 2 more")],
)
def test_a_list_of_more_than_four_actions_is_shortened(letters, told):
    actions = [f"s3:Put{letter}" for letter in letters]
    said = get(read(ALLOW | {"Action": actions})).near[0].misses[0].said
    assert said == f"it allows {told} and not s3:GetObject"


def test_an_explicit_deny_is_named_without_near_statements():
    decision = get(read(ALLOW, ALLOW | {"Effect": "Deny", "Sid": "Never"}))
    assert (decision.outcome, decision.near) == ("explicitDeny", ())
    assert str(decision).splitlines() == [
        f"✗ denied explicitly: s3:GetObject on {OBJECT}",
        f"  caller   {SESSION}",
        '  by       statement "Never" of "my-policy"',
        "  because  with an explicit deny in an identity-based policy",
    ]


FULL = {"Effect": "Allow", "Action": "*", "Resource": "*"}
NEVER = {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}


def service(*statements):
    return read(*statements, kind="service control")


def resource(*statements):
    return read(*({"Principal": "*"} | each for each in statements), kind="resource control")


@pytest.mark.parametrize(("control", "identity", "denial"), [
    (Control(service=((service(FULL),), (service(ALLOW),))), ALLOW, None),
    # Every level must allow. Within a level, one policy that allows is enough.
    (Control(service=((service(FULL), service(ALLOW)), (service(ALLOW | {"Action": "sqs:*"}),))), ALLOW, "no SCP"),
    (Control(service=((service(ALLOW | {"Action": "sqs:*"}), service(ALLOW)),)), ALLOW, None),
    (Control(service=((),)), ALLOW, "no SCP"),
    (Control(service=((service(FULL, NEVER),),)), ALLOW, "SCP"),
    (Control(resource=((resource(FULL), resource(NEVER)),)), ALLOW, "RCP"),
    # A Deny counts before a missing Allow: first an RCP's, then an SCP's, then an identity policy's.
    (Control(((resource(FULL, NEVER),),), ((service(NEVER),),)), ALLOW, "RCP"),
    (Control(service=((service(FULL, NEVER),),)), NEVER, "SCP"),
    (Control(service=((),)), NEVER, "identity"),
    (Control(service=((),)), ALLOW | {"Action": "sqs:*"}, "no SCP"),
    (Control(service=((service(FULL),),)), ALLOW | {"Action": "sqs:*"}, "no identity"),
])  # fmt: skip
def test_the_organization_s_policies_limit_what_identity_policies_allow(control, identity, denial):
    words = {
        None: None,
        "SCP": "with an explicit deny in a service control policy",
        "RCP": "with an explicit deny in a resource control policy",
        "identity": "with an explicit deny in an identity-based policy",
        "no SCP": "because no service control policy allows the s3:GetObject action",
        "no identity": "because no identity-based policy allows the s3:GetObject action",
    }
    decision = get(read(identity), control=control)
    assert (decision.denial or None) == words[denial]
    assert within(control, decision.request).outcome == get(read(FULL), control=control).outcome


def test_a_decision_is_written_as_json():
    decision = get(read(ALLOW | {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}))
    content = json.loads(json.dumps(decision.to_dict()))
    (near,) = content.pop("near")
    assert content == {
        "outcome": "implicitDeny",
        "action": "s3:GetObject",
        "resource": OBJECT,
        "caller": SESSION,
        "reason": decision.reason,
        "denial": "because no identity-based policy allows the s3:GetObject action",
        "policy": None,
        "statement": None,
    }
    assert near == {
        "policy": "my-policy",
        "statement": 1,
        "misses": [
            {
                "part": "condition",
                "operator": "IpAddress",
                "key": "aws:SourceIp",
                "wanted": ["10.0.0.0/8"],
                "found": ["192.0.2.1"],
                "said": 'it wants aws:SourceIp IpAddress "10.0.0.0/8" and the request has "192.0.2.1"',
            }
        ],
    }
    assert get(read(ALLOW | {"Sid": "Reading"})).to_dict()["statement"] == "Reading"
    (near,) = get(read(ALLOW | {"Condition": {"NumericEquals": {"aws:SourceIp": "1"}}})).to_dict()["near"]
    assert near["misses"][0]["said"] == 'NumericEquals cannot compare "192.0.2.1" with "1"'


def test_a_notebook_shows_a_denial_as_a_table_with_its_text_escaped():
    html = get(read(ALLOW | {"Resource": "arn:aws:s3:::<b>"}))._repr_html_()
    assert "arn:aws:s3:::&lt;b&gt;" in html and "<b>" not in html
    assert "<table>" in html
    assert "<table>" not in get(read(ALLOW))._repr_html_()
