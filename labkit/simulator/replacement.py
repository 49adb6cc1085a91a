"""Replace the state in the lab's folder with a snapshot's state, completely or not at all.

The snapshot's state waits in the folder until the lab's next server starts. If that server doesn't come up, the folder
gets its previous state back. If a replacement was interrupted, the next start finishes the replacement.
"""

import shutil
from pathlib import Path

from labkit.simulator.folder import Folder

STATE = (
    *("aws.db", "aws-own.db", "aws-serials.db", "ca.key", "ca.pem", "clock", "clusters", "faults", "pods"),
    *("published", "secret", "trail.jsonl", "trail.older.jsonl"),
)
"""The files and folders with a lab's state, including its random secrets.

The other files in the lab's folder aren't state: ports, clients' files, and facts about clusters that had joined.
"""
SIDE_FILES = ("-wal", "-shm", "-journal")
WAITING, ENTERING, REPLACED = "restored", "entering", "replaced"


def offer(folder: Folder, state: Path) -> None:
    """Move the folder ``state`` into the lab's folder. The lab's next server starts with the state in ``state``.

    Call this only while the lab has no running server.
    """
    with folder.usable():
        _delete(folder.path / REPLACED)
        state.rename(folder.path / WAITING)


def enter(folder: Folder) -> None:
    """If a restored state waits in the folder, make it the lab's state. Keep the previous state for `go_back`.

    The server must not be running.
    """
    waiting, entering, replaced = (folder.path / name for name in (WAITING, ENTERING, REPLACED))
    with folder.usable():
        if waiting.is_dir():
            replaced.mkdir(mode=0o700, exist_ok=True)
            _move(folder.path, replaced)
            # From here on, state files in the lab's folder belong to the new state.
            waiting.rename(entering)
        if entering.is_dir():
            _move(entering, folder.path)
            _delete(entering)


def go_back(folder: Folder) -> bool:
    """Undo `enter`: put the replaced state back, and delete the new state. Return False if `enter` replaced nothing.

    The server must not be running.
    """
    if not (folder.path / REPLACED).is_dir():
        return False
    with folder.usable():
        (folder.path / REPLACED).rename(folder.path / WAITING)
    enter(folder)
    settle(folder)
    return True


def settle(folder: Folder) -> None:
    """Delete the state that was replaced. Call this only when that state won't be put back."""
    _delete(folder.path / REPLACED)


def _move(source: Path, target: Path) -> None:
    for name in STATE:
        # A database's other files first: their content isn't in the database yet.
        for each in (*(f"{name}{more}" for more in SIDE_FILES), name):
            if (source / each).exists():
                (source / each).rename(target / each)


def _delete(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
