"""SQLite files with the lab's state.

If the server is killed, no change is lost. A power cut may lose the last second's changes, because no write waits for
the disk. In both cases, no change is left half written (https://www.sqlite.org/wal.html).

Only one process uses a file. So the file may be on a network file system
(https://www.sqlite.org/pragma.html#pragma_locking_mode).
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from labkit.errors import LabError

AWS_LAYOUT = 2
"""The version of the tables and of their contents in the files with AWS's state."""
PICKLED_LAYOUT = 1
"""The version in which these files had pickles, which can run programs."""

# What SQLite may store in the lab's columns, by their declared type.
TYPES = {"INTEGER": {"integer"}, "TEXT": {"text"}, "BLOB": {"blob", "text"}, "": {"integer", "text"}}


class NotWritten(Exception):
    """The state could not be written, for example because the disk is full. Nothing was changed."""


class Database:
    """One SQLite file. ``tables`` is the SQL that creates its tables. ``layout`` is the tables' version number.

    A file with the layout ``former`` is opened, too: `is_former` is then true until `renew`.

    Raises `LabError` if another version of labkit wrote the file, if the file is damaged, or if it can't be used.
    """

    def __init__(self, file: Path, *, layout: int, tables: str, former: int | None = None):
        self.file = file
        self._layout, self._tables = layout, tables
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._usable():
            file.touch(mode=0o600)  # SQLite gives the files beside it the same mode
            # Each statement commits by itself. The lab's AWS half uses the connection in its own thread.
            self._connection = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
            self._require_alone()
            [(present,)] = self.read("PRAGMA user_version")
            if not present:
                self._connection.executescript(f"BEGIN; {tables}; PRAGMA user_version = {layout}; COMMIT")
        self.is_former = present == former
        if present not in (0, layout, former):
            raise LabError(
                f"Another version of labkit made this lab: its state has layout {present}, and this version reads "
                f"layout {layout}.",
                where=str(file),
                next="labkit reset, which empties the lab; or start the lab with the labkit version that made it",
            )

    def read(self, sql: str, *values: object) -> list[Any]:
        """Run one statement and return its rows. Raises `LabError` if the file can't be read."""
        with self._usable():
            return self._connection.execute(sql, values).fetchall()

    def write(self, sql: str, *values: object) -> None:
        """Run one statement that changes the file. Raises `NotWritten` if that fails."""
        with _raising_not_written():
            self._connection.execute(sql, values)

    def write_many(self, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Run one statement for each row of values. Raises `NotWritten` if that fails."""
        if rows:
            with _raising_not_written():
                self._connection.executemany(sql, rows)

    def renew(self, gone: Iterable[str]) -> None:
        """Give a file of the former layout the present one. The tables ``gone`` lose their rows. Call it in `together`.

        Raises `NotWritten` if that fails.
        """
        for statement in (*(f"DROP TABLE {table}" for table in gone), *self._tables.split(";")):
            self.write(statement.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
        self.write(f"PRAGMA user_version = {self._layout}")
        self.is_former = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write all changes of this block, or none of them. Raises `NotWritten` if that fails."""
        with _raising_not_written(), self._connection:
            self._connection.execute("BEGIN")
            yield

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Turn each error of this block into a `LabError`, which says that ``what`` can't be read.

        Another version of labkit or moto may have written the content.
        """
        try:
            yield
        except Exception as error:  # content of another version can raise anything
            raise LabError(
                f"{what} cannot be read: {type(error).__name__}: {error}.",
                where=str(self.file),
                next="labkit reset, which empties the lab; or start the lab with the labkit version that made it",
            ) from error

    def close(self) -> None:
        """Close the file, so that another process may open it."""
        self._connection.close()

    def _require_alone(self) -> None:
        self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        if self._connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise sqlite3.OperationalError(
                "this file system does not support SQLite's log; set LABKIT_HOME to a folder on another file system"
            )
        self._connection.execute("PRAGMA synchronous = NORMAL")

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            if str(error).startswith("no such"):
                raise _damaged(self.file, error) from error
            full = "is full" in str(error)
            raise LabError(
                f"The lab's state cannot be used: {_words(error)}.",
                where=str(self.file),
                next=f"df -h {quote(str(self.file.parent))}, make room, and run the command again"
                if full
                else "remove the cause, then:  labkit up",
            ) from error
        except sqlite3.DatabaseError as error:
            raise _damaged(self.file, error) from error


def require_tables(connection: sqlite3.Connection, tables: str) -> None:
    """Raise `sqlite3.DatabaseError` if a file has other tables than those that the SQL in ``tables`` creates.

    Whoever wrote the file may have added a trigger, a view or a computed column, which run when the file is used.
    """
    with closing(sqlite3.connect(":memory:")) as new:
        new.executescript(tables)
        if _schema(connection) != _schema(new):
            raise sqlite3.DatabaseError("its tables are not those of a lab")


def require_types(connection: sqlite3.Connection) -> None:
    """Raise `sqlite3.DatabaseError` if a value doesn't have its column's type. SQLite itself doesn't check that.

    https://www.sqlite.org/flexibletypegoofs.html
    """
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for _, column, declared, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall():
            types = connection.execute(f"SELECT DISTINCT typeof({column}) FROM {table}")  # noqa: S608
            if not {each for (each,) in types} <= TYPES[declared]:
                raise sqlite3.DatabaseError(f"a value of {table}.{column} has another type")


def _schema(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    rows = connection.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master ORDER BY 1, 2")
    return [(*names, " ".join(sql.split())) for *names, sql in rows]


def _damaged(file: Path, error: Exception) -> LabError:
    return LabError(
        f"The lab's state is damaged: {error}.", where=str(file), next="labkit reset, which empties the lab"
    )


@contextmanager
def _raising_not_written() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise NotWritten(f"the lab's state could not be written: {_words(error)}") from error


def _words(error: Exception) -> str:
    # The lab's other files have the same words for a full disk.
    return "no space is left on the disk" if "is full" in str(error) else str(error)
