"""moto's objects from their rows. Reading a row makes an object of a class in `classes` and sets its attributes.

A row can't name a function, and nothing that it names is run.
"""

import base64
import json
import re
import tempfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property, partial
from threading import Thread
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key

from labkit.simulator.aws.backend import FakeKey, give_body
from labkit.simulator.aws.state import classes, tracking
from labkit.simulator.aws.state.encoding import OF_THREADS
from labkit.simulator.aws.state.tracking import TRACKED, Mark, marks
from labkit.simulator.database import Database

ELEMENTS = "SELECT key, value FROM elements WHERE container = ? ORDER BY {}"
# Python's own values, from their texts.
TEXTS: dict[str, Callable[[str], Any]] = {
    "b": lambda text: base64.b64decode(text, validate=True),
    "d": datetime.fromisoformat,
    "a": date.fromisoformat,
    "n": Decimal,
    "k": lambda text: _private_key(base64.b64decode(text, validate=True)),
}


class Reading:
    """Read objects from the file. ``numbered`` has the marks of those that have been read or written before.

    ``every`` reads the rows of all objects at once, which takes half as long as one after the other.
    """

    def __init__(self, database: Database, numbered: dict[int, Mark], *, every: bool = False):
        self._database = database
        self._numbered = numbered
        self._rows: dict[int, tuple[str, str]] = {}
        if every:
            rows = database.read("SELECT number, class, content FROM objects")
            self._rows = {number: (name, content) for number, name, content in rows}
        self._decode = json.JSONDecoder(object_hook=self._tagged).decode
        self._waiting: list[tuple[Any, Mark, str]] = []

    def take(self, number: int, thing: object = None) -> object:
        """Read the object with this number: into ``thing``, or into a new object. Return the object."""
        if row := self._rows.get(number):
            name, content = row
        elif rows := self._database.read("SELECT class, content FROM objects WHERE number = ?", number):
            [(name, content)] = rows
        else:
            raise ValueError(f"the object {number} is missing")
        kind = classes.named(name)
        if thing is None:
            thing = _new(kind)
        elif type(thing) is not kind:
            raise ValueError(f"the object {number} has another class")
        mark = marks.get(id(thing))
        if mark is None:
            mark = self._numbered[number] = Mark(thing, number)
            tracking.ended.pop(number, None)
        self._waiting.append((thing, mark, content))
        return thing

    def fill(self) -> None:
        """Read the attributes and elements of the objects, and all other objects that they refer to."""
        contents = []
        for thing, mark, content in self._waiting:  # which grows meanwhile
            attributes, elements, factory = self._decode(content)
            if elements is None and isinstance(thing, list | dict | set):
                elements = self._long(thing, mark)
            contents.append((thing, attributes, elements, factory))
        for thing, attributes, _, _ in contents:
            self._set(thing, attributes)
        # An object's hash may need its attributes.
        for thing, _, elements, factory in contents:
            if isinstance(thing, list | dict | set):
                _fill(thing, elements, factory)
        for thing, mark, _ in self._waiting:
            mark.keys.clear()
            if mark.saved is not None and isinstance(thing, list):
                mark.saved = list(thing)

    def _long(self, thing: Any, mark: Mark) -> list[Any]:
        """Return the elements of a long container, which have rows of their own."""
        order = "key" if isinstance(thing, list) else "place"
        rows = self._database.read(ELEMENTS.format(order), mark.number)
        mark.saved, mark.places = [], [key for key, _ in rows] if isinstance(thing, list) else []
        values = [self._decode(value) for _, value in rows]
        if isinstance(thing, list):
            return values
        keys = [self._decode(key) for key, _ in rows]
        return keys if isinstance(thing, set) else [each for pair in zip(keys, values, strict=True) for each in pair]

    def _tagged(self, tagged: dict[str, Any]) -> Any:
        [(tag, value)] = tagged.items()
        if tag in TEXTS and isinstance(value, str):
            return TEXTS[tag](value)
        match tag, value:
            case "o", int():
                known = self._numbered.get(value)
                thing = known() if known else None
                return self.take(value) if thing is None else thing
            case "t", list():
                return tuple(value)
            case "s", float() | int():
                return timedelta(seconds=value)
            case "l", str() if value in classes.LOCKS:
                return classes.LOCKS[value]()
            case "e", [str(name), str(member)] if issubclass(kind := classes.named(name), Enum):
                return kind[member]
            case "y", [str(type_), key]:
                made = _new(classes.named(classes.DYNAMO_TYPE))
                made.type, made.value = type_, str(key) if type_ == "N" else key
                return made
        raise ValueError(f"a value has the unknown tag {tag!r}")

    def _set(self, thing: Any, attributes: Any) -> None:
        names, values = attributes[::2], attributes[1::2]
        if not isinstance(attributes, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("an object's attributes are wrong")
        own = thing.__dict__
        if not isinstance(thing, Thread):
            of_moto = {name: value for name, value in own.items() if isinstance(value, re.Pattern)}
            own.clear()
            own.update(of_moto)
        elif OF_THREADS & {*names}:
            raise ValueError("a thread's attributes are wrong")
        elif "_started" not in own:
            Thread.__init__(thing)
        own.update(zip(names, values, strict=True))
        if isinstance(thing, FakeKey):
            self._give_body(thing)

    def _give_body(self, thing: FakeKey) -> None:
        number = marks[id(thing)].number

        def read() -> bytes:
            rows = self._database.read("SELECT content FROM bodies WHERE number = ?", number)
            return bytes(rows[0][0]) if rows else b""

        give_body(thing, lambda most_in_memory: Body(read, most_in_memory, is_closed=thing.disposed))


class RsaKey:
    """A stored RSA key. The first use checks it, which takes 30 ms."""

    def __init__(self, der: bytes):
        self._load = partial(load_der_private_key, der, None)

    @cached_property
    def _checked(self) -> Any:
        return self._load()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._checked, name)


