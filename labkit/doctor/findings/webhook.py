"""The pod identity webhook: can the API server call it, and did it change the pod?

https://github.com/aws/amazon-eks-pod-identity-webhook
"""

import shlex
from typing import Any
from urllib.parse import urlsplit

from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, NotRead, kinds, known, missed_role, opt_out, pod_spec, variables
from labkit.doctor.evidence.objects import Webhook, Workload
from labkit.doctor.evidence.reading import Read
from labkit.doctor.finding import Symptom, any_finding, cause
from labkit.doctor.repairs import pod_commands, registration
from labkit.doctor.repairs.commands import Commands
from labkit.doctor.repairs.repair import Repair
from labkit.doctor.repairs.words import listed, said, shown

LEARN = "04-pod.ipynb"
UNTRIED = said(
    "Nothing is changed: if the webhook's matchConditions leave the pod out, a new pod gets no role either.",
    "Run the doctor with --probe: it tries a pod like this one with the API server, and creates none.",
)
POD = "kubectl get pod -o yaml"
CONFIGURATION = "kubectl get mutatingwebhookconfiguration pod-identity-webhook -o yaml"
COUNTERS = "kubectl get --raw /metrics, before and after kubectl create --dry-run=server"
ASK_FIRST = (
    "# Nothing is changed: these commands could also give a role to new pods of other service accounts. "
    "Ask whoever runs the webhook. If they agree, run:"
)


@cause("webhook-missing", stages.WEBHOOK, LEARN, reads=(kinds.REGISTRATION,))
def missing(evidence: Evidence) -> Symptom | None:
    if evidence.cluster.webhook is not None:
        return None
    return Symptom(
        "The pod identity webhook is not registered, so no pod gets a role.",
        expected="MutatingWebhookConfiguration pod-identity-webhook",
        found="no such configuration",
        source="kubectl get mutatingwebhookconfigurations",
        repair=_restored(evidence),
        severity="note" if variables.works_by_hand(evidence) else "error",
    )


@cause("webhook-unreachable", stages.WEBHOOK, LEARN, reads=(kinds.REGISTRATION,))
def unreachable(evidence: Evidence) -> Symptom | None:
    """The webhook is registered, but the API server can't call it. `failurePolicy: Ignore` hides that.

    https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#contacting-the-webhook
    """
    if evidence.cluster.webhook is None:
        return None
    webhooks = evidence.cluster.webhook.get("webhooks") or [{}]
    policies = ", ".join(dict.fromkeys(webhook.get("failurePolicy", "Fail") for webhook in webhooks))
    wrong, source = _unreachable_by_its_registration(evidence, webhooks), CONFIGURATION
    if not wrong:
        wrong, source = _unreachable_by_a_dry_run(evidence, webhooks), COUNTERS
    if not wrong:
        return None
    return Symptom(
        "The pod identity webhook is registered, but the API server cannot call it.",
        expected="a caBundle that verifies the webhook's certificate, and an address that answers",
        found=f"{wrong} (failurePolicy: {policies})",
        source=source,
        repair=_reached(evidence),
    )


def fails_closed(evidence: Evidence) -> bool:
    """Return whether the API server rejects every pod, because it can't call the webhook."""
    webhooks = (known(lambda: evidence.cluster.webhook) or {}).get("webhooks") or []
    is_closed = any(each.get("failurePolicy", "Fail") == "Fail" for each in webhooks)
    return is_closed and any_finding(evidence, unreachable)


@cause("webhook-not-asked-about-pod", stages.WEBHOOK, LEARN, reads=(kinds.PODS,))
def not_called(evidence: Evidence) -> Symptom | None:
    """The selectors or rules in the webhook's registration leave the pod out.

    https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-objectselector
    """
    spec = evidence.pod.spec
    if spec is None or spec.was_changed or variables.works_by_hand(evidence):
        return None
    if opt_out.rules_leave_out_pods(evidence):
        return Symptom(
            "The pod identity webhook is registered, but not for new pods.",
            expected="a rule for CREATE of pods",
            found="no such rule",
            source=CONFIGURATION,
            repair=Repair.of(registration.with_rule_for_pods(evidence), pod_commands.replaced(evidence)),
        )
    lacking = [each for each in opt_out.failed_requirements(evidence) if not each.is_switch]
    if all(each.is_opt_out for each in lacking):
        return None
    return Symptom(
        "The pod identity webhook is registered only for other pods, so the API server did not call it for this pod.",
        expected="; ".join(f"{each.subject} with {each}" for each in lacking),
        found="; ".join(_actual_label(evidence, each) for each in lacking),
        source=f"{CONFIGURATION}; metadata.labels",
        repair=_selected(evidence, lacking),
    )


