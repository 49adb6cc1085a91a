"""Convert moto's state of a service to bytes with pickle, and convert such bytes to the state again.

Pickle can't convert locks and anonymous functions. For a lock, loading creates a new lock. For an anonymous function or
one of moto's backends, the bytes say where to find it. The bodies of S3 objects are stored separately.
"""

import copyreg
import gc
import importlib
import inspect
import io
import pickle
import tempfile
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from operator import methodcaller
from types import CodeType, FunctionType
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from labkit.simulator.aws.backend import (
    PARAMETERS,
    BaseBackend,
    FakeKey,
    give_body,
    own_parameters,
    place,
    without_body,
)
from labkit.simulator.aws.state.places import backend_at

PROTOCOL = 5
LOCKS: dict[type, Callable[[], Any]] = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
    threading.Condition: threading.Condition,
    threading.Event: threading.Event,
}
PRIVATE_KEYS = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)
OF_THREADS = frozenset(threading.Thread().__dict__)
LOCALS = ".<locals>."
# The attribute of an S3 object that names its body.
BODY = "_labkit_body"

ReadBody = Callable[[int], bytes]
"""A function that returns the content of the body with this name."""

_bodies: ContextVar["_Bodies"] = ContextVar("bodies")


@dataclass
class Dumped:
    """A service's state as bytes, without the bodies of S3 objects."""

    content: bytes
    bodies: set[int]
    """The names of the bodies of all S3 objects in the state."""
    new: list[tuple[FakeKey, int]]
    """The S3 objects with a body that isn't in the lab's file yet, each with the body's name."""

    def remember(self) -> None:
        """Mark the new bodies in S3 objects as written, so that the next write leaves them out."""
        for thing, name in self.new:
            setattr(thing, BODY, name)


def dumps(state: object, names: Iterator[int]) -> Dumped:
    """Return the bytes of a service's state. ``names`` yields a name for each new body of an S3 object.

    Raises :class:`pickle.PicklingError`, TypeError or AttributeError if an object can't be written.
    """
    file = io.BytesIO()
    pickler = _Pickler(file, names)
    with _undisturbed():
        pickler.dump(state)
    return Dumped(file.getvalue(), pickler.bodies, pickler.new)


def loads(content: bytes, read_body: ReadBody) -> tuple[Any, set[int]]:
    """Return the state that :func:`dumps` converted to ``content``, and the names of the S3 bodies in the state.

    Raises pickle's error if moto's classes have changed in the meantime.
    """
    bodies = _Bodies(read_body)
    token = _bodies.set(bodies)
    try:
        with _undisturbed():
            # From the lab's own folder, which only its owner can write.
            return pickle.loads(content), bodies.names  # noqa: S301
    finally:
        _bodies.reset(token)


@dataclass
class _Bodies:
    read: ReadBody
    names: set[int] = field(default_factory=set)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Turn off garbage collection, which would only cost time because pickle creates no cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, names: Iterator[int]):
        super().__init__(file, PROTOCOL)
        self.dispatch_table = _Reducers({FakeKey: self._object})
        self.bodies: set[int] = set()
        self.new: list[tuple[FakeKey, int]] = []
        self._names = names

    def _object(self, thing: FakeKey) -> Any:
        """Return pickle's reduction of an S3 object or of an upload's part.

        The reduction doesn't contain the body. Each body is stored separately, and only once, because a body never
        changes.
        """
        state: dict[str, Any] = without_body(thing)
        if thing.disposed:
            state.pop(BODY, None)
        elif BODY not in state:
            state[BODY] = next(self._names)
            self.new.append((thing, state[BODY]))
        if BODY in state:
            self.bodies.add(state[BODY])
        return FakeKey.__new__, (FakeKey,), state, None, None, _fill


class _Reducers(dict[type, Any]):
    """The functions that reduce objects for pickle, by type.

    The lookup must be fast: pickle looks up the type of each object.
    """

    def __missing__(self, kind: type) -> Any:
        if issubclass(kind, type):
            raise KeyError(kind)  # a class, which pickle writes by its name
        self[kind] = reducer = _reducer(kind)
        return reducer


