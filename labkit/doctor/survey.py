"""Survey a cluster: diagnose each of its service accounts that should have a role. No fact is read twice."""

from collections.abc import Iterator
from difflib import SequenceMatcher, get_close_matches
from typing import Any

from labkit.connection import Connection
from labkit.doctor.evidence import Evidence, NotRead, Reads, known
from labkit.doctor.evidence.account import Account
from labkit.doctor.evidence.cluster_api import ClusterApi
from labkit.doctor.evidence.objects import ObjectMeta, PodDocument
from labkit.doctor.evidence.pod_spec import service_account_of
from labkit.doctor.evidence.reading import Document
from labkit.doctor.examination import examine_pods
from labkit.doctor.report import Diagnosis
from labkit.documents import ROLE_ANNOTATION
from labkit.errors import LabError
from labkit.policy.arn import Arn
from labkit.run_parameters import Parameters

VARIABLES = ("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")
# For more service accounts than this, read all roles with two calls. For fewer, read each role separately.
MANY = 5
NO_CHOICE = "default"  # the service account of a pod whose manifest names no service account


class Survey:
    """The diagnoses of all service accounts that should have a role, in a cluster or in one of its namespaces.

    These service accounts have a role annotation, an EKS Pod Identity association, or a pod that names a role.

    Raises `NotRead` if the service accounts can't be listed, and `LabError` if the namespace doesn't exist.
    """

    def __init__(self, connection: Connection, parameters: Parameters, namespace: str = "", *, probe: bool = False):
        """
        Args:
            parameters: the target, the cluster and the region. The service account in `parameters` isn't used.
            namespace: the only namespace to survey; without one, all namespaces.
            probe: whether the doctor may run commands in the pods, and send their tokens to STS.
        """
        self._connection = connection
        self._parameters = parameters
        self._namespace = namespace
        self._probe = probe
        self.reads = Reads()
        self._any = self._of("default", "default", self.reads)("")
        self.subjects = self._subjects()
        if not self.subjects:
            self._refuse_a_missing_namespace()

    def __len__(self) -> int:
        return len(self.subjects)

    def __iter__(self) -> Iterator[Diagnosis]:
        if len(self) > MANY:
            self._read_roles()
        for namespace, name in self.subjects:
            yield examine_pods(self._of(namespace, name, self.reads.shared()))

    @property
    def cluster(self) -> ClusterApi:
        """The surveyed cluster."""
        cluster: ClusterApi = self._any.cluster.api
        return cluster

    def _of(self, namespace: str, name: str, reads: Reads) -> Any:
        parameters = self._parameters.model_copy(update={"namespace": namespace, "service_account": name})

        def evidence(pod: str) -> Evidence:
            evidence_of_pod = Evidence(
                parameters, self._connection, pod_name=pod, role_is_known=False, probe=self._probe, reads=reads
            )
            evidence_of_pod.cluster.api.everywhere = not self._namespace
            return evidence_of_pod

        return evidence

    def _subjects(self) -> list[tuple[str, str]]:
        cluster, account = self.cluster, self._any.aws.account
        # If they can't be read, each diagnosis reports it.
        associations = known(lambda: account.pod_identity_associations(self._parameters.cluster)) or []
        associated = {(each["namespace"], each["serviceAccount"]) for each in associations}
        named = {
            name
            for each in cluster.service_accounts(self._namespace)
            if (name := (each["metadata"]["namespace"], each["metadata"]["name"])) in associated
            or _wants_a_role(each["metadata"])
        }
        pods = known(lambda: cluster.pods(self._namespace)) or []  # if it can't be read, each diagnosis reports it
        used = {
            (pod["metadata"]["namespace"], service_account_of(pod["spec"]))
            for pod in pods
            if _has_variables(pod) or _wants_a_role(pod["metadata"])
        }
        return sorted(named | used)

    def _refuse_a_missing_namespace(self) -> None:
        try:
            if not self._namespace or self.cluster.get("namespace", self._namespace):
                return
            names = [each["metadata"]["name"] for each in self.cluster.all_of("namespaces")]
        except NotRead:
            return  # a caller who can list the service accounts may still not be allowed to read the namespace
        near = next(iter(get_close_matches(self._namespace, names)), "")
        raise LabError(
            f"The cluster has no namespace {self._namespace}{f'; did you mean {near}?' if near else '.'}",
            next=f"labkit doctor --all -n {near}" if near else "kubectl get namespaces",
        )

    def _read_roles(self) -> None:
        """Read all roles and their policies with two calls. If these calls fail, each diagnosis reads its own role.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetAccountAuthorizationDetails.html
        """
        account = self._any.aws.account
        try:
            listed = {role["RoleName"]: role for role in account.roles}
            details = account.authorization_details
        except NotRead:
            return
        for role in details["RoleDetailList"]:
            # Only iam:ListRoles returns MaxSessionDuration. Only the details contain tags and permissions boundary.
            self._know_role(account, listed.get(role["RoleName"], {}), role)
        known = {role["RoleName"] for role in details["RoleDetailList"]}
        for name in self._annotated(account.account_id) - known:
            self.reads.know(account.read_of("iam:GetRole", name), None)
        for policy in details["Policies"]:
            for version in policy.get("PolicyVersionList") or []:
                if version.get("IsDefaultVersion"):
                    self.reads.know(account.read_of("iam:GetPolicyVersion", policy["Arn"]), version["Document"])

    def _know_role(self, account: Account, listed: Document, details: Document) -> None:
        name, inline = details["RoleName"], details.get("RolePolicyList") or []
        left_out = ("RolePolicyList", "AttachedManagedPolicies", "InstanceProfileList")
        role = listed | {key: value for key, value in details.items() if key not in left_out}
        self.reads.know(account.read_of("iam:GetRole", name), role)
        attached = details.get("AttachedManagedPolicies") or []
        self.reads.know(account.read_of("iam:ListAttachedRolePolicies", name), attached)
        self.reads.know(account.read_of("iam:ListRolePolicies", name), [policy["PolicyName"] for policy in inline])
        for policy in inline:
            read = account.read_of("iam:GetRolePolicy", f"{name} {policy['PolicyName']}")
            self.reads.know(read, policy["PolicyDocument"])

    def _annotated(self, account_id: str) -> set[str]:
        accounts = self.cluster.service_accounts(self._namespace)
        arns = [(account["metadata"].get("annotations") or {}).get(ROLE_ANNOTATION) or "" for account in accounts]
        named = filter(None, map(Arn.find, arns))
        return {arn.name for arn in named if arn.account == account_id and arn.resource.startswith("role/")}


