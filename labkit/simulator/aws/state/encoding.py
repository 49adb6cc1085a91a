"""The rows of moto's objects: what a write puts into the lab's file."""

import base64
import json
import logging
import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from operator import is_, is_not
from threading import Thread
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from labkit.simulator.aws.backend import (
    AWS_PARAMETERS,
    AWSManagedPolicy,
    BaseBackend,
    FakeKey,
    get_backend,
    place,
)
from labkit.simulator.aws.state import classes, tracking
from labkit.simulator.aws.state.tracking import TRACKED, DefaultDict, Mark, marks

LONGEST = 64
"""The most elements that a container has in its own row."""
PLAIN = frozenset((str, int, float, bool, type(None)))
PRIVATE_KEYS = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)
# The attributes that Python needs for a thread, and those with an S3 object's content.
OF_THREADS = frozenset(Thread().__dict__)
OF_CONTENT = frozenset(("_value_buffer", "lock"))
# Python's own values, with a tag and a text for each.
TEXTS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    bytes: ("b", lambda value: base64.b64encode(value).decode()),
    datetime: ("d", datetime.isoformat),
    date: ("a", date.isoformat),
    timedelta: ("s", timedelta.total_seconds),
    Decimal: ("n", str),
}

_log = logging.getLogger(__name__)
_reported: set[type] = set()


