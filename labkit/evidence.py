"""What was read from a live system: each thing once, when it is first asked for, and by calls that change nothing."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labkit.findings.commands import Commands
from labkit.parameters import RUN_TAG, Parameters

if TYPE_CHECKING:
    from labkit.targets import Connection

KEY = "eks.amazonaws.com/role-arn"


@dataclass(frozen=True)
class Caller:
    """Who AWS says a pod is, or what it said instead."""

    arn: str
    error: str = ""

    @property
    def role_name(self) -> str:
        """The role of the session, empty where it is none."""
        kind, _, rest = self.arn.rpartition(":")[2].partition("/")
        return rest.partition("/")[0] if kind == "assumed-role" else ""

    @property
    def identity(self) -> str:
        """The ARN without account and session, or the error: what is the same every time."""
        if not self.arn:
            return self.error
        return f"assumed-role/{self.role_name}" if self.role_name else self.arn


class Evidence:
    """The facts about one service account, its role and its pod.

    Nothing is read before it is asked for, and nothing twice. Objects are dicts as AWS and Kubernetes define them; what
    does not exist is None.
    """

    def __init__(self, parameters: Parameters, connection: "Connection"):
        self.parameters = parameters
        self.connection = connection
        self.issuer = connection.issuer
        self.provider_arn = connection.provider_arn
        self.role_arn = connection.role_arn(parameters.role_name)

    # What should be.

    audience = "sts.amazonaws.com"
    pod_name = "my-pod"

    @property
    def provider_name(self) -> str:
        """The issuer without its scheme: what condition keys begin with."""
        return self.issuer.removeprefix("https://")

    @property
    def subject(self) -> str:
        """The subject of the service account's tokens."""
        return self.parameters.subject

    @cached_property
    def commands(self) -> Commands:
        """The commands that repair."""
        from labkit.steps import iam_role, oidc_provider, pod, service_account

        return Commands(
            parameters=self.parameters,
            kubectl=self.connection.kubectl,
            pod_name=self.pod_name,
            provider_arn=self.provider_arn,
            role_arn=self.role_arn,
            provider=oidc_provider.build(self.parameters, self.issuer),
            trust_policy=iam_role.build(self.parameters, self.provider_arn),
            service_account=service_account.build(self.parameters, self.role_arn),
            pod=pod.build(self.parameters, self.connection.image),
            webhook_restored_by=self.connection.webhook_restored_by,
        )

    # AWS.

    @cached_property
    def provider_arns(self) -> list[str]:
        """The OIDC providers of the account (iam:ListOpenIDConnectProviders)."""
        listed = self._iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
        return [provider["Arn"] for provider in listed]

    @cached_property
    def provider(self) -> dict[str, Any] | None:
        """The OIDC provider of the cluster's issuer (iam:GetOpenIDConnectProvider)."""
        try:
            return self._iam.get_open_id_connect_provider(OpenIDConnectProviderArn=self.provider_arn)
        except self._iam.exceptions.NoSuchEntityException:
            return None

    @cached_property
    def role(self) -> dict[str, Any] | None:
        """The role (iam:GetRole)."""
        try:
            return self._iam.get_role(RoleName=self.parameters.role_name)["Role"]
        except self._iam.exceptions.NoSuchEntityException:
            return None

    @property
    def trust_policy(self) -> dict[str, Any]:
        """The role's trust policy; empty without a role."""
        return self.role["AssumeRolePolicyDocument"] if self.role else {}

    @property
    def role_run(self) -> str | None:
        """The run whose tag the role bears."""
        tags = self.role.get("Tags", []) if self.role else []
        return next((tag["Value"] for tag in tags if tag["Key"] == RUN_TAG), None)

    @cached_property
    def attached_policies(self) -> list[str]:
        """The ARNs of the role's managed policies (iam:ListAttachedRolePolicies)."""
        listed = self._iam.list_attached_role_policies(RoleName=self.parameters.role_name)["AttachedPolicies"]
        return [policy["PolicyArn"] for policy in listed]

    @cached_property
    def _iam(self) -> Any:
        return self.connection.aws.client("iam")

    # Kubernetes.

    @cached_property
    def service_account(self) -> dict[str, Any] | None:
        """The service account."""
        name, namespace = self.parameters.service_account, self.parameters.namespace
        return self._read(lambda: self._core.read_namespaced_service_account(name, namespace))

    @cached_property
    def service_accounts(self) -> list[str]:
        """The names of the namespace's service accounts."""
        items = self._core.list_namespaced_service_account(self.parameters.namespace).items
        return [item.metadata.name for item in items]

    @property
    def annotations(self) -> dict[str, str]:
        """The service account's annotations."""
        return ((self.service_account or {}).get("metadata") or {}).get("annotations") or {}

    @property
    def annotation(self) -> str:
        """The role's ARN as the service account is annotated with it; empty where it is not."""
        return self.annotations.get(KEY, "")

    @cached_property
    def pod(self) -> dict[str, Any] | None:
        """The pod."""
        return self._read(lambda: self._core.read_namespaced_pod(self.pod_name, self.parameters.namespace))

    @property
    def pod_phase(self) -> str:
        """The pod's phase, `Unknown` without one."""
        return ((self.pod or {}).get("status") or {}).get("phase", "Unknown")

    @property
    def pod_trouble(self) -> str:
        """Why the first container that waits does not run, in the node's words."""
        for status in ((self.pod or {}).get("status") or {}).get("containerStatuses") or []:
            if waiting := (status.get("state") or {}).get("waiting"):
                return f"{waiting.get('reason', '')} {waiting.get('message', '')}".strip()
        return ""

    @property
    def pod_role_arn(self) -> str:
        """`AWS_ROLE_ARN` as the pod's first container has it; empty where it is not set."""
        variables = self.pod["spec"]["containers"][0].get("env") or [] if self.pod else []
        return next((variable.get("value", "") for variable in variables if variable["name"] == "AWS_ROLE_ARN"), "")

    @property
    def token_audience(self) -> str | None:
        """The audience of the pod's projected token; None where it has none."""
        for volume in (self.pod or {}).get("spec", {}).get("volumes") or []:
            if volume["name"] == "aws-iam-token":
                for source in (volume.get("projected") or {}).get("sources") or []:
                    if token := source.get("serviceAccountToken"):
                        return token.get("audience")
        return None

    @cached_property
    def webhook(self) -> dict[str, Any] | None:
        """The registration of the pod identity webhook."""
        from kubernetes.client import AdmissionregistrationV1Api

        api = AdmissionregistrationV1Api(self.connection.kubernetes)
        return self._read(lambda: api.read_mutating_webhook_configuration("pod-identity-webhook"))

    # The pod itself.

    @cached_property
    def caller(self) -> Caller | None:
        """Who AWS says the pod is (sts:GetCallerIdentity, called in it); None where it does not run."""
        from labkit.execution import execute

        if self.pod_phase != "Running":
            return None
        command = ["aws", "sts", "get-caller-identity", "--query", "Arn", "--output", "text"]
        done = execute(self.connection.kubernetes, self.pod_name, self.parameters.namespace, command)
        if done.exit_code == 0:
            return Caller(done.output.strip())
        lines = done.error.strip().splitlines()
        return Caller("", lines[-1] if lines else f"the command ended with exit code {done.exit_code}")

    @cached_property
    def _core(self) -> Any:
        from kubernetes.client import CoreV1Api

        return CoreV1Api(self.connection.kubernetes)

    def _read(self, call: Any) -> dict[str, Any] | None:
        from kubernetes.client.exceptions import ApiException

        try:
            return self.connection.kubernetes.sanitize_for_serialization(call())
        except ApiException as error:
            if error.status != 404:
                raise
            return None
