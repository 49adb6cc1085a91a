"""Snapshots: a lab's state in one file, which others can start their labs with.

The file has the state of the lab's AWS and Kubernetes: resources, objects, ids, serials, the trail, the clock,
published documents and faults.

The file doesn't have the lab's own credentials: CAs, the clusters' signing keys, the administrators' keys, role
sessions, and tokens in Secrets. A restored lab creates new credentials, so it doesn't accept older signatures and
tokens. The users' own secrets are in the file: access keys of IAM users, KMS keys, Secrets, messages. The pods' files
aren't, because they include tokens.

The file is a zip archive. Its manifest says which versions wrote it, and which cluster kubectl used.
"""

import contextlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from shlex import quote

from labkit.errors import LabError, UnknownName
from labkit.simulator import kubeconfig, process, replacement
from labkit.simulator.aws import own_state
from labkit.simulator.cluster_folder import ClusterFolder
from labkit.simulator.folder import Folder
from labkit.simulator.joined_folder import JoinedFolder
from labkit.simulator.kubernetes.objects import storage
from labkit.simulator.process import State
from labkit.simulator.snapshot_file import AWS, FORMAT, LARGEST, MANIFEST, OTHER_FILES, check, keep, opened, unpack

SUFFIX = ".labsnapshot"
DRAFT = ".snapshot."
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
COPIED_WITHIN = 120.0  # seconds


def copy(folder: Folder, into: Path, patterns: tuple[str, ...]) -> None:
    """Copy the lab's files that match ``patterns`` to the folder ``into``.

    The caller must make sure that nothing changes these files meanwhile. Raises `LabError` if the disk is full.
    """
    with folder.usable():
        for pattern in patterns:
            for file in [*folder.path.glob(pattern), *folder.path.glob(f"{pattern}-wal")]:
                with file.open("rb") as content:
                    keep(content, into / file.relative_to(folder.path))


def take(folder: Folder, name: str) -> Path:
    """Write the lab's state to a new file (mode 0600), and return the file. The lab may be running.

    ``name`` is a snapshot's name or a path. Raises `LabError` if the file exists or can't be written, if the lab has
    no state yet, or if an AWS service has changes that the lab doesn't store.
    """
    file = _file(folder, name)
    if file.exists():
        raise LabError(
            f"{file} already exists. A snapshot is never overwritten.",
            next="choose another name, or remove the file first",
        )
    if not _holds_state(folder):
        raise LabError(f"The lab in {folder.path} holds nothing yet.", next="labkit up")
    _refuse_joined(folder, "labkit snapshot")
    with process.turn(folder, "taking a snapshot of"), _place(folder) as place:
        _copy(folder, place)
        with _reporting_full_disk(folder):
            for database in place.rglob("*.db"):
                _clean(database)
        _require_size(place)
        _write(folder, place, file)
    return file


def restore(folder: Folder, name: str, *, force: bool, agree: Callable[[list[str]], None]) -> State:
    """Start the lab with the state of a snapshot. If the lab already has a state, replace it only with ``force``.

    ``name`` is the snapshot's name or path. ``agree`` gets the programs that the snapshot's pods run, before anything
    changes. It raises an error if the user doesn't want them.

    Raises `LabError` if the snapshot is missing or damaged, if it has another format, if another version of moto made
    it, or if the lab doesn't start with the snapshot's state. After such an error, the lab keeps its previous state.
    kubectl uses the same cluster as at the time of the snapshot.
    """
    file = _existing(folder, name)
    with opened(file) as archive:
        manifest = check(file, archive)
        if _holds_state(folder) and not force:
            raise LabError(
                f"The snapshot would replace the state of the lab in {folder.path}. Nothing was changed.",
                next=f"labkit snapshot NAME, which keeps that state; then:  labkit restore {quote(name)} --force",
            )
        _refuse_joined(folder, "labkit restore")
        with process.turn(folder, "restoring"), _place(folder) as place:
            if programs := unpack(file, archive, place):
                agree(programs)
            process.end(folder)
            replacement.offer(folder, place)
    state = process.start(folder)
    _put_kubectl_on(folder, state, manifest.get("cluster"))
    return state


def _put_kubectl_on(folder: Folder, state: State, cluster: object) -> None:
    """Make kubectl use one of the lab's clusters. ``cluster`` is its context or its ARN; nothing else has an effect."""
    before = state.kubeconfig.read_text()
    for record in ClusterFolder.records(folder):
        called = state.context(record.name, record.region)
        arn = f"arn:aws:eks:{record.region}:{state.account_id}:cluster/{record.name}"
        if cluster in (called, arn) and (after := kubeconfig.leading_to(before, called, arn)) != before:
            folder.write_private(state.kubeconfig, after.encode())


