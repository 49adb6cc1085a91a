"""Prepare a container's root directory, and list the mounts to make in this directory.

If this machine doesn't allow such mounts, the container uses the machine's root directory. Then the mount paths in
commands and variables are replaced by the volumes' paths on this machine.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - each container has its own

DEVICES = ("full", "null", "ptmx", "pts", "random", "tty", "urandom", "zero")
STREAMS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}


class MountRefused(Exception):
    """A volume can't be mounted where the container wants it. The message names the path."""


@dataclass(frozen=True)
class Mount:
    """One volume mount: `source` on this machine appears at `path` in the container."""

    path: str
    source: Path
    read_only: bool = False


class Mounts:
    """The mounts of one container. Raises MountRefused if a mount's path contains a NUL character."""

    def __init__(self, mounts: Iterable[Mount] = ()) -> None:
        self._mounts = sorted(mounts, key=lambda mount: len(mount.path), reverse=True)
        for mount in self._mounts:
            if "\0" in mount.path:
                raise MountRefused(f'nothing can be mounted at "{mount.path}": invalid argument')
        self._pattern = None
        if self._mounts:
            paths = "|".join(re.escape(mount.path.rstrip("/")) for mount in self._mounts)
            self._pattern = re.compile(rf"(?<![\w.-])(?:{paths})(?![\w.-])")
        self._sources = {mount.path.rstrip("/"): str(mount.source) for mount in self._mounts}

    def on_host(self, path: str) -> Path:
        """Return the path on this machine for a path in the container."""
        wanted = PurePosixPath(path)
        for mount in self._mounts:
            if wanted.is_relative_to(mount.path):
                return mount.source / wanted.relative_to(mount.path)
        return Path(path)

    def rewritten(self, text: str) -> str:
        """Return the text with each mount path replaced by the volume's path on this machine."""
        return self._pattern.sub(lambda match: self._sources[match[0]], text) if self._pattern else text

    def table(self, root: Path, *, visible: Iterable[Path] = (), new_proc: bool) -> str:
        """Prepare the folder `root` as a container's root. Return the mounts to make in it, in fstab(5) form.

        The container sees this machine's files and the container's volumes. Of /run, the container sees only volumes
        and the paths in `visible`. With `new_proc`, /proc shows only the container's own processes.

        Raises MountRefused.
        """
        layout = _Root(root)
        layout.mirror_machine(new_proc)
        hidden = [Mount(str(path), path) for path in visible if path.resolve().is_relative_to("/run")]
        for mount in sorted([*hidden, *self._mounts], key=lambda mount: len(PurePosixPath(mount.path).parts)):
            layout.add(mount)
        return "".join(layout.lines)


class _Root:
    """A folder that becomes a container's root, with its mount points, links and list of mounts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lines: list[str] = []
        self._own: dict[str, Path] = {}  # a path in the container -> our own folder for it, instead of the machine's
        self._volumes: dict[str, Path] = {}

    def mirror_machine(self, new_proc: bool) -> None:
        self.root.mkdir(parents=True)
        self._bind(self.root, self.root)
        self._own["/"] = self.root
        entries = [entry for entry in os.scandir("/") if entry.name not in ("dev", "run", "proc")]
        # The entry that contains the root comes first: its mount is copied with everything that is mounted below it.
        entries.sort(key=lambda entry: not self.root.is_relative_to(entry.path))
        self._mirror(entries, self.root)
        (self.root / "run").mkdir()
        self._own["/run"] = self.root / "run"
        self._make_devices()
        (self.root / "proc").mkdir()
        if new_proc:
            self.lines.append(_line("proc", self.root / "proc", "proc", "nosuid,nodev,noexec"))
        else:
            self._bind(Path("/proc"), self.root / "proc")

    def _make_devices(self) -> None:
        """Make a /dev as a container runtime does."""
        folder = self._own["/dev"] = self.root / "dev"
        folder.mkdir()
        for name in DEVICES:
            if Path("/dev", name).exists():
                _empty(folder / name, Path("/dev", name).is_dir())
                self._bind(Path("/dev", name), folder / name)
        for name, target in STREAMS.items():
            (folder / name).symlink_to(target)
        if SHARED_MEMORY.is_dir():
            shared = self.root.with_name("shm")
            shared.mkdir()
            (folder / "shm").mkdir()
            self._bind(shared, folder / "shm")

    def add(self, mount: Mount) -> None:
        path = os.path.realpath(mount.path)
        if path in ("/", "/run", "/proc"):
            raise MountRefused(f'nothing can be mounted at "{mount.path}"')
        try:
            self._make_point(path, mount)
        except OSError as error:
            raise MountRefused(f'nothing can be mounted at "{mount.path}": {error.strerror}') from error
        self._bind(mount.source, self.root / path.lstrip("/"), read_only=mount.read_only)
        self._volumes[path] = mount.source

    def _make_point(self, path: str, mount: Mount) -> None:
        """Make the mount point for ``mount`` at ``path``, if it's missing."""
        parents = [str(parent) for parent in PurePosixPath(path).parents]
        for parent in parents:
            if parent in self._volumes:
                _empty(self._volumes[parent] / os.path.relpath(path, parent), mount.source.is_dir())
                return
            if parent in self._own:
                target = self._own[parent] / os.path.relpath(path, parent)
                if parent != "/" or not os.path.lexists("/" + PurePosixPath(path).parts[1]):
                    _empty(target, mount.source.is_dir())
                    return
        if Path(path).exists():
            return
        existing = next(parent for parent in parents if Path(parent).is_dir())
        ours = self.root.with_name(self.root.name + existing.replace("/", "+"))
        ours.mkdir()
        _empty(ours / os.path.relpath(path, existing), mount.source.is_dir())
        self._own[existing] = ours
        target = self.root / existing.lstrip("/")
        self._bind(ours, target)
        self._mirror(os.scandir(existing), ours, target)

    def _mirror(self, entries: Iterable[os.DirEntry[str]], ours: Path, target: Path | None = None) -> None:
        """Show the machine's ``entries`` in the folder ``ours``.

        ``target`` is the path below `self.root` where ``ours`` is mounted; None if ``ours`` is `self.root`.
        """
        for entry in entries:
            if entry.is_symlink():
                (ours / entry.name).symlink_to(Path(entry.path).readlink())
            elif entry.is_dir() or entry.is_file():
                _empty(ours / entry.name, entry.is_dir())
                self._bind(Path(entry.path), (target or ours) / entry.name)

    def _bind(self, source: Path, target: Path, *, read_only: bool = False) -> None:
        options = ["rbind"]
        if read_only:
            # In a user namespace, a mount can't have more rights than its source. So it gets the source's flags, too.
            flags = os.statvfs(source).f_flag
            locked = {"nosuid": os.ST_NOSUID, "nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC}
            options = ["bind", "ro", *(name for name, flag in locked.items() if flags & flag)]
        self.lines.append(_line(source, target, "none", ",".join(options)))


def _empty(path: Path, folder: bool) -> None:
    if folder:
        path.mkdir(parents=True, exist_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _line(source: Path | str, target: Path, kind: str, options: str) -> str:
    here, there = ("".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in str(p)) for p in (source, target))
    return f"{here} {there} {kind} {options} 0 0\n"
