"""The journey: the five parts of a service account's way to its role, and the state of each part."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from html import escape
from typing import TYPE_CHECKING, Any

from labkit import steps
from labkit.course.widgets.check import Check
from labkit.doctor import checks
from labkit.showing import left_aligned, table

if TYPE_CHECKING:
    from labkit.doctor import Evidence


# The numbers of the IRSA steps, from 1 to 11, that each part of the journey covers.
NUMBERS = {"oidc_provider": "1", "iam_role": "2", "service_account": "3", "pod": "4–5", "credentials": "6–10"}


class StopState(StrEnum):
    """The state of one part of the journey, such as the IAM role."""

    MISSING = "○ to do"
    READY = "● ready"
    THERE = "● done"
    RIGHT = "✓ checked and right"
    BROKEN = "✗ broken"


@dataclass(frozen=True)
class Stop:
    """A part of the journey, such as `iam_role`. `line` says what the lab has for this part, or what's missing."""

    step: str
    title: str
    state: StopState
    line: str

    @property
    def numbers(self) -> str:
        """The numbers of the IRSA steps in this part, as text such as `4–5`."""
        return NUMBERS[self.step]


@dataclass(frozen=True, repr=False)
class Journey:
    """One service account's way to its role, in five parts. Notebooks show the parts as a table."""

    subject: str
    role_name: str
    stops: Sequence[Stop]
    again: Callable[[], "Journey"]
    """A function that reads the live lab again."""

    @property
    def headline(self) -> str:
        """A sentence that says where the learner is on the way, and what comes next."""
        for states, said in (
            ((StopState.BROKEN,), "Broken: {0.title}. To see the reason and the repair: {check}"),
            ((StopState.MISSING,), "Next: {0.title}."),
            ((StopState.READY,), "Everything is in place. Next: {0.title}."),
            ((StopState.THERE,), "Everything is in place, and the pod has its role."),
        ):
            if stop := next((stop for stop in self.stops if stop.state in states), None):
                return said.format(stop, check=f'lab.check("{stop.step}")')
        return "Every step is checked and right."

    def __repr__(self) -> str:
        titles = max(len(stop.title) for stop in self.stops)
        states = max(len(stop.state) for stop in self.stops)
        lines = [f"  {s.numbers:4}  {s.title:{titles}}  {s.state:{states}}  {s.line}" for s in self.stops]
        return "\n".join([self.headline, f"From {self.subject} to the role {self.role_name}:", *lines])

    def _repr_html_(self) -> str:
        rows = [(stop.numbers, stop.title, str(stop.state), stop.line) for stop in self.stops]
        return (
            f"<p><strong>{escape(self.headline)}</strong><br>"
            f"From <code>{escape(self.subject)}</code> to the role <code>{escape(self.role_name)}</code>:</p>"
            + table(rows, ("step", "", "state", "what the lab holds"))
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from labkit.course.widgets import live

        html = self._repr_html_()
        widget = live.view(html, lambda: self.again()._repr_html_(), "Look again")
        return {"text/plain": repr(self), "text/html": left_aligned(html), **widget}


def read_journey(evidence: "Evidence", checked: Collection[str], again: Callable[[], Journey]) -> Journey:
    """Return the journey, as read from the live lab.

    Args:
        checked: the steps that were right when the learner last checked them.
        again: a function that reads the journey again, for the button.
    """
    stops = [_stop(step, evidence, step in checked) for step in steps.ORDER]
    return Journey(evidence.expected.subject, evidence.parameters.role_name, stops, again)


def _stop(step: str, evidence: "Evidence", checked: bool) -> Stop:
    module = steps.step(step)
    if missing := _missing(step, evidence):
        return Stop(step, module.TITLE, StopState.MISSING, missing)
    # Asking AWS runs a command in the pod, and the trail shows the call. Only do that after the learner's own check.
    if step == "credentials" and not checked:
        return Stop(step, module.TITLE, StopState.READY, f"a token for {evidence.pod.token_audience}, not tried yet")
    # The empty list lets the check skip evidence that only explains a fault if the caller lacks permission to read it.
    report = Check(step, module.TITLE, checks.rows(step, evidence), checks.findings(step, evidence, []))
    if not report:
        return Stop(step, module.TITLE, StopState.BROKEN, _wrong(report))
    return Stop(step, module.TITLE, StopState.RIGHT if checked else StopState.THERE, _there(step, evidence))


def _missing(step: str, evidence: "Evidence") -> str:
    if step == "credentials":
        if evidence.pod.phase != "Running":
            return "no pod runs"
        return "" if evidence.pod.token_audience else "the pod has no token for AWS"
    there, said = {
        "oidc_provider": (evidence.aws.provider, "the issuer is not registered"),
        "iam_role": (evidence.aws.role, "no such role"),
        "service_account": (evidence.cluster.service_account, "no such service account"),
        "pod": (evidence.pod.document, "no such pod"),
    }[step]
    return "" if there else said


def _there(step: str, evidence: "Evidence") -> str:
    parameters = evidence.parameters
    return {
        "oidc_provider": f"the issuer is registered for {evidence.expected.audience}",
        "iam_role": f"{parameters.role_name} admits {parameters.namespace}/{parameters.service_account}",
        "service_account": f"{parameters.namespace}/{parameters.service_account} names {parameters.role_name}",
        "pod": f"{evidence.pod.name} runs as {parameters.service_account}, and the webhook added the role",
        "credentials": f"AWS knows the pod as assumed-role/{parameters.role_name}",
    }[step]


def _wrong(report: Check) -> str:
    for finding in report.findings:
        if finding.severity == "error":
            return finding.summary
    row = next(row for row in report.rows if not row.right)
    return f"{row.what}: expected {row.expected}, found {row.found}"
