"""Keep the gate's own state in the lab's folder.

These are role sessions, EKS's data about clusters, enabled regions, and the thumbprint of the lab's CA.
"""

import json
import pickle
import sqlite3
from pathlib import Path
from typing import Any

from labkit.simulator.database import Database

LAYOUT = 1  # the version of the tables and of their contents
TABLES = """
    CREATE TABLE parts (name TEXT PRIMARY KEY, state BLOB);
    CREATE TABLE sessions (serial INTEGER PRIMARY KEY, key TEXT, session TEXT)
"""


class OwnState:
    """The gate's own state, such as role sessions. moto's state is in another file.

    Only the event loop uses the ``file``. Without a ``file``, nothing is kept. Raises `LabError` if another version of
    labkit wrote the file.
    """

    def __init__(self, file: Path | None):
        self._database = Database(file, layout=LAYOUT, tables=TABLES) if file else None
        rows = self._database.read("SELECT name, state FROM parts") if self._database else []
        self._parts: dict[str, bytes] = dict(rows)

    def part(self, name: str) -> Any:
        """Return the object that `keep_part` stored under this name; None if no object is stored."""
        if not self._database or name not in self._parts:
            return None
        with self._database.reading(f"the state of {name} in this lab"):
            # From the lab's own folder, which only its owner can write.
            return pickle.loads(self._parts[name])  # noqa: S301

    def keep_part(self, name: str, state: object) -> None:
        """Keep an object under this name. With None as the ``state``, delete the object. Raises `NotWritten`."""
        content = None if state is None else pickle.dumps(state)
        if not self._database or self._parts.get(name) == content:
            return
        if content is None:
            self._database.write("DELETE FROM parts WHERE name = ?", name)
            del self._parts[name]
        else:
            self._database.write("INSERT OR REPLACE INTO parts VALUES (?, ?)", name, content)
            self._parts[name] = content

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


def forget_sessions(file: sqlite3.Connection) -> None:
    """Delete the role sessions from ``file``, a copy of the original lab's file.

    The sessions' credentials only work in the original lab.
    """
    file.execute("DELETE FROM sessions")
