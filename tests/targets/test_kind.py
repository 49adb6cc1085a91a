"""The target kind against a cluster that exists: the emulator's own API server and node, which know of no lab."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import psutil
import pytest
import yaml
from kubernetes.client import AdmissionregistrationV1Api, CoreV1Api, RbacAuthorizationV1Api
from kubernetes.config import new_client_from_config
from nbclient import NotebookClient

import labkit
from labkit import kind_command, targets
from labkit.emulator import process
from labkit.emulator.certificates import Authority
from labkit.emulator.folder import Folder
from labkit.emulator.joined import Kept
from labkit.emulator.listener import bind
from labkit.errors import LabError, UnknownName
from labkit.execution import execute
from labkit.parameters import InvalidParameter, Parameters
from labkit.steps.pod import ImageNotPulled, build, wait_until_running
from labkit.steps.service_account import NotThisRuns
from labkit.targets import kind
from labkit.targets.kind import AnotherCluster, NotReached
from labkit.targets.kind_address import NoAddress
from labkit.targets.kind_cluster import NotThisLabs, NotUsable, NoWay
from tests.targets.kind_existing import ISSUER, running

LABKIT = Path(sys.executable).with_name("labkit")
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "irsa.ipynb"
WEBHOOKS = ["lab-network", "pod-identity-webhook"]


@pytest.fixture(scope="module")
def existing(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A cluster that exists: its kubeconfig, and its administrator's client."""
    with running(tmp_path_factory.mktemp("existing")) as kubeconfig:
        api = new_client_from_config(str(kubeconfig), context="existing")
        yield SimpleNamespace(
            kubeconfig=kubeconfig,
            parameters={"target": "kind", "kubeconfig": str(kubeconfig), "context": "existing"},
            api=api,
            core=CoreV1Api(api),
            webhooks=AdmissionregistrationV1Api(api),
        )
        api.close()


@pytest.fixture(scope="module")
def lab_folder(tmp_path_factory) -> Iterator[Folder]:
    """A lab folder of its own for these tests, and no lab in it afterwards."""
    before = os.environ.get("LABKIT_HOME")
    os.environ["LABKIT_HOME"] = str(tmp_path_factory.mktemp("kind") / ".lab")
    yield Folder.find()
    kind.down()
    del os.environ["LABKIT_HOME"]
    if before:
        os.environ["LABKIT_HOME"] = before


@pytest.fixture
def empty(lab_folder, existing) -> Iterator[Folder]:
    """The lab's folder, with no lab that runs and nothing that joined it, before and after."""
    kind.down()
    clear(existing)
    yield lab_folder
    lab_folder.clock.reset()
    kind.down()


@pytest.fixture
def lab(empty, existing) -> Iterator[labkit.Lab]:
    """The cluster, joined."""
    with labkit.Lab.open(**existing.parameters) as opened:
        yield opened
        opened.remove()


@pytest.fixture
def refused(empty, existing) -> Callable[..., LabError]:
    """Opens the lab; the error that it is refused with, where nothing was made and nothing stays."""

    def attempt(aws_host: str = "", **parameters: Any) -> LabError:
        before = registered(existing)
        with pytest.raises(LabError) as refusal:
            kind.up(Parameters.checked(**{**existing.parameters, **parameters}), aws_host=aws_host)
        assert not empty.is_running()
        assert registered(existing) == before
        assert Kept.all(empty) == []
        assert refusal.value.next
        return refusal.value

    return attempt


def clear(existing: SimpleNamespace) -> None:
    """Takes away what a test before, which failed, may have left."""
    existing.core.delete_collection_namespaced_pod("default", grace_period_seconds=0)
    for account in existing.core.list_namespaced_service_account("default").items:
        if account.metadata.name != "default":
            existing.core.delete_namespaced_service_account(account.metadata.name, "default")


def registered(existing: SimpleNamespace) -> list[str]:
    return sorted(one.metadata.name for one in existing.webhooks.list_mutating_webhook_configuration().items)


def token(lab: labkit.Lab, account: str = "my-service-account", audience: str = "sts.amazonaws.com") -> str:
    wanted = {"spec": {"audiences": [audience]}}
    return CoreV1Api(lab.kubernetes).create_namespaced_service_account_token(account, "default", wanted).status.token


