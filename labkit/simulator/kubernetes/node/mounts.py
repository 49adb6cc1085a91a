"""A container's volume mounts.

If this machine doesn't allow a container a root directory of its own, the container uses the machine's. Then the mount
paths in commands and variables are replaced by the volumes' paths on this machine.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


class MountRefused(Exception):
    """A volume can't be mounted where the container wants it. The message names the path."""


@dataclass(frozen=True)
class Mount:
    """One volume mount: `source` on this machine appears at `path` in the container."""

    path: str
    source: Path
    read_only: bool = False


class Mounts:
    """The mounts of one container, all of them in `all`. Raises MountRefused if a path has a NUL character."""

    def __init__(self, mounts: Iterable[Mount] = ()) -> None:
        self.all = sorted(mounts, key=lambda mount: len(mount.path), reverse=True)
        for mount in self.all:
            if "\0" in mount.path:
                raise MountRefused(f'nothing can be mounted at "{mount.path}": invalid argument')
        self._pattern = None
        if self.all:
            paths = "|".join(re.escape(mount.path.rstrip("/")) for mount in self.all)
            self._pattern = re.compile(rf"(?<![\w.-])(?:{paths})(?![\w.-])")
        self._sources = {mount.path.rstrip("/"): str(mount.source) for mount in self.all}

    def on_host(self, path: str) -> Path:
        """Return the path on this machine for a path in the container."""
        wanted = PurePosixPath(path)
        for mount in self.all:
            if wanted.is_relative_to(mount.path):
                return mount.source / wanted.relative_to(mount.path)
        return Path(path)

    def rewritten(self, text: str) -> str:
        """Return the text with each mount path replaced by the volume's path on this machine."""
        return self._pattern.sub(lambda match: self._sources[match[0]], text) if self._pattern else text
