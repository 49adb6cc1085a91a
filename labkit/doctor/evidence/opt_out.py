"""Find the pods and containers that the pod identity webhook skips.

The webhook's registration selects pods by the labels of the pod and of its namespace. A pod's annotation can name
containers that the webhook skips.

https://github.com/aws/amazon-eks-pod-identity-webhook
https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#webhook-configuration
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from labkit.doctor.evidence.evidence import Evidence
from labkit.doctor.evidence.objects import LabelSelector, Rule, Webhook, WebhookConfiguration
from labkit.webhook.annotations import skipped_containers

SKIP = "eks.amazonaws.com/skip-containers"
# A pod with this label opts out of the webhook. The label has no other purpose.
SWITCH = "eks.amazonaws.com/skip-pod-identity-webhook"
# The webhook's registration on EKS.
ON_EKS: Webhook = {
    "objectSelector": {"matchExpressions": [{"key": SWITCH, "operator": "DoesNotExist"}]},
    "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
}
OF_AWS = ".amazonaws.com"
SELECTORS: dict[Literal["namespaceSelector", "objectSelector"], "Subject"] = {
    "namespaceSelector": "namespace",
    "objectSelector": "pod",
}
# With these operators, only an existing label can fail the requirement. With the others, a missing label fails it.
AGAINST = ("NotIn", "DoesNotExist")

Subject = Literal["namespace", "pod"]


@dataclass(frozen=True)
class Requirement:
    """One requirement on labels, from a selector in the webhook's registration."""

    subject: Subject
    """The labels that must meet the requirement: those of the pod or of the namespace."""
    key: str
    operator: str
    """`In`, `NotIn`, `Exists` or `DoesNotExist`. An entry of `matchLabels` becomes `In` with one value."""
    values: tuple[str, ...]
    path: tuple[str | int, ...]
    """The requirement's path in the registration, as keys and list indexes."""

    def is_met(self, labels: dict[str, str]) -> bool:
        """Whether these labels meet the requirement.

        https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#resources-that-support-set-based-requirements
        """
        is_among = labels.get(self.key) in self.values
        answers = {
            "In": is_among,
            "NotIn": not is_among,
            "Exists": self.key in labels,
            "DoesNotExist": self.key not in labels,
        }
        return answers.get(self.operator, True)

    @property
    def is_opt_out(self) -> bool:
        """Whether the requirement lets objects opt out with the label `key`.

        Every object without the label meets such a requirement.
        """
        return self.operator in AGAINST

    @property
    def is_switch(self) -> bool:
        """Whether this requirement makes the webhook skip objects with the label `SWITCH`."""
        return self.key == SWITCH and self.is_opt_out

    def __str__(self) -> str:
        listed = ", ".join(self.values)
        forms = {
            "In": f"{self.key}={listed}" if len(self.values) == 1 else f"{self.key} in ({listed})",
            "NotIn": f"{self.key} not in ({listed})",
            "Exists": f"{self.key}=…",
            "DoesNotExist": f"no {self.key}",
        }
        return forms.get(self.operator, f"{self.key} {self.operator}")


def failed_requirements(evidence: Evidence) -> list[Requirement]:
    """Return the webhook's requirements that the labels of the pod or of its namespace don't meet.

    A registration may have several webhooks for new pods. If the labels meet all requirements of at least one of them,
    the list is empty. Otherwise, it has the unmet requirements of the first webhook. The list is also empty without a
    pod, and if no webhook is for new pods.

    Raises `NotRead`.
    """
    if evidence.pod.spec is None:
        return []
    # Without a registration, assume the one on EKS.
    registered = evidence.cluster.webhook or {"webhooks": [ON_EKS]}
    missed = [_failed_of_webhook(evidence, number, webhook) for number, webhook in _called_for_pods(registered)]
    return missed[0] if missed and all(missed) else []


def rules_leave_out_pods(evidence: Evidence) -> bool:
    """Whether the webhook is registered, but no rule in its registration matches the creation of a pod."""
    return evidence.cluster.webhook is not None and not any(True for _ in _called_for_pods(evidence.cluster.webhook))


