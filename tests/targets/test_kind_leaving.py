"""How clusters of the target kind leave the lab: by `down`, by `reset`, by Ctrl-C, and when they do not answer."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import labkit
from labkit import simulator
from labkit.cli import account as account_commands
from labkit.cli import lab as cli
from labkit.errors import LabError
from labkit.simulator import Folder, JoinedFolder
from labkit.targets import kind
from labkit.targets.kind import cluster as kind_cluster
from labkit.targets.kind.joining import AnotherCluster
from labkit.targets.kind.leaving import LeftBehind
from tests.targets import kind_fake
from tests.targets.conftest import WEBHOOKS
from tests.targets.kind_existing import running, silent

LABKIT = Path(sys.executable).with_name("labkit")
NAME = "labkit-blue-us-east-1"


# A cluster that existed before the lab.


@pytest.mark.parametrize("killed", [False, True])
def test_down_deletes_the_labs_webhooks_from_the_cluster(empty, existing, capsys, killed):
    labkit.Lab.open(**existing.parameters).close()
    assert existing.registered() == WEBHOOKS
    if killed:
        kill(empty)
    capsys.readouterr()
    cli.down()
    assert capsys.readouterr().out.splitlines() == [
        f"The lab's webhooks are deleted from the cluster of context existing of {existing.kubeconfig}.",
        f"No lab runs in {empty.path}." if killed else "The lab has ended.",
    ]
    assert existing.registered() == []
    assert JoinedFolder.all(empty) == []


@pytest.mark.kubectl
def test_down_names_the_objects_of_runs_and_the_commands_that_delete_them(empty, existing, capsys):
    with labkit.Lab.open(**existing.parameters, namespace="team-a") as lab:
        lab.ready(through="pod")
    capsys.readouterr()
    kind.down()
    said = capsys.readouterr().out
    assert "namespace team-a, service account team-a/my-service-account, pod team-a/my-pod" in said
    commands = [line.partition("kubectl ")[2] for line in said.splitlines() if "kubectl " in line]
    assert len(commands) == 2
    for command in commands:
        subprocess.run(["kubectl", *shlex.split(command)], check=True, capture_output=True, timeout=60)
    assert "team-a" not in [one.metadata.name for one in existing.core.list_namespace().items]


@pytest.mark.parametrize("killed", [False, True])
def test_down_deletes_the_labs_webhooks_even_if_somebody_changed_them(empty, existing, killed):
    labkit.Lab.open(**existing.parameters).close()
    if killed:
        kill(empty)
    registered = existing.webhooks.read_mutating_webhook_configuration(WEBHOOKS[1])
    registered.webhooks[0].client_config.ca_bundle = "b3RoZXI="
    existing.webhooks.replace_mutating_webhook_configuration(WEBHOOKS[1], registered)
    kind.down()
    assert existing.registered() == []


def test_eks_delete_cluster_deletes_the_labs_webhooks_from_the_cluster(joined, existing):
    joined.aws.client("eks").delete_cluster(name="blue")
    assert existing.registered() == []


def test_the_servers_log_says_why_a_silent_cluster_could_not_leave(empty, existing):
    with labkit.Lab.open(**existing.parameters) as lab, silent(existing.kubeconfig):
        lab.aws.client("eks").delete_cluster(name="blue")
    said = [line for line in empty.log_file.read_text().splitlines() if "blue could not leave" in line]
    assert said
    assert all("Timeout" in line for line in said)


def kill(folder: Folder) -> None:
    server = psutil.Process(simulator.State.read(folder).pid)
    server.send_signal(signal.SIGKILL)
    server.wait(10)


def test_a_killed_lab_joins_its_cluster_again_and_down_deletes_the_webhooks(empty, existing, capsys):
    labkit.Lab.open(**existing.parameters).close()
    kill(empty)
    assert existing.registered() == WEBHOOKS
    labkit.Lab.open(target="kind").close()
    said = capsys.readouterr().out
    assert "was killed" in said
    assert "has joined the lab" in said
    kill(empty)
    kind.down()
    assert existing.registered() == []


@pytest.mark.kubectl
@pytest.mark.parametrize("by_hand", [False, True])
def test_down_remembers_a_cluster_that_does_not_answer(empty, existing, monkeypatch, by_hand):
    labkit.Lab.open(**existing.parameters).close()
    kill(empty)
    with silent(existing.kubeconfig), monkeypatch.context() as quick:
        quick.setattr(kind_cluster, "ANSWERS_WITHIN", (1, 1))
        with pytest.raises(LeftBehind, match="could not be deleted from the cluster of context existing") as refusal:
            kind.down()
    assert "does not answer" in refusal.value.what
    assert existing.registered() == WEBHOOKS
    if by_hand:
        (command,) = (line for line in refusal.value.next.splitlines() if "kubectl" in line)
        subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=60)
        assert existing.registered() == []
    kind.down()
    assert existing.registered() == []
    assert JoinedFolder.all(empty) == []


def test_the_printed_command_forgets_a_lost_cluster_and_nothing_else(empty, tmp_path, capsys):
    with running(tmp_path / "other") as kubeconfig:
        labkit.Lab.open(target="kind", kubeconfig=str(kubeconfig)).close()
    ended = subprocess.run([LABKIT, "down"], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert f"could not be deleted from the cluster of context existing of {kubeconfig}" in ended.stderr
    assert "Connection refused" in ended.stderr
    assert not empty.is_running()
    cli.status()
    assert f"The lab remembers the cluster of context existing of {kubeconfig}" in capsys.readouterr().out
    *_, forget = ended.stderr.splitlines()
    subprocess.run(["sh", "-c", forget], check=True, capture_output=True, timeout=60)
    assert subprocess.run([LABKIT, "down"], capture_output=True, timeout=120).returncode == 0
    cli.status()
    assert "remembers" not in capsys.readouterr().out
    assert empty.trail_file.exists()


def test_reset_forgets_a_cluster_that_no_longer_exists(empty, tmp_path, capsys):
    with running(tmp_path / "other") as kubeconfig:
        labkit.Lab.open(target="kind", kubeconfig=str(kubeconfig)).close()
    with pytest.raises(LabError, match="could not be deleted from the cluster") as refusal:
        cli.reset()
    assert f"kubectl --kubeconfig {kubeconfig} --context existing delete mutatingwebhook" in refusal.value.next
    assert refusal.value.where == f"the lab in {empty.path} is empty, and has forgotten the cluster"
    assert "labkit up" not in capsys.readouterr().out
    assert JoinedFolder.all(empty) == []
    assert kind.down() is False


def test_a_missing_cluster_does_not_block_joining_another(empty, existing, tmp_path, capsys):
    with running(tmp_path / "other") as kubeconfig:
        labkit.Lab.open(target="kind", kubeconfig=str(kubeconfig)).close()
    kill(empty)
    labkit.Lab.open(**existing.parameters).close()
    said = capsys.readouterr().err
    assert f"could not be deleted from the cluster of context existing of {kubeconfig}" in said
    assert existing.registered() == WEBHOOKS
    kind.down()
    assert existing.registered() == []


def test_joining_another_cluster_deletes_the_webhooks_from_the_earlier_one(empty, existing, tmp_path):
    labkit.Lab.open(**existing.parameters).close()
    kill(empty)
    with running(tmp_path / "other") as kubeconfig:
        labkit.Lab.open(target="kind", kubeconfig=str(kubeconfig)).close()
        assert existing.registered() == []
        kind.down()


# Removing a run whose cluster does not answer.


def removed(capsys: pytest.CaptureFixture, *given: str, yes: bool = False) -> list[str]:
    """Run `labkit remove`, and return the lines that it prints."""
    capsys.readouterr()
    account_commands.remove(list(given), yes=yes)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("is_mute", [False, True], ids=["gone", "mute"])
def test_a_removal_deletes_aws_resources_if_the_cluster_does_not_answer(empty, tmp_path, capsys, monkeypatch, is_mute):
    monkeypatch.setattr(kind_cluster, "ANSWERS_WITHIN", (1, 1))
    given = ["target=kind", "cluster=two"]
    with contextlib.ExitStack() as cluster:
        kubeconfig = cluster.enter_context(running(tmp_path / "other"))
        with labkit.Lab.open(target="kind", cluster="two", kubeconfig=str(kubeconfig)) as lab:
            lab.ready(through="service_account")
            provider = lab.provider_arn.partition("oidc-provider/")[2]
        if is_mute:
            cluster.enter_context(silent(kubeconfig))
        else:
            cluster.close()
        answerless, aws_alone, *lines = removed(capsys, *given)
        assert "does not answer" in answerless
        assert f"If the cluster two (context existing of {kubeconfig}) still exists" in aws_alone
        assert lines == [
            "  role my-role",
            f"  OIDC provider {provider}",
            "  bucket irsa-lab",
            "Nothing was deleted. To delete these resources, add --yes.",
        ]
        assert removed(capsys, *given, yes=True)[2:] == [line.replace("  ", "removed ", 1) for line in lines[:3]]
        assert removed(capsys, *given, yes=True)[2:] == ["nothing to remove"]
    with pytest.raises(LabError, match="could not be deleted from the cluster"):
        cli.reset()


def test_a_later_removal_deletes_the_objects_of_a_cluster_that_answers_again(joined, existing, capsys, monkeypatch):
    joined.ready(through="pod")
    with silent(existing.kubeconfig), monkeypatch.context() as quick:
        quick.setattr(kind_cluster, "ANSWERS_WITHIN", (1, 1))
        assert "removed role my-role" in removed(capsys, "target=kind", yes=True)
    assert removed(capsys, "target=kind", yes=True) == [
        "removed pod default/my-pod",
        "removed service account default/my-service-account",
    ]


# A cluster that kind made.


@pytest.fixture
def held(programs) -> Iterator[Path]:
    """The folder of the fake programs. Its `kind` stops half-way while it creates a cluster."""
    folder = programs()
    os.mkfifo(folder / "hold")
    yield folder
    for cluster in (folder / "clusters").iterdir():
        os.kill(int(cluster.read_text()), signal.SIGTERM)


def up_half_way(folder: Path, terminal: int = subprocess.PIPE) -> tuple[subprocess.Popen, int]:
    """Start `labkit up`. Return its process, and the process id of its `kind`, which has made half a cluster."""
    command = [LABKIT, "up", "--target", "kind"]
    # Without this variable, as for most users, Python keeps the output that a closed terminal rejects, and writes it
    # again at its exit.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    begun = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=terminal, text=True, start_new_session=True, env=environment
    )
    return begun, int((folder / "hold").read_text())


def test_ctrl_c_while_kind_creates_the_cluster_leaves_no_cluster(held, empty):
    begun, program = up_half_way(held)
    # A terminal sends Ctrl-C to every process that runs in it.
    os.killpg(begun.pid, signal.SIGINT)
    _, said = begun.communicate(timeout=60)
    assert begun.returncode == 130
    assert f"Deleting the kind cluster {NAME}" in said
    assert "Traceback" not in said
    assert kind_fake.calls(held)[-1] == ["kind", "delete", "cluster", "--name", NAME]
    assert not psutil.pid_exists(program)
    assert list((held / "clusters").iterdir()) == []
    assert JoinedFolder.all(empty) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_or_sighup_while_kind_creates_the_cluster_leaves_no_cluster(held, empty, number):
    ours, its = os.openpty()
    begun, program = up_half_way(held, its)
    os.close(its)
    # Now the terminal is closed, and writing to it fails.
    os.close(ours)
    begun.send_signal(number)
    begun.communicate(timeout=60)
    assert begun.returncode == 128 + number
    assert kind_fake.calls(held)[-1] == ["kind", "delete", "cluster", "--name", NAME]
    assert not psutil.pid_exists(program)
    assert list((held / "clusters").iterdir()) == []
    assert JoinedFolder.all(empty) == []


def test_up_and_down_clean_up_a_half_made_cluster_of_a_killed_lab(held, empty, capsys):
    for follows in ("up", "down"):
        begun, program = up_half_way(held)
        for each in (begun.pid, program):
            os.kill(each, signal.SIGKILL)
        begun.communicate()
        assert [one.name for one in (held / "clusters").iterdir()] == [NAME]
        capsys.readouterr()
        cli.status()
        said = capsys.readouterr().out
        assert f"The lab remembers the incomplete kind cluster {NAME}.\n" in said
        assert f"{NAME}.\n    To create the cluster again:  labkit up" in said
        assert "\n    To delete the cluster:  labkit down\n" in said
        if follows == "up":
            # This time kind runs to its end.
            (held / "hold").unlink()
            with labkit.Lab.open(target="kind") as lab:
                lab.ready(through="service_account")
            os.mkfifo(held / "hold")
        kind.down()
        assert f"The kind cluster {NAME} is deleted.\n" in capsys.readouterr().out
        assert list((held / "clusters").iterdir()) == []
        assert JoinedFolder.all(empty) == []


def test_a_cluster_that_cannot_be_deleted_is_named_and_remembered(programs, empty):
    folder = programs()
    labkit.Lab.open(target="kind").close()
    for stuck, why in (("docker", "Neither Docker nor Podman"), ("stuck", "could not kill container")):
        if stuck == "docker":
            (folder / "docker").rename(folder / "no-docker")
        else:
            (folder / "stuck").touch()
        with pytest.raises(LeftBehind, match=f"kind cluster {NAME} could not be deleted") as refusal:
            kind.down()
        assert why in refusal.value.what
        assert "nothing was" not in str(refusal.value)
        assert f"kind delete cluster --name {NAME}" in refusal.value.next
        assert not empty.is_running()
        if stuck == "docker":
            (folder / "no-docker").rename(folder / "docker")
    (folder / "stuck").unlink()
    kind.down()
    assert list((folder / "clusters").iterdir()) == []
    assert JoinedFolder.all(empty) == []


def test_reset_empties_the_folder_even_if_the_cluster_cannot_be_deleted(programs, empty):
    folder = programs()
    labkit.Lab.open(target="kind").close()
    (folder / "stuck").touch()
    with pytest.raises(LabError, match="could not kill container") as refusal:
        cli.reset()
    assert "is empty" in refusal.value.where
    assert f"kind delete cluster --name {NAME}" in refusal.value.next
    assert JoinedFolder.all(empty) == []
    os.kill(int((folder / "clusters" / NAME).read_text()), signal.SIGTERM)


def test_an_existing_cluster_cannot_replace_the_one_that_kind_created(programs, empty, existing):
    folder = programs()
    labkit.Lab.open(target="kind").close()
    kill(empty)
    with pytest.raises(AnotherCluster, match=f"is already the kind cluster {NAME}") as refusal:
        labkit.Lab.open(**existing.parameters)
    assert "labkit down" in refusal.value.next
    kind.down()
    assert list((folder / "clusters").iterdir()) == []
