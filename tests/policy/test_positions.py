"""The position of each statement in a policy's text, as `simulate-principal-policy` reports it."""

import pytest

from labkit.policy import statement_positions

LIST = """{
 "Version": "2012-10-17",
 "Statement": [
  {"Effect": "Allow"},
  {"Effect": "Deny"}
 ]
}"""


@pytest.mark.parametrize(("text", "positions"), [
    ('{"Statement": {"Effect": "Allow"}}', [((1, 16), (1, 34))]),
    ('{ "Id" : "x" , "Statement" : {"Effect": "Allow"} }', [((1, 31), (1, 49))]),
    ('{"Statement": [{"a": 1} , {"b": 2}]}', [((1, 16), (1, 24)), ((1, 24), (1, 35))]),
    (LIST, [((3, 16), (4, 22)), ((4, 22), (5, 21))]),
    ('{"Statement":[]}', []),
    ('{"Version": "2012-10-17"}', []),
    ("{}", []),
    (" {", []),
])  # fmt: skip
def test_statement_positions_match_simulate_principal_policy(text, positions):
    """Lines and columns count from 1. In a list, a statement starts where the one before it ends."""
    assert [*statement_positions(text)] == positions
