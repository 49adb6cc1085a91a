"""The pod: does it run as the service account, and did it get the role when it was created?"""

import re
from typing import Any

from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, kinds, known, missed_role, workloads
from labkit.doctor.evidence.objects import Event, PodDocument, PodSpecDocument, Workload
from labkit.doctor.evidence.pod import FAILED
from labkit.doctor.evidence.pod_spec import ROLE, TOKEN_FILE, Container, service_account_of
from labkit.doctor.finding import Severity, Symptom, cause
from labkit.doctor.findings import webhook
from labkit.doctor.repairs import advice, pod_commands
from labkit.doctor.repairs.commands import Commands
from labkit.doctor.repairs.repair import Lines, Repair
from labkit.doctor.repairs.words import listed, said, shown

LEARN = "04-pod.ipynb"
# https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/
ON_SCHEDULE = "Nothing has to change: the job creates a pod on its schedule. While that pod exists, run:"
# Kubernetes' own controllers keep a pod that a webhook has changed.
BUILT_IN = ("ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController", "Node")
DELETED, KILLED = "SuccessfulDelete", "Killing"  # events' reasons
# The endings that controllers add to a name: for a ReplicaSet, for a pod, for a StatefulSet's pod.
HASH = workloads.SUFFIX.replace("{5}", "{6,10}")
MADE_UP = rf"({HASH})?{workloads.SUFFIX}|{HASH}|-\d+"
LOOP = 5  # times in an hour; fewer are normal
NO_IMAGE = "# in the command below, replace the image with one that the nodes can pull"
NO_NODE = "# nothing is changed: correct the nodes or the pod's manifest. This shows why no node accepts the pod"
SYSTEM = "kubernetes.io/os"
OLDER = "The pod was made before the service account named this role, and a pod gets its role only when it is made."
MAYBE_OLDER = (
    "The pod may have been made before the service account named this role, and a pod gets its role only when it is "
    "made."
)
# A part of the error if a container can't read the token. The container or its node reports the error.
DENIED = "Permission denied"


@cause("namespace-terminating", stages.POD, LEARN, reads=(), ends=stages.STAGES)
def namespace_terminating(evidence: Evidence) -> Symptom | None:
    """The namespace is being deleted, so nothing new can be created in it.

    https://kubernetes.io/docs/tasks/administer-cluster/namespaces/#deleting-a-namespace
    """
    is_whole = (
        evidence.pod.document is not None
        and not _is_ending(evidence.pod.document)
        and evidence.cluster.service_account is not None
    )
    if is_whole or not evidence.cluster.is_namespace_ending:
        return None
    namespace, kubectl = evidence.parameters.namespace, evidence.connection.kubectl
    return Symptom(
        f"The namespace {namespace} is being deleted, so nothing can be created in it.",
        expected=f"namespace {namespace}: Active",
        found=f"namespace {namespace}: Terminating",
        source="kubectl get namespace -o yaml, status",
        repair=said(
            "No command repairs this. Ask whoever deleted the namespace whether it will be created again.",
            f"status.conditions says why the namespace is not gone yet:\n  {kubectl} get namespace {namespace} -o yaml",
            f"Once the namespace exists again:\n  {_doctor(evidence)}",
        ),
    )


@cause("pod-missing", stages.POD, LEARN, reads=(kinds.PODS,))
def missing(evidence: Evidence) -> Symptom | None:
    if (
        evidence.pod.document is not None
        or evidence.cluster.service_account is None
        or webhook.mount_path_twice(evidence)
        or webhook.fails_closed(evidence)
    ):
        return None
    if evidence.pod.name:
        return _missing_by_name(evidence)
    if own := workloads.of_account(evidence):
        return _missing_of_workload(evidence, own)
    if others := workloads.under_another_account(evidence):
        return _missing_by_another_account(evidence, others)
    if bare := workloads.without_account(evidence):
        return _missing_for_bare_workload(evidence, bare, workloads.meant_for_account(evidence))
    if jobs := workloads.jobs_of_account(evidence):
        return _nobody(
            evidence, f"{listed(jobs)} without a pod now", Repair.of(said(ON_SCHEDULE, _doctor(evidence))), "note"
        )
    return _nobody(evidence, _others(evidence), Repair.of("# to try the role, create a pod:", _created(evidence)))


