"""A lab on the embedded target: prepared, checked, broken, repaired and cleaned up, with the real clients."""

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException

from labkit import Lab, documents
from labkit.documents import POD_NAME
from labkit.errors import LabError, UnknownName
from labkit.run_parameters import Parameters
from labkit.steps import bucket, iam_role, pod
from labkit.steps.iam_role import RoleOfAnotherRun
from labkit.steps.pod import PodDoesNotRun
from tests.commands import labkit

pytestmark = [pytest.mark.lab(cluster="lab-tests"), pytest.mark.usefixtures("lab")]


@pytest.fixture
def iam(lab):
    return lab.aws.client("iam")


@pytest.fixture
def core(lab):
    return CoreV1Api(lab.kubernetes)


def ids(lab, step):
    return [finding.id for finding in lab.check(step).findings]


def test_ready_prints_the_same_line_if_everything_exists_already(lab, capsys):
    lab.ready(through="pod")
    first = capsys.readouterr().out
    lab.ready(through="pod")
    assert capsys.readouterr().out == first
    assert first == "Ready: the OIDC provider, the IAM role, the service account and the pod exist.\n"


def test_two_kernels_that_create_the_pod_at_once_share_it(lab, core, monkeypatch):
    lab.ready(through="service_account")
    made = []

    def create(core, namespace, wanted):
        if not made:  # the other kernel is faster
            made.append(unchanged(core, namespace, wanted))
        return unchanged(core, namespace, wanted)

    unchanged = CoreV1Api.create_namespaced_pod
    monkeypatch.setattr(CoreV1Api, "create_namespaced_pod", create)
    pod.delete(lab, POD_NAME, "default")
    pod.ensure(lab)
    assert core.read_namespaced_pod(POD_NAME, "default").metadata.uid == made[0].metadata.uid


@pytest.mark.parametrize("step", ["oidc_provider", "iam_role", "service_account", "pod", "credentials"])
def test_each_step_is_right_after_ready(lab, step):
    lab.ready(through="pod")
    check = lab.check(step)
    assert check, check


def test_the_pod_gets_the_role_and_the_trail_shows_its_exchange(lab):
    lab.ready(through="pod")
    assert lab.check("credentials")
    (row,) = lab.trail(event="AssumeRoleWithWebIdentity", last=1).rows
    assert row[1:3] == (lab.parameters.subject, "allowed")


@pytest.mark.parametrize(("before", "missing", "there"), [
    ("oidc_provider", "oidc-provider-missing", ""),
    ("iam_role", "role-missing", "oidc_provider"),
    ("service_account", "service-account-missing", "iam_role"),
    ("pod", "pod-missing", "service_account"),
])  # fmt: skip
def test_ready_before_a_step_leaves_only_the_earlier_steps_done(lab, before, missing, there):
    lab.ready(through="pod")
    lab.ready(before=before)
    assert ids(lab, before) == [missing]
    assert not there or lab.check(there)
    assert not lab.check("pod")


def test_ready_takes_either_before_or_through_and_a_known_step(lab):
    with pytest.raises(LabError, match="exactly one of before= and through="):
        lab.ready()
    with pytest.raises(UnknownName, match="Did you mean 'iam_role'"):
        lab.ready(before="iam-role")