@cause("pod-opted-out-of-webhook", stages.WEBHOOK, LEARN, reads=(kinds.PODS,))
def opted_out(evidence: Evidence) -> Symptom | None:
    spec = evidence.pod.spec
    if spec is None or spec.was_changed or variables.works_by_hand(evidence):
        return None
    lacking = opt_out.failed_requirements(evidence)
    against = [each for each in lacking if each.is_switch]
    if not against and all(each.is_opt_out for each in lacking):
        against = lacking
    if not against:
        return None
    labels = ", ".join(sorted({_label_against(evidence, each) for each in against}))
    whose = " and ".join(sorted({each.subject for each in against}))
    return Symptom(
        f"A label on the {whose} tells the pod identity webhook to skip the pod, so the pod got no role.",
        expected=f"no label {labels}",
        found=f"{whose} with the label {labels}",
        source=f"kubectl get {whose} -o yaml, metadata.labels",
        repair=_opted_in(evidence, against),
    )


@cause("webhook-passed-over-pod", stages.WEBHOOK, LEARN, reads=(kinds.PODS, kinds.SERVICE_ACCOUNTS))
def passed_over(evidence: Evidence) -> Symptom | None:
    """The webhook didn't give the pod the role, although the service account was annotated before the pod was created.

    None if another finding about the webhook, such as `unreachable`, already explains that.
    """
    spec = evidence.pod.spec
    if spec and not spec.was_changed and not evidence.cluster.annotation and (left_out := may_be_left_out(evidence)):
        raise NotRead(Read("the matchConditions of", "pod-identity-webhook"), left_out.removeprefix("; the webhook's "))
    if spec is None or not missed_role.was_annotated(evidence):
        return None
    if not spec.was_changed and explains_absence(evidence):
        return None
    lacking = missed_role.containers(evidence)
    if not lacking:
        return None
    role = lacking[0].value(pod_spec.ROLE)
    has = f"{pod_spec.ROLE}={role}" if role else f"no {pod_spec.ROLE}"
    then, repair = _why_passed_over(evidence)
    annotated, made = missed_role.annotated_at(evidence), missed_role.made_at(evidence)
    times = f"service account annotated at {annotated} or before, pod made at {made}"
    return Symptom(
        "The webhook did not give the pod the role, although the service account was already annotated.",
        expected=f"{pod_spec.ROLE}={evidence.cluster.annotation}",
        found=f"{has}; {times}; {then}",
        source=f"{POD} --show-managed-fields; kubectl get serviceaccount -o yaml --show-managed-fields",
        repair=repair,
    )


@cause("pod-container-skipped", stages.WEBHOOK, LEARN, reads=(kinds.PODS,))
def container_skipped(evidence: Evidence) -> Symptom | None:
    spec = evidence.pod.spec
    named = opt_out.skipped(spec.annotations) if spec else set()
    if spec is None or not any(c.name in named and not c.has_role for c in spec.containers):
        return None
    others = [container for container in spec.containers if container.has_role or spec.is_associated(container)]
    return Symptom(
        "Because of an annotation on the pod, some of its containers get no role."
        if others
        else "Because of an annotation on the pod, its containers get no role.",
        expected="the role in every container",
        found=f"{opt_out.SKIP}: {spec.annotations[opt_out.SKIP]}",
        source=f"{POD}, metadata.annotations",
        # A sidecar is left out on purpose.
        repair=f"# nothing has to change; {opt_out.SKIP} in the manifest says which containers get no role"
        if others
        else pod_commands.replaced(evidence, pod_commands.without_skipping),
        severity="note" if others else "error",
    )


