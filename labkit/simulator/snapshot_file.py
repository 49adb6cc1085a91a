"""A snapshot's file: what it may contain, how large it may be, and which programs its pods run.

Anyone may have written the file. So nothing in it is used before it is checked here.
"""

import contextlib
import json
import os
import re
import shutil
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from shlex import join, quote
from typing import IO, Any

from labkit.errors import LabError
from labkit.showing import few
from labkit.simulator import identifiers
from labkit.simulator.aws import own_state
from labkit.simulator.cluster_folder import ClusterFolder
from labkit.simulator.database import AWS_LAYOUT, require_tables, require_types
from labkit.simulator.folder import Folder
from labkit.simulator.kubernetes.objects import storage
from labkit.simulator.names import of_file

FORMAT = 2
MANIFEST = "manifest.json"
AWS = ("aws.db",)
OTHER_FILES = (
    *("aws-own.db", "aws-serials.db", "clock", "trail.jsonl", "trail.older.jsonl", "clusters/serials.db"),
    *("clusters/*/objects.db", "clusters/*/cluster.json", "clusters/*/webhook.json", "faults/*.json"),
    "published/*/*.json",
)
LARGEST = 512 * 2**20  # bytes of all files together, unpacked
LONGEST_MANIFEST = 4096  # bytes
LONGEST_DIRECTORY = 2**20  # bytes; enough for thousands of files
END = 22  # bytes of the last record of a zip archive without a comment
LOCATOR = 20  # bytes of the record before it, in an archive that is larger than a snapshot may be
# A part of a file's path. Other characters mean something to a shell or to another operating system.
PART = re.compile(r"[A-Za-z0-9=@_-][A-Za-z0-9=@._-]*")
CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
# Python's errors for a file that is damaged or isn't a snapshot.
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, sqlite3.Error, EOFError, OSError, RuntimeError, LookupError, TypeError),
    *(ValueError, AttributeError),
)
BLOCK = 1024 * 1024


@contextlib.contextmanager
def opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """Open a snapshot. Raise `LabError` if the file isn't an archive, or has too many or too large files."""
    try:
        stream = file.open("rb")
    except OSError as error:
        raise LabError(f"{file} cannot be read: {error.strerror}.", next=f"ls -l {quote(str(file))}") from error
    with stream:
        try:
            _require_small_directory(file, stream)
            archive = zipfile.ZipFile(stream)
        except BROKEN as error:
            raise broken(file) from error
        if sum(each.file_size for each in archive.infolist()) > LARGEST:
            raise LabError(
                f"{file} would take more than {LARGEST >> 20} MB of disk, and no snapshot is that large.",
                where="nothing was changed",
                next="labkit restore with another file",
            )
        yield archive


def check(file: Path, archive: zipfile.ZipFile) -> dict[str, object]:
    """Return the snapshot's manifest. Raise `LabError` if the file isn't a snapshot that this version can use."""
    try:
        if archive.getinfo(MANIFEST).file_size > LONGEST_MANIFEST:
            raise broken(file)
        manifest: dict[str, object] = json.loads(archive.read(MANIFEST))
        wrote = manifest["format"], manifest["labkit"], manifest["moto"]
        names = archive.namelist()
        if len({*names}) < len(names) or not all(map(_is_expected, archive.infolist())) or archive.testzip():
            raise broken(file)
    except BROKEN as error:
        raise broken(file) from error
    if (FORMAT, version("moto")) != (wrote[0], wrote[2]):
        raise LabError(
            f"labkit {wrote[1]} with moto {wrote[2]} made this snapshot, and labkit {version('labkit')} with moto "
            f"{version('moto')} cannot open it.",
            where=f"{file}; nothing was changed",
            next="ask for a snapshot that your versions made; or install the versions that made this one",
        )
    return manifest


def unpack(file: Path, archive: zipfile.ZipFile, place: Path) -> list[str]:
    """Write the files of a checked archive to the folder ``place``. Return the programs that the snapshot's pods run.

    Raise `LabError` if a file has a content that no lab writes.
    """
    for each in archive.namelist():
        if each != MANIFEST:
            with archive.open(each) as content:
                keep(content, place / each)
    try:
        for database in place.rglob("*.db"):
            _check_database(database)
        for registration in place.glob("clusters/*/webhook.json"):
            _check_webhook(registration)
        ClusterFolder.records(Folder(place))
        return _programs(place)
    except (*BROKEN, LabError) as error:
        raise broken(file) from error


