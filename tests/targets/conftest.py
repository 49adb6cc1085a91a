"""A lab whose endpoints a terminal's environment holds, as `labkit env` sets it: for targets that follow it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import CoreV1Api

import labkit
from labkit.emulator import environment, process
from labkit.emulator.folder import Folder
from tests.targets.internet import Internet, internet

ACCOUNT = "123456789012"


@pytest.fixture(scope="module")
def moto(home: Path) -> Iterator[labkit.Lab]:
    """The embedded lab, as its administrator: what is there, whoever made it."""
    with labkit.Lab.open() as lab:
        lab.remove()
        yield lab
        lab.remove()


@pytest.fixture
def state(moto: labkit.Lab) -> process.State:
    """What is known of the server that runs."""
    return process.State.read(Folder.find())


@pytest.fixture
def net(state: process.State) -> Iterator[Internet]:
    """An internet in which there is the lab's issuer, and nothing else."""
    with internet(state.issuers) as proxy:
        yield proxy


@pytest.fixture
def terminal(state: process.State, net: Internet, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables of `labkit env`, set for this process, too; what is not on loopback is asked of `net`."""
    folder = Folder.find()
    for name in list(os.environ):
        if environment.is_open(name):
            monkeypatch.delenv(name)
    for name, value in environment.variables(folder, state.endpoint_url, state.region).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HTTPS_PROXY", net.url)
    monkeypatch.setenv("HTTP_PROXY", net.url)
    # The lab's CA stands for the public roots.
    monkeypatch.setenv("SSL_CERT_FILE", str(state.ca_file))
    return dict(os.environ)


@pytest.fixture
def inventory(moto: labkit.Lab) -> Callable[[], dict[str, Any]]:
    """What is in the account and the cluster."""
    iam, s3, core = moto.aws.client("iam"), moto.aws.client("s3"), CoreV1Api(moto.kubernetes)

    def read() -> dict[str, Any]:
        return {
            "providers": [one["Arn"] for one in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]],
            "roles": [(one["RoleName"], one["RoleId"]) for one in iam.list_roles()["Roles"]],
            "buckets": [one["Name"] for one in s3.list_buckets()["Buckets"]],
            "namespaces": [one.metadata.uid for one in core.list_namespace().items],
            "service accounts": [one.metadata.uid for one in core.list_service_account_for_all_namespaces().items],
            "pods": [one.metadata.uid for one in core.list_pod_for_all_namespaces().items],
        }

    return read
