"""The lab's folder: the one place where a lab keeps what outlives its server."""

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
from typing import Any

from labkit.connection import awaited
from labkit.emulator.certificates import Authority
from labkit.emulator.clock import Clock
from labkit.emulator.published import Published
from labkit.errors import LabError

# One of these is in every lab's folder that is not empty: what else is in one may be somebody's.
MARKS = frozenset({"start.lock", "server.lock", "kind.lock", "ports.json", "server.json", "clock", "joined"})
# What others than the server leave in a folder that is to become a lab's, or that was one.
PARTS = frozenset({"clusters", "faults", "kubectl-cache", "pods", "webhook"})
SAID_AFTER = 1  # seconds of waiting for another process
ELSEWHERE = 'export LABKIT_HOME="$HOME/irsa-lab", or another folder that is yours'


class Folder:
    """Seed, ports, CA, keys, clock, trail, log and overridden documents of one lab.

    Files with secrets in them are 0600, the folder 0700. The process that holds the lock on ``server.lock`` is the
    lab's server: the lock ends with the process, however it ends, so a stale process id never counts.
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
        """The folder of the lab that a command run in ``start`` means; it need not exist yet.

        ``LABKIT_HOME``; else the nearest ``.lab/`` here or above; else ``.lab/`` beside the project's pyproject.toml;
        else ``.lab/`` here. Raises :class:`LabError` if ``LABKIT_HOME`` names something that is not a folder, or if
        the path has a line break or bytes that are not UTF-8.
        """
        found = cls(_path(start))
        with found.usable():
            if found.path.exists() and not found.path.is_dir():
                raise LabError(f"LABKIT_HOME is {found.path}, which is not a folder.", next="unset LABKIT_HOME")
        # The node finds its processes by their lines, which a line break would end.
        if not str(found.path).isprintable():
            raise LabError(
                f"The lab's folder cannot be {str(found.path)!r}: its path has a line break, or is not UTF-8.",
                next=ELSEWHERE,
            )
        return found

    @property
    def bare(self) -> "Folder":
        """The folder beside this one for a lab of API servers alone: without webhook, node and what they do."""
        return Folder(self.path.with_name(f"{self.path.name}-bare"))

    def create(self) -> None:
        """Make the folder where it is missing.

        Raises :class:`LabError` if that is not possible, or where the folder holds files and none of them a lab's.
        """
        with self.usable():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            names = {entry.name for entry in self.path.iterdir()}
        if not MARKS & names and (strange := sorted(names - PARTS)):
            raise LabError(
                f"{self.path} is not a lab's folder: it holds {strange[0]}. Nothing was changed.", next=ELSEWHERE
            )

    @property
    def is_lab(self) -> bool:
        """Whether a lab keeps something here."""
        return any((self.path / mark).exists() for mark in MARKS)

    def forget(self) -> None:
        """Delete all that the lab keeps but its ports. Raises :class:`LabError` if the folder is not a lab's."""
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
        """What the lab's ids are made from; the same for every lab, so that notebooks print the same ids."""
        return "irsa"

    @property
    def secret(self) -> bytes:
        """What this lab's own secrets are made from; made once."""
        return self.kept("secret", lambda: secrets.token_bytes(32))

    def kept(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What the file ``name`` holds; made where it is missing or empty, as a full disk or a power cut leaves it."""
        file = self.path / name
        if not file.exists() or not file.stat().st_size:
            self.write_private(file, make())
        return file.read_bytes()

    @property
    def authority(self) -> Authority:
        """The lab's CA, which stands for the public roots; made once."""
        return self.named_authority("ca", "labkit public root")

    def named_authority(self, name: str, common_name: str) -> Authority:
        """The CA that is kept as ``NAME.pem`` and ``NAME.key``; made once."""
        certificate, key = self.path / f"{name}.pem", self.path / f"{name}.key"
        try:
            return Authority.load(certificate.read_bytes(), key.read_bytes())
        except (FileNotFoundError, ValueError):  # of a disk that was full, for one: neither is of use without the other
            authority = Authority.create(common_name)
            self.write_private(key, authority.key_pem)
            self.write_private(certificate, authority.certificate_pem)
            return authority

    def read_json(self, name: str) -> dict[str, Any]:
        """The object in the file ``name``; empty if there is no such file, or no JSON in it."""
        try:
            with self.usable():
                content: dict[str, Any] = json.loads((self.path / name).read_text())
                return content
        except (FileNotFoundError, ValueError):
            return {}

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Keep ``content`` in the file ``name``."""
        self.write_private(self.path / name, json.dumps(content, indent=2).encode() + b"\n")

    def write_private(self, file: Path, content: bytes) -> None:
        """Write a file that only its owner can read: whole or not at all, even after a power cut."""
        with self.usable():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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

    @contextmanager
    def lock(self, name: str, *, within: float = 0) -> Iterator[bool]:
        """Hold the lock ``name``; yield whether it got it within that many seconds.

        Raises :class:`LabError` if nothing can be written here.
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
        """Hold the lock ``name`` while this process is ``doing`` what one process at a time may do.

        Says on standard error what it waits for. Raises :class:`LabError` if that takes more than that many seconds.
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
        """Whether a server holds this folder."""
        try:
            with self.usable():
                file = os.open(self.path / "server.lock", os.O_RDONLY)
                try:
                    # Shared: two that ask at once must not take each other for the server.
                    return not _flock(file, fcntl.LOCK_SH)
                finally:
                    os.close(file)
        except FileNotFoundError:
            return False

    def _locked(self, name: str) -> int | None:
        """A descriptor that holds the lock until it is closed; None if another holds it."""
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
        """What the process that holds the lock is doing, as it wrote."""
        with suppress(OSError, ValueError):
            if text := (self.path / name).read_text():
                return text
        return f"it holds {self.path / name}"

    @contextmanager
    def usable(self) -> Iterator[None]:
        """Raise if the folder is another user's, read-only, or not a folder."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                told = f"no space is left on the disk: {error.filename} could not be written."
                raise LabError(
                    told, next=f"df -h {quote(str(self.path))}, make room, and run the command again"
                ) from error
            raise LabError(
                f"the lab's folder cannot be used: {error.strerror}: {error.filename or self.path}.",
                next=ELSEWHERE,
            ) from error


def _path(start: Path | None) -> Path:
    """Where the lab that a command run in ``start`` means is: see `Folder.find`."""
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
    """Whether the descriptor got the lock, which ends with it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