def exchange(lab: labkit.Lab, web_identity_token: str) -> str:
    request = {"RoleArn": lab.role_arn, "RoleSessionName": "test", "WebIdentityToken": web_identity_token}
    return lab.aws.client("sts").assume_role_with_web_identity(**request)["AssumedRoleUser"]["Arn"]


def variables(pod: Any) -> dict[str, str]:
    return {variable.name: variable.value for variable in pod.spec.containers[0].env or []}


# What works.


def test_the_whole_run(empty, existing, tmp_path):
    done = labkit.run(NOTEBOOK, tmp_path / "out.ipynb", {**existing.parameters, "role_name": "reader"})
    assert done.ok
    assert [":assumed-role/reader/" in done.answers[0]["answer"], "irsa-lab" in done.answers[1]["answer"]] == [
        True,
        True,
    ]
    assert ISSUER in (tmp_path / "out.ipynb").read_text()
    with labkit.Lab.open(target="kind", role_name="reader") as lab:
        assert not lab.diagnose().findings
    # The lab remembers the cluster.
    again = labkit.run(NOTEBOOK, tmp_path / "again.ipynb", {"target": "kind", "role_name": "reader"})
    assert again.ok
    assert again.answers == done.answers
    with labkit.Lab.open(target="kind", role_name="reader") as lab:
        lab.remove()
    assert existing.core.list_namespaced_pod("default").items == []


def test_a_terminal_finds_the_cluster_by_the_labs_kubeconfig(lab, existing):
    state = process.State.read(Folder.find())
    config = yaml.safe_load(state.kubeconfig.read_text())
    assert config["current-context"] == "blue"
    api = new_client_from_config(str(state.kubeconfig), context="blue")
    assert [node.metadata.name for node in CoreV1Api(api).list_node().items] == ["existing-control-plane"]
    api.close()


def test_eks_describes_the_cluster_as_it_is(lab, existing):
    cluster = lab.aws.client("eks").describe_cluster(name="blue")["cluster"]
    assert cluster["status"] == "ACTIVE"
    assert cluster["identity"]["oidc"]["issuer"] == lab.issuer == ISSUER
    assert cluster["endpoint"] == existing.api.configuration.host
    assert cluster["tags"] == {"labkit:target": "kind"}


def test_sts_refuses_on_kind_what_it_refuses_on_moto(lab):
    lab.ready(through="service_account")
    assert exchange(lab, token(lab)).endswith(":assumed-role/my-role/test")
    with labkit.expect_denied("AccessDenied"):
        exchange(lab, token(lab, "default"))
    with labkit.expect_denied("InvalidIdentityToken"):
        exchange(lab, token(lab, audience="https://kubernetes.default.svc"))
    head, claims, signature = token(lab).split(".")
    with labkit.expect_denied("InvalidIdentityToken"):
        exchange(lab, f"{head}.{claims}.{signature[:-8]}AAAAAAAA")
    assert "signature" in str(lab.trail(last=1)).lower()
    lab.aws.client("iam").delete_open_id_connect_provider(OpenIDConnectProviderArn=lab.provider_arn)
    with labkit.expect_denied("InvalidIdentityToken"):
        exchange(lab, token(lab))


def test_sts_reads_the_keys_at_the_api_server_and_nowhere_else(empty, tmp_path):
    with running(tmp_path / "other") as kubeconfig:
        lab = labkit.Lab.open(target="kind", kubeconfig=str(kubeconfig))
        lab.ready(through="service_account")
        held = token(lab)
        assert lab.fetch(f"{ISSUER}/.well-known/openid-configuration")["issuer"] == ISSUER
        with pytest.raises(LabError, match="neither"):
            lab.fetch("https://example.com/keys")
    # The API server is gone, and with it the only place where the keys are.
    iam = lab.aws.client("iam")
    iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=lab.provider_arn)
    iam.create_open_id_connect_provider(Url=ISSUER, ClientIDList=["sts.amazonaws.com"], ThumbprintList=["ab" * 20])
    with labkit.expect_denied("InvalidIdentityToken"):
        exchange(lab, held)
    assert "verification key" in str(lab.trail(last=1))
    lab.close()
    with pytest.raises(NoWay, match="does not answer"):
        labkit.Lab.open(target="kind")
    # Nothing hangs on a cluster that is gone.
    kind.down()
    assert not empty.is_running()