@cause("pod-uses-another-service-account", stages.POD, LEARN, reads=(kinds.PODS,))
def uses_another_service_account(evidence: Evidence) -> Symptom | None:
    if evidence.pod.document is None:
        return None
    name = service_account_of(evidence.pod.document["spec"])
    if name == evidence.parameters.service_account:
        return None
    return Symptom(
        "The pod runs as another service account.",
        expected=evidence.parameters.service_account,
        found=name,
        source="kubectl get pod -o yaml, spec.serviceAccountName",
        repair=pod_commands.replaced(evidence),
    )


@cause("pod-older-than-annotation", stages.WEBHOOK, LEARN, reads=(kinds.PODS, kinds.SERVICE_ACCOUNTS))
def older_than_annotation(evidence: Evidence) -> Symptom | None:
    """The pod is older than the service account's annotation, so it didn't get the annotation's role.

    https://docs.aws.amazon.com/eks/latest/userguide/pod-configuration.html
    """
    spec, was_annotated = evidence.pod.spec, missed_role.was_annotated(evidence)
    if spec is None or was_annotated or (not spec.was_changed and webhook.explains_absence(evidence)):
        return None
    differing = missed_role.containers(evidence)
    if not differing:
        return None
    later = "" if was_annotated is False or spec.was_changed else webhook.registered_later(evidence)
    is_known = was_annotated is False or (not later and _same_second(evidence) and webhook.gives_role_now(evidence))
    actual = "; ".join(_actual_role(container, alone=len(spec.containers) == 1) for container in differing)
    left_out = "" if is_known or later or spec.was_changed else webhook.may_be_left_out(evidence)
    if later:
        actual += f"; {later}"
    return Symptom(
        OLDER if is_known else MAYBE_OLDER,
        expected=f"AWS_ROLE_ARN={evidence.cluster.annotation}",
        found=f"{actual}{left_out}",
        source="kubectl get pod -o yaml, spec.containers[].env",
        repair=webhook.UNTRIED
        if left_out and not evidence.pod.probe_allowed
        else pod_commands.with_the_annotation(evidence),
    )


@cause("pod-replaced-in-a-loop", stages.POD, LEARN, reads=(kinds.PODS,))
def replaced_in_a_loop(evidence: Evidence) -> Symptom | None:
    """The pod's controller replaces the pod again and again, because the webhook changed the pod.

    Kubernetes' own controllers, such as ReplicaSets, don't do that.
    """
    owner = _controller_of_another_kind(evidence)
    if not owner and not _is_unsettled(evidence):
        return None
    names = [name.rstrip("-") for name in (evidence.pod.name, _made_from(evidence), owner) if name]
    # A pod that you replace by hand leaves the node's events, too. They count if a controller owns the pod.
    reasons = (DELETED, KILLED) if owner else (DELETED,)
    endings = [
        event
        for event in evidence.cluster.api.events(evidence.parameters.namespace)
        if event.get("reason") in reasons and _is_one_of(event, names)
    ]
    times = sum(event.get("count") or 1 for event in endings)
    if times < LOOP:
        return None
    return Symptom(
        "The pod is replaced again and again: its controller may reject the webhook's changes.",
        expected="a pod that its controller keeps",
        found=f"the pod or its predecessors ended {times} times in the last hour",
        source="kubectl get events",
        repair="# add the webhook's changes (variables, volume aws-iam-token) to the controller's manifest, or let the "
        "controller ignore them;\n# then delete the old events:\n" + _forgotten(evidence, endings),
        severity="note",
    )


@cause("pod-not-running", stages.POD, LEARN, reads=(kinds.PODS,))
def not_running(evidence: Evidence) -> Symptom | None:
    spec = evidence.pod.spec
    if spec is None or spec.phase in ("Running", "Succeeded") or token_unreadable(evidence):
        return None
    images = "" if pod_commands.image(evidence) or not spec.without_image else NO_IMAGE
    describe = f"{evidence.connection.kubectl} describe pod {spec.name} -n {spec.namespace}"
    is_placed = not evidence.pod.scheduler_says
    if evidence.pod.is_starting:
        return Symptom(
            "The pod doesn't run yet, because its node is still starting it.",
            expected="Running",
            found=f"{spec.phase}: {evidence.pod.trouble}",
            source="kubectl get pod -o yaml, status",
            repair=said(f"Nothing has to change. Wait, and look again. If the pod stays like this:\n  {describe}"),
            severity="note",
        )
    return Symptom(
        "The pod does not run." if is_placed else "No node accepts the pod.",
        expected="Running",
        found=f"{spec.phase}{evidence.pod.trouble and ': ' + evidence.pod.trouble}",
        source="kubectl get pod -o yaml, status",
        repair=Repair.of(images, pod_commands.replaced(evidence)) if is_placed else f"{NO_NODE}:\n# {describe}",
    )


