"""Build a container's root directory: what the container sees of this machine, its own folders, and its volumes."""

import contextlib
import os
import re
import shutil
import struct
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from labkit.simulator.kubernetes.node.mounts import Mount, MountRefused

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - each container has its own
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
# Not the control groups, nor what a runtime masks.
# https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-filesystems
HARDWARE = tuple(f"/sys/{name}" for name in ("block", "bus", "class", "dev", "devices", "module", "power"))
MASKED = "/sys/devices/virtual/powercap"
# What programs and libraries read. /etc/ssl and /etc/pki have private keys, too.
SETTINGS = (
    *("alternatives", "crypto-policies", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types"),
    *("nsswitch.conf", "os-release", "pki/ca-trust/extracted", "pki/tls/cert.pem", "pki/tls/certs", "protocols"),
    *("services", "ssl/cert.pem", "ssl/certs", "ssl/openssl.cnf"),
)
OWN = {"etc": 0o755, "home": 0o755, "media": 0o755, "mnt": 0o755, "opt": 0o755, "root": 0o700, "run": 0o755,
       "srv": 0o755, "sys": 0o755, "tmp": 0o1777, "var": 0o755, "var/cache": 0o755, "var/lib": 0o755, "var/log": 0o755,
       "var/tmp": 0o1777}  # fmt: skip
DEVICES = ("full", "null", "ptmx", "pts", "random", "tty", "urandom", "zero")
# libfaketime's semaphore and memory, for all users of a container. Nobody waits for a semaphore of this value, because
# a program that is killed while it holds one would stop the others.
# https://sourceware.org/git/?p=glibc.git;a=blob;f=sysdeps/nptl/internaltypes.h
CLOCK = {"sem.labkit": struct.pack("<QQ16x", 1 << 30, 128), "labkit": struct.pack("<QQ6q", 0, 0, *(0, -1) * 3)}
STREAMS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
# Root's processes could write these, because their user id is root's outside of the container, too.
KERNEL = ("bus", "fs", "irq", "sys", "sysrq-trigger")


class Root:
    """A folder that becomes a container's root directory. `lines` are the mounts to make in it, in fstab(5) form.

    - `visible`: folders of this machine that the container also sees.
    - `new_proc`: /proc shows only the container's own processes.
    - `read_only`: nothing but volumes, /dev/shm and /proc can be written.
    - `closed`: the container's user has the files' user id, but mustn't write what belongs to root.
    - `cwd`: the working directory, which is made if it's missing.
    - `texts`: files of the container, by path.

    Raises MountRefused if a mount's path isn't usable.
    """

    def __init__(
        self,
        folder: Path,
        mounts: Iterable[Mount],
        *,
        visible: Iterable[Path] = (),
        new_proc: bool,
        read_only: bool = False,
        closed: bool = False,
        cwd: str = "/",
        texts: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self._sources = {PurePosixPath("/"): folder}  # a path in the container -> its files on this machine
        self._own = {PurePosixPath("/")}  # of these paths, those whose files aren't the machine's
        self._submounts = _mount_points()
        _folder(folder)
        self._bind(folder, folder, read_only=read_only)
        self._make_folders(texts or {})
        self._make_devices()
        self._make_proc(new_proc)
        settings = (f"/etc/{name}" for name in SETTINGS)
        seen = self._seen([*SYSTEM, *HARDWARE, *settings, *_programs(), *map(str, visible)])
        if Path(MASKED).is_dir():
            seen.append(Mount(MASKED, self.folder / "media", read_only=True))
        volumes = [self._add(mount, own=mount not in seen) for mount in sorted([*seen, *mounts], key=_depth)]
        # Whether a volume hides the system's programs or libraries. Then no program can start.
        needed = {self._real(path) for path in ("/bin", "/lib", "/lib64")}
        self.hides_programs = any(path.is_relative_to(volume) for path in needed for volume in volumes if volume)
        self._make_working_directory(cwd)
        if any(PurePosixPath(mount.path).is_relative_to("/root") for mount in seen):
            (folder / "root").chmod(0o711)
        if closed:
            self._close()

    def on_host(self, path: str) -> Path:
        """Return this machine's path for a path in the container."""
        return self._source(self._real(path))

    # Paths in the container

    def _real(self, path: str) -> PurePosixPath:
        """Return the path in the container without its symbolic links."""
        current, left = PurePosixPath("/"), list(PurePosixPath("/", path).parts[1:])
        links = 0
        while left:
            part = left.pop(0)
            if part == "..":
                current = current.parent
                continue
            source = self._source(current / part)
            if not source.is_symlink() or links == 40:
                current /= part
                continue
            links += 1
            target = PurePosixPath(source.readlink())
            current, left = (PurePosixPath("/") if target.is_absolute() else current), [*target.parts, *left]
            left = [each for each in left if each != "/"]
        return current

    def _top(self, path: PurePosixPath) -> PurePosixPath:
        return next(parent for parent in (path, *path.parents) if parent in self._sources)

    def _source(self, path: PurePosixPath) -> Path:
        top = self._top(path)
        return self._sources[top] / path.relative_to(top)

    # Its parts

    def _make_folders(self, texts: dict[str, str]) -> None:
        for name, mode in OWN.items():
            _folder(self.folder / name, mode)
        (self.folder / "var/run").symlink_to("/run")
        self._bind(self.folder / "sys", self.folder / "sys", read_only=True)
        for name in SETTINGS:
            if Path("/etc", name).is_file():
                _folder((self.folder / "etc" / name).parent)
                with contextlib.suppress(OSError):
                    shutil.copyfile(f"/etc/{name}", self.folder / "etc" / name)
        for name, text in texts.items():
            _empty(self.folder / name, folder=False)
            (self.folder / name).write_text(text)

    def _make_working_directory(self, path: str) -> None:
        real = self._real(path)
        if self._top(real) in self._own:
            with contextlib.suppress(OSError):  # such as a file: the program's start will tell
                _folder(self._source(real))

    def _close(self) -> None:
        """Permit to the owner of the container's folders, and of its files in /etc, only what others than root may do.

        The owner may still change these modes.
        """
        own = [self.folder, *(self.folder / name for name in OWN), self.folder / "dev"]
        for path in [*own, *(self.folder / "etc").rglob("*")]:
            mode = path.lstat().st_mode & 0o1777
            if not path.is_symlink() and not mode & 0o1000:
                path.chmod(mode & 0o077 | (mode & 0o007) << 6)

    def _seen(self, paths: Iterable[str]) -> list[Mount]:
        """Return the folders of this machine that the container sees, and make the links that lead there."""
        seen: list[PurePosixPath] = []
        for wanted in paths:
            current, left = PurePosixPath("/"), list(PurePosixPath(wanted).parts[1:])
            while left:
                part = left.pop(0)
                current = current.parent if part == ".." else current / part
                if part == ".." or not Path(current).is_symlink():
                    continue
                target = PurePosixPath(Path(current).readlink())
                if not any(current.is_relative_to(each) for each in seen):
                    link = self.folder / current.relative_to("/")
                    _folder(link.parent)
                    if not os.path.lexists(link):
                        link.symlink_to(target)
                current = PurePosixPath("/") if target.is_absolute() else current.parent
                left = [*(each for each in target.parts if each != "/"), *left]
            if Path(current).is_dir() and not any(current.is_relative_to(each) for each in seen):
                seen.append(current)
        return [Mount(str(path), Path(path), read_only=True) for path in seen]

    def _add(self, mount: Mount, *, own: bool) -> PurePosixPath | None:
        """Mount a volume (`own`), and return its path, or show a folder of this machine."""
        path = self._real(mount.path)
        if str(path) in ("/", "/proc"):
            raise MountRefused(f'nothing can be mounted at "{mount.path}"')
        try:
            self._make_point(path, folder=mount.source.is_dir())
        except OSError as error:
            raise MountRefused(f'nothing can be mounted at "{mount.path}": {error.strerror}') from error
        self._bind(mount.source, self.folder / path.relative_to("/"), read_only=mount.read_only)
        self._sources[path] = mount.source
        if own:
            self._own.add(path)
        return path if own else None

    def _make_point(self, path: PurePosixPath, *, folder: bool) -> None:
        """Make the mount point at ``path``, if it's missing."""
        if self._top(path) in self._own:
            _empty(self._source(path), folder=folder)
            return
        if self._source(path).exists():
            return
        # A folder of this machine lacks the path. Show this folder's entries in a folder of ours, which can have it.
        lacks = next(parent for parent in path.parents if self._source(parent).is_dir())
        machines = self._source(lacks)
        ours = self.folder.with_name(self.folder.name + str(lacks).replace("/", "+"))
        _folder(ours)
        self._bind(ours, self.folder / lacks.relative_to("/"))
        self._sources[lacks] = ours
        self._own.add(lacks)
        for entry in os.scandir(machines):
            if entry.is_symlink():
                (ours / entry.name).symlink_to(Path(entry.path).readlink())
            elif entry.is_dir() or entry.is_file():
                _empty(ours / entry.name, folder=entry.is_dir())
                at = lacks / entry.name
                self._bind(Path(entry.path), self.folder / at.relative_to("/"), read_only=True)
                self._sources[at] = Path(entry.path)
        _empty(self._source(path), folder=folder)

    def _make_devices(self) -> None:
        """Make a /dev as a container runtime does."""
        folder = self.folder / "dev"
        _folder(folder)
        for name in DEVICES:
            if Path("/dev", name).exists():
                _empty(folder / name, folder=Path("/dev", name).is_dir())
                self._bind(Path("/dev", name), folder / name)
        for name, target in STREAMS.items():
            (folder / name).symlink_to(target)
        if SHARED_MEMORY.is_dir():
            shared = self.folder.with_name("shm")
            _folder(shared)
            shared.chmod(0o1777)
            for name, content in CLOCK.items():
                (shared / name).write_bytes(content)
                (shared / name).chmod(0o666)
            _folder(folder / "shm")
            self._bind(shared, folder / "shm")

    def _make_proc(self, new: bool) -> None:
        proc = self.folder / "proc"
        _folder(proc)
        if not new:
            self._bind(Path("/proc"), proc)
            return
        self.lines.append(_line("proc", proc, "proc", "nosuid,nodev,noexec"))
        if os.geteuid() == 0:
            for name in KERNEL:
                if Path("/proc", name).exists():
                    self._bind(
                        proc / name, proc / name, read_only=True, flags=os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
                    )

    def _bind(self, source: Path, target: Path, *, read_only: bool = False, flags: int | None = None) -> None:
        options = ["rbind"]
        if read_only:
            # In a user namespace, a mount can't have more rights than its source. So it gets the source's flags, too.
            flags = os.statvfs(source).f_flag if flags is None else flags
            locked = {"nosuid": os.ST_NOSUID, "nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC}
            options += ["ro", *(name for name, flag in locked.items() if flags & flag)]
        self.lines.append(_line(source, target, "none", ",".join(options)))
        if read_only and source != self.folder:
            for point in self._submounts:
                if point != source and point.is_relative_to(source):
                    self.lines.append(_line(point, target / point.relative_to(source), "none", ",".join(options)))


def _programs() -> list[str]:
    """Return the folders of this Python environment and of labkit, which the AWS CLI loads."""
    environment = Path(sys.prefix, "pyvenv.cfg").resolve().parent
    return [sys.prefix, str(environment), sys.base_prefix, sys.executable, str(Path(__file__).parents[3])]


def _depth(mount: Mount) -> int:
    return len(PurePosixPath(mount.path).parts)


def _mount_points() -> list[Path]:
    """Return this machine's mount points. https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html"""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split()[4])) for line in lines]


def _folder(path: Path, mode: int = 0o755) -> None:
    """Make a folder and the folders above it, whatever this process's umask."""
    if not path.is_dir():
        _folder(path.parent)
        path.mkdir()
        path.chmod(mode)


def _empty(path: Path, *, folder: bool) -> None:
    if folder:
        _folder(path)
    elif not path.exists():
        _folder(path.parent)
        path.touch()
        path.chmod(0o644)


def _line(source: Path | str, target: Path, kind: str, options: str) -> str:
    here, there = ("".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in str(p)) for p in (source, target))
    return f"{here} {there} {kind} {options} 0 0\n"
