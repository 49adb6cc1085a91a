"""Clusters that the target kind refuses to join: the error says why, and neither cluster nor lab is changed."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import AdmissionregistrationV1Api, CoreV1Api, RbacAuthorizationV1Api
from kubernetes.config import new_client_from_config

import labkit
from labkit import simulator, targets
from labkit.cli import up as up_command
from labkit.errors import LabError, UnknownName
from labkit.run_parameters import InvalidParameter, Parameters
from labkit.simulator import Authority, JoinedFolder
from labkit.targets import kind
from labkit.targets.kind import AnotherCluster, NotReached
from labkit.targets.kind import address as kind_address
from labkit.targets.kind.address import NoAddress
from labkit.targets.kind.cluster import NotThisLabs, NotUsable
from labkit.targets.kind.kubeconfig import NoWay
from labkit.webhook.connection import connect
from tests.targets.conftest import WEBHOOKS, changed
from tests.targets.kind_existing import running

LABKIT = Path(sys.executable).with_name("labkit")


@pytest.fixture
def refused(empty, existing) -> Callable[..., LabError]:
    """A function that opens the lab and returns its error. It fails if the cluster changed or a lab was left."""

    def attempt(aws_host: str = "", **parameters: Any) -> LabError:
        before = existing.registered()
        with pytest.raises(LabError) as refusal:
            kind.up(Parameters.checked(**{**existing.parameters, **parameters}), aws_host=aws_host)
        assert not empty.is_running()
        assert existing.registered() == before
        assert JoinedFolder.all(empty) == []
        assert refusal.value.next
        return refusal.value

    return attempt


def elsewhere(config: dict) -> None:
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"


# The kubeconfig.


def test_a_misspelt_context_is_refused_with_the_nearest_name(refused):
    refusal = refused(context="existin")
    assert isinstance(refusal, UnknownName)
    assert "Did you mean 'existing'?" in refusal.what
    assert "config get-contexts" in refusal.next


def test_a_context_without_a_kubeconfig_is_refused(refused):
    assert "needs the kubeconfig" in refused(kubeconfig="", context="existing").what


@pytest.mark.parametrize("call", [kind.plan, kind.look])
def test_a_plan_and_a_look_refuse_a_context_without_a_kubeconfig(empty, call):
    with pytest.raises(LabError, match="context = 'existing' needs the kubeconfig"):
        call(Parameters.checked(target="kind", context="existing"))


@pytest.mark.parametrize(("file", "why"), [
    ("/nowhere/kubeconfig", "this file does not exist"),
    ("/tmp", "this is a folder"),
    ("~nobody-has-this-name/config", "home"),
    ("x" * 300, "File name too long"),
])  # fmt: skip
def test_lab_open_says_why_it_cannot_read_the_kubeconfig(existing, file, why):
    with pytest.raises(InvalidParameter, match="a kubeconfig file that exists") as refusal:
        labkit.Lab.open(**{**existing.parameters, "kubeconfig": file})
    assert why in refusal.value.what
    assert "kubectl config get-contexts" in refusal.value.next


def test_labkit_up_says_why_it_cannot_read_the_kubeconfig(empty, tmp_path):
    for file, why in ((tmp_path / "gone", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(NoWay, match=f"kubeconfig cannot be read: {why}") as refusal:
            up_command.join(cluster="blue", kubeconfig=file)
        assert refusal.value.where.startswith(str(file))
        assert f"ls -ld {file}" in refusal.value.next
    with pytest.raises(NoWay, match="No such file"):
        up_command.join(cluster="blue", kubeconfig=Path("~nobody-has-this-name/config"))


@pytest.mark.parametrize(("text", "said"), [
    ("{", "it is not YAML from line 1 on"),
    ("\x00", "it is not YAML"),
    ("a list", "not a kubeconfig"),
    ("contexts: [1]", "not a kubeconfig"),
    ("contexts: []", "has no context"),
    ("contexts: [{name: existing, context: {cluster: gone, user: gone}}]", "names the cluster 'gone'"),
    ("{contexts: [{name: existing, context: {cluster: a, user: a}}], clusters: [{name: a, cluster: {}}], "
     "users: [{name: a, user: {}}]}", "names no API server"),
])  # fmt: skip
def test_a_file_that_is_not_a_usable_kubeconfig_is_refused(refused, tmp_path, text, said):
    (tmp_path / "config").write_text(text)
    refusal = refused(kubeconfig=str(tmp_path / "config"))
    assert isinstance(refusal, NoWay)
    assert said in refusal.what
    # The next command names this file, not the default kubeconfig.
    assert f"kubectl --kubeconfig {tmp_path / 'config'} config " in refusal.next


def test_a_missing_client_key_file_of_the_kubeconfig_is_named(refused, existing):
    file = changed(existing, lambda config: config["users"][0]["user"].update({"client-key": "gone.pem"}))
    refusal = refused(kubeconfig=file)
    assert "gone.pem" in refusal.what
    assert f"--kubeconfig {file} --context existing" in refusal.next


def test_labkit_up_refuses_options_of_kind_for_other_targets():
    with pytest.raises(LabError, match="--kubeconfig and --aws-host can be used only with --target kind"):
        up_command.refuse_options(kubeconfig="file", context="", aws_host="127.0.0.1")
    up_command.refuse_options(kubeconfig=None, context="")


# The cluster.


def test_an_unreachable_api_server_is_reported(refused, existing):
    refusal = refused(kubeconfig=changed(existing, elsewhere))
    assert isinstance(refusal, NoWay)
    assert "https://127.0.0.1:9 does not answer" in refusal.what
    assert "cluster-info" in refusal.next


def test_an_api_server_certificate_that_another_ca_signed_is_reported(refused, existing):
    other = existing.kubeconfig.with_name("other-ca.pem")
    other.write_bytes(Authority.create("another").certificate_pem)
    authority = {"certificate-authority": other.name}
    file = changed(existing, lambda config: config["clusters"][0]["cluster"].update(authority))
    refusal = refused(kubeconfig=file)
    assert "a certificate that the kubeconfig's CA did not sign" in refusal.what
    # The API server does answer, so the mistake is in the kubeconfig.
    assert "cluster-info" not in refusal.next
    assert f"kubectl --kubeconfig {file} --context existing config view" in refusal.next


def test_credentials_that_the_cluster_rejects_are_reported(refused, existing):
    def with_token(config: dict) -> None:
        config["users"][0]["user"] = {"token": "no-token"}

    refusal = refused(kubeconfig=changed(existing, with_token))
    assert isinstance(refusal, NoWay)
    assert "401" in refusal.what
    assert "auth whoami" in refusal.next


@pytest.mark.parametrize(("command", "arguments", "why"), [
    ("no-such-program", [], "No such file or directory: 'no-such-program'"),
    ("sh", ["-c", "echo the SSO session has expired >&2; exit 3"], "the SSO session has expired"),
    ("echo", ["no JSON"], "failed to decode"),
], ids=["missing", "fails", "no credentials"])  # fmt: skip
def test_a_failing_credentials_plugin_is_named_with_the_reason(refused, existing, caplog, command, arguments, why):
    def with_plugin(config: dict) -> None:
        plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": command, "args": arguments}
        config["users"][0]["user"] = {"exec": plugin}

    file = changed(existing, with_plugin)
    refusal = refused(kubeconfig=file)
    assert isinstance(refusal, NoWay)
    assert f"The credentials plugin {command} does not give the credentials" in refusal.what
    assert why in refusal.what
    whoami = f"kubectl --kubeconfig {file} --context existing auth whoami"
    assert refusal.next == f"correct the plugin until this command shows your user:  {whoami}"
    # The standalone webhook reports it, too.
    with pytest.raises(LabError, match="credentials plugin does not give the credentials"):
        connect(Path(file), "existing")
    assert not [record for record in caplog.records if record.name == "root"]


def test_a_context_without_credentials_is_reported(refused, existing):
    def without(config: dict) -> None:
        config["users"][0]["user"] = {}

    refusal = refused(kubeconfig=changed(existing, without))
    assert isinstance(refusal, NoWay)
    assert "does not recognise the context's credentials" in refusal.what
    # The next step must not open the cluster to anonymous callers.
    assert "clusterrolebinding" not in refusal.next
    assert "auth whoami" in refusal.next


def test_an_unreadable_discovery_document_gives_the_command_that_allows_it(refused, existing):
    refusal = refused(context="stranger")
    assert isinstance(refusal, NotUsable)
    assert "does not let stranger read its discovery document" in refusal.what
    assert "create clusterrolebinding" in refusal.next
    assert "--clusterrole=system:service-account-issuer-discovery --user=stranger" in refusal.next


def test_a_user_who_may_not_register_webhooks_is_refused(refused, existing):
    reader = {
        "metadata": {"name": "test-reader"},
        "rules": [
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]},
            {"nonResourceURLs": ["/.well-known/*", "/openid/v1/jwks"], "verbs": ["get"]},
        ],
    }
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": "test-reader"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "test-reader"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "stranger"}],
    }
    rbac = RbacAuthorizationV1Api(existing.api)
    rbac.create_cluster_role(reader)
    rbac.create_cluster_role_binding(binding)
    try:
        refusal = refused(context="stranger")
    finally:
        rbac.delete_cluster_role_binding("test-reader")
        rbac.delete_cluster_role("test-reader")
    assert isinstance(refusal, NotUsable)
    assert "may not create mutatingwebhookconfigurations" in refusal.what
    assert "cluster-admin" in refusal.next


def test_a_cluster_without_nodes_is_refused(refused, tmp_path):
    # With --bare, the lab has an API server without nodes.
    subprocess.run([LABKIT, "up", "--bare"], check=True, capture_output=True, timeout=120)
    try:
        refusal = refused(kubeconfig=str(tmp_path / ".lab-bare" / "kubeconfig"), context="blue")
    finally:
        subprocess.run([LABKIT, "down", "--bare"], check=True, capture_output=True, timeout=60)
    assert isinstance(refusal, NotUsable)
    assert "has no node" in refusal.what
    assert "get nodes" in refusal.next


def test_a_cluster_whose_nodes_are_cordoned_is_refused(refused, existing):
    existing.core.patch_node("existing-control-plane", {"spec": {"unschedulable": True}})
    try:
        refusal = refused()
    finally:
        existing.core.patch_node("existing-control-plane", {"spec": {"unschedulable": None}})
    assert "accepts pods. All ready nodes are cordoned: existing-control-plane" in refusal.what
    assert "uncordon existing-control-plane" in refusal.next


def test_a_cluster_whose_nodes_are_not_ready_is_refused(refused, existing, monkeypatch):
    answer = CoreV1Api.list_node

    def unready(self, **options: Any) -> Any:
        nodes = answer(self, **options)
        for condition in nodes.items[0].status.conditions:
            condition.status, condition.message = "False", "container runtime network not ready"
        return nodes

    # The simulator's nodes are always ready, so the test changes the answer.
    monkeypatch.setattr(CoreV1Api, "list_node", unready)
    refusal = refused()
    assert "existing-control-plane: container runtime network not ready" in refusal.what


@pytest.mark.parametrize(
    ("labels", "whose"),
    [({}, "not the lab's"), ({"labkit/lab": "irsa", "labkit/folder": "another"}, "another lab's")],
    ids=["foreign", "another lab"],
)
@pytest.mark.parametrize("name", WEBHOOKS)
def test_a_webhook_that_somebody_else_registered_stays_unchanged(refused, existing, name, labels, whose):
    made = existing.webhooks.create_mutating_webhook_configuration({"metadata": {"name": name, "labels": labels}})
    try:
        refusal = refused()
        kept = existing.webhooks.read_mutating_webhook_configuration(name)
    finally:
        existing.webhooks.delete_mutating_webhook_configuration(name)
    assert isinstance(refusal, NotThisLabs)
    assert whose in refusal.what
    assert kept.metadata.resource_version == made.metadata.resource_version
    assert f"delete mutatingwebhookconfiguration {name}" in refusal.next


def test_an_api_server_that_cannot_reach_this_machine_is_refused(refused, existing, monkeypatch):
    monkeypatch.setattr(kind, "LED_WITHIN", 1)
    refusal = refused(aws_host="240.0.0.1")  # reserved: no packet goes there
    assert isinstance(refusal, NotReached)
    assert "does not reach this machine at 240.0.0.1" in refusal.what
    assert "--aws-host" in refusal.next


def test_the_reason_for_not_joining_is_kept_if_the_lab_ends_meanwhile(refused, empty, monkeypatch):
    def require_led(_: JoinedFolder) -> None:
        simulator.stop(empty)
        raise NotReached("why it was to leave", next="labkit up")

    monkeypatch.setattr(kind, "_require_led", require_led)
    assert isinstance(refused(), NotReached)


@pytest.mark.parametrize("address", ["host.docker.internal", "0.0.0.0", "::1", "224.0.0.1"])
def test_an_aws_host_that_no_container_can_call_is_refused(refused, address):
    assert isinstance(refused(aws_host=address), NoAddress)


# A lab that already runs.


def test_one_cluster_cannot_join_under_two_names(joined, existing):
    with pytest.raises(AnotherCluster, match="AWS could not tell the two clusters' tokens apart") as refusal:
        labkit.Lab.open(**existing.parameters, cluster="green")
    assert "delete-cluster --name blue" in refusal.value.next
    assert existing.registered() == WEBHOOKS


def test_kind_refuses_a_cluster_name_that_belongs_to_moto(empty, existing):
    with labkit.Lab.open(), pytest.raises(AnotherCluster, match="belongs to the target moto"):
        labkit.Lab.open(**existing.parameters)
    assert existing.registered() == []


def test_moto_refuses_a_cluster_name_that_belongs_to_kind(joined):
    for look in (labkit.Lab.open, lambda: targets.connect(Parameters.checked())):
        with pytest.raises(LabError, match="belongs to another target: kind"):
            look()


def test_two_clusters_cannot_join_under_the_same_name(joined, existing):
    other = changed(existing, elsewhere)
    with pytest.raises(AnotherCluster, match="is the cluster of context existing") as refusal:
        labkit.Lab.open(target="kind", kubeconfig=other, context="existing")
    assert f"you asked for the cluster of context existing of {other}." in str(refusal.value)


def test_a_joined_cluster_cannot_be_opened_by_another_context(joined, existing):
    with pytest.raises(AnotherCluster, match="by the context existing, not by stranger") as refusal:
        labkit.Lab.open(**{**existing.parameters, "context": "stranger"})
    assert "labkit down" in refusal.value.next


def test_a_joined_cluster_that_stops_answering_is_named_by_the_users_kubeconfig(joined, existing, empty):
    kept = JoinedFolder(empty, "blue", "us-east-1")
    config = yaml.safe_load(kept.kubeconfig.read_text())
    before = kept.kubeconfig.read_bytes()
    elsewhere(config)
    kept.kubeconfig.write_text(yaml.safe_dump(config))
    try:
        with pytest.raises(NoWay) as refusal:
            labkit.Lab.open(target="kind")
    finally:
        kept.kubeconfig.write_bytes(before)
    assert f"context existing of {existing.kubeconfig}" in refusal.value.where
    assert f"kubectl --kubeconfig {existing.kubeconfig} --context existing cluster-info" in refusal.value.next


def test_a_cluster_cannot_join_a_lab_whose_clock_was_moved(refused, empty):
    empty.clock.advance(hours=2)
    assert "labkit clock 0" in refused().next


def test_an_account_id_other_than_the_labs_is_refused(refused):
    refusal = refused(account_id="222222222222")
    assert "the account of the target kind is 123456789012" in refusal.what


# The address given by --aws-host.

# In a real pod, 127.0.0.1 is the pod itself, where AWS does not listen.
ALONE = dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS"), "http://127.0.0.1:9")


def test_labkit_up_fails_if_pods_cannot_reach_the_aws_host(empty, tmp_path):
    with running(tmp_path / "alone", pods=ALONE) as kubeconfig:
        up = ["up", "--target", "kind", "--kubeconfig", kubeconfig, "--aws-host", "127.0.0.1"]
        done = subprocess.run([LABKIT, *up], capture_output=True, text=True, timeout=120)
        assert done.returncode == 1
        assert "Checking from a pod whether it reaches this machine at 127.0.0.1" in done.stderr
        assert "The cluster's pods do not reach this machine at 127.0.0.1: Could not connect" in done.stderr
        assert "127.0.0.1 is the pod itself" in done.stderr
        assert "The lab is up" not in done.stdout
        assert not empty.is_running()
        assert JoinedFolder.all(empty) == []
        with new_client_from_config(str(kubeconfig), context="existing") as api:
            assert CoreV1Api(api).list_namespaced_pod("default").items == []
            assert AdmissionregistrationV1Api(api).list_mutating_webhook_configuration().items == []


def test_a_cluster_joins_with_a_warning_if_no_pod_can_test_the_aws_host(empty, existing, monkeypatch, capsys):
    monkeypatch.setattr(kind_address, "TRIED_WITHIN", 1)
    kind.up(Parameters.checked(**existing.parameters, image="example/nothing"), aws_host="127.0.0.1").close()
    assert "This could not be checked: the pod labkit-asks-" in capsys.readouterr().err
    assert existing.registered() == WEBHOOKS
    assert existing.core.list_namespaced_pod("default").items == []