@cause("pod-volume-name-taken", stages.WEBHOOK, LEARN, reads=(kinds.PODS,))
def volume_name_taken(evidence: Evidence) -> Symptom | None:
    spec = evidence.pod.spec
    volume = spec.volumes.get(pod_spec.TOKEN_VOLUME) if spec else None
    if volume is None or pod_spec.is_token_volume(volume):
        return None
    kind = next((key for key in volume if key != "name"), "nothing")
    return Symptom(
        f"The pod has a volume named {pod_spec.TOKEN_VOLUME}, so the webhook did not add its own volume of this name.",
        expected=f"{pod_spec.TOKEN_VOLUME}: projected, with a serviceAccountToken whose path is token",
        found=f"{pod_spec.TOKEN_VOLUME}: {kind}",
        source=f"{POD}, spec.volumes",
        repair=pod_commands.replaced(evidence),
    )


@cause("pod-mount-path-twice", stages.WEBHOOK, LEARN, reads=(kinds.PODS,))
def mount_path_twice(evidence: Evidence) -> Symptom | None:
    """Something else is mounted at the token's path, so the API server refuses the pod that the webhook changed."""
    for container in evidence.pod.containers:
        names = [mount["name"] for mount in container.mounts if mount["mountPath"].rstrip("/") == pod_spec.MOUNT_PATH]
        if len(names) > 1:
            mounts = f"container {container.name}: {', '.join(names)}"
            return _mounted_twice(mounts, f"{POD}, volumeMounts", pod_commands.replaced(evidence))
    for event in evidence.pod.failed_creations:
        if "must be unique" not in (event.get("message") or "") or "mountPath" not in event["message"]:
            continue
        owner = pod_spec.workload(evidence.cluster.api, evidence.parameters.namespace, event["involvedObject"])
        template = (owner.get("spec") or {}).get("template")
        # Once pods are ready, events about rejected pods are out of date.
        if not template or _has_pods(owner):
            continue
        if pod_spec.service_account_of(template["spec"]) == evidence.parameters.service_account:
            mounts = f"{owner['kind']} {owner['metadata']['name']}: {event['message']}"
            return _mounted_twice(mounts, "kubectl get events", pod_commands.of_workload(evidence, owner))
    return None


def explains_absence(evidence: Evidence) -> bool:
    """Whether another finding about the webhook already explains why the pod has no role."""
    return any_finding(evidence, missing, unreachable, not_called, opted_out)


def may_be_left_out(evidence: Evidence) -> str:
    """Return a phrase that lists the webhook's matchConditions and says that they may exclude the pod.

    Return an empty string if the webhook has no matchConditions.
    """
    conditions = opt_out.match_conditions(evidence)
    if not conditions:
        return ""
    return (
        "; the webhook's matchConditions, which the doctor doesn't evaluate, may leave the pod out: "
        f"{' && '.join(conditions)}"
    )


def registered_later(evidence: Evidence) -> str:
    """Return a phrase with the time of the webhook's registration; empty if the pod isn't older than that."""
    registration, made = known(lambda: evidence.cluster.webhook), missed_role.made_at(evidence)
    at = registration["metadata"].get("creationTimestamp") or "" if registration else ""
    return f"the webhook was registered at {at}, later than the pod was made" if made and made < at else ""


def gives_role_now(evidence: Evidence) -> bool:
    """Whether a dry run shows that the webhook gives the role to a pod like this one; False without a dry run."""
    return known(lambda: evidence.pod.dry_run.gives_role, False)


def _unreachable_by_its_registration(evidence: Evidence, webhooks: list[Webhook]) -> str:
    """Return the first fault in the webhooks' client configurations, such as an expired CA."""
    for webhook in webhooks:
        client = webhook.get("clientConfig") or {}
        wrong = evidence.cluster.registration.fault(client)
        if not wrong and _was_passed_over(evidence):
            wrong = evidence.cluster.registration.silence(client)
        if wrong:
            return wrong
    return ""


