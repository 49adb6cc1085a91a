"""Define findings and causes, and sort findings.

A finding is one thing that is wrong. A cause is one possible reason for a finding. `@cause` turns a function that looks
for a reason into a `Cause`. A step's check, a notebook and the report show findings in the same order.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from html import escape
from types import ModuleType
from typing import Literal, get_args
from weakref import WeakKeyDictionary

from labkit.doctor.evidence import Evidence, NotRead
from labkit.doctor.evidence.kinds import Kinds
from labkit.doctor.repairs.repair import Lines, Repair
from labkit.doctor.repairs.words import without_changes
from labkit.doctor.stages import ANNOTATION, PERMISSIONS, PROVIDER, ROLE, STAGES, WEBHOOK, Stage
from labkit.showing import Code, Name, block, table

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # the worst first
OF_NO_POD = (ANNOTATION, PROVIDER, ROLE, PERMISSIONS)
MARKS: dict[str, str] = {"error": "✗", "warning": "!", "note": "i"}
# A summary's first word, if it's one of these, gets a small letter after a service account's name.
ARTICLES = ("A", "An", "No", "Something", "The")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, the API call that shows it, and the repair."""

    id: str
    """A stable name, such as `trust-policy-sub-mismatch`."""
    summary: str
    """One sentence that says what is wrong."""
    expected: str
    found: str
    source: str
    """The API call that shows the mistake."""
    repaired_by: Repair
    learn: str
    """The notebook that teaches the subject."""
    stage: Stage
    """The stage of an examination that the finding belongs to."""
    severity: Severity = "error"

    @property
    def repair(self) -> str:
        """The repair as lines for a shell. Run `eval "$(labkit env)"` in the shell first."""
        return str(self.repaired_by)

    @property
    def short_repair(self) -> str:
        """The repair without the diffs that its comments show."""
        return without_changes(self.repair)

    def as_json(self) -> dict[str, object]:
        """Return the finding as a dict for JSON. Later versions may add keys, but never remove any."""
        keys = ("id", "summary", "expected", "found", "source", "repair", "learn", "severity")
        return {key: getattr(self, key) for key in keys}

    def as_text(self, whose: str = "", *, repair: bool = True) -> str:
        """Return the finding as lines of text. The first line is the headline, which names the service account `whose`.

        If `repair` is false, the text leaves out the repair, and says how to show it.
        """
        shown = self.repair.replace("\n", "\n            ") if repair else "hidden; ask with repair=True"
        return (
            f"{self.headline(whose)}\n"
            f"  expected  {self.expected}\n  found     {self.found}\n  seen in   {self.source}\n"
            f"  repair    {shown}\n  finding   {self.id}\n  learn     {self.learn}"
        )

    def as_html(self, whose: str = "", *, repair: bool = True) -> str:
        """Return the finding as a block of HTML. The block begins with the headline.

        The headline names the service account in `whose`, if any.

        If `repair` is false, the repair is hidden until a click.
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
        """Return the finding in one line: `✗ shop/cart: the trust policy admits shop:web, not shop:cart`.

        `whose` is the service account to name, such as `shop/cart`, if any.
        """
        said = self.summary.removesuffix(".")
        if not whose:
            return f"{MARKS[self.severity]} {said}"
        first, space, rest = said.partition(" ")
        return f"{MARKS[self.severity]} {whose}: {first.lower() if first in ARTICLES else first}{space}{rest}"


@dataclass(frozen=True)
class Symptom:
    """The result of a function that looked for a cause and found it.

    The `Cause` makes a `Finding` from the symptom and from the fields of the `Cause`, such as `id`.
    """

    summary: str
    expected: str
    found: str
    source: str
    repair: str | Lines | Repair
    severity: Severity = "error"


Look = Callable[[Evidence], Symptom | None]


@dataclass(frozen=True, eq=False)
class Cause:
    """A kind of problem that the doctor knows. The function `look` looks for the problem."""

    id: str
    """The id of the cause's findings."""
    stage: Stage
    """The stage of an examination that the cause belongs to."""
    learn: str
    """The notebook that teaches the subject."""
    reads: tuple[Kinds, ...]
    """Groups of calls. A stage without findings counts as right only if at least one call of each group was made.

    Otherwise, the stage counts as not looked at.
    """
    look: Look
    follows_from: tuple["Cause", ...]
    """More specific causes. If one of them has a finding, this cause is left out.

    A cause that has more specific causes is also left out if the same stage or an earlier stage has another error.
    """
    explained_by: tuple[str, ...]
    """The ids of causes in any stage. An error of one of them explains this cause's findings. `*`: any other error."""
    ends: tuple[Stage, ...]
    """The stages that aren't examined any further once this cause has a finding."""
    _results: WeakKeyDictionary[Evidence, Finding | None] = field(default_factory=WeakKeyDictionary, repr=False)

    def __call__(self, evidence: Evidence) -> Finding | None:
        """Return the cause's finding, unless a more specific cause already has a finding.

        Raises `NotRead` if a fact that the cause needs can't be read.
        """
        # Keep the result: other causes ask for it too, and writing a repair takes long.
        if evidence not in self._results:
            symptom = self.look(evidence)
            is_new = symptom is not None and not any_finding(evidence, *self.follows_from)
            self._results[evidence] = self._finding(symptom) if symptom and is_new else None
            for stage in self.ends if is_new else ():
                stage.ended_for.add(evidence)
        return self._results[evidence]

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
    explained_by: tuple[str, ...] = (),
    ends: tuple[Stage, ...] = (),
) -> Callable[[Look], Cause]:
    """Return a decorator that turns a function into a `Cause` with these fields."""
    return lambda look: Cause(id, stage, learn, reads, look, follows_from, explained_by, ends)


