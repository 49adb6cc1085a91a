"""Find the objects that select pods or namespaces by a label.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

from typing import Any

from labkit.doctor.evidence.evidence import Evidence

KINDS = (
    "services",
    "networkpolicies",
    "poddisruptionbudgets",
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
)
OWN = "pod-identity-webhook"


def by_label(evidence: Evidence, key: str) -> list[str]:
    """Return the names of the objects that contain this label key anywhere in `spec` or `webhooks`.

    Search the objects of `KINDS` in all namespaces, and the workloads in the parameters' namespace. Leave out objects
    with the name `pod-identity-webhook`. Raises `NotRead`.
    """
    others = [each for kind in KINDS for each in evidence.cluster.api.all_of(kind)]
    found = [*others, *evidence.cluster.api.workloads(evidence.parameters.namespace)]
    named = [each["metadata"]["name"] for each in found if _mentions([each.get("spec"), each.get("webhooks")], key)]
    return [name for name in named if name != OWN]


def _mentions(part: Any, key: str) -> bool:
    if isinstance(part, list):
        return any(_mentions(each, key) for each in part)
    if not isinstance(part, dict):
        return False
    return key in part or part.get("key") == key or any(_mentions(each, key) for each in part.values())
