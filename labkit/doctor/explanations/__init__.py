"""Explain an error's text: its possible causes, and the next command. This needs no connection.

`families.toml` has the texts that the doctor recognizes, in families: the texts of one family have the same
meaning. Since about June 2026, STS seems to answer most faults of a token with the same sentence. Older threads on
the web show the earlier messages, which name the cause.
"""

import re
import shlex
import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from labkit.errors import LabError, UnknownName

# The number of characters. A terminal has at least this width.
NARROWEST = 40
# The number of lines. Errors that people copy are seldom longer.
FEW = 30


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


@dataclass(frozen=True)
class Explanation:
    """A possible meaning of an error's text, with the ids of the findings that can cause the error.

    `next` has the next commands. They contain names from the error's text, such as the pod's.
    """

    family: str
    means: str
    ids: tuple[str, ...]
    next: tuple[str, ...] = field(default=())

    def as_json(self) -> dict[str, object]:
        """Return the explanation for other programs. Later versions may add keys, but they don't remove any."""
        return {"family": self.family, "means": self.means, "findings": list(self.ids), "next": list(self.next)}

    def __str__(self) -> str:
        causes = "\n                ".join(self.ids) or "something that the doctor can't see"
        following = "\n                ".join(self.next)
        return f"{self.family}: {self.means}\n  cause may be  {causes}\n  next          {following}"


def explain(text: str, **known: str) -> list[Explanation]:
    """Return an explanation for each `Family` of errors that the text matches.

    If only general families match, explain the first family. Otherwise, general families don't count.

    `known` holds names by kind, such as `pod="web-1"`. The next commands get these names instead of the text's.
    """
    given = {kind: shlex.quote(name) for kind, name in known.items()}
    # A log puts an error's lines on one line, with the line breaks as `\n`.
    readings = _readings(text.replace("\\n", " ").replace("\\t", " ").splitlines())
    matches = [
        (family, match)
        for family in FAMILIES
        if (match := next(filter(None, map(family.pattern.search, readings)), None))
    ]
    telling = [(family, match) for family, match in matches if not family.is_general]
    if not telling:
        telling = matches[:1]
    return [
        Explanation(
            family.name,
            family.means,
            tuple(dict.fromkeys(family.ids)),
            tuple(line.format_map(_names(match.string) | _named(match) | given) for line in family.next),
        )
        for family, match in telling
    ]


def _readings(lines: list[str]) -> list[str]:
    """Return the texts that a terminal may have broken into these lines. Each returned text is one line.

    A terminal breaks a long line at the terminal's width, even inside a word.
    """
    width = max(map(len, lines), default=0)
    breaks = ["" if len(line) == width >= NARROWEST else " " for line in lines[:-1]]
    broken = breaks.count("")
    joined = "".join(line + end for line, end in zip(lines, [*breaks, ""], strict=False))
    # If several lines have the greatest length, the terminal broke them. A single longest line proves nothing.
    texts = [joined] if broken > 1 else [" ".join(lines), *([joined] if broken else [])]
    # A short text may not show the terminal's width.
    texts += ["".join(lines)] if len(lines) <= FEW else []
    return list(dict.fromkeys(" ".join(each.split()) for each in texts))


def _named(match: re.Match[str]) -> dict[str, str]:
    named = {name: value for name, value in match.groupdict().items() if value and name != "own"}
    return {name: shlex.quote(value.strip(".:,")) for name, value in named.items()}


def _names(said: str) -> dict[str, str]:
    """Return the names in the error's text by kind, with placeholders for missing names."""
    names = {
        "namespace": "NAMESPACE",
        "service_account": "SERVICE_ACCOUNT",
        "pod": "POD",
        "role": "ROLE",
        "cluster": "CLUSTER",
        "account": "ACCOUNT_ID",
        "issuer": "ISSUER",
        "region": "REGION",
        "wants": "",
    }
    for pattern in _NAMES_IN_ERRORS:
        if match := re.search(pattern, said):
            names |= {name: shlex.quote(value) for name, value in match.groupdict().items() if value}
    if wants := re.search(r"not authorized to perform: ([a-z0-9-]+:\w+)(?: on resource: \"?(arn:[^\s\"]+|\*))?", said):
        resource = f" --resource {shlex.quote(wants[2])}" if wants[2] else ""
        names["wants"] = f" --action {wants[1]}{resource}"
    return names


_NAMES_IN_ERRORS: Iterable[str] = (
    r"system:serviceaccount:(?P<namespace>[a-z0-9-]+):(?P<service_account>[a-z0-9.-]*[a-z0-9])",
    r"looking up service account (?P<namespace>[a-z0-9-]+)/(?P<service_account>[a-z0-9.-]*[a-z0-9])",
    r"arn:[\w-]+:iam::(?P<account>\d{12}):role/(?:[\w+=,.@-]+/)*(?P<role>[\w+=,.@-]+)",
    r":assumed-role/(?P<role>[\w+=,.@-]+)/",
    r"(?P<issuer>https://oidc\.eks\.(?P<region>[a-z0-9-]+)\.amazonaws\.com/id/[0-9A-F]{32})",
    r"sts\.(?P<region>[a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com",
)


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


FAMILIES = read(Path(__file__).with_name("families.toml"))
"""If several general families match a text, the first one counts."""
