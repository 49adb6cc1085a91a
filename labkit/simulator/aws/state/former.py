"""Read moto's state from the folder of version 0.1.0, in which it was pickled: see `pickles`."""

import io
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.serialization import load_der_private_key

from labkit.simulator.aws.backend import FakeKey, give_body
from labkit.simulator.aws.pickles import Unpickler, allowed
from labkit.simulator.aws.state import classes, places
from labkit.simulator.aws.state.decoding import Body
from labkit.simulator.database import Database

TABLES = ("stores", "bodies")
"""The tables of the file with moto's objects that have other contents now."""
BODY = "_labkit_body"


def put_back(database: Database) -> None:
    """Put the state in the file into moto. Raises pickle's errors, or ValueError for what a state can't have."""
    for service, account_id, content in database.read("SELECT service, account, state FROM stores"):
        regions, indexes = _MotoState(content, database).load()
        for region, held in regions.items():
            places.root(service, account_id, region).__dict__.update(held)
        for name, entries in indexes.items():
            if isinstance(index := places.root(service, "", name), dict):
                index.update(entries)


class _MotoState(Unpickler):
    def __init__(self, content: bytes, database: Database):
        super().__init__(io.BytesIO(content))
        self._database = database

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("moto."):
            if name == "BaseModel.__new__":
                return _new
            return classes.named(f"{module.removeprefix('moto.')}:{name}")
        for package in ("labkit.emulator.aws.state", "labkit.simulator.aws.state"):
            module = module.removeprefix(f"{package}.")
        return allowed(module, name, {
            ("builtins", "getattr"): _maker,
            ("re", "_compile"): lambda *_: None,  # moto sets its patterns itself
            ("places", "backend_at"): places.root,
            ("pickling", "_fill"): self._fill,
            ("pickling", "_fill_dict"): _fill_dict,
            ("pickling", "_default_dict"): lambda *_: defaultdict(classes.FACTORIES["tags"]),
            ("pickling", "_private_key"): lambda der: load_der_private_key(der, None),
            ("pickling", "_ended"): _ended,
        })  # fmt: skip

    def _fill(self, made: FakeKey, state: dict[str, Any]) -> None:
        number = state.pop(BODY, None)
        made.__dict__.update(state)

        def read() -> bytes:
            rows = self._database.read("SELECT content FROM bodies WHERE name = ?", number)
            return bytes(rows[0][0]) if rows else b""

        give_body(made, lambda most_in_memory: Body(read, most_in_memory, is_closed=made.disposed))


def _maker(kind: type, name: str) -> Callable[..., Any]:
    if not issubclass(kind, dict) or name != "__new__":
        raise ValueError(f"it may not use {kind.__name__}.{name}")
    return _new


def _new(kind: type, *_: Any) -> Any:
    return kind.__new__(kind) if issubclass(kind, dict) else object.__new__(kind)


def _fill_dict(made: Any, held: tuple[dict[str, Any], dict[Any, Any], Any]) -> None:
    attributes, items, factory = held
    made.__dict__.update(attributes)
    dict.update(made, items)
    if factory:
        made.default_factory = factory


def _ended(kind: type[threading.Thread]) -> threading.Thread:
    thread: threading.Thread = object.__new__(kind)
    threading.Thread.__init__(thread)
    return thread
