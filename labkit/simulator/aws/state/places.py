"""Read and replace moto's stores, and find the stores that a call uses.

A store is the state of one service in one account.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from labkit.simulator.aws import managed_policies
from labkit.simulator.aws.backend import BaseBackend, IAMBackend, get_backend, tell_uses


class Store(NamedTuple):
    """The state of one service in one account. It spans all regions, because regions may share objects."""

    service: str
    account_id: str


THREADS = ("table_exports", "table_imports")
LONGEST_WAIT = 10.0  # seconds
# moto's indexes across accounts: of bucket names, and of the members of organizations.
INDEXES = ("bucket_accounts", "master_accounts")
State = tuple[dict[str, dict[str, Any]], dict[str, dict[str, tuple[str, str]]]]

_touched: ContextVar[set[Store] | None] = ContextVar("touched", default=None)


def watch() -> None:
    """Make moto report the stores that it uses."""
    tell_uses(_note)


@contextmanager
def noting(touched: set[Store]) -> Iterator[None]:
    """While this block runs, ``touched`` gets each store that moto uses because of the block."""
    token = _touched.set(touched)
    try:
        yield
    finally:
        _touched.reset(token)


def backend_at(service: Any, account_id: str, region: str) -> BaseBackend:
    """Return moto's backend of this service, account and region."""
    backend: BaseBackend = get_backend(service)[account_id][region]
    return backend


def wait_for_threads(store: Store) -> None:
    """Wait until moto has finished the exports and imports of a store's DynamoDB tables."""
    service: Any = store.service
    for backend in get_backend(service)[store.account_id].values():
        for name in THREADS:
            for thread in getattr(backend, name, {}).values():
                if thread.is_alive():
                    thread.join(LONGEST_WAIT)


def state_of(store: Store) -> State:
    """Return a store's state in moto: its backends' fields by region, and its account's entries in moto's `INDEXES`."""
    service: Any = store.service
    stores = get_backend(service)
    regions = {region: _held(backend) for region, backend in stores[store.account_id].items()}
    indexes = {
        name: {key: where for key, where in getattr(stores, name).items() if store.account_id in where}
        for name in INDEXES
        if hasattr(stores, name)
    }
    return regions, indexes


def put_back(store: Store, state: State) -> None:
    """Replace a store's state in moto with ``state``."""
    service: Any = store.service
    regions, indexes = state
    stores = get_backend(service)
    for region, backend in list(stores[store.account_id].items()):
        if region not in regions:
            backend.__dict__ = type(backend)(region, store.account_id).__dict__
    for region, held in regions.items():
        backend_at(service, store.account_id, region).__dict__ = held
    for name in INDEXES:
        if (index := getattr(stores, name, None)) is not None:
            for key in [key for key, where in index.items() if store.account_id in where]:
                del index[key]
            index.update(indexes.get(name, {}))


def _held(backend: BaseBackend) -> dict[str, Any]:
    """Return a backend's state, without AWS's unused managed policies, which are loaded on demand."""
    held = backend.__dict__
    if isinstance(backend, IAMBackend):
        policies, of_aws = managed_policies.in_use(backend)
        return held | {"managed_policies": policies, "aws_managed_policies": of_aws}
    return held


def _note(service: str, account_id: str) -> None:
    if (touched := _touched.get()) is not None:
        touched.add(Store(service, account_id))