def _reducer(kind: type) -> Any:
    if kind in LOCKS:
        return lambda _: (LOCKS[kind], ())
    if (kind.__module__, kind.__qualname__) == PARAMETERS:
        return _reduced_parameters
    if kind is defaultdict:
        return _reduced_default_dict
    if issubclass(kind, dict) and kind is not OrderedDict:
        return _reduced_dict
    if issubclass(kind, BaseBackend):
        return lambda backend: (backend_at, place(backend))
    if issubclass(kind, PRIVATE_KEYS):
        return lambda key: (_private_key, (key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),))
    if issubclass(kind, threading.Thread):
        return lambda it: (_ended, (kind,), {name: v for name, v in it.__dict__.items() if name not in OF_THREADS})
    return copyreg.dispatch_table.get(kind) or methodcaller("__reduce_ex__", PROTOCOL)


def _reduced_dict(thing: Any) -> Any:
    # A subclass of dict may report only a part of its items: S3's store of versions reports only the newest.
    held = {**thing.__dict__}, dict.copy(thing), getattr(thing, "default_factory", None)
    return type(thing).__new__, (type(thing),), held, None, None, _fill_dict


def _reduced_parameters(parameters: Any) -> Any:
    held = *own_parameters(parameters), parameters.default_factory
    kind = type(parameters)
    return kind.__new__, (kind,), held, None, None, _fill_dict


def _reduced_default_dict(thing: Any) -> Any:
    factory = thing.default_factory
    if isinstance(factory, FunctionType) and LOCALS in factory.__qualname__:
        return _default_dict, _place_of(factory), None, None, iter(thing.items())
    return defaultdict, (factory,), None, None, iter(thing.items())


class _Body:
    """The content of a stored S3 object. The first read loads it into memory."""

    def __init__(self, read: Callable[[], bytes], most_in_memory: int):
        self._read = read
        self._most_in_memory = most_in_memory
        self._file: Any = None
        self.closed = False

    def close(self) -> None:
        self.closed = True
        if self._file is not None:
            self._file.close()

    def __getattr__(self, name: str) -> Any:
        if self._file is None:
            self._file = tempfile.SpooledTemporaryFile(self._most_in_memory)  # noqa: SIM115 - moto closes it
            self._file.write(self._read())
        return getattr(self._file, name)


def _fill(made: FakeKey, state: dict[str, Any]) -> None:
    made.__dict__.update(state)
    bodies, name = _bodies.get(), state.get(BODY)
    if name is not None and not made.disposed:
        bodies.names.add(name)

    def opened(most_in_memory: int) -> _Body:
        body = _Body(lambda: b"" if name is None else bodies.read(name), most_in_memory)
        if made.disposed:
            body.close()
        return body

    give_body(made, opened)


def _fill_dict(made: Any, held: tuple[dict[str, Any], dict[Any, Any], Any]) -> None:
    attributes, items, default_factory = held
    made.__dict__.update(attributes)
    dict.update(made, items)
    if default_factory:
        made.default_factory = default_factory


def _ended(kind: type[threading.Thread]) -> threading.Thread:
    thread = kind.__new__(kind)
    threading.Thread.__init__(thread)
    return thread


def _private_key(der: bytes) -> Any:
    return load_der_private_key(der, None)


def _place_of(function: FunctionType) -> tuple[str, str, int]:
    """Return an anonymous function's module, its outer function, and its index in the outer function's `_codes`."""
    if function.__closure__:
        raise pickle.PicklingError(f"{function.__module__}.{function.__qualname__} has variables of its own")
    outer = function.__qualname__.partition(LOCALS)[0]
    codes = [*_codes(_named(function.__module__, outer).__code__)]
    return function.__module__, outer, codes.index(function.__code__)


def _default_dict(module: str, outer: str, index: int) -> defaultdict[Any, Any]:
    around = _named(module, outer)
    return defaultdict(FunctionType([*_codes(around.__code__)][index], around.__globals__))


def _named(module: str, name: str) -> Any:
    named: Any = importlib.import_module(module)
    for part in name.split("."):
        named = getattr(named, part)
    return inspect.unwrap(named)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)
