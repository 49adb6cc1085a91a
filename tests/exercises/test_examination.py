"""The examination: symptoms alone, a judge of what a repair has opened, and what the certificate says."""

import json
import re

import pytest

from labkit import Lab
from labkit.errors import LabError
from labkit.faults import CATALOGUE, breaking, drawn_in_a_row
from tests import commands

DRAWN = ("trust-policy-names-another-namespace", "policy-detached", "role-deleted")


@pytest.fixture(scope="module")
def lab(home):
    with Lab.open() as opened:
        yield opened
        opened.mend()
        opened.remove()


def test_from_the_first_fault_to_the_certificate(lab, home, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("labkit.faults.drawn_in_a_row", lambda *_: [CATALOGUE[name] for name in DRAWN])
    monkeypatch.setenv("LABKIT_PROGRESS", str(tmp_path / "progress.jsonl"))
    iam, said = lab.aws.client("iam"), lambda: capsys.readouterr().out
    exam = lab.examination(seed=1, count=3)
    told = said()
    assert "Fault 1 of 3. What happened: The application moved" in told and "AccessDenied" in told
    assert DRAWN[0] not in told
    exam.hand_in()
    assert "found     not mended yet" in said()

    trust(iam, lab, "StringLike", "system:serviceaccount:*:*")
    exam.hand_in()
    told = said()
    assert re.findall(r"wrong  (.+?)  +expected  refused\n.+found     admitted", told) == [
        "a neighbour in the namespace",
        "the same name in another namespace",
    ]
    trust(iam, lab, "StringEquals", f"system:serviceaccount:default:{lab.parameters.service_account}")
    exam.hand_in()
    assert "right: fault 1 of 3" in (told := said()) and "Fault 2 of 3." in told

    for policy in ("arn:aws:iam::aws:policy/AmazonS3FullAccess", lab.parameters.policy_arn):
        iam.attach_role_policy(RoleName="my-role", PolicyArn=policy)
    exam.hand_in()
    assert re.search(r"wrong  a write to the bucket +expected  refused\n.+found     allowed", said())
    iam.detach_role_policy(RoleName="my-role", PolicyArn="arn:aws:iam::aws:policy/AmazonS3FullAccess")
    commands.labkit("doctor", LABKIT_HOME=str(home))
    exam.hand_in()
    assert "Fault 3 of 3." in said()

    exam.give_up()
    assert "It was role-deleted" in said()
    assert not breaking.faults_in(lab)
    with pytest.raises(LabError, match="over"):
        exam.hand_in()
    shown = repr(exam.certificate())
    assert shown.splitlines()[0] == "IRSA lab, examination with seed 1: 9 of 30 points"
    assert "<time>" in shown and "<date>" in shown
    kept = (tmp_path / "certificate.txt").read_text()
    assert [re.split("  +", line)[:4] for line in kept.splitlines()[2:5]] == [
        [DRAWN[0], "repaired", "3", "not asked"],
        [DRAWN[1], "repaired", "2", "asked"],
        [DRAWN[2], "given up", "0", "not asked"],
    ]
    assert re.search(r"From 20\d\d-.+ It doesn't say who sat there\.$", kept)
    assert not [each.metadata.name for each in namespaces(lab) if each.metadata.name.startswith("elsewhere")]


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
