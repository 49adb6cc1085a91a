"""The storage's files: a kill or a power cut leaves a consistent state, and a full disk changes nothing."""

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.simulator import identifiers
from labkit.simulator.clock import Clock
from labkit.simulator.database import Database, NotWritten
from labkit.simulator.identifiers import Identifiers
from labkit.simulator.kubernetes.objects.kinds import CONFIG_MAP, POD
from labkit.simulator.kubernetes.objects.storage import Storage


def opened(folder: Path) -> Storage:
    return Storage(Clock(folder / "clock"), Identifiers("seed", folder / "serials.db"), folder / "objects.db")


def config_map(name: str, **data: str) -> dict:
    return {"metadata": {"name": name, "namespace": "n"}, "data": data}


def texts(storage: Storage) -> list[bytes]:
    return [stored.text for stored in storage.list(CONFIG_MAP)]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "lab"
    path.mkdir()
    return path


def after_a_kill(folder: Path) -> Path:
    """Return a copy of the folder as a killed server leaves it. This process still uses the files."""
    return shutil.copytree(folder, folder.with_name("killed"), dirs_exist_ok=True)


def test_a_killed_server_keeps_all_objects_and_never_reuses_a_uid(folder):
    storage = opened(folder)
    managers = b'[{"manager":"m","fieldsV1":{"f:data":{}}}]'
    kept = storage.create(CONFIG_MAP, config_map("kept", a="ä\U0001f600"), managers)
    storage.replace(CONFIG_MAP, kept, {**kept.object, "data": {"b": "c"}}, managers)
    gone = storage.create(CONFIG_MAP, config_map("gone"))
    last = storage.remove(CONFIG_MAP, gone)
    again = opened(after_a_kill(folder))
    assert texts(again) == texts(storage)
    assert next(again.list(CONFIG_MAP)).managers == managers
    assert again.version == again.oldest == int(last.metadata["resourceVersion"])
    assert again.create(CONFIG_MAP, config_map("gone")).uid not in (gone.uid, kept.uid)


def test_a_power_cut_can_lose_the_last_changes_but_never_part_of_one(folder, tmp_path):
    storage = opened(folder)
    states = {storage.version: []}
    for number in range(20):
        stored = storage.create(CONFIG_MAP, config_map(f"m{number}", text="x" * 3000))
        states[storage.version] = texts(storage)
        if number % 3 == 0:
            storage.remove(CONFIG_MAP, stored)
            states[storage.version] = texts(storage)
    written = (folder / "objects.db-wal").read_bytes()
    seen = set()
    for number in range(21):
        cut = after_a_kill(folder)
        (cut / "objects.db-wal").write_bytes(written[: len(written) * number // 20])
        again = opened(cut)
        assert texts(again) == states[again.version]
        seen.add(again.version)
        again.close()
        again.identifiers.close()
    assert storage.version in seen
    assert len(seen) > 5


def test_a_change_that_does_not_fit_on_the_disk_changes_nothing(folder, monkeypatch):
    storage = opened(folder)
    before = storage.create(CONFIG_MAP, config_map("before"))
    seen = []
    storage.observers.append(seen.append)
    version = storage.version
    # As on a full disk: https://www.sqlite.org/pragma.html#pragma_max_page_count
    for file in (storage._file._database, storage.identifiers._kept):
        file._connection.execute("PRAGMA max_page_count = 1")
    large = config_map("before", text="x" * 100_000)
    with pytest.raises(NotWritten, match="no space is left on the disk"):
        storage.replace(CONFIG_MAP, before, large | {"metadata": before.metadata})
    assert (storage.version, texts(storage), seen) == (version, [before.text], [])
    with pytest.raises(NotWritten, match="no space is left on the disk"):
        for number in range(10_000):
            storage.create(CONFIG_MAP, config_map(f"m{number}", text="x" * 100_000))
    assert texts(opened(after_a_kill(folder))) == texts(storage)


@pytest.mark.parametrize("wrong", [
    {"metadata": {"name": "p", "namespace": "n", "uid": "../../../outside"}},
    {"spec": {"containers": [{"name": "../outside"}]}},
    {"spec": {"containers": [], "initContainers": [{"name": "/outside"}]}},
    {"spec": {"containers": [], "volumes": [{"name": ".."}]}},
    {"spec": {"containers": [], "volumes": [{"name": "a\0"}]}},
], ids=json.dumps)  # fmt: skip
def test_a_pod_whose_names_lead_out_of_the_lab_s_folder_is_refused(folder, wrong):
    """The file may come from a snapshot. Pods' and containers' names are folders of the node."""
    pod = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [{"name": "c"}]}}
    stored = opened(folder).create(POD, pod)
    killed = after_a_kill(folder)
    opened(shutil.copytree(killed, folder.with_name("copy")))
    with contextlib.closing(sqlite3.connect(killed / "objects.db")) as connection, connection:
        connection.execute("UPDATE objects SET text = ?", [json.dumps(stored.object | wrong)])
    with pytest.raises(LabError, match=r"the object p \(pods\) in n cannot be read: ValueError: a name in it is not"):
        opened(killed)


def test_forgotten_serial_numbers_are_never_reused(tmp_path, monkeypatch):
    monkeypatch.setattr(identifiers, "REMEMBERED", 3)
    made = Identifiers("seed", tmp_path / "serials.db")
    for _ in range(5):
        made.serial("kind", "often")
    first = [made.serial("kind", name) for name in ("a", "b", "c")]
    made.close()
    again = Identifiers("seed", tmp_path / "serials.db")
    assert again.serial("kind", "often") >= 5
    assert all(again.serial("kind", name) > number for name, number in zip("abc", first, strict=True))
    again.close()


def test_a_restarted_lab_never_reuses_serial_numbers(tmp_path):
    given: list[int] = []
    for uses in (1, 2, 3, 7):
        made = Identifiers("seed", tmp_path / "serials.db")
        given += [made.serial("kind", "one") for _ in range(uses)]
        made.close()
    assert given == sorted(set(given))
    with contextlib.closing(sqlite3.connect(tmp_path / "serials.db", isolation_level=None)) as database:
        database.execute("UPDATE serials SET next = 99")  # earlier versions stored the very next number
    given = [98]
    for uses in (1, 3):
        made = Identifiers("seed", tmp_path / "serials.db")
        given += [made.serial("kind", "one") for _ in range(uses)]
        made.close()
    assert given == sorted(set(given))


def test_a_database_file_that_is_in_use_is_refused(tmp_path):
    one = Database(tmp_path / "one.db", layout=1, tables="CREATE TABLE t (x)")
    with pytest.raises(LabError, match="cannot be used: database is locked") as refused:
        Database(tmp_path / "one.db", layout=1, tables="CREATE TABLE t (x)")
    assert refused.value.where == str(tmp_path / "one.db")
    one.close()
    assert [*tmp_path.glob("one.db-*")] == []


def test_the_database_stores_the_text_that_clients_get(folder):
    storage = opened(folder)
    stored = storage.create(CONFIG_MAP, config_map("a"), b'[{"manager":"m"}]')
    with sqlite3.connect(after_a_kill(folder) / "objects.db") as database:
        [(kept,)] = database.execute("SELECT text FROM objects")
    database.close()
    assert kept == stored.text
    assert json.loads(kept)["metadata"]["managedFields"] == [{"manager": "m"}]
