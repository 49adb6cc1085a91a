"""The pod identity webhook: is there anybody who gives pods their role?"""

from typing import TYPE_CHECKING

from labkit.findings import Finding

if TYPE_CHECKING:
    from labkit.evidence import Evidence


def missing(evidence: "Evidence") -> Finding | None:
    """No webhook is registered for pods: they are made, and without a role.

    https://github.com/aws/amazon-eks-pod-identity-webhook
    """
    if evidence.webhook is not None:
        return None
    return Finding(
        id="webhook-missing",
        summary="The pod identity webhook is not registered, so no pod is given a role.",
        expected="MutatingWebhookConfiguration pod-identity-webhook",
        found="no such configuration",
        source="kubectl get mutatingwebhookconfigurations",
        repair=evidence.commands.restore_webhook(),
        learn="04-pod.ipynb",
    )
