"""Entries that `aws eks update-kubeconfig` or kubectl write to the lab's kubeconfig survive the lab's own changes."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.commands import labkit

BLUE = "arn:aws:eks:us-east-1:123456789012:cluster/blue"

pytestmark = pytest.mark.kubectl


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A shell with the variables that `labkit env` printed when the lab first came up."""
    home = {"LABKIT_HOME": str(tmp_path / ".lab")}
    environment = os.environ | home
    assert labkit("up", **home).returncode == 0
    lines = labkit("env", **home).stdout + "\nset -e\n"

    def run(*commands: str) -> str:
        script = lines + "\n".join(commands)
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.kubeconfig = tmp_path / ".lab" / "kubeconfig"
    yield run
    assert labkit("down", **home).returncode == 0


USER = "kubectl auth whoami -o jsonpath={.status.userInfo.username}"
AS_IAM, AS_THE_LAB = "arn:aws:iam::123456789012:user/administrator", "kubernetes-admin"
UPDATE = "aws eks update-kubeconfig --name blue >&2"


def test_an_entry_of_update_kubeconfig_survives_another_cluster_and_a_restart(terminal):
    assert terminal(UPDATE, "kubectl get pods >&2", USER) == AS_IAM
    assert terminal("labkit up --cluster green >&2", USER) == AS_THE_LAB
    assert terminal(f"kubectl config use-context {BLUE} >&2", USER) == AS_IAM
    assert terminal("aws eks delete-cluster --name green >&2", USER) == AS_IAM
    contexts = terminal("kubectl config get-contexts -o name").split()
    assert sorted(contexts) == sorted([BLUE, "blue"])
    assert terminal("labkit down >&2", "labkit up >&2", "kubectl get pods >&2", USER) == AS_IAM
    assert terminal("kubectl --context blue auth whoami -o jsonpath={.status.userInfo.username}") == AS_THE_LAB


def test_up_corrects_a_cluster_s_outdated_address_in_the_kubeconfig(terminal):
    terminal(UPDATE)
    config = yaml.safe_load(terminal.kubeconfig.read_text())
    for cluster in config["clusters"]:
        cluster["cluster"]["server"] = "https://127.0.0.1:9"
    terminal.kubeconfig.write_text(yaml.safe_dump(config))
    assert terminal("labkit down >&2", "labkit up >&2", USER) == AS_IAM


def test_a_learner_s_context_alias_and_namespace_survive_another_cluster(terminal):
    terminal("kubectl config set-context --current --namespace=kube-system >&2", f"{UPDATE} --alias dev")
    terminal("labkit up --cluster green >&2", "aws eks delete-cluster --name green >&2")
    assert terminal("kubectl --context dev auth whoami -o jsonpath={.status.userInfo.username}") == AS_IAM
    view = "kubectl config view -o jsonpath='{.contexts[?(@.name==\"blue\")].context.namespace}'"
    assert terminal(view) == "kube-system"


@pytest.mark.parametrize("text", ["", "nothing", "a: [", "clusters: 3", "clusters: [{}]"])
def test_up_replaces_a_damaged_kubeconfig(terminal, text):
    terminal.kubeconfig.write_text(text)
    assert terminal("labkit up --cluster green >&2", USER) == AS_THE_LAB
