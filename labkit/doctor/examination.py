"""Find out why a service account's pods don't get their role: look for every cause, stage by stage."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from labkit.connection import Connection
from labkit.doctor.evidence import Evidence, NotRead, Reads, known, workloads
from labkit.doctor.evidence.account import ROLE_ARN
from labkit.doctor.evidence.objects import ContainerDocument, ObjectMeta, PodDocument, ServiceAccountDocument
from labkit.doctor.evidence.pod_spec import service_account_of
from labkit.doctor.evidence.reading import Read
from labkit.doctor.finding import Cause, Finding, in_order, look_for
from labkit.doctor.findings.catalogue import CAUSES
from labkit.doctor.report import Diagnosis, StageResult, each_once
from labkit.doctor.stages import RESULTS, STAGES, Stage
from labkit.errors import LabError
from labkit.policy.arn import Arn
from labkit.run_parameters import Parameters

if TYPE_CHECKING:
    import boto3
    from kubernetes.client import ApiClient

Outcomes = dict[Cause, Finding | NotRead | None]
ENDED = ("Succeeded", "Failed")
# A container's variables with values that aren't secret.
VARIABLES_SHOWN = (
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_STS",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)


def diagnose(
    *,
    namespace: str,
    service_account: str,
    connection: Connection | None = None,
    aws: "boto3.Session | None" = None,
    kubernetes: "ApiClient | None" = None,
    cluster: str = "",
    pod: str = "",
    role: str = "",
    action: str = "",
    resource: str = "",
    probe: bool = False,
    reads: Reads | None = None,
) -> Diagnosis:
    """Find out why a service account's pods don't get their role, and change nothing.

    ::

        found = diagnose(
            namespace="shop", service_account="cart", aws=boto3.Session(), kubernetes=ApiClient(), cluster="blue"
        )

    Args:
        connection: the result of `labkit.targets.look(parameters)`. Without it, pass `aws`, `kubernetes`, `cluster`.
        aws: a session in the cluster's account and region.
        kubernetes: a client of the cluster's API.
        cluster: the cluster's name in EKS.
        pod: the pod to examine; without it, the newest pod of each owner, such as a ReplicaSet.
        role: the name of the service account's role; without it, the doctor looks for the role in the annotation and
            in trust policies.
        action: the action that the pod needs, such as `s3:ListBucket`.
        resource: the ARN of the resource that `action` is for.
        probe: whether the doctor may run commands in the pod, and send the pod's token to STS.
        reads: answers from an earlier diagnosis or from a record. The doctor doesn't read them again.

    Raises `InvalidParameter` if a name is invalid. Raises `LabError` if a name seems misspelt, or if the cluster or the
    account can't be reached.
    """
    names = {"namespace": namespace, "service_account": service_account, "role_name": role, "cluster": cluster}
    parameters = Parameters.checked(**{name: value for name, value in names.items() if value})
    reads = reads or Reads()
    wanted: dict[str, Any] = {"role_is_known": bool(role), "action": action, "resource": resource, "probe": probe}
    connection = connection or _connection(aws, kubernetes, parameters.cluster, reads)

    def evidence(pod_name: str) -> Evidence:
        return Evidence(parameters, connection, pod_name=pod_name, is_of_run=False, reads=reads, **wanted)

    _refuse_misspelt_names(evidence, pod)
    return examine_pods(evidence, pod)


def examine_run(
    parameters: Parameters,
    connection: Connection,
    *,
    role_is_known: bool = True,
    is_of_run: bool = True,
    probe: bool = False,
    reads: Reads | None = None,
) -> Diagnosis:
    """Examine the service account in `parameters`. A missing role is a finding, not an error.

    `role_is_known`: whether the caller named the role, policy and bucket in `parameters`.

    `is_of_run`: whether `parameters` are those of a run.

    Raises `LabError` if the service account doesn't exist, and neither a pod nor a role names it.
    """
    reads = reads or Reads()

    def evidence(pod_name: str) -> Evidence:
        return Evidence(
            parameters,
            connection,
            pod_name=pod_name,
            role_is_known=role_is_known,
            is_of_run=is_of_run,
            probe=probe,
            reads=reads,
        )

    refuse_misspelt(evidence(""))
    return examine_pods(evidence)


def _refuse_misspelt_names(evidence: Callable[[str], Evidence], pod: str) -> None:
    refuse_misspelt(any_pod := evidence(""))
    if any_pod.expected.role_is_known:
        refuse_misspelt_role(any_pod)
    if pod:
        refuse_misspelt_pod(evidence(pod))


def refuse_misspelt(evidence: Evidence) -> None:
    """Raise `LabError` if the service account doesn't exist, and neither a pod nor a role names it.

    The name is probably misspelt. A repair would create an unwanted service account.
    """
    parameters = evidence.parameters
    if parameters.is_usual:
        return
    try:
        if evidence.cluster.service_account is not None or is_named(evidence) or evidence.cluster.is_namespace_ending:
            return
        accounts = [each["metadata"] for each in evidence.cluster.api.all_service_accounts]
    except NotRead:
        return  # the diagnosis reports this error
    name = f"{parameters.namespace}/{parameters.service_account}"
    meant, options = _nearest(parameters, [(each["namespace"], each["name"]) for each in accounts])
    raise LabError(
        f"{name}: no such service account{f'; did you mean {meant}?' if meant else '.'}",
        where=f"the service accounts of the cluster {parameters.cluster}",
        next=f"labkit doctor {options}" if meant else "kubectl get serviceaccounts --all-namespaces",
    )


def is_named(evidence: Evidence) -> bool:
    """Whether a pod, a rejected pod's event, a role's trust policy or a role's tag names the service account."""
    name = f"{evidence.parameters.namespace}/{evidence.parameters.service_account}"
    # The API server's words when it rejects a pod.
    if evidence.cluster.pods or any(
        f"service account {name}:" in (event.get("message") or "") for event in evidence.pod.failed_creations
    ):
        return True
    return known(lambda: bool(evidence.expected.role_candidates), False)