def _unreachable_by_a_dry_run(evidence: Evidence, webhooks: list[Webhook]) -> str:
    """Return the error of the API server's call to the webhook in a dry run."""
    spec, was_annotated = evidence.pod.spec, missed_role.was_annotated(evidence)
    if spec is None or spec.was_changed or was_annotated is False or not_called(evidence) or opted_out(evidence):
        return ""
    if not missed_role.containers(evidence):
        return ""
    try:
        return evidence.pod.dry_run.failed_call([webhook.get("name", "") for webhook in webhooks])
    except NotRead:
        if was_annotated:
            raise
        return ""


def _was_passed_over(evidence: Evidence) -> bool:
    """Whether the service account has the annotation, but the webhook didn't change the pod."""
    try:
        spec = evidence.pod.spec
        return bool(evidence.cluster.annotation) and not (spec and spec.was_changed)
    except NotRead:
        return False


def _why_passed_over(evidence: Evidence) -> tuple[str, str | Repair]:
    may_be = may_be_left_out(evidence)
    again, spec = pod_commands.with_the_annotation(evidence), evidence.pod.spec
    if spec and spec.is_mutated:
        return "the webhook did not know of the annotation yet", again
    if spec and spec.has_pod_identity:
        return "the pod has the variables of an association that no longer exists", again
    if later := registered_later(evidence):
        return later, again
    try:
        if evidence.pod.dry_run.gives_role:
            return "a pod like this one would get the role now", again
        if evidence.pod.dry_run.gives_pod_identity:
            return "a pod like this one would get the role of an EKS Pod Identity association now", again
    except NotRead as unread:
        reason = "only a dry run tells why" if unread.is_choice else f"a dry run was not made: {unread.why}"
        if may_be and unread.is_choice:
            return f"{reason}{may_be}", UNTRIED
        return f"{reason}{may_be}", Repair.of("# if the new pod has no role either, --probe tells why", again)
    log = "# the webhook doesn't change new pods: the webhook's own log says why"
    if may_be:
        log = (
            "# new pods stay unchanged, too: ask whoever runs the webhook if its matchConditions should leave them out"
        )
    lines = filter(None, [log, registration.with_its_client(evidence)])
    return f"the pod of a dry run gets no role either{may_be}", "\n".join(lines)


def _actual_label(evidence: Evidence, requirement: opt_out.Requirement) -> str:
    value = opt_out.labels_of(evidence, requirement.subject).get(requirement.key)
    label = f"no label {requirement.key}" if value is None else f"{requirement.key}={value}"
    name = evidence.parameters.namespace if requirement.subject == "namespace" else evidence.pod.name
    return f"{requirement.subject} {name} with {label}"


def _label_against(evidence: Evidence, requirement: opt_out.Requirement) -> str:
    key = requirement.key
    return f"{key}={opt_out.labels_of(evidence, requirement.subject)[key]}" if requirement.values else key


def _selected(evidence: Evidence, lacking: list[opt_out.Requirement]) -> str | Repair:
    """Return the repair for a pod that the webhook's selectors exclude by the requirements in `lacking`."""
    wanted = "; ".join(f"{each} on the {each.subject}" for each in lacking if not each.is_opt_out)
    meant = f"# if the selector is intended, skip the commands below, and add the label that it requires: {wanted}"
    lines, again = [meant, registration.without(evidence, lacking)], pod_commands.replaced(evidence)
    if registration.others_without(evidence, lacking) == []:
        return Repair.of(*lines, again)
    if labels := registration.labels_that_harm_nobody(evidence, lacking):
        return _labelled(evidence, labels)
    # The selector may exclude others on purpose.
    return shown(ASK_FIRST, *lines, str(again))


