"""The pod: does it run as the service account, and was it given the role when it was made?"""

from typing import TYPE_CHECKING

from labkit.findings import Finding

if TYPE_CHECKING:
    from labkit.evidence import Evidence

LEARN = "04-pod.ipynb"


def missing(evidence: "Evidence") -> Finding | None:
    """No pod of this name in the namespace."""
    if evidence.pod is not None:
        return None
    return _finding(
        "pod-missing",
        "The pod does not exist.",
        expected=f"pod {evidence.pod_name} in namespace {evidence.parameters.namespace}",
        found="no such pod",
        source="kubectl get pod",
        repair=evidence.commands.create_pod(),
    )


def uses_another_service_account(evidence: "Evidence") -> Finding | None:
    """`spec.serviceAccountName` is another; without one it is `default`."""
    if evidence.pod is None:
        return None
    name = evidence.pod["spec"].get("serviceAccountName", "default")
    if name == evidence.parameters.service_account:
        return None
    return _finding(
        "pod-uses-another-service-account",
        "The pod runs as another service account.",
        expected=evidence.parameters.service_account,
        found=name,
        source="kubectl get pod -o yaml, spec.serviceAccountName",
        repair=evidence.commands.replace_pod(),
    )


def older_than_annotation(evidence: "Evidence") -> Finding | None:
    """The service account names the role, and the pod has none or another: it was made before.

    The webhook changes a pod only when it is made.
    https://docs.aws.amazon.com/eks/latest/userguide/pod-configuration.html
    """
    if evidence.pod is None or evidence.webhook is None or uses_another_service_account(evidence):
        return None
    if not evidence.annotation or evidence.pod_role_arn == evidence.annotation:
        return None
    return _finding(
        "pod-older-than-annotation",
        "The pod was made before the service account named this role, and a pod gets its role only when it is made.",
        expected=f"AWS_ROLE_ARN={evidence.annotation}",
        found=f"AWS_ROLE_ARN={evidence.pod_role_arn}" if evidence.pod_role_arn else "no AWS_ROLE_ARN",
        source="kubectl get pod -o yaml, spec.containers[].env",
        repair=evidence.commands.replace_pod(),
    )


def not_running(evidence: "Evidence") -> Finding | None:
    """It is there and does not run; the container's own words say why."""
    if evidence.pod is None or evidence.pod_phase == "Running":
        return None
    return _finding(
        "pod-not-running",
        "The pod does not run.",
        expected="Running",
        found=f"{evidence.pod_phase}{evidence.pod_trouble and ': ' + evidence.pod_trouble}",
        source="kubectl get pod -o yaml, status",
        repair=evidence.commands.replace_pod(),
    )


def _finding(id: str, summary: str, *, expected: str, found: str, source: str, repair: str) -> Finding:
    return Finding(id=id, summary=summary, expected=expected, found=found, source=source, repair=repair, learn=LEARN)
