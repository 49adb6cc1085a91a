"""The facts about one service account, its role and its pod, and the values that they should have."""

from labkit.connection import Connection
from labkit.doctor.evidence.account import AwsAccounts
from labkit.doctor.evidence.aws import AwsReading
from labkit.doctor.evidence.cluster import ClusterReading
from labkit.doctor.evidence.expected import Expected
from labkit.doctor.evidence.pod import PodReading
from labkit.doctor.evidence.reading import Reads
from labkit.documents import POD_NAME
from labkit.run_parameters import Parameters


class Evidence:
    """The facts about one service account, its role and its pod: what is expected, and what AWS and Kubernetes say.

    Objects of AWS and Kubernetes have the form that their APIs define. None stands for an object that doesn't exist.
    A property of a reading raises `NotRead` if a fact that it needs can't be read.
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
        self.reads = reads = reads or Reads()
        accounts = AwsAccounts(connection, reads)
        self.cluster = ClusterReading(parameters, connection, reads)
        self.pod = PodReading(pod_name, parameters, connection, self.cluster, reads, probe_allowed=probe)
        self.expected = Expected(
            parameters,
            connection,
            accounts,
            self.cluster,
            self.pod,
            role_is_known=role_is_known,
            is_of_run=is_of_run,
            action=action,
            resource=resource or "*",
        )
        self.aws = AwsReading(parameters, accounts, self.cluster, self.expected)
