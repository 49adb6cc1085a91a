"""Keep moto's state in the lab's folder. Write it before a call is answered, and load it when the lab starts again.

After each call that changes something, the lab writes the objects that have changed, and nothing else (`tracking`). So
a write takes as long in a large lab as in a small one. The body of an S3 object is written only once.

If moto refuses a call after changing something, or if the write fails, the lab reads the changed objects from the file
again. So the lab never answers from state that isn't in the file.
"""

import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labkit.connection import ENTRANCE
from labkit.errors import LabError
from labkit.simulator.aws import pickles
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import AwsRequest, Response
from labkit.simulator.aws.records import READS
from labkit.simulator.aws.services import SERVICES
from labkit.simulator.aws.state import former, places, tracking
from labkit.simulator.aws.state.decoding import Reading
from labkit.simulator.aws.state.encoding import Batch
from labkit.simulator.database import AWS_LAYOUT, PICKLED_LAYOUT, Database, NotWritten

KEPT = frozenset(name for service in SERVICES.values() for name in service.stores or ())
"""moto's names of the state that is kept. The lab itself keeps role sessions, CloudTrail's events and clusters."""
# Their names look like reads, but they change later answers.
CHANGING_READS = ("BatchGetSecretValue", "GetRecords", "GetSecretValue", "GetShardIterator", "ReceiveMessage")
TABLES = """
    CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE roots (service TEXT, account TEXT, name TEXT, object INTEGER, PRIMARY KEY (service, account, name));
    CREATE TABLE objects (number INTEGER PRIMARY KEY, class TEXT, content TEXT);
    CREATE TABLE elements (place INTEGER PRIMARY KEY, container INTEGER, key, value TEXT, UNIQUE (container, key));
    CREATE TABLE bodies (number INTEGER PRIMARY KEY, content BLOB)
"""
# What deletes an object.
FORGET = (
    "DELETE FROM objects WHERE number = ?", "DELETE FROM bodies WHERE number = ?",
    "DELETE FROM elements WHERE container = ?",
)  # fmt: skip

_keeping: ContextVar[bool] = ContextVar("keeping", default=False)