def test_no_manifest_names_the_lab_and_pods_find_it(lab, existing):
    lab.ready(through="service_account")
    made = existing.core.create_namespaced_pod("default", build(lab.parameters))
    endpoint = process.State.read(Folder.find()).endpoint_url
    assert variables(made)["AWS_ENDPOINT_URL"] == endpoint
    assert variables(made)["AWS_EC2_METADATA_DISABLED"] == "true"
    assert variables(made)["AWS_ROLE_ARN"] == lab.role_arn
    wait_until_running(lab)
    done = execute(
        existing.api, "my-pod", "default", ["aws", "s3api", "put-object", "--bucket", "irsa-lab", "--key", "x"]
    )
    assert "(AccessDenied)" in done.error


@pytest.mark.parametrize(
    ("namespace", "labels", "env", "led"),
    [
        ("default", {}, [{"name": "AWS_ENDPOINT_URL", "value": "http://mine"}], "http://mine"),
        ("default", {"labkit/skip-lab-network": "true"}, [], None),
        ("kube-system", {}, [], None),
    ],
    ids=["a variable of its own", "opted out", "the cluster's own"],
)
def test_the_lab_network_leaves_alone(lab, existing, namespace, labels, env, led):
    pod = {"metadata": {"name": "other", "labels": labels}, "spec": {"containers": [{"name": "a", "image": "python"}]}}
    pod["spec"]["containers"][0]["env"] = env
    made = existing.core.create_namespaced_pod(namespace, pod, dry_run="All")
    assert variables(made).get("AWS_ENDPOINT_URL") == led


