"""The service account: is it there, and does its annotation lead to the role?"""

import re
from difflib import SequenceMatcher
from typing import Any

from labkit.diagnosis import stages
from labkit.diagnosis.evidence import Evidence, NotRead, kinds
from labkit.diagnosis.evidence.evidence import ROLE_ARN
from labkit.diagnosis.evidence.pod_spec import service_account_of
from labkit.diagnosis.finding import Symptom, cause
from labkit.diagnosis.repairs import pod_commands
from labkit.diagnosis.repairs.commands import ROLE_NAME, ROLE_UNKNOWN, Commands, annotate
from labkit.documents import ROLE_ANNOTATION

LEARN = "03-service-account.ipynb"
SOURCE = "kubectl get serviceaccount -o yaml, metadata.annotations"
# Keys of the tools that did this before IRSA (kiam, kube2iam), which people bring along.
OLDER_KEYS = ("iam.amazonaws.com/role", "iam.amazonaws.com/role-arn")
# How the clients that people use by hand call themselves; what else writes an object does so again.
BY_HAND = re.compile(r"kubectl|OpenAPI-Generator|python|labkit|Mozilla|node-fetch|unknown|curl|Lens", re.IGNORECASE)


@cause("namespace-missing", stages.POD, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def namespace_missing(evidence: Evidence) -> Symptom | None:
    if evidence.service_account is not None:
        return None
    namespace, kubectl = evidence.parameters.namespace, evidence.connection.kubectl
    if evidence.cluster.get("namespace", namespace) is not None:
        return None
    return Symptom(
        "The namespace does not exist.",
        expected=f"namespace {namespace}",
        found="no such namespace",
        source="kubectl get namespace",
        repair=f"{kubectl} create namespace {namespace}\n{Commands(evidence).create_service_account()}",
    )


@cause("service-account-missing", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def missing(evidence: Evidence) -> Symptom | None:
    if evidence.service_account is not None or namespace_missing(evidence):
        return None
    namespace = evidence.parameters.namespace
    names = [account["metadata"]["name"] for account in evidence.cluster.service_accounts(namespace)]
    return Symptom(
        "The service account does not exist.",
        expected=evidence.subject,
        found=", ".join(names) or f"none in namespace {namespace}",
        source="kubectl get serviceaccounts",
        repair=Commands(evidence).create_service_account(),
    )


@cause("service-account-annotation-missing", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def annotation_missing(evidence: Evidence) -> Symptom | None:
    """Nothing says why the annotation is missing."""
    if not _is_bare(evidence):
        return None
    if any(cause(evidence) for cause in (annotation_on_the_pod, annotation_taken_away, eksctl_role)):
        return None
    return Symptom(
        "The service account does not say which role its pods get.",
        expected=f"{ROLE_ANNOTATION}: {evidence.role_arn}",
        found=_not_found(evidence),
        source=SOURCE,
        repair=_annotated(evidence),
    )


@cause("service-account-annotation-key-typo", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def annotation_key_typo(evidence: Evidence) -> Symptom | None:
    key = _misspelt(evidence)
    if key is None:
        return None
    return Symptom(
        "The role stands under a key that the pod identity webhook does not read.",
        expected=ROLE_ANNOTATION,
        found=key,
        source=SOURCE,
        repair=_annotated(evidence, without=key),
    )


@cause("service-account-annotation-arn-malformed", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def annotation_arn_malformed(evidence: Evidence) -> Symptom | None:
    """STS answers `Request ARN is invalid`."""
    arn = evidence.annotation
    if not arn or ROLE_ARN.fullmatch(arn):
        return None
    return Symptom(
        "The annotation holds something that is no role's ARN.",
        expected=evidence.role_arn,
        # repr shows what is invisible in print.
        found=repr(arn),
        source=SOURCE,
        repair=_annotated(evidence),
    )


@cause("service-account-annotation-role-mismatch", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def annotation_role_mismatch(evidence: Evidence) -> Symptom | None:
    arn = evidence.annotation
    if not arn or not ROLE_ARN.fullmatch(arn) or arn == evidence.role_arn:
        return None
    return Symptom(
        "The annotation names another role.",
        expected=evidence.role_arn,
        found=arn,
        source=SOURCE,
        repair=_annotated(evidence),
    )


@cause("annotation-on-the-pod", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def annotation_on_the_pod(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html"""
    if not _is_bare(evidence):
        return None
    where, arn = _annotated_elsewhere(evidence)
    if not where:
        return None
    return Symptom(
        "The role stands in an annotation of the pod, where the webhook does not look.",
        expected=f"{ROLE_ANNOTATION} on the service account {evidence.parameters.service_account}",
        found=f"{ROLE_ANNOTATION}: {arn} on the {where}",
        source="kubectl get pod -o yaml, metadata.annotations",
        repair=_annotated(evidence, role_arn=arn),
    )


@cause("service-account-annotation-taken-away", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def annotation_taken_away(evidence: Evidence) -> Symptom | None:
    """A pod has its role, and a controller has written the service account since.

    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """
    account, spec = evidence.service_account, evidence.pod_spec if _is_bare(evidence) else None
    if account is None or spec is None or not spec.is_mutated:
        return None
    managers = account["metadata"].get("managedFields") or []
    last = max(managers, key=lambda manager: manager.get("time") or "", default=None)
    made = spec.document["metadata"].get("creationTimestamp") or ""
    if last is None or (last.get("time") or "") <= made or BY_HAND.match(last.get("manager") or "unknown"):
        return None
    return Symptom(
        "The annotation was there when the pod was made, and whoever manages the service account has taken it away.",
        expected=f"{ROLE_ANNOTATION}: {evidence.role_arn or spec.containers[0].value('AWS_ROLE_ARN')}",
        found=f"{_not_found(evidence)}, written by {last['manager']} at {last['time']}",
        source="kubectl get serviceaccount -o yaml --show-managed-fields",
        repair=f"# declare the annotation in what {last['manager']} applies, or it goes again\n"
        + _annotated(evidence, role_arn=spec.containers[0].value("AWS_ROLE_ARN")),
    )


@cause("eksctl-role-without-annotation", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def eksctl_role(evidence: Evidence) -> Symptom | None:
    """eksctl changes nothing in a service account whose stack it has made already.

    https://eksctl.io/usage/iamserviceaccounts/
    """
    if not _is_bare(evidence):
        return None
    # The name that CloudFormation makes of the stack's is cut to what a role's may have.
    begins = f"eksctl-{evidence.parameters.cluster}-addon-iamserviceaccount"[:40]
    try:
        roles = evidence.account.roles
    except NotRead:
        return None
    made = [
        role["Arn"]
        for role in roles
        if role["RoleName"].startswith(begins) and evidence.subject in str(role["AssumeRolePolicyDocument"])
    ]
    if not made:
        return None
    return Symptom(
        "eksctl has made a role for the service account, which is not annotated with it.",
        expected=f"{ROLE_ANNOTATION}: {made[0]}",
        found=_not_found(evidence),
        source=f"iam:ListRoles; {SOURCE}",
        repair=_annotated(evidence, role_arn=made[0]),
    )


@cause("pod-identity-association-too", stages.IDENTITY, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def pod_identity_association_too(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/eks/latest/userguide/pod-identities.html"""
    if not evidence.annotation:
        return None
    cluster = evidence.parameters.cluster
    subject = (evidence.parameters.namespace, evidence.parameters.service_account)
    ids = [
        association["associationId"]
        for association in evidence.account.pod_identity_associations(cluster)
        if (association["namespace"], association["serviceAccount"]) == subject
    ]
    if not ids:
        return None
    command = f"aws eks delete-pod-identity-association --cluster-name {cluster} --association-id"
    return Symptom(
        "The service account has a role by EKS Pod Identity as well: which of the two a pod takes is its SDK's choice.",
        expected="one of the two",
        found=f"{ROLE_ANNOTATION}, and the association {', '.join(ids)}",
        source="eks:ListPodIdentityAssociations",
        repair="\n".join(f"{command} {association}" for association in ids),
        severity="warning",
    )


def _is_bare(evidence: Evidence) -> bool:
    """Whether it exists without a role, and without anything that looks like one."""
    return evidence.service_account is not None and not evidence.annotation and _misspelt(evidence) is None


def _misspelt(evidence: Evidence) -> str | None:
    if evidence.annotation:
        return None
    others = {key: value for key, value in evidence.annotations.items() if key != ROLE_ANNOTATION}
    return next((key for key, value in others.items() if _looks_like_it(key, value)), None)


def _looks_like_it(key: str, value: str) -> bool:
    if key in OLDER_KEYS or SequenceMatcher(None, key.lower(), ROLE_ANNOTATION).ratio() > 0.85:
        return True
    return key.endswith(("/role-arn", "/role")) and bool(ROLE_ARN.fullmatch(value or ""))


def _not_found(evidence: Evidence) -> str:
    return "no annotation with a role" if ROLE_ANNOTATION not in evidence.annotations else f"{ROLE_ANNOTATION}: (empty)"


def _annotated_elsewhere(evidence: Evidence) -> tuple[str, str]:
    """What bears the annotation instead, and its value; both empty where nothing does, or it cannot be read."""
    try:
        spec = evidence.pod_spec
        if spec is None:
            return "", ""
        if arn := spec.annotations.get(ROLE_ANNOTATION):
            return "pod", arn
        owner = spec.owner or {}
    except NotRead:
        return "", ""
    places: tuple[dict[str, Any], ...] = (owner, (owner.get("spec") or {}).get("template") or {})
    for place in places:
        if arn := ((place.get("metadata") or {}).get("annotations") or {}).get(ROLE_ANNOTATION):
            return owner["kind"], arn
    return "", ""


def _annotated(evidence: Evidence, *, without: str = "", role_arn: str = "") -> str:
    """The annotation, and then the pod once more where one runs: it gets its role when it is made."""
    # A run of the lab has a role of its own.
    is_told = evidence.role_is_known or evidence.is_of_lab or not role_arn
    known = evidence.role_arn if is_told else role_arn
    unknown = evidence.connection.role_arn(ROLE_NAME)
    lines = [] if known else [ROLE_UNKNOWN]
    lines.append(annotate(evidence, known or unknown, without=without))
    try:
        pod = evidence.pod
        if pod and service_account_of(pod["spec"]) == evidence.parameters.service_account:
            lines.append(pod_commands.replaced(evidence))
    except NotRead:
        pass
    return "\n".join(lines)
