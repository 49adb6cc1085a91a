"""The commands that repair: lines for a shell after `eval "$(labkit env)"`."""

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit.parameters import Parameters

if TYPE_CHECKING:
    from labkit.evidence import Evidence


@dataclass(frozen=True)
class Commands:
    """The commands for one run, and the documents as they should be."""

    parameters: Parameters
    kubectl: str
    """How kubectl is called so that it talks to this run's cluster."""
    pod_name: str
    provider_arn: str
    role_arn: str
    provider: dict[str, Any]
    trust_policy: dict[str, Any]
    service_account: dict[str, Any]
    pod: dict[str, Any]
    webhook_restored_by: str

    @classmethod
    def of(cls, evidence: "Evidence") -> "Commands":
        """The commands for the service account, role and pod of this evidence."""
        from labkit.steps import iam_role, oidc_provider, pod, service_account

        parameters, connection = evidence.parameters, evidence.connection
        if evidence.role_name:
            parameters = parameters.model_copy(update={"role_name": evidence.role_name})
        role_arn = evidence.role_arn or connection.role_arn(parameters.role_name)
        return cls(
            parameters=parameters,
            kubectl=connection.kubectl,
            pod_name=evidence.pod_name or pod.NAME,
            provider_arn=evidence.provider_arn,
            role_arn=role_arn,
            provider=oidc_provider.build(parameters, evidence.issuer),
            trust_policy=iam_role.build(parameters, evidence.provider_arn),
            service_account=service_account.build(parameters, role_arn),
            pod=pod.build(parameters, connection.image),
            webhook_restored_by=connection.webhook_restored_by,
        )

    def create_provider(self) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/create-open-id-connect-provider.html"""
        audiences = " ".join(self.provider["ClientIDList"])
        return (
            f"aws iam create-open-id-connect-provider --url {self.provider['Url']} --client-id-list {audiences} "
            f"--tags {self._tags()}"
        )

    def add_client_id(self) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/add-client-id-to-open-id-connect-provider.html"""
        audience = self.provider["ClientIDList"][0]
        return (
            "aws iam add-client-id-to-open-id-connect-provider "
            f"--open-id-connect-provider-arn {self.provider_arn} --client-id {audience}"
        )

    def create_role(self) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/create-role.html"""
        return (
            f"aws iam create-role --role-name {self._role} "
            f"--assume-role-policy-document {_quoted(self.trust_policy)} --tags {self._tags()}"
        )

    def update_trust_policy(self) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/update-assume-role-policy.html"""
        return (
            f"aws iam update-assume-role-policy --role-name {self._role} --policy-document {_quoted(self.trust_policy)}"
        )

    def attach_policy(self) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/attach-role-policy.html"""
        return (
            f"aws iam attach-role-policy --role-name {self._role} "
            f"--policy-arn {shlex.quote(self.parameters.policy_arn)}"
        )

    def list_role_tags(self) -> str:
        """https://docs.aws.amazon.com/cli/latest/reference/iam/list-role-tags.html"""
        return f"aws iam list-role-tags --role-name {self._role}"

    def create_service_account(self) -> str:
        """The manifest, applied."""
        return self._apply(self.service_account)

    def annotate(self, *, without: str = "") -> str:
        """https://kubernetes.io/docs/reference/kubectl/generated/kubectl_annotate/"""
        removed = f"{shlex.quote(without)}- " if without else ""
        return (
            f"{self.kubectl} annotate serviceaccount {self.parameters.service_account} "
            f"-n {self.parameters.namespace} --overwrite {removed}"
            f"eks.amazonaws.com/role-arn={shlex.quote(self.role_arn)}"
        )

    def create_pod(self) -> str:
        """The manifest, applied."""
        return self._apply(self.pod)

    def replace_pod(self) -> str:
        """A pod is given its role when it is made: away with it, and once more."""
        return (
            f"{self.kubectl} delete pod {self.pod_name} -n {self.parameters.namespace} --grace-period=1\n"
            f"{self.create_pod()}"
        )

    def restore_webhook(self) -> str:
        """How the target gets its webhook back."""
        return self.webhook_restored_by

    @property
    def _role(self) -> str:
        return shlex.quote(self.parameters.role_name)

    def _tags(self) -> str:
        pairs = (f"Key={tag['Key']},Value={tag['Value']}" for tag in self.parameters.tags)
        return " ".join(shlex.quote(pair) for pair in pairs)

    def _apply(self, manifest: dict[str, Any]) -> str:
        return f"echo {_quoted(manifest)} | {self.kubectl} apply -f -"


def _quoted(document: dict[str, Any]) -> str:
    return shlex.quote(json.dumps(document))
