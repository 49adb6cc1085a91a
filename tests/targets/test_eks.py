"""The target eks on the simulator, reached by the standard `AWS_ENDPOINT_URL`; nothing else is replaced.

The plan, names that are already taken, the run, and the pod.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from kubernetes.client import CoreV1Api
from kubernetes.watch import Watch

import labkit
from labkit import execution, targets
from labkit.errors import NotAllowed
from labkit.execution import execute
from labkit.run_parameters import Parameters
from labkit.steps import pod
from labkit.steps.iam_role import RoleOfAnotherRun
from labkit.steps.ownership import NotThisRuns
from labkit.steps.pod import ImageNotPulled
from labkit.targets.eks import NotConfirmed
from labkit.targets.eks import cluster as eks_cluster
from labkit.targets.eks.account import WrongAccount
from labkit.targets.eks.cluster import NoCluster
from labkit.targets.eks.inventory import BucketOfAnother
from tests.targets.conftest import ACCOUNT, EKS, POLICIES, TRUST, admit, expel

LABKIT = Path(sys.executable).with_name("labkit")


def test_labkit_run_works_on_eks_and_its_notebook_holds_no_secret(terminal, moto, net, state, tmp_path):
    given = [f"-p{name}={value}" for name, value in EKS.items()]
    command = [LABKIT, "run", *given, "-prole_name=reader", "--output", tmp_path / "out.ipynb"]
    done = subprocess.run(command, env=terminal, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "assumed-role/reader/" in done.stdout
    assert "irsa-lab" in done.stdout
    executed = (tmp_path / "out.ipynb").read_text()
    assert "will be made   role reader" in executed
    run = "blue/default/my-service-account/reader"
    tags = moto.aws.client("iam").get_role(RoleName="reader")["Role"]["Tags"]
    assert {"Key": "labkit:run", "Value": run} in tags
    # The run requested only the issuer from the internet.
    assert set(net.requested) <= set(state.issuers)
    # The executed notebook of a run in a real account must not hold its keys or tokens.
    assert state.secret_access_key not in executed
    assert "k8s-aws-v1" not in executed
    with labkit.Lab.open(**EKS, role_name="reader") as lab:
        lab.remove()


def test_the_plan_lists_existing_and_new_resources_and_creates_nothing(refused, moto):
    moto.ready(through="oidc_provider")
    try:
        refusal = refused(confirm="", role_name="reader", namespace="team-a")
    finally:
        moto.remove()
    assert isinstance(refusal, NotConfirmed)
    provider = moto.provider_arn.partition("oidc-provider/")[2]
    assert refusal.what.splitlines()[:9] == [
        f"The plan for the account {ACCOUNT} (user/administrator), region us-east-1:",
        "  exists         cluster blue, 1 node",
        "  exists         bucket irsa-lab, of another run, which keeps it",
        f"  exists         OIDC provider {provider}, of another run, which keeps it",
        "  will be made   role reader, with arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess",
        "  will be made   namespace team-a",
        "  will be made   service account team-a/my-service-account",
        "  will be made   pod team-a/my-pod (amazon/aws-cli:2.31.13)",
        "The run's resources get the tag labkit:run=blue/team-a/my-service-account/reader. "
        "lab.remove() deletes only resources with this tag.",
    ]
    assert "labkit run … --yes" in refusal.next


def test_the_plan_alone_needs_no_confirmation(terminal, inventory):
    before = inventory()
    parameters = Parameters.checked(target="eks", account_id=ACCOUNT)
    assert "will be made   role my-role" in targets.target("eks").plan(parameters)
    assert inventory() == before


def test_connect_needs_no_account_id_and_no_confirmation(terminal, inventory):
    before = inventory()
    connection = targets.connect(Parameters.checked(target="eks"))
    assert connection.account_id == ACCOUNT
    assert inventory() == before
    with pytest.raises(WrongAccount):
        targets.connect(Parameters.checked(target="eks", account_id="222222222222"))


@pytest.mark.parametrize(
    ("account", "said"), [("", "did not name the account"), ("222222222222", "and not to 222222222222")]
)
def test_a_run_on_eks_needs_the_right_account_id(refused, account, said):
    refusal = refused(account_id=account)
    assert isinstance(refusal, WrongAccount)
    assert said in refusal.what
    assert ACCOUNT in refusal.what
    assert account or f"(in a terminal: --account-id {ACCOUNT}, or -p account_id={ACCOUNT})" in refusal.next


@pytest.mark.parametrize("elsewhere", [{"cluster": "green"}, {"region": "eu-west-1"}])
def test_a_missing_cluster_is_reported_and_not_created(refused, elsewhere):
    refusal = refused(**elsewhere)
    assert isinstance(refusal, NoCluster)
    assert "has no EKS cluster" in refusal.what
    assert "aws eks list-clusters" in refusal.next


@pytest.mark.parametrize("tags", [[], [{"Key": "labkit:run", "Value": "blue/other/other/my-role"}]])
def test_another_owners_role_of_the_same_name_stays_unchanged(refused, moto, tags):
    iam = moto.aws.client("iam")
    iam.create_role(RoleName="my-role", AssumeRolePolicyDocument=json.dumps(TRUST), Tags=tags)
    try:
        refusal = refused()
        assert iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"] == TRUST
    finally:
        iam.delete_role(RoleName="my-role")
    assert isinstance(refusal, RoleOfAnotherRun)
    assert "another role_name" in refusal.next


def test_a_service_account_that_somebody_else_made_stays_unchanged(refused, moto):
    core = CoreV1Api(moto.kubernetes)
    core.create_namespaced_service_account("default", {"metadata": {"name": "my-service-account"}})
    try:
        assert isinstance(refused(), NotThisRuns)
    finally:
        core.delete_namespaced_service_account("my-service-account", "default")


def test_a_bucket_that_the_lab_did_not_make_stays_unchanged(refused, moto):
    s3 = moto.aws.client("s3")
    s3.create_bucket(Bucket="somebodys")
    try:
        refusal = refused(bucket="somebodys")
        assert s3.list_objects_v2(Bucket="somebodys")["KeyCount"] == 0
    finally:
        s3.delete_bucket(Bucket="somebodys")
    assert isinstance(refusal, BucketOfAnother)
    theirs = moto.connection.account("222222222222").client("s3")
    theirs.create_bucket(Bucket="of-another-account")
    try:
        assert "another account" in refused(bucket="of-another-account").what
    finally:
        theirs.delete_bucket(Bucket="of-another-account")


@pytest.mark.parametrize(("whose", "scope"), [("aws", "AWS"), (ACCOUNT, "Local")])
def test_a_missing_policy_is_refused_before_anything_is_made(refused, whose, scope):
    refusal = refused(policy_arn=f"arn:aws:iam::{whose}:policy/NoSuchPolicy", role_name="rp")
    assert refusal.what == f"The policy arn:aws:iam::{whose}:policy/NoSuchPolicy for the role does not exist."
    assert f"aws iam list-policies --scope {scope} " in refusal.next


def test_a_policy_of_another_partition_is_refused_with_the_right_arn(refused):
    refusal = refused(policy_arn="arn:aws-cn:iam::aws:policy/AmazonS3ReadOnlyAccess")
    assert "is in the partition aws-cn, but the region us-east-1 is in aws." in refusal.what
    assert 'policy_arn = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"' in refusal.next


def test_a_cluster_without_nodes_is_refused(home, tmp_path, monkeypatch):
    # With --bare, the lab has an API server without nodes.
    environment = {**os.environ, "LABKIT_HOME": str(tmp_path / ".lab")}
    subprocess.run([LABKIT, "up", "--bare"], env=environment, check=True, capture_output=True, timeout=120)
    try:
        state = json.loads((tmp_path / ".lab-bare" / "server.json").read_text())
        monkeypatch.setenv("AWS_ENDPOINT_URL", state["endpoint_url"])
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", state["access_key_id"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", state["secret_access_key"])
        with pytest.raises(NoCluster, match="no node that accepts pods") as refusal:
            labkit.Lab.open(**EKS)
        assert "eksctl create nodegroup --cluster blue" in refusal.value.next
        assert (
            boto3.client("iam", region_name="us-east-1").list_open_id_connect_providers()["OpenIDConnectProviderList"]
            == []
        )
    finally:
        subprocess.run([LABKIT, "down", "--bare"], env=environment, check=True, capture_output=True, timeout=60)


# The pod.


def test_an_image_that_cannot_be_pulled_leaves_no_pod(terminal, moto):
    with labkit.Lab.open(**EKS, image="nobody.example/knows:1") as lab:
        said = r"nobody\.example/knows:1 .* cannot be pulled: .* The pod was removed\."
        with pytest.raises(ImageNotPulled, match=said):
            lab.ready(through="pod")
        assert CoreV1Api(lab.kubernetes).list_namespaced_pod("default").items == []
        lab.remove()


def test_in_auto_mode_a_pod_gets_more_time_because_its_node_has_to_start(terminal, moto, monkeypatch):
    described = eks_cluster.describe

    def in_auto_mode(*of):
        return {**described(*of), "computeConfig": {"enabled": True}}

    monkeypatch.setattr(eks_cluster, "describe", in_auto_mode)
    monkeypatch.setattr(eks_cluster, "node_count", lambda api: 0)
    monkeypatch.setattr(pod, "RUNNING_WITHIN", 1)
    watched, stream = [], Watch.stream

    def watch(*of, timeout_seconds, **given):
        watched.append(timeout_seconds)
        return stream(*of, timeout_seconds=timeout_seconds, **given)

    monkeypatch.setattr(Watch, "stream", watch)
    with labkit.Lab.open(**EKS) as lab:
        lab.ready(through="pod")
        assert watched == [1 + eks_cluster.NODE_WITHIN]
        lab.remove()


def test_the_pod_tries_again_until_sts_knows_the_new_trust_policy(terminal, moto, monkeypatch):
    """IAM's changes reach STS with a delay. Here they do so after the pod's first refusal."""
    answers = []

    def executed(*of):
        done = execute(*of)
        answers.append(done.exit_code)
        if done.exit_code:
            lab.ready(through="iam_role")
        return done

    monkeypatch.setattr(execution, "execute", executed)
    monkeypatch.setattr(pod, "AGAIN_AFTER", 0)
    with labkit.Lab.open(**EKS) as lab:
        lab.ready(through="service_account")
        iam = lab.aws.client("iam")
        iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=json.dumps(TRUST))
        CoreV1Api(lab.kubernetes).create_namespaced_pod("default", pod.build(lab.parameters))
        pod.wait_until_running(lab)
        assert [code == 0 for code in answers] == [False, True]
        lab.remove()


def test_the_check_fails_if_the_role_keeps_refusing_the_pod(terminal, moto, monkeypatch):
    monkeypatch.setattr(pod, "AGAIN_AFTER", 0)
    with labkit.Lab.open(**EKS) as opened:
        lab = labkit.Lab(opened.parameters, replace(opened.connection, propagates_within=1))
        lab.ready(through="service_account")
        lab.aws.client("iam").update_assume_role_policy(RoleName="my-role", PolicyDocument=json.dumps(TRUST))
        CoreV1Api(lab.kubernetes).create_namespaced_pod("default", pod.build(lab.parameters))
        pod.wait_until_running(lab)
        assert not lab.check("credentials")
        lab.remove()


def test_an_unschedulable_pod_is_reported_with_the_schedulers_message(terminal, moto, monkeypatch):
    monkeypatch.setattr(pod, "RUNNING_WITHIN", 2)
    with labkit.Lab.open(**EKS) as lab:
        lab.ready(through="service_account")
        manifest = pod.build(lab.parameters)
        manifest["spec"]["nodeSelector"] = {"kubernetes.io/arch": "none"}
        CoreV1Api(lab.kubernetes).create_namespaced_pod("default", manifest)
        with pytest.raises(pod.PodDoesNotRun, match="Unschedulable: 0/1 nodes are available"):
            pod.wait_until_running(lab)
        lab.remove()


# Other resources of the account, and denials.


def test_a_foreign_bucket_with_unreadable_tags_does_not_stop_a_removal(terminal, moto, capsys):
    s3 = moto.aws.client("s3")
    s3.create_bucket(Bucket="closed")
    closed = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetBucketTagging", "Resource": "arn:aws:s3:::closed"}
    s3.put_bucket_policy(Bucket="closed", Policy=json.dumps({"Version": "2012-10-17", "Statement": [closed]}))
    with labkit.Lab.open(**EKS) as lab:
        lab.ready(through="oidc_provider")
        lab.remove()
        assert "removed bucket irsa-lab" in capsys.readouterr().out
    s3.delete_bucket_policy(Bucket="closed")
    s3.delete_bucket(Bucket="closed")


def test_a_denial_by_aws_in_an_open_lab_is_one_sentence(terminal, moto, operator):
    admit(moto, operator)
    iam = moto.aws.client("iam")
    try:
        with labkit.Lab.open(**EKS) as lab:
            deny = {"Effect": "Deny", "Action": "iam:CreateRole", "Resource": "*"}
            document = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
            iam.put_user_policy(UserName="operator", PolicyName="deny", PolicyDocument=document)
            with pytest.raises(NotAllowed, match=r"AWS does not allow CreateRole: .* explicit deny") as refusal:
                lab.ready(through="pod")
            assert "labkit policy" in refusal.value.next
            lab.remove()
    finally:
        iam.delete_user_policy(UserName="operator", PolicyName="deny")
        expel(moto, operator)


def test_a_denial_by_the_cluster_in_an_open_lab_is_one_sentence(terminal, moto, operator):
    admit(moto, operator)
    try:
        with labkit.Lab.open(**EKS) as lab:
            expel(moto, operator)
            admit(moto, operator, policyArn=f"{POLICIES}AmazonEKSViewPolicy")
            said = "The cluster does not allow this call: serviceaccounts is forbidden"
            with pytest.raises(NotAllowed, match=said) as refusal:
                lab.ready(through="pod")
            assert "labkit policy --kubernetes -p namespace=default" in refusal.value.next
            lab.remove()
    finally:
        expel(moto, operator)