def refuse_misspelt_role(evidence: Evidence) -> None:
    """Raise `LabError` if IAM doesn't have the role that the user named, and the service account has another role.

    The error prevents a repair that would create a role with a misspelt name.
    """
    parameters, name = evidence.parameters, evidence.parameters.role_name
    try:
        if (
            evidence.aws.role is not None
            or evidence.cluster.role_of_run == name
            or not (own := _roles_of_its_own(evidence))
        ):
            return
    except NotRead:
        return  # the diagnosis reports this error
    others = known(lambda: [role["RoleName"] for role in evidence.aws.account.roles]) or []
    meant = next(iter([*get_close_matches(name, own, n=1), *get_close_matches(name, others, n=1)]), "")
    options = f"-n {parameters.namespace} -s {parameters.service_account}"
    raise LabError(
        f"{name}: no such role{f'; did you mean {meant}?' if meant else '.'}",
        where=f"the roles of the account {evidence.expected.role_account_id}",
        next=f"labkit doctor {options}{f' --role {meant}' if meant else ''}",
    )


def _roles_of_its_own(evidence: Evidence) -> list[str]:
    """Return a list with the annotated role's name; an empty list if this role is `parameters.role_name`.

    If the annotation isn't a role's ARN, return the names of the roles with a trust policy that names the service
    account. Raises `NotRead`.
    """
    if ROLE_ARN.fullmatch(evidence.cluster.annotation):
        annotated = Arn.parse(evidence.cluster.annotation).name
        return [annotated] if annotated != evidence.parameters.role_name else []
    return [Arn.parse(arn).name for arn in evidence.expected.roles_that_trust_it]


def refuse_misspelt_pod(evidence: Evidence) -> None:
    """Raise `LabError` if the pod doesn't exist, and nothing shows that it was replaced.

    The name is probably misspelt. A repair would create an unwanted pod.
    """
    parameters, name = evidence.parameters, evidence.pod.name
    if parameters.is_usual:
        return
    try:
        if (
            evidence.cluster.service_account is None
            or evidence.pod.document
            or workloads.may_have_been_replaced(evidence, name)
        ):
            return
        pods = [each["metadata"]["name"] for each in evidence.cluster.pods]
    except NotRead:
        return  # the diagnosis reports this error
    # A pod of the service account is the best guess, however different its name is.
    meant = next(iter(get_close_matches(name, pods, n=1, cutoff=0)), "")
    options = f"-n {parameters.namespace} -s {parameters.service_account}"
    raise LabError(
        f"{parameters.namespace}/{name}: no such pod{f'; did you mean {meant}?' if meant else '.'}",
        where=f"the pods of the namespace {parameters.namespace}, cluster {parameters.cluster}",
        next=f"labkit doctor {options} --pod {meant}" if meant else f"kubectl get pods -n {parameters.namespace}",
    )


