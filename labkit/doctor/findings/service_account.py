"""The service account: does it exist, and does its annotation name the right role?"""

import re
from typing import Any

from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, NotRead, accounts, kinds, known, variables
from labkit.doctor.evidence.account import ROLE_ARN
from labkit.doctor.evidence.candidates import made_by_eksctl
from labkit.doctor.evidence.cluster import OLDER_KEYS
from labkit.doctor.evidence.matches import matches
from labkit.doctor.evidence.objects import Workload
from labkit.doctor.evidence.pod_spec import service_account_of
from labkit.doctor.evidence.reading import Read
from labkit.doctor.finding import Severity, Symptom, any_finding, cause
from labkit.doctor.repairs import advice, pod_commands, words
from labkit.doctor.repairs.commands import ROLE_NAME, Commands, annotate
from labkit.doctor.repairs.repair import Repair
from labkit.documents import ROLE_ANNOTATION
from labkit.policy import Policy, Principal, Request, evaluate_service_trust, names_service
from labkit.policy.arn import Arn

LEARN = "03-service-account.ipynb"
POD_IDENTITY, POD_IDENTITY_ACTIONS = "pods.eks.amazonaws.com", ["sts:AssumeRole", "sts:TagSession"]
SOURCE = "kubectl get serviceaccount -o yaml, metadata.annotations"
# The field managers of clients that people use by hand. Any other client may write the object again automatically.
BY_HAND = re.compile(r"kubectl|OpenAPI-Generator|python|labkit|Mozilla|node-fetch|unknown|curl|Lens", re.IGNORECASE)


