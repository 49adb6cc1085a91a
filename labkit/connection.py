"""How to reach a lab: the clients, addresses and commands that a target provides."""

import hashlib
import socket
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
SERVED_WITHIN = 10.0  # seconds for a host: to send its certificates
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
    """A call to AWS, as a dict with the keys of a CloudTrail event.

    The lab adds the key "lab", with the decision and its reason.

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


class NotThereYet(LabError):
    """The lab doesn't run, or its AWS has no such cluster yet. A run starts the lab and makes or joins the cluster."""


@dataclass(frozen=True)
class Connection:
    """The clients, addresses and commands of a lab.

    The value None in a field, such as `clock`, means that the target lacks it.
    """

    aws: "boto3.Session"
    kubernetes: "ApiClient | None"
    """The client of the cluster's API; None if the cluster is gone and only the run's resources in AWS are left."""
    issuer: str
    account_id: str
    partition: str = "aws"
    image: str = IMAGE
    kubectl: str = "kubectl"
    """The kubectl command that talks to this cluster from a terminal."""
    commands_after: str = ""
    """The shell command after which `aws` and `kubectl` use this account and cluster; empty if they already do."""
    webhook_restored_by: str = "# see the documentation of your cluster"
    webhook_registration: Callable[[], dict[str, Any]] = dict
    """A function that returns the webhook's manifest. It returns an empty dict if the target registers no webhook."""
    takes_untagged: bool = False
    """Whether an untagged object with exactly the names from the parameters counts as the run's."""
    is_embedded: bool = False
    """Whether the cluster and the account are the lab's own, so that everything in them may be deleted."""
    shows_removal: bool = False
    """Whether the lab prints a list of resources before it deletes them, because other people may need them."""
    note: str | None = None
    """A note for the person who opens the lab."""
    issuer_restored_by: str = ""
    """The shell lines that make STS read the issuer's own documents again; empty if the documents can't be replaced."""
    propagates_within: int = 0
    """The longest time, in seconds, until a change in IAM takes effect everywhere; 0 if it takes effect at once."""
    node_within: int = 0
    """The longest time, in seconds, until the cluster has added a node for a waiting pod; 0 if it adds no nodes."""
    fetch: Callable[[str], Any] | None = None
    served_chain: Callable[[str], list[bytes]] | None = None
    """A function that returns the certificates (DER) that an issuer's host serves, the host's own first.

    None: the caller has to ask the host.
    """
    clock: Any = None
    trail: Callable[[], Iterator["Record"]] | None = None
    """A function that yields the records of the calls to AWS, the newest first."""
    hop_limit: Callable[[], int] | None = None
    """A function that returns the hop limit of the cluster's own node. From 2 on, pods get the node's credentials."""
    usual_hop_limit: int = 1
    node_role: str = ""
    """The name of the nodes' role if the role is the lab's own; empty otherwise."""
    pod_identity: str | None = None
    """The URL at which pods ask the nodes' EKS Pod Identity Agent for credentials."""
    any_cluster: str | None = None
    """The AWS call that creates a cluster of any name when a run needs it."""
    other_account: str | None = None
    """Another account (12 digits) that you administer."""
    account: Callable[[str], "boto3.Session | None"] = lambda _: None
    """A function that takes an account's id (12 digits) and returns a session in the account.

    It returns None if you can't enter the account.
    """

    @property
    def api(self) -> "ApiClient":
        """The cluster's API. Raises `LabError` if the cluster is gone."""
        if self.kubernetes is None:
            raise LabError(
                "The cluster no longer exists, so its API can't be called.",
                where="lab.kubernetes",
                next="labkit up, or labkit plan -p target=eks …, which shows what a run would find",
            )
        return self.kubernetes

    @property
    def provider_arn(self) -> str:
        """The ARN of the OIDC provider for the cluster's issuer, whether the provider is registered or not."""
        name = self.issuer.removeprefix("https://")
        return f"arn:{self.partition}:iam::{self.account_id}:oidc-provider/{name}"

    def now(self) -> float:
        """The time of AWS and the cluster, in epoch seconds. Without a `clock`, the machine's time."""
        return float(self.clock.now()) if self.clock else time.time()

    def role_arn(self, role_name: str) -> str:
        """The ARN of the role with this name, whether the role exists or not."""
        return f"arn:{self.partition}:iam::{self.account_id}:role/{role_name}"

    def close(self) -> None:
        """Close the connections to the cluster. The lab keeps running."""
        if self.kubernetes:
            self.kubernetes.close()


