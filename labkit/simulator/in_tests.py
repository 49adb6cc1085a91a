"""The lab of one test session, for the fixtures of `labkit.simulator.pytest_plugin`."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labkit.connection import Record, awaited, core_api
from labkit.errors import LabError
from labkit.simulator import clients, environment, process
from labkit.simulator.aws.trail import Trail
from labkit.simulator.folder import Folder
from labkit.simulator.process import State

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from labkit.simulator.sessions import BoundSession

CLUSTER = "blue"
SHOWN = 10  # calls in a failed test's report
GONE_WITHIN = 30  # seconds for a namespace that is being deleted
ENDED_WITHIN = 10  # seconds for the process that watches the session
ROLE_ARN = "AWS_ROLE_ARN"
# Ends the lab if its input ends without a line, because the session was killed.
IF_KILLED = """
import sys
if not sys.stdin.readline():
    from pathlib import Path
    from labkit.simulator.in_tests import end
    end(Path(sys.argv[1]))
"""


@dataclass(frozen=True)
class ClusterInTests:
    """One EKS cluster of the lab."""

    name: str
    arn: str
    issuer: str
    oidc_provider_arn: str
    kubeconfig: Path

    @property
    def oidc_provider(self) -> str:
        """The issuer without ``https://``. The condition keys of a trust policy begin with it."""
        return self.issuer.removeprefix("https://")


class LabInTests:
    """A running lab, with one cluster from its first use on."""

    def __init__(self, folder: Folder, state: State):
        self.folder = folder
        self.account_id = state.account_id
        self.region = state.region
        self.endpoint_url = state.endpoint_url
        self._state = state
        self._serial = count(1)
        self._newest_of_start = ""

    @cached_property
    def aws(self) -> "BoundSession":
        """A `boto3.Session` as the account's administrator."""
        self.refuse_mocks()
        return self._refusing_mocks(clients.session(self._state, self.region))

    @cached_property
    def cluster(self) -> ClusterInTests:
        """The cluster. Its issuer is registered as an OIDC provider."""
        made = clients.ensure_cluster(self.aws, CLUSTER, self.account_id)
        issuer = made["identity"]["oidc"]["issuer"]
        provider = self.aws.client("iam").create_open_id_connect_provider(
            Url=issuer, ClientIDList=["sts.amazonaws.com"]
        )
        self._newest_of_start = self.newest_call
        return ClusterInTests(
            CLUSTER, made["arn"], issuer, provider["OpenIDConnectProviderArn"], self.folder.kubeconfig
        )

    @cached_property
    def kubernetes(self) -> "ApiClient":
        """A client of the cluster's API, as the cluster's administrator."""
        return clients.api_client(self._state, self.cluster.name)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead a program to the lab, as an administrator."""
        return environment.variables(self.folder, self.endpoint_url, self.region)

    def trail(self) -> list[Record]:
        """Return the calls to AWS since the lab's start, the oldest first. The key ``lab`` has decision and reason."""
        return Trail.read(self.folder.trail_file)

    @property
    def newest_call(self) -> str:
        """The id of the newest call to AWS; empty if there was no call yet."""
        return next((record.get("eventID", "") for record in Trail.newest(self.folder.trail_file)), "")

    def calls_since(self, newest: str) -> str:
        """Return two lines for each of the newest calls to AWS after the call with the id ``newest``."""
        known = (newest, self._newest_of_start)
        since = takewhile(lambda record: record.get("eventID") not in known, Trail.newest(self.folder.trail_file))
        return "\n".join(_shown(record) for record in [*islice(since, SHOWN)][::-1])

    def create_namespace(self, name: str, test: str) -> str:
        """Create a namespace, and return its name. If ``name`` is empty, the name begins like the test's name.

        If a namespace with this name is being deleted, wait for its end. Raises `LabError` if a namespace has this
        name, or if the name isn't valid.
        """
        from kubernetes.client.exceptions import ApiException

        core, name = core_api(self.kubernetes), name or self._named_after(test)
        try:
            if not awaited(lambda: not _is_terminating(core, name), within=GONE_WITHIN, every=0.02):
                raise LabError(f"The namespace {name} is still being deleted after {GONE_WITHIN} s.")
            core.create_namespace({"metadata": {"name": name}})
        except ApiException as error:
            if error.status == 409:
                raise LabError(
                    f"The lab already has a namespace {name}, which another fixture or test created.",
                    where="the marker irsa_namespace",
                    next="delete that namespace, or choose another name",
                ) from None
            if error.status == 422:
                raise LabError(
                    f"{name!r} can't be a namespace's name: it has lower-case letters, digits and dashes only.",
                    where="the marker irsa_namespace",
                ) from None
            raise
        return name

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace, if it still exists. Kubernetes deletes the objects in it afterwards."""
        from kubernetes.client.exceptions import ApiException

        try:
            core_api(self.kubernetes).delete_namespace(name)
        except ApiException as error:
            if error.status not in (404, 409):
                raise

    def as_pod(self, namespace: str, service_account: str) -> "BoundSession":
        """Return an AWS session as a pod of this service account.

        Raises `botocore.exceptions.ClientError` if STS refuses. Raises `LabError` if the service account doesn't exist,
        or if the webhook gives its pods no role.
        """
        __tracebackhide__ = True
        from botocore.exceptions import ClientError

        from labkit.simulator.sessions import BoundSession

        self.refuse_mocks()
        if not isinstance(service_account, str) or not service_account:  # tests needn't have types
            raise LabError(f"irsa_as_pod takes a service account's name, not {service_account!r}.")
        spec = self._admitted(namespace, service_account)
        variables = {variable.name: variable.value for variable in spec.containers[0].env or ()}
        if ROLE_ARN not in variables:
            raise LabError(
                f"Pods of the service account {namespace}/{service_account} get no role: it has no annotation "
                "eks.amazonaws.com/role-arn, or the annotation has no value.",
                next="annotate the service account with the role's ARN",
            )
        try:
            # No variable holds the token or the keys: pytest --showlocals prints variables.
            keys = self.aws.client("sts").assume_role_with_web_identity(
                RoleArn=variables[ROLE_ARN],
                RoleSessionName=f"{service_account:-<2}"[:64],  # STS takes 2 to 64 characters
                WebIdentityToken=self._token(namespace, service_account, spec),
            )["Credentials"]
        except ClientError as error:
            raise error.with_traceback(None) from None  # botocore's frames hold the token
        return self._refusing_mocks(
            BoundSession(
                endpoint_url=self.endpoint_url,
                access_key_id=keys["AccessKeyId"],
                secret_access_key=keys["SecretAccessKey"],
                session_token=keys["SessionToken"],
                region=variables.get("AWS_REGION", self.region),
            )
        )

    def refuse_mocks(self, **_: object) -> None:
        """Fail the test if moto's `mock_aws` is active in this process. botocore calls this before each call to AWS."""
        models: Any = sys.modules.get("moto.core.models")
        if models and models.botocore_stubber.enabled:
            pytest.fail(
                "moto's mock_aws is active in this test: it replaces the AWS credentials, and answers calls instead of "
                "the lab.\nnext:  remove mock_aws from tests that use a fixture of labkit (irsa_…)",
                pytrace=False,
            )

    def _refusing_mocks(self, session: "BoundSession") -> "BoundSession":
        session.events.register("before-call", self.refuse_mocks)
        return session

    def _admitted(self, namespace: str, service_account: str) -> Any:
        """Return the spec of a pod of this service account after admission. The pod itself isn't created."""
        from kubernetes.client.exceptions import ApiException

        pod = {
            "metadata": {"name": f"as-{service_account}"[:63].rstrip("-.")},
            "spec": {"serviceAccountName": service_account, "containers": [{"name": "main", "image": "scratch"}]},
        }
        try:
            core_api(self.kubernetes).read_namespaced_service_account(service_account, namespace)
            return core_api(self.kubernetes).create_namespaced_pod(namespace, pod, dry_run="All").spec
        except ApiException as error:
            if error.status != 404:
                raise
            raise LabError(
                f"The namespace {namespace} has no service account {service_account}.",
                next=f"create it before irsa_as_pod({service_account!r})",
            ) from None

    def _token(self, namespace: str, service_account: str, spec: Any) -> str:
        """Return a token as the webhook's volume in ``spec`` asks for it.

        https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
        """
        wanted = next(
            source.service_account_token
            for volume in spec.volumes
            if volume.name == "aws-iam-token"
            for source in volume.projected.sources
        )
        request = {"spec": {"audiences": [wanted.audience], "expirationSeconds": wanted.expiration_seconds}}
        made = core_api(self.kubernetes).create_namespaced_service_account_token(service_account, namespace, request)
        return str(made.status.token)

    def _named_after(self, test: str) -> str:
        words = re.sub("[^a-z0-9]+", "-", test.lower()).strip("-")[:50]
        return f"{words}-{next(self._serial)}".lstrip("-")