RSAPrivateKey.register(RsaKey)


def _private_key(der: bytes) -> Any:
    key = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    return RsaKey(der) if isinstance(key, RSAPrivateKey) else key


class Body:
    """The content of a stored S3 object. The first use loads it into memory, with the function ``read``."""

    def __init__(self, read: Callable[[], bytes], most_in_memory: int, *, is_closed: bool):
        self.closed = is_closed
        self._read = read
        self._most_in_memory = most_in_memory
        self._file: Any = None

    def close(self) -> None:
        self.closed = True
        if self._file is not None:
            self._file.close()

    def __getattr__(self, name: str) -> Any:
        if self._file is None:
            self._file = tempfile.SpooledTemporaryFile(self._most_in_memory)  # noqa: SIM115 - moto closes it
            self._file.write(self._read())
        return getattr(self._file, name)


def _new(kind: type) -> Any:
    if issubclass(kind, Enum):
        raise ValueError(f"{kind.__name__} has no objects in the file")
    return (
        kind() if kind in TRACKED.values() else kind.__new__(kind) if issubclass(kind, dict) else object.__new__(kind)
    )


def _fill(thing: Any, elements: list[Any], factory: Any) -> None:
    """Replace the elements of a container, without noting it."""
    if not isinstance(elements, list):
        raise ValueError("a container's elements are wrong")
    if isinstance(thing, list):
        list.__setitem__(thing, slice(None), elements)
    elif isinstance(thing, set):
        set.clear(thing)
        set.update(thing, elements)
    else:
        kind = OrderedDict if isinstance(thing, OrderedDict) else dict
        kind.clear(thing)
        for key, value in zip(elements[::2], elements[1::2], strict=True):
            kind.__setitem__(thing, key, value)
        if isinstance(thing, defaultdict):
            made = classes.FACTORIES[factory] if factory is not None else None
            object.__setattr__(thing, "default_factory", made)
