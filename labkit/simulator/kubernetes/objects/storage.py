"""All objects of one API server. All their changes go through `Storage._commit`.

Objects are plain dicts without `kind` and `apiVersion`. They are never changed in place: a change stores a new object.
So a reader may keep an object, and the object's JSON is made only once.
https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
"""

import json
import re
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from labkit.simulator.clock import Clock, rfc3339
from labkit.simulator.database import Database
from labkit.simulator.identifiers import Identifiers
from labkit.simulator.kubernetes.objects.kinds import KINDS, POD, SECRET, Kind, Object
from labkit.simulator.kubernetes.objects.status import already_exists, modified, not_found, too_large_to_store

LARGEST = 3 * 512 * 1024  # bytes of one object, etcd's limit: https://etcd.io/docs/v3.5/dev-guide/limit/
HISTORY = 4096  # a watch can resume from this many changes back
# The alphabet of generated names. It has no vowels, so that names contain no words, and no characters that look alike.
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
PATH = re.compile("[a-z0-9-]+")
LAYOUT = 1  # the version of the tables and their contents
TABLES = """
    CREATE TABLE version (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER);
    CREATE TABLE objects (
        resource TEXT, namespace TEXT, name TEXT, text BLOB, PRIMARY KEY (resource, namespace, name)
    ) WITHOUT ROWID
"""
OF_TOKENS = "kubernetes.io/service-account-token"
KIND_OF = {kind.resource: kind for kind in KINDS}
Later = Callable[[Callable[[], object]], None]  # calls a function soon, but never immediately