@cause("containers-not-running", stages.POD, LEARN, reads=(kinds.PODS,), explained_by=("*",))
def containers_not_running(evidence: Evidence) -> Symptom | None:
    """Each program in the pod ends. It may end because it gets no role, so any error explains that.

    https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-states
    """
    spec = evidence.pod.spec
    if spec is None or not spec.stopped or not_running(evidence):
        return None
    logs = f"{evidence.connection.kubectl} logs {spec.name} -n {spec.namespace} --all-containers --previous"
    return Symptom(
        "No container of the pod runs, so nobody can say whether it gets its role.",
        expected="a container that runs",
        found=spec.stopped,
        source="kubectl get pod -o yaml, status.containerStatuses",
        repair=said(f"Nothing is changed: the program ends by itself. This shows its last words:\n  {logs}"),
        severity="warning",
    )


@cause("token-unreadable", stages.TOKEN, LEARN, reads=(kinds.PODS,))
def token_unreadable(evidence: Evidence) -> Symptom | None:
    """The user of the container, or of a program in it, isn't allowed to read the token's file.

    Before Kubernetes 1.19, only root may read the file. Today, without an fsGroup, only the user in `runAsUser` may.

    https://github.com/aws/amazon-eks-pod-identity-webhook/issues/8
    """
    denial = _denied_in_status(evidence) or _denied_in_probe(evidence)
    if not denial:
        return _left_by_a_program(evidence, evidence.pod.probe.container)
    return Symptom(
        "The container's user isn't allowed to read the token.",
        expected="a securityContext.fsGroup, so that the container's user can read the token",
        found=denial,
        source="kubectl get pod -o yaml, status; kubectl exec … -- cat TOKEN_FILE",
        repair=pod_commands.replaced(evidence, _readable),
    )


@cause("pod-windows-by-affinity", stages.WEBHOOK, LEARN, reads=(kinds.PODS,))
def windows_by_affinity(evidence: Evidence) -> Symptom | None:
    """https://github.com/aws/amazon-eks-pod-identity-webhook#eks-pod-identity-webhook"""
    spec = evidence.pod.spec
    if spec is None or "windows" in (spec.spec.get("nodeSelector") or {}).values():
        return None
    if not any(_wants_windows(term) for term in _node_terms(spec.spec)):
        return None
    files = {container.value(TOKEN_FILE) for container in spec.containers}
    if not any(file.startswith("/") for file in files):
        return None
    return Symptom(
        "The pod got Linux's token path: the pod selects Windows by affinity, but the webhook reads only nodeSelector.",
        expected=f"nodeSelector {SYSTEM}: windows",
        found=f"nodeAffinity {SYSTEM} In windows, {TOKEN_FILE}={', '.join(sorted(filter(None, files)))}",
        source="kubectl get pod -o yaml, spec.affinity",
        repair=pod_commands.replaced(evidence, _selecting_windows),
    )


def _others(evidence: Evidence) -> str:
    pods = evidence.cluster.api.pods(evidence.parameters.namespace)
    running = [f"pod {pod['metadata']['name']} runs as {service_account_of(pod['spec'])}" for pod in pods]
    shown = ", ".join(running[:5]) + (f" and {len(running) - 5} more" if len(running) > 5 else "")
    return shown or f"no pod in namespace {evidence.parameters.namespace}"


def _nobody(evidence: Evidence, actual: str, repair: Repair, severity: Severity = "warning") -> Symptom:
    return Symptom(
        "No pod runs as the service account.",
        expected=f"a pod with serviceAccountName: {evidence.parameters.service_account}",
        found=actual,
        source="kubectl get pods",
        repair=repair,
        severity=severity,
    )


