"""The pod identity webhook: is there anybody who gives pods their role, and did the pod let it?

https://github.com/aws/amazon-eks-pod-identity-webhook
"""

from typing import Any

from labkit.diagnosis import stages
from labkit.diagnosis.evidence import Evidence, NotRead, kinds, opt_out, variables
from labkit.diagnosis.evidence.pod_spec import MOUNT_PATH, TOKEN_VOLUME, is_token_volume, service_account_of, workload
from labkit.diagnosis.finding import Symptom, cause
from labkit.diagnosis.repairs import pod_commands
from labkit.diagnosis.repairs.commands import Commands

LEARN = "04-pod.ipynb"
POD = "kubectl get pod -o yaml"
CONFIGURATION = "kubectl get mutatingwebhookconfiguration pod-identity-webhook -o yaml"


@cause("webhook-missing", stages.WEBHOOK, LEARN, reads=(kinds.REGISTRATION,))
def missing(evidence: Evidence) -> Symptom | None:
    if evidence.webhook is not None:
        return None
    return Symptom(
        "The pod identity webhook is not registered, so no pod is given a role.",
        expected="MutatingWebhookConfiguration pod-identity-webhook",
        found="no such configuration",
        source="kubectl get mutatingwebhookconfigurations",
        repair=_restored(evidence),
        severity="note" if variables.works_by_hand(evidence) else "error",
    )


@cause("webhook-unreachable", stages.WEBHOOK, LEARN, reads=(kinds.REGISTRATION,))
def unreachable(evidence: Evidence) -> Symptom | None:
    """The webhook is registered, and the API server cannot call it; `failurePolicy: Ignore` keeps that silent.

    Whether it answers is tried only where a pod was made without its role, and from where it can be told.
    """
    if evidence.webhook is None:
        return None
    for webhook in evidence.webhook.get("webhooks") or [{}]:
        client, policy = webhook.get("clientConfig") or {}, webhook.get("failurePolicy", "Fail")
        wrong = evidence.registration.fault(client)
        if not wrong and _was_passed_over(evidence):
            wrong = evidence.registration.silence(client)
        if wrong:
            return Symptom(
                "The pod identity webhook is registered, and the API server cannot call it.",
                expected="a caBundle that its certificate is checked with, and an address that answers",
                found=f"{wrong} (failurePolicy: {policy})",
                source=CONFIGURATION,
                repair=_restored(evidence),
            )
    return None


@cause("pod-opted-out-of-webhook", stages.WEBHOOK, LEARN, reads=(kinds.PODS,))
def opted_out(evidence: Evidence) -> Symptom | None:
    spec = evidence.pod_spec
    if spec is None or spec.is_mutated or variables.works_by_hand(evidence):
        return None
    on_pod = opt_out.of_pod(evidence, spec.labels)
    on_namespace = set() if on_pod else opt_out.of_namespace(evidence)
    if not on_pod and not on_namespace:
        return None
    labels, whose = (on_pod, "pod") if on_pod else (on_namespace, "namespace")
    namespace, kubectl = evidence.parameters.namespace, evidence.connection.kubectl
    removed = " ".join(f"{label}-" for label in sorted(labels))
    lines = [] if on_pod else [f"{kubectl} label namespace {namespace} {removed}"]
    return Symptom(
        f"A label of the {whose} keeps the pod identity webhook from it, so it was given no role.",
        expected=f"no label {', '.join(sorted(labels))}",
        found=f"{whose} with the label {', '.join(sorted(labels))}",
        source=f"kubectl get {whose} -o yaml, metadata.labels",
        repair="\n".join([*lines, pod_commands.replaced(evidence)]),
    )


