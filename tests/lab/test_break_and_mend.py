"""`lab.break_`, `lab.mend` and the report of `lab.mended`, used as in a notebook."""

import dataclasses

import pytest
from kubernetes.client import CoreV1Api

from labkit.course import faults, progress
from labkit.errors import LabError, UnknownName
from labkit.steps import pod

SEED = 5
pytestmark = pytest.mark.lab(cluster="break-tests", through="pod")


@pytest.fixture(autouse=True)
def taken_out(lab):
    yield
    lab.mend()


@pytest.fixture
def iam(lab):
    return lab.aws.client("iam")


def test_break_prints_the_same_event_and_aws_answers_each_time(lab, capsys):
    lab.break_("bucket-policy-denies-the-role")
    first = capsys.readouterr().out
    lab.aws.client("s3").delete_bucket_policy(Bucket="irsa-lab")
    lab.break_("bucket-policy-denies-the-role")
    assert capsys.readouterr().out == first
    happened, *said = first.splitlines()
    assert happened == "bucket-policy-denies-the-role: The bucket got a policy."
    assert said[:3] == [
        "$ aws sts get-caller-identity --query Arn --output text",
        "arn:aws:sts::123456789012:assumed-role/my-role/<session name>",
        "$ aws s3 ls s3://irsa-lab",
    ]
    assert "explicit deny in a resource-based policy" in said[3]


def test_break_shows_the_pods_new_refusal_although_it_had_a_session(lab, capsys):
    lab.break_("policy-detached")
    assert "assumed-role/my-role" in capsys.readouterr().out
    lab.break_("trust-policy-names-another-namespace")
    assert "Not authorized to perform sts:AssumeRoleWithWebIdentity" in capsys.readouterr().out


def test_break_mends_the_earlier_fault_first(lab, capsys):
    lab.break_("policy-detached")
    capsys.readouterr()
    lab.break_("pod-opted-out")
    said = "The earlier fault is mended first. Mended: policy-detached.\n  put back: permissions"
    assert capsys.readouterr().out.startswith(said)
    assert [finding.id for finding in lab.diagnose().findings] == ["pod-opted-out-of-webhook"]


def test_mend_restores_a_deleted_role_without_adding_a_description(lab, iam):
    # Another test may have set a description, which no call can remove. So the role is created again.
    lab.ready(before="iam_role")
    lab.ready(through="pod")
    assert "Description" not in iam.get_role(RoleName="my-role")["Role"]
    lab.break_("role-deleted")
    lab.mend()
    assert "Description" not in iam.get_role(RoleName="my-role")["Role"]


def test_a_random_fault_is_described_but_not_named_until_it_is_mended(lab, capsys):
    lab.break_(seed=SEED)
    assert capsys.readouterr().out.startswith(f"What happened: {faults.drawn(SEED).description}\n")
    report = repr(lab.mended())
    assert faults.drawn(SEED).id not in report and faults.drawn(SEED).finding not in report
    assert capsys.readouterr().out == "Asking AWS in the pod …\n"
    lab.mend()
    assert capsys.readouterr().out.startswith(f"Mended: {faults.drawn(SEED).id}.\n")


def test_a_random_fault_that_is_chosen_twice_is_not_named(lab, capsys):
    lab.break_(seed=SEED)
    capsys.readouterr()
    lab.break_(seed=SEED)
    said = capsys.readouterr().out
    assert said.startswith(f"The earlier fault is mended first.\nWhat happened: {faults.drawn(SEED).description}\n")
    assert faults.drawn(SEED).id not in said


def test_ready_mends_a_fault_that_was_left_in_the_run(lab, capsys):
    lab.break_("webhook-without-a-ca-bundle")
    capsys.readouterr()
    lab.ready(through="pod")
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "A fault was still in this run. Mended: webhook-without-a-ca-bundle."
    assert second.startswith("  put back: ")
    assert not lab.diagnose().findings
    lab.ready(through="pod")
    assert "fault" not in capsys.readouterr().out


def test_ready_leaves_a_fault_that_was_mended_by_hand(lab, iam, capsys):
    lab.break_("policy-detached")
    iam.attach_role_policy(RoleName="my-role", PolicyArn=lab.parameters.policy_arn)
    capsys.readouterr()
    lab.ready(through="pod")
    assert "fault" not in capsys.readouterr().out


def test_a_half_mended_fault_is_not_mended_and_the_broken_object_is_named(lab):
    lab.break_("annotation-key-misspelt")
    annotations = {"eks.amazonaws.com/role-arn": lab.role_arn, "eks.amazon.com/role-arn": None}
    CoreV1Api(lab.kubernetes).patch_namespaced_service_account(
        "my-service-account", "default", {"metadata": {"annotations": annotations}}
    )
    report = lab.mended()
    assert not report
    assert str(report).splitlines()[:5] == [
        "✗ not mended yet",
        "  still broken  pod default/my-pod",
        "  as before     serviceAccount default/my-service-account",
        "  left behind   nothing",
        "  $ aws sts get-caller-identity --query Arn --output text",
    ]
    assert "node-role" not in str(report) and "Unable to locate credentials" in str(report)
    assert "<code>pod default/my-pod</code>" in report._repr_html_()


