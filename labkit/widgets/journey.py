"""The journey: which of the five steps is not there, there, checked and right, or broken."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from html import escape
from typing import TYPE_CHECKING, Any

from labkit import steps
from labkit.showing import left_aligned, table
from labkit.widgets.check import Check

if TYPE_CHECKING:
    from labkit.diagnosis.evidence import Evidence


class State(StrEnum):
    """How far a step is."""

    MISSING = "○ not there"
    THERE = "● there"
    RIGHT = "✓ checked and right"
    BROKEN = "✗ broken"


@dataclass(frozen=True)
class Stop:
    """A step of the journey: how far it is, and the one line that shows it."""

    number: int
    step: str
    title: str
    state: State
    line: str


@dataclass(frozen=True, repr=False)
class Journey:
    """The five steps of one service account's way to its role; notebooks show them as a table."""

    subject: str
    role_name: str
    stops: Sequence[Stop]
    again: Callable[[], "Journey"]
    """Reads the live lab once more."""

    @property
    def headline(self) -> str:
        """Where the learner is, and what comes next."""
        for state, said in (
            (State.BROKEN, "Step {0.number} is broken: {0.title}. What is wrong, and what repairs it: {check}"),
            (State.MISSING, "You are at step {0.number} of {count}: {0.title}."),
            (State.THERE, "Every step is there. Not checked yet: {0.title}, with {check}"),
        ):
            if stop := next((stop for stop in self.stops if stop.state is state), None):
                return said.format(stop, count=len(self.stops), check=f'lab.check("{stop.step}")')
        return "Every step is checked and right."

    def __repr__(self) -> str:
        titles = max(len(stop.title) for stop in self.stops)
        states = max(len(stop.state) for stop in self.stops)
        lines = [f"  {s.number}  {s.title:{titles}}  {s.state:{states}}  {s.line}" for s in self.stops]
        return "\n".join([self.headline, f"From {self.subject} to the role {self.role_name}:", *lines])

    def _repr_html_(self) -> str:
        rows = [(str(stop.number), stop.title, str(stop.state), stop.line) for stop in self.stops]
        return (
            f"<p><strong>{escape(self.headline)}</strong><br>"
            f"From <code>{escape(self.subject)}</code> to the role <code>{escape(self.role_name)}</code>:</p>"
            + table(rows, ("step", "", "state", "what the lab holds"))
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from labkit.widgets import live

        html = self._repr_html_()
        widget = live.view(html, lambda: self.again()._repr_html_(), "Look again")
        return {"text/plain": repr(self), "text/html": left_aligned(html), **widget}


def read(evidence: "Evidence", checked: Collection[str], again: Callable[[], Journey]) -> Journey:
    """The journey as the live lab has it.

    Args:
        checked: the steps whose last check, by the learner, found everything right.
    """
    stops = [_stop(number, step, evidence, step in checked) for number, step in enumerate(steps.ORDER, start=1)]
    return Journey(evidence.subject, evidence.parameters.role_name, stops, again)


def _stop(number: int, step: str, evidence: "Evidence", checked: bool) -> Stop:
    module = steps.step(step)
    if missing := _missing(step, evidence):
        return Stop(number, step, module.TITLE, State.MISSING, missing)
    # Who the pod is takes a command in it, and a call that the trail then shows: only where the learner made one.
    if step == "credentials" and not checked:
        return Stop(number, step, module.TITLE, State.THERE, f"a token for {evidence.token_audience}, not tried yet")
    # As in a check of the step: what only explains a fault may be out of the caller's reach.
    report = Check(step, module.TITLE, module.rows(evidence), module.check(evidence, []))
    if not report:
        return Stop(number, step, module.TITLE, State.BROKEN, _wrong(report))
    return Stop(number, step, module.TITLE, State.RIGHT if checked else State.THERE, _there(step, evidence))


def _missing(step: str, evidence: "Evidence") -> str:
    """What to say of a step that nothing is there of; empty if something is."""
    if step == "credentials":
        if evidence.pod_phase != "Running":
            return "no pod runs"
        return "" if evidence.token_audience else "the pod has no token for AWS"
    there, said = {
        "oidc_provider": (evidence.provider, "the issuer is not registered"),
        "iam_role": (evidence.role, "no such role"),
        "service_account": (evidence.service_account, "no such service account"),
        "pod": (evidence.pod, "no such pod"),
    }[step]
    return "" if there else said


def _there(step: str, evidence: "Evidence") -> str:
    parameters = evidence.parameters
    return {
        "oidc_provider": f"the issuer is registered for {evidence.audience}",
        "iam_role": f"{parameters.role_name} admits {parameters.namespace}/{parameters.service_account}",
        "service_account": f"{parameters.namespace}/{parameters.service_account} names {parameters.role_name}",
        "pod": f"{evidence.pod_name} runs as {parameters.service_account}, and was given the role",
        "credentials": f"AWS knows the pod as assumed-role/{parameters.role_name}",
    }[step]


def _wrong(report: Check) -> str:
    for finding in report.findings:
        if finding.severity == "error":
            return finding.summary
    row = next(row for row in report.rows if not row.right)
    return f"{row.what}: expected {row.expected}, found {row.found}"
