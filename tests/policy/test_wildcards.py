import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.policy.wildcards import Wild, matcher, split, tokens, wildcard


@pytest.mark.parametrize(("pattern", "text", "matches"), [
    ("", "", True),
    ("", "a", False),
    ("*", "", True),
    ("*", "anything at all", True),
    ("**", "anything", True),
    ("?", "", False),
    ("?", "a", True),
    ("?", "ab", False),
    ("s3:Get*", "s3:GetObject", True),
    ("s3:Get*", "s3:PutObject", False),
    ("*Object", "s3:GetObject", True),
    ("*Object", "s3:GetObjects", False),
    ("*s3*", "s3:GetObjects", True),
    ("a*b*c", "abbbc", True),
    ("a*b*c", "ac", False),
    ("ab*ba", "aba", False),  # the head and the tail do not overlap
    ("a*a", "a", False),
    ("a?c*", "abcdef", True),
    ("*a?c", "xxabxabc", True),
    ("arn:aws:s3:::bucket/*/x", "arn:aws:s3:::bucket/a/b/x", True),
    ("[a-z]+", "abc", False),
    (r"a\*", r"a\whatever", True),
])  # fmt: skip
def test_a_pattern_must_match_the_whole_text(pattern, text, matches):
    assert wildcard(pattern)(text) is matches


@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab\n", max_size=10))
def test_a_pattern_matches_the_same_texts_as_its_regular_expression(pattern, text):
    expression = "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern)
    assert wildcard(pattern)(text) is bool(re.fullmatch(expression, text, re.DOTALL))


@pytest.mark.parametrize("pattern", ["*a" * 1000 + "*b", "*a?" * 600 + "b", "a*" * 1000 + "?b", "?*" * 1000 + "b"])
def test_a_pattern_that_would_hang_a_regular_expression_still_ends(pattern):
    assert not wildcard(pattern)("a" * 20_000)


def test_a_literal_star_is_not_expanded():
    match = matcher(["team-", "*", Wild.ANY])
    assert match("team-*-x")
    assert not match("team-a-x")


@given(st.text(alphabet="a:*", max_size=12))
def test_a_pattern_is_split_like_its_text(pattern):
    def written(token):
        return token.value if isinstance(token, Wild) else token

    parts = ["".join(map(written, part)) for part in split(tokens(pattern), ":", 5)]
    assert parts == pattern.split(":", 5)
