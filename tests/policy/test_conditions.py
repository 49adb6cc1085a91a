import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.policy.conditions import _OPERATORS, compile_condition, known_operator

KEY = "aws:Example"
CANNOT_TELL = None
NOTHING = ()


def holds(operator, wanted, found, **others):
    wanted = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    found = (found,) if isinstance(found, str) else tuple(found)
    values = {KEY.lower(): found} if found else {}
    return compile_condition(operator, KEY, wanted, variables=True).test(values | others)


def b64(data):
    return base64.b64encode(data).decode()


ROLE = "arn:aws:iam::123456789012:role/path/my-role"


@pytest.mark.parametrize(("operator", "wanted", "found", "result"), [
    ("StringEquals", "a", "a", True),
    ("StringEquals", "a", "A", False),
    ("StringEquals", ["a", "b"], "b", True),
    ("StringEquals", "system:serviceaccount:*:a", "system:serviceaccount:default:a", False),
    ("StringEquals", "a*", "a*", True),
    ("StringEquals", "", "", True),
    ("StringNotEquals", "a", "b", True),
    ("StringNotEquals", ["a", "b"], "b", False),
    ("StringEqualsIgnoreCase", "MiXed", "mIxED", True),
    ("StringNotEqualsIgnoreCase", "MiXed", "mIxED", False),
    ("StringLike", "system:serviceaccount:*:a", "system:serviceaccount:default:a", True),
    ("StringLike", "a?c", "abc", True),
    ("StringLike", "a?c", "abbc", False),
    ("StringLike", "A*", "abc", False),
    ("StringLike", "a${*}c", "abc", False),
    ("StringLike", "a${*}c", "a*c", True),
    ("StringNotLike", ["a*", "b*"], "bc", False),
    ("StringNotLike", "a*", "bc", True),
    ("NumericEquals", "10", "10.0", True),
    ("NumericNotEquals", "10", "11", True),
    ("NumericLessThan", "10", "9", True),
    ("NumericLessThan", "10", "10", False),
    ("NumericLessThanEquals", "10", "10", True),
    ("NumericGreaterThan", "-1", "0", True),
    ("NumericGreaterThanEquals", "9", "10", True),
    ("NumericLessThanEquals", "10", "ten", CANNOT_TELL),
    ("NumericNotEquals", "ten", "10", CANNOT_TELL),
    ("NumericEquals", "1e5", "100000", CANNOT_TELL),
    ("NumericEquals", "NaN", "NaN", CANNOT_TELL),
    ("NumericEquals", "7" * 63, "7" * 63, True),
    ("NumericEquals", "7" * 64, "7" * 64, CANNOT_TELL),
    ("DateEquals", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", True),
    ("DateNotEquals", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", True),
    ("DateLessThan", "2026-01-01", "2025-12-31T23:59:59Z", True),
    ("DateLessThanEquals", "1767225600", "2026-01-01T00:00:00Z", True),  # epoch seconds
    ("DateGreaterThan", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z", True),
    ("DateGreaterThanEquals", "2026-01-01T00:00:00Z", "2025-12-31T00:00:00Z", False),
    ("DateLessThan", "soon", "2026-01-01", CANNOT_TELL),
    ("DateLessThan", "9" * 30, "2026-01-01", CANNOT_TELL),
    ("DateGreaterThan", "2026-01-01", "9" * 19, True),
    ("DateGreaterThan", "2026-01-01", "9" * 20, CANNOT_TELL),
    ("Bool", "true", "true", True),
    ("Bool", "True", "true", True),
    ("Bool", "false", "true", False),
    ("Bool", "yes", "true", CANNOT_TELL),
    ("BinaryEquals", b64(b"abc"), b64(b"abc"), True),
    ("BinaryEquals", b64(b"abc"), b64(b"abd"), False),
    ("BinaryEquals", "!!", b64(b"abc"), CANNOT_TELL),
    ("IpAddress", "203.0.113.0/24", "203.0.113.7", True),
    ("IpAddress", "203.0.113.0/24", "203.0.114.7", False),
    ("IpAddress", "203.0.113.7", "203.0.113.7", True),
    ("IpAddress", ["10.0.0.0/8", "2001:db8::/32"], "2001:db8::1", True),
    ("IpAddress", "10.0.0.0/8", "::1", False),
    ("IpAddress", "10.0.0.1/8", "10.9.9.9", True),
    ("NotIpAddress", "203.0.113.0/24", "203.0.113.7", False),
    ("NotIpAddress", "203.0.113.0/24", "198.51.100.1", True),
    ("NotIpAddress", "203.0.113.0/24", "s3.amazonaws.com", CANNOT_TELL),
    ("ArnEquals", "arn:aws:iam::123456789012:role/*", ROLE, True),  # expands wildcards, as ArnLike
    ("ArnLike", "arn:aws:iam::*:role/*/my-role", ROLE, True),
    ("ArnLike", "arn:aws:iam::123456789012:role/path", ROLE, False),
    ("ArnLike", "arn:*:my-role", "arn:aws:iam::123456789012:my-role", False),  # part by part
    ("ArnLike", "*", ROLE, True),
    ("ArnLike", "arn:aws:logs:*:*:log-group:a*", "arn:aws:logs:us-east-1:123456789012:log-group:a:*", True),
    ("ArnNotEquals", "arn:aws:iam::*:role/*", ROLE, False),
    ("ArnNotLike", "arn:aws:iam::999999999999:*", ROLE, True),
    ("ArnLike", "arn:aws:*", "no arn", CANNOT_TELL),
    ("ArnLike", "arn:aws:*", "arn:aws:iam", CANNOT_TELL),
    ("ArnLike", "*", "urn:aws:iam::123456789012:my-role", CANNOT_TELL),
    ("Null", "true", NOTHING, True),
    ("Null", "true", "here", False),
    ("Null", "false", "here", True),
    ("Null", "false", NOTHING, False),
    ("Null", "maybe", "here", CANNOT_TELL),
])  # fmt: skip
def test_each_operator_compares_the_wanted_value_with_the_found_one(operator, wanted, found, result):
    assert holds(operator, wanted, found) is result


NEGATED = sorted(name for name, operator in _OPERATORS.items() if operator.negated)
POSITIVE = sorted(name for name, operator in _OPERATORS.items() if not operator.negated)


@pytest.mark.parametrize("operator", POSITIVE)
def test_a_missing_key_matches_a_positive_operator_only_with_if_exists(operator):
    assert holds(operator, "1", NOTHING) is False
    assert holds(f"{operator}IfExists", "1", NOTHING) is True


@pytest.mark.parametrize("operator", NEGATED)
def test_a_missing_key_matches_a_negated_operator(operator):
    assert holds(operator, "1", NOTHING) is True
    assert holds(f"{operator}IfExists", "1", NOTHING) is True


def test_if_exists_still_compares_a_key_that_exists():
    assert holds("StringEqualsIfExists", "a", "b") is False
    assert holds("StringNotEqualsIfExists", "a", "a") is False


@pytest.mark.parametrize(("operator", "wanted", "found", "result"), [
    ("ForAllValues:StringEquals", ["a", "b"], ["a"], True),
    ("ForAllValues:StringEquals", ["a", "b"], ["a", "c"], False),
    ("ForAllValues:StringEquals", ["a"], NOTHING, True),
    ("ForAllValues:StringEquals", ["a"], [""], True),  # an empty value counts as a missing key
    ("ForAllValues:StringNotEquals", ["a", "b"], ["c", "d"], True),
    ("ForAllValues:StringNotEquals", ["a", "b"], ["c", "a"], False),
    ("ForAllValues:StringLike", ["a*"], ["ab", "ac"], True),
    ("ForAnyValue:StringEquals", ["a", "b"], ["c", "b"], True),
    ("ForAnyValue:StringEquals", ["a", "b"], ["c", "d"], False),
    ("ForAnyValue:StringEquals", ["a"], NOTHING, False),
    ("ForAnyValue:StringNotEquals", ["a"], NOTHING, False),
    ("ForAnyValue:StringNotEquals", ["a"], ["a", "b"], True),
    ("ForAnyValue:StringNotEquals", ["a"], ["a"], False),
    ("ForAnyValue:StringEqualsIfExists", ["a"], NOTHING, True),
    ("ForAnyValue:NumericLessThan", ["5"], ["x", "3"], True),
    ("ForAnyValue:NumericLessThan", ["5"], ["x", "7"], CANNOT_TELL),
    ("ForAllValues:NumericLessThan", ["5"], ["x", "7"], False),
    ("ForAllValues:NumericLessThan", ["5"], ["x", "3"], CANNOT_TELL),
])  # fmt: skip
def test_set_operators_compare_each_of_a_key_s_values(operator, wanted, found, result):
    assert holds(operator, wanted, found) is result


@pytest.mark.parametrize("operator", ["StringEquals", "StringNotEquals", "StringLike"])
def test_several_values_need_a_set_operator(operator):
    condition = compile_condition(operator, KEY, ("a",), variables=True)
    assert condition.test({KEY.lower(): ("a", "b")}) is CANNOT_TELL
    assert "without ForAnyValue: or ForAllValues:" in condition.result({KEY.lower(): ("a", "b")}).problem


@pytest.mark.parametrize(("operator", "found", "problem"), [
    ("NumericEquals", ("x",), 'NumericEquals cannot compare "x" with "1" or "2"'),
    ("ForAllValues:NumericEquals", ("x", "1"), 'ForAllValues:NumericEquals cannot compare "x" or "1" with "1" or "2"'),
    ("NumericEquals", ("3",
                       "4"),
     "aws:Example has 2 values, but without ForAnyValue: or ForAllValues:, NumericEquals compares only one"),
    ("NumericEquals", ("3",), None),
])  # fmt: skip
def test_a_condition_says_why_it_cannot_be_evaluated(operator, found, problem):
    condition = compile_condition(operator, KEY, ("1", "2"), variables=True)
    assert condition.result({KEY.lower(): found}).problem == problem


def test_a_list_with_one_value_counts_as_that_value():
    assert holds("StringEquals", "sts.amazonaws.com", ["sts.amazonaws.com"]) is True


@pytest.mark.parametrize("operator", sorted(_OPERATORS))
def test_a_condition_without_values_cannot_be_decided(operator):
    assert holds(operator, [], "1") is CANNOT_TELL


@pytest.mark.parametrize(("operator", "wanted", "found", "result"), [
    ("StringEquals", "${aws:username}", "ann", True),
    ("StringEquals", "${aws:username}", "bob", False),
    ("StringEquals", ["bob", "${aws:username}"], "bob", True),
    ("StringEqualsIgnoreCase", "x-${aws:username}", "X-ANN", True),
    ("StringLike", "home/${aws:username}/*", "home/ann/x", True),
    ("StringLike", "${aws:PrincipalTag/star}", "anything", False),  # a * in a variable's value is literal
    ("StringEquals", "${aws:PrincipalTag/none}", "ann", False),
    ("StringNotEquals", "${aws:PrincipalTag/none}", "ann", True),
    ("ArnLike", "arn:aws:iam::*:user/${aws:username}", "arn:aws:iam::123456789012:user/ann", True),
    ("ArnLike", "${aws:PrincipalArn}", "arn:aws:iam::123456789012:user/ann", True),
    ("ArnLike", "arn:aws:iam::*:user/${aws:PrincipalTag/none}", "arn:aws:iam::123456789012:user/ann", False),
    ("StringEquals", "${aws:username", "${aws:username", CANNOT_TELL),
    ("StringNotEquals", "${}", "x", CANNOT_TELL),
    ("NumericEquals", "${aws:username}", "1", CANNOT_TELL),  # variables are for strings and ARNs
])  # fmt: skip
def test_variables_in_wanted_values_are_filled_in(operator, wanted, found, result):
    values = {
        "aws:username": ("ann",),
        "aws:principaltag/star": ("*",),
        "aws:principalarn": ("arn:aws:iam::123456789012:user/ann",),
    }
    assert holds(operator, wanted, found, **values) is result


@pytest.mark.parametrize("name", [
    "StringMatches",
    "stringequals",
    "StringEqualsIfExist",
    "ForSomeValues:StringEquals",
    "NullIfExists",
    "IfExists",
    "",
    ":",
    "ForAnyValue:ForAllValues:StringEquals",
])  # fmt: skip
def test_a_condition_with_an_unknown_operator_cannot_be_evaluated(name):
    assert not known_operator(name)
    condition = compile_condition(name, KEY, ("a",), variables=True)
    assert condition.test({KEY.lower(): ("a",)}) is CANNOT_TELL
    assert condition.result({}).problem == f"the condition operator {name} is unknown"


@given(
    st.sampled_from(sorted(_OPERATORS)),
    st.sampled_from(["", "ForAnyValue:", "ForAllValues:"]),
    st.sampled_from(["", "IfExists"]),
    st.lists(st.text(), max_size=3),
    st.lists(st.text(), max_size=3),
)
def test_no_value_makes_an_operator_raise(operator, quantifier, suffix, wanted, found):
    assert holds(quantifier + operator + suffix, wanted, found) in (True, False, None)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), st.sampled_from("abcd"))
def test_a_negated_operator_is_the_opposite_if_the_key_exists(wanted, found):
    for base in ("StringEquals", "StringLike"):
        assert holds(base, wanted, found) is not holds(base.replace("String", "StringNot"), wanted, found)