def test_a_repair_by_hand_counts_as_mended_and_its_leftovers_are_listed(lab, iam):
    lab.break_("policy-detached")
    iam.attach_role_policy(RoleName="my-role", PolicyArn=lab.parameters.policy_arn)
    iam.update_role(RoleName="my-role", Description="somebody looked at it", MaxSessionDuration=3600)
    report = lab.mended()
    assert report
    said = str(report)
    assert said.startswith("✓ mended\n  as before    permissions of the role my-role\n")
    assert "left behind  settings of the role my-role\n" in said
    assert "hello.txt" in said.splitlines()[-1]


def test_a_repair_that_changes_more_than_needed_counts_as_mended(lab, iam):
    lab.break_("policy-detached")
    policy = '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}'
    iam.attach_role_policy(RoleName="my-role", PolicyArn=lab.parameters.policy_arn)
    iam.put_role_policy(RoleName="my-role", PolicyName="more", PolicyDocument=policy)
    report = lab.mended()
    assert report
    assert "changed in another way  permissions of the role my-role" in str(report)


def test_an_unused_object_of_a_fault_is_reported_as_left_behind(lab):
    lab.break_("keys-in-a-config-map")
    pod.delete(lab, "my-pod", "default")
    pod.ensure(lab)
    report = lab.mended()
    assert report
    assert "left behind  configMap default/my-settings" in str(report)


def test_a_repair_as_the_doctor_says_leaves_nothing_of_eksctl_behind(lab, iam):
    lab.break_("eksctl-excluded-the-service-account")
    (finding,) = lab.diagnose().findings
    assert (finding.id, finding.expected) == (
        "eksctl-role-without-annotation",
        f"eks.amazonaws.com/role-arn: {lab.role_arn}",
    )
    repaired = {"metadata": {"annotations": {"eks.amazonaws.com/role-arn": lab.role_arn}}}
    CoreV1Api(lab.kubernetes).patch_namespaced_service_account("my-service-account", "default", repaired)
    pod.delete(lab, "my-pod", "default")
    pod.ensure(lab)
    report = lab.mended()
    assert report
    assert "left behind  nothing" in str(report)
    lab.break_("annotation-left-out")
    assert [each.id for each in lab.diagnose().findings] == ["service-account-annotation-missing"]
    assert {tag["Key"] for tag in iam.list_role_tags(RoleName="my-role")["Tags"]} == {tag["Key"] for tag in lab.tags}


def test_a_fault_that_only_warns_still_counts_as_not_mended(lab):
    lab.break_("administrator-attached")
    assert not lab.mended()


def test_without_a_running_pod_aws_is_not_asked(lab, capsys):
    lab.break_("pod-deleted")
    assert "$ aws" not in capsys.readouterr().out
    assert str(lab.mended()).endswith("not asked: no pod runs")


def test_without_a_fault_there_is_nothing_to_report_and_nothing_to_mend(lab, capsys):
    with pytest.raises(LabError, match=r"Nothing is broken in break-tests/.*\n.*\nnext:  lab\.break_\(\)"):
        lab.mended()
    lab.mend()
    assert capsys.readouterr().out == "Nothing is broken in this run.\n"


def test_break_takes_either_a_known_fault_or_a_seed(lab):
    with pytest.raises(LabError, match="Pass either a fault or a seed"):
        lab.break_("pod-deleted", seed=1)
    with pytest.raises(LabError, match="Did you mean 'pod-deleted'"):
        lab.break_("pod-deletet")


def test_break_mend_and_mended_are_refused_on_a_cluster_that_is_not_the_labs(lab, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(lab, "connection", dataclasses.replace(lab.connection, takes_untagged=False))
        for call in (lab.break_, lab.mended, lab.mend):
            with pytest.raises(LabError, match="The target moto lacks a cluster of the lab's own"):
                call()


def test_a_case_names_its_fault_only_after_the_repair(lab, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / progress.NAME))
    fault = faults.named("bucket-policy-denies-the-role")
    with pytest.raises(UnknownName, match=r"^'12' is not a case"):
        lab.case(12)
    case = lab.case(9)
    with pytest.raises(UnknownName, match=r"part of IRSA.*\n.*case\.guess"):
        case.guess("bucket")
    case.guess("trust policy")
    case.guess("bucket policy")  # only the first one counts
    assert not case.mended()
    before = capsys.readouterr().out + repr(case) + case._repr_html_()
    assert "explicit deny in a resource-based policy" in before
    assert fault.id not in before and fault.finding not in before
    lab.aws.client("s3").delete_bucket_policy(Bucket="irsa-lab")
    assert case.mended()
    said = capsys.readouterr().out
    assert f"The fault was {fault.id}, in this part: bucket policy. You guessed trust policy." in said
    assert "So far you guessed 0 of 1 case." in said


def test_in_a_case_s_widget_the_symptoms_come_after_the_guess(lab):
    panel = lab.case(9).panel()
    assert "symptoms" not in panel.children[0].value
    next(each for each in panel.children if getattr(each, "description", "") == "bucket policy").click()
    assert "Your guess is noted: bucket policy." in panel.children[1].value
    assert "explicit deny in a resource-based policy" in panel.children[1].value
