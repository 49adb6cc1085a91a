"""The doctor's report on one service account: its findings in order, and the calls that they rely on."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from labkit.doctor.evidence.reading import Answerer, NotRead, Read
from labkit.doctor.finding import Finding
from labkit.doctor.stages import STAGES, Result, Stage
from labkit.showing import RIGHT, WARNING, WRONG, few, left_aligned, stable, table

MIME = "application/vnd.labkit.doctor+json"
NOTHING, HAS_FINDINGS, COULD_NOT_LOOK = 0, 1, 2  # exit codes
MANY = 4  # calls that one line may name
# What a notebook says instead of an option of the command.
IN_A_NOTEBOOK = {
    "--probe": "--probe, or diagnose(probe=True)",
    "--role NAME": "--role NAME, or diagnose(role=NAME)",
}


OF_THE_ORGANIZATION = (
    "you have no permission to read the organization's policies; one of them may still deny the action"
)


@dataclass(frozen=True)
class StageResult:
    """The result of one stage."""

    result: Result
    read: Sequence[Read]
    """The calls that were answered and that the result relies on."""
    unread: Sequence[NotRead]
    """The calls that failed or weren't allowed."""
    unasked: Sequence[str]
    """The kinds of calls that the result needs, but that weren't made. Calls in the pod need a pod, for example."""

    @property
    def missing(self) -> list[str]:
        """The reasons for an incomplete result: missing options (`--probe`), failed calls, and calls not made."""
        named = [error.needs if error.is_choice else error.call for error in self.unread]
        return list(dict.fromkeys([*named, *self.unasked]))


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """The diagnosis of one service account. `bool(diagnosis)` is true if no finding is an error."""

    subject: str
    """`system:serviceaccount:NAMESPACE:NAME`"""
    findings: Sequence[Finding]
    checks: Mapping[Stage, StageResult]
    """The result of each stage, in the stages' order."""
    read: Sequence[Read] = ()
    """The answered calls that the diagnosis relies on, in the order of their first use."""
    made: Sequence[Read] = ()
    """The calls that were made for this diagnosis. All other answers were already known."""
    cluster: str = ""
    role_arn: str = ""
    """The ARN of the role that the service account should have; empty if it's unknown."""
    pods: Sequence[str] = ()
    """The examined pods."""
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The facts by subject, with secrets removed. If a fact couldn't be read, a sentence says why."""

    repair: bool = field(default=True, compare=False)
    """Whether each finding shows its repair. A notebook shows repairs only on request."""

    @property
    def results(self) -> dict[Stage, Result]:
        """The result of each stage."""
        return {stage: check.result for stage, check in self.checks.items()}

    @property
    def unread(self) -> list[NotRead]:
        """The calls that failed or weren't allowed, each once."""
        return each_once(error for check in self.checks.values() for error in check.unread)

    @property
    def looked(self) -> list[str]:
        """The calls that got an answer, each as text: `iam:GetRole my-role (123456789012)`."""
        return [str(read) for read in self.read]

    @property
    def ok(self) -> bool:
        """Whether no finding is an error. Warnings and notes don't count."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0: no finding, or only notes. 1: a warning or an error. 2: the doctor couldn't look.

        The code is 2 if the doctor didn't reach AWS or the cluster, or had no valid credentials. It's also 2 if
        another call failed and no finding is an error. Failed calls to AWS Organizations don't change the code. Calls
        that the doctor left out, because the user didn't give an option such as `--probe`, don't change it either.
        """
        unread = [error for error in self.unread if not error.is_of_the_organization and not error.is_open]
        if any(error.is_lost and error.read.of in ("AWS", "the cluster") for error in unread):
            return COULD_NOT_LOOK
        if not self.ok:
            return HAS_FINDINGS
        if any(not error.is_choice for error in unread):
            return COULD_NOT_LOOK
        return HAS_FINDINGS if any(finding.severity != "note" for finding in self.findings) else NOTHING

    def stages(self) -> list[tuple[Stage, Result, list[Finding]]]:
        """Return each stage with its result and its findings."""
        return [
            (stage, self.results[stage], [finding for finding in self.findings if finding.stage is stage])
            for stage in STAGES
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the diagnosis for other programs. Later versions may add keys, but they don't remove any."""
        return {
            "subject": self.subject,
            "cluster": self.cluster,
            "role_arn": self.role_arn,
            "pods": list(self.pods),
            "ok": self.ok,
            "exit_code": self.exit_code,
            "checks": [
                {
                    "number": number,
                    "title": stage.title,
                    "result": result,
                    "findings": [finding.id for finding in findings],
                    "looked_at": [str(read) for read in self.checks[stage].read],
                    "missing": self.checks[stage].missing,
                }
                for number, (stage, result, findings) in enumerate(self.stages(), 1)
            ],
            "findings": [finding.as_json() | {"check": STAGES.index(finding.stage) + 1} for finding in self.findings],
            "looked_at": self.looked,
            "calls": len(self.made),
            "not_looked_at": [{"call": error.call, "why": error.why, "needed": error.needs} for error in self.unread],
        }

    def script(self) -> str:
        """Return the repairs of all findings as one shell script. A comment above each repair names its finding."""
        repairs = [f"# {finding.id}: {finding.summary}\n{finding.repair}" for finding in self.findings]
        return "\n\n".join(repairs) or "# nothing to repair"

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        texts = [finding.as_text(self.name, repair=self.repair) for finding in self.findings]
        first, *others = texts if self.begins_with_a_finding else [self.headline, *texts]
        return "\n\n".join([first, *filter(None, [self.more]), *others, "\n".join(self.account())])

    def _repr_html_(self) -> str:
        marks = {"right": RIGHT, "error": WRONG, "warning": WARNING}
        rows = [
            (
                str(number),
                stage.title,
                marks.get(result, result),
                ", ".join(finding.id for finding in findings) or self.lacking(stage),
            )
            for number, (stage, result, findings) in enumerate(self.stages(), 1)
        ]
        said = f"<p><strong>{escape(self.headline)}</strong></p>"
        blocks = [finding.as_html(self.name, repair=self.repair) for finding in self.findings]
        first, *others = blocks if self.begins_with_a_finding else [said, *blocks]
        more = f"<p>{escape(self.more)}</p>" if self.more else ""
        account = "".join(f"<li>{escape(line.strip())}</li>" for line in self.account())
        return left_aligned(
            "".join([first, more, *others]) + table(rows, ("", "check", "result", "findings")) + f"<ul>{account}</ul>"
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        data = self.as_json()
        for part in (data, *data["checks"]):
            part["looked_at"] = [stable(call) for call in part["looked_at"]]
        return {"text/plain": repr(self), "text/html": self._repr_html_(), MIME: data}

    @property
    def name(self) -> str:
        """The service account with its namespace: `shop/cart`."""
        return "/".join(self.subject.split(":")[2:])

    @property
    def headline(self) -> str:
        """The result in one line: the first finding, "nothing is wrong", or the first failed call."""
        if self.begins_with_a_finding:
            return self.findings[0].headline(self.name)
        if self.unanswered:
            return f"! {self.name}: could not be read in full: {self.unanswered}"
        unseen = ", ".join(stage.title for stage, result in self.results.items() if result == "not looked at")
        if unknown := next((error for error in self.unread if error.is_open), None):
            return f"· {self.name}: nothing wrong found, but the result {unknown.call}"
        return f"✓ {self.name}: nothing {f'wrong found; not looked at: {unseen}' if unseen else 'is wrong'}"

    @property
    def unanswered(self) -> str:
        """The first failed call with its error, if the doctor can't say whether something is wrong; otherwise empty."""
        if self.exit_code != COULD_NOT_LOOK or not self.ok:
            return ""
        unread = [each for each in self.unread if not each.is_of_the_organization and not each.is_open]
        first = min(unread, key=lambda each: each.is_choice)  # failed calls come before calls that need an option
        return f"{first.call}: {first.why}"

    @property
    def begins_with_a_finding(self) -> bool:
        """Whether `headline` is about the first finding."""
        return bool(self.findings) and not self.unanswered

    @property
    def more(self) -> str:
        """The count of further findings as text, such as `2 more errors:`; empty without further findings."""
        others = self.findings[1:] if self.begins_with_a_finding else self.findings
        counted = Counter(finding.severity for finding in others)
        counts = [f"{count} more {kind}{'s' if count > 1 else ''}" for kind, count in counted.items()]
        return f"{' and '.join(counts)}:" if counts else ""

    def lacking(self, stage: Stage) -> str:
        """Return a phrase that says why a stage wasn't examined: options are missing, or calls got no answer."""
        check = self.checks[stage]
        if check.result != "not looked at" or not check.missing:
            return ""
        unknown = [error.call for error in check.unread if error.is_open]
        return unknown[0] if unknown else f"missing: {few(check.missing)}"

    def account(self) -> Iterator[str]:
        """Yield lines about the doctor's calls.

        The first line gives the number of answers from AWS, the cluster and the issuer. Further lines name the
        commands that the doctor ran in the pod, and the reasons why calls failed.
        """
        answers = Counter(read.of for read in self.read)
        named: dict[Answerer, str] = {"AWS": "AWS", "the cluster": "the cluster", "a host": "the issuer"}
        counted = [(answers[of], name) for of, name in named.items() if answers[of]]
        counts = [f"{count} answer{'s' if count > 1 else ''} from {name}" for count, name in counted]
        yield f"Read {', '.join(counts) or 'nothing'}. No call changed anything."
        if in_pod := [str(read) for read in self.read if read.of == "the pod"]:
            yield f"In the pod: {'; '.join(in_pod)}"
        yield from unread_lines(self.unread)


def each_once(unread: Iterable[NotRead]) -> list[NotRead]:
    """Return the last error of each failed call, in the order in which the calls first failed."""
    return list({error.read: error for error in unread}.values())


def unread_lines(unread: Iterable[NotRead]) -> Iterator[str]:
    """Yield one line for each reason why calls failed. The line names the calls that failed for this reason."""
    unread = list(unread)
    yield from (f"D{error.call[1:]}: {error.why}" for error in unread if error.is_open)
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for error in unread:
        if error.is_open:
            continue
        is_refused = error.is_of_the_organization and error.needs == error.read.kind
        why = OF_THE_ORGANIZATION if is_refused else error.why
        reasons.setdefault((why, error.needs), {})[error.call] = None
    for (why, needs), calls in reasons.items():
        first, *more = calls
        needed = f"; needed: {IN_A_NOTEBOOK.get(needs, needs)}" if needs else ""
        also = f", and {len(more)} more" if len(more) > MANY else "".join(f", {call}" for call in more)
        yield f"Not read: {first}{also if more else ''}: {why}{needed}"
