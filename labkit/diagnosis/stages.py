"""The stages of an examination, in the order that needs the least access: what each is about."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from labkit.diagnosis.evidence import Evidence, NotRead

Result = Literal["error", "warning", "note", "not looked at", "right"]
RESULTS: tuple[Result, ...] = get_args(Result)  # the worst first


@dataclass(frozen=True)
class Stage:
    """One of the checks that settle most cases."""

    title: str
    subject: Callable[[Evidence], object] = lambda _: True
    """What it looks at; where this is empty, or cannot be read, there is nothing to look at."""
    refutation: Callable[[Evidence], object] = lambda _: False
    """What speaks against it, also where the finding that explains it is another stage's."""

    def has_subject(self, evidence: Evidence) -> bool:
        """Whether there is anything to look at."""
        return _is_there(self.subject, evidence)

    def is_refuted(self, evidence: Evidence) -> bool:
        """Whether it went wrong, whatever explains it."""
        return _is_there(self.refutation, evidence)


def _is_there(look: Callable[[Evidence], object], evidence: Evidence) -> bool:
    try:
        return bool(look(evidence))
    except NotRead:
        return False


def _namespace(evidence: Evidence) -> object:
    return evidence.service_account or evidence.cluster.namespace(evidence.parameters.namespace)


def _pod(evidence: Evidence) -> object:
    return evidence.pod


def _exchange(evidence: Evidence) -> object:
    """The exchange of the pod's token: the pod's own, where that is its role, or the one that was tried from here."""
    return evidence.is_its_role or evidence.probe.exchange


def _refusal(evidence: Evidence) -> object:
    """STS's refusal of the exchange: of the pod's own, or of the one that was tried from here."""
    if evidence.is_its_role:
        return None
    caller, exchange = evidence.caller_if_told, evidence.probe.exchange
    return (exchange and exchange.code) or (caller and "AssumeRoleWithWebIdentity" in caller.error)


def _identity(evidence: Evidence) -> object:
    return evidence.caller and evidence.caller.arn


def _another_identity(evidence: Evidence) -> object:
    return _identity(evidence) and not evidence.is_its_role


POD = Stage("the pod, and the service account that it runs as")
ANNOTATION = Stage("the annotation on the service account", _namespace)
WEBHOOK = Stage("what the webhook put into the pod", _pod)
TOKEN = Stage("the token", _pod)
PROVIDER = Stage("the OIDC provider, and its audiences")
ROLE = Stage("the role, and its trust policy", lambda evidence: evidence.role_arn)
EXCHANGE = Stage("the exchange with STS", _exchange, _refusal)
IDENTITY = Stage("who the pod turns out to be", _identity, _another_identity)
PERMISSIONS = Stage("the role's permissions", lambda evidence: evidence.role)

STAGES = (POD, ANNOTATION, WEBHOOK, TOKEN, PROVIDER, ROLE, EXCHANGE, IDENTITY, PERMISSIONS)
