"""Explain an error's text: its possible causes, and the next command. This needs no connection.

`families.toml` has the texts that the doctor recognizes, in families: the texts of one family have the same
meaning. Since about June 2026, STS seems to answer most faults of a token with the same sentence. Older threads on
the web show the earlier messages, which name the cause.
"""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from labkit.doctor.explanations.family import read

FAMILIES = read(Path(__file__).with_name("families.toml"))
"""If several general families match a text, the first one counts."""

# The number of characters. A terminal has at least this width.
NARROWEST = 40
# The number of lines. Errors that people copy are seldom longer.
FEW = 30


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
