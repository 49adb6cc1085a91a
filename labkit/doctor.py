"""Walks the steps' checks and says what is wrong, the checks that need the least access first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit import steps
from labkit.checks import RIGHT, WRONG, as_html, as_text
from labkit.findings import Finding

if TYPE_CHECKING:
    from labkit.evidence import Evidence, NotRead

# The pod and its service account say most; then the provider, the role, and at last who the pod turned out to be.
ORDER = ("pod", "service_account", "oidc_provider", "iam_role", "credentials")


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What is wrong with one service account's way to its role; true where nothing is."""

    subject: str
    findings: Sequence[Finding]
    looked: Sequence[str] = ()
    """The calls that were made, in their order."""
    unread: "Sequence[NotRead]" = ()
    """What could not be looked at, or was not to be."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; a warning does not count."""
        return not any(finding.severity == "error" for finding in self.findings)

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return "\n\n".join([self._headline, *(as_text(finding) for finding in self.findings)])

    def _repr_html_(self) -> str:
        headline = f"<p><strong>{self._headline}</strong></p>"
        return headline + "".join(as_html(finding) for finding in self.findings)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    @property
    def _headline(self) -> str:
        count = len(self.findings)
        said = "nothing is wrong" if not count else f"{count} finding{'s' if count > 1 else ''}"
        return f"{RIGHT if self.ok else WRONG}: {self.subject}: {said}"


def diagnose(evidence: "Evidence") -> Diagnosis:
    """What the checks of all steps find; only reads."""
    findings: list[Finding] = []
    unread: list[NotRead] = []
    for name in ORDER:
        # Who the pod is follows from the rest: where that is wrong, it would only say the same once more.
        if name == "credentials" and any(finding.severity == "error" for finding in findings):
            continue
        findings += steps.step(name).check(evidence, unread)
    once = {error.call: error for error in unread}
    return Diagnosis(evidence.subject, findings, list(evidence.reads.answers), list(once.values()))
