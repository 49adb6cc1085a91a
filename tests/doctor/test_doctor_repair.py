"""`labkit doctor --repair` shows each repair, asks, and runs only the lines that it has shown."""

import json
import os

import pexpect
import pytest

from labkit.cli import doctor_repair
from tests.commands import LABKIT
from tests.commands import labkit as labkit_command

POLICY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
ASK = r"Run these lines\? \[y/N\]: "


@pytest.fixture
def iam(lab):
    """The lab's IAM client. The role is restored after the test."""
    iam = lab.aws.client("iam")
    before = iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"]
    yield iam
    iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=json.dumps(before))
    iam.attach_role_policy(RoleName="my-role", PolicyArn=POLICY)


def trust(iam, change):
    document = iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"]
    change(document["Statement"][0])
    iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=json.dumps(document))
    return document


def subjects(statement):
    (key,) = [key for key in statement["Condition"]["StringEquals"] if key.endswith(":sub")]
    return statement["Condition"]["StringEquals"], key


def naming(*names):
    """Return a change after which a statement admits only these service accounts."""

    def change(statement):
        block, key = subjects(statement)
        block[key] = [f"system:serviceaccount:{name}" for name in names]

    return change


def started(*arguments):
    variables = {**os.environ, "TERM": "dumb"}
    return pexpect.spawn(
        str(LABKIT),
        ["doctor", "--repair", *arguments],
        env=variables,
        timeout=60,
        encoding="utf-8",
        dimensions=(50, 400),
    )


def ended(doctor):
    """The rest of the command's output, and its exit code."""
    doctor.expect(pexpect.EOF)
    doctor.close()
    return doctor.before, doctor.exitstatus


def test_each_repair_is_shown_and_confirmed_until_nothing_is_left(lab, iam):
    trust(iam, lambda statement: statement.update(Action="sts:AssumeRole"))
    trust(iam, lambda statement: subjects(statement)[0].pop(subjects(statement)[1].replace(":sub", ":aud")))
    iam.detach_role_policy(RoleName="my-role", PolicyArn=POLICY)
    doctor = started()
    doctor.expect(ASK)
    assert "trust-policy-action-wrong: " in doctor.before
    assert "# This adds default:my-service-account to the trust policy of my-role." in doctor.before
    assert '"Action": "sts:AssumeRoleWithWebIdentity"' in doctor.before
    assert "aws iam update-assume-role-policy --role-name my-role" in doctor.before
    doctor.sendline("y")
    doctor.expect(ASK)
    assert "This also mended trust-policy-aud-missing." in doctor.before
    assert f"aws iam attach-role-policy --role-name my-role --policy-arn {POLICY}" in doctor.before
    doctor.sendline("y")
    said, exit_code = ended(doctor)
    assert exit_code == 0, said
    assert "What is left:" in said and "nothing wrong found; not looked at: the token," in said


def test_a_declined_repair_changes_nothing_and_its_finding_is_listed_as_left(lab, iam):
    there = trust(iam, naming("shop:web", "shop:api"))
    doctor = started()
    doctor.expect(ASK)
    assert "# shop:web and shop:api keep their access." in doctor.before
    doctor.sendline("")
    said, exit_code = ended(doctor)
    assert exit_code == 1
    assert "What is left:" in said and "trust-policy-sub-mismatch" in said
    assert iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"] == there


def test_after_a_declined_repair_the_doctor_asks_about_the_next_one(lab, iam):
    trust(iam, lambda statement: statement.update(Action="sts:AssumeRole"))
    iam.detach_role_policy(RoleName="my-role", PolicyArn=POLICY)
    doctor = started()
    doctor.expect(ASK)
    doctor.sendline("n")
    doctor.expect(ASK)
    assert "Left as it is." in doctor.before and "attach-role-policy" in doctor.before
    doctor.sendline("y")
    said, exit_code = ended(doctor)
    assert exit_code == 1
    assert "trust-policy-action-wrong" in said and "role-has-no-policy" not in said


def test_others_keep_their_access_and_a_repair_without_a_command_is_not_run(lab, iam):
    trust(iam, naming("shop:web", "shop:api"))
    iam.detach_role_policy(RoleName="my-role", PolicyArn=POLICY)
    doctor = started()
    doctor.expect(ASK)
    doctor.sendline("y")
    said, exit_code = ended(doctor)
    # shop:web would also get the role's new permissions, so the role's owner has to decide.
    assert exit_code == 1
    assert "shop:web and shop:api can use my-role, too" in said
    assert "Not run: the repair has no command." in said
    (statement,) = iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"]["Statement"]
    block, key = subjects(statement)
    accounts = ("shop:web", "shop:api", "default:my-service-account")
    assert block[key] == [f"system:serviceaccount:{name}" for name in accounts]
    assert iam.list_attached_role_policies(RoleName="my-role")["AttachedPolicies"] == []


@pytest.mark.kubectl
def test_the_doctor_waits_for_the_pod_that_a_repair_creates(lab, iam):
    from kubernetes.client import CoreV1Api

    core = CoreV1Api(lab.kubernetes)
    core.delete_namespaced_pod("my-pod", "default", grace_period_seconds=0)
    doctor = started("--pod", "my-pod")
    doctor.expect(ASK)
    assert "# This creates the pod my-pod. It runs as default:my-service-account." in doctor.before
    doctor.sendline("y")
    said, exit_code = ended(doctor)
    assert exit_code == 0, said


def test_repair_refuses_to_run_without_a_terminal(lab):
    done = labkit_command("doctor", "-n", "default", "-s", "my-service-account", "--repair")
    assert done.returncode == 2
    assert "--repair asks before each repair, so it needs a terminal." in done.stderr
    assert "next:  labkit doctor -n default -s my-service-account, which prints the commands." in done.stderr


@pytest.mark.parametrize("option", ["--json", "--all"])
def test_repair_cannot_be_combined_with_json_or_all(lab, option):
    done = labkit_command("doctor", "--repair", option)
    assert done.returncode == 2
    assert f"{option} can't be combined with --repair" in done.stderr + done.stdout


@pytest.mark.parametrize(("repair", "why"), [
    ("# only words", "the repair has no command"),
    ("# words\naws iam get-role --role-name <ROLE_NAME>",
     "the repair lacks a value. Replace <ROLE_NAME> with your value"),
    ('echo \'{"value": "NOT-SHOWN"}\' | kubectl apply -f -', "Replace NOT-SHOWN"),
    ("# <ROLE_NAME> is in the words alone\naws sts get-caller-identity", ""),
])  # fmt: skip
def test_an_incomplete_repair_is_not_run(repair, why):
    assert why in doctor_repair.why_not_run(repair)
    assert bool(why) == bool(doctor_repair.why_not_run(repair))


def test_a_failing_command_stops_the_repair_and_the_message_quotes_its_output(tmp_path):
    script = f"# words\nfalse || echo 'no such\nrole' >&2\nfalse\ntouch {tmp_path}/after"
    said = doctor_repair.run(script, {"PATH": os.environ["PATH"]})
    assert said == "The repair failed with exit code 1; it printed: no such role"
    assert list(tmp_path.iterdir()) == []
    assert doctor_repair.run("(\nfalse | true\n)", {"PATH": os.environ["PATH"]}).startswith("The repair failed")
    assert doctor_repair.run('test "$ONLY" = this', {"PATH": os.environ["PATH"], "ONLY": "this"}) == ""
