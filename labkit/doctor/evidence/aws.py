"""What AWS says about the service account's role: the OIDC provider, the trust policy and the permissions."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

from labkit.doctor.evidence import candidates
from labkit.doctor.evidence.account import ROLE_ARN, Account, AwsAccounts, is_pattern, run_of, tags_of
from labkit.doctor.evidence.cluster import ClusterReading
from labkit.doctor.evidence.expected import Expected
from labkit.doctor.evidence.reading import Document, NotRead, Read, known
from labkit.doctor.evidence.trust import Trust
from labkit.policy import Policy, Principal, Request
from labkit.policy.arn import Arn
from labkit.policy.conditions import of_time
from labkit.run_parameters import Parameters

if TYPE_CHECKING:
    from types_boto3_iam.type_defs import (
        EvaluationResultTypeDef,
        GetOpenIDConnectProviderResponseTypeDef,
        RoleTypeDef,
    )


@dataclass(eq=False)
class AwsReading:
    """The facts that AWS has about the role that the service account should have, and about its account.

    None stands for something that doesn't exist. Every property raises `NotRead` if a fact that it needs can't be read.
    """

    parameters: Parameters
    accounts: AwsAccounts
    cluster: ClusterReading
    expected: Expected

    @property
    def account(self) -> Account:
        """The cluster's account."""
        return self.accounts.own

    @cached_property
    def role_account(self) -> Account:
        """The role's account; the cluster's account if the role is unknown.

        Raises `NotRead` if there are no credentials for the role's account.
        """
        return self.accounts.of(self.expected.role_account_id)

    @property
    def provider_arns(self) -> list[str]:
        """The ARNs of the OIDC providers in the role's account."""
        return self.role_account.provider_arns

    @property
    def provider(self) -> "GetOpenIDConnectProviderResponseTypeDef | None":
        """The OIDC provider of the cluster's issuer, in the role's account; None if the provider doesn't exist."""
        return self.role_account.provider(self.expected.provider_arn)

    @property
    def role(self) -> "RoleTypeDef | None":
        """The role that the service account should have; None if IAM has no role with the expected name.

        Raises `NotRead` if nothing says which role that is.
        """
        if not self.expected.role_name:
            raise NotRead(
                Read("iam:GetRole", of="AWS"), "nothing says which role the service account should have", "--role NAME"
            )
        return self.role_account.role(self.expected.role_name)

    @property
    def role_run(self) -> str | None:
        """The value of the role's tag `labkit:run`; None without a role or without this tag."""
        return run_of(self.role)

    @property
    def role_is_of_run(self) -> bool:
        """Whether the role belongs to a run of the lab. Such a role should have the policy in the parameters.

        True if the service account carries a run's label. If the doctor's caller named the role, also true in each of
        these cases:

        - The role's tag `labkit:run` names the run in the parameters.
        - The role has no tag `labkit:run`, and the parameters name the notebooks' own service account.
        - The role doesn't exist, and the parameters name the notebooks' own service account.
        - The role doesn't exist, and the parameters belong to a run (`is_of_run`).
        """
        if self.cluster.is_of_lab or not self.expected.role_is_known:
            return self.cluster.is_of_lab
        owners = (None, self.parameters.run) if self.parameters.is_usual else (self.parameters.run,)
        return (self.role is None and self.expected.is_of_run) or self.role_run in owners

    @property
    def is_annotated_rightly(self) -> bool:
        """Whether the annotation is the role's ARN in IAM. If the role can't be read, a well-formed ARN is enough."""
        try:
            return self.role is not None and self.role["Arn"] == self.cluster.annotation
        except NotRead:
            return ROLE_ARN.fullmatch(self.cluster.annotation) is not None

    @property
    def has_only_the_name(self) -> bool:
        """Whether the role has the annotated name, but nothing else links the role to the service account.

        The role's ARN isn't the annotated ARN, and the role's trust policy and tags don't point to the service account.
        Such a role may be another team's.
        """
        role = self.role if self.expected.is_only_annotated else None
        if role is None or role["Arn"] == self.cluster.annotation:
            return False
        is_about = candidates.is_about(
            role, self.parameters, self.expected.provider_arn, self.expected.connection.now()
        )
        return not is_about and not candidates.is_of_namespace(role, self.parameters.namespace)

    @property
    def trust_policy(self) -> Document:
        """The role's trust policy; empty without a role."""
        return cast("Document", self.role["AssumeRolePolicyDocument"]) if self.role else {}

    @cached_property
    def trust(self) -> Trust:
        """The trust policy, evaluated for the service account's tokens."""
        return Trust(
            self.trust_policy,
            role_name=self.parameters.role_name,
            provider_arn=self.expected.provider_arn,
            subject=self.expected.subject,
            audience=self.expected.audience,
            tags=tags_of(self.role),
            now=self.expected.connection.now(),
            audiences=known(lambda: self.provider["ClientIDList"] if self.provider else []) or [],
        )

    @property
    def simulated(self) -> "EvaluationResultTypeDef":
        """IAM's answer: may the role use the expected action on the expected resource?"""
        expected = self.expected
        request = self.request(expected.action, expected.resource)
        return self.role_account.simulated(expected.role_arn, expected.action, expected.resource, request.context)

    def request(self, action: str, resource: str, organization_id: str = "") -> Request:
        """Return the request of a pod that acts as the role, with the values that are known before it.

        `organization_id`: the organization of the role's account and of the resource's account; empty if unknown.
        """
        expected, named = self.expected, Arn.find(resource)
        partition, role = Arn.parse(expected.role_arn).partition, self.role
        session = f"arn:{partition}:sts::{expected.role_account_id}:assumed-role/{expected.role_name}/session"
        account_id = (named.account if named else "") or (organization_id and expected.role_account_id)
        context: dict[str, str] = {
            "aws:SecureTransport": "true",
            **of_time(expected.connection.now()),
            "aws:MultiFactorAuthPresent": "false",
            "aws:RequestedRegion": (named.region if named else "") or expected.region,
            "aws:PrincipalOrgID": organization_id,
            "aws:ResourceOrgID": organization_id,
            "aws:ResourceAccount": account_id,
            "aws:userid": f"{role['RoleId']}:session" if role and "RoleId" in role else "",
            **{f"aws:PrincipalTag/{key}": value for key, value in tags_of(role).items()},
        }
        principal = Principal.role_session(session, expected.role_arn)
        return Request(principal, action, resource, {key: value for key, value in context.items() if value})

    @property
    def resource_policy(self) -> Policy | None:
        """The policy of the resource that the expected action is for; None if it has none, or a pattern names it."""
        arn = Arn.find(self.expected.resource)
        if arn is None or is_pattern(arn):
            return None
        account = self.accounts.of(arn.account) if arn.account else self.account
        document = account.resource_policy(str(arn))
        if not isinstance(document, dict):
            return None
        kind: Literal["trust", "resource"] = "trust" if arn.service == "iam" else "resource"
        return Policy.read(cast("Document", document), kind=kind, name=f"the policy of {arn.name}")

    @property
    def attached_policies(self) -> list[str]:
        """The ARNs of the role's managed policies."""
        return self.role_account.attached_policies(self.expected.role_name)

    @property
    def inline_policies(self) -> dict[str, Any]:
        """The role's inline policies, by name."""
        return self.role_account.inline_policies(self.expected.role_name)

    def control_policies(self, policy_type: str) -> str:
        """Return a phrase with the names of the organization's policies that apply to the role's account.

        If they can't be read, the phrase says why.
        """
        try:
            names = [policy["Name"] for policy in self.role_account.control_policies(policy_type)]
            return f"policies on the role's account, on its OUs or on the organization's root: {', '.join(names)}"
        except NotRead as unread:
            return f"the organization's policies could not be read: {unread.call}: {unread.why}"