def _labelled(evidence: Evidence, labels: dict[opt_out.Subject, dict[str, str]]) -> Repair:
    def with_labels(_: Evidence, manifest: dict[str, Any]) -> None:
        manifest["metadata"]["labels"] = {**(manifest["metadata"].get("labels") or {}), **labels.get("pod", {})}

    changes = [
        f"the label {key}={value} to the {subject}" for subject, of in labels.items() for key, value in of.items()
    ]
    lines = [
        said(
            f"This adds {listed(changes)}. The selector of the webhook does not change.",
            "No Service, NetworkPolicy, PodDisruptionBudget, workload or other webhook selects by such a label.",
        )
    ]
    if on_namespace := labels.get("namespace"):
        pairs = " ".join(shlex.quote(f"{key}={value}") for key, value in on_namespace.items())
        lines.append(f"{evidence.connection.kubectl} label namespace {evidence.parameters.namespace} {pairs}")
    return Repair.of(*lines, pod_commands.replaced(evidence, with_labels))


def _opted_in(evidence: Evidence, against: list[opt_out.Requirement]) -> Repair:
    """Return the repair for a pod that the webhook skips because of a label."""
    switches = {each.subject: each.key for each in against if each.is_switch}
    others = [each for each in against if not each.is_switch]
    # Any label except `SWITCH` may have another purpose, so change the registration instead.
    lines = [registration.without(evidence, others)] if others else []
    if others and registration.others_without(evidence, others) != []:
        lines = [shown(ASK_FIRST, *lines)]
    if "namespace" in switches:
        lines.append(registration.without_label(evidence, switches["namespace"]))
    again = pod_commands.replaced(evidence)
    is_words = lines and all(line.startswith("#") for each in lines for line in each.splitlines())
    return Repair.of(*lines, shown("# Then run:", str(again)) if is_words else again)


def _has_pods(owner: Workload) -> bool:
    status = owner.get("status") or {}
    return bool(status.get("readyReplicas") or status.get("numberReady"))


def _restored(evidence: Evidence) -> Repair:
    by_target = evidence.connection.webhook_restored_by
    if by_target.startswith("#"):
        return _left_to_others(
            evidence, "# Nothing is changed: without the webhook, a new pod gets no role either.", by_target
        )
    return Repair.of(Commands(evidence).restore_webhook(), _again(evidence))


def _reached(evidence: Evidence) -> Repair:
    """Return the repair that corrects `clientConfig` in the webhook's registration."""
    if patch := registration.with_its_client(evidence):
        return Repair.of(patch, _again(evidence))
    by_target = evidence.connection.webhook_restored_by
    if other := registration.of_another(evidence):
        listen = urlsplit(other).netloc or "HOST:PORT"
        lines = [
            f"# Nothing is changed: the registered webhook is {other}, not the one of this lab. Its owner has to",
            "# start it again, or to register its present address and certificate. For labkit webhook serve:",
            f"labkit webhook manifest --listen {listen} | {evidence.connection.kubectl} apply -f -",
        ]
    elif evidence.connection.webhook_registration():
        lines = ["# Nothing is changed: the registration is right. Check that the lab's server runs: labkit status"]
    else:
        lines = [
            "# Nothing is changed: the doctor can't tell how the API server should call the webhook.",
            "# Ask the webhook's owner to correct only clientConfig. The selectors may exclude other pods on purpose.",
            *([by_target] if by_target.startswith("#") else []),
        ]
    return _left_to_others(evidence, *lines)


def _left_to_others(evidence: Evidence, *lines: str) -> Repair:
    """Return a repair that has only comments: `lines`, then the commands that replace the pod, if there are any."""
    # A pod that is created before the webhook's repair gets no role.
    again = str(_again(evidence))
    return Repair.of(shown(*lines, *(["# Then run:", again] if again else [])))


def _again(evidence: Evidence) -> Repair:
    """Return the repair that replaces a pod that was created without its role."""
    try:
        spec = evidence.pod.spec
        if spec is not None and evidence.cluster.annotation and not spec.was_changed:
            return pod_commands.replaced(evidence)
    except NotRead:
        pass
    return Repair.of()


def _mounted_twice(mounts: str, source: str, repair: Repair) -> Symptom:
    return Symptom(
        "Something else is mounted where the webhook mounts the token, and the API server refuses two mounts at one "
        "path.",
        expected=f"nothing but {pod_spec.TOKEN_VOLUME} at {pod_spec.MOUNT_PATH}",
        found=mounts,
        source=source,
        repair=repair,
    )
