"""The namespace's Deployments, StatefulSets and DaemonSets, and which of them make the service account's pods.

https://kubernetes.io/docs/concepts/workloads/controllers/
"""

import re

from labkit.diagnosis.evidence import accounts
from labkit.diagnosis.evidence.evidence import Evidence
from labkit.diagnosis.evidence.objects import Metadata, Pod, PodSpec, PodTemplate, Workload
from labkit.diagnosis.evidence.pod_spec import service_account_of
from labkit.diagnosis.evidence.reading import NotRead

# The end of a generated name: https://github.com/kubernetes/apimachinery/blob/master/pkg/util/rand/rand.go
SUFFIX = "-[bcdfghjklmnpqrstvwxz2456789]{5}"
# Not app.kubernetes.io/instance: every part of a release has it, even a database.
APP_LABELS = ("app", "app.kubernetes.io/name")


def of_account(evidence: Evidence) -> list[Workload]:
    """The workloads whose pods should run as the service account; empty if workloads can't be listed."""
    return [each for each in _all(evidence) if _account(each) == evidence.parameters.service_account]


def jobs_of_account(evidence: Evidence) -> list[str]:
    """The CronJobs and Jobs whose pods run as the service account, as `job/NAME`; empty if they can't be listed.

    https://kubernetes.io/docs/concepts/workloads/controllers/job/
    """
    try:
        jobs = evidence.cluster.jobs(evidence.parameters.namespace)
    except NotRead:
        return []
    mine = evidence.parameters.service_account
    return [called(each) for each in jobs if service_account_of(_template(each).get("spec") or PodSpec()) == mine]


def without_account(evidence: Evidence) -> list[Workload]:
    """The workloads that name no service account; empty if `default` has a role. One may be meant to name this one."""
    if accounts.default_has_a_role(evidence):
        return []
    return [each for each in _all(evidence) if _account(each) == "default"]


def meant_for_account(evidence: Evidence) -> Workload | None:
    """The workload that names no service account, but is meant to name this one; None if that isn't sure.

    Either it shares the service account's name, or its `app` label does. Or the namespace has no other workload and no
    other service account. A wrong guess would give the role to another workload.
    """
    everything, bare = _all(evidence), without_account(evidence)
    called_so = [each for each in bare if evidence.parameters.service_account in _names(each)]
    if len(called_so) == 1:
        return called_so[0]
    names = {each["metadata"]["name"] for each in evidence.cluster.service_accounts(evidence.parameters.namespace)}
    is_only_one = len(everything) == 1 and names <= {"default", evidence.parameters.service_account}
    return bare[0] if bare and is_only_one else None


def to_come(evidence: Evidence) -> list[Workload]:
    """The workloads that will make the service account's first pod; empty if it has one, or if the user named a pod."""
    if evidence.pod_name or evidence.service_account is None:
        return []
    meant = meant_for_account(evidence)
    return of_account(evidence) or ([meant] if meant else [])


def that_made(evidence: Evidence, pod_name: str) -> Workload | None:
    """The workload that makes pods with such names; None without one."""
    for each in _all(evidence):
        name, is_numbered = re.escape(each["metadata"]["name"]), each["kind"] == "StatefulSet"
        of_replica_set = "-[0-9a-z]{6,10}" if each["kind"] == "Deployment" else ""
        if re.fullmatch(rf"{name}-\d+" if is_numbered else f"{name}{of_replica_set}{SUFFIX}", pod_name):
            return each
    return None


def are_known(evidence: Evidence) -> bool:
    """Whether the workloads can be listed."""
    try:
        evidence.cluster.workloads(evidence.parameters.namespace)
    except NotRead:
        return False
    return True


def was_made_by_a_controller(pod_name: str) -> bool:
    """Whether a pod's name ends like the names that controllers generate."""
    return re.search(f"{SUFFIX}$", pod_name) is not None