def _missing_by_name(evidence: Evidence) -> Symptom:
    namespace, kubectl = evidence.parameters.namespace, evidence.connection.kubectl
    maker, actual = workloads.that_made(evidence, evidence.pod.name), "no such pod"
    repair: str | Lines = _created(evidence)
    if maker and (there := workloads.pods_of(evidence, maker)):
        actual = f"no such pod; {workloads.called(maker)} has other pods: {', '.join(there)}"
        repair = f"# the pod was replaced. Examine its successor:\n# {_doctor(evidence)} --pod {there[0]}"
    elif maker:
        return _missing_of_workload(evidence, [maker])
    elif workloads.was_made_by_a_controller(evidence.pod.name):
        repair = (
            "# a controller gave the pod this name, and may have replaced the pod. This lists the present pods:\n"
            f"# {kubectl} get pods -n {namespace}"
        )
    return Symptom(
        "The pod does not exist.",
        expected=f"pod {evidence.pod.name} in namespace {namespace}",
        found=actual,
        source="kubectl get pod",
        repair=repair,
    )


def _created(evidence: Evidence) -> str | Lines:
    made = Commands(evidence).create_pod()
    if workloads.are_known(evidence):
        return made
    return shown(
        "# Could not list Deployments. If a Deployment creates these pods, scale it up. If not, run:", made.text
    )


def _missing_of_workload(evidence: Evidence, own: list[Workload]) -> Symptom:
    namespace, kubectl = evidence.parameters.namespace, evidence.connection.kubectl
    stopped = [each for each in own if each["spec"].get("replicas") == 0]
    lines = [f"{kubectl} scale {workloads.called(each)} -n {namespace} --replicas=1" for each in stopped]
    if len(stopped) == len(own):
        actual = "; ".join(f"{workloads.called(each)} has replicas: 0" for each in own)
        started = Lines("\n".join(["# to start the pods again:", *lines]), makes_pods=True)
        return _nobody(evidence, actual, Repair.of(started))
    waiting = next(each for each in own if each not in stopped)
    why = _failed_creation(evidence, waiting)
    # The event of a Deployment's rejected pod is about the ReplicaSet, so describing the Deployment doesn't print it.
    command = f"get events -n {namespace} --field-selector reason={FAILED}"
    if not why:
        command = f"describe {workloads.called(waiting)} -n {namespace}"
    return Symptom(
        "No pod runs as the service account, although a workload should have made a pod.",
        expected=f"a pod of {workloads.called(waiting)}",
        found=f"{workloads.called(waiting)}: {why or 'it has made no pod yet'}",
        source="kubectl get events",
        repair=f"# once the problem is solved, the workload creates the pod automatically. This shows the problem:\n"
        f"# {kubectl} {command}",
    )


def _missing_for_bare_workload(evidence: Evidence, bare: list[Workload], meant: Workload | None) -> Symptom:
    """Return the symptom that no pod runs as the service account, but workloads run as `default`.

    `bare` has these workloads. If `meant` isn't None, the symptom mentions only the workload `meant`.
    """
    if meant:
        repair = pod_commands.of_workload(evidence, meant)
        return _nobody(evidence, f"{workloads.called(meant)} without serviceAccountName", repair)
    names = [workloads.called(each) for each in bare]
    actual = "; ".join(f"{name} without serviceAccountName" for name in names)
    return _nobody(evidence, actual, Repair.of(advice.workloads_stay(evidence, names)))


def _missing_by_another_account(evidence: Evidence, others: list[Workload]) -> Symptom:
    named = {workloads.called(each): service_account_of(each["spec"]["template"]["spec"]) for each in others}
    actual = "; ".join(f"{name} with serviceAccountName: {account}" for name, account in named.items())
    stay = (advice.account_stays(evidence, name, account) for name, account in named.items())
    mine = evidence.parameters.service_account
    chart = f"A Helm chart that makes the account usually has serviceAccount.name: set it to {mine}."
    return _nobody(evidence, actual, Repair.of(*stay, said(chart)))


def _failed_creation(evidence: Evidence, workload: Workload) -> str:
    name = workload["metadata"]["name"]
    failed = known(lambda: evidence.pod.failed_creations) or []
    return next((each["message"] for each in failed if _is_one_of(each, [name]) and each.get("message")), "")


def _doctor(evidence: Evidence) -> str:
    parameters = evidence.parameters
    return f"labkit doctor -n {parameters.namespace} -s {parameters.service_account}"


def _same_second(evidence: Evidence) -> bool:
    return bool(missed_role.made_at(evidence)) and missed_role.made_at(evidence) == missed_role.annotated_at(evidence)


def _actual_role(container: Container, *, alone: bool) -> str:
    role = container.value(ROLE)
    actual = f"{ROLE}={role}" if role else f"no {ROLE}"
    return actual if alone else f"container {container.name}: {actual}"


