"""What the cluster says about one service account: its annotations, its pods, the webhook and the issuer."""

from difflib import SequenceMatcher
from functools import cached_property

from labkit.connection import Connection
from labkit.doctor.evidence.account import ROLE_ARN
from labkit.doctor.evidence.cluster_api import ClusterApi
from labkit.doctor.evidence.issuer import Issuer
from labkit.doctor.evidence.objects import PodDocument, ServiceAccountDocument, WebhookConfiguration
from labkit.doctor.evidence.pod_spec import service_account_of
from labkit.doctor.evidence.reading import Reads, known
from labkit.doctor.evidence.registration import Registration
from labkit.documents import ROLE_ANNOTATION
from labkit.run_parameters import RUN_LABEL, Parameters

AUDIENCE_KEY = "eks.amazonaws.com/audience"
# The annotation keys of kiam and kube2iam, which people used before IRSA. Some still write them.
OLDER_KEYS = ("iam.amazonaws.com/role", "iam.amazonaws.com/role-arn")


class ClusterReading:
    """The facts that the cluster has about one service account. Every property raises `NotRead`, but for `is_…`."""

    def __init__(self, parameters: Parameters, connection: Connection, reads: Reads):
        self._parameters = parameters
        self.api = ClusterApi(connection.kubernetes, reads)
        """All other objects of the cluster."""
        self.issuer = Issuer(connection, reads)
        self.registration = Registration(connection.kubernetes, self.api, reads)

    @property
    def service_account(self) -> ServiceAccountDocument | None:
        return self.api.service_account(self._parameters.namespace, self._parameters.service_account)

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
        return next((key for key, value in others.items() if _probably_names_role(key, value)), "")

    @property
    def role_of_run(self) -> str:
        """The role's name: the end of the service account's run label, `CLUSTER.NAMESPACE.SERVICEACCOUNT.ROLE`.

        Empty if the label is missing or doesn't begin with this cluster, namespace and service account. If the run's
        full name isn't allowed as a label's value, the label has a changed or cut name with a hash at its end. Then
        the returned role's name is changed or cut in the same way.
        """
        labels = ((self.service_account or {}).get("metadata") or {}).get("labels") or {}
        of_this = f"{self._parameters.cluster}.{self._parameters.namespace}.{self._parameters.service_account}."
        run = labels.get(RUN_LABEL, "")
        return run.removeprefix(of_this) if run.startswith(of_this) else ""

    @property
    def is_of_lab(self) -> bool:
        """Whether the service account carries a run's label. False if the labels can't be read.

        If True, the policy and the bucket in the parameters belong to that run.
        """
        return known(lambda: bool(self.role_of_run), False)

    @cached_property
    def is_namespace_ending(self) -> bool:
        """Whether the namespace is being deleted; False if the namespace can't be read.

        https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/
        """
        namespace = known(lambda: self.api.get("namespace", self._parameters.namespace))
        return bool(namespace and namespace["metadata"].get("deletionTimestamp"))

    @cached_property
    def pods(self) -> list[PodDocument]:
        """The pods that run as the service account, the newest first."""
        name = self._parameters.service_account
        mine = [pod for pod in self.api.pods(self._parameters.namespace) if service_account_of(pod["spec"]) == name]
        return sorted(mine, key=lambda pod: pod["metadata"].get("creationTimestamp") or "", reverse=True)

    @property
    def webhook(self) -> WebhookConfiguration | None:
        """The pod identity webhook's registration; None if the webhook isn't registered.

        https://github.com/aws/amazon-eks-pod-identity-webhook
        """
        return self.api.webhook("pod-identity-webhook")


def _probably_names_role(key: str, value: str) -> bool:
    if key in OLDER_KEYS or SequenceMatcher(None, key.lower(), ROLE_ANNOTATION).ratio() > 0.85:
        return True
    return key.endswith(("/role-arn", "/role")) and bool(ROLE_ARN.fullmatch(value or ""))
