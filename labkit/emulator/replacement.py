"""Replace the state in the lab's folder, completely or not at all, or go back.

A restored state waits in the folder until the lab's next server starts. The previous state is kept until that server
has come up. If it doesn't come up, the previous state goes back. Each step is a rename: the next start finishes an
interrupted one, and none needs space on the disk.
"""

import shutil
from pathlib import Path

from labkit.emulator.folder import Folder

STATE = (
    *("aws.db", "aws-own.db", "aws-serials.db", "ca.key", "ca.pem", "clock", "clusters", "faults", "pods"),
    *("published", "secret", "trail.jsonl", "trail.older.jsonl"),
)
"""The parts of a lab's state, with its random secrets. The other files of its folder only lead to it: ports, files of
clients, clusters that had joined."""
BESIDE_DATABASES = ("-wal", "-shm", "-journal")
WAITING, ENTERING, REPLACED = "restored", "entering", "replaced"


def offer(folder: Folder, state: Path) -> None:
    """Let the lab's next server start with the state in the folder ``state``. No server may run."""
    with folder.usable():
        _delete(folder.path / REPLACED)
        state.rename(folder.path / WAITING)


def enter(folder: Folder) -> None:
    """Replace the lab's state by the waiting one, if there is one. No server may run."""
    waiting, entering, replaced = (folder.path / name for name in (WAITING, ENTERING, REPLACED))
    with folder.usable():
        if waiting.is_dir():
            replaced.mkdir(mode=0o700, exist_ok=True)
            _move(folder.path, replaced)
            # From here on, what is in the folder is the new one.
            waiting.rename(entering)
        if entering.is_dir():
            _move(entering, folder.path)
            _delete(entering)


def go_back(folder: Folder) -> bool:
    """Put the replaced state back; return False if none was replaced. No server may run."""
    if not (folder.path / REPLACED).is_dir():
        return False
    with folder.usable():
        (folder.path / REPLACED).rename(folder.path / WAITING)
    enter(folder)
    settle(folder)
    return True


def settle(folder: Folder) -> None:
    """Delete the replaced state, once the lab's server has come up with the new one."""
    _delete(folder.path / REPLACED)


def _move(source: Path, target: Path) -> None:
    for name in STATE:
        # A database's other files first: their content isn't in the database yet.
        for each in (*(f"{name}{more}" for more in BESIDE_DATABASES), name):
            if (source / each).exists():
                (source / each).rename(target / each)


def _delete(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
