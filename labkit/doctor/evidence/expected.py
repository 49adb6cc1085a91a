"""What one service account should have: its role, and the values that follow from the role and the cluster."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from labkit.connection import Connection
from labkit.doctor.evidence import candidates
from labkit.doctor.evidence.account import ROLE_ARN, AwsAccounts
from labkit.doctor.evidence.cluster import AUDIENCE_KEY, ClusterReading
from labkit.doctor.evidence.pod import PodReading
from labkit.doctor.evidence.pod_spec import ROLE, TOKEN_FILE
from labkit.doctor.evidence.reading import NotRead, known
from labkit.doctor.evidence.trust import account_of
from labkit.documents import AUDIENCE
from labkit.policy.arn import Arn
from labkit.run_parameters import Parameters

if TYPE_CHECKING:
    from types_boto3_iam.type_defs import RoleTypeDef


@dataclass(eq=False)
class Expected:
    """The values that a service account, its role and its pod should have.

    A value comes from the doctor's caller, or else from what the cluster, the pod and AWS say.
    """

    parameters: Parameters
    connection: Connection
    accounts: AwsAccounts
    cluster: ClusterReading
    pod: PodReading
    role_is_known: bool
    is_of_run: bool
    action: str
    resource: str

    def __post_init__(self) -> None:
        self.issuer = self.connection.issuer
        self.subject = self.parameters.subject
        """The subject (`sub`) of the service account's tokens."""
        self.account = account_of(self.subject)
        """The service account, such as `shop:cart`."""

    @cached_property
    def audience(self) -> str:
        """The audience that the tokens should have.

        It's the audience in the service account's annotation if the OIDC provider lists that audience. Otherwise, it's
        `sts.amazonaws.com`.

        https://github.com/aws/amazon-eks-pod-identity-webhook#eks-pod-identity-webhook
        """
        try:
            if own := self.cluster.annotations.get(AUDIENCE_KEY):
                provider = self.accounts.of(self.role_account_id).provider(self.provider_arn)
                if provider and own in provider["ClientIDList"]:
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

    @property
    def role_name(self) -> str:
        """The role's name, without its path; empty if the role is unknown."""
        return Arn.parse(self.role_arn).name if self.role_arn else ""

    @property
    def wanted_role_name(self) -> str:
        """The role's name; for an unknown role, the name in the parameters."""
        return self.role_name or self.parameters.role_name

    @property
    def role_account_id(self) -> str:
        """The id of the role's account (12 digits); the cluster's account if the role is unknown."""
        role_arn = known(lambda: self.role_arn, "")
        return Arn.parse(role_arn).account if role_arn else self.connection.account_id

    @property
    def is_only_annotated(self) -> bool:
        """Whether the annotation decides which role the service account should have.

        True if the annotation is a role's ARN, the doctor's caller named no role, and the service account carries no
        run's label.
        """
        is_named = self.role_is_known or self.cluster.role_of_run
        return not is_named and ROLE_ARN.fullmatch(self.cluster.annotation) is not None

    @property
    def belongs_to_run(self) -> bool:
        """Whether the resources that a repair creates belong to a run of the lab.

        True if the service account carries a run's label, or if both `role_is_known` and `is_of_run` are true.
        """
        return self.cluster.is_of_lab or (self.role_is_known and self.is_of_run)

    @property
    def role_is_assumed(self) -> bool:
        """Whether the pod acts in AWS as the role that it should have."""
        caller = self.pod.caller_if_known
        if caller is None or caller.role_name != self.wanted_role_name:
            return False
        # A session's ARN has the role's partition and account, and not its path.
        if not self.role_arn:
            return True
        session, role = Arn.parse(caller.arn), Arn.parse(self.role_arn)
        return (session.partition, session.account) == (role.partition, role.account)

    @cached_property
    def role_candidates(self) -> list[str]:
        """The ARNs of the roles that may be meant for the service account, judged by their trust policies and tags.

        Raises `NotRead`.
        """
        return candidates.candidates(self.accounts.own, self.parameters, self.connection.provider_arn)

    @cached_property
    def roles_that_trust_it(self) -> list[str]:
        """The ARNs of the roles with a trust policy that names the service account. Raises `NotRead`."""
        return candidates.trusting(self.accounts.own, self.parameters, self.connection.provider_arn)

    @cached_property
    def roles_that_admit_it(self) -> list[str]:
        """The ARNs of the roles with a trust policy that admits the service account, by name or by a pattern.

        Raises `NotRead`.
        """
        return candidates.admitting(
            self.accounts.own, self.parameters, self.connection.provider_arn, self.connection.now()
        )

    def namesake(self, role_name: str) -> "RoleTypeDef | None":
        """Return the role with this name in the cluster's account.

        Return None if the role doesn't exist or can't be read, or if its trust policy neither admits nor names the
        service account.
        """
        role = known(lambda: self.accounts.own.role(role_name))
        if role is None:
            return None
        is_mine = candidates.admits(role, self.parameters, self.connection.provider_arn, self.connection.now())
        return role if is_mine or candidates.names(role, self.subject) else None

    @property
    def _named_role_arn(self) -> str:
        """The ARN of the role that the pod should get, even if IAM doesn't have the role."""
        if self.role_is_known:
            return self.connection.role_arn(self.parameters.role_name)
        if name := self.cluster.role_of_run:
            return self.connection.role_arn(name)
        # An annotation with a misspelt key also names the role that is wanted.
        misspelt = self.cluster.annotations.get(self.cluster.misspelt_key, "")
        for annotation in (self.cluster.annotation, misspelt):
            if ROLE_ARN.fullmatch(annotation):
                return annotation
        if arn := self._role_by_hand():
            return arn
        arns = known(lambda: self.role_candidates) or []
        return arns[0] if len(arns) == 1 else self._role_in_malformed_arn()

    def _role_in_malformed_arn(self) -> str:
        """Return the ARN of the role whose name ends an annotation that isn't an ARN; empty without such a role."""
        name = re.search(r"[\w+=,.@-]+(?=\W*$)", self.cluster.annotation)
        role = known(lambda: self.accounts.own.role(name[0])) if name else None
        return role["Arn"] if role else ""

    def _role_by_hand(self) -> str:
        """Return the ARN of the role that the pod's author set in containers with a projected token."""
        try:
            containers = self.pod.containers
            by_hand = [each for each in containers if each.has_role and (each.is_by_hand or each.declares_role)]
            arns = {each.value(ROLE) for each in by_hand if each.token_at(each.value(TOKEN_FILE))}
            arn = arns.pop() if len(arns) == 1 else ""
            role = self.accounts.own.role(Arn.parse(arn).name) if ROLE_ARN.fullmatch(arn) else None
        except NotRead:
            return ""
        return arn if role and role["Arn"] == arn else ""

    def _role_so_called(self, arn: str) -> "RoleTypeDef | None":
        """Return the role with this ARN, or else the role of the same name in the cluster's account."""
        named = Arn.parse(arn)
        try:
            role = self.accounts.of(named.account).role(named.name)
        except NotRead:
            if not self.pod.is_refused:
                return None
            role = None
        if role is None and named.account != self.connection.account_id:
            return self.namesake(named.name)
        return role

    def _meant_instead(self, arn: str, role: "RoleTypeDef | None") -> list[str] | None:
        """Return the ARNs of the roles that the annotation should name; None if the annotation may be right."""
        try:
            if role is None:
                return self.role_candidates if self._is_wrong_account(arn) else None
            provider_arn = self._provider_arn_in(Arn.parse(role["Arn"]).account)
            if candidates.is_about(role, self.parameters, provider_arn, self.connection.now()):
                return None
            return self.role_candidates or None
        except NotRead:
            return None

    def _is_wrong_account(self, arn: str) -> bool:
        named = Arn.parse(arn)
        if named.account == self.connection.account_id:
            return False
        account = self.accounts.of(named.account)
        return account.role(named.name) is None and account.provider(self._provider_arn_in(named.account)) is None

    def _provider_arn_in(self, account_id: str) -> str:
        return self.connection.provider_arn.replace(f":{self.connection.account_id}:", f":{account_id}:", 1)
