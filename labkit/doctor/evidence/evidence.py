"""The facts about one service account, its role and its pod, and the values that they should have."""

import re
from difflib import SequenceMatcher
from functools import cached_property
from typing import Any

from labkit.connection import Connection
from labkit.doctor.evidence import candidates
from labkit.doctor.evidence.account import Account, run_of, tags_of
from labkit.doctor.evidence.answers import Provider, Role
from labkit.doctor.evidence.cluster import Cluster
from labkit.doctor.evidence.dry_run import DryRun
from labkit.doctor.evidence.issuer import Issuer
from labkit.doctor.evidence.objects import Event, Pod, ServiceAccount, WebhookConfiguration
from labkit.doctor.evidence.pod_spec import ROLE, TOKEN_FILE, TOKEN_VOLUME, Container, PodSpec, service_account_of
from labkit.doctor.evidence.probe import Caller, Probe
from labkit.doctor.evidence.reading import Document, NotRead, Read, Reads
from labkit.doctor.evidence.registration import Registration
from labkit.doctor.evidence.trust import Trust
from labkit.documents import AUDIENCE, POD_NAME, ROLE_ANNOTATION
from labkit.policy.arn import Arn
from labkit.run_parameters import RUN_LABEL, Parameters

AUDIENCE_KEY = "eks.amazonaws.com/audience"
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\x21-\x7e]+", re.ASCII)
FAILED = "FailedCreate"  # the reason in the event about a rejected pod
# The annotation keys of kiam and kube2iam, which people used before IRSA. Some still write them.
OLDER_KEYS = ("iam.amazonaws.com/role", "iam.amazonaws.com/role-arn")