@cause("namespace-missing", stages.POD, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def namespace_missing(evidence: Evidence) -> Symptom | None:
    if evidence.cluster.service_account is not None:
        return None
    namespace, kubectl = evidence.parameters.namespace, evidence.connection.kubectl
    if evidence.cluster.api.get("namespace", namespace) is not None:
        return None
    return Symptom(
        f"The namespace {namespace} doesn't exist.",
        expected=f"namespace {namespace}",
        found="no such namespace",
        source="kubectl get namespace",
        repair=f"# This creates the namespace {namespace}.\n{kubectl} create namespace {namespace}\n"
        f"{Commands(evidence).create_service_account()}",
    )


@cause("service-account-missing", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def missing(evidence: Evidence) -> Symptom | None:
    if evidence.cluster.service_account is not None or namespace_missing(evidence):
        return None
    namespace, name = evidence.parameters.namespace, evidence.parameters.service_account
    names = [account["metadata"]["name"] for account in evidence.cluster.api.service_accounts(namespace)]
    return Symptom(
        f"The service account {name} doesn't exist in the namespace {namespace}{_and_is_named(evidence)}.",
        expected=evidence.expected.subject,
        found=", ".join(names) or f"none in namespace {namespace}",
        source="kubectl get serviceaccounts",
        repair=Commands(evidence).create_service_account(),
    )


@cause(
    "service-account-annotation-missing",
    stages.ANNOTATION,
    LEARN,
    reads=(kinds.SERVICE_ACCOUNTS,),
    explained_by=("pod-role-arn-malformed",),
)
def annotation_missing(evidence: Evidence) -> Symptom | None:
    """The annotation is missing, and no other finding explains why."""
    if not _is_bare(evidence):
        return None
    if any(cause(evidence) for cause in (annotation_on_the_pod, annotation_taken_away, eksctl_role)):
        return None
    if sources := variables.hidden_role(evidence):
        if not evidence.pod.probe_allowed:
            why = "AWS_ROLE_ARN comes from there, and the doctor doesn't read Secrets"
            raise NotRead(Read("get", sources[0], f"-n {evidence.parameters.namespace}"), why, "--probe")
        if evidence.expected.role_is_assumed:
            return None
    return Symptom(
        f"The service account {evidence.parameters.service_account} names no role, so its pods get no role.",
        expected=f"{ROLE_ANNOTATION}: {_wanted(evidence)}",
        found=_not_found(evidence),
        source=SOURCE,
        repair=_annotated(evidence),
    )


@cause("service-account-annotation-key-typo", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def annotation_key_typo(evidence: Evidence) -> Symptom | None:
    key = evidence.cluster.misspelt_key
    if not key:
        return None
    return Symptom(
        f"The annotation with the role's ARN has the wrong key, {key}: the pod identity webhook doesn't read it.",
        expected=ROLE_ANNOTATION,
        found=key,
        source=SOURCE,
        repair=_annotated(evidence, without=key),
    )


@cause("service-account-annotation-arn-malformed", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def annotation_arn_malformed(evidence: Evidence) -> Symptom | None:
    """The annotation isn't a role's ARN. STS answers `Request ARN is invalid`."""
    arn = evidence.cluster.annotation
    if not arn or ROLE_ARN.fullmatch(arn):
        return None
    return Symptom(
        # repr shows invisible characters.
        f"The annotation says {arn!r}, which is not a role's ARN.",
        expected=_wanted(evidence),
        found=repr(arn),
        source=SOURCE,
        repair=_annotated(evidence),
    )


@cause("service-account-annotation-arn-differs", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def annotation_arn_differs(evidence: Evidence) -> Symptom | None:
    """The annotation has the role's name, but another path, partition or account. For STS, that's another role.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-arns
    """
    arn = evidence.cluster.annotation
    if not ROLE_ARN.fullmatch(arn) or Arn.parse(arn).name != evidence.expected.role_name:
        return None
    if arn != (right := evidence.expected.role_arn):
        if _place(arn) == _place(right):
            # Only IAM knows the role's path, so the role must be readable.
            evidence.aws.role_account.role(evidence.expected.role_name)
        return _differing(evidence, right, _annotated_with_namesake(evidence, right))
    if (role := _in_own_account(evidence)) is None:
        return None
    comment = "# If the AWS account in the annotation is wrong, run this, and then create the pod again:"
    right = words.shown(comment, annotate(evidence, role))
    return _differing(evidence, role, right, "warning")


@cause("service-account-annotation-role-mismatch", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def annotation_role_mismatch(evidence: Evidence) -> Symptom | None:
    arn = evidence.cluster.annotation
    if (
        not arn
        or not ROLE_ARN.fullmatch(arn)
        or Arn.parse(arn).name == evidence.expected.role_name
        or is_role_of_its_own(evidence)
    ):
        return None
    named, account = f"the role {Arn.parse(arn).name}", evidence.expected.account
    if (account_id := Arn.parse(arn).account) != evidence.connection.account_id:
        named += f" of the account {account_id}"
    right = (
        f"not {evidence.expected.role_name}" if evidence.expected.role_arn else f"which nothing connects with {account}"
    )
    is_only_named = not (evidence.expected.role_is_known or evidence.cluster.is_of_lab)
    return Symptom(
        f"The annotation names {named}, {right}.",
        expected=_wanted(evidence),
        found=arn,
        source=SOURCE,
        repair=Repair.of(_annotated(evidence), advice.named_role_stays(evidence, arn) if is_only_named else ""),
    )


@cause("annotation-on-the-pod", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def annotation_on_the_pod(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html"""
    if not _is_bare(evidence):
        return None
    where, key, role = _annotated_elsewhere(evidence)
    if not where:
        return None
    return Symptom(
        f"The annotation with the role is on the {where}. The webhook reads only the service account's annotations.",
        expected=f"{ROLE_ANNOTATION} on the service account {evidence.parameters.service_account}",
        found=f"{key}: {role} on the {where}",
        source="kubectl get pod -o yaml, metadata.annotations",
        repair=_annotated(evidence, role_arn=_arn_of(evidence, role)),
    )


@cause("service-account-annotation-taken-away", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def annotation_taken_away(evidence: Evidence) -> Symptom | None:
    """A controller has removed the annotation from the service account since the pod got its role.

    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """
    account, spec = evidence.cluster.service_account, evidence.pod.spec if _is_bare(evidence) else None
    if account is None or spec is None or not spec.is_mutated:
        return None
    managers = account["metadata"].get("managedFields") or []
    last = max(managers, key=lambda manager: manager.get("time") or "", default=None)
    made = spec.document["metadata"].get("creationTimestamp") or ""
    if last is None or (last.get("time") or "") <= made or BY_HAND.match(last.get("manager") or "unknown"):
        return None
    return Symptom(
        f"{last['manager']} has removed the annotation from the service account since the pod was made.",
        expected=f"{ROLE_ANNOTATION}: {_meant(evidence, spec.containers[0].value('AWS_ROLE_ARN'))}",
        found=f"{_not_found(evidence)}, written by {last['manager']} at {last['time']}",
        source="kubectl get serviceaccount -o yaml --show-managed-fields",
        repair=Repair.of(
            f"# add the annotation to the manifests of {last['manager']}, or {last['manager']} will remove it again",
            _annotated(evidence, role_arn=spec.containers[0].value("AWS_ROLE_ARN")),
        ),
    )


@cause("eksctl-role-without-annotation", stages.ANNOTATION, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def eksctl_role(evidence: Evidence) -> Symptom | None:
    """eksctl made the role, but the annotation is missing.

    As long as the role's CloudFormation stack exists, eksctl doesn't restore the annotation.

    https://docs.aws.amazon.com/eks/latest/eksctl/iamserviceaccounts.html
    """
    if not _is_bare(evidence):
        return None
    made = known(lambda: _made_by_eksctl(evidence)) or []
    if len(made) != 1:
        return None
    return Symptom(
        f"eksctl made the role {Arn.parse(made[0]).name} for the service account, but the annotation is missing.",
        expected=f"{ROLE_ANNOTATION}: {made[0]}",
        found=_not_found(evidence),
        source=f"iam:ListRoles; {SOURCE}",
        repair=_annotated(evidence, role_arn=made[0]),
    )


@cause("pod-identity-role-refuses-eks", stages.IDENTITY, LEARN, reads=(kinds.SERVICE_ACCOUNTS,))
def pod_identity_role_refuses(evidence: Evidence) -> Symptom | None:
    """The trust policy of an association's role doesn't let EKS Pod Identity assume the role.

    https://docs.aws.amazon.com/eks/latest/userguide/pod-id-role.html
    """
    if evidence.cluster.service_account is None or not (ids := accounts.associations(evidence)):
        return None
    arn = evidence.aws.account.role_of_association(evidence.parameters.cluster, ids[0])
    role: Any = evidence.aws.accounts.of(Arn.parse(arn).account).role(Arn.parse(arn).name) if arn else None
    trust = Policy.read(role["AssumeRolePolicyDocument"] if role else {}, kind="trust", name=Arn.parse(arn).name)
    context = _of_pod_identity(evidence, arn)
    refused = [each for each in POD_IDENTITY_ACTIONS if _refuses_eks(trust, each, context)]
    # Other findings are about the annotated role's own trust policy.
    if not arn or not refused or arn == evidence.cluster.annotation:
        return None
    return Symptom(
        f"The role of the Pod Identity association {ids[0]} doesn't let {POD_IDENTITY} assume it, so pods get no role."
        if role
        else f"The role of the Pod Identity association {ids[0]} doesn't exist, so pods get no role.",
        expected=f"a trust policy of {arn} that allows {words.listed(POD_IDENTITY_ACTIONS)} to {POD_IDENTITY}",
        found=_why_refused(trust, refused, context) if role else "no such role",
        source="eks:DescribePodIdentityAssociation, iam:GetRole",
        repair=advice.pod_identity_role_stays(arn, POD_IDENTITY, POD_IDENTITY_ACTIONS),
    )


@cause(
    "pod-identity-association-too",
    stages.IDENTITY,
    LEARN,
    reads=(kinds.SERVICE_ACCOUNTS,),
    explained_by=("pod-proxy-without-no-proxy",),
)
def pod_identity_association_too(evidence: Evidence) -> Symptom | None:
    """The service account has a Pod Identity association, with or without an annotation.

    https://docs.aws.amazon.com/eks/latest/userguide/pod-identities.html
    """
    ids = accounts.associations(evidence) if evidence.cluster.service_account else []
    if not ids or any_finding(evidence, pod_identity_role_refuses):
        return None
    named, caller = f"the association {', '.join(ids)}", known(lambda: evidence.pod.caller)
    actual = f"{named}; in the pod {evidence.pod.name}: {caller.identity}" if caller else named
    if accounts.uses_pod_identity(evidence):
        is_refused = caller is not None and not caller.arn
        gets = "should get that role, but gets no credentials." if is_refused else "gets that role. So do new pods."
        who_gets = f"the pod {evidence.pod.name} {gets}"
    else:
        is_refused, who_gets = False, "new pods get that role. Pods that have the annotation's role keep it."
    is_alone = not evidence.cluster.annotation
    return Symptom(
        f"The service account {'has' if is_alone else 'also has'} a role from EKS Pod Identity ({', '.join(ids)}): "
        f"{who_gets}",
        expected="either the annotation or the association",
        found=actual if is_alone else f"{ROLE_ANNOTATION}, and {actual}",
        source="eks:ListPodIdentityAssociations",
        repair=advice.association_stays(evidence, ids, caller),
        severity="error" if is_refused else "note" if is_alone else "warning",
    )


def _of_pod_identity(evidence: Evidence, role_arn: str) -> dict[str, str]:
    """Return the known values of the request in which EKS Pod Identity assumes a role.

    https://docs.aws.amazon.com/eks/latest/userguide/pod-id-abac.html
    """
    parameters, account = evidence.parameters, evidence.aws.account.account_id
    partition = Arn.parse(role_arn).partition
    cluster = f"arn:{partition}:eks:{parameters.region}:{account}:cluster/{parameters.cluster}"
    tags = {
        "eks-cluster-arn": cluster,
        "eks-cluster-name": parameters.cluster,
        "kubernetes-namespace": parameters.namespace,
        "kubernetes-service-account": parameters.service_account,
    }
    of_request = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    return {"aws:SourceArn": cluster, "aws:SourceAccount": account, **of_request}


def _refuses_eks(trust: Policy, action: str, context: dict[str, str]) -> bool:
    """Whether the trust policy refuses EKS Pod Identity this action, whatever the unknown values of the request are."""
    request = Request(Principal.service(POD_IDENTITY), action, "*", context)
    denied, allowed = (matches([trust], request, allow=allow) for allow in (False, True))
    return bool(denied.applying) or not (allowed.applying or allowed.open)


def _why_refused(trust: Policy, actions: list[str], context: dict[str, str]) -> str:
    if not all(names_service(trust, service=POD_IDENTITY, action=each) for each in actions):
        return f"no statement allows {words.listed(actions)}"
    return evaluate_service_trust(trust, service=POD_IDENTITY, action=actions[0], context=context).reason


def is_role_of_its_own(evidence: Evidence) -> bool:
    """Whether the annotation names an unexpected role that seems right.

    An unexpected role seems right if its trust policy names the service account, and IAM lacks the expected role.
    """
    arn = evidence.cluster.annotation
    expected = evidence.expected
    return known(
        lambda: evidence.aws.role is None and arn != expected.role_arn and arn in expected.roles_that_trust_it, False
    )


def _place(arn: str) -> tuple[str, str]:
    parsed = Arn.parse(arn)
    return parsed.partition, parsed.account


def _differing(evidence: Evidence, right: str, repair: str | Repair, severity: Severity = "error") -> Symptom:
    return Symptom(
        f"The role's ARN is {right}, but the annotation says {evidence.cluster.annotation}.",
        expected=right,
        found=evidence.cluster.annotation,
        source=f"iam:GetRole, Arn; {SOURCE}",
        repair=repair,
        severity=severity,
    )


def _annotated_with_namesake(evidence: Evidence, right: str) -> Repair:
    """Return the repair that replaces the annotated ARN with `right`, an ARN that ends with the same role name."""
    if not evidence.aws.has_only_the_name:
        return _annotated(evidence)
    comment = "# Once the owner has done that, run the command below. Then create the pod again."
    return Repair.of(advice.named_role_stays(evidence, right), words.shown(comment, annotate(evidence, right)))


def _in_own_account(evidence: Evidence) -> str | None:
    """Return the ARN of a role in the cluster's account that has the same name as the annotated role.

    - If the annotated role can be read or doesn't exist, return None.
    - If it can't be read, but the pod is known to act as the role that the pod should have, return None.
    - Otherwise, search with `Evidence.namesake`. Raise `NotRead` if the search finds no role.
    """
    try:
        evidence.aws.role_account.role(evidence.expected.role_name)
    except NotRead:
        if known(lambda: evidence.expected.role_is_assumed, False):
            return None
        if role := evidence.expected.namesake(evidence.expected.role_name):
            return str(role["Arn"])
        raise
    return None


def _and_is_named(evidence: Evidence) -> str:
    try:
        if evidence.cluster.pods:
            return f", but the pod {evidence.cluster.pods[0]['metadata']['name']} runs as it"
        trusts = evidence.expected.role_arn in evidence.expected.roles_that_trust_it
    except NotRead:
        return ""
    return f", but the role {evidence.expected.role_name} trusts it" if trusts else ""


def _wanted(evidence: Evidence) -> str:
    """Return the ARN of the service account's role.

    If the role is unknown, return the ARNs of roles with a trust policy or a tag for the service account, joined
    with `or`. If no such role is found, return `<ROLE_NAME>`.
    """
    expected = evidence.expected
    if expected.role_arn:
        return expected.role_arn
    return " or ".join(known(lambda: expected.role_candidates or expected.roles_that_admit_it) or []) or ROLE_NAME


def _is_bare(evidence: Evidence) -> bool:
    """Return True if the service account exists and has no annotation for a role.

    An annotation with a misspelt key counts as an annotation. If the pod's containers get a role without the webhook
    and without an annotation, return False. Do the same if the pod gets its role from a Pod Identity association, or
    if there is no pod and a new one would get it from there.
    """
    is_bare = (
        evidence.cluster.service_account is not None
        and not evidence.cluster.annotation
        and not evidence.cluster.misspelt_key
    )
    return is_bare and not variables.works_by_hand(evidence) and not known(lambda: _is_associated(evidence), False)


def _is_associated(evidence: Evidence) -> bool:
    if evidence.pod.document is None:
        return bool(accounts.associations(evidence))
    return accounts.uses_pod_identity(evidence)


def _made_by_eksctl(evidence: Evidence) -> list[str]:
    roles = [evidence.expected.role_arn] if _role_is_decided(evidence) else evidence.expected.roles_that_trust_it
    return [arn for arn in roles if arn and made_by_eksctl(evidence.aws.account, evidence.parameters, arn)]


def _not_found(evidence: Evidence) -> str:
    return (
        "no annotation with a role"
        if ROLE_ANNOTATION not in evidence.cluster.annotations
        else f"{ROLE_ANNOTATION}: (empty)"
    )


def _annotated_elsewhere(evidence: Evidence) -> tuple[str, str, str]:
    """Return the kind of the wrongly annotated object (the pod or its workload), the annotation's key, and its role.

    The key may be one of kiam's or kube2iam's.
    """
    spec = known(lambda: evidence.pod.spec)
    if spec is None:
        return "", "", ""
    owner = known(lambda: spec.owner) or Workload()
    metadata = [owner.get("metadata"), ((owner.get("spec") or {}).get("template") or {}).get("metadata")]
    places = [
        ("pod", spec.annotations),
        *((owner.get("kind", ""), (each or {}).get("annotations")) for each in metadata),
    ]
    keys = (ROLE_ANNOTATION, *OLDER_KEYS)
    roles = ((kind, key, (there or {}).get(key) or "") for kind, there in places for key in keys)
    return next((each for each in roles if each[2]), ("", "", ""))


def _arn_of(evidence: Evidence, role: str) -> str:
    """Return the ARN of the role that an annotation gives by ARN or, for kube2iam, by name; empty if unknown."""
    if ROLE_ARN.fullmatch(role):
        return role
    named = known(lambda: evidence.aws.account.role(role))
    return named["Arn"] if named else ""


def _role_is_decided(evidence: Evidence) -> bool:
    """Whether the doctor's caller or a run of the lab decides which role the service account should have."""
    return evidence.expected.role_is_known or evidence.cluster.is_of_lab


def _meant(evidence: Evidence, role_arn: str) -> str:
    """Return the ARN of the role to annotate: `role_arn`, unless it isn't an ARN or another one is told.

    Empty if unknown.
    """
    return role_arn if ROLE_ARN.fullmatch(role_arn) and not _role_is_decided(evidence) else evidence.expected.role_arn


def _annotated(evidence: Evidence, *, without: str = "", role_arn: str = "") -> Repair:
    """Return the repair that annotates the service account, and removes the annotation with the key `without`."""
    meant = _meant(evidence, role_arn)
    named = Repair.of(annotate(evidence, meant, without=without))
    # A pod gets its role only when it's created.
    try:
        pod = evidence.pod.document
        if pod and service_account_of(pod["spec"]) == evidence.parameters.service_account:
            return Repair.of(named, pod_commands.replaced(evidence) if meant else "# then create the pods again")
    except NotRead:
        pass
    return named
