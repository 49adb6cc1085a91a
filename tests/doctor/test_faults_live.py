"""Faults in a running lab: the doctor finds each one, alone and beside another, and mending leaves no trace."""

import json
import random
import re
import shlex
import stat
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
from kubernetes.client import CoreV1Api
from typer.testing import CliRunner

from labkit.cli.main import app
from labkit.course.faults import CATALOGUE, breaking, drawn, expected, live, named
from labkit.doctor.examination import examine
from labkit.doctor.stages import PERMISSIONS
from labkit.errors import LabError
from labkit.simulator import Folder
from tests.doctor import answers
from tests.doctor.examining import evidence, found

FAULTS = list(CATALOGUE.values())
PAIRS = random.Random(5).sample(list(combinations(FAULTS, 2)), 40)
# A lab's answers to these calls contain more than the run's own objects.
MORE = (
    r"iam:ListRoles .*|list events .*|ec2:DescribeRegions .*|cloudtrail:.*|"
    r"list (serviceaccounts|clusterrolebindings|rolebindings) --all-namespaces"
)


@pytest.fixture(scope="module")
def facts(lab, healthy):
    """Values that differ from lab to lab: the certificate's thumbprint and the signing key's id."""
    keys = lab.fetch(f"{lab.issuer}/keys")["keys"]
    return answers.Facts(thumbprint=healthy.provider["ThumbprintList"][0], key_id=keys[0]["kid"])


@pytest.fixture
def mended(lab, healthy):
    """Mend the lab after the test."""
    yield
    if breaking.faults_in(lab):
        breaking.mend(lab)
    assert live.read(lab, healthy) == healthy


# Each alone.


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_each_fault_gives_one_finding_and_mending_leaves_no_trace(lab, healthy, facts, fault):
    wanted = fault.put_into(healthy)
    breaking.break_lab(lab, fault)
    try:
        assert live.read(lab, wanted).is_as(wanted)
        seen = evidence(lab, wanted, probe=fault.needs_probe)
        assert found(seen, fault.finding) == [fault.finding]
        check_record(seen, wanted, facts, fault)
    finally:
        breaking.mend(lab)
    assert live.read(lab, wanted) == healthy


def test_the_doctor_finds_nothing_in_a_healthy_lab_and_the_record_says_the_same(lab, healthy, facts):
    seen = evidence(lab, healthy, probe=True)
    assert found(seen) == []
    recorded = answers.evidence(healthy, probe=True, facts=facts)
    assert found(recorded) == []
    assert_contained(recorded.reads.answers, seen.reads.answers)


def manager(shell):
    """Return a function that runs `aws organizations` commands as the management account and returns their output."""

    def managing(*lines):
        done = shell("\n".join(["export AWS_PROFILE=management", *(f"aws organizations {line}" for line in lines)]))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return managing


