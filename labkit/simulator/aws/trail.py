"""The trail: a file with CloudTrail's record of each call, and with the lab's decision and its reason."""

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from labkit.connection import Record

HIDDEN = "HIDDEN_DUE_TO_SECURITY_REASONS"
# A file of this many bytes is renamed, and replaces the previously renamed one. So at least the newest 10,000 calls are
# kept, in at most twice as many bytes.
LARGEST = 8 * 1024 * 1024
BLOCK = 64 * 1024
# Shorter texts aren't secrets, and would match anywhere.
SHORTEST_SECRET = 8
# Texts that look like a token: a JWT, a session token, a token for a cluster's API server.
TOKENS = re.compile(r"eyJ[\w-]{6,}\.[\w-]+(?:\.[\w-]*)?|IQoJb3JpZ2luX2Vj[\w+/=%-]*|k8s-aws-v1\.[\w=%-]+")
MARKS = ("eyJ", "IQoJb3JpZ2luX2Vj", "k8s-aws-v1.")  # each token has one of these marks, which are quick to find
PLAIN = re.compile("[A-Za-z0-9]+")
# The fields of a record that its readers count on.
TEXTS = ("eventID", "eventName", "eventSource", "eventTime")
PARTS = ("lab", "userIdentity")

_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode
_log = logging.getLogger(__name__)


class Trail:
    """A file of JSON lines that only its owner can read. No token, signature or secret is ever in it.

    When the file is full, the trail renames it and begins a new file. Both files together have at most 16 MiB, and at
    least the newest 10,000 calls.
    """

    def __init__(self, file: Path, *, largest: int = LARGEST):
        self.file = Path(file)
        self._largest = largest
        self._handle: int | None = None

    def append(self, record: Mapping[str, object], secrets: Iterable[str] = ()) -> None:
        """Add a record at the end, without the call's ``secrets``. If the record can't be written, log an error."""
        line = hidden(_encode(record), secrets).encode() + b"\n"
        try:
            self._write(line)
        except OSError as error:
            _log.error("a call could not be written to the trail: %s", error)
            self._close()

    @staticmethod
    def newest(file: Path, containing: str = "") -> Iterator[Record]:
        """Yield the complete records of the trail in ``file``, newest first. Leave out what isn't a record.

        With ``containing``, yield only the records that contain this text.
        """
        wanted = json.dumps(containing)[1:-1].encode()
        for line in _lines_backwards(file):
            if line and wanted in line:
                with contextlib.suppress(ValueError, RecursionError):
                    record: Record = json.loads(line)
                    if _is_record(record):
                        yield record

    @staticmethod
    def read(file: Path, last: int | None = None) -> list[Record]:
        """Return the newest ``last`` records of the trail in ``file`` (None: all), oldest first."""
        return [*islice(Trail.newest(file), last)][::-1]

    def _write(self, line: bytes) -> None:
        # The learner may delete the file while the lab runs.
        status = os.fstat(self._handle) if self._handle is not None else None
        if status is None or status.st_nlink == 0:
            self._open()
        elif status.st_size + len(line) > self._largest:
            self.file.replace(put_aside(self.file))
            self._open()
        while line and self._handle is not None:
            line = line[os.write(self._handle, line) :]

    def _open(self) -> None:
        self._close()
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._handle = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.fchmod(self._handle, 0o600)
        size = os.fstat(self._handle).st_size
        if size and os.pread(self._handle, 1, size - 1) != b"\n":
            os.write(self._handle, b"\n")

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _is_record(record: object) -> bool:
    """A trail may come from a stranger's snapshot."""
    return (
        isinstance(record, dict)
        and all(isinstance(record.get(name, ""), str) for name in TEXTS)
        and all(isinstance(record.get(name) or {}, dict) for name in PARTS)
    )


def put_aside(file: Path) -> Path:
    """Return the path of the older trail. `Trail` renames ``file`` to this path when ``file`` is full."""
    return file.with_suffix(".older" + file.suffix)


def hidden(text: str, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` (plain or JSON) without these secrets, and without anything that looks like a token."""
    for secret in set(secrets):
        # Every encoding leaves its letters and digits unchanged.
        if len(secret) >= SHORTEST_SECRET and max(PLAIN.findall(secret), key=len, default="") in text:
            for written in (
                secret,
                json.dumps(secret)[1:-1],
                quote(secret, "", errors="replace"),
                quote(secret, errors="replace"),
            ):
                text = text.replace(written, HIDDEN)
    return TOKENS.sub(HIDDEN, text) if any(mark in text for mark in MARKS) else text


def _lines_backwards(file: Path) -> Iterator[bytes]:
    with contextlib.ExitStack() as opened:
        handles = []
        for path in (Path(file), put_aside(Path(file))):
            with contextlib.suppress(FileNotFoundError):
                handles.append(opened.enter_context(path.open("rb")))
        # The trail was renamed after it was opened, so both handles are the same file.
        if len(handles) == 2 and os.path.sameopenfile(handles[0].fileno(), handles[1].fileno()):
            handles.pop()
        for handle in handles:
            position, begun = handle.seek(0, os.SEEK_END), b""
            while position:
                step = min(BLOCK, position)
                position -= step
                handle.seek(position)
                begun, *lines = (handle.read(step) + begun).split(b"\n")
                yield from reversed(lines)
            yield begun
