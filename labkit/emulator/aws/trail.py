"""The trail: who called what, and how the lab decided. CloudTrail's records, with the reason beside them.

https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any


class Trail:
    """A file of JSON lines that only its owner can read. No token, signature or secret is ever in it."""

    def __init__(self, file: Path):
        self.file = Path(file)
        self._handle: int | None = None

    def append(self, record: dict[str, Any]) -> None:
        """Adds a record at the end."""
        line = json.dumps(record, separators=(",", ":"), default=str).encode() + b"\n"
        # The learner may delete the file while the lab runs.
        if self._handle is None or os.fstat(self._handle).st_nlink == 0:
            self._open()
        os.write(self._handle, line)

    @staticmethod
    def read(file: Path) -> list[dict[str, Any]]:
        """All whole records of the trail in ``file``, oldest first; none where there is no file yet.

        A server that was killed may have left a part of one.
        """
        try:
            lines = Path(file).read_text().splitlines()
        except FileNotFoundError:
            return []
        records = []
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):
                records.append(json.loads(line))
        return records

    def _open(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._handle = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.fchmod(self._handle, 0o600)