def keep(content: IO[bytes], file: Path) -> None:
    """Write a file that only its owner can read, and sync it to the disk."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            shutil.copyfileobj(content, stream, BLOCK)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


def broken(file: Path) -> LabError:
    """Return the error for a file that isn't a snapshot, or that is damaged."""
    return LabError(
        f"{file} is not a snapshot of a lab, or is damaged.",
        where="nothing was changed",
        next="copy or download the file again; or labkit restore with another file",
    )


def _require_small_directory(file: Path, stream: IO[bytes]) -> None:
    """Raise `LabError` if the archive's directory is too long. `zipfile` reads the whole directory at once.

    https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - END - LOCATOR))
    locator, end = (last := stream.read())[:-END], last[-END:]
    directory = int.from_bytes(end[12:16], "little")
    if not end.startswith(b"PK\5\6") or locator.startswith(b"PK\6\7") or directory > LONGEST_DIRECTORY:
        raise broken(file)


def _is_expected(info: zipfile.ZipInfo) -> bool:
    """Whether a snapshot may have this file."""
    name, parts = info.filename, PurePosixPath(info.filename).parts
    return (
        # `zipfile` cuts a name at a NUL.
        name == info.orig_filename == "/".join(parts)
        and info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        and all(map(PART.fullmatch, parts))
        and any(
            len(parts) == len(PurePosixPath(pattern).parts) and PurePosixPath(name).match(pattern)
            for pattern in (MANIFEST, *AWS, *OTHER_FILES)
        )
    )


def _check_database(file: Path) -> None:
    """Raise `sqlite3.Error` if the file is damaged, or has a table, view, trigger or type that no lab has."""
    from labkit.simulator.aws.state import kept  # loads moto

    tables = {"aws.db": kept.TABLES, "aws-own.db": own_state.TABLES, "objects.db": storage.TABLES}
    with _reading(file) as connection:
        require_tables(connection, tables.get(file.name, identifiers.TABLES))
        # A database with an earlier layout would be read as an earlier version's folder is.
        if file.name in (*AWS, "aws-own.db") and connection.execute("PRAGMA user_version").fetchall() != [
            (AWS_LAYOUT,)
        ]:
            raise sqlite3.DatabaseError("its layout is another one")
        if file.name == "aws-own.db" and connection.execute("SELECT 1 FROM sessions").fetchone():
            raise sqlite3.DatabaseError("it has role sessions")
        if connection.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
            raise sqlite3.DatabaseError("damaged")
        require_types(connection)


def _check_webhook(file: Path) -> None:
    """Raise one of `BROKEN` if the file isn't a webhook's registration, which the next server compares with its own."""
    for webhook in json.loads(file.read_text())["webhooks"]:
        if not all(isinstance(webhook["clientConfig"][name], str) for name in ("url", "caBundle")):
            raise ValueError("a client that no lab writes")


def _programs(place: Path) -> list[str]:
    """Return the programs of all containers, probes and hooks: image, command, and the objects that have them."""
    owners: dict[str, dict[str, None]] = {}
    for owner, text in _texts(place):
        for container in _containers(json.loads(text)):
            for program in _programs_of(container):
                owners.setdefault(program, {})[owner] = None
    return [f"{program}   ({few(having)})" for program, having in owners.items()]


def _texts(place: Path) -> Iterator[tuple[str, bytes]]:
    """Yield each object's owner and JSON, then each fault record's. `mend` creates the pods in such a record."""
    for file in sorted(place.glob("clusters/*/objects.db")):
        with _reading(file) as connection:
            for namespace, name, text in connection.execute("SELECT namespace, name, text FROM objects"):
                yield f"{of_file(file.parent.name)}: {namespace}/{name}", text
    for file in sorted(place.glob("faults/*.json")):
        yield f"the faults in {file.stem}", file.read_bytes()


def _containers(document: object) -> Iterator[dict[str, Any]]:
    """Yield the containers of a pod, or of an object that creates pods."""
    if isinstance(document, list):
        for each in document:
            yield from _containers(each)
    elif isinstance(document, dict):
        for key, value in document.items():
            if key in CONTAINERS and isinstance(value, list):
                yield from value
            else:
                yield from _containers(value)


def _programs_of(container: dict[str, Any]) -> Iterator[str]:
    command = [*(container.get("command") or ()), *(container.get("args") or ())]
    yield f"{container.get('image')}: {_line(command) or 'the program of the image'}"
    handlers = [*(container.get("lifecycle") or {}).values(), *(container.get(probe) for probe in PROBES)]
    for handler in handlers:
        if handler and handler.get("exec"):
            yield f"{container.get('image')}: {_line(handler['exec']['command'])}"


def _line(command: list[object]) -> str:
    return join(map(str, command))


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    address = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        yield connection
