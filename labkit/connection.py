"""How to reach a lab: what every target provides, wherever it runs."""

import hashlib
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar
from urllib.parse import parse_qs, urlsplit

from labkit.errors import LabError

if TYPE_CHECKING:
    import boto3
    from kubernetes.client import ApiClient, Configuration

T = TypeVar("T")

# The role by which an organization's administrator enters the accounts that were made in it.
# https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_accounts_access-cross-account-role.html
ENTRANCE = "OrganizationAccountAccessRole"
ANSWERS_WITHIN = (5, 30)  # seconds for a cluster: to accept a connection, and to answer
# With a tag, so that a node pulls it once: https://kubernetes.io/docs/concepts/containers/images/#image-pull-policy
IMAGE = "amazon/aws-cli:2.31.13"
# Where AWS is emulated, any 12 digits are an account. This is the notebooks' second one.
OTHER_ACCOUNT = "222222222222"
# Where a pod asks the Pod Identity agent for credentials.
# https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html
AGENT_URL = "http://169.254.170.23/v1/credentials"


class UserIdentity(TypedDict, total=False):
    """https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-user-identity.html"""

    type: str
    principalId: str
    arn: str
    accountId: str
    accessKeyId: str
    userName: str
    identityProvider: str
    sessionContext: dict[str, Any]


class Record(TypedDict, total=False):
    """A call to AWS as CloudTrail records it, and under "lab" what CloudTrail lacks: the decision and its reason.

    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
    """

    eventID: str
    eventTime: str
    eventSource: str
    eventName: str
    awsRegion: str
    userIdentity: UserIdentity
    errorCode: str
    errorMessage: str
    requestParameters: dict[str, Any] | None
    responseElements: dict[str, Any] | None
    resources: list[dict[str, Any]]
    recipientAccountId: str
    eventCategory: str
    managementEvent: bool
    readOnly: bool
    lab: dict[str, Any]


@dataclass(frozen=True)
class Connection:
    """The clients, addresses and commands of a lab; None for what its target doesn't have."""

    aws: "boto3.Session"
    kubernetes: "ApiClient | None"
    """None if the cluster is gone and only the run's resources in AWS remain to be removed."""
    issuer: str
    account_id: str
    partition: str = "aws"
    image: str = IMAGE
    kubectl: str = "kubectl"
    """The kubectl command that talks to this cluster from a terminal."""
    commands_after: str = ""
    """The command that makes a shell's `aws` and `kubectl` talk to this account and cluster; empty if not needed."""
    webhook_restored_by: str = "# see the documentation of your cluster"
    webhook_registration: Callable[[], dict[str, Any]] = dict
    """The manifest that registers the pod identity webhook; empty where this target doesn't register it."""
    takes_untagged: bool = False
    """Whether an untagged object with exactly the parameters' names counts as the run's."""
    is_embedded: bool = False
    """Whether cluster and account are the lab's own: everything in them may be deleted."""
    shows_removal: bool = False
    """Whether a removal is shown before it is done, because others may need the objects."""
    note: str | None = None
    """A note to print when the lab is opened."""
    issuer_restored_by: str = ""
    """The lines that publish the issuer's own documents again, and what they change; empty if the target has none."""
    propagates_within: int = 0
    """The seconds until a change in IAM takes effect everywhere, at most; 0 if it takes effect at once."""
    node_within: int = 0
    """The seconds until a new node is ready for a pod that fits on no node; 0 if no nodes are added."""
    fetch: Callable[[str], Any] | None = None
    served_chain: Callable[[str], list[bytes]] | None = None
    """A function for the certificates (DER) that an issuer's host serves, its own first; None: ask the host itself."""
    clock: Any = None
    trail: Callable[[], Iterator["Record"]] | None = None
    """The records of the calls to AWS, newest first."""
    node_identity: str | None = None
    pod_identity: str | None = None
    """The address of the nodes' EKS Pod Identity Agent, as a pod's spec has it."""
    any_cluster: str | None = None
    """How to create a cluster of any name: name it in a run."""
    other_account: str | None = None
    """Another account (12 digits) that you administer."""
    account: Callable[[str], "boto3.Session | None"] = lambda _: None
    """A function for a session in the account of this id (12 digits). It returns None if you can't enter it."""

    @property
    def api(self) -> "ApiClient":
        """The cluster's API. Raises `LabError` if the cluster is gone."""
        if self.kubernetes is None:
            raise LabError(
                "The cluster is gone, and its API with it.",
                where="lab.kubernetes",
                next="labkit up, or labkit plan -p target=eks …, which says what a run finds",
            )
        return self.kubernetes

    @property
    def provider_arn(self) -> str:
        """The ARN of the OIDC provider of the cluster's issuer, registered or not."""
        name = self.issuer.removeprefix("https://")
        return f"arn:{self.partition}:iam::{self.account_id}:oidc-provider/{name}"

    def now(self) -> float:
        """The time by which AWS and the cluster judge, in seconds since the epoch: the machine's, without a clock."""
        return float(self.clock.now()) if self.clock else time.time()

    def role_arn(self, role_name: str) -> str:
        """The ARN of a role of this name, whether it exists or not."""
        return f"arn:{self.partition}:iam::{self.account_id}:role/{role_name}"

    def close(self) -> None:
        """Close the connections to the cluster. The lab goes on."""
        if self.kubernetes:
            self.kubernetes.close()


