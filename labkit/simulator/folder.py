"""The lab's folder: everything that a lab keeps when its server ends."""

import errno
import fcntl
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from labkit.connection import awaited
from labkit.errors import LabError
from labkit.simulator.clock import Clock
from labkit.simulator.published import Published

if TYPE_CHECKING:
    from labkit.simulator.certificates import Authority

# A lab's folder has at least one of these files, or is empty. Any other folder may hold someone's own files.
MARKS = frozenset({"start.lock", "server.lock", "kind.lock", "ports.json", "server.json", "clock", "joined"})
# Files and folders that may be in a lab's folder without any of the files above: programs other than the server write
# them, before the server's start or after its end.
PARTS = frozenset({"clusters", "faults", "kubectl-cache", "pods", "webhook"})
IMDS = "imds.json"
SAID_AFTER = 1  # seconds; a command that waits longer for another process says so
ROOM = 1 << 16  # bytes; with less room on the disk, the server may not start
ELSEWHERE = 'export LABKIT_HOME="$HOME/irsa-lab", or another folder that is yours'


class Folder:
    """One lab's folder: its seed, ports, CA, keys, clock, trail and log, and files that replace an issuer's documents.

    Files with secrets in them have mode 0600, and the folder has 0700. The process that holds the lock on
    ``server.lock`` is the lab's server.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.clock = Clock(self.path / "clock")
        self.published = Published(self.path / "published", self.write_private)
        self.trail_file = self.path / "trail.jsonl"
        self.log_file = self.path / "server.log"
        self.kubeconfig = self.path / "kubeconfig"
        self.ca_file = self.path / "ca.pem"
        self.aws_config = self.path / "aws" / "config"
        self.aws_credentials = self.path / "aws" / "credentials"
        self.pods = self.path / "pods"

    @classmethod
    def find(cls, start: Path | None = None) -> "Folder":
        """Return the lab's folder for a command in the folder ``start``. The lab's folder may not exist yet.

        The first match counts: ``LABKIT_HOME``; the nearest ``.lab/`` in ``start`` or above; ``.lab/`` at the root of
        the clone that contains ``start``; ``.lab/`` in ``start``. Raises :class:`LabError` if the path can't be used.
        """
        folder = cls(_path(start))
        with folder.usable():
            if folder.path.exists() and not folder.path.is_dir():
                raise LabError(f"LABKIT_HOME is {folder.path}, which is not a folder.", next="unset LABKIT_HOME")
        # When the node ends, it looks for this path in the processes' environments. A line break would split the path.
        if not str(folder.path).isprintable():
            raise LabError(
                f"The lab's folder cannot be {str(folder.path)!r}: its path has a line break, or is not UTF-8.",
                next=ELSEWHERE,
            )
        return folder

    @property
    def bare(self) -> "Folder":
        """The bare lab's folder, beside this one. A bare lab's clusters have no webhook and no node."""
        return Folder(self.path.with_name(f"{self.path.name}-bare"))

    def create(self) -> None:
        """Create the folder if it is missing.

        Raises :class:`LabError` if that fails, or if the folder has files but isn't a lab's folder.
        """
        with self.usable():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            names = {entry.name for entry in self.path.iterdir()}
        if not MARKS & names and (strange := sorted(names - PARTS)):
            raise LabError(
                f"{self.path} is not a lab's folder: it holds {strange[0]}. Nothing was changed.", next=ELSEWHERE
            )
        if self.path.stat().st_mode & 0o077:
            # A container's volume can belong to another user.
            with self.usable(), suppress(PermissionError):
                self.path.chmod(0o700)

    @property
    def is_lab(self) -> bool:
        """Whether the folder has files of a lab."""
        return any((self.path / mark).exists() for mark in MARKS)

    def forget(self) -> None:
        """Delete the lab's files, except its ports and locks. Raises :class:`LabError` if this isn't a lab's folder."""
        self.create()
        with self.usable():
            for entry in self.path.iterdir():
                if entry.name == "ports.json" or entry.name.endswith(".lock"):
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    @property
    def seed(self) -> str:
        """The seed of the lab's ids, the same for every lab, so that notebooks print the same ids."""
        return "irsa"

    @property
    def secret(self) -> bytes:
        """The seed of this lab's own secrets. It's generated once."""
        return self.kept("secret", lambda: secrets.token_bytes(32))

    def kept(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Return the content of the file ``name``. If the file is missing or empty, first write ``make()`` to it."""
        file = self.path / name
        if not file.exists() or not file.stat().st_size:
            self.write_private(file, make())
        return file.read_bytes()

    @property
    def authority(self) -> "Authority":
        """The lab's CA, which takes the place of the public root CAs."""
        return self.named_authority("ca", "labkit public root")

    def named_authority(self, name: str, common_name: str) -> "Authority":
        """Return the CA in ``NAME.pem`` and ``NAME.key``. Create it if a file is missing or damaged."""
        from labkit.simulator.certificates import Authority  # loads cryptography, which most commands don't need

        certificate, key = self.path / f"{name}.pem", self.path / f"{name}.key"
        try:
            return Authority.load(certificate.read_bytes(), key.read_bytes())
        except (FileNotFoundError, ValueError):  # after a full disk, for example; one file is useless without the other
            authority = Authority.create(common_name)
            self.write_private(key, authority.key_pem)
            self.write_private(certificate, authority.certificate_pem)
            return authority

    @property
    def hop_limit(self) -> int:
        """The hop limit that new nodes get, as `labkit up --imds` sets it."""
        limit = self.read_json(IMDS).get("hop_limit")
        return limit if type(limit) is int else 1

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the JSON object in the file ``name``; empty if the file is missing or holds no JSON object."""
        try:
            with self.usable():
                content = json.loads((self.path / name).read_text())
        except (FileNotFoundError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write ``content`` to the file ``name``, as JSON."""
        self.write_private(self.path / name, json.dumps(content, indent=2).encode() + b"\n")

    def write_private(self, file: Path, content: bytes) -> None:
        """Write a file that only its owner can read. Even after a power cut, the file is complete or unchanged."""
        with self.usable():
            for folder in (file.parent.parent, file.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                Path(draft).replace(file)
            except OSError as error:
                Path(draft).unlink(missing_ok=True)
                raise OSError(error.errno, error.strerror, str(file)) from error

    def require_room(self) -> None:
        """Raise :class:`LabError` if the disk is full. Then the server's log is incomplete."""
        with self.usable():
            try:
                with tempfile.TemporaryFile(dir=self.path) as file:
                    file.write(bytes(ROOM))
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self.log_file)) from error

    @contextmanager
    def lock(self, name: str, *, within: float = 0) -> Iterator[bool]:
        """Hold the lock ``name`` during this block, and yield True.

        Yield False if another process still holds the lock after ``within`` seconds. Raises :class:`LabError` if the
        folder isn't writable.
        """
        take = partial(self._locked, name)
        held = awaited(take, lambda held: held is not None, within=within, every=0.02)
        try:
            yield held is not None
        finally:
            if held is not None:
                os.close(held)

    @contextmanager
    def turn(self, name: str, *, doing: str, within: float) -> Iterator[None]:
        """Wait for the lock ``name``, and hold it during this block.

        ``doing`` says what this block does. Another command that waits for the lock prints that text. Raises
        :class:`LabError` if another process still holds the lock after ``within`` seconds.
        """
        with ExitStack() as stack:
            if not stack.enter_context(self.lock(name, within=SAID_AFTER)):
                with suppress(OSError):  # the terminal may have been closed
                    print(f"Waiting for another command: {self._holder(name)} …", file=sys.stderr)
                if not stack.enter_context(self.lock(name, within=within)):
                    raise LabError(
                        f"Another command does not finish: {self._holder(name)}.",
                        where=f"{self.path}; waited {within:.0f} s",
                        next="end that command, or let it go on (fg) if it was stopped with Ctrl-Z; then try again",
                    )
            with self.usable():
                (self.path / name).write_text(f"process {os.getpid()} is {doing}")
            yield

    def is_running(self) -> bool:
        """Whether a server uses this folder."""
        try:
            with self.usable():
                file = os.open(self.path / "server.lock", os.O_RDONLY)
                try:
                    # A shared lock: two commands that ask at once must not take each other for the server.
                    return not _flock(file, fcntl.LOCK_SH)
                finally:
                    os.close(file)
        except FileNotFoundError:
            return False

    def _locked(self, name: str) -> int | None:
        """Return a file descriptor that holds the lock until the descriptor is closed."""
        self.create()
        with self.usable():
            file = os.open(self.path / name, os.O_RDWR | os.O_CREAT, 0o600)
            if _flock(file, fcntl.LOCK_EX):
                with suppress(FileNotFoundError):
                    # A file that was deleted meanwhile locks nothing.
                    if os.path.samestat(os.fstat(file), (self.path / name).stat()):
                        return file
            os.close(file)
        return None

    def _holder(self, name: str) -> str:
        """Return the text that the lock's holder wrote into the lock's file, e.g. ``process 12 is starting the lab``.

        If the file is empty or can't be read, return a text that only names the file.
        """
        with suppress(OSError, ValueError):
            if text := (self.path / name).read_text():
                return text
        return f"it holds {self.path / name}"

    @contextmanager
    def usable(self) -> Iterator[None]:
        """Turn each `OSError` in the caller's `with` block, except `FileNotFoundError`, into a `LabError`."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                message = f"no space is left on the disk: {error.filename} could not be written."
                raise LabError(
                    message, next=f"df -h {quote(str(self.path))}, make room, and run the command again"
                ) from error
            raise LabError(
                f"The lab's folder cannot be used: {error.strerror}: {error.filename or self.path}.",
                next=ELSEWHERE,
            ) from error


def _path(start: Path | None) -> Path:
    """Return the lab's folder by the rules in `Folder.find`."""
    if home := os.environ.get("LABKIT_HOME"):
        return Path(home).expanduser().absolute()
    here = (start or Path.cwd()).absolute()
    above = [here, *here.parents]
    for folder in above:
        if (folder / ".lab").is_dir():
            return folder / ".lab"
    for folder in above:
        if (folder / "pyproject.toml").is_file() and (folder / "labkit").is_dir():
            return folder / ".lab"
    return here / ".lab"


def _flock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
