"""Why a service account's pods do not get their role: looks for every cause, stage by stage, and only reads."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from labkit.connection import Connection
from labkit.diagnosis.evidence import Evidence, NotRead, Reads, workloads
from labkit.diagnosis.evidence.evidence import ROLE_ARN
from labkit.diagnosis.evidence.objects import Container, Metadata, Pod, ServiceAccount
from labkit.diagnosis.evidence.pod_spec import service_account_of
from labkit.diagnosis.evidence.reading import Read
from labkit.diagnosis.finding import Cause, Finding, look_for
from labkit.diagnosis.findings.catalogue import CAUSES
from labkit.diagnosis.order import in_order
from labkit.diagnosis.stages import RESULTS, STAGES, Stage
from labkit.doctor.report import Check, Diagnosis, each_once
from labkit.errors import LabError
from labkit.policy.arn import Arn
from labkit.run_parameters import Parameters

if TYPE_CHECKING:
    import boto3
    from kubernetes.client import ApiClient

Outcomes = dict[Cause, Finding | NotRead | None]
ENDED = ("Succeeded", "Failed")
# A container's variables whose values are no secret.
TOLD = (
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
    """What is wrong between the pods of a service account and its role; only reads.

    ::

        found = diagnose(
            namespace="shop", service_account="cart", aws=boto3.Session(), kubernetes=ApiClient(), cluster="blue"
        )

    Args:
        connection: the lab's or a target's connection, `labkit.targets.look(parameters)`; else `aws`, a session in
            the cluster's account and region, `kubernetes`, a client of the cluster's API, and `cluster`, its EKS name.
        pod: the pod to look at; without one, the newest of each owner that runs as the service account.
        role: the name of the role that it should have; without one, what the annotation or the trust policies say.
        action: what the pod wants to do, such as `s3:ListBucket`, on `resource`, an ARN.
        probe: whether commands may be run in the pod, and its token be sent to STS.
        reads: answers that are there already: of another diagnosis, or a record.

    Raises `InvalidParameter` if a name breaks its rule, `LabError` where cluster or account cannot be reached, or
    where there is no such service account, role or pod and nothing says that there should be one.
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
    """What is found at a run's service account. Its role may rightly be missing, which is a finding then.

    Without `is_of_run` the parameters only say where to look, and nothing that a repair makes is tagged as the run's.

    Raises `LabError` if there is no such service account, and nothing says that there should be one.
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
    """Raise `LabError` if a name that somebody gave may be misspelt: the service account's, the role's or the pod's."""
    refuse_misspelt(any_pod := evidence(""))
    if any_pod.role_is_known:
        refuse_misspelt_role(any_pod)
    if pod:
        refuse_misspelt_pod(evidence(pod))


def refuse_misspelt(evidence: Evidence) -> None:
    """Raise `LabError` if there is no such service account, and neither a pod nor a role names it.

    It may be misspelt then, and a repair would make an account, or lead a role to it, that nobody wants.
    """
    parameters = evidence.parameters
    if parameters.is_usual:
        return
    try:
        if evidence.service_account is not None or evidence.is_named or evidence.is_namespace_ending:
            return
        accounts = [each["metadata"] for each in evidence.cluster.all_service_accounts]
    except NotRead:
        return  # the diagnosis says so
    name = f"{parameters.namespace}/{parameters.service_account}"
    meant, options = _nearest(parameters, [(each["namespace"], each["name"]) for each in accounts])
    raise LabError(
        f"{name}: no such service account{f'; did you mean {meant}?' if meant else '.'}",
        where=f"the service accounts of the cluster {parameters.cluster}",
        next=f"labkit doctor {options}" if meant else "kubectl get serviceaccounts --all-namespaces",
    )


def refuse_misspelt_role(evidence: Evidence) -> None:
    """Raise `LabError` if IAM has no role of the name that was asked for, and the service account has another one.

    It may be misspelt then, and a repair would make a role, and lead the service account to it, that nobody wants.
    """
    parameters, name = evidence.parameters, evidence.parameters.role_name
    try:
        if evidence.role is not None or evidence.role_of_run == name or not (own := _roles_of_its_own(evidence)):
            return
    except NotRead:
        return  # the diagnosis says so
    try:
        others = [role["RoleName"] for role in evidence.account.roles]
    except NotRead:
        others = []
    meant = next(iter([*get_close_matches(name, own, n=1), *get_close_matches(name, others, n=1)]), "")
    options = f"-n {parameters.namespace} -s {parameters.service_account}"
    raise LabError(
        f"{name}: no such role{f'; did you mean {meant}?' if meant else '.'}",
        where=f"the roles of the account {evidence.role_account_id}",
        next=f"labkit doctor {options}{f' --role {meant}' if meant else ''}",
    )