class Stored:
    """One version of one object.

    ``managers`` is the object's metadata.managedFields, as JSON text.
    """

    __slots__ = ("_text", "managers", "metadata", "object")

    def __init__(self, obj: Object, managers: bytes = b""):
        self.object, self.managers = obj, managers
        self.metadata: Object = obj["metadata"]
        self._text: bytes | None = None

    @classmethod
    def of_text(cls, text: bytes) -> "Stored":
        """Return the object with this JSON ``text``."""
        obj = json.loads(text)
        managers = obj["metadata"].pop("managedFields", None)
        stored = cls(obj, dump(managers) if managers else b"")
        stored._text = text
        return stored

    @property
    def text(self) -> bytes:
        """The object as JSON without kind and apiVersion, the form in which a list contains it."""
        if self._text is None:
            text = dump(self.object)
            if self.managers:
                # Every stored object starts with `metadata`. managedFields go before the closing brace of `metadata`.
                end = len(b'{"metadata":' + dump(self.metadata)) - 1
                text = text[:end] + b',"managedFields":' + self.managers + text[end:]
            self._text = text
        return self._text

    def full(self, kind: Kind) -> bytes:
        """Return the object as JSON with its kind and apiVersion."""
        return f'{{"kind":"{kind.kind}","apiVersion":"{kind.api_version}",'.encode() + self.text[1:]

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def namespace(self) -> str:
        return str(self.metadata.get("namespace", ""))

    @property
    def uid(self) -> str:
        return str(self.metadata["uid"])


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one object.

    ``type`` is ADDED, MODIFIED or DELETED. ``stored`` is the new version, or the last version of a deleted object.
    ``before`` is the version before the change; None for a new object.
    """

    version: int
    type: str
    kind: Kind
    stored: Stored
    before: Stored | None


class Storage:
    """The objects, in memory and, with a ``file``, also in the file.

    A change goes to the file first, then to the watches, then to the observers. If the file can't be written, the
    changing method raises `NotWritten`, and nothing changes. The constructor raises `LabError` if the file is unusable.
    """

    def __init__(self, clock: Clock, identifiers: Identifiers, file: Path | None = None):
        self.clock, self.identifiers = clock, identifiers
        self.version = 1
        self.history: deque[Change] = deque(maxlen=HISTORY)
        self.observers: list[Callable[[Change], None]] = []
        self.subscribers: dict[Kind, set[Callable[[Change], None]]] = {}
        self._objects: dict[Kind, dict[tuple[str, str], Stored]] = {}
        self._file = ObjectFile(file) if file else None
        self._read_at = 0
        if self._file and (version := self._file.version):
            self.version = self._read_at = version
            for kind, stored in self._file.objects():
                self._objects.setdefault(kind, {})[stored.namespace, stored.name] = stored

    @property
    def is_new(self) -> bool:
        """Whether no object has ever been stored."""
        return self.version == 1

    @property
    def oldest(self) -> int:
        """The oldest resource version from which a watch can start."""
        return self.history[0].version - 1 if len(self.history) == HISTORY else self._read_at

    def announce(self) -> None:
        """Tell the observers about each object from the file, as if the object were new."""
        for kind, objects in list(self._objects.items()):
            for stored in list(objects.values()):
                change = Change(int(stored.metadata["resourceVersion"]), "ADDED", kind, stored, None)
                for observe in self.observers:
                    observe(change)

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def now(self) -> str:
        """Return lab time in the API's form, e.g. ``2026-01-01T00:00:00Z``."""
        return rfc3339(self.clock.now())

    def name_suffix(self, kind: str, name: str) -> str:
        """Return five random characters for a generated name, different in each call with the same ``name``.

        Labs with the same seed get the same characters.
        """
        serial = self.identifiers.serial(f"suffix/{kind}", name)
        number = int(self.identifiers.hex(f"suffix/{kind}", f"{name}/{serial}", 16), 16)
        return "".join(ALPHABET[number // len(ALPHABET) ** place % len(ALPHABET)] for place in range(5))

    def find(self, kind: Kind, namespace: str, name: str) -> Stored | None:
        return self._objects.get(kind, {}).get((namespace, name))

    def get(self, kind: Kind, namespace: str, name: str) -> Stored:
        """Return the stored object. Raises `NotFound` if it doesn't exist."""
        if (stored := self.find(kind, namespace, name)) is None:
            raise not_found(kind, name)
        return stored

    def list(self, kind: Kind, namespace: str = "") -> Iterator[Stored]:
        """Yield a kind's objects in a namespace, or in all namespaces for "", sorted by namespace and name."""
        objects = self._objects.get(kind, {})
        for key in sorted(objects):
            if not namespace or key[0] == namespace:
                yield objects[key]

    def create(self, kind: Kind, obj: Object, managers: bytes = b"", *, dry_run: bool = False) -> Stored:
        """Store a new object with a uid and a creation time, and return it. Raises AlreadyExists."""
        metadata = obj["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        if (namespace, name) in self._objects.get(kind, {}):
            raise already_exists(kind, name)
        path = f"{namespace}/{name}"
        serial = 0 if dry_run else self.identifiers.serial(f"uid/{kind.resource}", path)
        added = {
            "uid": self.identifiers.uuid(f"uid/{kind.resource}", f"{path}/{serial}"),
            "creationTimestamp": self.now(),
            **({"generation": 1} if kind.generation else {}),
        }
        new = Stored(with_metadata(obj, metadata | added), managers)
        return new if dry_run else self._commit("ADDED", kind, new, None)

    def replace(
        self, kind: Kind, before: Stored, obj: Object, managers: bytes = b"", *, dry_run: bool = False
    ) -> Stored:
        """Store a new version of the object and return it. Raises Conflict if ``before`` isn't the current version."""
        self._require_current(kind, before)
        if obj == before.object and managers == before.managers:
            return before
        new = Stored(with_metadata(obj, dict(obj["metadata"])), managers)
        return new if dry_run else self._commit("MODIFIED", kind, new, before)

    def remove(self, kind: Kind, before: Stored) -> Stored:
        """Remove the object and return its last version. Raises Conflict if ``before`` isn't the current version."""
        self._require_current(kind, before)
        last = Stored({**before.object, "metadata": dict(before.metadata)}, before.managers)
        return self._commit("DELETED", kind, last, before)

    def _require_current(self, kind: Kind, stored: Stored) -> None:
        current = self.find(kind, stored.namespace, stored.name)
        if current is None:
            raise not_found(kind, stored.name)
        if current is not stored:
            raise modified(kind, stored.name)

    def _commit(self, type_: str, kind: Kind, stored: Stored, before: Stored | None) -> Stored:
        version, key = self.version + 1, (stored.namespace, stored.name)
        stored.metadata["resourceVersion"] = str(version)
        if type_ != "DELETED" and len(stored.text) > LARGEST:
            raise too_large_to_store(len(stored.text))
        if self._file:
            self._file.write(version, kind, key, None if type_ == "DELETED" else stored.text)
        self.version = version
        objects = self._objects.setdefault(kind, {})
        if type_ == "DELETED":
            del objects[key]
        else:
            objects[key] = stored
        change = Change(self.version, type_, kind, stored, before)
        self.history.append(change)
        for tell in tuple(self.subscribers.get(kind, ())):
            tell(change)
        for observe in self.observers:
            observe(change)
        return stored


class ObjectFile:
    """An API server's file: each object as JSON without kind and apiVersion, and the number of the last change.

    A real server uses etcd for this. Raises `LabError` if the file can't be used.
    """

    def __init__(self, file: Path):
        self._database = Database(file, layout=LAYOUT, tables=TABLES)
        self.close = self._database.close

    @property
    def version(self) -> int:
        """The number of the last change; 0 before the first one."""
        return max((number for (number,) in self._database.read("SELECT number FROM version")), default=0)

    def objects(self) -> Iterator[tuple[Kind, Stored]]:
        """Yield each object with its kind. Raises `LabError` if an object can't be read."""
        for resource, namespace, name, text in self._database.read(
            "SELECT resource, namespace, name, text FROM objects"
        ):
            with self._database.reading(f"the object {name} ({resource}) in {namespace or 'the cluster'}"):
                kind, stored = KIND_OF[resource], Stored.of_text(text)
                if kind is POD:
                    _check_names(stored)
            yield kind, stored

    def write(self, version: int, kind: Kind, key: tuple[str, str], text: bytes | None) -> None:
        """Store change number ``version``: the object's new ``text``, or None for a deletion. Raises `NotWritten`."""
        database = self._database
        with database.together():
            database.write("INSERT OR REPLACE INTO version VALUES (1, ?)", version)
            if text is None:
                database.write(
                    "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?", kind.resource, *key
                )
            else:
                database.write("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", kind.resource, *key, text)


def _check_names(pod: Stored) -> None:
    """Raise ValueError if a name that becomes a path in the node's folder isn't one that the API server accepts."""
    spec = pod.object["spec"]
    within = [each["name"] for part in ("volumes", "initContainers", "containers") for each in spec.get(part) or ()]
    if not all(map(PATH.fullmatch, [pod.uid, *within])):
        raise ValueError("a name in it is not valid")


def forget_tokens(file: sqlite3.Connection) -> None:
    """Remove the service account tokens from all Secrets in a copy of the file.

    The server that starts with this copy writes new tokens.
    https://kubernetes.io/docs/concepts/configuration/secret/#serviceaccount-token-secrets
    """
    select = "SELECT namespace, name, text FROM objects WHERE resource = ?"
    for namespace, name, text in file.execute(select, (SECRET.resource,)).fetchall():
        secret = json.loads(text)
        if secret.get("type") == OF_TOKENS and (secret.get("data") or {}).pop("token", None):
            changed = json.dumps(secret, separators=(",", ":"), ensure_ascii=False).encode()
            key = (SECRET.resource, namespace, name)
            file.execute(
                "UPDATE objects SET text = ? WHERE resource = ? AND namespace = ? AND name = ?", (changed, *key)
            )


def with_metadata(obj: Object, metadata: Object) -> Object:
    """Return the object with this metadata as its first key, as `Stored.text` needs it."""
    return {"metadata": metadata, **{key: value for key, value in obj.items() if key != "metadata"}}


def dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def seconds(moment: str) -> float:
    """Return an RFC 3339 time in seconds since the epoch. This is the inverse of ``rfc3339``."""
    return datetime.fromisoformat(moment).timestamp()


def quoted_list(values: list[str]) -> str:
    """Return a list of strings as Go's %q prints it."""
    return "[" + " ".join(f'"{value}"' for value in values) + "]"