def test_the_doctor_finds_a_service_control_policy_and_names_it_to_those_who_may_list_it(lab, healthy, shell):
    managing = manager(shell)
    deny = {"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "s3:List*", "Resource": "*"}}
    what = f"--type SERVICE_CONTROL_POLICY --name no-lists --description '' --content '{json.dumps(deny)}'"
    policy = f"--policy-id {managing(f'create-policy {what} --query Policy.PolicySummary.Id --output text')}"
    target = f"{policy} --target-id {lab.connection.account_id}"
    delegated = f"--account-id {lab.connection.account_id} --service-principal access-analyzer.amazonaws.com"
    managing(f"attach-policy {target}")
    try:
        denied = shell(f"aws s3api list-objects-v2 --bucket {lab.parameters.bucket}")
        assert "with an explicit deny in a service control policy" in denied.stderr
        (finding,) = examine(evidence(lab, healthy)).findings
        assert finding.id == "role-denied-by-service-control-policy"
        assert "could not be read: organizations:ListPoliciesForTarget" in finding.found
        managing(f"register-delegated-administrator {delegated}")
        (finding,) = examine(evidence(lab, healthy)).findings
        assert finding.found.endswith(
            "policies on the role's account, on its OUs or on the organization's root: FullAWSAccess, no-lists"
        )
        managing(f"deregister-delegated-administrator {delegated}")
    finally:
        managing(f"detach-policy {target}", f"delete-policy {policy}")
    assert found(evidence(lab, healthy)) == []


def test_the_doctor_finds_a_resource_control_policy_only_for_those_who_may_read_it(lab, healthy, shell):
    managing = manager(shell)
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:List*", "Resource": "*"}
    content = json.dumps({"Version": "2012-10-17", "Statement": deny})
    root = managing("list-roots --query Roots[0].Id --output text")
    managing(f"enable-policy-type --root-id {root} --policy-type RESOURCE_CONTROL_POLICY")
    what = f"--type RESOURCE_CONTROL_POLICY --name no-lists --description '' --content '{content}'"
    policy = f"--policy-id {managing(f'create-policy {what} --query Policy.PolicySummary.Id --output text')}"
    delegated = f"--account-id {lab.connection.account_id} --service-principal access-analyzer.amazonaws.com"
    managing(f"attach-policy {policy} --target-id {root}")
    try:
        seen = examine(evidence(lab, healthy))
        assert (seen.findings, seen.exit_code, seen.results[PERMISSIONS]) == ([], 0, "not looked at")
        assert "Not read: organizations:ListPoliciesForTarget" in repr(seen)
        assert "you have no permission to read the organization's policies" in repr(seen)
        managing(f"register-delegated-administrator {delegated}")
        (finding,) = examine(evidence(lab, healthy)).findings
        assert finding.id == "role-denied-by-resource-control-policy"
        assert finding.found.startswith("no-lists: {'Effect': 'Deny'")
        managing(f"deregister-delegated-administrator {delegated}")
    finally:
        managing(f"detach-policy {policy} --target-id {root}", f"delete-policy {policy}")
        managing(f"disable-policy-type --root-id {root} --policy-type RESOURCE_CONTROL_POLICY")


def check_record(seen, wanted, facts, fault):
    """Assert that the recorded answers, which the tests of pairs use, agree with the lab's."""
    recorded = answers.evidence(wanted, probe=fault.needs_probe, facts=facts)
    assert found(recorded, fault.finding) == [fault.finding]
    assert_contained(recorded.reads.answers, seen.reads.answers)


def assert_contained(recorded, answered):
    recorded, answered = without_made_up_names(recorded), without_made_up_names(answered)
    # The events of an earlier fault stay, so the doctor also reads the ReplicaSets that they name.
    more = {call for call in answered.keys() - recorded.keys() if not call.startswith("get replicaset ")}
    assert (recorded.keys() - answered.keys(), more) == (set(), set())
    for call, answer in recorded.items():
        if " in pod " not in call:
            why = is_contained(answer, answered[call], whole=not re.fullmatch(MORE, call))
            assert not why, f"{call}: {why}"


def without_made_up_names(answered):
    """The answers with the record's names instead of the lab's generated ones."""
    text = json.dumps(answered)
    for pattern, name in (
        (r"kube-api-access-\w+", "kube-api-access-x"),
        (r"my-pod-[0-9a-f]{6,10}\b(-\w+)?", "my-pod-1"),
        (r"\ba-[0-9a-z]{17}\b", "a-1"),
    ):
        text = re.sub(pattern, name, text)
    return json.loads(text)


VOLATILE = (
    "uid",
    "creationTimestamp",
    "CreateDate",
    "lastTimestamp",
    "firstTimestamp",
    "eventTime",
    "caller",
    "message",
)


def is_contained(recorded, answered, *, whole=True, where=""):
    """Where the lab's answer differs from the record; empty if it contains at least the record."""
    if isinstance(recorded, dict) and isinstance(answered, dict):
        reasons = (
            is_contained(value, answered.get(key), where=f"{where}.{key}")
            for key, value in recorded.items()
            if key not in VOLATILE
        )
        return next(filter(None, reasons), "")
    if isinstance(recorded, list) and isinstance(answered, list):
        if whole and len(recorded) != len(answered):
            return f"{where}: {len(recorded)} recorded, {len(answered)} answered"
        for number, item in enumerate(recorded):
            reasons = [is_contained(item, other, where=f"{where}[{number}]") for other in answered]
            if all(reasons):
                return reasons[0] if len(reasons) == 1 else f"{where}[{number}]: {item} isn't one of {answered}"
        return ""
    same = recorded == answered or (isinstance(recorded, str) and recorded.strip() == str(answered).strip())
    return "" if same else f"{where}: {recorded!r} recorded, {answered!r} answered"


# Two at once.


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "+".join(fault.id for fault in pair))
def test_two_faults_are_both_found_unless_one_hides_the_other(lab, healthy, pair):
    for fault in pair:
        names = breaking.break_lab(lab, fault)
    there = [named(name) for name in names]
    try:
        now = live.read(lab, healthy, *(fault.put_into(healthy) for fault in there))
        seen = evidence(lab, now, probe=any(fault.needs_probe for fault in there))
        assert set(found(seen, *(fault.finding for fault in pair))) == expected(pair)
    finally:
        breaking.mend(lab)
    assert live.read(lab, healthy) == healthy