def test_the_lab_listens_on_loopback_and_on_the_one_address_only(empty, existing):
    own = "127.0.0.2"  # of this machine and no other's, and not the address that all listen on
    try:
        bind(0, own).close()
    except OSError:
        pytest.skip("this machine has no second loopback address")
    connection = kind.up(Parameters.checked(**existing.parameters), aws_host=own)
    lab = labkit.Lab(Parameters.checked(**existing.parameters), connection)
    lab.ready(through="pod")
    pod = existing.core.read_namespaced_pod("my-pod", "default")
    assert variables(pod)["AWS_ENDPOINT_URL"].startswith(f"http://{own}:")
    assert lab.check("credentials")
    server = psutil.Process(process.State.read(empty).pid)
    listening = {one.laddr.ip for one in server.net_connections("inet") if one.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1", own}
    with pytest.raises(AnotherCluster, match=own):
        kind.up(Parameters.checked(**existing.parameters), aws_host="127.0.0.1")
    lab.remove()
    lab.close()


@pytest.mark.parametrize("capability", ["clock", "node_identity"])
def test_what_the_target_cannot_do_is_explained(lab, capability):
    with pytest.raises(LabError, match="The target kind lacks") as refusal:
        lab.needs(capability)
    assert "skip" in refusal.value.next
    lab.needs("trail")


def test_looking_starts_and_registers_nothing(empty, existing):
    with pytest.raises(LabError, match="has not joined") as refusal:
        targets.connect(Parameters.checked(**existing.parameters))
    assert "labkit up --target kind" in refusal.value.next
    assert not empty.is_running()
    assert registered(existing) == []
    with labkit.Lab.open(**existing.parameters):
        assert targets.connect(Parameters.checked(**existing.parameters)).issuer == ISSUER


def test_the_plan_says_which_cluster(empty, existing):
    assert "context existing of" in kind.plan(Parameters.checked(**existing.parameters))
    assert "makes a kind cluster" in kind.plan(Parameters.checked(target="kind"))
    assert not empty.is_running()


@pytest.mark.kubectl
def test_a_webhook_that_was_deleted_is_restored_by_the_command_that_is_said(lab, existing):
    existing.webhooks.delete_mutating_webhook_configuration("pod-identity-webhook")
    lab.ready(through="service_account")
    pod = build(lab.parameters)
    assert "AWS_ROLE_ARN" not in variables(existing.core.create_namespaced_pod("default", pod, dry_run="All"))
    state = process.State.read(Folder.find())
    environment = {**os.environ, "KUBECONFIG": str(state.kubeconfig)}
    subprocess.run(["sh", "-c", lab.connection.webhook_restored_by], env=environment, check=True, capture_output=True)
    assert "AWS_ROLE_ARN" in variables(existing.core.create_namespaced_pod("default", pod, dry_run="All"))
    kind.down()
    assert registered(existing) == []
    labkit.Lab.open(**existing.parameters).close()


def test_cells_that_break_and_repair_change_nothing_here_whichever_of_them_are_run(lab, existing):
    parameters = "".join(f"\n{name} = {value!r}" for name, value in existing.parameters.items())
    notebook = nbformat.read(NOTEBOOK.with_name("09-break-and-repair.ipynb"), as_version=4)
    notebook.cells[2].source += parameters
    before = existing.webhooks.list_mutating_webhook_configuration().items
    NotebookClient(notebook, allow_errors=True).execute()
    errors = [output for cell in notebook.cells for output in cell.get("outputs", ()) if output.output_type == "error"]
    assert "lacks a cluster of the lab's own, which can be broken" in errors[0].evalue
    assert {error.ename for error in errors[1:]} == {"NameError"}
    assert existing.webhooks.list_mutating_webhook_configuration().items == before


# The end.


def test_down_leaves_the_cluster_as_it_was(empty, existing):
    labkit.Lab.open(**existing.parameters).close()
    assert registered(existing) == WEBHOOKS
    kind.down()
    assert registered(existing) == []
    assert Kept.all(empty) == []


def test_a_cluster_leaves_by_eks_delete_cluster(lab, existing):
    lab.aws.client("eks").delete_cluster(name="blue")
    assert registered(existing) == []


def test_a_lab_that_was_killed_joins_the_cluster_again_and_leaves_nothing(empty, existing, capsys):
    labkit.Lab.open(**existing.parameters).close()
    kill(empty)
    assert registered(existing) == WEBHOOKS
    labkit.Lab.open(target="kind").close()
    said = capsys.readouterr().out
    assert "was killed" in said
    assert "has joined the lab" in said
    kill(empty)
    kind.down()
    assert registered(existing) == []


def kill(folder: Folder) -> None:
    server = psutil.Process(process.State.read(folder).pid)
    server.send_signal(signal.SIGKILL)
    server.wait(10)


# Bad input.


def changed(existing: SimpleNamespace, folder: Path, change: Callable[[dict], None]) -> str:
    """A kubeconfig beside the first, with one thing changed in it."""
    config = json.loads(existing.kubeconfig.read_text())
    change(config)
    file = existing.kubeconfig.with_name(f"kubeconfig-{folder.name}")
    file.write_text(json.dumps(config))
    return str(file)


def test_a_context_that_is_gone(refused):
    refusal = refused(context="existin")
    assert isinstance(refusal, UnknownName)
    assert "Did you mean 'existing'?" in refusal.what
    assert "config get-contexts" in refusal.next


def test_a_context_without_its_kubeconfig(refused):
    assert "needs the kubeconfig" in refused(kubeconfig="", context="existing").what


def test_a_kubeconfig_that_is_gone(existing):
    with pytest.raises(InvalidParameter, match="a kubeconfig file that exists"):
        labkit.Lab.open(**{**existing.parameters, "kubeconfig": "/nowhere/kubeconfig"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "it is no YAML"),
        ("a list", "no kubeconfig"),
        ("contexts: [1]", "no kubeconfig"),
        ("contexts: []", "has no context"),
        ("contexts: [{name: existing, context: {cluster: gone, user: gone}}]", "names the cluster 'gone'"),
        (
            "{contexts: [{name: existing, context: {cluster: a, user: a}}], clusters: [{name: a, cluster: {}}], "
            "users: [{name: a, user: {}}]}",
            "names no API server",
        ),
    ],
)
def test_a_file_that_is_no_kubeconfig(refused, tmp_path, text, said):
    (tmp_path / "config").write_text(text)
    refusal = refused(kubeconfig=str(tmp_path / "config"))
    assert isinstance(refusal, NoWay)
    assert said in refusal.what


def test_a_file_that_the_kubeconfig_names_and_that_is_gone(refused, existing, tmp_path):
    file = changed(existing, tmp_path, lambda config: config["users"][0]["user"].update({"client-key": "gone.pem"}))
    assert "gone.pem" in refused(kubeconfig=file).what


