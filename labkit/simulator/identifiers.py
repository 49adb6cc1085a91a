"""Ids that are computed from a seed, a kind and a name, and never at random, so that every lab has the same ids."""

import base64
import hashlib
import uuid
from pathlib import Path
from threading import Lock

from labkit.simulator.database import Database

LAYOUT = 1  # the version number of the tables
# The rows of `serials` are in the order of their last use. `forgotten` has one row at most.
TABLES = """
    CREATE TABLE serials (used INTEGER PRIMARY KEY, kind TEXT, name TEXT, next INTEGER, UNIQUE (kind, name));
    CREATE TABLE forgotten (one INTEGER PRIMARY KEY CHECK (one = 1), next INTEGER)
"""
REMEMBERED = 20_000  # the most names whose serials are kept separately


class Identifiers:
    """Ids that are the same in every lab with the same seed. With a ``file``, serials continue after a restart.

    Raises `LabError` if the file isn't usable.
    """

    def __init__(self, seed: str, file: Path | None = None):
        self.seed = seed
        self._lock = Lock()
        self._kept = Database(file, layout=LAYOUT, tables=TABLES) if file else None
        self._next: dict[tuple[str, str], int] = {}  # first the name that was unused for the longest time
        self._next_forgotten = 0
        if self._kept:
            for kind, name, serial in self._kept.read("SELECT kind, name, next FROM serials ORDER BY used"):
                # Earlier versions may have stored a number that isn't a power of two.
                self._next[kind, name] = 1 << (serial - 1).bit_length()
            for (serial,) in self._kept.read("SELECT next FROM forgotten"):
                self._next_forgotten = serial

    def close(self) -> None:
        """Close the file."""
        if self._kept:
            self._kept.close()

    def hex(self, kind: str, name: str, length: int = 32) -> str:
        """Return an id of ``length`` (64 at most) upper-case hexadecimal digits."""
        return self._digest(kind, name).hex()[:length].upper()

    def base32(self, kind: str, name: str, length: int) -> str:
        """Return an id of ``length`` characters (51 at most). Each character is A-Z or 2-7, as in AWS's ids."""
        groups = -(-length // 8)  # groups of five bytes; b32encode is slow, so it gets no more than necessary
        return base64.b32encode(self._digest(kind, name)[: 5 * groups]).decode()[:length]

    def uuid(self, kind: str, name: str) -> str:
        """Return a UUID, in the form of version 4."""
        return str(uuid.UUID(bytes=self._digest(kind, name)[:16], version=4))

    def serial(self, kind: str, name: str) -> int:
        """Return a number for a new object: 0 for the first object named ``name``, 1 for the second, and so on.

        The lab never repeats a name's number. After a restart, or with too many names, the lab skips some numbers.
        Raises `NotWritten` if a number can't be stored.
        """
        with self._lock:
            known = self._next.get((kind, name))
            serial = self._next_forgotten if known is None else known
            if self._kept and (known is None or serial.bit_count() < 2):
                above = 1 << serial.bit_length()
                self._kept.write("INSERT OR REPLACE INTO serials VALUES (NULL, ?, ?, ?)", kind, name, above)
            self._next.pop((kind, name), None)
            self._next[kind, name] = serial + 1
            if len(self._next) > REMEMBERED:
                self._forget_one()
            return serial

    def _forget_one(self) -> None:
        kind, name = next(iter(self._next))
        forgotten = max(self._next_forgotten, self._next[kind, name])
        if self._kept:
            with self._kept.together():
                self._kept.write("INSERT OR REPLACE INTO forgotten VALUES (1, ?)", forgotten)
                self._kept.write("DELETE FROM serials WHERE kind = ? AND name = ?", kind, name)
        self._next_forgotten = forgotten
        del self._next[kind, name]

    def _digest(self, kind: str, name: str) -> bytes:
        return hashlib.sha256("\0".join((self.seed, kind, name)).encode()).digest()