class Batch:
    """The rows to write. In the objects, tracked containers take the place of plain ones.

    ``last`` is the highest number of an object in the file.
    """

    def __init__(self, last: int):
        self.last = last
        self.roots: list[tuple[str, str, str, int]] = []
        """The objects that no other object has to refer to: their service, account, name and number."""
        self.objects: list[tuple[int, str | None, str]] = []
        self.bodies: list[tuple[int, bytes]] = []
        self.removed: list[tuple[int, Any]] = []
        self.renewed: list[tuple[str, int, Any]] = []
        self.added: list[tuple[int, Any, str]] = []
        self.new: list[Mark] = []
        self._waiting: list[Any] = []
        self._taken: set[int] = set()
        self._copies: dict[int, tuple[Any, Any]] = {}
        self._settled: list[tuple[Mark, slice | None, list[Any], list[int]]] = []

    def add_root(self, service: str, account_id: str, name: str, thing: object) -> None:
        """Write one of moto's backends or indexes."""
        self.roots.append((service, account_id, name, self.number(thing)))

    def number(self, thing: object) -> int:
        """Return an object's number in the file. A new object gets one."""
        if (mark := marks.get(id(thing))) is None:
            self.last += 1
            mark = Mark(thing, self.last)
            self.new.append(mark)
            self.take(thing)
            if isinstance(thing, BaseBackend):
                self.roots.append((*place(thing), mark.number))
            elif isinstance(thing, FakeKey) and not thing.disposed:
                self.bodies.append((mark.number, thing.value))
        return mark.number

    def take(self, thing: object) -> None:
        """Write this object, too."""
        if id(thing) not in self._taken:
            self._taken.add(id(thing))
            self._waiting.append(thing)

    def fill(self) -> None:
        """Make the rows of the objects, and of the new objects that they refer to."""
        for thing in self._waiting:  # which grows meanwhile
            if mark := marks.get(id(thing)):
                self._add(thing, mark)

    def settle(self) -> None:
        """Note that everything was written."""
        for thing in self._waiting:
            tracking.changed.pop(id(thing), None)
        tracking.replaced.clear()
        for mark, part, elements, places in self._settled:
            if part:
                mark.saved = mark.saved or []
                mark.saved[part], mark.places[part] = elements, places
            mark.is_only_longer = True
            mark.keys.clear()

    def give_up(self) -> None:
        """Forget the new objects, because nothing was written."""
        for mark in self.new:
            if marks.get(mark.place) is mark:
                del marks[mark.place]

    def _add(self, thing: Any, mark: Mark) -> None:
        elements, factory, was_long = None, None, mark.saved is not None
        if isinstance(thing, AWSManagedPolicy):
            self._list_policy(thing)
        if isinstance(thing, list):
            elements = self._listed(thing, mark)
        elif isinstance(thing, dict | set):
            elements = self._keyed(thing, mark)
            factory = classes.factory_name(getattr(thing, "default_factory", None))
        attributes = self._attributes(thing)
        if attributes or not was_long:
            content = json.dumps([attributes, elements, factory])
            self.objects.append((mark.number, classes.name_of(type(thing)), content))

    def _attributes(self, thing: Any) -> list[Any]:
        """Return the names of an object's attributes, each followed by its value."""
        without: frozenset[str] = frozenset()
        if isinstance(thing, FakeKey):
            without = OF_CONTENT
        elif isinstance(thing, Thread):
            without = OF_THREADS
        attributes: list[Any] = []
        for name, value in list(thing.__dict__.items()):
            if name in without or isinstance(value, re.Pattern):  # moto sets such patterns itself
                continue
            if type(value) in PLAIN:
                # SSM's public parameters are loaded again on demand.
                is_loaded = name.startswith("latest_") and name.endswith("_loaded")
                attributes += (name, False if is_loaded else value)
                continue
            held = self._held(value, tracking.replaced.get((id(thing), name)))
            if held is not value:
                thing.__dict__[name] = held
            attributes += (name, self._value(held))
        return attributes

    def _listed(self, thing: list[Any], mark: Mark) -> list[Any] | None:
        """Return a short list's elements. For a long list, return None, and make rows of the elements that changed."""
        if thing and isinstance(thing[0], AWSManagedPolicy):
            mark.is_only_longer = False
            thing = [policy for policy in thing if policy.attachment_count]
        if mark.saved is None and len(thing) <= LONGEST:
            self._settled.append((mark, None, [], []))
            return [self._value(self._hold(thing, at, value)) for at, value in enumerate(thing)]
        before, places = mark.saved or [], mark.places
        start = len(before) if mark.is_only_longer else _same(before, thing)
        end = 0 if mark.is_only_longer else _same(before[start:][::-1], thing[start:][::-1])
        if end and len(thing) > len(before):  # no place is free between two elements
            end = 0
        gone = places[start : len(places) - end]
        came = range(start, len(thing) - end)
        first = (places[-1] if places else 0) + 1
        taken = gone[: len(came)] + list(range(first, first + len(came) - len(gone)))
        self.removed += ((mark.number, at) for at in gone[len(came) :])
        for at, row in zip(came, taken, strict=True):
            self.added.append((mark.number, row, json.dumps(self._value(self._hold(thing, at, thing[at])))))
        self._settled.append((mark, slice(start, len(before) - end), thing[start : len(thing) - end], taken))
        return None

    def _keyed(self, thing: Any, mark: Mark) -> list[Any] | None:
        """Return the keys and values of a short dict, or the elements of a short set.

        For a long one, return None, and make rows of the elements that changed.
        """
        holds = set.__contains__ if isinstance(thing, set) else dict.__contains__
        if mark.saved is None and len(thing) <= LONGEST:
            self._settled.append((mark, None, [], []))
            if isinstance(thing, set):
                return [self._value(each) for each in thing]
            stored = [key for key in dict.keys(thing) if _is_stored(thing, key)]
            return [each for key in stored for each in (self._key(key), self._entry(thing, key))]
        every = list(set.__iter__(thing) if isinstance(thing, set) else dict.__iter__(thing))
        for key, is_new in (mark.keys if mark.saved is not None else dict.fromkeys(every, True)).items():
            row = mark.number, json.dumps(self._key(key))
            if not holds(thing, key) or not _is_stored(thing, key):
                self.removed.append(row)
                continue
            value = json.dumps(self._entry(thing, key))
            if is_new:
                self.added.append((*row, value))
            else:
                self.renewed.append((value, *row))
        self._settled.append((mark, slice(0), [], []))
        return None

    def _entry(self, thing: Any, key: Any) -> Any:
        if isinstance(thing, set):
            return None
        value = dict.__getitem__(thing, key)
        if (held := self._held(value)) is not value:
            _put(thing, key, held)
        return self._value(held)

    def _hold(self, thing: list[Any], at: int, value: Any) -> Any:
        if (held := self._held(value)) is not value:
            list.__setitem__(thing, at, held)
        return held

    def _held(self, value: Any, before: Mark | None = None) -> Any:
        """Return the tracked container that takes a plain one's place; any other value unchanged.

        ``before`` is the long list that was there before. If it no longer exists, the new one takes over its rows.
        """
        kind = type(value)
        if kind is tuple:
            held = tuple(map(self._held, value))
            return held if any(map(is_not, held, value)) else value
        if kind not in TRACKED:
            return value
        if known := self._copies.get(id(value)):
            return known[1]
        copy = DefaultDict(value.default_factory, value) if kind is defaultdict else TRACKED[kind](value)
        self._copies[id(value)] = value, copy
        if before and before() is None and kind is list and before.number in tracking.ended:
            mark = Mark(copy, before.number)
            mark.saved, mark.places, mark.is_only_longer = before.saved, before.places, False
            del tracking.ended[mark.number]
            self.new.append(mark)
            self.take(copy)
        return copy

    def _key(self, key: Any) -> Any:
        """Return the JSON of a dict's key or a set's element. For equal keys, it is the same."""
        if classes.name_of(type(key)) == classes.DYNAMO_TYPE:
            return {"y": [key.type, self._value(key.cast_value)]}
        return self._value(key)

    def _value(self, value: Any) -> Any:
        """Return a value's JSON. An object gets a row of its own."""
        kind = type(value)
        if kind in PLAIN:
            return value
        if mark := marks.get(id(value)):
            return {"o": mark.number}
        if kind in TEXTS:
            tag, text = TEXTS[kind]
            return {tag: text(value)}
        if kind is tuple:
            return {"t": [self._value(each) for each in value]}
        if lock := classes.lock_name(kind):
            return {"l": lock}
        if isinstance(value, PRIVATE_KEYS):
            der = value.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            return {"k": base64.b64encode(der).decode()}
        if name := classes.name_of(kind):
            return {"e": [name, value.name]} if isinstance(value, Enum) else {"o": self.number(value)}
        if kind not in _reported:
            # The call was carried out, and later calls must not fail because of it.
            _reported.add(kind)
            _log.error("a value of the class %s.%s is not kept", kind.__module__, kind.__qualname__)
        return None

    def _list_policy(self, policy: AWSManagedPolicy) -> None:
        """Write one of AWS's own policies in IAM's lists, too: it has become used or unused."""
        iam = get_backend("iam")[policy.account_id]["aws"]
        if mark := marks.get(id(iam.managed_policies)):
            mark.keys[policy.arn] = True
        for container in (iam.managed_policies, iam.aws_managed_policies):
            if id(container) in marks:
                self._waiting.append(container)


def _same(one: list[Any], other: list[Any]) -> int:
    """Return the number of elements at the beginning of both lists that are the same objects."""
    same = list(map(is_, one, other))
    return same.index(False) if False in same else len(same)


def _put(thing: Any, key: Any, value: Any) -> None:
    (OrderedDict if isinstance(thing, OrderedDict) else dict).__setitem__(thing, key, value)


def _is_stored(thing: Any, key: Any) -> bool:
    """Whether an entry is stored. Unused policies of AWS and AWS's public parameters aren't: they load on demand."""
    if isinstance(thing, set):
        return True
    value = dict.__getitem__(thing, key)
    if isinstance(value, AWSManagedPolicy):
        return bool(value.attachment_count)
    return classes.name_of(type(thing)) != classes.PARAMETERS or not key.startswith(AWS_PARAMETERS)