def _roles_of_its_own(evidence: Evidence) -> list[str]:
    """The names of roles that the service account has beside the one that was asked for: by annotation, or by trust.

    Empty if the annotation names the one that was asked for.
    """
    if ROLE_ARN.fullmatch(evidence.annotation):
        annotated = Arn.parse(evidence.annotation).name
        return [annotated] if annotated != evidence.parameters.role_name else []
    return [Arn.parse(arn).name for arn in evidence.roles_that_trust_it]


def refuse_misspelt_pod(evidence: Evidence) -> None:
    """Raise `LabError` if there is no such pod, and nothing says that one was replaced.

    It may be misspelt then, and a repair would make a pod that nobody wants.
    """
    parameters, name = evidence.parameters, evidence.pod_name
    if parameters.is_usual:
        return
    try:
        if evidence.service_account is None or evidence.pod or workloads.may_have_been_replaced(evidence, name):
            return
        pods = [each["metadata"]["name"] for each in evidence.pods]
    except NotRead:
        return  # the diagnosis says so
    # However different its name is, a pod of the service account is the best guess.
    meant = next(iter(get_close_matches(name, pods, n=1, cutoff=0)), "")
    options = f"-n {parameters.namespace} -s {parameters.service_account}"
    raise LabError(
        f"{parameters.namespace}/{name}: no such pod{f'; did you mean {meant}?' if meant else '.'}",
        where=f"the pods of the namespace {parameters.namespace}, cluster {parameters.cluster}",
        next=f"labkit doctor {options} --pod {meant}" if meant else f"kubectl get pods -n {parameters.namespace}",
    )


def _nearest(parameters: Parameters, accounts: list[tuple[str, str]]) -> tuple[str, str]:
    """What may be meant, and the options that name it: a like name here or in a like namespace, or elsewhere."""
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
    """What is found for each pod that runs as the service account, as one diagnosis.

    Args:
        evidence: the evidence for a pod of this name.
        pod: the only pod to look at; without one, the newest of each owner, and in a rollout of each ReplicaSet.
    """
    names = [pod] if pod else _pods(evidence(""))
    return _joined([examine(evidence(name)) for name in names or [""]])


def examine(evidence: Evidence) -> Diagnosis:
    """What is found in this evidence, stage by stage: of one service account and one pod."""
    outcomes: Outcomes = {}
    checks: dict[Stage, Check] = {}
    for stage in STAGES:
        evidence.reads.used.clear()
        here = dict(look_for((each for each in CAUSES if each.stage is stage), evidence))
        checks[stage] = _check(stage, here, evidence)
        outcomes |= here
    try:
        role_arn, pod_name = evidence.role_arn, evidence.pod_name if evidence.pod else ""
    except NotRead:
        role_arn = pod_name = ""
    return Diagnosis(
        subject=evidence.subject,
        findings=in_order(_without_consequences(outcomes)),
        checks=checks,
        read=list(evidence.reads.asked),
        made=list(evidence.reads.made),
        cluster=evidence.parameters.cluster,
        role_arn=role_arn,
        pods=[pod_name] if pod_name else [],
        facts=_facts(evidence, pod_name),
    )


def _without_consequences(outcomes: Outcomes) -> list[Finding]:
    """The findings; without what follows from an error of the same stage or an earlier one, and only repeats it."""
    found = {cause: outcome for cause, outcome in outcomes.items() if isinstance(outcome, Finding)}
    wrong = [cause for cause, finding in found.items() if finding.severity == "error" and not cause.follows_from]
    first = min((STAGES.index(cause.stage) for cause in wrong), default=len(STAGES))
    return [finding for cause, finding in found.items() if not cause.follows_from or STAGES.index(cause.stage) < first]