def may_have_been_replaced(evidence: Evidence, pod_name: str) -> bool:
    """Whether a workload creates pods with such names, or another pod's name differs only in its generated end.

    Also true if workloads can't be listed. Raises `NotRead` if pods can't be listed.
    """
    if not are_known(evidence) or that_made(evidence, pod_name):
        return True
    made_from = re.sub(f"{SUFFIX}$", "", pod_name)
    others = (pod["metadata"]["name"] for pod in evidence.cluster.pods(evidence.parameters.namespace))
    return was_made_by_a_controller(pod_name) and any(
        re.fullmatch(re.escape(made_from) + SUFFIX, each) for each in others
    )


def pods_of(evidence: Evidence, workload: Workload) -> list[str]:
    """The names of the workload's pods that aren't being deleted, the newest first."""
    selected = ((workload.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    pods = [
        pod["metadata"]
        for pod in evidence.cluster.pods(evidence.parameters.namespace)
        if selected and selected.items() <= (pod["metadata"].get("labels") or {}).items()
    ]
    there = [metadata for metadata in pods if not metadata.get("deletionTimestamp")]
    newest = sorted(there, key=lambda metadata: metadata.get("creationTimestamp") or "", reverse=True)
    return [metadata["name"] for metadata in newest]


def pod_specs(evidence: Evidence) -> dict[str, PodSpec]:
    """The pod spec of each workload, by names such as `deployment/cart`. CronJobs, Jobs and ReplicaSets are included.

    Raises `NotRead` if one of the kinds can't be listed.

    https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/cron-job-v1/#CronJobSpec
    """
    cluster, namespace = evidence.cluster, evidence.parameters.namespace
    return {
        called(each): _template(each).get("spec") or PodSpec()
        for each in (*cluster.workloads(namespace), *cluster.jobs(namespace), *cluster.replica_sets(namespace))
    }


def successors(evidence: Evidence) -> list[Pod]:
    """The examined pod's successors in a rollout: newer pods of its Deployment, from another template."""
    metadata = evidence.pod["metadata"] if evidence.pod else Metadata()
    mine = _deployment_of(metadata)
    if not mine:
        return []
    return [
        pod
        for pod in evidence.cluster.pods(evidence.parameters.namespace)
        if _deployment_of(pod["metadata"]) == mine
        and _template_hash(pod["metadata"]) != _template_hash(metadata)
        and (pod["metadata"].get("creationTimestamp") or "") >= (metadata.get("creationTimestamp") or "")
        and not pod["metadata"].get("deletionTimestamp")
    ]


def called(workload: Workload) -> str:
    """The workload's name in kubectl's notation: `deployment/cart`."""
    return f"{workload['kind'].lower()}/{workload['metadata']['name']}"


def _all(evidence: Evidence) -> list[Workload]:
    try:
        return evidence.cluster.workloads(evidence.parameters.namespace)
    except NotRead:
        return []


def _template(workload: Workload) -> PodTemplate:
    spec = workload["spec"]["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else workload["spec"]
    return spec["template"]


def _account(workload: Workload) -> str:
    return service_account_of(workload["spec"]["template"].get("spec") or PodSpec())


def _names(workload: Workload) -> set[str]:
    labels = {
        **(workload["metadata"].get("labels") or {}),
        **((workload["spec"]["template"].get("metadata") or {}).get("labels") or {}),
    }
    return {workload["metadata"]["name"], *(labels[key] for key in APP_LABELS if key in labels)}


def _deployment_of(metadata: Metadata) -> str:
    """The Deployment whose ReplicaSet made a pod; empty if no Deployment did."""
    for owner in metadata.get("ownerReferences") or []:
        suffix = f"-{_template_hash(metadata)}"
        if owner.get("controller") and owner["kind"] == "ReplicaSet" and owner["name"].endswith(suffix):
            return owner["name"].removesuffix(suffix)
    return ""


def _template_hash(metadata: Metadata) -> str:
    return (metadata.get("labels") or {}).get("pod-template-hash") or ""
