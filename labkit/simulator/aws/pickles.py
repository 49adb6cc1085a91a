"""Read what version 0.1.0 left in a lab's folder as pickles, which could run any program.

So the lab reads them only if the user owns the folder, and lets pickle use nothing but the classes and functions that
the state needs. A snapshot of 0.1.0 is refused before anything reads its state.
"""

import datetime
import decimal
import io
import os
import pickle
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar

from labkit.errors import LabError
from labkit.simulator.database import Database

OWN = ("access_entries", "identity_provider_configs", "pod_identity")
# What a pickle may use beside moto's classes.
ALLOWED: dict[tuple[str, str], Any] = {
    ("builtins", "dict"): dict, ("builtins", "list"): list, ("builtins", "set"): set,
    ("collections", "OrderedDict"): OrderedDict, ("collections", "defaultdict"): defaultdict,
    ("datetime", "datetime"): datetime.datetime, ("datetime", "date"): datetime.date,
    ("datetime", "timedelta"): datetime.timedelta, ("datetime", "timezone"): datetime.timezone,
    ("decimal", "Decimal"): decimal.Decimal, ("_thread", "allocate_lock"): threading.Lock,
    ("threading", "RLock"): threading.RLock, ("threading", "Condition"): threading.Condition,
    ("threading", "Event"): threading.Event,
}  # fmt: skip


def require_owner(database: Database) -> None:
    """Raise `LabError` if another user owns the file or its folder."""
    for path in (database.file, database.file.parent):
        if path.stat().st_uid != os.getuid():
            raise LabError(
                "An earlier version of labkit made this lab, and its state belongs to another user of the machine.",
                where=str(path),
                next="labkit reset, which empties the lab",
            )


def own_part(content: bytes) -> object:
    """Return a part of the gate's own state as JSON has it today.

    Raises pickle's errors, or ValueError if the pickle uses anything else than `ALLOWED`.
    """
    part = _plain(_OwnState(io.BytesIO(content)).load())
    if not isinstance(part, dict) or "access" not in part:
        return part
    return {
        "access": list(part["access"]["_entries"].values()),
        "identity_providers": part["identity_providers"]["_config"],
        "pod_identity": part["pod_identity"]["_associations"],
    }


def allowed(module: str, name: str, more: Mapping[tuple[str, str], object]) -> object:
    """Return the class or function in `ALLOWED` or ``more`` that a pickle names. Raises ValueError for any other."""
    known = more.get((module, name)) or ALLOWED.get((module, name))
    if known is None:
        raise ValueError(f"it may not use {module}.{name}")
    return known


class _Fields:
    """An object of the gate's own classes, with the attributes that the pickle has."""


def _build(reader: Any) -> None:
    thing, attributes = reader.stack[-2:]
    if callable(thing) or not isinstance(attributes, dict):
        raise ValueError(f"it may not set attributes of {type(thing).__name__}")
    _BUILD(reader)


_BUILD = pickle._Unpickler.dispatch[pickle.BUILD[0]]


class Unpickler(pickle._Unpickler):
    """Lets a pickle set the attributes of the objects that it makes, but not of a class or a function."""

    dispatch: ClassVar[Any] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: _build}


class _OwnState(Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        package, _, last = module.rpartition(".")
        if package in ("labkit.emulator.aws", "labkit.simulator.aws") and last in OWN:
            return _Fields
        return allowed(module, name, {})


def _plain(value: Any) -> Any:
    if isinstance(value, _Fields):
        value = vars(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return sorted(value) if isinstance(value, set) else value