def run_in_a_terminal(lines):
    """Run the lines in a shell with this lab's environment, as a user runs a repair."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = f'set -e\neval "$(labkit env)"\n{lines}'
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "PATH": programs}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_wrong_trust_policy_is_found_and_its_repair_works_in_a_terminal(lab, iam):
    lab.ready(through="pod")
    document = iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"]
    condition = document["Statement"][0]["Condition"]["StringEquals"]
    condition[f"{lab.issuer.removeprefix('https://')}:sub"] = "system:serviceaccount:default:somebody-else"
    iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=json.dumps(document))
    (finding,) = lab.diagnose().findings
    assert finding.id == "trust-policy-sub-mismatch"
    assert ids(lab, "credentials") == ["credentials-refused"]
    run_in_a_terminal(finding.repair)
    assert lab.check("iam_role")
    assert lab.check("credentials")


@pytest.mark.kubectl
def test_a_misspelt_annotation_is_found_and_its_repair_works_in_a_terminal(lab, core):
    lab.ready(through="pod")
    annotations = {"eks.amazonaws.com/role-arn": None, "eks.amazon.com/role-arn": lab.role_arn}
    core.patch_namespaced_service_account("my-service-account", "default", {"metadata": {"annotations": annotations}})
    (finding,) = lab.check("service_account").findings
    assert finding.id == "service-account-annotation-key-typo"
    run_in_a_terminal(finding.repair)
    assert lab.check("service_account")
    account = core.read_namespaced_service_account("my-service-account", "default")
    assert account.metadata.annotations == {"eks.amazonaws.com/role-arn": lab.role_arn}


@pytest.mark.kubectl
@pytest.mark.parametrize("step", ["oidc_provider", "iam_role", "service_account", "pod"])
def test_the_repair_creates_the_missing_resource_in_a_terminal(lab, step):
    lab.ready(before=step)
    (finding,) = lab.check(step).findings
    run_in_a_terminal(finding.repair)
    if step == "pod":
        from labkit.steps.pod import wait_until_running

        wait_until_running(lab)
    assert lab.check(step)


def test_ready_mends_what_a_learner_broke(lab, iam, core):
    lab.ready(before="service_account")
    lab.ready(through="pod")
    deny = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}
    iam.put_role_policy(RoleName="my-role", PolicyName="mine", PolicyDocument=json.dumps(deny))
    iam.attach_role_policy(RoleName="my-role", PolicyArn="arn:aws:iam::aws:policy/AmazonS3FullAccess")
    iam.detach_role_policy(RoleName="my-role", PolicyArn=lab.parameters.policy_arn)
    wrong = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/other", "team": "kept"}
    core.patch_namespaced_service_account("my-service-account", "default", {"metadata": {"annotations": wrong}})
    lab.ready(through="pod")
    assert iam.list_role_policies(RoleName="my-role")["PolicyNames"] == []
    attached = iam.list_attached_role_policies(RoleName="my-role")["AttachedPolicies"]
    assert [policy["PolicyArn"] for policy in attached] == [lab.parameters.policy_arn]
    account = core.read_namespaced_service_account("my-service-account", "default")
    assert account.metadata.annotations == {"eks.amazonaws.com/role-arn": lab.role_arn, "team": "kept"}


def test_ready_detaches_what_notebook_00_left_on_the_node_s_role(lab, iam, capsys):
    role = f"{lab.parameters.cluster}-node-role"

    def attached():
        listed = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        return {policy["PolicyName"] for policy in listed}

    own = attached()
    for policy in (lab.parameters.policy_arn, "arn:aws:iam::aws:policy/AmazonDynamoDBReadOnlyAccess"):
        iam.attach_role_policy(RoleName=role, PolicyArn=policy)
    try:
        lab.ready(before="oidc_provider")
        assert attached() == own | {"AmazonDynamoDBReadOnlyAccess"}
        said = f"AmazonS3ReadOnlyAccess was still attached to the node's role, {role}. It's detached now.\n"
        assert said in capsys.readouterr().out
        lab.ready(before="oidc_provider")
        assert "node's role" not in capsys.readouterr().out
    finally:
        iam.detach_role_policy(RoleName=role, PolicyArn="arn:aws:iam::aws:policy/AmazonDynamoDBReadOnlyAccess")


def test_a_pod_older_than_the_annotation_is_found_and_ready_replaces_it(lab, core):
    lab.ready(before="pod")
    without = {"metadata": {"annotations": {"eks.amazonaws.com/role-arn": None}}}
    core.patch_namespaced_service_account("my-service-account", "default", without)
    core.create_namespaced_pod("default", pod.build(lab.parameters))
    pod.wait_until_running(lab)
    annotated = {"metadata": {"annotations": {"eks.amazonaws.com/role-arn": lab.role_arn}}}
    core.patch_namespaced_service_account("my-service-account", "default", annotated)
    assert ids(lab, "pod") == ["pod-older-than-annotation"]
    lab.ready(through="pod")
    assert lab.check("pod")


def test_an_unknown_image_is_reported_with_a_kubectl_command(lab):
    lab.ready(before="pod")
    with Lab.open(cluster="lab-tests", image="nobody/knows:1") as other, pytest.raises(PodDoesNotRun) as failure:
        other.ready(through="pod")
    assert "ErrImagePull" in str(failure.value)
    assert "kubectl" in failure.value.next
    lab.ready(before="pod")


def test_a_deleted_pod_that_a_finalizer_keeps_is_reported_with_the_patch_that_removes_it(lab, core, monkeypatch):
    held = {"metadata": {"name": "held", "finalizers": ["example.com/stays"]}}
    spec = {"containers": [{"name": "aws", "image": lab.image, "command": documents.SLEEP}]}
    core.create_namespaced_pod("default", held | {"spec": spec})
    monkeypatch.setattr(pod, "RUNNING_WITHIN", 1)
    with pytest.raises(PodDoesNotRun, match=re.escape("The finalizer example.com/stays keeps it.")) as failure:
        pod.delete(lab, "held", "default")
    command, patch = failure.value.next.split(" -p ")
    assert command.endswith("patch pod held -n default --type json")
    steps = json.loads(patch.strip("'"))
    core.patch_namespaced_pod("held", "default", steps)
    core.create_namespaced_pod("default", held | {"spec": spec})
    with pytest.raises(ApiException) as refusal:  # a later pod of this name keeps its finalizer
        core.patch_namespaced_pod("held", "default", steps)
    assert refusal.value.status == 422
    core.delete_namespaced_pod("held", "default")
    core.patch_namespaced_pod("held", "default", {"metadata": {"finalizers": None}})


def test_ready_restores_the_order_in_which_the_notebooks_print_the_trust_policy(lab, iam):
    lab.ready(through="iam_role")
    policy = iam.get_role(RoleName=lab.parameters.role_name)["Role"]["AssumeRolePolicyDocument"]
    wanted, conditions = json.dumps(policy), policy["Statement"][0]["Condition"]["StringEquals"]
    policy["Statement"][0]["Condition"]["StringEquals"] = dict(reversed(conditions.items()))
    iam.update_assume_role_policy(RoleName=lab.parameters.role_name, PolicyDocument=json.dumps(policy))
    lab.ready(through="iam_role")
    present = iam.get_role(RoleName=lab.parameters.role_name)["Role"]["AssumeRolePolicyDocument"]
    assert json.dumps(present) == wanted


def test_ready_never_takes_over_another_runs_role(lab, iam):
    lab.ready(through="iam_role")
    with Lab.open(cluster="lab-tests", service_account="other") as other:
        with pytest.raises(RoleOfAnotherRun, match="role-belongs-to-another-run"):
            other.ready(through="iam_role")
        assert ids(other, "iam_role") == ["role-belongs-to-another-run"]
        other.remove()
    assert lab.check("iam_role")
    assert lab.check("oidc_provider")


def test_ready_refuses_another_runs_role_but_replaces_its_service_account(lab, iam, capsys):
    lab.ready(through="pod")
    refused = pytest.raises(RoleOfAnotherRun, match="role-belongs-to-another-run")
    with Lab.open(cluster="lab-tests", namespace="team-b") as other, refused:
        other.ready(before="oidc_provider")
    assert lab.check("pod")
    with Lab.open(cluster="lab-tests", role_name="another") as other:
        capsys.readouterr()
        other.ready(before="service_account")
        assert capsys.readouterr().out.splitlines()[1:] == [
            f"removed {thing}: it carried another run's tag, but this run needs its name"
            for thing in ("service account default/my-service-account", "pod default/my-pod")
        ]
        other.ready(through="pod")
        assert other.check("credentials")
        other.remove()
    assert lab.check("iam_role")


def test_a_bucket_that_cannot_be_tagged_is_deleted_again(lab):
    s3 = lab.aws.client("s3")
    parameters = lab.parameters.model_copy(update={"bucket": "untaggable"})
    # S3 reserves tag keys that begin with aws:.
    untaggable = SimpleNamespace(aws=lab.aws, parameters=parameters, tags=[{"Key": "aws:mine", "Value": "x"}])
    with pytest.raises(ClientError, match="Tag"):
        bucket.ensure(untaggable)
    assert "untaggable" not in [each["Name"] for each in s3.list_buckets()["Buckets"]]


def test_remove_deletes_everything_with_the_tag_and_names_the_kept_resources(lab, iam, core, capsys):
    lab.ready(through="pod")
    trust = json.dumps(iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"])
    iam.create_role(RoleName="of-the-notebook", AssumeRolePolicyDocument=trust, Tags=lab.tags)
    iam.create_role(RoleName="of-somebody-else", AssumeRolePolicyDocument=trust)
    core.create_namespace({"metadata": {"name": "of-the-notebook", "labels": lab.labels}})
    capsys.readouterr()
    lab.remove()
    lines = capsys.readouterr().out.splitlines()
    assert "removed role my-role" in lines
    assert "removed role of-the-notebook" in lines
    assert "removed namespace of-the-notebook" in lines
    assert "removed pod default/my-pod" in lines
    assert "removed bucket irsa-lab" in lines
    provider = f"OIDC provider {lab.issuer.removeprefix('https://')}"
    trust = (
        "the role of-somebody-else trusts it; once no role outside this run trusts the provider, run: labkit remove "
    )
    (line,) = (line for line in lines if provider in line)
    assert line.startswith(f"left alone {provider}: {trust}") and "-p cluster=lab-tests" in line
    assert iam.get_role(RoleName="of-somebody-else")
    iam.delete_role(RoleName="of-somebody-else")
    lab.remove()
    assert capsys.readouterr().out == f"removed {provider}\n"
    lab.remove()
    assert capsys.readouterr().out == "nothing to remove\n"


def test_an_untagged_provider_stays_while_another_role_trusts_it(lab, iam, capsys):
    lab.ready(through="iam_role")
    untagged = {"OpenIDConnectProviderArn": lab.provider_arn}
    iam.untag_open_id_connect_provider(**untagged, TagKeys=[tag["Key"] for tag in lab.tags])
    trust = json.dumps(iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"])
    iam.create_role(RoleName="of-somebody-else", AssumeRolePolicyDocument=trust)
    lab.remove()
    assert "the role of-somebody-else trusts it" in capsys.readouterr().out
    assert iam.get_open_id_connect_provider(**untagged)
    lab.ready(before="oidc_provider")
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_open_id_connect_provider(**untagged)
    iam.delete_role(RoleName="of-somebody-else")


def test_an_untagged_role_of_the_runs_name_is_removed_with_a_message(lab, iam, capsys):
    lab.ready(before="iam_role")
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]}
    trust["Statement"][0]["Principal"] = {"Service": "ec2.amazonaws.com"}
    iam.create_role(RoleName="my-role", AssumeRolePolicyDocument=json.dumps(trust))
    assert ids(lab, "iam_role") == ["trust-policy-of-a-service", "role-policy-not-attached"]
    assert "  role my-role, which carries no tag\n" in labkit("remove", "-pcluster=lab-tests").stdout
    capsys.readouterr()
    lab.remove()
    told = "removed role my-role: it carries no tag, and its name is exactly the name that this run uses"
    assert told in capsys.readouterr().out


@pytest.fixture
def rival(lab, iam):
    """A function that makes the role of another run by hand, without a tag, and opens that run's lab."""
    given = {"cluster": "lab-tests", "namespace": "team-a", "role_name": "rival"}

    def make(document):
        iam.create_role(RoleName="rival", AssumeRolePolicyDocument=json.dumps(document))
        return Lab.open(**given)

    lab.ready(before="oidc_provider")
    lab.ready(through="oidc_provider")
    yield make
    with suppress(iam.exceptions.NoSuchEntityException):
        iam_role.delete(iam, "rival")
    with Lab.open(**given) as made:
        made.remove()