# Mending.


@pytest.mark.usefixtures("mended")
def test_mending_says_what_was_put_back_what_was_mended_by_hand_and_what_was_left_behind(lab, healthy):
    breaking.break_lab(lab, named("policy-detached"))
    breaking.break_lab(lab, named("pod-opted-out"))
    iam = lab.aws.client("iam")
    iam.attach_role_policy(RoleName="my-role", PolicyArn=lab.parameters.policy_arn)
    iam.update_role(RoleName="my-role", Description="somebody looked at it", MaxSessionDuration=3600)
    said = breaking.mend(lab)
    assert said.faults == ["policy-detached", "pod-opted-out"]
    assert said.put_back == ["pod default/my-pod"]
    assert said.mended_before == ["permissions of the role my-role"]
    assert said.left_behind == ["settings of the role my-role"]
    assert "put back, though no fault had changed it: settings of the role my-role" in str(said)


@pytest.mark.usefixtures("mended")
def test_a_later_fault_takes_the_place_of_an_earlier_one_in_the_same_object(lab, healthy):
    for name in ("keys-in-the-pod", "trust-policy-names-another-namespace", "annotation-left-out"):
        breaking.break_lab(lab, named(name))
    CoreV1Api(lab.kubernetes).patch_namespaced_service_account(
        "my-service-account", "default", {"metadata": {"annotations": {"eks.amazonaws.com/role-arn": lab.role_arn}}}
    )
    names = breaking.break_lab(lab, named("trust-policy-names-another-service-account"))
    # The annotation was mended by hand meanwhile, and stays mended.
    assert names == ["keys-in-the-pod", "trust-policy-names-another-service-account"]
    assert set(found(evidence(lab, live.read(lab, healthy)))) == {"trust-policy-sub-mismatch", "pod-static-keys"}