def core_api(api: "ApiClient") -> Any:
    """Return the client's `CoreV1Api`, but typed as `Any`, because the library's own types are too strict."""
    from kubernetes.client import CoreV1Api

    return CoreV1Api(api)


def as_document(api: "ApiClient", thing: object) -> Any:
    """Return `thing`, a model object of the Kubernetes client, as a plain document."""
    return api.sanitize_for_serialization(thing)


def configured(kubeconfig: dict[str, Any], context: str | None = None) -> "Configuration":
    """Return the Kubernetes client's configuration for a context of the kubeconfig, by default the current one."""
    from kubernetes.client import Configuration
    from kubernetes.config import load_kube_config_from_dict

    configuration = Configuration()
    load_kube_config_from_dict(kubeconfig, context=context, client_configuration=configuration, persist_config=False)
    return configuration


def patient(api: "ApiClient") -> "ApiClient":
    """Return the same client, but with time limits for an API server that doesn't answer.

    `ANSWERS_WITHIN` has the limits. For a watch with `timeoutSeconds`, these seconds are added to the limit for the
    answer. For a watch without `timeoutSeconds`, the answer has no limit.

    The client also deletes the headers of each error answer, so that no exception shows the headers.
    """
    rest: Any = api.rest_client
    ask = rest.request

    def request(method: str, url: str, *arguments: Any, _request_timeout: Any = None, **named: Any) -> Any:
        connect, read = ANSWERS_WITHIN
        within: int | None = read
        query = parse_qs(urlsplit(url).query)
        if "watch" in query:
            within = read + int(query["timeoutSeconds"][0]) if "timeoutSeconds" in query else None
        answer = ask(method, url, *arguments, _request_timeout=_request_timeout or (connect, within), **named)
        if not 200 <= answer.status <= 299:
            answer.read()  # the client has used the headers by now
            answer.response.headers.clear()
        return answer

    rest.request = request
    return api


def unverified() -> ssl.SSLContext:
    """Return TLS settings that accept any certificate. Use them only to read a server's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def certificates_of(tls: ssl.SSLSocket | ssl.SSLObject) -> list[bytes]:
    """Return the certificates (DER) that the server of a TLS connection sends, the server's own first."""
    # Public from Python 3.13 on. Since 3.10 the same method has existed with an underscore.
    known: Any = tls
    chain = getattr(tls, "get_unverified_chain", None) or known._sslobj.get_unverified_chain
    return [c if isinstance(c, bytes) else ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in chain()]


def thumbprint(certificate: bytes) -> str:
    """Return a certificate's thumbprint as IAM writes it: the SHA-1 hash in 40 hex digits."""
    return hashlib.sha1(certificate).hexdigest()  # noqa: S324 - the algorithm is IAM's


def awaited(look: Callable[[], T], is_settled: Callable[[T], bool] = bool, *, within: float, every: float) -> T:
    """Call `look` every `every` seconds until `is_settled` accepts the result, but for at most `within` seconds.

    Return the last result.
    """
    until = time.monotonic() + within
    if is_settled(state := look()) or (left := until - time.monotonic()) <= 0:
        return state
    from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed  # it takes 0.06 s to load

    looking = Retrying(
        retry=retry_if_result(lambda state: not is_settled(state)),
        stop=stop_after_delay(left),
        wait=wait_fixed(every),
        retry_error_callback=lambda state: state.outcome and state.outcome.result(),
    )
    return looking(look)


def served_chain(host: str, *, address: str = "", port: int = 443) -> list[bytes]:
    """Return the certificates (DER) that a host serves, without verifying them. The host's own certificate is first.

    Raises `OSError`.
    """
    with (
        _connect(host, address, port) as connected,
        unverified().wrap_socket(connected, server_hostname=host) as tls,
    ):
        return certificates_of(tls)


def _connect(host: str, address: str, port: int) -> socket.socket:
    """Return a socket that is connected to `address`, or to `host` if `address` is empty.

    A connection to `host` goes through this machine's HTTPS proxy, if one is set and `host` isn't excepted from it.
    """
    from http.client import HTTPConnection
    from urllib.request import getproxies, proxy_bypass

    proxy = urlsplit(getproxies().get("https", ""))
    if address or not proxy.hostname or proxy_bypass(host):
        return socket.create_connection((address or host, port), timeout=SERVED_WITHIN)
    tunnel = HTTPConnection(proxy.hostname, proxy.port or 80, timeout=SERVED_WITHIN)
    tunnel.set_tunnel(host, port)
    tunnel.connect()
    return tunnel.sock
