"""Where the statements of a policy stand in its text, as `simulate-principal-policy` answers it."""

import pytest

from labkit.policy import statement_positions

LIST = """{
 "Version": "2012-10-17",
 "Statement": [
  {"Effect": "Allow"},
  {"Effect": "Deny"}
 ]
}"""


@pytest.mark.parametrize(
    ("text", "positions"),
    [
        ('{"Statement": {"Effect": "Allow"}}', [((1, 16), (1, 34))]),
        ('{ "Id" : "x" , "Statement" : {"Effect": "Allow"} }', [((1, 31), (1, 49))]),
        ('{"Statement": [{"a": 1} , {"b": 2}]}', [((1, 16), (1, 24)), ((1, 24), (1, 35))]),
        (LIST, [((3, 16), (4, 22)), ((4, 22), (5, 21))]),
        ('{"Statement":[]}', []),
        ('{"Version": "2012-10-17"}', []),
        ("{}", []),
        (" {", []),
    ],
)
def test_lines_and_columns_count_from_one_and_a_list_s_statement_starts_where_the_one_before_ends(text, positions):
    assert [*statement_positions(text)] == positions
