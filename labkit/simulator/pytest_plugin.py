"""The pytest plugin: fixtures with which a project's own tests use the lab. Each session has a lab of its own.

The page "The lab in your own tests" describes the fixtures. pytest loads this module in every project of an
environment that has labkit. So its top imports only pytest, and each fixture imports what it needs.

https://docs.pytest.org/en/stable/how-to/writing_plugins.html#making-your-plugin-installable-by-others
"""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import boto3
    from kubernetes.client import ApiClient

    from labkit.simulator.in_tests import ClusterInTests, LabInTests

LAB = pytest.StashKey["LabInTests"]()
NEWEST_CALL = pytest.StashKey[str]()
"""The id of the newest call to AWS before the test began."""


@pytest.fixture(scope="session")
def irsa_lab(pytestconfig: pytest.Config) -> Iterator["LabInTests"]:
    """A running lab: `account_id`, `region`, `endpoint_url`, and `trail()`, the calls to AWS with their reasons.

    The lab listens on loopback only, has a temporary folder, and ends with the session. Each worker of pytest-xdist
    has its own lab.
    """
    with _in_one_sentence():
        from labkit.simulator.in_tests import running

        with running() as lab:
            pytestconfig.stash[LAB] = lab
            yield lab
            del pytestconfig.stash[LAB]


@pytest.fixture(scope="session")
def irsa_cluster(irsa_lab: "LabInTests") -> "ClusterInTests":
    """An EKS cluster whose issuer is registered as an OIDC provider in IAM.

    It has `name`, `arn`, `issuer`, `oidc_provider` (the issuer without ``https://``), `oidc_provider_arn`, and
    `kubeconfig`, a path.
    """
    with _in_one_sentence():
        return irsa_lab.cluster


@pytest.fixture(scope="session")
def irsa_aws(irsa_lab: "LabInTests") -> "boto3.Session":
    """A `boto3.Session` as the account's administrator. Its clients talk to the lab."""
    with _in_one_sentence():
        return irsa_lab.aws


@pytest.fixture(scope="session")
def irsa_kubernetes(irsa_lab: "LabInTests") -> "ApiClient":
    """A `kubernetes.client.ApiClient` as the cluster's administrator."""
    with _in_one_sentence():
        return irsa_lab.kubernetes


@pytest.fixture
def irsa_namespace(request: pytest.FixtureRequest, irsa_lab: "LabInTests") -> Iterator[str]:
    """The name of a new namespace, which is deleted after the test.

    ``@pytest.mark.irsa_namespace("shop")`` chooses the name. Without it, the name begins with the test's name.
    """
    with _in_one_sentence():
        marker = request.node.get_closest_marker("irsa_namespace")
        if marker and (marker.kwargs or len(marker.args) != 1 or not isinstance(marker.args[0], str)):
            pytest.fail('The marker irsa_namespace takes one name: @pytest.mark.irsa_namespace("shop").', pytrace=False)
        name = irsa_lab.create_namespace(marker.args[0] if marker else "", request.node.name)
    yield name
    irsa_lab.delete_namespace(name)


@pytest.fixture
def irsa_as_pod(irsa_lab: "LabInTests", irsa_namespace: str) -> "Callable[[str], boto3.Session]":
    """A function that takes a service account's name, and returns a `boto3.Session` as a pod of it.

    The service account is in the namespace of `irsa_namespace`. The pod identity webhook decides which role such a pod
    gets, and STS whether it gets in. The function raises `botocore.exceptions.ClientError` if STS refuses, and fails
    the test if the service account doesn't exist or gives its pods no role.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
    """

    def as_pod(service_account: str) -> "boto3.Session":
        __tracebackhide__ = True
        with _in_one_sentence():
            return irsa_lab.as_pod(irsa_namespace, service_account)

    return as_pod


@pytest.fixture
def irsa_environment(
    irsa_lab: "LabInTests", irsa_cluster: "ClusterInTests", monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """Variables that lead boto3, kubectl, the AWS CLI and every SDK to the lab as an administrator.

    They are set in this process until the test ends, so the code under test and the programs that it starts have them.
    """
    with _in_one_sentence():
        irsa_lab.refuse_mocks()
        from botocore.handlers import BUILTIN_HANDLERS

        from labkit.simulator.environment import is_open

        for name in filter(is_open, list(os.environ)):
            monkeypatch.delenv(name)
        for name, value in irsa_lab.environment.items():
            monkeypatch.setenv(name, value)
        # boto3 keeps the session of `boto3.client(…)`, with the settings of its first call.
        monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
        # The Kubernetes client read KUBECONFIG when it was imported.
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(irsa_cluster.kubeconfig))
        # Each new session of botocore registers these.
        handler = ("before-call", irsa_lab.refuse_mocks)
        BUILTIN_HANDLERS.append(handler)
    yield irsa_lab.environment
    BUILTIN_HANDLERS.remove(handler)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "irsa_namespace(name): the name of the namespace that irsa_namespace creates.")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if lab := item.config.stash.get(LAB, None):
        item.stash[NEWEST_CALL] = lab.newest_call
    for marker in item.iter_markers():
        if marker.name.startswith("irsa_") and marker.name != "irsa_namespace":
            pytest.fail(f"{marker.name} is not a marker of labkit, which has only irsa_namespace(name).", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    lab = item.config.stash.get(LAB, None)
    if lab is None or not report.failed or "irsa_lab" not in getattr(item, "fixturenames", ()):
        return report
    if calls := lab.calls_since(item.stash.get(NEWEST_CALL, "")):
        report.sections.append(("AWS's decisions in the lab", calls))
    return report


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    """Fail the test with the message of a `LabError` that this block raises, without a traceback."""
    __tracebackhide__ = True
    try:
        yield
    except ImportError as error:
        message = f"The lab could not start: {error}.\nnext:  pip install labkit"
        raise pytest.fail.Exception(message, pytrace=False) from None
    except Exception as error:
        from labkit.errors import LabError

        if not isinstance(error, LabError):
            raise
        raise pytest.fail.Exception(str(error), pytrace=False) from None
