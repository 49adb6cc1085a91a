"""moto's backends and indexes: the objects that hold all others. A backend is one service in one account and region."""

from collections.abc import Iterable, Iterator
from threading import enumerate as threads
from typing import Any

from labkit.simulator.aws import managed_policies
from labkit.simulator.aws.backend import BaseBackend, IAMBackend, get_backend, tell_uses
from labkit.simulator.aws.state import classes
from labkit.simulator.aws.state.tracking import Dict, marks

# moto's indexes across accounts: of bucket names, and of the members of organizations.
INDEXES = ("bucket_accounts", "master_accounts")
LONGEST_WAIT = 10.0  # seconds

_kept: set[str] = set()
_used: set[tuple[str, str]] = set()


def watch(kept: Iterable[str]) -> None:
    """Note which services moto uses, and in which accounts. ``kept`` has moto's names of the services to note."""
    _kept.update(kept)
    tell_uses(_note)


def roots() -> Iterator[tuple[str, str, str, object]]:
    """Yield the backends and indexes that were used since `settle`: their service, account, name and object.

    The name is a region, or one of `INDEXES` (then the account is empty).
    """
    for service, account_id in list(_used):
        stores: Any = get_backend(service)  # type: ignore[call-overload]  # any service
        for region, backend in list(stores[account_id].items()):
            yield service, account_id, region, backend
        for name in INDEXES:
            if hasattr(stores, name):
                yield service, "", name, _index(stores, name)


def root(service: str, account_id: str, name: str) -> object:
    """Return a backend or an index by what `roots` says of it. Raises ValueError if moto can't have it."""
    if service not in _kept:
        raise ValueError(f"the service {service!r} is not kept")
    stores: Any = get_backend(service)  # type: ignore[call-overload]  # any service
    if account_id:
        return stores[account_id][name]
    if name not in INDEXES or not hasattr(stores, name):
        raise ValueError(f"the index {name!r} does not exist")
    return _index(stores, name)


def settle() -> None:
    """Note that all used backends were written."""
    _used.clear()


def empty_new() -> None:
    """Undo all changes in backends that were never written."""
    for _, account_id, region, thing in list(roots()):
        if id(thing) in marks:
            continue
        if isinstance(thing, BaseBackend):
            thing.__dict__ = type(thing)(region, account_id).__dict__
        elif isinstance(thing, dict):
            thing.clear()
    _used.clear()


def load_boundaries() -> None:
    """Load those of AWS's managed policies that are permissions boundaries. They are used, but not stored."""
    stores: Any = get_backend("iam")
    for regions in stores.values():
        for iam in regions.values():
            if isinstance(iam, IAMBackend):
                for arn in managed_policies.boundaries(iam) - {None}:
                    managed_policies.load(iam, str(arn))


def wait_for_threads() -> None:
    """Wait until moto has finished the exports and imports of DynamoDB tables."""
    for thread in threads():
        if type(thread).__module__.startswith("moto."):
            thread.join(LONGEST_WAIT)


def _index(stores: Any, name: str) -> Any:
    index = getattr(stores, name)
    if not isinstance(index, Dict):
        index = Dict(index)
        setattr(stores, name, index)
    return index


def _note(service: str, account_id: str) -> None:
    if service in _kept:
        classes.watch()
        _used.add((service, account_id))