def _file(folder: Folder, name: str) -> Path:
    """Return the snapshot's file for a name or a path."""
    if os.sep in name or name.endswith(SUFFIX):
        file = Path(name).expanduser().absolute()
        if file.is_dir() or file.name == "..":
            raise LabError(
                f"{name} is a folder.", next=f"name a file in it: {quote(f'{name.rstrip(os.sep)}/NAME{SUFFIX}')}"
            )
        if file.parent.exists() and not file.parent.is_dir():
            raise LabError(f"{file.parent} is a file.", where=name, next="choose another path")
        if not file.parent.is_dir():
            raise LabError(f"{file.parent} is not a folder.", where=name, next=f"mkdir -p {quote(str(file.parent))}")
        return file
    if not NAME.fullmatch(name):
        raise LabError(
            f"{name!r} is not a valid name for a snapshot.",
            next="choose a name of at most 64 letters, digits, dots, underscores and hyphens, with a letter or digit "
            f"first; or choose a path with a {os.sep} in it",
        )
    return _named(folder) / f"{name}{SUFFIX}"


def _named(folder: Folder) -> Path:
    """Return the folder for named snapshots, which a reset doesn't empty."""
    return folder.path.with_name(f"{folder.path.name}-snapshots")


def _existing(folder: Folder, name: str) -> Path:
    if (file := _file(folder, name)).is_file():
        return file
    there = sorted(each.stem for each in _named(folder).glob(f"*{SUFFIX}"))
    if there and file.parent == _named(folder):
        raise UnknownName("snapshot of this lab", name, there, next="labkit restore NAME, or labkit restore PATH")
    raise LabError(f"{file} does not exist.", next="labkit restore with an existing file; or labkit snapshot NAME")


def _holds_state(folder: Folder) -> bool:
    return any((folder.path / name).exists() for name in (*AWS, replacement.WAITING, replacement.ENTERING))


def _refuse_joined(folder: Folder, command: str) -> None:
    if joined := sorted(JoinedFolder.joined(folder)):
        raise LabError(
            f"The cluster {joined[0]} has joined this lab. It is not the lab's own, and no snapshot can hold it.",
            next=f"labkit down, which removes it from the lab; then:  {command} …",
        )


@contextlib.contextmanager
def _place(folder: Folder) -> Iterator[Path]:
    """Yield a temporary folder that the block may keep by renaming."""
    for left in folder.path.glob(f"{DRAFT}*"):  # left by a command that was killed
        shutil.rmtree(left, ignore_errors=True)
    with (
        folder.usable(),
        tempfile.TemporaryDirectory(prefix=DRAFT, dir=folder.path, ignore_cleanup_errors=True) as place,
    ):
        yield Path(place)


def _copy(folder: Folder, place: Path) -> None:
    """Copy the lab's state to the folder ``place``. If the lab's server runs, the server makes the copy."""
    unkept = process.have_copied(folder, place.name, within=COPIED_WITHIN)
    if unkept is None:
        # If a restored state waits for the next server, it is the lab's present state.
        replacement.enter(folder)
        copy(folder, place, AWS + OTHER_FILES)
    elif unkept:
        raise LabError(
            f"The lab does not keep the state of {', '.join(unkept)}, which you have used: a snapshot would lack it.",
            next="labkit down and labkit up, which lose that state; then:  labkit snapshot …",
        )


def _clean(database: Path) -> None:
    """Remove the lab's own credentials and the remains of deleted rows from a copied database."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        if database.name == "aws-own.db":
            own_state.forget_sessions(connection)
        elif database.name == "objects.db":
            storage.forget_tokens(connection)
        # One file again, without free pages.
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("VACUUM")


def _require_size(place: Path) -> None:
    size = sum(each.stat().st_size for each in place.rglob("*"))
    if size > LARGEST:
        raise LabError(
            f"The lab's state has {size >> 20} MB, and a snapshot can have {LARGEST >> 20} MB.",
            next="delete what you don't need, such as large objects in S3; then repeat the command",
        )


def _write(folder: Folder, place: Path, file: Path) -> None:
    """Write the archive, completely or not at all."""
    used = kubeconfig.cluster_in_use(folder.kubeconfig.read_text()) if folder.kubeconfig.exists() else ""
    manifest = {"format": FORMAT, "labkit": version("labkit"), "moto": version("moto"), "cluster": used}
    draft = None
    try:
        if file.parent == _named(folder):
            file.parent.mkdir(mode=0o700, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with os.fdopen(handle, "wb") as stream:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(MANIFEST, json.dumps(manifest))
                for each in sorted(place.rglob("*")):
                    if each.is_file():
                        archive.write(each, each.relative_to(place).as_posix())
            stream.flush()
            os.fsync(stream.fileno())
        Path(draft).replace(file)
    except OSError as error:
        if draft:
            Path(draft).unlink(missing_ok=True)
        raise LabError(
            f"{file} could not be written: {error.strerror}.",
            next=f"make room (df -h {quote(str(file.parent))}), or choose another folder:  labkit snapshot PATH",
        ) from error


@contextlib.contextmanager
def _reporting_full_disk(folder: Folder) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        reason = "no space is left on the disk" if "full" in str(error) else f"{error}"
        raise LabError(
            f"The snapshot could not be made: {reason}.",
            next=f"df -h {quote(str(folder.path))}, make room, and try again",
        ) from error