def test_an_api_server_that_cannot_be_reached(refused, existing, tmp_path):
    def elsewhere(config: dict) -> None:
        config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"

    refusal = refused(kubeconfig=changed(existing, tmp_path, elsewhere))
    assert isinstance(refusal, NoWay)
    assert "https://127.0.0.1:9 does not answer" in refusal.what
    assert "cluster-info" in refusal.next


def test_an_api_server_with_another_certificate(refused, existing, tmp_path):
    other = existing.kubeconfig.with_name("other-ca.pem")
    other.write_bytes(Authority.create("another").certificate_pem)
    file = changed(
        existing,
        tmp_path,
        lambda config: config["clusters"][0]["cluster"].update({"certificate-authority": other.name}),
    )
    assert "a certificate that its CA did not sign" in refused(kubeconfig=file).what


def test_credentials_that_the_cluster_does_not_take(refused, existing, tmp_path):
    def with_token(config: dict) -> None:
        config["users"][0]["user"] = {"token": "no-token"}

    refusal = refused(kubeconfig=changed(existing, tmp_path, with_token))
    assert isinstance(refusal, NoWay)
    assert "401" in refusal.what
    assert "auth whoami" in refusal.next


def test_a_cluster_that_keeps_its_discovery_to_itself(refused, existing):
    refusal = refused(context="stranger")
    assert isinstance(refusal, NotUsable)
    assert "keeps its issuer's discovery document from stranger" in refusal.what
    assert "create clusterrolebinding" in refusal.next
    assert "--clusterrole=system:service-account-issuer-discovery --user=stranger" in refusal.next


def test_a_user_who_may_read_and_register_nothing(refused, existing):
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


def test_a_cluster_without_nodes(refused, tmp_path):
    # An API server alone.
    environment = {**os.environ, "LABKIT_HOME": str(tmp_path / ".lab")}
    subprocess.run([LABKIT, "up", "--bare"], env=environment, check=True, capture_output=True, timeout=120)
    try:
        refusal = refused(kubeconfig=str(tmp_path / ".lab-bare" / "kubeconfig"), context="blue")
    finally:
        subprocess.run([LABKIT, "down", "--bare"], env=environment, check=True, capture_output=True, timeout=60)
    assert isinstance(refusal, NotUsable)
    assert "has no node" in refusal.what
    assert "get nodes" in refusal.next


def test_a_cluster_whose_nodes_are_cordoned(refused, existing):
    existing.core.patch_node("existing-control-plane", {"spec": {"unschedulable": True}})
    try:
        refusal = refused()
    finally:
        existing.core.patch_node("existing-control-plane", {"spec": {"unschedulable": None}})
    assert "takes pods: cordoned: existing-control-plane" in refusal.what
    assert "uncordon existing-control-plane" in refusal.next


def test_a_cluster_whose_nodes_are_not_ready(refused, existing, monkeypatch):
    answer = CoreV1Api.list_node

    def unready(self, **options: Any) -> Any:
        nodes = answer(self, **options)
        for condition in nodes.items[0].status.conditions:
            condition.status, condition.message = "False", "container runtime network not ready"
        return nodes

    # A node of the emulator is always ready.
    monkeypatch.setattr(CoreV1Api, "list_node", unready)
    refusal = refused()
    assert "existing-control-plane: container runtime network not ready" in refusal.what


@pytest.mark.parametrize(
    ("labels", "whose"),
    [({}, "not the lab's"), ({"labkit/lab": "irsa"}, "another lab's")],
    ids=["foreign", "another lab"],
)
@pytest.mark.parametrize("name", WEBHOOKS)
def test_a_webhook_that_somebody_else_registered_stays_as_it_is(refused, existing, name, labels, whose):
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


def test_an_api_server_that_does_not_reach_this_machine(refused, existing, monkeypatch):
    monkeypatch.setattr(kind, "LED_WITHIN", 1)
    refusal = refused(aws_host="240.0.0.1")  # nobody's: no packet goes there
    assert isinstance(refusal, NotReached)
    assert "does not reach this machine at 240.0.0.1" in refusal.what
    assert "--aws-host" in refusal.next


