"""The arguments with which bubblewrap gives a participant's server a small world of its own.

Two sandboxes, one in the other. Root makes the outer one: it holds exactly the folders that a participant may see, so
that an interpreter in a folder which only root may enter works, too. In it, the participant's uid makes the inner one,
with processes of its own. The outer /proc stays whole: otherwise the kernel lets no pod mount a /proc of its own.
https://github.com/containers/bubblewrap, https://man7.org/linux/man-pages/man7/user_namespaces.7.html
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from labkit.course import NOTEBOOKS
from labkit.workshop.seats import Seat
from labkit.workshop.settings import number

LABKIT = Path(__file__).parent.parent
MIB = 2**20
# Programs and libraries, and what they read of the machine's settings.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
SETTINGS = (
    "alternatives",
    "ca-certificates",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "ssl",
    "mime.types",
)
TEMPORARY = ("/tmp", "/var/tmp", "/run", "/dev/shm")  # noqa: S108  # the participant's own


def command(seat: Seat, arguments: Sequence[str], mounting: Sequence[str] = (), *, alone: bool = False) -> list[str]:
    """Return the command that runs a program in the participant's network namespace and sandbox, as the participant.

    Root runs it, and the environment passes through. `mounting` is the command that mounts the home. A program that is
    `alone` has no network.
    """
    network = ["unshare", "--net"] if alone else ["nsenter", f"--net=/run/netns/{seat.label}"]
    return [
        *(*network, "--", *mounting),
        *("bwrap", *_seen(seat, str(seat.home)), "--bind", "/proc", "/proc", "--dev-bind", "/dev", "/dev"),
        # The inner bubblewrap builds its world on /tmp.
        *("--dir", "/tmp"),  # noqa: S108
        *("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--"),
        *("setpriv", "--reuid", str(seat.uid), "--regid", str(seat.uid), "--clear-groups", "--"),
        # The temporary folders come first, since the interpreter may lie in one of them.
        *("bwrap", "--proc", "/proc", "--dev", "/dev", *_temporary(seat), *_seen(seat, home(seat))),
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--hostname", "workshop", "--chdir", home(seat), "--remount-ro", "/", "--", *arguments),
    ]


def home(seat: Seat) -> str:
    """The home, as the participant sees it."""
    return f"/home/{seat.name}"


def write_accounts(seat: Seat) -> None:
    """Write the files of users that the sandbox shows in place of this machine's."""
    folder = _accounts(seat)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "passwd").write_text(f"{seat.name}:x:{seat.uid}:{seat.uid}::{home(seat)}:/bin/bash\n")
    (folder / "group").write_text(f"{seat.name}:x:{seat.uid}:\n")
    (folder / "hosts").write_text("127.0.0.1 localhost workshop\n::1 localhost\n")
    (folder / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")


def _accounts(seat: Seat) -> Path:
    return seat.workshop.state / "accounts" / seat.name


def _seen(seat: Seat, home_from: str) -> Iterator[str]:
    """Yield the arguments for what a participant sees. Only the home can be written."""
    for path in map(Path, SYSTEM):
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.exists():
            yield from ("--ro-bind", str(path), str(path))
    # bubblewrap would make parents that only root may enter.
    for path in sorted(
        {parent for inside in (Path("/etc/_"), Path(home(seat)), *readable()) for parent in inside.parents}
    ):
        yield from ("--dir", str(path))
    for name in SETTINGS:
        yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")
    outer = home_from != home(seat)
    for name in ("passwd", "group", "hosts", "nsswitch.conf"):
        yield from ("--ro-bind", str(_accounts(seat) / name) if outer else f"/etc/{name}", f"/etc/{name}")
    for prefix in readable():
        yield from ("--ro-bind", str(prefix), str(prefix))
    if seat.workshop.notebooks:
        yield from _only({"00", *seat.workshop.notebooks})
    readme = str(NOTEBOOKS.parent / "README.md")  # the notebooks link to its words
    yield from ("--ro-bind-try", readme, readme, "--bind", home_from, home(seat))


def _only(numbers: set[str]) -> Iterator[str]:
    """Yield the arguments that hide the course's other notebooks."""
    yield from ("--tmpfs", str(NOTEBOOKS))
    for file in NOTEBOOKS.iterdir():
        if file.suffix != ".ipynb" or number(file) in numbers:
            yield from ("--ro-bind", str(file), str(file))
    yield from ("--remount-ro", str(NOTEBOOKS))


def readable() -> list[Path]:
    """Return the folders of the interpreter, the packages and the notebooks outside /usr, none inside another."""
    folders = {Path(path).resolve() for path in (sys.prefix, sys.base_prefix, LABKIT, NOTEBOOKS)} | {Path(sys.prefix)}
    outside = sorted(folder for folder in folders if not folder.is_relative_to("/usr"))
    return [one for one in outside if not any(one != other and one.is_relative_to(other) for other in outside)]


def _temporary(seat: Seat) -> Iterator[str]:
    for path in TEMPORARY:
        yield from ("--size", str(seat.workshop.limits.memory * MIB // 4), "--tmpfs", path)
