"""The fleet file as a table of names and values: YAML with `defaults`, `runs` and `matrix`, or CSV."""

import csv
import io
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from labkit.errors import LabError, UnknownName

KEYS = ("defaults", "runs", "matrix")
EXAMPLE = (
    "next:  write rows, such as  runs: [{cluster: green, role_name: green-reader}]"
    "   (or a CSV file with the parameters' names in its first line)"
)


class NothingRan(LabError):
    """The fleet didn't start, for example because its file, its options or its folder can't be used."""

    exit_code = 2


@dataclass(frozen=True)
class FileRow:
    """A row of the fleet file, before it is checked."""

    place: str
    """The row's place, such as `row 3, line 12`."""
    values: Mapping[str, object]
    """The row's own values, and the file's defaults, as text. A list or a mapping is replaced by an empty one."""
    names_at: Mapping[str, str] = field(default_factory=dict)
    """The places of the names that aren't written in the row itself, such as `defaults, line 1`, by name."""
    values_at: Mapping[str, str] = field(default_factory=dict)
    """The places of the values that come from the file's defaults, by name."""


def read_fleet_file(file: Path) -> list[FileRow]:
    """Return the rows of a fleet file, in order. Raises `NothingRan` if the file can't be read or has no rows."""
    try:
        # A spreadsheet's CSV starts with a byte order mark.
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(file, getattr(error, "strerror", None) or "it is not text") from None
    if not text.strip():
        raise _refused(file, "it is empty")
    try:
        entries = [*(_of_csv(file, text) if file.suffix.lower() == ".csv" else _of_yaml(file, text))]
    except csv.Error as error:
        raise _refused(file, f"it is not CSV: {error}") from None
    if not entries:
        raise _refused(file, "it has no rows")
    return entries


def _of_csv(file: Path, text: str) -> Iterator[FileRow]:
    lines = csv.reader(io.StringIO(text))
    names = [name.strip() for name in next(lines)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise _refused(file, f"line 1 has the column {twice!r} twice")
    number = 0
    for line in lines:
        if not any(value.strip() for value in line):
            continue
        number += 1
        place = f"row {number}, line {lines.line_num}"
        if len(line) > len(names):
            raise _refused(file, f"{place} has {len(line)} values, but line 1 names only {len(names)}")
        # An empty cell is the default.
        values = {name: value.strip() for name, value in zip(names, line, strict=False) if value.strip()}
        yield FileRow(place, values, names_at=dict.fromkeys(names, "line 1"))


def _of_yaml(file: Path, text: str) -> Iterator[FileRow]:
    try:
        # Read every scalar as text: YAML would turn an account such as 012345670123 into an octal number.
        document = yaml.compose(text, yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise _refused(file, f"it is not YAML: {error}") from None
    parts = _mapping(file, document, "the file")
    for name in parts:
        if name not in KEYS:
            raise _refused(file, UnknownName("key of a fleet file", name, KEYS).what.removesuffix("."))
    defaults = _mapping(file, parts["defaults"], "defaults") if "defaults" in parts else {}
    number = 0
    for node in _items(file, parts["runs"], "runs") if "runs" in parts else []:
        number += 1
        place = f"row {number}, line {node.start_mark.line + 1}"
        yield _entry(place, defaults, {name: _value(value) for name, value in _mapping(file, node, place).items()})
    lists = _mapping(file, parts["matrix"], "matrix") if "matrix" in parts else {}
    columns = [[_value(item) for item in _items(file, node, f"matrix: {name}")] for name, node in lists.items()]
    if empty := next((name for name, column in zip(lists, columns, strict=True) if not column), None):
        raise _refused(file, f"matrix: {empty} is an empty list, so it makes no row")
    for values in itertools.product(*columns) if columns else []:
        number += 1
        named = dict(zip(lists, values, strict=True))
        place = f"row {number}, matrix {', '.join(f'{name}: {value}' for name, value in named.items())}"
        yield _entry(place, defaults, named, _places("matrix", lists))


def _entry(
    place: str, defaults: Mapping[str, yaml.Node], own: Mapping[str, object], names_at: Mapping[str, str] | None = None
) -> FileRow:
    """Return the entry of a row with these values of its own. `names_at` has the places of its own values' names."""
    usual = {name: node for name, node in defaults.items() if name not in own}
    values_at = _places("defaults", usual)
    return FileRow(
        place,
        {**{name: _value(node) for name, node in usual.items()}, **own},
        names_at={**values_at, **(names_at or {})},
        values_at=values_at,
    )


def _places(part: str, nodes: Mapping[str, yaml.Node]) -> dict[str, str]:
    return {name: f"{part}, line {node.start_mark.line + 1}" for name, node in nodes.items()}


def _mapping(file: Path, node: yaml.Node | None, what: str) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        raise _refused(file, f"{what} has to hold names and values, such as  {what_it_looks_like(what)}")
    named: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _refused(file, f"{what} has a name that isn't text, line {key.start_mark.line + 1}")
        if key.value in named:
            raise _refused(file, f"{what} has {key.value!r} twice, line {key.start_mark.line + 1}")
        named[str(key.value)] = value
    return named


def what_it_looks_like(what: str) -> str:
    """Return an example of `what` in YAML: the whole fleet file (`the file`) or a mapping in it, such as `defaults`."""
    return "runs: [{cluster: green}]" if what == "the file" else "cluster: green"


def _items(file: Path, node: yaml.Node, what: str) -> list[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode):
        raise _refused(file, f"{what} has to be a list")
    return list(node.value)


def _value(node: yaml.Node) -> object:
    return node.value if isinstance(node, yaml.ScalarNode) else [] if isinstance(node, yaml.SequenceNode) else {}


def _refused(file: Path, reason: str) -> NothingRan:
    return NothingRan(f"The fleet file can't be used: {reason}.", where=str(file), next=EXAMPLE.removeprefix("next:  "))
