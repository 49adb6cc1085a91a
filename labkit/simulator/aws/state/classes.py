"""moto's classes whose objects may be in the lab's file, each with the only name by which the file may call it.

The file can't name anything else: a name that isn't in these tables is refused, and nothing is imported because of it.
"""

import importlib
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

from requests.structures import CaseInsensitiveDict

from labkit.simulator.aws.backend import BackendDict
from labkit.simulator.aws.state import tracking

# The modules of moto that define what it keeps.
MODULES = (
    "account.models", "cloudtrail.models", "dynamodb.models", "dynamodb.models.dynamo_type", "dynamodb.models.table",
    "dynamodb.models.table_export", "dynamodb.models.table_import", "dynamodbstreams.models", "eks.models",
    "iam.models", "kms.models", "kms.utils", "organizations.models", "s3.models", "s3.utils", "s3control.models",
    "secretsmanager.models", "sns.models", "sqs.models", "ssm.models", "utilities.tagging_service", "utilities.utils",
)  # fmt: skip
OTHERS: dict[str, type] = {
    "list": tracking.List, "set": tracking.Set, "dict": tracking.Dict, "defaultdict": tracking.DefaultDict,
    "OrderedDict": tracking.Ordered, "CaseInsensitiveDict": CaseInsensitiveDict,
}  # fmt: skip
FACTORIES: dict[str, Callable[[], Any]] = {
    "dict": dict, "list": list, "set": set, "int": int, "tags": lambda: defaultdict(dict),
}  # fmt: skip
LOCKS: dict[str, Callable[[], Any]] = {
    "Lock": threading.Lock, "RLock": threading.RLock, "Condition": threading.Condition, "Event": threading.Event,
}  # fmt: skip
DYNAMO_TYPE, PARAMETERS = "dynamodb.models.dynamo_type:DynamoType", "ssm.models:ParameterDict"
# moto's anonymous function for the tags of SSM's resources.
TAGS = ("moto.ssm.models", "SimpleSystemManagerBackend.__init__.<locals>.<lambda>")

_lock_names = {type(make()): name for name, make in LOCKS.items()}
_names: dict[type, str | None] = {kind: name for name, kind in OTHERS.items()}
_watched: set[str] = set()


def watch() -> None:
    """Make the classes of the modules that moto has loaded meanwhile note changes to their objects."""
    for module in MODULES:
        if module not in _watched and (loaded := sys.modules.get(f"moto.{module}")):
            _watched.add(module)
            for kind in _defined(loaded):
                tracking.watch(kind)


@cache
def named(name: str) -> type:
    """Return the class with this name in the file. Raises ValueError if the file may not have objects of it."""
    if kind := OTHERS.get(name):
        return kind
    module = next((module for module in MODULES if name.startswith(f"{module}:")), None)
    if module:
        for kind in _defined(importlib.import_module(f"moto.{module}")):
            if name == f"{module}:{kind.__qualname__}":
                watch()
                return kind
    raise ValueError(f"it may not have objects of the class {name!r}")


def name_of(kind: type) -> str | None:
    """Return the name of a class in the file; None if the file may not have objects of the class."""
    if kind not in _names:
        module = kind.__module__.removeprefix("moto.")
        loaded = sys.modules.get(f"moto.{module}") if module in MODULES else None
        is_known = loaded is not None and any(kind is each for each in _defined(loaded))
        _names[kind] = f"{module}:{kind.__qualname__}" if is_known else None
    return _names[kind]


def factory_name(function: object) -> str | None:
    """Return the name of a function that makes a default dict's values. Return None for an unknown function."""
    if isinstance(function, FunctionType) and (function.__module__, function.__qualname__) == TAGS:
        return "tags"
    return next((name for name, known in FACTORIES.items() if known is function), None)


def lock_name(kind: type) -> str | None:
    """Return the name of a class of locks in the file; None if the class is another one."""
    return _lock_names.get(kind)


def _defined(module: ModuleType) -> Iterator[type]:
    for kind in list(vars(module).values()):
        is_own = isinstance(kind, type) and kind.__module__ == module.__name__
        if is_own and not issubclass(kind, BaseException | BackendDict):
            yield kind
