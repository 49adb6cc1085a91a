"""Keep moto's state in the lab's folder. Write it before a call is answered, and load it when the lab starts again.

After each call that changes something, the lab writes the whole state of the services that the call used. In a lab with
20 roles, that takes 0.2 ms, so the lab needs no journal of calls. The body of an S3 object is written only once.

If moto refuses a call after changing something, or if the write fails, the lab restores the state from the file. So the
lab never answers from state that isn't in the file.
"""

import itertools
import logging
import pickle
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labkit.connection import ENTRANCE
from labkit.errors import LabError
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import AwsRequest, Response
from labkit.simulator.aws.records import READS
from labkit.simulator.aws.services import SERVICES, service_of
from labkit.simulator.aws.state import pickling, places
from labkit.simulator.aws.state.places import Store
from labkit.simulator.database import Database, NotWritten

KEPT = frozenset(name for service in SERVICES.values() for name in service.stores or ())
"""moto's names of the state that is kept. The lab itself keeps role sessions, CloudTrail's events and clusters."""
# Their names look like reads, but they change later answers.
CHANGING_READS = ("BatchGetSecretValue", "GetRecords", "GetSecretValue", "GetShardIterator", "ReceiveMessage")
# moto runs these operations in threads of their own, which read or write S3.
IN_BACKGROUND = ("ExportTableToPointInTime", "ImportTable")
FAILURES = (pickle.PicklingError, TypeError, AttributeError, RecursionError, ValueError)
LAYOUT = 1  # of the tables
TABLES = """
    CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE stores (service TEXT, account TEXT, state BLOB, PRIMARY KEY (service, account));
    CREATE TABLE bodies (name INTEGER PRIMARY KEY, content BLOB)
"""

_log = logging.getLogger(__name__)
# Whether CloudTrail counts the call as a data event.
# Data events are so frequent that other calls' changes aren't written before each of them.
_in_a_crowd: ContextVar[bool] = ContextVar("in_a_crowd", default=False)


@dataclass(eq=False)
class _Change:
    """A call that may change moto's state.

    If a write of the state fails, the call's changes are undone, and ``undone`` is set to the write's error.
    """

    touched: set[Store] = field(default_factory=set)
    undone: NotWritten | None = None


_change: ContextVar[_Change | None] = ContextVar("change", default=None)


