"""AWS's state that someone else wrote: a row with anything that no lab writes is refused, and runs nothing."""

import base64
import json
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from moto.iam.models import Role

from labkit.errors import LabError
from labkit.simulator.aws import pickles
from labkit.simulator.aws.state import former
from labkit.simulator.aws.state.decoding import TEXTS, Reading
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


@pytest.mark.parametrize(("module", "name"), [
    ("moto.iam.models", "Role"), ("threading", "Condition"), ("builtins", "dict"),
    ("labkit.simulator.aws.state.pickling", "_fill_dict"), ("labkit.simulator.aws.pod_identity", "Associations"),
])  # fmt: skip
@pytest.mark.parametrize("is_pair", [False, True])
def test_an_old_pickle_changes_no_class_or_function(tmp_path, module, name, is_pair):
    attributes = b"}Vowned\nK\x01s"
    content = f"c{module}\n{name}\n".encode() + (b"N" + attributes + b"\x86" if is_pair else attributes) + b"b."
    database = Database(tmp_path / "aws.db", layout=AWS_LAYOUT, tables="CREATE TABLE stores (service, account, state)")
    database.write("INSERT INTO stores VALUES ('iam', '123456789012', ?)", content)
    for read in (lambda: former.put_back(database), lambda: pickles.own_part(content)):
        with pytest.raises(ValueError, match=r"it may not (set attributes of|use) "):
            read()
    assert not any(hasattr(each, "owned") for each in (Role, threading.Condition, dict, former._fill_dict))
    database.close()


def test_a_stored_rsa_key_is_checked_at_its_first_use():
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert stored_key(der).public_key().public_numbers() == key.public_key().public_numbers()
    wrong = key.private_numbers().d.to_bytes(128, "big")
    made_up = stored_key(der.replace(wrong, wrong[:-1] + bytes([wrong[-1] ^ 2])))
    with pytest.raises(ValueError, match=r"(?i)key"):
        made_up.public_key()


def stored_key(der: bytes) -> rsa.RSAPrivateKey:
    return TEXTS["k"](base64.b64encode(der).decode())
