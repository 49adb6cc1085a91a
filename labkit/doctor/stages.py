"""The stages of an examination, in the order in which a pod gets its role: the pod first, the permissions last."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args
from weakref import WeakSet

from labkit.doctor.evidence import Evidence, known

Result = Literal["error", "warning", "note", "not looked at", "right"]
RESULTS: tuple[Result, ...] = get_args(Result)  # the worst first


@dataclass(frozen=True)
class Stage:
    """One stage of an examination. Each cause belongs to one stage."""

    title: str
    look: Callable[[Evidence], Result] = lambda _: "right"
    """The function that returns the stage's result if no cause finds anything.

    The result is `not looked at` if the object to examine doesn't exist.
    """
    ended_for: WeakSet[Evidence] = field(default_factory=WeakSet, compare=False, repr=False)
    """The evidence for which a finding has ended the stage. The stage's other causes aren't looked for."""

    def at_best(self, evidence: Evidence) -> Result:
        """Return the result that the stage gets if no cause finds anything.

        If a fact for this result can't be read, return `not looked at`.
        """
        return known(lambda: self.look(evidence), "not looked at")


def _if_there(subject: object) -> Result:
    return "right" if subject else "not looked at"


def _pod(evidence: Evidence) -> Result:
    """The pod is right if a container runs or has ended well, and if its service account exists."""
    return _if_there(evidence.cluster.service_account and not (evidence.pod.spec and evidence.pod.spec.stopped))


def _webhook(evidence: Evidence) -> Result:
    """Without a role for the service account, the webhook has nothing to change, so nothing was compared."""
    spec = evidence.pod.spec
    return _if_there(spec and (spec.was_changed or spec.has_pod_identity or evidence.cluster.annotation))


def _annotation(evidence: Evidence) -> Result:
    cluster, namespace = evidence.cluster, evidence.parameters.namespace
    return _if_there(cluster.service_account or cluster.api.get("namespace", namespace))


def _exchange(evidence: Evidence) -> Result:
    if evidence.expected.role_is_assumed:
        # If STS refused the doctor, the pod may have an older session, or may reach STS another way.
        return "not looked at" if _is_refused(evidence) else "right"
    caller, exchange = evidence.pod.caller_if_known, evidence.pod.probe.exchange
    if (exchange and exchange.code) or (caller and "AssumeRoleWithWebIdentity" in caller.error):
        return "error"
    return _if_there(exchange)


def _is_refused(evidence: Evidence) -> bool:
    exchange = known(lambda: evidence.pod.probe.exchange)
    return bool(exchange and exchange.code)


def _identity(evidence: Evidence) -> Result:
    is_somebody = evidence.pod.caller and evidence.pod.caller.arn
    return "error" if is_somebody and not evidence.expected.role_is_assumed else _if_there(is_somebody)


POD = Stage("the pod, and the service account that it runs as", _pod)
ANNOTATION = Stage("the annotation on the service account", _annotation)
WEBHOOK = Stage("the webhook's changes to the pod", _webhook)
TOKEN = Stage("the token", lambda evidence: _if_there(evidence.pod.document))
PROVIDER = Stage("the OIDC provider, and its audiences")
ROLE = Stage("the role, and its trust policy", lambda evidence: _if_there(evidence.expected.role_arn))
EXCHANGE = Stage("the exchange with STS", _exchange)
IDENTITY = Stage("the pod's identity in AWS", _identity)
PERMISSIONS = Stage("the role's permissions", lambda evidence: _if_there(evidence.aws.role))

STAGES = (POD, ANNOTATION, WEBHOOK, TOKEN, PROVIDER, ROLE, EXCHANGE, IDENTITY, PERMISSIONS)
