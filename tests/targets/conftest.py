"""Fixtures for the targets: a terminal's environment for eks, and an existing cluster for kind.

The environment is the one that `labkit env` sets. The cluster is `kind_existing`, which knows nothing of a lab.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import AdmissionregistrationV1Api, ApiClient, CoreV1Api
from kubernetes.config import new_client_from_config
from typer.testing import CliRunner

import labkit
from labkit import simulator
from labkit.cli import account as account_commands
from labkit.errors import LabError
from labkit.simulator import Folder, environment
from labkit.targets import kind
from labkit.targets.kind import program as kind_program
from tests.targets import kind_fake
from tests.targets.internet import Internet, internet
from tests.targets.kind_existing import running

ACCOUNT = "123456789012"
EKS = {"target": "eks", "account_id": ACCOUNT, "confirm": "yes"}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
POLICIES = "arn:aws:eks::aws:cluster-access-policy/"
WEBHOOKS = ["lab-network", "pod-identity-webhook"]


@pytest.fixture(scope="module")
def moto(home: Path) -> Iterator[labkit.Lab]:
    """The embedded lab, opened by its administrator, who sees every resource, whoever made it."""
    with labkit.Lab.open() as lab:
        yield lab
        lab.remove()


@pytest.fixture
def state(moto: labkit.Lab) -> simulator.State:
    """The stored state of the running server: its addresses, ports and keys."""
    return simulator.State.read(Folder.find())


@pytest.fixture
def net(state: simulator.State) -> Iterator[Internet]:
    """A stand-in for the internet that knows only the lab's issuers."""
    with internet(state.issuers) as proxy:
        yield proxy


@pytest.fixture
def terminal(state: simulator.State, net: Internet, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set the variables of `labkit env` for this process, and return them. Calls beyond loopback go to `net`."""
    folder = Folder.find()
    for name in list(os.environ):
        if environment.is_open(name):
            monkeypatch.delenv(name)
    for name, value in environment.variables(folder, state.endpoint_url, state.region).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HTTPS_PROXY", net.url)
    monkeypatch.setenv("HTTP_PROXY", net.url)
    # The lab's CA replaces the public root certificates.
    monkeypatch.setenv("SSL_CERT_FILE", str(state.ca_file))
    return dict(os.environ)


@pytest.fixture
def inventory(moto: labkit.Lab) -> Callable[[], dict[str, Any]]:
    """A function that lists the resources of the account and the cluster."""
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


# For eks.


@pytest.fixture
def refused(terminal, inventory):
    """A function that opens the lab on eks and returns its error. It fails if any resource was created."""

    def attempt(**parameters):
        before = inventory()
        with pytest.raises(LabError) as refusal:
            labkit.Lab.open(**{**EKS, **parameters})
        assert inventory() == before
        assert refusal.value.next
        return refusal.value

    return attempt


def command(*words):
    """Run `labkit plan`, `remove` or `policy`. Return its output, or the error that it ended with."""
    done = CliRunner().invoke(account_commands.app, [*words])
    return done.stdout if done.exit_code == 0 else done.exception


def admit(moto, principal_arn, **association):
    eks = moto.aws.client("eks")
    eks.create_access_entry(clusterName="blue", principalArn=principal_arn)
    given = {"policyArn": f"{POLICIES}AmazonEKSClusterAdminPolicy", "accessScope": {"type": "cluster"}, **association}
    eks.associate_access_policy(clusterName="blue", principalArn=principal_arn, **given)


def expel(moto, principal_arn):
    moto.aws.client("eks").delete_access_entry(clusterName="blue", principalArn=principal_arn)


@pytest.fixture
def operator(moto, terminal, monkeypatch):
    """A user of the account without an access entry in any cluster. This terminal has the user's keys."""
    iam = moto.aws.client("iam")
    arn = iam.create_user(UserName="operator")["User"]["Arn"]
    iam.attach_user_policy(UserName="operator", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    key = iam.create_access_key(UserName="operator")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    yield arn
    iam.delete_access_key(UserName="operator", AccessKeyId=key["AccessKeyId"])
    iam.detach_user_policy(UserName="operator", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    iam.delete_user(UserName="operator")


# For kind.


@dataclass(frozen=True)
class Existing:
    """An existing cluster, with its administrator's client."""

    kubeconfig: Path
    api: ApiClient

    @property
    def parameters(self) -> dict[str, str]:
        return {"target": "kind", "kubeconfig": str(self.kubeconfig), "context": "existing"}

    @property
    def core(self) -> CoreV1Api:
        return CoreV1Api(self.api)

    @property
    def webhooks(self) -> AdmissionregistrationV1Api:
        return AdmissionregistrationV1Api(self.api)

    def registered(self) -> list[str]:
        """The names of the webhooks that are registered in it."""
        return sorted(one.metadata.name for one in self.webhooks.list_mutating_webhook_configuration().items)

    def clear(self) -> None:
        """Delete the pods and service accounts that an earlier, failed test may have left."""
        self.core.delete_collection_namespaced_pod("default", grace_period_seconds=0)
        for account in self.core.list_namespaced_service_account("default").items:
            if account.metadata.name != "default":
                self.core.delete_namespaced_service_account(account.metadata.name, "default")


def changed(existing: Existing, change: Callable[[dict], None]) -> str:
    """Write a changed copy of the kubeconfig beside it, and return its path."""
    config = json.loads(existing.kubeconfig.read_text())
    change(config)
    file = existing.kubeconfig.with_name("kubeconfig-changed")
    file.write_text(json.dumps(config))
    return str(file)


@pytest.fixture(scope="module")
def existing_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Existing]:
    with running(tmp_path_factory.mktemp("existing")) as kubeconfig:
        api = new_client_from_config(str(kubeconfig), context="existing")
        yield Existing(kubeconfig, api)
        api.close()


@pytest.fixture
def existing(existing_cluster: Existing) -> Existing:
    """An existing cluster, without pods or service accounts of an earlier test."""
    existing_cluster.clear()
    return existing_cluster


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """The test's own lab folder. No lab runs in it yet, and a lab that the test starts is stopped afterwards."""
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / ".lab"))
    yield Folder.find()
    kind.down()


@pytest.fixture
def joined(empty: Folder, existing: Existing) -> Iterator[labkit.Lab]:
    """The lab that the cluster has joined."""
    with labkit.Lab.open(**existing.parameters) as opened:
        yield opened
        opened.remove()


@pytest.fixture
def programs(empty, tmp_path, monkeypatch):
    """A function that puts the fake `kind` and `docker` on the PATH, and hides the real ones and Podman."""

    def install(**does: str) -> Path:
        folder = kind_fake.install(tmp_path / "bin", **does)
        path = [folder, Path(sys.executable).parent, "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        monkeypatch.setenv("PATH", os.pathsep.join(map(str, path)))
        real = kind_program.shutil.which
        monkeypatch.setattr(
            kind_program.shutil,
            "which",
            lambda program: (
                real(program) if program not in ("kind", "docker", "podman") else real(program, path=str(folder))
            ),
        )
        return folder

    return install
