"""A finding: one thing that is wrong. `@cause` declares what can be, beside the function that looks for it."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from html import escape
from types import ModuleType
from typing import Literal, get_args

from labkit.diagnosis.evidence import Evidence, NotRead
from labkit.diagnosis.evidence.kinds import Kinds
from labkit.diagnosis.repairs.repair import Lines, Repair
from labkit.diagnosis.stages import STAGES, Stage
from labkit.showing import Code, Name, block, table

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # the worst first
MARKS: dict[str, str] = {"error": "✗", "warning": "!", "note": "i"}
# The words that are small where they do not begin a sentence.
ARTICLES = ("A", "An", "No", "Something", "The")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, what shows it, and what repairs it."""

    id: str
    """A stable name, such as `trust-policy-sub-mismatch`."""
    summary: str
    """One sentence of what is wrong."""
    expected: str
    found: str
    source: str
    """The API call that shows it."""
    repaired_by: Repair
    learn: str
    """The notebook that teaches it."""
    stage: Stage
    """The stage that it belongs to."""
    severity: Severity = "error"

    @property
    def repair(self) -> str:
        """Shell lines that put it right, after `eval "$(labkit env)"`."""
        return str(self.repaired_by)

    def as_json(self) -> dict[str, object]:
        """The finding for other programs; keys are only ever added."""
        keys = ("id", "summary", "expected", "found", "source", "repair", "learn", "severity")
        return {key: getattr(self, key) for key in keys}

    def as_text(self, whose: str = "", *, repair: bool = True) -> str:
        """The finding as lines of text, what is wrong first; with `whose`, of this service account."""
        shown = self.repair.replace("\n", "\n            ") if repair else "hidden; ask with repair=True"
        return (
            f"{self.headline(whose)}\n"
            f"  expected  {self.expected}\n  found     {self.found}\n  seen in   {self.source}\n"
            f"  repair    {shown}\n  finding   {self.id}\n  learn     {self.learn}"
        )

    def as_html(self, whose: str = "", *, repair: bool = True) -> str:
        """The finding as a block of HTML, what is wrong first; with `whose`, of this service account.

        Without `repair`, a click unfolds it.
        """
        compared = [
            (Name("expected"), Code(self.expected)),
            (Name("found"), Code(self.found)),
            (Name("seen in"), self.source),
        ]
        named = [(Name("finding"), Code(self.id)), (Name("learn"), self.learn)]
        shown = block(self.repair)
        if not repair:
            shown = f"<details><summary>Show the repair</summary>{shown}</details>"
        return f"<p><strong>{escape(self.headline(whose))}</strong></p>{table(compared)}{shown}{table(named)}"

    def headline(self, whose: str = "") -> str:
        """One line of what is wrong: `✗ shop/cart: the trust policy admits shop:web, not shop:cart`."""
        said = self.summary.removesuffix(".")
        if not whose:
            return f"{MARKS[self.severity]} {said}"
        first, space, rest = said.partition(" ")
        return f"{MARKS[self.severity]} {whose}: {first.lower() if first in ARTICLES else first}{space}{rest}"


@dataclass(frozen=True)
class Symptom:
    """The result of a cause's look: evidence and a repair. `Cause` adds the declared parts to make a finding."""

    summary: str
    expected: str
    found: str
    source: str
    repair: str | Lines | Repair
    severity: Severity = "error"


Look = Callable[[Evidence], Symptom | None]


@dataclass(frozen=True, eq=False)
class Cause:
    """One possible cause: its declaration, and the function that looks for it."""

    id: str
    """The id of its findings."""
    stage: Stage
    """The stage that it belongs to."""
    learn: str
    """The notebook that teaches it."""
    reads: tuple[Kinds, ...]
    """The calls that must have been answered before finding nothing counts as right."""
    look: Look
    follows_from: tuple["Cause", ...]
    """The more specific causes. If one is found, or an error of this or an earlier stage, this cause is left out."""
    ends: tuple[Stage, ...]
    """The stages that aren't examined once this is found."""

    def __call__(self, evidence: Evidence) -> Finding | None:
        """The finding; None also if a more specific cause reported it. Raises `NotRead`."""
        # Other causes ask for it as well, and its repair takes long to write.
        if self not in evidence.found:
            symptom = self.look(evidence)
            is_new = symptom is not None and not is_told(evidence, *self.follows_from)
            evidence.found[self] = self._finding(symptom) if symptom and is_new else None
            if is_new:
                evidence.ended.update(self.ends)
        finding: Finding | None = evidence.found[self]
        return finding

    def _finding(self, symptom: Symptom) -> Finding:
        return Finding(
            id=self.id,
            summary=symptom.summary,
            expected=symptom.expected,
            found=symptom.found,
            source=symptom.source,
            repaired_by=Repair.of(symptom.repair),
            learn=self.learn,
            stage=self.stage,
            severity=symptom.severity,
        )


def cause(
    id: str,
    stage: Stage,
    learn: str,
    *,
    reads: tuple[Kinds, ...],
    follows_from: tuple[Cause, ...] = (),
    ends: tuple[Stage, ...] = (),
) -> Callable[[Look], Cause]:
    """Declare the cause that a function looks for."""
    return lambda look: Cause(id, stage, learn, reads, look, follows_from, ends)


def causes_of(*families: ModuleType) -> tuple[Cause, ...]:
    """The causes that these modules declare, in the order of their stages, and in a stage in their own."""
    declared = [each for family in families for each in vars(family).values() if isinstance(each, Cause)]
    return tuple(sorted(declared, key=lambda each: STAGES.index(each.stage)))


def look_for(causes: Iterable[Cause], evidence: Evidence) -> Iterator[tuple[Cause, Finding | NotRead | None]]:
    """Each cause's finding, or why it found none. Causes of a stage that has ended are left out."""
    for each in causes:
        # What ends its own stage is told itself.
        if each.stage in evidence.ended and not each.ends:
            continue
        try:
            yield each, each(evidence)
        except NotRead as unread:
            yield each, unread


def is_told(evidence: Evidence, *causes: Cause) -> bool:
    """Whether one of these causes has a finding already. A cause that couldn't read what it needs has none."""
    return any(isinstance(outcome, Finding) for _, outcome in look_for(causes, evidence))


def few(names: Collection[str]) -> str:
    """The first three of some names, and how many more there are."""
    first, more = [*names][:3], max(0, len(names) - 3)
    return ", ".join(first) + (f" and {more} more" if more else "")