@contextmanager
def running() -> Iterator[LabInTests]:
    """Start a lab in a temporary folder, and end it after the block, or when this process ends. Raises `LabError`."""
    if sys.platform not in ("linux", "darwin"):
        raise LabError(f"The lab runs on Linux and macOS, not on {sys.platform}.", next="run these tests in WSL 2")
    path = Path(tempfile.mkdtemp(prefix="labkit-pytest-"))
    watching = subprocess.Popen(
        [sys.executable, "-P", "-c", IF_KILLED, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        folder = Folder(path / "lab")
        # boto3, kubernetes and their clients take as long to load as the server takes to start, so do both at once.
        # The main thread loads them: pytest parses labkit's modules, and Python 3.11 can't parse in two threads.
        with ThreadPoolExecutor(1) as pool:
            starting = pool.submit(process.start, folder)
            _load_clients()
            state = starting.result()
        yield LabInTests(folder, state)
    finally:
        end(path)
        watching.communicate(b"\n", timeout=ENDED_WITHIN)


def end(path: Path) -> None:
    """End the lab in the temporary folder ``path``, and delete the folder. Raises `LabError`."""
    try:
        process.stop(Folder(path / "lab"))
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _load_clients() -> None:
    from kubernetes.client import ApiClient, CoreV1Api  # noqa: F401

    from labkit.simulator import sessions

    for service in ("eks", "iam", "sts"):
        sessions.load_client(service)


def _is_terminating(core: Any, name: str) -> bool:
    from kubernetes.client.exceptions import ApiException

    try:
        return bool(core.read_namespace(name).status.phase == "Terminating")
    except ApiException as error:
        if error.status != 404:
            raise
        return False


def _shown(record: Record) -> str:
    """Return the call, its decision and the reason."""
    lab, identity = record.get("lab") or {}, record.get("userIdentity") or {}
    caller = identity.get("userName") or identity.get("arn", "").rpartition(":")[2] or identity.get("type", "")
    decided = lab.get("code") or record.get("errorCode") or lab.get("decision", "")
    return f"{record.get('eventName')} by {caller}: {decided}\n    {lab.get('reason') or lab.get('message', '')}"