def _nearest(parameters: Parameters, accounts: list[tuple[str, str]]) -> tuple[str, str]:
    """Return the name that the user probably meant, and the options of `labkit doctor` for this name.

    The name is a service account's or a namespace's. If nothing fits, return two empty strings.
    """
    mine, name = parameters.namespace, parameters.service_account
    namespaces = {namespace for namespace, _ in accounts}
    alike = get_close_matches(mine, namespaces - {mine})
    for namespace in (mine, *alike):
        if near := get_close_matches(name, [each for where, each in accounts if where == namespace], n=1):
            meant = near[0] if namespace == mine else f"{namespace}/{near[0]}"
            return meant, f"-n {namespace} -s {near[0]}"
    if alike and mine not in namespaces:
        return f"the namespace {alike[0]}", f"-n {alike[0]} -s {name}"
    if elsewhere := [namespace for namespace, each in accounts if each == name]:
        return f"{elsewhere[0]}/{name}", f"-n {elsewhere[0]} -s {name}"
    return "", ""


def examine_pods(evidence: Callable[[str], Evidence], pod: str = "") -> Diagnosis:
    """Examine pods that run as the service account, and return one diagnosis.

    Args:
        evidence: a function that returns the evidence for a pod's name.
        pod: the only pod to examine. Without it, examine the newest pod of each controller, such as a ReplicaSet.
    """
    names = [pod] if pod else _pods(evidence(""))
    return _joined([examine(evidence(name)) for name in names or [""]])


def examine(evidence: Evidence) -> Diagnosis:
    """Examine one service account and one pod, stage by stage, and return the diagnosis."""
    outcomes: Outcomes = {}
    checks: dict[Stage, StageResult] = {}
    for stage in STAGES:
        evidence.reads.used.clear()
        here = dict(look_for((each for each in CAUSES if each.stage is stage), evidence))
        checks[stage] = _check(stage, here, evidence)
        outcomes |= here
    try:
        role_arn, pod_name = evidence.expected.role_arn, evidence.pod.name if evidence.pod.document else ""
    except NotRead:
        role_arn = pod_name = ""
    return Diagnosis(
        subject=evidence.expected.subject,
        findings=in_order(_without_consequences(outcomes)),
        checks=checks,
        read=list(evidence.reads.answered),
        made=list(evidence.reads.made),
        cluster=evidence.parameters.cluster,
        role_arn=role_arn,
        pods=[pod_name] if pod_name else [],
        facts=_facts(evidence, pod_name),
    )


def _without_consequences(outcomes: Outcomes) -> list[Finding]:
    """Return the findings that don't count as consequences of an error.

    A cause is primary if its `follows_from` is empty. A finding counts as a consequence if both are true:
    - Its own cause isn't primary.
    - Its stage, or an earlier stage, has an error with a primary cause.

    A finding also counts as a consequence if another error is one that its cause is `explained_by`.
    """
    findings = {cause: outcome for cause, outcome in outcomes.items() if isinstance(outcome, Finding)}
    errors = [cause.id for cause, finding in findings.items() if finding.severity == "error"]
    findings = {cause: finding for cause, finding in findings.items() if not _explains(errors, cause)}
    wrong = [cause for cause, finding in findings.items() if finding.severity == "error" and not cause.follows_from]
    first = min((STAGES.index(cause.stage) for cause in wrong), default=len(STAGES))
    return [
        finding for cause, finding in findings.items() if not cause.follows_from or STAGES.index(cause.stage) < first
    ]


def _explains(errors: list[str], cause: Cause) -> bool:
    others = [id for id in errors if id != cause.id]
    return bool(others) if "*" in cause.explained_by else any(id in cause.explained_by for id in others)


def _check(stage: Stage, outcomes: Outcomes, evidence: Evidence) -> StageResult:
    """Return the stage's result, with the facts that were read or are missing."""
    severities = [outcome.severity for outcome in outcomes.values() if isinstance(outcome, Finding)]
    result = min(severities, key=RESULTS.index) if severities else stage.at_best(evidence)
    unread = each_once(outcome for outcome in outcomes.values() if isinstance(outcome, NotRead))
    known_kinds = {read.kind for read in (*evidence.reads.answered, *(error.read for error in unread))}
    needed = {kinds: None for cause, outcome in outcomes.items() if outcome is None for kinds in cause.reads}
    unasked = [kinds[0] for kinds in needed if not known_kinds.intersection(kinds)]
    if result == "right" and (not outcomes or unread or unasked):
        result = "not looked at"
    return StageResult(result, list(evidence.reads.used), unread, unasked)