CART = {"namespace": "shop", "service_account": "cart"}
OF_OTHERS = {
    "another service account": (CART, "", "shop/cart"),
    "another cluster": ({"namespace": "team-a"}, "0", "team-a/my-service-account of another issuer, oidc.eks."),
}


@pytest.mark.parametrize(("given", "end", "named"), OF_OTHERS.values(), ids=OF_OTHERS)
def test_an_untagged_role_that_trusts_only_other_service_accounts_is_refused_and_kept(
    lab, iam, rival, capsys, given, end, named
):
    trust = documents.trust_policy(Parameters.checked(**given), lab.provider_arn + end)
    with rival(trust) as run:
        for ready in ({"before": "oidc_provider"}, {"through": "iam_role"}):
            with pytest.raises(RoleOfAnotherRun, match="the role rival carries no tag of the lab") as refused:
                run.ready(**ready)
            assert f"its trust policy names {named}" in refused.value.what
            assert "not team-a/my-service-account" in refused.value.what
        # No command that would give the others' role to this run.
        assert refused.value.next == "choose another role_name, and run again"
        capsys.readouterr()
        run.remove()
    told = capsys.readouterr().out
    assert f"left alone role rival: it carries no tag of the lab, and its trust policy names {named}" in told
    assert iam.get_role(RoleName="rival")["Role"]["AssumeRolePolicyDocument"] == trust