class MotoState:
    """Keep moto's state in a file. Without ``file``, keep nothing.

    After the file is loaded, only moto's thread reads and writes the file.

    Raises `LabError` if another version of labkit or of moto wrote the file.
    """

    def __init__(self, backend: Backend, file: Path | None):
        self._backend = backend
        self._database = Database(file, layout=LAYOUT, tables=TABLES) if file else None
        self._ended: deque[_Change] = deque()
        # The stores that moto's thread has changed since the last write, and the calls that changed them.
        self._unwritten: dict[Store, set[_Change]] = {}
        self._unwritable: set[Store] = set()
        self._bodies: dict[Store, set[int]] = {}
        self._names = itertools.count(1)
        places.watch()
        if self._database:
            self._put_back(self._database)
            backend.carry_out = self._carry_out

    @asynccontextmanager
    async def keeping(self, request: AwsRequest) -> AsyncIterator[None]:
        """Write the call's changes when this block ends. If that fails, undo the changes and raise `NotWritten`."""
        if not changes(request):
            yield
            return
        _in_a_crowd.set(service_of(request).is_data_event(request))
        async with self.keeping_all() as touched:
            if request.operation in IN_BACKGROUND:
                touched.add(Store("s3", request.account_id))
            yield

    @asynccontextmanager
    async def keeping_all(self) -> AsyncIterator[set[Store]]:
        """When this block ends, write the state of all services that the block used.

        Yield a set, to which each `Store` is added when the block uses it. If the write fails, undo the changes and
        raise `NotWritten`.
        """
        if not self._database:
            yield set()
            return
        change = _Change()
        token = _change.set(change)
        try:
            with places.noting(change.touched):
                yield change.touched
        finally:
            _change.reset(token)
            self._ended.append(change)
            await self._backend.run(self._end, change)

    async def write(self) -> None:
        """Write all changes so far, before a step that can't be undone.

        If the write fails, undo the changes and raise `NotWritten`.
        """
        if self._database:
            await self._backend.run(self._write)

    @property
    def services(self) -> set[str]:
        """The services that have state in the file."""
        return {store.service for store in self._bodies}

    async def close(self) -> None:
        """Write the changes of an interrupted call, and close the file."""
        if self._database:
            try:
                await self._backend.run(self._write)
            finally:
                self._database.close()

    def _carry_out(self, work: Callable[[], Any]) -> Any:
        """Run a part of a call in moto's own thread, and undo the call's changes if moto refuses the call."""
        if (change := _change.get()) is None:
            return work()
        _require_standing(change)
        # An undo restores whole stores from the file, so unwritten changes of other calls would be lost.
        # Data events are too frequent for such a write.
        if not _in_a_crowd.get() and any(changes - {change} for changes in self._unwritten.values()):
            self._write()
        touched: set[Store] = set()
        refused = True
        try:
            with places.noting(touched):
                answer = work()
            refused = isinstance(answer, Response) and answer.status >= 400
            return answer
        finally:
            if refused:
                # A data event's changes stay in a store with unwritten changes of other calls.
                alone = {store for store in touched if self._unwritten.get(store, {change}) == {change}}
                change.touched -= self._undone(alone)
            else:
                for store in _kept(touched | change.touched):
                    self._unwritten.setdefault(store, set()).add(change)

    def _undone(self, touched: set[Store]) -> set[Store]:
        """Restore the touched stores from the file, and return those that were restored."""
        assert self._database is not None
        stores = _kept(touched) - self._unwritable
        for store in stores:
            self._unwritten.pop(store, None)
            stored = self._database.read("SELECT state FROM stores WHERE service = ? AND account = ?", *store)
            held = self._dumped(store)
            if held and [(held.content,)] != stored:
                state, _ = pickling.loads(stored[0][0], self._body) if stored else (({}, {}), set())
                places.put_back(store, state)
        return stores

    def _end(self, change: _Change) -> None:
        self._write()
        _require_standing(change)

    def _write(self) -> None:
        """Write all changes since the last write, or undo these changes if the write fails.

        moto's own thread runs this method, so that no call changes the state during the write.
        """
        assert self._database is not None
        ended = [*self._ended]
        changed = set(self._unwritten).union(*(_kept(change.touched) for change in ended))
        for store in changed:
            places.wait_for_threads(store)
        try:
            dumped = {store: state for store in changed if (state := self._dumped(store))}
            with self._database.together():
                for store, state in dumped.items():
                    self._write_store(self._database, store, state)
        except NotWritten as error:
            for change in {*ended}.union(*self._unwritten.values()):
                change.undone = error
            self._undone(changed)
            self._unwritten.clear()
            self._forget(ended)
            raise
        self._forget(ended)
        self._unwritten.clear()
        self._unwritable = (self._unwritable - changed) | (changed - dumped.keys())
        for store, state in dumped.items():
            state.remember()
            self._bodies[store] = state.bodies

    def _forget(self, ended: list[_Change]) -> None:
        for _ in ended:
            self._ended.popleft()

    def _dumped(self, store: Store) -> pickling.Dumped | None:
        try:
            return pickling.dumps(places.state_of(store), self._names)
        except FAILURES as error:
            # The call was carried out, and later calls must not fail because of it.
            _log.error("the state of %s could not be written: %s", store.service, error)
            return None

    def _write_store(self, database: Database, store: Store, state: pickling.Dumped) -> None:
        for thing, name in state.new:
            database.write("INSERT INTO bodies VALUES (?, ?)", name, thing.value)
        for name in self._bodies.get(store, set()) - state.bodies:
            database.write("DELETE FROM bodies WHERE name = ?", name)
        database.write("INSERT OR REPLACE INTO stores VALUES (?, ?, ?)", *store, state.content)

    def _put_back(self, database: Database) -> None:
        _check_version(database)
        [(last,)] = database.read("SELECT max(name) FROM bodies")
        self._names = itertools.count((last or 0) + 1)
        for service, account_id, content in database.read("SELECT service, account, state FROM stores"):
            store = Store(service, account_id)
            with database.reading(f"the state of {service} in this lab"):
                state, self._bodies[store] = pickling.loads(content, self._body)
                places.put_back(store, state)

    def _body(self, name: int) -> bytes:
        assert self._database is not None
        [(content,)] = self._database.read("SELECT content FROM bodies WHERE name = ?", name)
        return bytes(content)


def _require_standing(change: _Change) -> None:
    if change.undone:
        raise NotWritten(str(change.undone))


def _kept(stores: set[Store]) -> set[Store]:
    return {store for store in stores if store.service in KEPT}


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
        try:
            database.write("INSERT INTO about VALUES ('moto', ?)", installed)
        except NotWritten as error:
            raise LabError(f"{error}.", where=str(database.file), next="make room, then:  labkit up") from error
    elif stored != installed:
        raise LabError(
            f"moto {stored} wrote the AWS state of this lab, but moto {installed} is installed.",
            where=str(database.file),
            next=f"labkit reset, which empties the lab; or install moto {stored}",
        )
