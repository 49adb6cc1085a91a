"""The contract of every target, so that no other module has to ask which target it runs on.

Here kind is an existing cluster (see `kind_existing`), and eks is the simulator, reached by AWS_ENDPOINT_URL (see
`conftest`).
"""

import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kubernetes.client import CoreV1Api, WellKnownApi

import labkit
from labkit import steps, targets
from labkit.course import capabilities
from labkit.errors import LabError
from labkit.run_parameters import LAB_TAG, RUN_LABEL, RUN_TAG, Parameters
from labkit.simulator import Folder
from labkit.steps.iam_role import RoleOfAnotherRun
from labkit.targets import kind
from tests.targets.conftest import ACCOUNT
from tests.targets.kind_existing import running

# LABKIT_TARGET limits the tests to one target.
NAMES = [os.environ["LABKIT_TARGET"]] if "LABKIT_TARGET" in os.environ else targets.NAMES
HOSTILE = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "KUBECONFIG": "/elsewhere", "HTTPS_PROXY": "http://elsewhere:1"}


@dataclass
class Target:
    """A target under test: its name, the parameters that it needs, and the capabilities that it has."""

    name: str
    given: dict[str, Any]
    has: set[str]
    keeps_environment: bool

    @property
    def module(self) -> ModuleType:
        return targets.target(self.name)

    def parameters(self, **values: Any) -> Parameters:
        return Parameters.checked(**{"target": self.name, **self.given, **values})

    def open(self, **values: Any) -> labkit.Lab:
        return labkit.Lab.open(**{"target": self.name, **self.given, **values})


@pytest.fixture(params=NAMES)
def target(request: pytest.FixtureRequest) -> Target:
    return request.getfixturevalue(f"on_{request.param}")


@pytest.fixture
def on_moto(moto: labkit.Lab) -> Target:
    every = {"any_cluster", "clock", "hop_limit", "other_account", "pod_identity", "trail"}
    return Target("moto", {}, every, keeps_environment=False)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The parameters that name the cluster: the one of `make test-kind`, or one started here."""
    if "LABKIT_KUBECONFIG" in os.environ:
        yield {name: os.environ.get(f"LABKIT_{name.upper()}", "") for name in ("kubeconfig", "context")}
        return
    with running(tmp_path_factory.mktemp("existing")) as kubeconfig:
        yield {"kubeconfig": str(kubeconfig), "context": "existing"}


@pytest.fixture
def on_kind(named: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / ".lab"))
    kind.up(Parameters.checked(target="kind", **named))
    yield Target("kind", named, {"trail", "other_account"}, keeps_environment=False)
    kind.down()


@pytest.fixture
def on_eks(terminal: dict[str, str]) -> Target:
    return Target("eks", {"account_id": ACCOUNT, "confirm": "yes"}, set(), keeps_environment=True)


@pytest.fixture
def opened(target: Target) -> Iterator[labkit.Lab]:
    """The target's lab, opened for a run of its own, whose resources are removed afterwards."""
    with target.open(namespace="contract", role_name="contract", bucket="contract") as lab:
        yield lab
        lab.remove()


def things(opened: labkit.Lab) -> dict[str, Any]:
    """The resources of the account and the cluster, but only the run's pods: others come and go."""
    iam, s3, core = opened.aws.client("iam"), opened.aws.client("s3"), CoreV1Api(opened.kubernetes)
    return {
        "providers": sorted(one["Arn"] for one in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]),
        "roles": sorted(one["RoleName"] for one in iam.list_roles()["Roles"]),
        "buckets": sorted(one["Name"] for one in s3.list_buckets()["Buckets"]),
        "namespaces": sorted(one.metadata.name for one in core.list_namespace().items),
        "pods": sorted(one.metadata.name for one in core.list_namespaced_pod("contract").items),
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_targets_module_has_the_same_functions(name):
    module = targets.target(name)
    for function, first in {"plan": "parameters", "up": "parameters", "connect": "parameters"}.items():
        signature = inspect.signature(getattr(module, function))
        given, *others = signature.parameters.values()
        assert given.name == first
        assert all(one.default is not inspect.Parameter.empty for one in others)
    assert list(inspect.signature(module.down).parameters) == []
    assert list(inspect.signature(module.environment).parameters) == ["variables"]