def meant_account(connection: Connection, parameters: Parameters, pod: str) -> str:
    """Return the name of the service account that the user means.

    If the pod can be read, and the pod's service account isn't `default`, return the pod's service account. In all
    other cases, the candidates decide. Each surveyed service account is a candidate. The service account in
    `parameters` is a candidate too if it exists in the namespace.

    - One candidate: return its name.
    - No candidates, and `parameters.is_usual` is true: return the name in `parameters`.
    - Otherwise: raise `LabError`.
    """
    survey = Survey(connection, parameters, parameters.namespace)
    namespace, own = parameters.namespace, parameters.service_account
    if (of_pod := _account_of_pod(survey, namespace, pod)) not in ("", NO_CHOICE):
        return of_pod
    accounts = [each["metadata"]["name"] for each in survey.cluster.service_accounts(namespace)]
    candidates = {name for _, name in survey.subjects} | {own}.intersection(accounts)
    if parameters.is_usual and not candidates:
        return own
    if len(candidates) == 1:
        return candidates.pop()
    if candidates:
        raise LabError(
            f"{namespace}: the doctor cannot choose between {len(candidates)} service accounts: "
            f"{', '.join(sorted(candidates))}.",
            where=f"the service accounts of the namespace {namespace} that should have a role",
            next=f"name the right service account with -s, or examine all of them:  labkit doctor --all -n {namespace}",
        )
    others = sorted(set(accounts) - {NO_CHOICE})
    meant = others[0] if len(others) == 1 else "<SERVICE_ACCOUNT>"
    noun = "service account" if len(others) == 1 else "service accounts"
    there = f"; the namespace has the {noun} {', '.join(others)}" if others else ""
    raise LabError(
        f"{namespace}: neither an annotation nor a pod tells which service account should have a role{there}.",
        where=f"the service accounts of the namespace {namespace}, cluster {parameters.cluster}",
        next=f"labkit doctor -n {namespace} -s {meant}" if others else "kubectl get serviceaccounts --all-namespaces",
    )


def _account_of_pod(survey: Survey, namespace: str, pod: str) -> str:
    document = known(lambda: survey.cluster.pod(namespace, pod)) if pod else None
    return service_account_of(document["spec"]) if document else ""


def _wants_a_role(metadata: ObjectMeta) -> bool:
    return any(
        key.endswith(("/role-arn", "iam.amazonaws.com/role"))
        or SequenceMatcher(None, key.lower(), ROLE_ANNOTATION).ratio() > 0.85
        for key in metadata.get("annotations") or {}
    )


def _has_variables(pod: PodDocument) -> bool:
    return any(
        variable["name"] in VARIABLES
        for container in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
        for variable in container.get("env") or []
    )
