"""Find the containers that lack the annotated role, and whether the annotation is older than their pod."""

from typing import Any

from labkit.doctor.evidence import accounts, opt_out, variables
from labkit.doctor.evidence.account import ROLE_ARN
from labkit.doctor.evidence.evidence import Evidence
from labkit.doctor.evidence.pod_spec import ROLE, TOKEN_FILE, Container, service_account_of
from labkit.doctor.evidence.reading import NotRead, Read
from labkit.documents import ROLE_ANNOTATION
from labkit.policy.arn import Arn

FIELD = ("f:metadata", "f:annotations", f"f:{ROLE_ANNOTATION}")


def containers(evidence: Evidence) -> list[Container]:
    """Return the pod's containers that should have the annotated role, but don't have it. Raises `NotRead`.

    The list doesn't contain a container if one of these statements is true:

    - The webhook skips the container.
    - The pod gets the role of an EKS Pod Identity association instead.
    - The container's `AWS_WEB_IDENTITY_TOKEN_FILE` names a file that isn't a projected token.
    - The annotation is wrong, and the trust policy of the role in the container's `AWS_ROLE_ARN` admits or names the
      service account.
    - `variables.has_wrong_identity` is true for the container.
    """
    spec = evidence.pod.spec
    if spec is None or not evidence.cluster.annotation:
        return []
    if service_account_of(spec.spec) != evidence.parameters.service_account or accounts.uses_pod_identity(evidence):
        return []
    skipped = opt_out.skipped(spec.annotations)
    return [each for each in spec.containers if each.name not in skipped and _lacks_role(evidence, each)]


def annotated_at(evidence: Evidence) -> str:
    """Return the earliest known time at which the service account had the annotation; empty if not known.

    The annotation may be older: for each field manager, Kubernetes records only the time of its last change.

    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """
    metadata = (evidence.cluster.service_account or {}).get("metadata") or {}
    times = [entry.get("time") for entry in metadata.get("managedFields") or [] if _manages_annotation(entry)]
    return min(filter(None, times), default="")


def made_at(evidence: Evidence) -> str:
    """Return the time at which the pod was created; empty without a pod."""
    return ((evidence.pod.document or {}).get("metadata") or {}).get("creationTimestamp") or ""


def was_annotated(evidence: Evidence) -> bool | None:
    """Whether the service account had the annotation when the pod was created.

    None if the annotation's time or the pod's creation time is missing, or if both are in the same second.
    """
    annotated, made = annotated_at(evidence), made_at(evidence)
    return None if not annotated or not made or annotated == made else annotated < made


def _lacks_role(evidence: Evidence, container: Container) -> bool:
    file = container.value(TOKEN_FILE)
    if file and not container.token_at(file):
        return False  # not the webhook's token: whoever supplied it also chose the role
    variable = container.variable(ROLE)
    if variable is not None and variable.value is None:
        if evidence.pod.probe_allowed and evidence.expected.role_is_assumed:
            return False
        read = Read("the value of", ROLE, f"in container {container.name}")
        raise NotRead(
            read,
            f"it comes from {variable.source}, and is only known in the pod",
            "" if evidence.pod.probe_allowed else "--probe",
        )
    role = container.value(ROLE)
    if role == evidence.cluster.annotation or _is_right_already(evidence, role):
        return False
    return not variables.has_wrong_identity(evidence, container)


def _is_right_already(evidence: Evidence, role_arn: str) -> bool:
    """Return True only if the annotation is wrong and `role_arn` is right. `role_arn` is a container's AWS_ROLE_ARN."""
    if evidence.aws.is_annotated_rightly or not ROLE_ARN.fullmatch(role_arn):
        return False
    role = evidence.expected.namesake(Arn.parse(role_arn).name)
    return role is not None and role["Arn"] == role_arn


def _manages_annotation(entry: dict[str, Any]) -> bool:
    fields: Any = entry.get("fieldsV1") or {}
    for field in FIELD:
        fields = fields.get(field)
        if fields is None:
            return False
    return True
