"""AWS's state that someone else wrote: a row with anything that no lab writes is refused, and runs nothing."""

import json

import pytest

from labkit.errors import LabError
from labkit.simulator.aws.state.decoding import Reading
from labkit.simulator.aws.state.kept import TABLES
from labkit.simulator.database import AWS_LAYOUT, Database

LIST = json.dumps([[], [], None])


@pytest.mark.parametrize(("name", "content"), [
    ("os:system", LIST), ("builtins:eval", LIST), ("subprocess:Popen", LIST), ("iam.models:os", LIST),
    ("iam.models:json.loads", LIST), ("s3.models:S3BackendDict", LIST), ("kms.utils:KeySpec", LIST), (None, LIST),
    (7, LIST), (b"dict", LIST), ("list", None), ("list", b"\x80\x04."), ("list", "[]"), ("list", "{}"),
    ("list", '[[], {"x": "os.system"}, null]'), ("list", '[[], [{"o": 999}], null]'), ("list", '[[], 1, null]'),
    ("list", '[[], [{"o": "1"}], null]'), ("list", '[[], [{"l": "system"}], null]'), ("dict", '[[], ["a"], null]'),
    ("dict", '[[], [[], 1], null]'), ("defaultdict", '[[], [], "system"]'),
    ("iam.models:Role", '[{"t": []}, null, null]'),
    ("iam.models:Role", '[[1, 2], null, null]'), ("iam.models:Role", '[["a"], null, null]'), ("list", "[" * 5_000),
    ("list", '[[], [{"e": ["kms.utils:KeySpec", "__class__"]}], null]'), ("list", '[[], [{"k": "AAAA"}], null]'),
    ("list", '[[], [{"d": "tomorrow"}], null]'),
    ("dynamodb.models.table_export:TableExport", '[["_target", 1], null, null]'),
], ids=lambda given: repr(given)[:60])  # fmt: skip
def test_a_row_that_no_lab_writes_is_refused(tmp_path, name, content):
    database = Database(tmp_path / "aws.db", layout=AWS_LAYOUT, tables=TABLES)
    database.write("INSERT INTO objects VALUES (1, ?, ?)", name, content)
    with pytest.raises(LabError, match=r"the AWS state of this lab cannot be read: \w+: "):  # noqa: SIM117
        with database.reading("the AWS state of this lab"):
            reading = Reading(database, {})
            reading.take(1)
            reading.fill()
    database.close()