def _joined(diagnoses: list[Diagnosis]) -> Diagnosis:
    first, last = diagnoses[0], diagnoses[-1]
    return Diagnosis(
        subject=first.subject,
        findings=in_order(finding for each in diagnoses for finding in each.findings),
        checks={stage: _check_of_all([each.checks[stage] for each in diagnoses]) for stage in STAGES},
        read=last.read,
        made=last.made,
        cluster=first.cluster,
        role_arn=first.role_arn,
        pods=[pod for each in diagnoses for pod in each.pods],
        facts={name: fact for each in diagnoses for name, fact in each.facts.items()},
    )


def _check_of_all(checks: list[StageResult]) -> StageResult:
    return StageResult(
        min((each.result for each in checks), key=RESULTS.index),
        list(dict.fromkeys(read for each in checks for read in each.read)),
        each_once(error for each in checks for error in each.unread),
        list(dict.fromkeys(kind for each in checks for kind in each.unasked)),
    )


def _facts(evidence: Evidence, pod_name: str) -> dict[str, Any]:
    """Return the objects that the findings rely on, without secrets."""
    read: dict[str, Callable[[], Any]] = {
        "service account": lambda: evidence.cluster.service_account and _metadata(evidence.cluster.service_account),
        f"pod {pod_name}".strip(): lambda: evidence.pod.document and _of_pod(evidence.pod.document),
        "OIDC provider": lambda: evidence.aws.provider and _without(evidence.aws.provider, "ThumbprintList"),
        "role": lambda: evidence.aws.role and _without(evidence.aws.role, "RoleLastUsed"),
    }
    facts = {}
    for name, look in read.items():
        try:
            facts[name] = look() or "not found"
        except NotRead as unread:
            facts[name] = str(unread)
    return facts


def _metadata(account: ServiceAccountDocument) -> dict[str, Any]:
    kept = ("namespace", "name", "annotations", "labels")
    return {key: value for key, value in account["metadata"].items() if key in kept}


def _without(document: Mapping[str, Any], changing: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != changing}


def _of_pod(pod: PodDocument) -> dict[str, Any]:
    containers = [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
    return {
        "serviceAccountName": service_account_of(pod["spec"]),
        "phase": (pod.get("status") or {}).get("phase"),
        "containers": {container["name"]: _variables(container) for container in containers},
        "tokens": [
            source["serviceAccountToken"] | {"volume": volume["name"]}
            for volume in pod["spec"].get("volumes") or []
            for source in (volume.get("projected") or {}).get("sources") or []
            if "serviceAccountToken" in source
        ],
    }


def _variables(container: ContainerDocument) -> dict[str, str]:
    return {
        variable["name"]: variable.get("value", "(a reference)")
        if variable["name"] in VARIABLES_SHOWN
        else "(not shown)"
        for variable in container.get("env") or []
        if variable["name"].startswith("AWS_")
    }


def _pods(evidence: Evidence) -> list[str]:
    """Return the name of each owner's newest pod."""
    pods = known(lambda: evidence.cluster.pods) or []
    alive = [
        pod
        for pod in pods
        if (pod.get("status") or {}).get("phase") not in ENDED and not pod["metadata"].get("deletionTimestamp")
    ]
    # In a rollout, the pods of the old and of the new ReplicaSet have different owners.
    newest: dict[tuple[str, str], str] = {}
    for pod in alive or pods[:1]:
        newest.setdefault(_owner(pod["metadata"]), pod["metadata"]["name"])
    return list(newest.values())


def _owner(metadata: ObjectMeta) -> tuple[str, str]:
    for owner in metadata.get("ownerReferences") or []:
        if owner.get("controller"):
            return owner["kind"], owner["name"]
    return "Pod", metadata["name"]


def _connection(aws: Any, kubernetes: Any, cluster: str, reads: Reads) -> Connection:
    # Import only now: these modules load boto3, which takes long.
    from labkit.targets import eks
    from labkit.targets.eks import cluster as eks_cluster

    if aws is None or kubernetes is None:
        raise LabError(
            "The doctor needs an AWS session and a client of the cluster.",
            where="diagnose",
            next="diagnose(…, aws=boto3.Session(), kubernetes=ApiClient(), cluster=NAME)",
        )
    caller = reads.once(Read("sts:GetCallerIdentity", of="AWS"), lambda: aws.client("sts").get_caller_identity())
    described = eks_cluster.describe(aws, cluster, caller["Account"])
    return Connection(
        aws=aws,
        kubernetes=kubernetes,
        issuer=described["identity"]["oidc"]["issuer"],
        account_id=caller["Account"],
        partition=aws.get_partition_for_region(aws.region_name),
        webhook_restored_by=eks.WEBHOOK_RESTORED_BY,
        fetch=eks.fetch,
    )
