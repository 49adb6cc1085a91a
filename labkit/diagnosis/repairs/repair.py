"""A repair, and what it does to others that are run before or after it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

BELOW = "# its pods are made again further down, once for all that is repaired"
# What stands for the characters by which a shell takes the next line for a part of this one.
HARMLESS = {"'": "\N{RIGHT SINGLE QUOTATION MARK}", '"': "\N{RIGHT DOUBLE QUOTATION MARK}", "`": "", "\\": ""}


@dataclass(frozen=True)
class Lines:
    """Lines of a repair that belong together: comments, and the commands of one purpose."""

    text: str
    creates: str = ""
    """What they create, such as `role cart`; empty if they create nothing that another repair creates, too."""
    makes_pods: bool = False
    """Whether they replace pods or wait for them. Whatever decides how pods are created must be repaired before."""


@dataclass(frozen=True)
class Repair:
    """The repair of a finding; as text, lines for a shell."""

    parts: tuple[Lines, ...]
    waits: bool = False
    """Whether it is for later: another finding's repair comes before it."""

    @classmethod
    def of(cls, *parts: "str | Lines | Repair") -> "Repair":
        """These parts, one after the other, without those that are empty."""
        repairs = [_as_repair(part) for part in parts]
        return cls(tuple(lines for each in repairs for lines in each.parts), any(each.waits for each in repairs))

    def __str__(self) -> str:
        return "\n".join(_whole(line) for lines in self.parts for line in lines.text.split("\n"))

    @property
    def makes_pods(self) -> bool:
        """Whether it makes pods again."""
        return any(lines.makes_pods for lines in self.parts)

    @property
    def does(self) -> list[str]:
        """What later repairs can leave out: what this one creates, and its lines that change anything except pods."""
        return [name for lines in self.parts for name in _done_by(lines)]

    def without(self, done: Mapping[str, str]) -> "Repair":
        """The repair without what earlier repairs do. `done` has the id of the earlier finding for each thing done."""
        parts = (
            Lines(f"# done already by the repair of {by[0]}")
            if (by := [done[name] for name in _done_by(lines) if name in done])
            else lines
            for lines in self.parts
        )
        return replace(self, parts=tuple(parts))

    def also(self, other: "Repair") -> "Repair":
        """The repair, and what another pod needs beside it. Pods are made again last."""
        parts = (*self._split()[0], *other._split()[0], *self._split()[1], *other._split()[1])
        return Repair(tuple(dict.fromkeys(parts)), self.waits or other.waits)

    def before(self, later: Sequence["Repair"]) -> "Repair":
        """The repair before later ones. It leaves the restart of pods to a later one that restarts the same pods."""
        head, tail = self._split()
        if not tail or all(tail != each._split()[1] for each in later):
            return self
        return replace(self, parts=(*head, Lines(BELOW)))

    def _split(self) -> tuple[tuple[Lines, ...], tuple[Lines, ...]]:
        """The lines, and behind them those that make pods again."""
        at = len(self.parts)
        while at and self.parts[at - 1].makes_pods:
            at -= 1
        return self.parts[:at], self.parts[at:]


def _done_by(lines: Lines) -> list[str]:
    if lines.creates:
        return [lines.creates]
    is_command = any(not line.startswith("#") for line in lines.text.split("\n"))
    return [lines.text] if is_command and not lines.makes_pods else []


def _whole(line: str) -> str:
    """The line. In a comment with an unpaired quote, harmless characters replace the quotes.

    What a comment tells of may hold an apostrophe. A shell that takes `#` for a command waits for the second one:
    https://zsh.sourceforge.io/Doc/Release/Options.html#index-INTERACTIVECOMMENTS
    """
    return line if not line.startswith("#") or _is_closed(line) else "".join(HARMLESS.get(each, each) for each in line)


def _is_closed(line: str) -> bool:
    try:
        shlex.split(line)
    except ValueError:
        return False
    return line.count("`") % 2 == 0


def _as_repair(part: str | Lines | Repair) -> Repair:
    lines = Lines(part) if isinstance(part, str) else part
    return lines if isinstance(lines, Repair) else Repair((lines,) if lines.text else ())
