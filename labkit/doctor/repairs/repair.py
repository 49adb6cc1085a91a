"""A repair: the shell lines that correct a finding.

`without` and `before` leave out lines that another repair in the report contains.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

BELOW = "# the pods are replaced further down, after all repairs"
# Replacements for the characters that let a shell continue a line on the next one.
HARMLESS = {"'": "\N{RIGHT SINGLE QUOTATION MARK}", '"': "\N{RIGHT DOUBLE QUOTATION MARK}", "`": "", "\\": ""}


@dataclass(frozen=True)
class Lines:
    """Lines of a repair that belong together: comments, and commands with one purpose."""

    text: str
    creates: str = ""
    """The object that the lines create, such as `role cart`; empty if no other repair creates the same object."""
    makes_pods: bool = False
    """Whether the lines replace pods or wait for pods. Such lines run after all repairs that affect new pods."""


@dataclass(frozen=True)
class Repair:
    """The repair of a finding. `str(repair)` returns it as lines for a shell."""

    parts: tuple[Lines, ...]
    waits: bool = False
    """Whether another finding's repair must run first."""

    @classmethod
    def of(cls, *parts: "str | Lines | Repair") -> "Repair":
        """Return one repair with all these parts. Empty parts are left out."""
        repairs = [_as_repair(part) for part in parts]
        return cls(tuple(lines for each in repairs for lines in each.parts), any(each.waits for each in repairs))

    def __str__(self) -> str:
        return "\n".join(_whole(line) for lines in self.parts for line in lines.text.split("\n"))

    @property
    def makes_pods(self) -> bool:
        """Whether the repair replaces pods."""
        return any(lines.makes_pods for lines in self.parts)

    @property
    def does(self) -> list[str]:
        """Texts that name the parts of this repair. A later repair can skip a part that has the same text.

        - For a part with `creates`, the text is `creates`: the name of an object, such as `role cart`.
        - For any other part with commands, the text is the part's lines.

        Parts that replace pods or wait for pods, and parts with only comments, have no text unless they have
        `creates`.
        """
        return [name for lines in self.parts for name in _done_by(lines)]

    def without(self, done: Mapping[str, str]) -> "Repair":
        """Return the repair, with a comment instead of each part that an earlier repair has done.

        Each key of `done` is a text from an earlier repair's `does`. The value is the id of that repair's finding.
        """
        parts = (
            Lines(f"# done already by the repair of {by[0]}")
            if (by := [done[name] for name in _done_by(lines) if name in done])
            else lines
            for lines in self.parts
        )
        return replace(self, parts=tuple(parts))

    def also(self, other: "Repair") -> "Repair":
        """Return this repair joined with the repair of another pod. The lines that replace pods come last."""
        parts = (*self._split()[0], *other._split()[0], *self._split()[1], *other._split()[1])
        return Repair(tuple(dict.fromkeys(parts)), self.waits or other.waits)

    def before(self, later: Sequence["Repair"]) -> "Repair":
        """Return this repair without the lines at its end that a repair in `later` repeats.

        A report shows the repairs in `later` below this one. The lines at the end are those that replace pods or wait
        for pods. If a repair in `later` ends with exactly the same lines, the returned repair has a comment in their
        place. Otherwise, return this repair unchanged.
        """
        head, tail = self._split()
        if not tail or all(tail != each._split()[1] for each in later):
            return self
        return replace(self, parts=(*head, Lines(BELOW)))

    def _split(self) -> tuple[tuple[Lines, ...], tuple[Lines, ...]]:
        """Return the first parts, and the parts at the end. Each part at the end replaces pods or waits for pods."""
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
    """Return the line unchanged, unless it's a comment that a shell might continue on the next line.

    In such a comment, make the quotes typographic, and remove backticks and backslashes. The reason: an interactive
    zsh may not know `#` as a comment, and after a single apostrophe it waits for a second one.
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
