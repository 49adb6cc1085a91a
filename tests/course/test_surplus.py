"""What a policy of a bucket or of a role opens to a stranger, behind whatever conditions."""

import pytest

from labkit.course.capstone.probes import _is_among
from labkit.course.exercises import surplus
from labkit.policy import Policy

ROLE, OBJECTS = "arn:aws:iam::123456789012:role/shop-till", "arn:aws:s3:::ledger/*"
ANYBODY_MEETS = [
    {"DateLessThan": {"aws:CurrentTime": "2099-01-01T00:00:00Z"}},
    {"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}},
    {"NumericLessThan": {"s3:max-keys": "10"}},
    {"Null": {"s3:x-amz-acl": "true"}},
    {"Bool": {"aws:SecureTransport": "true"}},
    {"StringEquals": {"aws:PrincipalOrgID": "o-1234567890"}},
    {"StringEquals": {"aws:PrincipalTag/kubernetes-service-account": "till"}},
    {"StringEquals": {"aws:RequestTag/team": "till"}},
    {"StringLike": {"aws:Referer": "https://shop.example/*"}},
    {"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}},
    {"StringNotEquals": {"aws:PrincipalAccount": "123456789012"}},
    {"ArnNotLike": {"aws:PrincipalArn": ROLE}},
    {"StringEqualsIfExists": {"aws:PrincipalArn": ROLE}},
    {"ForAllValues:StringEquals": {"aws:PrincipalArn": ROLE}},
    {"StringLike": {"aws:PrincipalArn": "*"}},
]
ONLY_ONE_MEETS = [
    {"StringEquals": {"aws:PrincipalArn": ROLE}},
    {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::123456789012:role/shop-*"}},
    {"StringEquals": {"AWS:PrincipalAccount": ["123456789012"]}},
    {"StringLike": {"aws:userid": "AROAEXAMPLE:*"}},
    {"StringEquals": {"aws:PrincipalArn": ROLE}, "Bool": {"aws:SecureTransport": "true"}},
]


def bucket_policy(*statements):
    written = [{"Principal": "*", "Action": "s3:GetObject", "Resource": OBJECTS, **each} for each in statements]
    return Policy.read({"Version": "2012-10-17", "Statement": written}, kind="resource", name="ledger")


@pytest.mark.parametrize("condition", ANYBODY_MEETS, ids=str)
def test_a_condition_that_anybody_can_meet_leaves_a_bucket_open(condition):
    policy = bucket_policy({"Effect": "Allow", "Condition": condition})
    assert surplus.opened_to_everybody(policy) == ["s3:GetObject on arn:aws:s3:::ledger/*"]


@pytest.mark.parametrize("condition", ONLY_ONE_MEETS, ids=str)
def test_a_condition_that_says_who_calls_closes_a_bucket(condition):
    assert surplus.opened_to_everybody(bucket_policy({"Effect": "Allow", "Condition": condition})) == []


def test_a_deny_for_all_but_one_role_closes_a_bucket():
    denied = {"Effect": "Deny", "Condition": {"ArnNotEquals": {"aws:PrincipalArn": ROLE}}}
    assert surplus.opened_to_everybody(bucket_policy({"Effect": "Allow"}, denied)) == []


def test_a_deny_that_a_stranger_evades_leaves_a_bucket_open():
    denied = {"Effect": "Deny", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    assert surplus.opened_to_everybody(bucket_policy({"Effect": "Allow"}, denied))


def test_a_stranger_chooses_the_tag_that_a_policy_variable_reads():
    resource = "arn:aws:s3:::ledger/${aws:PrincipalTag/kubernetes-namespace}/*"
    assert surplus.opened_to_everybody(bucket_policy({"Effect": "Allow", "Resource": resource}))


def test_a_trust_policy_for_whoever_knows_the_external_id_is_open():
    trusted = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    trusted["Condition"] = {"StringEquals": {"sts:ExternalId": "shop"}}
    policy = Policy.read({"Version": "2012-10-17", "Statement": [trusted]}, kind="trust", name="cart")
    assert surplus.opened_to_everybody(policy) == ["sts:AssumeRole on *"]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        (ROLE, True),
        ("arn:aws:iam::123456789012:role/shop-*", True),
        ("AROAEXAMPLE:*", True),
        ("123456789012", True),
        ("arn:aws:iam::*:role/shop-till", False),
        ("1234*", False),
        ("*", False),
        ("AROAEXAMPL*:*", False),
        ("arn:aws:iam::999999999999:role/shop-till", False),
    ],
)
def test_a_wildcard_stands_for_the_shop_s_roles_only_within_an_account(name, known):
    assert _is_among([ROLE, "123456789012", "AROAEXAMPLE:probe"], name) is known
