import pytest

from labkit.policy.wildcards import Unreadable, parse_template

VALUES = {"aws:username": ("ann",), "aws:principaltag/team": ("blue*",), "aws:tagkeys": ("a", "b"), "empty": ("",)}


def filled(text, **options):
    tokens = parse_template(text, **{"variables": True, "wildcards": False} | options).fill(VALUES)
    return None if tokens is None else "".join(tokens)


@pytest.mark.parametrize(("text", "meaning"), [
    ("plain", "plain"),
    ("home/${aws:username}/x", "home/ann/x"),
    ("${AWS:UserName}", "ann"),
    ("${ aws:username }", "ann"),
    ("${aws:PrincipalTag/team, 'none'}", "blue*"),
    ("${aws:PrincipalTag/none, 'no-team'}", "no-team"),
    ("${aws:PrincipalTag/none,'a } brace'}!", "a } brace!"),
    ("${aws:PrincipalTag/none, ''}", ""),
    ("}${aws:PrincipalTag/none, ''}!", "}!"),
    ("${aws:username}${aws:username}", "annann"),
    ("${aws:PrincipalTag/none}", None),
    ("${aws:TagKeys}", None),  # several values
    ("${aws:TagKeys, 'default'}", "default"),
    ("${empty}", ""),
    ("a${*}b${?}c${$}{d}", "a*b?c${d}"),
    ("$aws:username", "$aws:username"),
])  # fmt: skip
def test_a_variable_is_replaced_by_the_value_of_its_key(text, meaning):
    assert filled(text) == meaning


def test_with_variables_off_a_placeholder_stays_literal():
    assert filled("${aws:username}", variables=False) == "${aws:username}"


@pytest.mark.parametrize("text", ["${aws:username", "${}", "${a, b}", "${a, 'b}", "${a${b}}", "${*", "${a, 'b"])
def test_reading_a_malformed_variable_raises(text):
    with pytest.raises(Unreadable):
        parse_template(text, variables=True, wildcards=True)


def test_ten_thousand_unclosed_variables_raise_one_short_message():
    with pytest.raises(Unreadable) as refused:
        parse_template("${" * 10_000, variables=True, wildcards=True)
    assert str(refused.value) == f"the variable '{'${' * 20}' has no closing brace"