class MotoState:
    """Keep moto's state in a file. Without ``file``, keep nothing.

    After the file is loaded, only moto's thread reads and writes the file.

    Raises `LabError` if another version of labkit or of moto wrote the file; `NotWritten` if the disk is full.
    """

    def __init__(self, backend: Backend, file: Path | None):
        self._backend = backend
        self._database = Database(file, layout=AWS_LAYOUT, tables=TABLES, former=PICKLED_LAYOUT) if file else None
        self._numbered: dict[int, tracking.Mark] = {}
        self._last = 0
        if self._database:
            places.watch(KEPT)
            self._load(self._database)
            backend.carry_out = self._carry_out

    @asynccontextmanager
    async def keeping(self, request: AwsRequest) -> AsyncIterator[None]:
        """Keep what the call changes, if it may change something: see `keeping_all`."""
        # EKS itself writes a new cluster, once the cluster runs.
        if not changes(request) or request.operation == "CreateCluster":
            yield
            return
        async with self.keeping_all():
            yield

    @asynccontextmanager
    async def keeping_all(self) -> AsyncIterator[None]:
        """Write what each part of this block changes in moto's thread, or undo it and raise `NotWritten`.

        If a part raises an error, or returns a refusal, its changes are undone.
        """
        token = _keeping.set(True)
        try:
            yield
        finally:
            _keeping.reset(token)

    async def write(self) -> None:
        """Write all changes so far. If that fails, undo them and raise `NotWritten`."""
        if self._database:
            async with self.keeping_all():
                await self._backend.run(lambda: None)

    @property
    def services(self) -> set[str]:
        """The services that have state in the file."""
        rows = self._database.read("SELECT DISTINCT service FROM roots") if self._database else []
        return {service for (service,) in rows}

    async def close(self) -> None:
        """Write the changes of calls that only read, and close the file."""
        if self._database:
            try:
                await self.write()
            finally:
                self._database.close()

    def _carry_out(self, work: Callable[[], Any]) -> Any:
        """Run a part of a call in moto's own thread, and write or undo what it changes."""
        if not _keeping.get():
            return work()
        if tracking.changed:  # by calls that only read
            with contextlib.suppress(NotWritten):
                self._write()
        try:
            answer = work()
            if not isinstance(answer, Response) or answer.status < 400:
                self._write()
                return answer
        except BaseException:
            self._undo()
            raise
        self._undo()
        return answer

    def _write(self) -> None:
        """Write all changes since the last write. Raises `NotWritten`, and then nothing is written."""
        assert self._database is not None
        places.wait_for_threads()
        batch = Batch(self._last)
        for root in places.roots():
            batch.add_root(*root)
        for thing in list(tracking.changed.values()):
            batch.take(thing)
        batch.fill()
        ended = [(number,) for number in tracking.ended]
        if not (batch.objects or batch.removed or batch.renewed or batch.added or ended):
            batch.settle()
            return
        many = self._database.write_many
        try:
            with self._database.together():
                if self._database.is_former:
                    self._database.renew(former.TABLES)
                for sql in FORGET:
                    many(sql, ended)
                many("INSERT OR REPLACE INTO roots VALUES (?, ?, ?, ?)", batch.roots)
                many("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", batch.objects)
                many("INSERT OR REPLACE INTO bodies VALUES (?, ?)", batch.bodies)
                many("DELETE FROM elements WHERE container = ? AND key = ?", batch.removed)
                many("UPDATE elements SET value = ? WHERE container = ? AND key = ?", batch.renewed)
                many("INSERT OR REPLACE INTO elements VALUES (NULL, ?, ?, ?)", batch.added)
        except BaseException:
            batch.give_up()
            raise
        batch.settle()
        places.settle()
        self._last = batch.last
        for (number,) in ended:
            tracking.ended.pop(number, None)
            self._numbered.pop(number, None)
        self._numbered.update((mark.number, mark) for mark in batch.new)

    def _undo(self) -> None:
        """Make the changed objects what they are in the file."""
        assert self._database is not None
        things = list(tracking.changed.values())
        tracking.changed.clear()
        tracking.replaced.clear()
        reading = Reading(self._database, self._numbered)
        for thing in things:
            if mark := tracking.marks.get(id(thing)):
                reading.take(mark.number, thing)
        reading.fill()
        places.empty_new()

    def _load(self, database: Database) -> None:
        _check_version(database)
        if database.is_former:
            self._convert(database)
            return
        [(last,)] = database.read("SELECT max(number) FROM objects")
        self._last = last or 0
        with database.reading("the AWS state of this lab"), _without_garbage_collection():
            reading = Reading(database, self._numbered, every=True)
            for service, account_id, name, number in database.read("SELECT * FROM roots"):
                reading.take(number, places.root(service, account_id, name))
            reading.fill()
            places.load_boundaries()
        tracking.changed.clear()
        self._forget_unreachable(database)

    def _convert(self, database: Database) -> None:
        """Read the file of version 0.1.0, and write it again in today's form."""
        pickles.require_owner(database)
        with database.reading("the AWS state of this lab"):
            former.put_back(database)
        self._write()

    def _forget_unreachable(self, database: Database) -> None:
        """Delete the rows of objects that ended without a later write."""
        rows = database.read("SELECT number FROM objects")
        ended = [(number,) for (number,) in rows if number not in self._numbered]
        with contextlib.suppress(NotWritten), database.together():  # a full disk: a later start tries again
            for sql in FORGET:
                database.write_many(sql, ended)


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Reading makes no garbage. With many objects, the search for it takes half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def changes(request: AwsRequest) -> bool:
    """Whether a call may change something. Its operation's name decides."""
    operation = request.operation
    if operation == "AssumeRole":
        # Entering an account creates it.
        given = request.parsed.parameters if request.parsed else {}
        return str(given.get("RoleArn", "")).endswith(f":role/{ENTRANCE}")
    if operation in CHANGING_READS:
        return True
    if not operation.isidentifier():
        return request.call.method not in ("GET", "HEAD")
    return READS.match(operation) is None


def unkept(service: str) -> str:
    """Return a message for the user: the lab doesn't keep this service's state."""
    return f"The state of {service} is not kept: it is lost when the lab's server ends."


def _check_version(database: Database) -> None:
    """Refuse the state of another moto version, which may have other classes."""
    stored = dict(database.read("SELECT name, value FROM about")).get("moto")
    installed = version("moto")
    if stored is None:
        database.write("INSERT INTO about VALUES ('moto', ?)", installed)
    elif stored != installed:
        raise LabError(
            f"moto {stored} wrote the AWS state of this lab, but moto {installed} is installed.",
            where=str(database.file),
            next=f"labkit reset, which empties the lab; or install moto {stored}",
        )