@pytest.mark.parametrize("address", ["host.docker.internal", "0.0.0.0", "::1", "224.0.0.1"])
def test_an_address_that_no_container_can_call(refused, address):
    assert isinstance(refused(aws_host=address), NoAddress)


def test_the_same_cluster_under_two_names(lab, existing):
    with pytest.raises(AnotherCluster, match="AWS could not tell whose a token is") as refusal:
        labkit.Lab.open(**existing.parameters, cluster="green")
    assert "delete-cluster --name blue" in refusal.value.next
    assert registered(existing) == WEBHOOKS


def test_a_cluster_of_the_moto_target_is_not_taken_for_it(empty, existing):
    with labkit.Lab.open(), pytest.raises(AnotherCluster, match="of the moto target"):
        labkit.Lab.open(**existing.parameters)
    assert registered(existing) == []


def test_the_moto_target_does_not_take_it_for_its_own(lab):
    for look in (labkit.Lab.open, lambda: targets.connect(Parameters.checked())):
        with pytest.raises(LabError, match="is one of the target kind"):
            look()


def test_a_second_cluster_under_the_same_name(lab, existing, tmp_path):
    def elsewhere(config: dict) -> None:
        config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"

    other = changed(existing, tmp_path, elsewhere)
    with pytest.raises(AnotherCluster, match="is that of context existing"):
        labkit.Lab.open(target="kind", kubeconfig=other, context="existing")


def test_a_clock_that_was_moved(refused, empty):
    empty.clock.advance(hours=2)
    assert "labkit clock 0" in refused().next
    empty.clock.reset()


def test_another_account(refused):
    refusal = refused(account_id="222222222222")
    assert "is the account 123456789012" in refusal.what


def test_an_image_that_cannot_be_pulled(empty, existing):
    with labkit.Lab.open(**existing.parameters, image="example/nothing") as lab:
        with pytest.raises(ImageNotPulled, match="image example/nothing of the pod") as refusal:
            lab.ready(through="pod")
        assert "set image" in refusal.value.next
        assert existing.core.list_namespaced_pod("default").items == []
        lab.remove()


def test_what_somebody_else_made_in_the_cluster_is_never_taken_over_nor_deleted(lab, existing):
    account = {"metadata": {"name": "my-service-account"}}
    made = existing.core.create_namespaced_service_account("default", account)
    try:
        with pytest.raises(NotThisRuns) as refusal:
            lab.ready(through="service_account")
        lab.remove()
        kept = existing.core.read_namespaced_service_account("my-service-account", "default")
    finally:
        existing.core.delete_namespaced_service_account("my-service-account", "default")
    assert kept.metadata.uid == made.metadata.uid
    assert kept.metadata.annotations == made.metadata.annotations
    assert "another namespace or service_account" in refusal.value.next


# In a terminal.


def test_up_says_what_is_where_and_what_is_next(empty, existing, capsys):
    kind_command.up(
        cluster="blue", kubeconfig=existing.kubeconfig, context="existing", image="public.ecr.aws/aws-cli/aws-cli"
    )
    said = capsys.readouterr().out
    assert "has joined the lab; AWS and the webhooks listen on loopback alone" in said
    assert f"issuer   {ISSUER}" in said
    assert "image    public.ecr.aws/aws-cli/aws-cli" in said
    assert "End:   labkit down" in said
    with labkit.Lab.open(target="kind") as lab:
        assert lab.image == "public.ecr.aws/aws-cli/aws-cli"
    kind_command.up(cluster="blue", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["target"], told["issuer"]) == ("kind", ISSUER)
    done = subprocess.run(
        [LABKIT, "run", "-p", "target=kind", "-p", "role_name=in-a-terminal", "--output", empty.path / "out.ipynb"],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "assumed-role/in-a-terminal/" in done.stdout
    with labkit.Lab.open(target="kind", role_name="in-a-terminal") as lab:
        lab.remove()


def test_options_of_this_target_are_refused_for_others():
    with pytest.raises(LabError, match="--kubeconfig and --aws-host are for the target kind alone"):
        kind_command.refuse_options(kubeconfig="file", context="", aws_host="127.0.0.1")
    kind_command.refuse_options(kubeconfig=None, context="")
