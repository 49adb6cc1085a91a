"""AWS, the cluster, and the names and tags of one run: everything that a step needs."""

from dataclasses import replace
from typing import TYPE_CHECKING

from labkit.connection import Connection
from labkit.errors import LabError
from labkit.run_parameters import Parameters

if TYPE_CHECKING:
    import boto3
    from kubernetes.client import ApiClient


class Workspace:
    """AWS and a Kubernetes cluster, for one run. Steps and faults need only a workspace."""

    def __init__(self, parameters: Parameters, connection: Connection):
        self.parameters = parameters
        self.connection = connection

    def in_account(self, account_id: str) -> "Workspace":
        """Return a workspace for this run with an administrator's session in another account.

        Raises `LabError` if you can't enter that account.
        """
        session = self.connection.account(account_id)
        if session is None:
            raise LabError(
                f"You can't enter the account {account_id} from the account {self.account_id}.",
                where="the target " + self.parameters.target,
                next='set target = "moto", where you can enter any account',
            )
        return Workspace(self.parameters, replace(self.connection, aws=session, account_id=account_id))

    @property
    def aws(self) -> "boto3.Session":
        """The AWS session. On moto and kind, it has administrator credentials; on eks, your own credentials."""
        return self.connection.aws

    @property
    def kubernetes(self) -> "ApiClient":
        """The client of the cluster's API: `kubernetes.client.CoreV1Api(lab.kubernetes)`.

        Raises `LabError` if the cluster is gone.
        """
        return self.connection.api

    @property
    def issuer(self) -> str:
        """The URL of the cluster's OIDC issuer."""
        return self.connection.issuer

    @property
    def account_id(self) -> str:
        """The AWS account's id, 12 digits."""
        return self.connection.account_id

    @property
    def provider_arn(self) -> str:
        """The ARN of the issuer's OIDC provider, whether the provider is registered or not."""
        return self.connection.provider_arn

    @property
    def role_arn(self) -> str:
        """The ARN of this run's role, whether the role exists or not."""
        return self.connection.role_arn(self.parameters.role_name)

    @property
    def image(self) -> str:
        return self.parameters.image or self.connection.image

    @property
    def run(self) -> str:
        """The run's name, different from every other run's: cluster/namespace/service account/role."""
        return self.parameters.run

    @property
    def tags(self) -> list[dict[str, str]]:
        """The tags of everything that this run makes in AWS."""
        return self.parameters.tags

    @property
    def labels(self) -> dict[str, str]:
        """The labels of everything that this run makes in Kubernetes."""
        return self.parameters.labels

    @property
    def kubectl(self) -> str:
        """The kubectl command that talks to this cluster from a terminal."""
        return self.connection.kubectl

    @property
    def takes_untagged(self) -> bool:
        """Whether an untagged object belongs to this run if the object has one of the names in the parameters."""
        return self.connection.takes_untagged