def _check(stage: Stage, outcomes: Outcomes, evidence: Evidence) -> Check:
    """What became of a stage: it is right where all that it rests on was read, and nothing says otherwise."""
    told = [outcome.severity for outcome in outcomes.values() if isinstance(outcome, Finding)]
    result = min(told, key=RESULTS.index) if told else stage.at_best(evidence)
    unread = each_once(outcome for outcome in outcomes.values() if isinstance(outcome, NotRead))
    told_of = {read.kind for read in (*evidence.reads.asked, *(error.read for error in unread))}
    needed = {kinds: None for cause, outcome in outcomes.items() if outcome is None for kinds in cause.reads}
    unasked = [kinds[0] for kinds in needed if not told_of.intersection(kinds)]
    if result == "right" and (not outcomes or unread or unasked):
        result = "not looked at"
    return Check(result, list(evidence.reads.used), unread, unasked)


def _joined(diagnoses: list[Diagnosis]) -> Diagnosis:
    """Return one diagnosis of several pods of the same service account. Findings that belong to no pod appear once."""
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


def _check_of_all(checks: list[Check]) -> Check:
    """A stage of several pods: as bad as the worst of them."""
    return Check(
        min((each.result for each in checks), key=RESULTS.index),
        list(dict.fromkeys(read for each in checks for read in each.read)),
        each_once(error for each in checks for error in each.unread),
        list(dict.fromkeys(kind for each in checks for kind in each.unasked)),
    )


def _facts(evidence: Evidence, pod_name: str) -> dict[str, Any]:
    """What the findings rest on, for a report that is handed on: of a pod only what concerns its role."""
    read: dict[str, Callable[[], Any]] = {
        "service account": lambda: evidence.service_account and _metadata(evidence.service_account),
        f"pod {pod_name}".strip(): lambda: evidence.pod and _of_pod(evidence.pod),
        "OIDC provider": lambda: evidence.provider and _without(evidence.provider, "ThumbprintList"),
        "role": lambda: evidence.role and _without(evidence.role, "RoleLastUsed"),
    }
    facts = {}
    for name, look in read.items():
        try:
            facts[name] = look() or "not found"
        except NotRead as unread:
            facts[name] = str(unread)
    return facts


def _metadata(account: ServiceAccount) -> dict[str, Any]:
    kept = ("namespace", "name", "annotations", "labels")
    return {key: value for key, value in account["metadata"].items() if key in kept}


def _without(document: Mapping[str, Any], changing: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != changing}


def _of_pod(pod: Pod) -> dict[str, Any]:
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


def _variables(container: Container) -> dict[str, str]:
    """A container's variables for AWS; of those that may be secret only that they are there."""
    return {
        variable["name"]: variable.get("value", "(a reference)") if variable["name"] in TOLD else "(not shown)"
        for variable in container.get("env") or []
        if variable["name"].startswith("AWS_")
    }


def _pods(evidence: Evidence) -> list[str]:
    """The newest pod of each owner. A pod that has ended or is about to counts only if the owner has no other."""
    try:
        pods = evidence.pods
    except NotRead:
        return []
    alive = [pod for pod in pods if not _has_ended(pod)]
    newest: dict[tuple[str, str], str] = {}
    for pod in alive or pods[:1]:
        newest.setdefault(_owner(pod["metadata"]), pod["metadata"]["name"])
    return list(newest.values())


def _has_ended(pod: Pod) -> bool:
    return (pod.get("status") or {}).get("phase") in ENDED or bool(pod["metadata"].get("deletionTimestamp"))


def _owner(metadata: Metadata) -> tuple[str, str]:
    """Who makes such pods: in a rollout, both ReplicaSets of a Deployment; a pod that nobody owns is its own."""
    for owner in metadata.get("ownerReferences") or []:
        if owner.get("controller"):
            return owner["kind"], owner["name"]
    return "Pod", metadata["name"]


def _connection(aws: Any, kubernetes: Any, cluster: str, reads: Reads) -> Connection:
    """The connection of another program's own clients. Raises `LabError`."""
    # These load boto3, which takes long.
    from labkit.targets import eks
    from labkit.targets.eks import cluster as eks_cluster

    if aws is None or kubernetes is None:
        raise LabError(
            "The doctor needs the AWS account and the cluster.",
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
