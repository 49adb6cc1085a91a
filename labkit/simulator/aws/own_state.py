"""Keep the gate's own state in the lab's folder.

These are role sessions, EKS's data about clusters, enabled regions, and the thumbprint of the lab's CA.
"""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from labkit.simulator.aws import pickles
from labkit.simulator.database import AWS_LAYOUT, PICKLED_LAYOUT, Database

T = TypeVar("T")
TABLES = """
    CREATE TABLE parts (name TEXT PRIMARY KEY, state TEXT);
    CREATE TABLE sessions (serial INTEGER PRIMARY KEY, key TEXT, session TEXT)
"""
# An entry keeps its place.
KEEP = "INSERT INTO parts VALUES (?, ?) ON CONFLICT DO UPDATE SET state = excluded.state"


class OwnState:
    """The gate's own state, such as role sessions. moto's state is in another file.

    Only the event loop uses the ``file``. Without a ``file``, nothing is kept. Raises `LabError` if another version of
    labkit wrote the file; `NotWritten` if the disk is full.
    """

    def __init__(self, file: Path | None):
        self._database = Database(file, layout=AWS_LAYOUT, tables=TABLES, former=PICKLED_LAYOUT) if file else None
        if self._database and self._database.is_former:
            _convert(self._database)
        rows = self._database.read("SELECT name, state FROM parts ORDER BY rowid") if self._database else []
        self._parts: dict[str, str] = dict(rows)

    def part(self, name: str, read: Callable[[Any], T]) -> T | None:
        """Return what ``read`` makes of the value that `keep_part` stored under this name; None without a value.

        Raises `LabError` if ``read`` raises: a snapshot can have any JSON value.
        """
        if not self._database or name not in self._parts:
            return None
        with self._database.reading(f"the state of {name} in this lab"):
            return read(json.loads(self._parts[name]))

    def entries(self, name: str) -> list[dict[str, object]]:
        """Return the values that `keep_part` stored under names that begin with this name and a slash, in order."""
        return [json.loads(self._parts[each]) for each in self._below(name)]

    def keep_part(self, name: str, state: object) -> None:
        """Keep a JSON value under this name. Raises `NotWritten`.

        With None as the ``state``, delete the value and its `entries`.
        """
        content = None if state is None else json.dumps(state)
        if not self._database or self._parts.get(name) == content:
            return
        if content is None:
            gone = [name, *self._below(name)]
            with self._database.together():
                self._database.write_many("DELETE FROM parts WHERE name = ?", [(each,) for each in gone])
            for each in gone:
                self._parts.pop(each, None)
        else:
            self._database.write(KEEP, name, content)
            self._parts[name] = content

    def _below(self, name: str) -> list[str]:
        return [each for each in self._parts if each.startswith(f"{name}/")]

    def sessions(self) -> list[dict[str, Any]]:
        """Return the role sessions, the oldest first."""
        rows = self._database.read("SELECT session FROM sessions ORDER BY serial") if self._database else []
        return [json.loads(session) for (session,) in rows]

    def keep_session(self, key: str, session: dict[str, object]) -> None:
        """Keep a role session. ``key`` is its access key id. Raises `NotWritten`."""
        if self._database:
            self._database.write("INSERT INTO sessions VALUES (NULL, ?, ?)", key, json.dumps(session))

    def forget_session(self, key: str) -> None:
        """Delete a kept role session. Raises `NotWritten`."""
        if self._database:
            # The oldest session is forgotten first, so the search finds it at once. An index would slow down `INSERT`.
            self._database.write(
                "DELETE FROM sessions WHERE serial = (SELECT serial FROM sessions WHERE key = ? LIMIT 1)", key
            )

    def close(self) -> None:
        """Close the file."""
        if self._database:
            self._database.close()


def _convert(database: Database) -> None:
    """Replace the pickles of version 0.1.0."""
    pickles.require_owner(database)
    with database.reading("the state of EKS in this lab"):
        rows = database.read("SELECT name, state FROM parts")
        parts = [(name, json.dumps(pickles.own_part(content))) for name, content in rows]
    with database.together():
        database.renew(["parts"])
        database.write_many("INSERT INTO parts VALUES (?, ?)", parts)


def forget_sessions(file: sqlite3.Connection) -> None:
    """Delete the role sessions from ``file``, a copy of the original lab's file.

    The sessions' credentials only work in the original lab.
    """
    file.execute("DELETE FROM sessions")
