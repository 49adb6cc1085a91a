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

ACCOUNT = "123456789012"


@pytest.fixture(scope="module")
def moto(home: Path) -> Iterator[labkit.Lab]:
    """The embedded lab, as its administrator: what is there, whoever made it."""
    with labkit.Lab.open() as lab:
        lab.remove()
        yield lab
        lab.remove()


@pytest.fixture
def terminal(moto: labkit.Lab, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables of `labkit env`, set for this process, too."""
    folder = Folder.find()
    state = process.State.read(folder)
    for name in list(os.environ):
        if environment.is_open(name):
            monkeypatch.delenv(name)
    for name, value in environment.variables(folder, state.endpoint_url, state.region).items():
        monkeypatch.setenv(name, value)
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