def _controller_of_another_kind(evidence: Evidence) -> str:
    """Return the name of the pod's controller, if the controller isn't built into Kubernetes."""
    references = ((evidence.pod.document or {}).get("metadata") or {}).get("ownerReferences") or []
    return next((each["name"] for each in references if each.get("controller") and each["kind"] not in BUILT_IN), "")


def _is_unsettled(evidence: Evidence) -> bool:
    if evidence.pod.document is None:
        return bool(evidence.cluster.annotation)
    return evidence.pod.phase not in ("Running", "Succeeded") or _is_ending(evidence.pod.document)


def _is_ending(pod: PodDocument) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _made_from(evidence: Evidence) -> str:
    return ((evidence.pod.document or {}).get("metadata") or {}).get("generateName") or ""


def _is_one_of(event: Event, names: list[str]) -> bool:
    name = event["involvedObject"].get("name") or ""
    return any(re.fullmatch(f"{re.escape(called)}({MADE_UP})?", name) for called in names)


def _forgotten(evidence: Evidence, events: list[Event]) -> str:
    kubectl, namespace = evidence.connection.kubectl, evidence.parameters.namespace
    subjects = sorted({(event["reason"], event["involvedObject"]["name"]) for event in events})
    return "\n".join(
        f"{kubectl} delete events -n {namespace} --field-selector reason={reason},involvedObject.name={name}"
        for reason, name in subjects
    )


def _denied_in_status(evidence: Evidence) -> str:
    for status in ((evidence.pod.document or {}).get("status") or {}).get("containerStatuses") or []:
        for state in (status.get("state") or {}, status.get("lastState") or {}):
            for details in state.values():
                message = (details or {}).get("message") or ""
                if DENIED.lower() in message.lower() and "serviceaccount/token" in message:
                    return f"container {status['name']}: {message}"
    return ""


def _denied_in_probe(evidence: Evidence) -> str:
    if not evidence.pod.probe.allowed or evidence.pod.document is None:
        return ""
    token = evidence.pod.probe.token
    return token.unreadable if token and DENIED in token.unreadable else ""


def _left_by_a_program(evidence: Evidence, container: Container | None) -> Symptom | None:
    """Return the symptom if a program of the container has left the user and the group who may read the token."""
    spec, probe = evidence.pod.spec, evidence.pod.probe
    owner, readers = spec.token_readers if spec else (None, None)
    if (owner, readers) == (None, None) or container is None or not probe.allowed or not container.has_role:
        return None
    if not container.token_at(container.value(TOKEN_FILE)):
        return None
    others = [
        (user, groups[0]) for user, *groups in probe.processes if user not in (owner, 0) and readers not in groups
    ]
    if not others:
        return None
    user, group = min(others)
    may = (
        f"runAsUser: {owner}, so only user {owner} can"
        if readers is None
        else f"fsGroup: {readers}, so only group {readers} can"
    )
    return Symptom(
        f"A program in the pod runs as user {user}, who isn't allowed to read the token.",
        expected=f"fsGroup: {group} or runAsUser: {user} in the securityContext, so that user {user} can read it",
        found=f"container {container.name}: {may} read the token",
        source="kubectl get pod -o yaml, spec; kubectl exec … -- sh -c 'cat /proc/[0-9]*/status'",
        repair=pod_commands.replaced(evidence, lambda _, manifest: _readable(_, manifest, group)),
        severity="warning",
    )


def _readable(_: Evidence, manifest: dict[str, Any], group: int = 65534) -> None:
    # 65534 is the group `nobody`: only the container's processes are in it.
    manifest["spec"]["securityContext"] = {**(manifest["spec"].get("securityContext") or {}), "fsGroup": group}


def _selecting_windows(_: Evidence, manifest: dict[str, Any]) -> None:
    manifest["spec"]["nodeSelector"] = {**(manifest["spec"].get("nodeSelector") or {}), SYSTEM: "windows"}


def _node_terms(spec: PodSpecDocument) -> list[dict[str, Any]]:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    return required.get("nodeSelectorTerms") or []


def _wants_windows(term: dict[str, Any]) -> bool:
    return any(
        each["key"].endswith(SYSTEM) and each["operator"] == "In" and each.get("values") == ["windows"]
        for each in term.get("matchExpressions") or []
    )
