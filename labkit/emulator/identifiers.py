"""Ids made from seed, kind and name, never from a random sequence: a new lab is the same lab."""

import base64
import hashlib
import uuid

REMEMBERED = 20_000  # names whose serials are known one by one


class Identifiers:
    """Ids that are the same in every lab with the same seed."""

    def __init__(self, seed: str):
        self.seed = seed
        self._next: dict[tuple[str, str], int] = {}  # the longest unused first
        self._next_forgotten = 0

    def hex(self, kind: str, name: str, length: int = 32) -> str:
        """``length`` (64 at most) upper-case hexadecimal digits."""
        return self._digest(kind, name).hex()[:length].upper()

    def base32(self, kind: str, name: str, length: int) -> str:
        """``length`` (51 at most) of the characters A-Z and 2-7, the alphabet of AWS's own ids."""
        return base64.b32encode(self._digest(kind, name)).decode()[:length]

    def uuid(self, kind: str, name: str) -> str:
        """A UUID (version 4 in form)."""
        return str(uuid.UUID(bytes=self._digest(kind, name)[:16], version=4))

    def serial(self, kind: str, name: str) -> int:
        """0 when ``name`` is made for the first time, 1 when it is made again, and so on: never the same twice.

        Of a very long lab's names the longest unused are forgotten; from then on, new ones start above their serials.
        """
        serial = self._next.pop((kind, name), self._next_forgotten)
        self._next[kind, name] = serial + 1
        if len(self._next) > REMEMBERED:
            self._next_forgotten = max(self._next_forgotten, self._next.pop(next(iter(self._next))))
        return serial

    def _digest(self, kind: str, name: str) -> bytes:
        return hashlib.sha256("\0".join((self.seed, kind, name)).encode()).digest()
