"""The examination: it shows only symptoms, refuses a repair that opens too much, and ends with a certificate."""

import json
import re

import pytest

from labkit import Lab
from labkit.course import contents, progress
from labkit.course.faults import CATALOGUE, breaking, drawn_in_a_row
from labkit.errors import LabError
from labkit.steps import iam_role
from tests import commands

DRAWN = ("trust-policy-names-another-namespace", "policy-detached", "role-deleted")


def test_an_examination_judges_each_repair_and_ends_with_a_certificate(lab, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("labkit.course.faults.drawn_in_a_row", lambda *_: [CATALOGUE[name] for name in DRAWN])
    monkeypatch.setenv("LABKIT_PROGRESS", str(tmp_path / "progress.jsonl"))
    iam, said = lab.aws.client("iam"), lambda: capsys.readouterr().out
    exam = lab.examination(seed=1, count=3)
    told = said()
    assert "Fault 1 of 3. What happened: The application moved" in told and "AccessDenied" in told
    assert DRAWN[0] not in told
    exam.hand_in()
    assert "found     not mended yet" in said()

    trust(iam, lab, "StringLike", "system:serviceaccount:d*t:my-*-account")
    exam.hand_in()
    told = said()
    assert re.findall(r"wrong  (.+?)  +expected  refused\n.+found     admitted", told) == [
        "a neighbour in the namespace",
        "the same name in another namespace",
    ]
    trust(iam, lab, "StringEquals", f"system:serviceaccount:default:{lab.parameters.service_account}")
    exam.hand_in()
    assert "right: fault 1 of 3" in (told := said()) and "Fault 2 of 3." in told
    # The cause is named only now, after the repair.
    assert f"It was {DRAWN[0]}. The trust policy admits" in told and DRAWN[1] not in told

    for policy in ("arn:aws:iam::aws:policy/AmazonS3FullAccess", lab.parameters.policy_arn):
        iam.attach_role_policy(RoleName="my-role", PolicyArn=policy)
    exam.hand_in()
    assert re.search(r"wrong  a write to the bucket +expected  refused\n.+found     allowed", said())
    iam.detach_role_policy(RoleName="my-role", PolicyArn="arn:aws:iam::aws:policy/AmazonS3FullAccess")
    commands.labkit("doctor")
    exam.hand_in()
    assert "Fault 3 of 3." in said()

    exam.give_up()
    assert "It was role-deleted. The role my-role doesn't exist" in said()
    assert not breaking.faults_in(lab)
    with pytest.raises(LabError, match="over"):
        exam.hand_in()
    shown = repr(exam.certificate())
    assert shown.splitlines()[0] == "IRSA lab, examination with seed 1: 9 of 30 points"
    assert "<time>" in shown and "<date>" in shown
    kept = (tmp_path / "certificate.txt").read_text()
    assert [re.split("  +", line)[:5] for line in kept.splitlines()[2:5]] == [
        [DRAWN[0], "repaired", "3", "not asked", "nothing"],
        [DRAWN[1], "repaired", "2", "asked", "nothing"],
        [DRAWN[2], "given up", "0", "not asked", "nothing"],
    ]
    assert "examination with seed 1: 9 of 30 points" in repr(progress.read())
    assert contents_of_98().done == "✓ 9 of 30 points"
    assert re.search(r"From 20\d\d-.+ It doesn't say who took the examination\.$", kept)
    assert not [each.metadata.name for each in namespaces(lab) if each.metadata.name.startswith("elsewhere")]


def test_giving_up_names_the_cause_of_a_denied_permission(lab, monkeypatch, capsys):
    denied = CATALOGUE["permission-denied-by-an-inline-policy"]
    monkeypatch.setattr("labkit.course.faults.drawn_in_a_row", lambda *_: [denied])
    lab.examination(seed=1, count=1).give_up()
    assert f"It was {denied.id}. The role isn't allowed to do s3:ListBucket" in capsys.readouterr().out


def test_a_repair_by_the_lab_counts_as_given_up_and_recreating_costs_points(lab, monkeypatch, capsys):
    monkeypatch.setattr("labkit.course.faults.drawn_in_a_row", lambda *_: [CATALOGUE[name] for name in DRAWN[1:]] * 2)
    iam, said = lab.aws.client("iam"), lambda: capsys.readouterr().out
    exam = lab.examination(seed=1)

    lab.ready(before="oidc_provider")
    lab.ready(through="pod")
    exam.hand_in()
    assert "counts as given up. It was policy-detached." in (told := said()) and "Fault 2 of 4." in told

    # `labkit mend` prints the fault's name, so a fault that is broken again by that name counts as given up.
    lab.mend()
    lab.break_("role-deleted")
    exam.hand_in()
    assert "counts as given up. It was role-deleted." in said()

    # Recreate the whole role although only a policy was missing. Then recreate a missing role.
    trusted = iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"]

    def make_role():
        iam.create_role(RoleName="my-role", AssumeRolePolicyDocument=json.dumps(trusted), Tags=lab.tags)
        iam.attach_role_policy(RoleName="my-role", PolicyArn=lab.parameters.policy_arn)

    iam_role.delete(iam, "my-role")
    make_role()
    exam.hand_in()
    assert "You deleted and created again: the IAM role. Each costs 3 points." in said()
    assert "role-deleted" not in repr(exam.certificate()).splitlines()[5]
    make_role()
    exam.hand_in()
    assert "created again" not in said()
    assert repr(exam.certificate()).splitlines()[0].endswith("17 of 40 points")


def test_asking_the_lab_for_the_cause_costs_points_and_reading_does_not(lab, monkeypatch):
    def read_only():
        with Lab.open(role_name="reader") as other:
            other.check("iam_role")
        commands.labkit("doctor", "--explain", "InvalidIdentityToken: Incorrect token audience")
        return lab.trail(), lab.who_gets_in()

    ways = [read_only, lambda: lab.check("iam_role"), lab.journey, lab.diagnose]
    monkeypatch.setattr("labkit.course.faults.drawn_in_a_row", lambda *_: [CATALOGUE["policy-detached"] for _ in ways])
    exam = lab.examination(seed=1)
    for ask in ways:
        ask()
        lab.aws.client("iam").attach_role_policy(RoleName="my-role", PolicyArn=lab.parameters.policy_arn)
        exam.hand_in()
    assert [(paper.doctor, paper.points) for paper in exam.certificate().papers] == [(False, 10)] + [(True, 5)] * 3


def test_another_kernel_continues_the_examination(lab, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("labkit.course.faults.drawn_in_a_row", lambda *_: [CATALOGUE[name] for name in DRAWN[1:]])
    monkeypatch.setenv("LABKIT_PROGRESS", str(tmp_path / "progress.jsonl"))
    exam, said = lab.examination(seed=1), lambda: capsys.readouterr().out
    exam.hand_in()
    begun = exam.certificate().papers
    said()
    assert contents_of_98().done == "0 of 20 points, 2 faults left"
    assert "examination with seed 1: 0 of 20 points, 2 faults left" in repr(progress.read())
    assert not any(told in (tmp_path / "progress.jsonl").read_text() for told in (*DRAWN, "not attached", "cause"))

    again = lab.examination()
    told = said()
    assert "Your examination goes on: seed 1, fault 1 of 2, 0 points so far." in told
    assert "Fault 1 of 2. What happened: " in told and "AccessDenied" in told
    assert again.certificate().papers == begun
    lab.aws.client("iam").attach_role_policy(RoleName="my-role", PolicyArn=lab.parameters.policy_arn)
    again.hand_in()
    assert "right: fault 1 of 2" in (told := said())
    assert "It was policy-detached. The policy that says what the role may do is not attached to the role." in told
    assert progress.read().examination["points"] == 8

    # Something else removed the fault meanwhile, as `labkit reset` does.
    lab.mend()
    last = lab.examination()
    told = said()
    assert "goes on: seed 1, fault 2 of 2" in told and "counts as given up. It was role-deleted." in told
    assert repr(last.certificate()).splitlines()[0] == "IRSA lab, examination with seed 1: 8 of 20 points"
    lab.examination(seed=2, count=2).give_up()
    assert progress.read().examination["seed"] == 2


def contents_of_98():
    return next(each for each in contents.read().chapters if each.name == "98-examination.ipynb")


def namespaces(lab):
    from kubernetes.client import CoreV1Api

    items = CoreV1Api(lab.kubernetes).list_namespace().items
    return [each for each in items if each.status.phase == "Active"]


def trust(iam, lab, operator, subject):
    document = iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"]
    issuer = lab.issuer.removeprefix("https://")
    conditions = {operator: {f"{issuer}:sub": subject}}
    conditions.setdefault("StringEquals", {})[f"{issuer}:aud"] = "sts.amazonaws.com"
    document["Statement"][0]["Condition"] = conditions
    iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=json.dumps(document))


def test_the_same_seed_draws_the_same_faults_and_no_fault_twice():
    first = [fault.id for fault in drawn_in_a_row(7, 10)]
    assert first == [fault.id for fault in drawn_in_a_row(7, 10)]
    assert len(set(first)) == 10