@pytest.mark.usefixtures("mended")
def test_only_the_owner_may_read_the_faults_file_and_another_process_can_mend_it(lab, healthy):
    breaking.break_lab(lab, named("oidc-provider-made-in-another-account"))
    breaking.break_lab(lab, named("keys-in-the-pod"))
    (file,) = (Folder.find().path / "faults").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    command = Path(sys.executable).with_name("labkit")
    done = subprocess.run([command, "mend"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Mended: oidc-provider-made-in-another-account, keys-in-the-pod.\n")
    another = lab.connection.account("210987654321").client("iam")
    assert another.list_open_id_connect_providers()["OpenIDConnectProviderList"] == []


def test_a_deleted_clusters_fault_is_forgotten(lab, healthy):
    kept = breaking.BrokenRun(run=lab.run, cluster_made="", faults=["policy-detached"], before=healthy, broken=healthy)
    (folder := Folder.find().path / "faults").mkdir(exist_ok=True)
    breaking._write(lab, kept)
    with pytest.raises(LabError, match="Nothing is broken in") as refused:
        breaking.mend(lab)
    assert "faults are in" not in str(refused.value)
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("mended")
def test_break_first_makes_a_run_that_does_not_exist(lab, capsys):
    from labkit import Lab

    with Lab.open(namespace="other", service_account="cart", role_name="cart-role") as other:
        breaking.break_lab(other, named("policy-detached"))
        assert "Ready" in capsys.readouterr().out
        with pytest.raises(LabError, match="Nothing is broken in blue/default") as refused:
            breaking.mend(lab)
        assert "blue/other/cart/cart-role" in str(refused.value)
        breaking.mend(other)
        other.remove()


@pytest.mark.usefixtures("mended")
def test_mending_restores_a_pod_that_is_older_than_its_annotation(lab, healthy):
    core = CoreV1Api(lab.kubernetes)
    older = "arn:aws:iam::123456789012:role/older"
    annotation = {"metadata": {"annotations": {"eks.amazonaws.com/role-arn": older}}}
    core.patch_namespaced_service_account("my-service-account", "default", annotation)
    try:
        before = live.read(lab, healthy)
        assert before.made_with == {"eks.amazonaws.com/role-arn": lab.role_arn}
        breaking.break_lab(lab, named("webhook-registration-deleted"))
        breaking.break_lab(lab, named("keys-in-the-pod"))
        breaking.mend(lab)
        assert live.read(lab, healthy) == before
    finally:
        annotation["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] = lab.role_arn
        core.patch_namespaced_service_account("my-service-account", "default", annotation)


# The commands.


def run(*arguments):
    return CliRunner().invoke(app, arguments)


@pytest.mark.usefixtures("mended")
def test_break_prints_the_answer_of_aws_and_the_next_command(lab):
    done = run("break", "keys-in-the-pod")
    assert done.exit_code == 0, done.output
    assert (
        "aws sts get-caller-identity --query Arn --output text now says:  An error occurred (InvalidClientTokenId)"
        in done.output
    )
    next_ = "labkit doctor -n default -s my-service-account --action s3:ListBucket --resource arn:aws:s3:::irsa-lab"
    assert done.output.endswith(f"Next:  {next_}\nUndo:  labkit mend\n")
    assert "put back: pod default/my-pod" in run("mend").output


@pytest.mark.usefixtures("mended")
@pytest.mark.parametrize("fault", [
    "permission-denied-by-an-inline-policy", "boundary-without-the-permission", "program-that-leaves-root",
])  # fmt: skip
def test_the_next_command_that_break_prints_names_the_fault(lab, fault):
    said = run("break", fault).output
    command = re.search("^Next:  labkit (.*)", said, re.M)
    assert command, said
    assert named(fault).finding in run(*shlex.split(command[1])).output


@pytest.mark.usefixtures("mended")
def test_a_random_fault_is_not_named_and_its_seed_picks_it_again(lab):
    fault = drawn(11)
    done = run("break", "--random", "--seed", "11")
    assert f"What happened: {fault.description}\n" in done.output
    assert fault.id not in done.output and fault.finding not in done.output
    assert fault.id in run("mend").output


@pytest.mark.parametrize(("arguments", "said"), [
    (["break", "keys-in-the-pot"], "Did you mean 'keys-in-the-pod'?"),
    (["break", "nothing-like-it-at-all"], "'nothing-like-it-at-all' is not a fault."),
    (["break"], "Name one fault, or pass --random"),
    (["break", "keys-in-the-pod", "--random"], "Name one fault, or pass --random"),
    (["break", "keys-in-the-pod", "--seed", "1"], "Name one fault, or pass --random"),
    (["break", "keys-in-the-pod", "--cluster", "red"], "'red' is not a cluster of the lab"),
    (["break", "keys-in-the-pod", "-n", "No_Namespace"], "parameter namespace = 'No_Namespace' breaks its rule"),
    (["mend"], "Nothing is broken in blue/default/my-service-account/my-role"),
], ids=" ".join)  # fmt: skip
def test_break_and_mend_explain_why_they_refuse(lab, arguments, said):
    done = run(*arguments)
    assert isinstance(done.exception, LabError)
    assert said in str(done.exception)


def test_break_does_not_start_a_lab(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "none"))
    done = run("break", "keys-in-the-pod")
    assert isinstance(done.exception, LabError)
    assert "No lab runs in" in str(done.exception) and "labkit up" in str(done.exception)
    assert not (tmp_path / "none").exists()


def test_break_refuses_a_cluster_that_is_not_the_labs_own(lab, monkeypatch):
    import dataclasses

    monkeypatch.setattr(lab, "connection", dataclasses.replace(lab.connection, takes_untagged=False))
    with pytest.raises(LabError, match="breaks only its own cluster and account"):
        breaking.break_lab(lab, named("keys-in-the-pod"))


def test_break_list_shows_every_fault_and_its_description():
    listed = run("break", "--list").output
    for fault in FAULTS:
        assert fault.id in listed and fault.description in listed
