"""Whatever the lab's file has as AWS's state: it's read or refused in one sentence, and nothing in it is run."""

import codecs
import gc
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import botocore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.core.base_backend import BackendDict
from moto.s3.models import FakeKey

from labkit.errors import LabError
from labkit.simulator.aws import pickles
from labkit.simulator.aws.state import classes, former, kept, places, tracking
from labkit.simulator.aws.state.decoding import Reading
from labkit.simulator.database import AWS_LAYOUT, Database
from tests.fuzz.conftest import cases

# What Python reports to an audit hook if the file has its way: https://docs.python.org/3/library/audit_events.html
FORBIDDEN = (
    "import", "exec", "compile", "subprocess.", "socket.", "ctypes.", "shutil.", "pty.", "tempfile.", "webbrowser.",
    "marshal.", "sys.settrace", "os.exec", "os.fork", "os.kill", "os.link", "os.mkdir", "os.posix_spawn", "os.remove",
    "os.rename", "os.rmdir", "os.symlink", "os.system", "os.truncate", "os.chmod",
)  # fmt: skip
PACKAGES = (sys.prefix, str(Path(botocore.__file__).parent))
_forbidden: list[list[str]] = []
"""The list that gets the forbidden events now, if any."""


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    # moto reads its own data, such as the names of regions, and botocore's.
    writes = event == "open" and not (arguments[1] in ("r", "rb") and str(arguments[0]).startswith(PACKAGES))
    if _forbidden and (writes or event.startswith(FORBIDDEN)):
        _forbidden[-1].append(f"{event} {arguments}"[:200])


sys.addaudithook(_hook)


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> Iterator[None]:
    """Load every module that the state may name, so that a later import is one that it may not cause."""
    for module in classes.MODULES:
        import_module(f"moto.{module}")
    # Python itself loads these to read a pickle's texts.
    for name in ("ascii", "raw_unicode_escape"):
        codecs.lookup(name)
    classes.watch()
    places.watch(kept.KEPT)
    with pytest.MonkeyPatch.context() as without:
        # A key without its attributes fails when it ends, at any time. Python only reports that.
        without.delattr(FakeKey, "__del__")
        yield
        BackendDict.reset()
        gc.collect()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(tmp_path_factory.mktemp("state") / "aws.db", layout=AWS_LAYOUT, tables=kept.TABLES)
    # The former file's tables, which had other columns.
    for table in former.TABLES:
        database.write(f"DROP TABLE IF EXISTS {table}")
    database.write("CREATE TABLE stores (service TEXT, account TEXT, state BLOB)")
    database.write("CREATE TABLE bodies (number INTEGER PRIMARY KEY, content BLOB, name TEXT)")
    yield database
    database.close()


@contextmanager
def refused_or_read(database: Database) -> Iterator[None]:
    """Fail if the block does more than reading, or ends with another error than a sentence."""
    done: list[str] = []
    _forbidden.append(done)
    try:
        with database.reading("the AWS state of this lab"):
            yield
    except LabError as error:
        assert "\n" not in error.what.split(": ", 1)[0], error.what
    finally:
        _forbidden.clear()
        tracking.changed.clear()
        tracking.ended.clear()
    assert done == []


# --- Pickles, as version 0.1.0 wrote them ---