def test_a_role_of_others_keeps_the_provider_that_it_trusts(lab, iam, rival, capsys):
    provider = {"OpenIDConnectProviderArn": lab.provider_arn}
    iam.untag_open_id_connect_provider(**provider, TagKeys=[tag["Key"] for tag in lab.tags])
    with rival(documents.trust_policy(Parameters.checked(**CART), lab.provider_arn)) as run:
        capsys.readouterr()
        run.remove()
    assert "the role rival trusts it" in capsys.readouterr().out
    assert iam.get_open_id_connect_provider(**provider)


@pytest.mark.parametrize("subjects", [
    "system:serviceaccount:team-a:my-service-account",
    ["system:serviceaccount:shop:cart", "system:serviceaccount:team-a:my-service-account"],
    "system:serviceaccount:team-a:*",
])  # fmt: skip
def test_an_untagged_role_that_trusts_this_service_account_is_taken_over(lab, iam, rival, subjects):
    trust = documents.trust_policy(lab.parameters, lab.provider_arn)
    trust["Statement"][0]["Condition"] = {"StringLike": {f"{lab.issuer.removeprefix('https://')}:sub": subjects}}
    with rival(trust) as run:
        run.ready(through="iam_role")
        assert run.check("iam_role")


def test_the_notebooks_own_role_is_taken_over_even_with_a_mistake_in_its_subject(lab, iam):
    lab.ready(before="iam_role")
    trust = documents.trust_policy(Parameters.checked(service_account="my-servce-account"), lab.provider_arn)
    iam.create_role(RoleName="my-role", AssumeRolePolicyDocument=json.dumps(trust))
    lab.ready(through="iam_role")
    assert lab.check("iam_role")


