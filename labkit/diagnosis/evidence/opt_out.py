"""What the webhook passes over: pods by a label, their own or their namespace's, and containers by an annotation.

https://github.com/aws/amazon-eks-pod-identity-webhook
"""

from typing import Any

from labkit.diagnosis.evidence.evidence import Evidence
from labkit.webhook.annotations import skipped_containers

SKIP = "eks.amazonaws.com/skip-containers"
# As the webhook is registered on EKS.
OPT_OUT = {"matchExpressions": [{"key": "eks.amazonaws.com/skip-pod-identity-webhook", "operator": "DoesNotExist"}]}


def of_pod(evidence: Evidence, labels: dict[str, str]) -> set[str]:
    """Those of a pod's labels that keep it from the webhook."""
    selectors = [webhook.get("objectSelector") for webhook in (evidence.webhook or {}).get("webhooks") or []]
    return _forbidden(selectors or [OPT_OUT], labels)


def of_namespace(evidence: Evidence) -> set[str]:
    """The labels of the pod's namespace that keep its pods from the webhook."""
    selectors = [webhook.get("namespaceSelector") for webhook in (evidence.webhook or {}).get("webhooks") or []]
    if not any(selectors):
        return set()
    namespace = evidence.cluster.get("namespace", evidence.parameters.namespace) or {}
    return _forbidden(selectors, (namespace.get("metadata") or {}).get("labels") or {})


def skipped(annotations: dict[str, str]) -> set[str]:
    """The containers that the pod's annotation names for the webhook to pass over."""
    if not annotations.get(SKIP):
        return set()
    # Loading the webhook takes a web server with it, and hardly a pod needs it.
    return skipped_containers({SKIP.rpartition("/")[2]: annotations[SKIP]})


def skips_all(manifest: dict[str, Any]) -> bool:
    """Whether a manifest's annotation leaves no container to the webhook."""
    names = skipped((manifest.get("metadata") or {}).get("annotations") or {})
    return bool(names) and all(container["name"] in names for container in manifest["spec"]["containers"])


def _forbidden(selectors: list[Any], labels: dict[str, str]) -> set[str]:
    """The labels that none of these selectors may see.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#resources-that-support-set-based-requirements
    """
    expressions = [each for selector in selectors for each in (selector or {}).get("matchExpressions") or []]
    return {
        each["key"]
        for each in expressions
        if each["key"] in labels
        and (
            each["operator"] == "DoesNotExist"
            or (each["operator"] == "NotIn" and labels[each["key"]] in (each.get("values") or []))
        )
    }