NAMED = [(f"moto.{name.split(':')[0]}", name.split(":")[1]) for name in (
    "iam.models:Role", "s3.models:FakeKey", "s3.models:FakeBucket", "sqs.models:Queue", "kms.models:Key",
    "dynamodb.models.table_export:TableExport", "ssm.models:ParameterDict", "utilities.utils:CaseInsensitiveDict",
)] + [
    *pickles.ALLOWED, ("builtins", "getattr"), ("re", "_compile"), ("moto.core.base_backend", "BaseModel.__new__"),
    *((f"labkit.simulator.aws.state.{module}", name) for module, name in (
        ("places", "backend_at"), ("pickling", "_fill"), ("pickling", "_fill_dict"), ("pickling", "_default_dict"),
        ("pickling", "_private_key"), ("pickling", "_ended"))),
    *((f"labkit.simulator.aws.{name}", "Anything") for name in pickles.OWN),
]  # fmt: skip
GADGETS = [
    ("os", "system"), ("posix", "system"), ("subprocess", "Popen"), ("builtins", "eval"), ("builtins", "exec"),
    ("builtins", "__import__"), ("builtins", "open"), ("builtins", "getattr"), ("importlib", "import_module"),
    ("operator", "attrgetter"), ("operator", "methodcaller"), ("functools", "partial"), ("types", "CodeType"),
    ("types", "FunctionType"), ("pickle", "loads"), ("pathlib", "Path.unlink"), ("shutil", "rmtree"), ("pty", "spawn"),
    ("builtins", "type"), ("builtins", "setattr"), ("builtins", "vars"), ("webbrowser", "open"), ("timeit", "timeit"),
    ("moto.core.utils", "os.system"), ("moto.s3.models", "os"), ("moto.iam.models", "json.loads"),
    ("moto.iam.models", "Role.__init__.__globals__"), ("labkit.simulator.aws.state.pickling", "os.system"),
    ("labkit.simulator.aws.state.classes", "importlib"), ("", "system"), ("moto.", ":"), ("moto.kms.models", ""),
]  # fmt: skip
WORDS = st.sampled_from([
    "", "a", "__new__", "__class__", "__dict__", "__init__", "__reduce__", "__setstate__", "__getattr__", "__code__",
    "__globals__", "system", "touch /tmp/owned", "us-east-1", "123456789012", "iam", "s3", "sqs", "_value_buffer",
    "_target", "_started", "default_factory", "append", "name", "value", former.BODY, "é\x1b", "x" * 300,
])  # fmt: skip


def short(text: str) -> bytes:
    raw = text.encode()
    return pickle.BINUNICODE + len(raw).to_bytes(4, "little") + raw


def of_two(one: bytes, other: bytes, code: bytes) -> bytes:
    return one + other + code


GLOBALS = st.sampled_from([*NAMED * 3, *GADGETS]).flatmap(
    lambda name: st.sampled_from([
        short(name[0]) + short(name[1]) + pickle.STACK_GLOBAL, pickle.GLOBAL + f"{name[0]}\n{name[1]}\n".encode()
    ])
)  # fmt: skip
CONSTANTS = (
    WORDS.map(short)
    | st.integers(0, 255).map(lambda number: pickle.BININT1 + bytes([number]))
    | st.binary(max_size=12).map(lambda raw: pickle.SHORT_BINBYTES + bytes([len(raw)]) + raw)
    | st.sampled_from([pickle.NONE, pickle.NEWTRUE, pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_SET,
                       pickle.EMPTY_TUPLE, pickle.BINGET + b"\0", pickle.BINFLOAT + bytes(8)])
)  # fmt: skip


