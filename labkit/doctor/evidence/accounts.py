"""Find the service accounts that give new pods a role, by an annotation or by an EKS Pod Identity association.

If a service account has both, new pods get the association's role.

https://docs.aws.amazon.com/eks/latest/userguide/pod-identities.html
"""

from labkit.doctor.evidence.evidence import Evidence
from labkit.doctor.evidence.objects import Binding
from labkit.doctor.evidence.pod_spec import service_account_of
from labkit.doctor.evidence.reading import NotRead
from labkit.documents import ROLE_ANNOTATION

DEFAULT = "default"  # the service account of a pod whose manifest names no service account


def associations(evidence: Evidence) -> list[str]:
    """Return the ids of the service account's Pod Identity associations. Raises `NotRead`."""
    mine = (evidence.parameters.namespace, evidence.parameters.service_account)
    listed = evidence.aws.account.pod_identity_associations(evidence.parameters.cluster)
    return [each["associationId"] for each in listed if (each["namespace"], each["serviceAccount"]) == mine]


def uses_pod_identity(evidence: Evidence) -> bool:
    """Whether the webhook gave the pod Pod Identity's variables, and the association still exists. Raises `NotRead`."""
    spec = evidence.pod.spec
    if spec is None or not spec.has_pod_identity:
        return False
    is_mine = service_account_of(spec.spec) == evidence.parameters.service_account
    return is_mine and bool(associations(evidence))


def others_with_a_role(evidence: Evidence) -> list[str] | None:
    """Return the cluster's other service accounts that have a role, as NAMESPACE/NAME; None if they can't be listed."""
    try:
        accounts = [each["metadata"] for each in evidence.cluster.api.all_service_accounts]
        associated = _associated(evidence)
    except NotRead:
        return None
    annotated = [
        (each["namespace"], each["name"]) for each in accounts if ROLE_ANNOTATION in (each.get("annotations") or {})
    ]
    mine = (evidence.parameters.namespace, evidence.parameters.service_account)
    return [
        f"{namespace}/{name}"
        for namespace, name in dict.fromkeys([*annotated, *associated])
        if (namespace, name) != mine
    ]


def default_has_a_role(evidence: Evidence) -> bool:
    """Whether the namespace's service account `default` has a role. If the doctor can't find out, return True."""
    namespace = evidence.parameters.namespace
    try:
        account = evidence.cluster.api.service_account(namespace, DEFAULT) or {}
        annotations = (account.get("metadata") or {}).get("annotations") or {}
        return bool(annotations.get(ROLE_ANNOTATION)) or (namespace, DEFAULT) in _associated(evidence)
    except NotRead:
        return True


def lost_bindings(evidence: Evidence) -> list[str]:
    """Return the bindings that name the namespace's service account `default`, but not the examined one.

    A workload that moves from `default` to the examined service account loses what these bindings allow. A binding of
    a group, such as all service accounts of the namespace, doesn't change for the workload. Raises `NotRead`.

    https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-subjects
    """
    mine, namespace = evidence.parameters.service_account, evidence.parameters.namespace
    return [
        _binding(each)
        for each in evidence.cluster.api.bindings
        if _names(each, namespace, DEFAULT) and not _names(each, namespace, mine)
    ]


def _names(binding: Binding, namespace: str, service_account: str) -> bool:
    user = f"system:serviceaccount:{namespace}:{service_account}"
    return any(
        (each["kind"], each["name"]) == ("User", user)
        or (each["kind"], each.get("namespace"), each["name"]) == ("ServiceAccount", namespace, service_account)
        for each in binding.get("subjects") or []
    )


def _binding(binding: Binding) -> str:
    """Return the binding as text: `rolebinding/web-edit (ClusterRole edit) in shop`."""
    metadata, role = binding["metadata"], binding["roleRef"]
    namespace = metadata.get("namespace")
    kind, where = ("rolebinding", f" in {namespace}") if namespace else ("clusterrolebinding", "")
    return f"{kind}/{metadata['name']} ({role['kind']} {role['name']}){where}"


def _associated(evidence: Evidence) -> list[tuple[str, str]]:
    associations = evidence.aws.account.pod_identity_associations(evidence.parameters.cluster)
    return [(each["namespace"], each["serviceAccount"]) for each in associations]