def own_webhooks(registration: WebhookConfiguration) -> Iterator[tuple[int, Webhook]]:
    """Yield the pod identity webhook's own entries in a registration, each with its index.

    The names of these entries end with `.amazonaws.com`. If no name does, yield all entries.
    """
    entries = list(enumerate(registration.get("webhooks") or []))
    own = [(number, each) for number, each in entries if (each.get("name") or "").endswith(OF_AWS)]
    yield from own or entries


def is_called(registration: WebhookConfiguration, labels: Mapping[Subject, dict[str, str]]) -> bool:
    """Whether the registration tells the API server to call the webhook for a new pod with these labels."""
    return any(
        all(
            each.is_met(labels[subject])
            for name, subject in SELECTORS.items()
            for each in _requirements(webhook.get(name) or LabelSelector(), subject, ())
        )
        for _, webhook in _called_for_pods(registration)
    )


def labels_of(evidence: Evidence, subject: Subject) -> dict[str, str]:
    """Return the labels of the object that `subject` names: the pod or the namespace. Raises `NotRead`."""
    if subject == "pod":
        return evidence.pod.spec.labels if evidence.pod.spec else {}
    namespace = evidence.cluster.api.get("namespace", evidence.parameters.namespace) or {}
    return (namespace.get("metadata") or {}).get("labels") or {}


def match_conditions(evidence: Evidence) -> list[str]:
    """Return the CEL expressions that decide whether the webhook is called. The doctor doesn't evaluate them.

    https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-matchconditions
    """
    webhooks = (evidence.cluster.webhook or {}).get("webhooks") or []
    return [condition["expression"] for webhook in webhooks for condition in webhook.get("matchConditions") or []]


def skipped(annotations: dict[str, str]) -> set[str]:
    """Return the names of the containers that these annotations tell the webhook to skip."""
    if not annotations.get(SKIP):
        return set()
    # Import only now: the webhook's module imports a web server, and few pods have this annotation.
    return skipped_containers({SKIP.rpartition("/")[2]: annotations[SKIP]})


def skips_all(manifest: dict[str, Any]) -> bool:
    """Whether a manifest's annotation makes the webhook skip every container."""
    names = skipped((manifest.get("metadata") or {}).get("annotations") or {})
    return bool(names) and all(container["name"] in names for container in manifest["spec"]["containers"])


def _called_for_pods(registration: WebhookConfiguration) -> Iterator[tuple[int, Webhook]]:
    for number, webhook in own_webhooks(registration):
        if any(_is_for_new_pods(rule) for rule in webhook.get("rules") or []):
            yield number, webhook


def _is_for_new_pods(rule: Rule) -> bool:
    wanted: dict[Literal["operations", "apiGroups", "apiVersions", "resources"], tuple[str, ...]] = {
        "operations": ("CREATE", "*"),
        "apiGroups": ("", "*"),
        "apiVersions": ("v1", "*"),
        "resources": ("pods", "*", "*/*"),
    }
    is_met = all({*(rule.get(key) or ())}.intersection(names) for key, names in wanted.items())
    return is_met and rule.get("scope") != "Cluster"


def _failed_of_webhook(evidence: Evidence, number: int, webhook: Webhook) -> list[Requirement]:
    requirements = []
    for name, subject in SELECTORS.items():
        wanted = list(_requirements(webhook.get(name) or LabelSelector(), subject, ("webhooks", number, name)))
        # Don't read labels if nothing is required of them.
        labels = labels_of(evidence, subject) if wanted else {}
        requirements += [each for each in wanted if not each.is_met(labels)]
    return requirements


def _requirements(selector: LabelSelector, subject: Subject, path: tuple[str | int, ...]) -> Iterator[Requirement]:
    for key, value in (selector.get("matchLabels") or {}).items():
        yield Requirement(subject, key, "In", (value,), (*path, "matchLabels", key))
    for number, each in enumerate(selector.get("matchExpressions") or []):
        values = tuple(each.get("values") or ())
        yield Requirement(subject, each["key"], each["operator"], values, (*path, "matchExpressions", number))
