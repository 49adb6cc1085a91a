"""What the doctor says of one service account: what is wrong, in the order of the checks, and what it rests on."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Literal

from labkit.diagnosis.evidence.reading import NotRead, asked_of
from labkit.diagnosis.findings import Finding
from labkit.showing import RIGHT, WARNING, WRONG, left_aligned, stable, table

MIME = "application/vnd.labkit.diagnosis+json"
NOTHING, FOUND, COULD_NOT_LOOK = 0, 1, 2  # exit codes
MANY = 4  # calls that one line may name


@dataclass(frozen=True)
class Stage:
    """One of the checks that settle most cases, in the order that needs the least access."""

    title: str
    ids: str
    """The findings that belong to it."""
    calls: str
    """The calls that it rests on: without an answer to one of them, it was not looked at."""
    of: Literal["", "the namespace", "a pod", "a role"] = ""
    """Without what there is nothing to look at."""


STAGES = (
    Stage(
        "the pod, and the service account that it runs as",
        r"namespace-missing|pod-missing|pod-not-running|pod-uses-another-service-account|pod-replaced-in-a-loop",
        r"(list|get) pods?\b",
    ),
    Stage(
        "the annotation on the service account",
        r"service-account-.*|annotation-on-the-pod|eksctl-role-without-annotation",
        r"(list|get) serviceaccounts?\b",
        of="the namespace",
    ),
    Stage("what the webhook put into the pod", r"webhook-.*|pod-.*", r"(list|get) pods?\b", of="a pod"),
    Stage(
        "the token",
        r"token-.*|pod-uses-the-api-server-token|pod-token-file-missing",
        r"(list|get) pods?\b",
        of="a pod",
    ),
    Stage(
        "the OIDC provider, and its audiences",
        r"oidc-provider-.*|cluster-rebuilt|issuer-.*|signing-key-.*|eks-identity-provider-config|operator-not-permitted",
        r"iam:GetOpenIDConnectProvider\b",
    ),
    Stage(
        "the role, and its trust policy",
        r"role-missing|role-too-new|role-assumes-itself|role-belongs-to-another-run|trust-policy-.*",
        r"iam:GetRole\b",
        of="a role",
    ),
    Stage(
        "the exchange with STS",
        r"credentials-refused|role-session-too-long|pod-role-session-name-invalid|pod-sts-endpoint-.*|region-.*",
        r"sts:(AssumeRoleWithWebIdentity|GetCallerIdentity)\b.* in pod ",
    ),
    Stage(
        "who the pod turns out to be",
        r"credentials-of-another-identity|pod-static-keys|pod-aws-profile|pod-variables-empty"
        r"|pod-identity-association-too",
        r"sts:GetCallerIdentity\b.* in pod ",
    ),
    Stage(
        "the role's permissions",
        r"role-policy-not-attached|role-lacks-permission|role-denied-by-.*|role-is-administrator",
        r"iam:(ListAttachedRolePolicies|ListRolePolicies|SimulatePrincipalPolicy)\b",
    ),
)
# What the command's options are called where there is no command line.
IN_A_NOTEBOOK = {
    "--probe": "--probe, or diagnose(probe=True)",
    "--role NAME": "--role NAME, or diagnose(role=NAME)",
}


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What is wrong with one service account's way to its role; true where nothing is."""

    subject: str
    """`system:serviceaccount:NAMESPACE:NAME`"""
    findings: Sequence[Finding]
    looked: Sequence[str] = ()
    """The calls whose answers it rests on."""
    unread: Sequence[NotRead] = ()
    """What could not be looked at, or was not to be."""
    made: Sequence[str] = ()
    """The calls that were made for it; the answers to the others were there."""
    cluster: str = ""
    role_arn: str = ""
    """The role that the service account is to have; empty where nothing says which."""
    pods: Sequence[str] = ()
    """The pods that were looked at."""
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What was read, by what it is of: documents without what is nobody's business, or a sentence."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; a warning does not count."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0: nothing was found. 1: something was. 2: it could not look.

        Who may not make one call, and has found an error all the same, has found something; who reached AWS or the
        cluster not at all, or has no credentials, or found no error and may not look everywhere, could not look.
        """
        if any(error.is_lost and asked_of(error.call) in ("AWS", "the cluster") for error in self.unread):
            return COULD_NOT_LOOK
        if not self.ok:
            return FOUND
        if any(not error.is_choice for error in self.unread):
            return COULD_NOT_LOOK
        return FOUND if self.findings else NOTHING

    def stages(self) -> list[tuple[Stage, str, list[Finding]]]:
        """Each stage with what became of it (`right`, `error`, `warning`, `note`, `not looked at`) and its findings."""
        return [(stage, self._result(stage), self._of(stage)) for stage in STAGES]

    def as_json(self) -> dict[str, Any]:
        """The diagnosis for other programs; keys are only ever added."""
        return {
            "subject": self.subject,
            "cluster": self.cluster,
            "role_arn": self.role_arn,
            "pods": list(self.pods),
            "ok": self.ok,
            "exit_code": self.exit_code,
            "checks": [
                {"number": number, "title": stage.title, "result": result, "findings": [f.id for f in found]}
                for number, (stage, result, found) in enumerate(self.stages(), 1)
            ],
            "findings": [
                asdict(finding) | {"check": STAGES.index(stage_of(finding.id)) + 1} for finding in self.findings
            ],
            "looked_at": list(self.looked),
            "calls": len(self.made),
            "not_looked_at": [{"call": error.call, "why": error.why, "needed": error.needs} for error in self.unread],
        }

    def script(self) -> str:
        """The repairs of all findings as one shell script, each under its finding's id."""
        repairs = [f"# {finding.id}: {finding.summary}\n{finding.repair}" for finding in self.findings]
        return "\n\n".join(repairs) or "# nothing to repair"

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        findings = [finding.as_text() for finding in self.findings]
        return "\n\n".join([self.headline, *findings, "\n".join(self.account())])

    def _repr_html_(self) -> str:
        marks = {"right": RIGHT, "error": WRONG, "warning": WARNING}
        rows = [
            (str(number), stage.title, marks.get(result, result), ", ".join(finding.id for finding in found))
            for number, (stage, result, found) in enumerate(self.stages(), 1)
        ]
        findings = "".join(finding.as_html() for finding in self.findings)
        account = "".join(f"<li>{escape(line.strip())}</li>" for line in self.account())
        return left_aligned(
            f"<p><strong>{escape(self.headline)}</strong></p>"
            + table(rows, ("", "check", "result", "findings"))
            + f"{findings}<ul>{account}</ul>"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        data = self.as_json()
        data["looked_at"] = [stable(call) for call in self.looked]
        return {"text/plain": repr(self), "text/html": self._repr_html_(), MIME: data}

    @property
    def headline(self) -> str:
        """Who, and how many findings."""
        count = len(self.findings)
        said = f"{count} finding{'s' if count > 1 else ''}"
        if not count:
            said = "it could not be looked at in full" if self.exit_code == COULD_NOT_LOOK else "nothing is wrong"
        mark = WRONG if not self.ok else WARNING if self.exit_code else RIGHT
        return f"{mark}: {self.subject}: {said}"

    def account(self) -> Iterator[str]:
        """Lines that say what was done, and what was not looked at and why."""
        whom = Counter(map(asked_of, self.looked))
        counted = [f"{whom[name]} of {name}" for name in ("AWS", "the cluster", "the issuer") if whom[name]]
        yield f"looked at: answers {', '.join(counted) or 'of nobody'}; no call changed anything"
        if in_pod := [call for call in self.looked if asked_of(call) == "the pod"]:
            yield f"in the pod: {'; '.join(in_pod)}"
        yield from unread_lines(self.unread)

    def _of(self, stage: Stage) -> list[Finding]:
        return [finding for finding in self.findings if stage_of(finding.id) is stage]

    def _result(self, stage: Stage) -> str:
        severities = {finding.severity for finding in self._of(stage)}
        for severity in ("error", "warning", "note"):
            if severity in severities:
                return severity
        there = {
            "": True,
            "the namespace": all(finding.id != "namespace-missing" for finding in self.findings),
            "a pod": bool(self.pods),
            "a role": bool(self.role_arn),
        }
        looked = there[stage.of] and any(re.match(stage.calls, call) for call in self.looked)
        return "right" if looked else "not looked at"


def stage_of(id: str) -> Stage:
    """The stage that a finding belongs to."""
    # What names a pod, and is none of another stage's, is what the webhook or its manifest put there.
    exact = [stage for stage in STAGES if "|pod-.*" not in stage.ids]
    rest = [stage for stage in STAGES if stage not in exact]
    return next((stage for stage in [*exact, *rest] if re.fullmatch(stage.ids, id)), STAGES[-1])


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The findings in the order of the stages, errors first within one, each once."""
    severity = ("error", "warning", "note").index
    once = dict.fromkeys(findings)
    return sorted(once, key=lambda finding: (STAGES.index(stage_of(finding.id)), severity(finding.severity)))


def unread_lines(unread: Iterable[NotRead]) -> Iterator[str]:
    """A line for each reason why something was not looked at, however much it concerns."""
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for error in unread:
        reasons.setdefault((error.why, error.needs), {})[error.call] = None
    for (why, needs), calls in reasons.items():
        first, *more = calls
        needed = f"; needed: {IN_A_NOTEBOOK.get(needs, needs)}" if needs else ""
        also = f", and {len(more)} more" if len(more) > MANY else "".join(f", {call}" for call in more)
        yield f"not looked at: {first}{also if more else ''}: {why}{needed}"