def causes_of(*families: ModuleType) -> tuple[Cause, ...]:
    """Return the causes that these modules declare, sorted by stage. A stage's causes keep the modules' order."""
    declared = [each for family in families for each in vars(family).values() if isinstance(each, Cause)]
    return tuple(sorted(declared, key=lambda each: STAGES.index(each.stage)))


def look_for(causes: Iterable[Cause], evidence: Evidence) -> Iterator[tuple[Cause, Finding | NotRead | None]]:
    """Yield each cause with its result: a finding, `NotRead` if a fact can't be read, or None if nothing is found.

    Once a finding has ended a stage (see `Cause.ends`), the stage's remaining causes are skipped. A cause that can
    itself end a stage is never skipped.
    """
    for each in causes:
        # A cause that ends its own stage must still be reported.
        if evidence in each.stage.ended_for and not each.ends:
            continue
        try:
            yield each, each(evidence)
        except NotRead as unread:
            yield each, unread


def any_finding(evidence: Evidence, *causes: Cause) -> bool:
    """Return whether at least one of these causes has a finding.

    A cause has no finding if a fact that the cause needs can't be read.
    """
    return any(isinstance(outcome, Finding) for _, outcome in look_for(causes, evidence))


def findings_of(causes: Iterable[Cause], evidence: Evidence, unread: list[NotRead] | None = None) -> list[Finding]:
    """Return the findings of these causes, sorted by `in_order`.

    If a cause can't read a fact, add its `NotRead` to the list `unread`. Without this list, raise the first `NotRead`.
    """
    outcomes = [outcome for _, outcome in look_for(causes, evidence)]
    lacking = [outcome for outcome in outcomes if isinstance(outcome, NotRead)]
    if unread is not None:
        unread += lacking
    elif lacking:
        raise lacking[0]
    return in_order(outcome for outcome in outcomes if isinstance(outcome, Finding))


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return each finding once, in the order in which the user should run the repairs.

    Errors come first. Among findings of the same severity, repairs that replace pods come after repairs that affect
    new pods. A repair leaves out the parts that an earlier repair has done.
    """
    ordered = sorted(_merged(findings), key=_sort_key)
    done: dict[str, str] = {}
    result = []
    for number, finding in enumerate(ordered, 1):
        later = [each.repaired_by for each in ordered[number:] if each.severity == finding.severity]
        result.append(replace(finding, repaired_by=finding.repaired_by.without(done).before(later)))
        done = dict.fromkeys(finding.repaired_by.does, finding.id) | done
    return result


def _merged(findings: Iterable[Finding]) -> list[Finding]:
    """Merge equal findings, such as several pods' findings about the same role."""
    repairs: dict[Finding, Repair] = {}
    for finding in findings:
        same = replace(finding, repaired_by=Repair(())) if finding.stage in OF_NO_POD else finding
        repairs[same] = repairs[same].also(finding.repaired_by) if same in repairs else finding.repaired_by
    return [replace(finding, repaired_by=repair) for finding, repair in repairs.items()]


def _sort_key(finding: Finding) -> tuple[int, int, int]:
    stage, repair = STAGES.index(finding.stage), finding.repaired_by
    when = 2 if stage > STAGES.index(WEBHOOK) else 1 if repair.makes_pods else 0
    return SEVERITIES.index(finding.severity), 3 if repair.waits else when, stage
