"""The tables that `kubectl get` prints. The server chooses the columns, which are in `columns.toml`.

https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

import json
import tomllib
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple, cast

from labkit.simulator.kubernetes.api.cells import CELLS
from labkit.simulator.kubernetes.objects.kinds import Kind, Object
from labkit.simulator.kubernetes.objects.storage import Stored

COLUMNS = Path(__file__).with_name("columns.toml")
DEFINITION = {"name": "", "type": "string", "format": "", "description": "", "priority": 0}  # the keys, each's default


def table(
    kind: Kind, items: Iterable[Stored], metadata: Object, now: float, include: str, *, heads: bool = True
) -> Object:
    """Return the Table of these objects. ``include`` is the query's `includeObject`: Metadata, Object or None.

    With ``heads``, the Table also defines its columns.
    """
    shown = columns(COLUMNS)
    row = shown.get(kind.kind, shown[""])
    body: Object = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    body["columnDefinitions"] = [column.definition for column in row] if heads else None
    body["rows"] = [
        {"cells": [column.cell(stored.object, now) for column in row], "object": _object(kind, stored, include)}
        for stored in items
    ]
    return body


def _object(kind: Kind, stored: Stored, include: str) -> Object | None:
    if include == "None":
        return None
    if include == "Object":
        return cast("Object", json.loads(stored.full(kind)))
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": stored.metadata}


class Column(NamedTuple):
    definition: Object
    cell: Callable[[Object, float], object]


@cache
def columns(file: Path) -> dict[str, tuple[Column, ...]]:
    """Return each kind's columns, and under "" those of other kinds. Raises ``ValueError`` if the file has errors."""
    kinds: Object = {"": ["Name", "Age"]} | tomllib.loads(file.read_text())
    shared = kinds.pop("shared")
    return {kind: tuple(_column(f"{file.name}, {kind}", row, shared) for row in rows) for kind, rows in kinds.items()}


def _column(where: str, row: str | Object, shared: Object) -> Column:
    column: Object = {"like": row} if isinstance(row, str) else row
    if like := column.get("like"):
        column = {"name": like, **shared[_known(where, "shared column", like, shared)], **column}
    where = f"{where}, {column.get('name', 'a column without a name')}"
    for key in column:
        _known(where, "key", key, (*DEFINITION, "cell", "empty", "like"))
    for key in ("name", "cell", "description"):
        if key not in column:
            raise ValueError(f"{where}: {key} is missing.")
    definition = {key: column.get(key, default) for key, default in DEFINITION.items()}
    cell, empty = column["cell"], column.get("empty", "")
    if cell.endswith("()"):
        return Column(definition, CELLS[_known(where, "cell", cell[:-2], CELLS)])
    return Column(definition, partial(_at, cell.split("."), empty))


def _at(path: list[str], empty: object, obj: Object, _now: float) -> object:
    value: Object | None = obj
    for key in path:
        value = (value or {}).get(key)
    return value or empty


def _known(where: str, what: str, name: str, names: Iterable[str]) -> str:
    if name in names:
        return name
    nearest = get_close_matches(name, names, n=1, cutoff=0)[0]
    raise ValueError(f"{where}: unknown {what} {name}. Did you mean {nearest}?")
