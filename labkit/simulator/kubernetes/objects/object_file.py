"""A file with the objects of one API server, and the number of the last change. A real server uses etcd for this."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from labkit.simulator.database import Database
from labkit.simulator.kubernetes.objects.kinds import KINDS, SECRET, Kind

LAYOUT = 1  # the version of the tables and their contents
TABLES = """
    CREATE TABLE version (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER);
    CREATE TABLE objects (
        resource TEXT, namespace TEXT, name TEXT, text BLOB, PRIMARY KEY (resource, namespace, name)
    ) WITHOUT ROWID
"""
OF_TOKENS = "kubernetes.io/service-account-token"
Made = TypeVar("Made")
BY_NAME = {kind.resource: kind for kind in KINDS}


class ObjectFile:
    """An API server's file: each object as JSON without kind and apiVersion. Raises `LabError` if it can't be used."""

    def __init__(self, file: Path):
        self._database = Database(file, layout=LAYOUT, tables=TABLES)
        self.close = self._database.close

    @property
    def version(self) -> int:
        """The number of the last change; 0 before the first one."""
        return max((number for (number,) in self._database.read("SELECT number FROM version")), default=0)

    def objects(self, made: Callable[[bytes], Made]) -> Iterator[tuple[Kind, Made]]:
        """Yield each object with its kind. ``made`` makes an object from JSON. Raises `LabError` if that fails."""
        for resource, namespace, name, text in self._database.read(
            "SELECT resource, namespace, name, text FROM objects"
        ):
            with self._database.reading(f"the object {name} ({resource}) in {namespace or 'the cluster'}"):
                kind, obj = BY_NAME[resource], made(text)
            yield kind, obj

    def write(self, version: int, kind: Kind, key: tuple[str, str], text: bytes | None) -> None:
        """Store change number ``version``: the object's new ``text``, or None for a deletion. Raises `NotWritten`."""
        database = self._database
        with database.together():
            database.write("INSERT OR REPLACE INTO version VALUES (1, ?)", version)
            if text is None:
                database.write(
                    "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?", kind.resource, *key
                )
            else:
                database.write("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", kind.resource, *key, text)


def forget_tokens(file: sqlite3.Connection) -> None:
    """Remove the service account tokens from all Secrets in a copy of the file.

    The server that starts with this copy writes new tokens.
    https://kubernetes.io/docs/concepts/configuration/secret/#serviceaccount-token-secrets
    """
    select = "SELECT namespace, name, text FROM objects WHERE resource = ?"
    for namespace, name, text in file.execute(select, (SECRET.resource,)).fetchall():
        secret = json.loads(text)
        if secret.get("type") == OF_TOKENS and (secret.get("data") or {}).pop("token", None):
            changed = json.dumps(secret, separators=(",", ":"), ensure_ascii=False).encode()
            key = (SECRET.resource, namespace, name)
            file.execute(
                "UPDATE objects SET text = ? WHERE resource = ? AND namespace = ? AND name = ?", (changed, *key)
            )