def test_the_plan_names_the_cluster_and_creates_nothing(target, opened):
    before = things(opened)
    assert "cluster" in target.module.plan(target.parameters())
    assert things(opened) == before


def test_the_connection_leads_to_its_own_account_region_and_issuer(opened):
    connection = opened.connection
    assert connection.aws.client("sts").get_caller_identity()["Account"] == connection.account_id
    assert connection.aws.region_name == opened.parameters.region
    cluster = connection.aws.client("eks").describe_cluster(name=opened.parameters.cluster)["cluster"]
    assert cluster["identity"]["oidc"]["issuer"] == connection.issuer
    # The API server has to name the same issuer.
    discovery = WellKnownApi(connection.kubernetes).get_service_account_issuer_open_id_configuration()
    assert connection.issuer in discovery
    assert connection.provider_arn.startswith(f"arn:aws:iam::{connection.account_id}:oidc-provider/")
    assert connection.provider_arn.endswith(connection.issuer.removeprefix("https://"))
    assert connection.role_arn("reader") == f"arn:aws:iam::{connection.account_id}:role/reader"
    assert connection.image
    assert connection.kubectl.split()[0] == "kubectl"
    assert connection.webhook_restored_by


def test_connect_finds_the_same_issuer_and_account_and_creates_nothing(target, opened):
    before = things(opened)
    connection = targets.connect(target.parameters(confirm=""))
    assert (connection.issuer, connection.account_id) == (opened.issuer, opened.account_id)
    assert things(opened) == before


def test_opening_the_lab_again_finds_the_same_issuer_and_account(target, opened):
    before = things(opened)
    with target.open() as again:
        assert (again.issuer, again.account_id) == (opened.issuer, opened.account_id)
    assert things(opened) == before


def test_a_missing_capability_is_explained(target, opened, capsys):
    for capability in capabilities.CAPABILITIES:
        if capability in target.has:
            opened.needs(capability)
            continue
        with pytest.raises(LabError, match=f"The target {target.name} lacks") as refusal:
            opened.needs(capability)
        assert refusal.value.next
        capsys.readouterr()
        assert not opened.has(capability)
        assert f"The target {target.name} lacks" in capsys.readouterr().out


def test_second_account_clock_and_trail_work_where_the_target_has_them(target, opened):
    if "other_account" in target.has:
        theirs = opened.in_account(opened.connection.other_account)
        assert theirs.aws.client("sts").get_caller_identity()["Account"] == theirs.account_id != opened.account_id
    else:
        with pytest.raises(LabError, match=r"^You can't enter the account 222222222222"):
            opened.in_account("222222222222")
    assert all(opened.has(capability) for capability in target.has)
    if "clock" in target.has:
        assert opened.clock.now() > 0
    if "trail" in target.has:
        opened.aws.client("iam").list_roles()
        assert next(opened.connection.trail())["eventName"] == "ListRoles"
        assert opened.trail(event="ListRoles").records
    else:
        assert "aws cloudtrail lookup-events" in repr(opened.trail(last=1))
        assert opened.trail(last=1).records == []


def test_a_session_for_an_account_is_really_in_that_account(opened):
    enter = opened.connection.account
    for account_id in (opened.account_id, "222222222222"):
        session = enter(account_id)
        assert session is None or session.client("sts").get_caller_identity()["Account"] == account_id


def test_the_issuer_s_documents_can_be_fetched(opened):
    discovery = opened.fetch(f"{opened.issuer}/.well-known/openid-configuration")
    assert discovery["issuer"] == opened.issuer
    assert opened.fetch(discovery["jwks_uri"])["keys"]
    with pytest.raises(LabError) as refusal:
        opened.fetch(f"{opened.issuer}/nothing")
    assert refusal.value.next


