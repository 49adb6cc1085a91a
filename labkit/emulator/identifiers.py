"""Ids made from seed, kind and name, never from a random sequence: a new lab is the same lab."""

import base64
import hashlib
import uuid
from collections import Counter


class Identifiers:
    """Ids that are the same in every lab with the same seed."""

    def __init__(self, seed: str):
        self.seed = seed
        self._made: Counter[tuple[str, str]] = Counter()

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
        """0 when ``name`` is made for the first time, 1 when it is made again, and so on."""
        serial = self._made[kind, name]
        self._made[kind, name] += 1
        return serial

    def _digest(self, kind: str, name: str) -> bytes:
        return hashlib.sha256("\0".join((self.seed, kind, name)).encode()).digest()
