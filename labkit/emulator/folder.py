"""The lab's folder: the one place where a lab keeps what outlives its server."""

import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit.emulator.certificates import Authority
from labkit.emulator.clock import Clock
from labkit.emulator.published import Published
from labkit.errors import LabError


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
        else ``.lab/`` here. Raises :class:`LabError` where ``LABKIT_HOME`` names something that is no folder.
        """
        if home := os.environ.get("LABKIT_HOME"):
            path = Path(home).expanduser().absolute()
            if path.exists() and not path.is_dir():
                raise LabError(f"LABKIT_HOME is {path}, which is no folder.", next="unset LABKIT_HOME")
            return cls(path)
        here = (start or Path.cwd()).absolute()
        above = [here, *here.parents]
        for folder in above:
            if (folder / ".lab").is_dir():
                return cls(folder / ".lab")
        for folder in above:
            if (folder / "pyproject.toml").is_file() and (folder / "labkit").is_dir():
                return cls(folder / ".lab")
        return cls(here / ".lab")

    @property
    def bare(self) -> "Folder":
        """The folder beside this one for a lab of API servers alone: without webhook, node and what they do."""
        return Folder(self.path.with_name(f"{self.path.name}-bare"))

    def create(self) -> None:
        """Makes the folder where it is missing. Raises :class:`LabError` where that is not possible."""
        with self._usable():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def seed(self) -> str:
        """What the lab's ids are made from; the same for every lab, so that notebooks print the same ids."""
        return "irsa"

    @property
    def secret(self) -> bytes:
        """What this lab's own secrets are made from; made once."""
        file = self.path / "secret"
        if not file.exists():
            self.write_private(file, secrets.token_bytes(32))
        return file.read_bytes()

    @property
    def authority(self) -> Authority:
        """The lab's CA, which stands for the public roots; made once."""
        return self.named_authority("ca", "labkit public root")

    def named_authority(self, name: str, common_name: str) -> Authority:
        """The CA that is kept as ``NAME.pem`` and ``NAME.key``; made once."""
        certificate, key = self.path / f"{name}.pem", self.path / f"{name}.key"
        if not (certificate.exists() and key.exists()):
            authority = Authority.create(common_name)
            self.write_private(key, authority.key_pem)
            self.write_private(certificate, authority.certificate_pem)
        return Authority.load(certificate.read_bytes(), key.read_bytes())

    def read_json(self, name: str) -> dict[str, Any]:
        """The object in the file ``name``; empty where there is no such file, or no JSON in it."""
        try:
            with self._usable():
                content: dict[str, Any] = json.loads((self.path / name).read_text())
                return content
        except (FileNotFoundError, ValueError):
            return {}

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Keeps ``content`` in the file ``name``."""
        self.write_private(self.path / name, json.dumps(content, indent=2).encode() + b"\n")

    def write_private(self, file: Path, content: bytes) -> None:
        """Writes a file that only its owner can read, whole or not at all."""
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(draft).replace(file)

    @contextmanager
    def lock(self, name: str, *, wait: bool = True, shared: bool = False) -> Iterator[bool]:
        """Holds the lock ``name``; yields whether it got it, which without ``wait`` may be no.

        Any number may hold it ``shared`` at once. Raises :class:`LabError` where nothing can be written here.
        """
        self.create()
        with self._usable():
            file = (self.path / name).open("w")
        with file:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def is_running(self) -> bool:
        """Whether a server holds this folder."""
        if not self.path.is_dir():
            return False
        # Shared: two that ask at once must not take each other for the server.
        with self.lock("server.lock", wait=False, shared=True) as free:
            return not free

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Says so where the folder is another user's, read-only or no folder."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise LabError(
                f"the lab's folder cannot be used: {error.strerror}: {error.filename}.",
                next='export LABKIT_HOME="$HOME/irsa-lab", or another folder that is yours',
            ) from error