def test_the_pod_gets_the_role_and_remove_deletes_the_tagged_resources(opened, capsys):
    before = things(opened)
    opened.ready(through="pod")
    for step in steps.ORDER:
        check = opened.check(step)
        assert check, check
    iam, core = opened.aws.client("iam"), CoreV1Api(opened.kubernetes)
    for tags in (
        iam.list_role_tags(RoleName="contract")["Tags"],
        iam.list_open_id_connect_provider_tags(OpenIDConnectProviderArn=opened.provider_arn)["Tags"],
        opened.aws.client("s3").get_bucket_tagging(Bucket="contract")["TagSet"],
    ):
        assert {tag["Key"]: tag["Value"] for tag in tags} == {LAB_TAG: "irsa", RUN_TAG: opened.run}
    for made in (
        core.read_namespace("contract"),
        core.read_namespaced_service_account("my-service-account", "contract"),
        core.read_namespaced_pod("my-pod", "contract"),
    ):
        assert made.metadata.labels[RUN_LABEL] == opened.labels[RUN_LABEL]
    capsys.readouterr()
    opened.remove()
    said = capsys.readouterr().out
    assert {name: things(opened)[name] for name in before} == before
    assert "removed role contract" in said
    shown = said.partition("\nremoved ")[0]
    assert ("role contract" in shown) == opened.connection.shows_removal
    opened.remove()
    assert capsys.readouterr().out == "nothing to remove\n"


def test_ready_never_takes_over_another_runs_role(target, opened):
    opened.ready(through="iam_role")
    role = opened.aws.client("iam").get_role(RoleName="contract")["Role"]
    with (
        pytest.raises(RoleOfAnotherRun, match="role-belongs-to-another-run"),
        target.open(namespace="another", role_name="contract", bucket="another") as another,
    ):
        another.ready(before="iam_role")
    # The refused run leaves nothing behind, not even its bucket.
    assert "another" not in things(opened)["buckets"] + things(opened)["namespaces"]
    assert opened.aws.client("iam").get_role(RoleName="contract")["Role"]["RoleId"] == role["RoleId"]


def test_an_untagged_role_of_the_runs_name_is_deleted_only_in_the_lab(opened, capsys):
    iam = opened.aws.client("iam")
    trust = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"},'
    iam.create_role(RoleName="contract", AssumeRolePolicyDocument=f'{trust} "Action": "sts:AssumeRole"}}]}}')
    capsys.readouterr()
    opened.remove()
    left = "left alone role contract: it carries no tag of the lab" in capsys.readouterr().out
    assert left != opened.takes_untagged
    if left:
        iam.delete_role(RoleName="contract")


def test_open_and_plan_refuse_an_account_id_that_is_not_the_targets(target):
    for refused in (target.open, lambda **given: target.module.plan(target.parameters(**given))):
        with pytest.raises(LabError, match="222222222222") as refusal:
            refused(account_id="222222222222")
        assert refusal.value.next


def test_only_eks_passes_the_users_aws_settings_on_to_a_kernel(target):
    seen = target.module.environment({**os.environ, **HOSTILE})
    for name, value in HOSTILE.items():
        assert (seen.get(name) == value) == target.keeps_environment
    if not target.keeps_environment:
        assert seen["LABKIT_HOME"] == str(Folder.find().path)


def test_irsa_ipynb_runs_on_every_target(target, tmp_path):
    notebook = Path(__file__).parents[2] / "notebooks" / "irsa.ipynb"
    given = {"target": target.name, **target.given, "role_name": "reader"}
    done = labkit.run(notebook, tmp_path / "out.ipynb", given)
    assert done.ok
    assert "assumed-role/reader/" in done.answers[0]["answer"]
    with target.open(role_name="reader") as lab:
        lab.remove()
