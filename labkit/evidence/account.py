"""What is read of an AWS account: providers, roles and their policies, and what of EKS belongs to them."""

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from labkit.evidence.reading import Reads

if TYPE_CHECKING:
    import boto3


class Account:
    """One account, by a session that may read it. Every method raises `NotRead` where it may not."""

    def __init__(self, session: "boto3.Session", account_id: str, reads: Reads):
        self.account_id = account_id
        self._session = session
        self._reads = reads
        self._clients: dict[str, Any] = {}

    # OIDC providers.

    @property
    def provider_arns(self) -> list[str]:
        """The ARNs of the account's OIDC providers.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListOpenIDConnectProviders.html
        """
        listed = self._once(
            "iam:ListOpenIDConnectProviders",
            lambda: self._iam.list_open_id_connect_providers()["OpenIDConnectProviderList"],
        )
        return [provider["Arn"] for provider in listed]

    def provider(self, arn: str) -> dict[str, Any] | None:
        """An OIDC provider: `Url`, `ClientIDList`, `ThumbprintList`, `Tags`; None where there is none.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetOpenIDConnectProvider.html
        """
        return self._once(
            f"iam:GetOpenIDConnectProvider {arn.partition('oidc-provider/')[2]}",
            lambda: _answer(self._iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)),
        )

    # Roles.

    @property
    def roles(self) -> list[dict[str, Any]]:
        """Every role, with its trust policy; without tags and permissions boundary, which ListRoles does not tell.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListRoles.html
        """
        listed = self._once("iam:ListRoles", lambda: self._paged("list_roles", "Roles"))
        return [_with_document(role) for role in listed]

    def role(self, name: str) -> dict[str, Any] | None:
        """A role as iam:GetRole gives it, its trust policy as a dict; None where there is none.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetRole.html
        """
        role = self._once(f"iam:GetRole {name}", lambda: self._iam.get_role(RoleName=name)["Role"])
        return _with_document(role) if role else None

    def attached_policies(self, role_name: str) -> list[str]:
        """The ARNs of a role's managed policies.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListAttachedRolePolicies.html
        """
        listed = self._once(
            f"iam:ListAttachedRolePolicies {role_name}",
            lambda: self._paged("list_attached_role_policies", "AttachedPolicies", RoleName=role_name),
        )
        return [policy["PolicyArn"] for policy in listed or []]

    def inline_policies(self, role_name: str) -> dict[str, Any]:
        """The policies that are written into a role, by name.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetRolePolicy.html
        """
        names = self._once(
            f"iam:ListRolePolicies {role_name}",
            lambda: self._paged("list_role_policies", "PolicyNames", RoleName=role_name),
        )
        return {
            name: document(
                self._once(
                    f"iam:GetRolePolicy {role_name} {name}",
                    lambda name=name: self._iam.get_role_policy(RoleName=role_name, PolicyName=name)["PolicyDocument"],
                )
            )
            for name in names or []
        }

    def policy(self, arn: str) -> Any:
        """The document of a managed policy's default version; None where there is no such policy.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetPolicyVersion.html
        """

        def read() -> Any:
            version = self._iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
            return self._iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]

        return document(self._once(f"iam:GetPolicyVersion {arn}", read))

    # EKS.

    def cluster(self, name: str) -> dict[str, Any] | None:
        """A cluster as eks:DescribeCluster gives it; None where there is none.

        https://docs.aws.amazon.com/eks/latest/APIReference/API_DescribeCluster.html
        """
        return self._once(
            f"eks:DescribeCluster {name}", lambda: self.client("eks").describe_cluster(name=name)["cluster"]
        )

    # How the others read.

    def client(self, service: str) -> Any:
        """A client of this account."""
        if service not in self._clients:
            self._clients[service] = self._session.client(service)
        return self._clients[service]

    @cached_property
    def _iam(self) -> Any:
        return self.client("iam")

    def _paged(self, operation: str, key: str, **arguments: Any) -> list[Any]:
        pages = self._iam.get_paginator(operation).paginate(**arguments)
        return [item for page in pages for item in page[key]]

    def _once(self, what: str, call: Any) -> Any:
        return self._reads.once(f"{what} ({self.account_id})", call)


def document(value: Any) -> Any:
    """A policy document as IAM reads it: a dict, also where it came as text or URL-encoded; what is neither stays.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetRole.html
    """
    if not isinstance(value, str):
        return value
    for text in (value, unquote(value)):
        try:
            return json.loads(text)
        except ValueError:
            continue
    return value


def _with_document(role: dict[str, Any]) -> dict[str, Any]:
    return role | {"AssumeRolePolicyDocument": document(role.get("AssumeRolePolicyDocument") or {})}


def _answer(response: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in response.items() if key != "ResponseMetadata"}