class Evidence:
    """The facts about one service account, its role and its pod.

    Objects of AWS and Kubernetes have the form that their APIs define. None stands for an object that doesn't exist.
    Every property raises `NotRead` if a fact that it needs can't be read.
    """

    def __init__(
        self,
        parameters: Parameters,
        connection: Connection,
        *,
        pod_name: str = POD_NAME,
        role_is_known: bool = True,
        is_of_run: bool = True,
        action: str = "",
        resource: str = "",
        probe: bool = True,
        reads: Reads | None = None,
    ):
        """Args:
        pod_name: the pod to examine; if empty, the newest pod that runs as the service account.
        role_is_known: whether the caller named the role, policy and bucket in `parameters`; if not, they're defaults.
        is_of_run: whether `parameters` belong to a run of the lab, so that a repair can create a missing role.
        action: the action that the pod needs, such as `s3:ListBucket`; if empty, permissions aren't tested.
        resource: the ARN of the resource that `action` is for.
        probe: whether the doctor may run commands in the pod, and send its token to STS.
        """
        self.parameters = parameters
        self.connection = connection
        self.issuer = connection.issuer
        self.role_is_known = role_is_known
        self.is_of_run = is_of_run
        self.action = action
        self.resource = resource or "*"
        self.reads = reads or Reads()
        self.account = Account(connection.aws, connection.account_id, self.reads)
        self.cluster = Cluster(connection.kubernetes, self.reads)
        self.registration = Registration(connection.kubernetes, self.cluster, self.reads)
        self.published = Issuer(connection, self.reads)
        self.probe_allowed = probe
        self.found: dict[Any, Any] = {}
        """The finding of each cause that was looked for; None if the cause found nothing."""
        self.ended: set[Any] = set()
        """The stages that ended because a cause was found. The other causes of these stages aren't looked for."""
        self._pod_name = pod_name
        self._accounts = {connection.account_id: self.account}

    # The expected values.

    @cached_property
    def audience(self) -> str:
        """The audience that the tokens should have.

        It's the audience in the service account's annotation if the OIDC provider lists that audience. Otherwise, it's
        `sts.amazonaws.com`.

        https://github.com/aws/amazon-eks-pod-identity-webhook#eks-pod-identity-webhook
        """
        try:
            own = self.annotations.get(AUDIENCE_KEY)
            if own and self.provider and own in self.provider["ClientIDList"]:
                return own
        except NotRead:
            pass
        return AUDIENCE

    @property
    def provider_arn(self) -> str:
        """The ARN of the cluster's OIDC provider in the role's account, even if the provider doesn't exist."""
        return self._provider_arn_in(self.role_account_id)

    @property
    def provider_name(self) -> str:
        """The issuer without `https://`. Condition keys on the token's claims begin with this name."""
        return self.issuer.removeprefix("https://")

    @property
    def region(self) -> str:
        """The cluster's region. The webhook writes it into the pods' variables."""
        of_eks = re.match(r"https://oidc\.eks\.([a-z0-9-]+)\.", self.issuer)
        return of_eks[1] if of_eks else self.parameters.region

    @property
    def subject(self) -> str:
        """The subject (`sub`) of the service account's tokens."""
        return self.parameters.subject

    @cached_property
    def role_arn(self) -> str:
        """The ARN of the role that the service account should have; empty if that role is unknown.

        The first of these sources that names a role decides:

        1. the doctor's caller
        2. a run's label on the service account
        3. the annotation
        4. the variables in a container's manifest

        Usually, the value is the ARN that IAM returns for this role. If the role doesn't exist, or if IAM can't be
        read, the value is the ARN that the source gives.

        An annotation can name a role in another account. If that role doesn't exist, the value is the ARN of the role
        that `namesake` finds in the cluster's account, if any. The same is true if the other account can't be read and
        STS refused the pod's token.

        If none of the sources names a role, the value is the only ARN in `role_candidates`, or empty if
        `role_candidates` has no ARN or several. The same is true if `_meant_instead` finds that the annotation names a
        wrong role.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-arns
        """
        named = self._named_role_arn
        role = self._role_so_called(named) if named else None
        if self.is_only_annotated and (others := self._meant_instead(named, role)) is not None:
            return others[0] if len(others) == 1 and others == self.role_candidates else ""
        return str(role["Arn"]) if role else named

    @cached_property
    def role_candidates(self) -> list[str]:
        """The ARNs of the roles that may be meant for the service account, judged by their trust policies and tags.

        Raises `NotRead`.
        """
        return candidates.candidates(self.account, self.parameters, self.connection.provider_arn)

    @cached_property
    def roles_that_trust_it(self) -> list[str]:
        """The ARNs of the roles with a trust policy that names the service account. Raises `NotRead`."""
        return candidates.trusting(self.account, self.parameters, self.connection.provider_arn)

    @cached_property
    def roles_that_admit_it(self) -> list[str]:
        """The ARNs of the roles with a trust policy that admits the service account, by name or by a pattern.

        Raises `NotRead`.
        """
        return candidates.admitting(self.account, self.parameters, self.connection.provider_arn)

    @property
    def role_of_run(self) -> str:
        """The role's name: the end of the service account's run label, `CLUSTER.NAMESPACE.SERVICEACCOUNT.ROLE`.

        Empty if the label is missing or doesn't begin with this cluster, namespace and service account. If the run's
        full name isn't allowed as a label's value, the label has a changed or cut name with a hash at its end. Then
        the returned role's name is changed or cut in the same way.
        """
        labels = ((self.service_account or {}).get("metadata") or {}).get("labels") or {}
        of_this = f"{self.parameters.cluster}.{self.parameters.namespace}.{self.parameters.service_account}."
        run = labels.get(RUN_LABEL, "")
        return run.removeprefix(of_this) if run.startswith(of_this) else ""

    @property
    def is_of_lab(self) -> bool:
        """Whether the service account carries a run's label. False if the labels can't be read.

        If True, the policy and the bucket in `parameters` belong to that run.
        """
        try:
            return bool(self.role_of_run)
        except NotRead:
            return False

    @property
    def belongs_to_run(self) -> bool:
        """Whether the resources that a repair creates belong to a run of the lab.

        True if the service account carries a run's label, or if both `role_is_known` and `is_of_run` are true.
        """
        return self.is_of_lab or (self.role_is_known and self.is_of_run)

    @property
    def role_is_of_run(self) -> bool:
        """Whether the role belongs to a run of the lab. Such a role should have the policy in `parameters`.

        True if the service account carries a run's label. If the doctor's caller named the role, also true in each of
        these cases:

        - The role's tag `labkit:run` names the run in `parameters`.
        - The role has no tag `labkit:run`, and `parameters` name the notebooks' own service account.
        - The role doesn't exist, and `parameters` name the notebooks' own service account.
        - The role doesn't exist, and `parameters` belong to a run (`is_of_run`).

        Raises `NotRead`.
        """
        if self.is_of_lab or not self.role_is_known:
            return self.is_of_lab
        owners = (None, self.parameters.run) if self.parameters.is_usual else (self.parameters.run,)
        return (self.role is None and self.is_of_run) or self.role_run in owners

    @property
    def is_only_annotated(self) -> bool:
        """Whether the annotation decides which role the service account should have.

        True if the annotation is a role's ARN, the doctor's caller named no role, and the service account carries no
        run's label.
        """
        return not (self.role_is_known or self.role_of_run) and ROLE_ARN.fullmatch(self.annotation) is not None

    @property
    def has_only_the_name(self) -> bool:
        """Whether the role has the annotated name, but nothing else links the role to the service account.

        The role's ARN isn't the annotated ARN, and the role's trust policy and tags don't point to the service account.
        Such a role may be another team's.
        """
        role = self.role if self.is_only_annotated else None
        if role is None or role["Arn"] == self.annotation:
            return False
        is_about = candidates.is_about(role, self.parameters, self.provider_arn)
        return not is_about and not candidates.is_of_namespace(role, self.parameters.namespace)

    @property
    def role_name(self) -> str:
        """The role's name, without its path; empty if the role is unknown."""
        return Arn.parse(self.role_arn).name if self.role_arn else ""

    @property
    def wanted_role_name(self) -> str:
        """The role's name; for an unknown role, the name in `parameters`."""
        return self.role_name or self.parameters.role_name

    @property
    def role_account_id(self) -> str:
        """The id of the role's account (12 digits); the cluster's account if the role is unknown."""
        try:
            return Arn.parse(self.role_arn).account if self.role_arn else self.connection.account_id
        except NotRead:
            return self.connection.account_id

    @cached_property
    def role_account(self) -> Account:
        """The role's account; the cluster's account if the role is unknown.

        Raises `NotRead` if there are no credentials for the role's account.
        """
        return self._account(self.role_account_id)

    def namesake(self, role_name: str) -> Role | None:
        """Return the role with this name in the cluster's account.

        Return None if the role doesn't exist or can't be read, or if its trust policy neither admits nor names the
        service account.
        """
        try:
            role = self.account.role(role_name)
        except NotRead:
            return None
        if role is None:
            return None
        is_mine = candidates.admits(role, self.parameters, self.connection.provider_arn)
        return role if is_mine or candidates.names(role, self.subject) else None

    # AWS.

    @property
    def provider_arns(self) -> list[str]:
        """The ARNs of the OIDC providers in the role's account."""
        return self.role_account.provider_arns

    @property
    def provider(self) -> Provider | None:
        """The OIDC provider of the cluster's issuer, in the role's account; None if the provider doesn't exist."""
        return self.role_account.provider(self.provider_arn)

    @property
    def role(self) -> Role | None:
        """The role that the service account should have; None if IAM has no role with the name `role_name`.

        Raises `NotRead` if `role_name` is empty.
        """
        if not self.role_name:
            raise NotRead(
                Read("iam:GetRole", of="AWS"), "nothing says which role the service account should have", "--role NAME"
            )
        return self.role_account.role(self.role_name)

    @property
    def is_annotated_rightly(self) -> bool:
        """Whether the annotation is the role's ARN in IAM. If the role can't be read, a well-formed ARN is enough."""
        try:
            return self.role is not None and self.role["Arn"] == self.annotation
        except NotRead:
            return ROLE_ARN.fullmatch(self.annotation) is not None

    @cached_property
    def is_namespace_ending(self) -> bool:
        """Whether the namespace is being deleted; False if the namespace can't be read.

        https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/
        """
        try:
            namespace = self.cluster.get("namespace", self.parameters.namespace)
        except NotRead:
            return False
        return bool(namespace and namespace["metadata"].get("deletionTimestamp"))

    @property
    def trust_policy(self) -> Document:
        """The role's trust policy; empty without a role."""
        return self.role["AssumeRolePolicyDocument"] if self.role else {}

    @cached_property
    def trust(self) -> Trust:
        """The trust policy, evaluated for the service account's tokens."""
        return Trust(
            self.trust_policy,
            role_name=self.parameters.role_name,
            provider_arn=self.provider_arn,
            subject=self.subject,
            audience=self.audience,
            tags=tags_of(self.role),
        )

    @property
    def role_run(self) -> str | None:
        """The value of the role's tag `labkit:run`; None without a role or without this tag."""
        return run_of(self.role)

    @property
    def attached_policies(self) -> list[str]:
        """The ARNs of the role's managed policies."""
        return self.role_account.attached_policies(self.role_name)

    @property
    def inline_policies(self) -> dict[str, Any]:
        """The role's inline policies, by name."""
        return self.role_account.inline_policies(self.role_name)

    # Kubernetes.

    @property
    def service_account(self) -> ServiceAccount | None:
        return self.cluster.service_account(self.parameters.namespace, self.parameters.service_account)

    @property
    def is_named(self) -> bool:
        """Whether a pod, a rejected pod's event, a role's trust policy or a role's tag names the service account."""
        name = f"{self.parameters.namespace}/{self.parameters.service_account}"
        # The API server's words when it rejects a pod.
        if self.pods or any(
            f"service account {name}:" in (event.get("message") or "") for event in self.failed_creations
        ):
            return True
        try:
            return bool(self.role_candidates)
        except NotRead:
            return False

    @property
    def annotations(self) -> dict[str, str]:
        return ((self.service_account or {}).get("metadata") or {}).get("annotations") or {}

    @property
    def annotation(self) -> str:
        """The role's ARN in the service account's annotation; empty without the annotation."""
        return self.annotations.get(ROLE_ANNOTATION, "")

    @property
    def misspelt_key(self) -> str:
        """The wrong key of an annotation with which someone probably meant to name the role.

        The webhook ignores this key. Empty if the right key has a value.
        """
        if self.annotation:
            return ""
        others = {key: value for key, value in self.annotations.items() if key != ROLE_ANNOTATION}
        return next((key for key, value in others.items() if _looks_like_it(key, value)), "")

    @cached_property
    def pods(self) -> list[Pod]:
        """The pods that run as the service account, the newest first."""
        name = self.parameters.service_account
        mine = [pod for pod in self.cluster.pods(self.parameters.namespace) if service_account_of(pod["spec"]) == name]
        return sorted(mine, key=lambda pod: pod["metadata"].get("creationTimestamp") or "", reverse=True)

    @property
    def pod_name(self) -> str:
        """The name of the examined pod; empty if no pod runs as the service account."""
        return self._pod_name or next((pod["metadata"]["name"] for pod in self.pods), "")

    @property
    def pod(self) -> Pod | None:
        return self.cluster.pod(self.parameters.namespace, self.pod_name) if self.pod_name else None

    @cached_property
    def pod_spec(self) -> PodSpec | None:
        """The pod's spec, with its containers' variables and mounts; None without a pod."""
        return PodSpec(self.pod, self.cluster) if self.pod else None

    @property
    def containers(self) -> list[Container]:
        """The pod's containers, then its init containers; empty without a pod."""
        return self.pod_spec.containers if self.pod_spec else []

    @property
    def pod_phase(self) -> str:
        """The pod's phase; `Unknown` without a pod."""
        return self.pod_spec.phase if self.pod_spec else "Unknown"

    @property
    def pod_trouble(self) -> str:
        """Why the pod doesn't run: the first waiting container's reason, else the scheduler's; empty if unknown."""
        for status in ((self.pod or {}).get("status") or {}).get("containerStatuses") or []:
            if waiting := (status.get("state") or {}).get("waiting"):
                return f"{waiting.get('reason', '')} {waiting.get('message', '')}".strip()
        return self.scheduler_says

    @property
    def scheduler_says(self) -> str:
        """Why the scheduler found no node for the pod, from a condition or an event; empty if the pod has a node.

        https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-conditions
        """
        if self.pod is None or self.pod_phase != "Pending" or self.pod["spec"].get("nodeName"):
            return ""
        for each in (self.pod.get("status") or {}).get("conditions") or []:
            if (each["type"], each["status"]) == ("PodScheduled", "False") and each.get("message"):
                return f"{each.get('reason', '')}: {each['message']}"
        return self._newest_event("FailedScheduling")

    def _newest_event(self, reason: str) -> str:
        try:
            events = self.cluster.events(self.parameters.namespace)
        except NotRead:
            return ""
        mine = [each for each in events if each["involvedObject"].get("name") == self.pod_name]
        told = [each for each in mine if each.get("reason") == reason]
        newest = max(told, key=lambda each: each.get("lastTimestamp") or each.get("eventTime") or "", default=Event())
        return f"{reason}: {newest['message']}" if newest.get("message") else ""

    @property
    def pod_role_arn(self) -> str:
        """The value of `AWS_ROLE_ARN` in the pod's first container; empty if it isn't set."""
        variables = self.containers[0].document.get("env") or [] if self.containers else []
        return next((variable.get("value", "") for variable in variables if variable["name"] == "AWS_ROLE_ARN"), "")

    @property
    def token_audience(self) -> str | None:
        """The audience of the token that the webhook's volume projects into the pod; None without such a token."""
        for volume in (self.pod or {}).get("spec", {}).get("volumes") or []:
            if volume["name"] == TOKEN_VOLUME:
                for source in (volume.get("projected") or {}).get("sources") or []:
                    if token := source.get("serviceAccountToken"):
                        audience: str | None = token.get("audience")
                        return audience
        return None

    @property
    def failed_creations(self) -> list[Event]:
        """The events about rejected pods in the namespace, the newest first; empty if the examined pod exists."""
        if self.pod is not None:
            return []
        failed = [event for event in self.cluster.events(self.parameters.namespace) if event["reason"] == FAILED]
        return sorted(failed, key=lambda event: event.get("lastTimestamp") or "", reverse=True)

    @property
    def webhook(self) -> WebhookConfiguration | None:
        """The pod identity webhook's registration; None if the webhook isn't registered.

        https://github.com/aws/amazon-eks-pod-identity-webhook
        """
        return self.cluster.webhook("pod-identity-webhook")

    # The pod itself.

    @cached_property
    def dry_run(self) -> DryRun:
        """A dry run that creates a pod like the examined pod. It shows what the webhook would do to such a pod now."""
        return DryRun(self.pod_spec, self.cluster, self.reads, allowed=self.probe_allowed)

    @cached_property
    def probe(self) -> Probe:
        """The commands that the doctor runs in the pod, and its call to STS with the pod's token."""
        return Probe(
            self.pod_spec, self.connection, self.reads, region=self.parameters.region, allowed=self.probe_allowed
        )

    @property
    def caller(self) -> Caller | None:
        """The pod's identity according to AWS; None if the pod isn't running.

        Raises `NotRead` if probing isn't allowed.
        """
        return self.probe.caller

    @property
    def caller_if_told(self) -> Caller | None:
        """The pod's identity according to AWS; None if the pod isn't running, or if the doctor can't read the identity.

        Raises `NotRead` if the user didn't allow probing.
        """
        try:
            return self.caller
        except NotRead as unread:
            if unread.is_choice:
                raise
            return None

    @property
    def is_its_role(self) -> bool:
        """Whether the pod acts in AWS as the role that it should have."""
        caller = self.caller_if_told
        if caller is None or caller.role_name != self.wanted_role_name:
            return False
        # A session's ARN has the role's partition and account, and not its path.
        if not self.role_arn:
            return True
        session, role = Arn.parse(caller.arn), Arn.parse(self.role_arn)
        return (session.partition, session.account) == (role.partition, role.account)

    def control_policies_told(self, policy_type: str) -> str:
        """Return a phrase with the names of the organization's policies that apply to the role's account.

        If they can't be read, the phrase says why.
        """
        try:
            names = [policy["Name"] for policy in self.role_account.control_policies(policy_type)]
            return f"policies on the role's account, on its OUs or on the organization's root: {', '.join(names)}"
        except NotRead as unread:
            return f"the organization's policies could not be read: {unread.call}: {unread.why}"

    def _role_by_hand(self) -> str:
        """Return the ARN of the role that the pod's author set in containers with a projected token."""
        try:
            by_hand = [each for each in self.containers if each.has_role and (each.is_by_hand or each.declares_role)]
            arns = {each.value(ROLE) for each in by_hand if each.token_at(each.value(TOKEN_FILE))}
            arn = arns.pop() if len(arns) == 1 else ""
            role = self.account.role(Arn.parse(arn).name) if ROLE_ARN.fullmatch(arn) else None
        except NotRead:
            return ""
        return arn if role and role["Arn"] == arn else ""

    @property
    def _named_role_arn(self) -> str:
        """The ARN of the role that the pod should get, even if IAM doesn't have the role."""
        if self.role_is_known:
            return self.connection.role_arn(self.parameters.role_name)
        if name := self.role_of_run:
            return self.connection.role_arn(name)
        # An annotation with a misspelt key also names the role that is wanted.
        for annotation in (self.annotation, self.annotations.get(self.misspelt_key, "")):
            if ROLE_ARN.fullmatch(annotation):
                return annotation
        if arn := self._role_by_hand():
            return arn
        try:
            found = self.role_candidates
        except NotRead:
            return ""
        return found[0] if len(found) == 1 else ""

    def _role_so_called(self, arn: str) -> Role | None:
        """Return the role with this ARN, or else the role of the same name in the cluster's account."""
        named = Arn.parse(arn)
        try:
            role = self._account(named.account).role(named.name)
        except NotRead:
            if not self._is_refused:
                return None
            role = None
        if role is None and named.account != self.connection.account_id:
            return self.namesake(named.name)
        return role

    @property
    def _is_refused(self) -> bool:
        """Whether STS refused the pod's token."""
        try:
            caller = self.caller_if_told
            exchange = None if caller and caller.arn else self.probe.exchange
        except NotRead:
            return False
        return bool(exchange and exchange.code)

    def _meant_instead(self, arn: str, role: Role | None) -> list[str] | None:
        """Return the ARNs of the roles that the annotation should name; None if the annotation may be right."""
        try:
            if role is None:
                return self.role_candidates if self._is_wrong_account(arn) else None
            if candidates.is_about(role, self.parameters, self._provider_arn_in(Arn.parse(role["Arn"]).account)):
                return None
            return self.role_candidates or None
        except NotRead:
            return None

    def _is_wrong_account(self, arn: str) -> bool:
        named = Arn.parse(arn)
        if named.account == self.connection.account_id:
            return False
        account = self._account(named.account)
        return account.role(named.name) is None and account.provider(self._provider_arn_in(named.account)) is None

    def _provider_arn_in(self, account_id: str) -> str:
        return self.connection.provider_arn.replace(f":{self.connection.account_id}:", f":{account_id}:", 1)

    def _account(self, account_id: str) -> Account:
        if account_id in self._accounts:
            return self._accounts[account_id]
        from botocore.exceptions import ClientError

        try:
            session = self.connection.account(account_id)
        except ClientError:
            session = None
        if session is None:
            read = Read("sts:AssumeRole into", account_id, f"({self.connection.account_id})", "AWS")
            raise NotRead(read, "this account is not the cluster's", f"credentials of the account {account_id}")
        self._accounts[account_id] = Account(session, account_id, self.reads)
        return self._accounts[account_id]


def _looks_like_it(key: str, value: str) -> bool:
    """Whether someone probably wrote this annotation to name the role."""
    if key in OLDER_KEYS or SequenceMatcher(None, key.lower(), ROLE_ANNOTATION).ratio() > 0.85:
        return True
    return key.endswith(("/role-arn", "/role")) and bool(ROLE_ARN.fullmatch(value or ""))