def test_a_run_works_in_its_own_namespace_and_remove_deletes_it():
    with Lab.open(cluster="lab-tests", namespace="team-a", service_account="reader", role_name="reader") as lab:
        lab.ready(through="pod")
        assert all(lab.check(step) for step in ("service_account", "pod", "credentials"))
        lab.remove()
        assert ids(lab, "service_account") == ["namespace-missing"]


def test_fetch_gets_the_issuers_documents_by_its_real_name_and_no_other_url(lab):
    document = lab.fetch(f"{lab.issuer}/.well-known/openid-configuration")
    assert document["issuer"] == lab.issuer
    assert lab.fetch(document["jwks_uri"])["keys"]
    with pytest.raises(LabError, match="belongs to none of them"):
        lab.fetch("https://example.com/.well-known/openid-configuration")
    with pytest.raises(LabError, match="answers 404"):
        lab.fetch(f"{lab.issuer}0/.well-known/openid-configuration")


def test_needs_suggests_the_right_name_for_a_misspelt_capability(lab):
    lab.needs("clock")
    with pytest.raises(UnknownName, match="Did you mean 'clock'"):
        lab.needs("clocks")


def test_now_is_the_labs_time_or_without_a_clock_the_machines_time(lab):
    with Lab(lab.parameters, replace(lab.connection, clock=None, kubernetes=None)) as without:
        lab.clock.advance(hours=2)
        try:
            before, now, after = without.now(), lab.now(), without.now()
        finally:
            lab.clock.reset()
    ahead = timedelta(hours=2)
    assert before <= now - ahead <= after
    assert before <= datetime.now(UTC)


def test_open_refuses_an_account_id_that_is_not_the_labs():
    refused = "parameter account_id = '210987654321': the account of the target moto is 123456789012"
    with pytest.raises(LabError, match=refused):
        Lab.open(account_id="210987654321")


HOSTILE = {
    "AWS_PROFILE": "does-not-exist",
    "AWS_ENDPOINT_URL_STS": "https://sts.invalid",
    "HTTPS_PROXY": "http://proxy.invalid:3128",
    "HTTP_PROXY": "http://proxy.invalid:3128",
    "NO_PROXY": "nowhere.invalid",
    "KUBECONFIG": "/no/such/kubeconfig",
}
PROGRAM = """
from labkit import Lab
lab = Lab.open(cluster="lab-tests")
lab.ready(through="pod")
assert lab.check("credentials"), lab.check("credentials")
lab.fetch(lab.issuer + "/keys")
"""


def test_the_machines_own_aws_proxy_and_kubeconfig_have_no_effect(lab):
    environment = {**os.environ, **HOSTILE}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_shell_can_parse_every_line_of_a_repair(lab):
    lab.ready(before="oidc_provider")
    for step in ("oidc_provider", "iam_role", "service_account", "pod"):
        for finding in lab.check(step).findings:
            assert all(shlex.split(line) for line in finding.repair.splitlines())
