"""Homes of limited size: each a file system in a file, mounted by a loop device.

Only the participant's sandbox sees the mount, so it ends with the sandbox. Where no loop device can be had, a home is a
plain folder without a limit. https://man7.org/linux/man-pages/man4/loop.4.html
"""

import os
import shutil
import subprocess
from pathlib import Path

from labkit.workshop.seats import Seat
from labkit.workshop.settings import Workshop

MIB = 2**20
# Mount the first argument on the second, in a mount namespace of its own, and run the others there.
MOUNTED = (
    'mount -o loop,nosuid,nodev "$1" "$2" && chmod 0700 "$2" && { rmdir "$2/lost+found" 2>/dev/null || :; } && '
    'shift 2 && exec "$@"'
)


def limited() -> bool:
    """Whether this machine can limit the size of homes."""
    if not shutil.which("mkfs.ext4") or not shutil.which("losetup"):
        return False
    return subprocess.run(["losetup", "--find"], capture_output=True).returncode == 0


def prepare(seat: Seat) -> list[str]:
    """Make the participant's home unless it exists. Return the command in front of a program that needs it mounted."""
    seat.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    began_as_folder = any(seat.home.iterdir())
    if seat.image.exists() or (limited() and not began_as_folder and _make_image(seat)):
        return [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--",
            "sh",
            "-c",
            MOUNTED,
            "sh",
            str(seat.image),
            str(seat.home),
        ]
    if seat.home.stat().st_uid != seat.uid:
        os.chown(seat.home, seat.uid, seat.uid)
    return []


def forget(seat: Seat) -> None:
    """Delete the home with all that is in it."""
    seat.image.unlink(missing_ok=True)
    shutil.rmtree(seat.home, ignore_errors=True)


def attached(workshop: Workshop) -> int:
    """Return how many loop devices hold homes of the workshop."""
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    return sum(Path(file.read_text().strip()).is_relative_to(workshop.state) for file in files)


def _make_image(seat: Seat) -> bool:
    seat.image.parent.mkdir(mode=0o700, exist_ok=True)
    unfinished = seat.image.with_suffix(".new")
    with unfinished.open("wb") as file:
        file.truncate(seat.workshop.limits.home * MIB)
    owner = f"root_owner={seat.uid}:{seat.uid}"
    options = ["-q", "-F", "-m", "0", "-E", f"lazy_itable_init=1,lazy_journal_init=1,{owner}"]
    if subprocess.run(["mkfs.ext4", *options, str(unfinished)], capture_output=True).returncode:
        unfinished.unlink()
        return False
    unfinished.rename(seat.image)
    return True