def core_api(api: "ApiClient") -> Any:
    """The client's `CoreV1Api`, without its types.

    The types want a model where the client also takes a manifest, and make even an answer's metadata optional.
    """
    from kubernetes.client import CoreV1Api

    return CoreV1Api(api)


def as_document(api: "ApiClient", thing: object) -> Any:
    """Return the plain document from which the client made its model."""
    return api.sanitize_for_serialization(thing)


def configured(kubeconfig: dict[str, Any], context: str | None = None) -> "Configuration":
    """Return the client's configuration for a context of a kubeconfig: the named one, or the current one."""
    from kubernetes.client import Configuration
    from kubernetes.config import load_kube_config_from_dict

    configuration = Configuration()
    load_kube_config_from_dict(kubeconfig, context=context, client_configuration=configuration, persist_config=False)
    return configuration


def patient(api: "ApiClient") -> "ApiClient":
    """Give the client time limits for an API server that doesn't answer, and return the client.

    A watch gets its own duration on top. The client's errors don't show the answer's headers.
    """
    rest: Any = api.rest_client
    ask = rest.request

    def request(method: str, url: str, *arguments: Any, _request_timeout: Any = None, **named: Any) -> Any:
        connect, read = ANSWERS_WITHIN
        within: int | None = read
        asked = parse_qs(urlsplit(url).query)
        if "watch" in asked:
            within = read + int(asked["timeoutSeconds"][0]) if "timeoutSeconds" in asked else None
        answer = ask(method, url, *arguments, _request_timeout=_request_timeout or (connect, within), **named)
        if not 200 <= answer.status <= 299:
            answer.read()  # whoever reads by headers has done so
            answer.response.headers.clear()
        return answer

    rest.request = request
    return api


def unverified() -> ssl.SSLContext:
    """Return the TLS settings of a client that accepts any certificate, in order to read the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def certificates_of(tls: ssl.SSLSocket | ssl.SSLObject) -> list[bytes]:
    """Return the certificates (DER) that the other end of a TLS connection serves, its own first."""
    # Public from Python 3.13 on. Since 3.10 the same method has existed with an underscore.
    known: Any = tls
    chain = getattr(tls, "get_unverified_chain", None) or known._sslobj.get_unverified_chain
    return [c if isinstance(c, bytes) else ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in chain()]


def thumbprint(certificate: bytes) -> str:
    """Return a certificate's thumbprint as IAM writes it: its SHA-1 in 40 hex digits."""
    return hashlib.sha1(certificate).hexdigest()  # noqa: S324 - the algorithm is IAM's


def awaited(look: Callable[[], T], is_settled: Callable[[T], bool] = bool, *, within: float, every: float) -> T:
    """Call `look` every `every` seconds until its result is settled or `within` seconds are over; return the result."""
    until = time.monotonic() + within
    if is_settled(found := look()) or (left := until - time.monotonic()) <= 0:
        return found
    from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed  # it takes 0.06 s to load

    looking = Retrying(
        retry=retry_if_result(lambda found: not is_settled(found)),
        stop=stop_after_delay(left),
        wait=wait_fixed(every),
        retry_error_callback=lambda state: state.outcome and state.outcome.result(),
    )
    return looking(look)
