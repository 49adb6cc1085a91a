"""The class `Family`, and the reader of `families.toml`. The first lines of that file say how to write a family."""

import re
import tomllib
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from labkit.errors import LabError, UnknownName


class Family(BaseModel):
    """A family of errors: errors with similar texts, which have the same possible causes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    patterns: tuple[str, ...]
    means: str
    ids: tuple[str, ...] = ()
    next: tuple[str, ...] = ("@doctor",)
    is_general: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The pattern that matches whatever one of `patterns` matches."""
        return re.compile("|".join(self.patterns), re.IGNORECASE)


class FamiliesFile(BaseModel):
    """The content of `families.toml`."""

    model_config = ConfigDict(extra="forbid")

    ids: dict[str, tuple[str, ...]]
    commands: dict[str, str]
    family: tuple[Family, ...]


def read(file: Path) -> tuple[Family, ...]:
    """Return the file's families in their order, with the ids and commands that each `@NAME` stands for.

    Raises `LabError` if the file isn't TOML, a key or an `@NAME` is unknown, a value has the wrong type, or a pattern
    isn't a regular expression.
    """
    data: dict[str, Any] = {}
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
        content = FamiliesFile.model_validate(data)
    except tomllib.TOMLDecodeError as error:
        raise LabError(f"This isn't TOML: {error}.", where=str(file)) from None
    except ValidationError as error:
        # A wrong key also makes the right key missing: report the wrong key.
        mistakes = sorted(error.errors(), key=lambda mistake: mistake["type"] != "extra_forbidden")
        raise _mistake(mistakes[0], data, file) from None
    return tuple(_complete(family, content, file) for family in content.family)


def _complete(family: Family, content: FamiliesFile, file: Path) -> Family:
    where = f"{file}, family {family.name!r}"
    try:
        _ = family.pattern
    except re.error as error:
        raise LabError(f"{error.pattern!r} is not a regular expression: {error}.", where=where) from None
    ids: list[str] = []
    for each in family.ids:
        ids += content.ids[_known(each, content.ids, "list in [ids]", where)] if each.startswith("@") else [each]
    following = [
        re.sub(r"^@[\w-]*", lambda name: content.commands[_known(name[0], content.commands, "command", where)], line)
        for line in family.next
    ]
    return family.model_copy(update={"ids": tuple(ids), "next": tuple(following)})


def _known(reference: str, known: Collection[str], kind: str, where: str) -> str:
    name = reference.removeprefix("@")
    if name not in known:
        raise UnknownName(kind, name, known, where=where)
    return name


def _mistake(mistake: Any, data: dict[str, Any], file: Path) -> LabError:
    """Return the error about a mistake that pydantic reports in the file's data."""
    where, keys, place = str(file), list(FamiliesFile.model_fields), list(mistake["loc"])
    if place[0] == "family" and len(place) > 2:
        row = data["family"][place[1]]
        where += f", family {row.get('name', place[1] + 1)!r}"
        keys, place = list(Family.model_fields), place[2:]
    if mistake["type"] == "extra_forbidden":
        return UnknownName("key", str(place[0]), keys, where=where)
    return LabError(f"{place[0]!r}: {mistake['msg']}.", where=where)