def made(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    several = st.lists(inner, max_size=3).map(lambda each: pickle.MARK + b"".join(each) + pickle.TUPLE)
    attributes = st.dictionaries(WORDS, inner, max_size=3).map(
        lambda items: (
            pickle.EMPTY_DICT
            + pickle.MARK
            + b"".join(short(name) + value for name, value in items.items())
            + pickle.SETITEMS
        )
    )
    return (
        several
        | attributes
        | st.lists(inner, max_size=3).map(
            lambda each: pickle.EMPTY_LIST + pickle.MARK + b"".join(each) + pickle.APPENDS
        )
        | st.builds(of_two, GLOBALS, several, st.sampled_from([pickle.REDUCE, pickle.NEWOBJ]))
        | st.builds(of_two, inner, several, st.just(pickle.REDUCE))
        | st.builds(of_two, inner, attributes, st.just(pickle.BUILD))
        | st.builds(
            of_two, inner, attributes.map(lambda each: pickle.NONE + each + pickle.TUPLE2), st.just(pickle.BUILD)
        )
        | inner.map(lambda each: each + pickle.MEMOIZE)
    )


OPCODES = [bytes([each]) for each in range(256) if bytes([each]) not in (pickle.LONG_BINPUT, pickle.PUT)]
VALUES = st.recursive(CONSTANTS | GLOBALS, made, max_leaves=8)


@st.composite
def pickled(draw: Callable[[Any], Any]) -> bytes:
    """A pickle of allowed and other names, sometimes with other opcodes somewhere, or cut off."""
    content = pickle.PROTO + b"\4" + draw(VALUES) + pickle.STOP
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(st.sampled_from(OPCODES)) + content[at + draw(st.integers(0, 1)) :]
    return content[: draw(st.sampled_from([len(content), len(content), len(content) // 2]))]


@cases(300)
@given(content=pickled(), is_state=st.booleans())
def test_a_pickle_of_an_earlier_version_runs_nothing(database, content, is_state):
    database.write("DELETE FROM stores")
    database.write("INSERT INTO stores VALUES ('iam', '123456789012', ?)", content)
    with refused_or_read(database):
        if is_state:
            former.put_back(database)
        else:
            json.dumps(pickles.own_part(content))


# --- Rows, as today's version writes them ---

KINDS = st.sampled_from([*classes.OTHERS, *(
    "iam.models:Role", "iam.models:User", "s3.models:FakeKey", "s3.models:FakeBucket", "sqs.models:Queue",
    "dynamodb.models.table:Table", "dynamodb.models.dynamo_type:DynamoType", "kms.utils:KeySpec", "kms.models:Key",
    "dynamodb.models.table_export:TableExport", "ssm.models:ParameterDict", "utilities.utils:CaseInsensitiveDict",
)]) | st.sampled_from([
    "os:system", "builtins:eval", "subprocess:Popen", "s3.models:S3BackendDict", "iam.models:Role.__init__",
    "iam.models:os", "core.base_backend:BackendDict", ":", "iam.models:", "", "é\0",
])  # fmt: skip
TAGGED = [
    *(st.fixed_dictionaries({tag: WORDS}) for tag in "bdankslo"),
    st.sampled_from([{"o": number} for number in (0, 1, 2, 3, 99, -1, 2**63)]),
    st.sampled_from([{"s": 1e308}, {"s": -1}, {"l": "RLock"}, {"n": "1e999999999"}, {"d": "2026-01-01"}, {"b": "AA=="},
                     {"e": ["kms.utils:KeySpec", "RSA_2048"]}, {"e": ["kms.utils:KeySpec", "mro"]}, {"e": []},
                     {"e": ["iam.models:Role", "__init__"]}, {"y": ["N", "1"]}, {"y": ["S", {"l": "Lock"}]}, {}]),
]  # fmt: skip
CONTENT = st.recursive(
    st.none() | st.booleans() | st.sampled_from([0, -1, 2**70, 1.5]) | WORDS | st.one_of(TAGGED),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(WORDS, inner, max_size=2)
        | st.fixed_dictionaries({"t": st.lists(inner, max_size=2)})
    ),
    max_leaves=6,
)
ATTRIBUTES = st.dictionaries(WORDS, CONTENT, max_size=4).map(
    lambda named: [each for pair in named.items() for each in pair]
)
FACTORIES = st.sampled_from([None, None, *classes.FACTORIES, "system", "os:system"])
ROWS = st.tuples(ATTRIBUTES, st.none() | st.lists(CONTENT, max_size=6), FACTORIES).map(json.dumps)
OBJECTS = st.lists(st.tuples(KINDS, ROWS | CONTENT.map(json.dumps) | WORDS), min_size=1, max_size=4)
ELEMENTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3) | CONTENT.map(json.dumps), CONTENT.map(json.dumps) | WORDS),
    max_size=4,
)
ROOTS = st.lists(
    st.tuples(st.sampled_from([*kept.KEPT, "ec2", "os", ""]), st.sampled_from(["123456789012", "", "../x"]),
              st.sampled_from(["us-east-1", "aws", "bucket_accounts", "__dict__", "nowhere"]), st.integers(0, 3)),
    max_size=2,
)  # fmt: skip


@cases(300)
@given(objects=OBJECTS, elements=ELEMENTS, roots=ROOTS)
def test_rows_that_no_lab_writes_run_nothing(database, objects, elements, roots):
    for table in ("objects", "elements"):
        database.write(f"DELETE FROM {table}")
    database.write_many("INSERT INTO objects VALUES (?, ?, ?)", [(at, *row) for at, row in enumerate(objects, 1)])
    database.write_many("INSERT OR REPLACE INTO elements VALUES (NULL, ?, ?, ?)", elements)
    with refused_or_read(database):
        reading = Reading(database, {})
        for service, account_id, name, number in roots:
            reading.take(number, places.root(service, account_id, name))
        for number in range(1, len(objects) + 1):
            reading.take(number)
        reading.fill()
