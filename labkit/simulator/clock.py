"""The lab's time: the machine's time plus an offset that a learner can change."""

import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from labkit.errors import LabError

FURTHEST = timedelta(days=3650).total_seconds()  # the lab's certificates are valid ten years into past and future


class Clock:
    """Lab time: the machine's time plus the offset in ``file``.

    The server, the user's commands and the pods (with libfaketime) share the file, so their clocks move together. The
    offset is in libfaketime's relative form, seconds with a sign: ``+7200.0``. If the file is missing or invalid, lab
    time is the machine's time.
    """

    def __init__(self, file: Path):
        self.file = Path(file)
        self._stamp: tuple[int, int] | None = None
        self._offset = 0.0

    @property
    def of_pods(self) -> Path:
        """A copy of ``file`` that every user of a pod may read, in a folder of its own."""
        return self.file.parent.resolve() / "pods" / ".clock" / "offset"

    def now(self) -> float:
        """Return lab time in seconds since the epoch."""
        return time.time() + self.offset

    @property
    def offset(self) -> float:
        """The seconds by which lab time is ahead of the machine's time; negative if lab time is behind."""
        try:
            status = self.file.stat()
        except FileNotFoundError:
            return 0.0
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
            return 0.0
        if (stamp := (status.st_mtime_ns, status.st_ino)) != self._stamp:
            self._offset = _seconds(self.file.read_text(errors="replace")) or 0.0
            self._stamp = stamp
        return self._offset

    def mended(self) -> list[str]:
        """Reset the clock if its file has an invalid offset. Return a list with a note about the reset, if any."""
        text = self.file.read_text(errors="replace").strip() if self.file.is_file() else ""
        if not text or _seconds(text) is not None:
            return []
        self.reset()
        return [f"{self.file} held {text[:20]!r}, which is not a valid offset. The lab's clock was reset."]

    def advance(self, **duration: float) -> float:
        """Move lab time by ``timedelta(**duration)``, e.g. ``advance(hours=2)``; return the new offset in seconds.

        Raises :class:`LabError` if lab time would be more than ten years from the machine's time, or if the clock's
        file can't be written.
        """
        try:
            offset = self.offset + timedelta(**duration).total_seconds()
        except OverflowError:
            offset = float("inf")
        if not abs(offset) <= FURTHEST:
            raise LabError(
                "The lab's clock cannot be more than ten years from the machine's time, because the lab's "
                "certificates would be invalid.",
                next="labkit clock 0, which sets the lab's clock to the machine's time",
            )
        return self._write(offset)

    def reset(self) -> float:
        """Set lab time back to the machine's time; return the new offset, 0."""
        return self._write(0.0)

    def _write(self, offset: float) -> float:
        # libfaketime may read a file at any moment, and must never see a half-written file.
        try:
            for file, mode in ((self.of_pods, 0o644), (self.file, 0o600)):
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                draft = file.with_name(file.name + ".new")
                draft.write_text(f"{offset:+.1f}\n")
                draft.chmod(mode)
                draft.replace(file)
            self.of_pods.parent.chmod(0o755)
        except OSError as error:
            raise LabError(f"The clock cannot be moved: {error.strerror}: {error.filename or self.file}.") from error
        return offset


def _seconds(text: str) -> float | None:
    """Return the offset in seconds from a clock file's text."""
    try:
        offset = float(text or 0)
    except ValueError:
        return None
    return offset if abs(offset) <= FURTHEST else None


def rfc3339(seconds: float) -> str:
    """Return a time (seconds since the epoch) as AWS and Kubernetes write it, without fractions of a second."""
    return datetime.fromtimestamp(seconds // 1, UTC).isoformat().removesuffix("+00:00") + "Z"
