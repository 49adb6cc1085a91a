"""Whatever you send to the lab's AWS: no 5xx, an answer in time, and no change by a refused request."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.model import Shape
from botocore.serialize import create_serializer
from hypothesis import assume, event, given
from hypothesis import strategies as st

from labkit.simulator import identifiers
from labkit.simulator.aws.state import tracking
from labkit.simulator.aws.state.encoding import Batch
from labkit.simulator.database import Database, NotWritten
from tests.fuzz.conftest import cases
from tests.simulator.aws import spoilt
from tests.simulator.aws.conftest import ACCOUNT, REGION, Aws, Irsa, refused
from tests.simulator.aws.test_any_request import BODIES, HEADERS, METHODS, PATHS, QUERIES, quote, send

WORDS = st.sampled_from(
    ["", "a", "0", "-1", "true", "null", "é", "\0", "\x1b", "x" * 300, "x" * 70_000, "{}", "[", "<a/>", "../..", "%00",
     "9" * 40, "2026-02-31T00:00:00Z", "*", "arn:aws:iam::aws:policy/AdministratorAccess", "arn:aws:::", "${aws:a}",
     Irsa.role_name, Irsa.role_arn, Irsa.provider_arn, Irsa.bucket, "hello.txt", ACCOUNT, REGION, "queue", "id",
     "table", f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/queue", f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue", "blue",
     '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}']
)  # fmt: skip
NUMBERS = st.sampled_from([0, 1, -1, 2, 10, 1000, 2**31, 2**63, -(2**70)])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """A gate that keeps its state, with resources to name in requests."""
    folder = tmp_path_factory.mktemp("aws")
    aws = Aws(folder, state=folder)
    Irsa(aws)
    aws.client("sqs").create_queue(QueueName="queue")
    aws.client("dynamodb").create_table(
        TableName="table",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    yield aws
    aws.close()
    aws.forget_everything()


@cases(100)
@given(method=METHODS, path=PATHS, query=QUERIES, headers=HEADERS, body=BODIES)
def test_an_unsigned_aws_request_gets_a_4xx_and_changes_nothing(aws, method, path, query, headers, body):
    before = held(aws)
    target = quote(path + (f"?{query}" if query else ""), safe="/%?=&;+~*\\")
    status, text = send(aws, method, target, [*headers], body)
    assert 400 <= status < 500, text
    assert held(aws) == before


@cases(100)
@given(data=st.data())
def test_an_administrator_s_aws_request_gets_no_5xx_and_changes_nothing_if_refused(aws, data):
    service, written = data.draw(requests(aws))
    write(aws)
    before = held(aws)
    answer = spoilt.respond(aws, service, written)
    event(f"{service} {answer.status}")
    # The lab answers 501 to an operation that it doesn't have. No SDK retries a 501.
    assert answer.status < 500 or answer.status == 501, f"{service} {written}: {answer.body[:600]!r}"
    if answer.status >= 400:
        assert held(aws) == before, f"{service} {written}: {answer.status}"


def test_a_user_whose_serial_number_cannot_be_stored_leaves_nothing(aws, tmp_path, monkeypatch):
    serials = Database(tmp_path / "serials.db", layout=identifiers.LAYOUT, tables=identifiers.TABLES)
    serials.read("PRAGMA max_page_count = 1")
    with pytest.raises(NotWritten):
        for number in range(1000):
            serials.write("INSERT INTO serials VALUES (NULL, '', ?, 1)", number)
    monkeypatch.setattr(aws.identifiers, "_kept", serials)
    iam, before = aws.client("iam"), held(aws)
    for _ in range(2):
        stored = "The lab could not store this call's changes: the lab's state could not be written: "
        refused(
            lambda: iam.create_user(UserName="new"), 500, "InternalFailure", f"{stored}no space is left on the disk"
        )
        assert held(aws) == before
        assert "new" not in {user["UserName"] for user in iam.list_users()["Users"]}
    serials.close()
    monkeypatch.undo()
    iam.create_user(UserName="new")
    iam.delete_user(UserName="new")


@st.composite
def requests(draw, aws: Aws) -> tuple[str, dict[str, Any]]:
    """A request as botocore writes it, with any values and sometimes another body, query or method."""
    service = draw(st.sampled_from(spoilt.SERVICES))
    model = aws.client(service).meta.service_model
    operation = model.operation_model(draw(st.sampled_from(model.operation_names)))
    serializer = create_serializer(model.protocol, include_validation=False)
    parameters = draw(value_of(operation.input_shape)) if operation.input_shape else {}
    try:
        written = serializer.serialize_to_request(parameters, operation)
    except Exception:  # no client can write it
        assume(False)
    assume("\0" not in written["url_path"] and not any(map(unwritable, written["headers"].items())))
    match draw(st.integers(0, 9)):
        case 0:
            written["body"] = draw(BODIES | JSON.map(lambda value: json.dumps(value).encode()))
        case 1:
            written["query_string"] = {**(written["query_string"] or {}), draw(WORDS): draw(WORDS)}
        case 2:
            written["method"] = draw(st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH"]))
    return service, written


def value_of(shape: Shape, depth: int = 0) -> st.SearchStrategy[Any]:
    """Any values for this shape, mostly of its type."""
    if depth > 4:
        return WORDS
    match shape.type_name:
        case "structure":
            required = {name: value_of(shape.members[name], depth + 1) for name in shape.required_members}
            more = {name: value_of(member, depth + 1) for name, member in shape.members.items() if name not in required}
            return st.fixed_dictionaries(required, optional=more if depth < 2 else {})
        case "list":
            return st.lists(value_of(shape.member, depth + 1), max_size=2)
        case "map":
            return st.dictionaries(WORDS, value_of(shape.value, depth + 1), max_size=2)
        case "boolean":
            return st.booleans()
        case "integer" | "long":
            return NUMBERS
        case "float" | "double":
            return st.floats()
        case "timestamp":
            return st.sampled_from([0, 1_800_000_000, 2**33])
        case "blob":
            return st.binary(max_size=20)
    return st.sampled_from(shape.enum) | WORDS if shape.enum else WORDS


def unwritable(header: tuple[str, Any]) -> bool:
    """Return whether no client could send this header: it has a control character, or isn't Latin-1."""
    return any(ord(letter) < 32 or ord(letter) > 255 for part in header for letter in str(part))


def held(aws: Aws) -> dict[str, object]:
    """moto's objects as the lab's file would have them, and what a write would write now, without ended objects."""

    async def read() -> dict[str, object]:
        return await aws.gate.backend.run(_held, aws.gate._kept._database)

    return spoilt.asyncio.run_coroutine_threadsafe(read(), aws.loop).result(60)


def write(aws: Aws) -> None:
    """Write what calls that only read have made, such as the empty state of a region: the next change would."""
    spoilt.asyncio.run_coroutine_threadsafe(aws.gate._kept.write(), aws.loop).result(60)


def _held(database: Database) -> dict[str, object]:
    batch = Batch(last=10**9)
    for mark in list(tracking.marks.values()):
        if (thing := mark()) is not None:
            batch.take(thing)
    batch.fill()
    batch.give_up()
    rows = {number: (kind, content) for number, kind, content in batch.objects}
    waiting, found = [number for (number,) in database.read("SELECT object FROM roots")], {}
    while waiting:
        number = waiting.pop()
        if number in rows and number not in found:
            found[number] = rows[number]
            waiting += map(int, re.findall(r'{"o": (\d+)}', rows[number][1]))
    return {"objects": found, "elements": [batch.removed, batch.renewed, batch.added]}