@cause("pod-container-skipped", stages.WEBHOOK, LEARN, reads=(kinds.PODS,))
def container_skipped(evidence: Evidence) -> Symptom | None:
    spec = evidence.pod_spec
    named = opt_out.skipped(spec.annotations) if spec else set()
    if spec is None or not any(c.name in named and not c.has_role for c in spec.containers):
        return None
    others = [container for container in spec.containers if container.has_role]
    return Symptom(
        "An annotation of the pod keeps the role from some of its containers."
        if others
        else "An annotation of the pod keeps the role from its containers.",
        expected="the role in every container",
        found=f"{opt_out.SKIP}: {spec.annotations[opt_out.SKIP]}",
        source=f"{POD}, metadata.annotations",
        # Whoever leaves out a sidecar does so on purpose.
        repair=f"# nothing has to change; {opt_out.SKIP} in the manifest says which containers get no role"
        if others
        else pod_commands.replaced(evidence, pod_commands.without_skipping),
        severity="note" if others else "error",
    )


@cause("pod-volume-name-taken", stages.WEBHOOK, LEARN, reads=(kinds.PODS,))
def volume_name_taken(evidence: Evidence) -> Symptom | None:
    spec = evidence.pod_spec
    volume = spec.volumes.get(TOKEN_VOLUME) if spec else None
    if volume is None or is_token_volume(volume):
        return None
    kind = next((key for key in volume if key != "name"), "nothing")
    return Symptom(
        f"A volume of the pod's own is called {TOKEN_VOLUME}, so the webhook added none with the token.",
        expected=f"{TOKEN_VOLUME}: projected, with a serviceAccountToken in the file token",
        found=f"{TOKEN_VOLUME}: {kind}",
        source=f"{POD}, spec.volumes",
        repair=pod_commands.replaced(evidence),
    )


@cause("pod-mount-path-twice", stages.WEBHOOK, LEARN, reads=(kinds.PODS,))
def mount_path_twice(evidence: Evidence) -> Symptom | None:
    """Something else is mounted where the token goes: the API server refuses the pod that the webhook has changed.

    It is seen in the events of the pod's owner, since there is no pod.
    """
    for container in evidence.containers:
        names = [mount["name"] for mount in container.mounts if mount["mountPath"].rstrip("/") == MOUNT_PATH]
        if len(names) > 1:
            found = f"container {container.name}: {', '.join(names)}"
            return _mounted_twice(found, f"{POD}, volumeMounts", pod_commands.replaced(evidence))
    for event in evidence.failed_creations:
        if "must be unique" not in (event.get("message") or "") or "mountPath" not in event["message"]:
            continue
        owner = workload(evidence.cluster, evidence.parameters.namespace, event["involvedObject"])
        template = (owner.get("spec") or {}).get("template")
        if not template or _has_pods(owner):
            continue
        if service_account_of(template["spec"]) == evidence.parameters.service_account:
            found = f"{owner['kind']} {owner['metadata']['name']}: {event['message']}"
            return _mounted_twice(found, "kubectl get events", pod_commands.of_workload(evidence, owner))
    return None


def explains_absence(evidence: Evidence) -> bool:
    """Whether the webhook is why a pod has no role."""
    return bool(missing(evidence) or unreachable(evidence) or opted_out(evidence))


def _was_passed_over(evidence: Evidence) -> bool:
    """Whether there is a pod that was to get a role and has none."""
    try:
        spec = evidence.pod_spec
        return bool(evidence.annotation) and (spec is None or not (spec.is_mutated or opted_out(evidence)))
    except NotRead:
        return False


def _has_pods(owner: dict[str, Any]) -> bool:
    """Whether pods of a workload run: what its events tell is over then."""
    status = owner.get("status") or {}
    return bool(status.get("readyReplicas") or status.get("numberReady"))


def _restored(evidence: Evidence) -> str:
    """The webhook, and then the pod once more where it was made without its role."""
    lines = [Commands(evidence).restore_webhook()]
    try:
        spec = evidence.pod_spec
        if spec is not None and evidence.annotation and not spec.is_mutated:
            lines.append(pod_commands.replaced(evidence))
    except NotRead:
        pass
    return "\n".join(lines)


def _mounted_twice(found: str, source: str, repair: str) -> Symptom:
    return Symptom(
        "Something else is mounted where the webhook mounts the token, and a pod with two mounts at one path is "
        "refused.",
        expected=f"nothing but {TOKEN_VOLUME} at {MOUNT_PATH}",
        found=found,
        source=source,
        repair=repair,
    )
