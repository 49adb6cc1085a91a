"""The target eks against the emulator, which the standard `AWS_ENDPOINT_URL` leads to: nothing else is exchanged."""

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from botocore.config import Config
from kubernetes.client import AuthenticationV1Api, CoreV1Api
from kubernetes.watch import Watch
from typer.testing import CliRunner

import labkit
from labkit import account_commands, execution, targets
from labkit.errors import LabError, NotAllowed, UnknownName
from labkit.execution import execute
from labkit.parameters import Parameters
from labkit.steps import pod
from labkit.steps.iam_role import RoleOfAnotherRun
from labkit.steps.pod import ImageNotPulled
from labkit.steps.service_account import NotThisRuns
from labkit.targets import account, eks_access, eks_cluster
from labkit.targets.account import NoCredentials, WrongAccount
from labkit.targets.eks import NotConfirmed
from labkit.targets.eks_access import AllowedTooLittle, NotLetIn
from labkit.targets.eks_cluster import NoCluster
from labkit.targets.eks_plan import BucketOfAnother
from tests.targets.conftest import ACCOUNT

LABKIT = Path(sys.executable).with_name("labkit")
EKS = {"target": "eks", "account_id": ACCOUNT, "confirm": "yes"}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


@pytest.fixture
def refused(terminal, inventory):
    """Opens the lab on eks; the error that it is refused with, where nothing was made."""

    def attempt(**parameters):
        before = inventory()
        with pytest.raises(LabError) as refusal:
            labkit.Lab.open(**{**EKS, **parameters})
        assert inventory() == before
        assert refusal.value.next
        return refusal.value

    return attempt


def test_the_whole_run_in_a_terminal(terminal, moto, net, state, tmp_path):
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
    # Nothing but the issuer was ever asked of the internet.
    assert set(net.asked) <= set(state.issuers)
    # The record of a run in a real account holds nothing that opens it.
    assert state.secret_access_key not in executed
    assert "k8s-aws-v1" not in executed
    with labkit.Lab.open(**EKS, role_name="reader") as lab:
        lab.remove()


def test_the_plan_says_what_exists_and_what_will_be_made_and_makes_nothing(refused, moto):
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
        "  will be made   pod team-a/my-pod (amazon/aws-cli)",
        "All that is made bears the tag labkit:run=blue/team-a/my-service-account/reader, "
        "and lab.remove() deletes by that tag alone.",
    ]
    assert "labkit run … --yes" in refusal.next


def test_the_plan_alone_needs_no_confirmation(terminal, inventory):
    before = inventory()
    parameters = Parameters.checked(target="eks", account_id=ACCOUNT)
    assert "will be made   role my-role" in targets.target("eks").plan(parameters)
    assert inventory() == before


def test_looking_asks_for_no_account_and_no_plan(terminal, inventory):
    before = inventory()
    connection = targets.connect(Parameters.checked(target="eks"))
    assert connection.account_id == ACCOUNT
    assert inventory() == before
    with pytest.raises(WrongAccount):
        targets.connect(Parameters.checked(target="eks", account_id="222222222222"))


@pytest.mark.parametrize(("account", "said"), [("", "is not named"), ("222222222222", "and not to 222222222222")])
def test_the_account_has_to_be_named_and_right(refused, account, said):
    refusal = refused(account_id=account)
    assert isinstance(refusal, WrongAccount)
    assert said in refusal.what
    assert ACCOUNT in refusal.what


@pytest.mark.parametrize("elsewhere", [{"cluster": "green"}, {"region": "eu-west-1"}])
def test_a_cluster_that_is_not_there_is_not_made(refused, elsewhere):
    refusal = refused(**elsewhere)
    assert isinstance(refusal, NoCluster)
    assert "has no EKS cluster" in refusal.what
    assert "aws eks list-clusters" in refusal.next


@pytest.mark.parametrize("tags", [[], [{"Key": "labkit:run", "Value": "blue/other/other/my-role"}]])
def test_a_role_of_that_name_that_somebody_else_made_stays_as_it_is(refused, moto, tags):
    iam = moto.aws.client("iam")
    iam.create_role(RoleName="my-role", AssumeRolePolicyDocument=json.dumps(TRUST), Tags=tags)
    try:
        refusal = refused()
        assert iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"] == TRUST
    finally:
        iam.delete_role(RoleName="my-role")
    assert isinstance(refusal, RoleOfAnotherRun)
    assert "another role_name" in refusal.next


def test_a_service_account_that_somebody_else_made_stays_as_it_is(refused, moto):
    core = CoreV1Api(moto.kubernetes)
    core.create_namespaced_service_account("default", {"metadata": {"name": "my-service-account"}})
    try:
        assert isinstance(refused(), NotThisRuns)
    finally:
        core.delete_namespaced_service_account("my-service-account", "default")


def test_a_bucket_that_the_lab_did_not_make_stays_as_it_is(refused, moto):
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
def test_a_policy_that_is_not_there_is_refused_before_anything_is_made(refused, whose, scope):
    refusal = refused(policy_arn=f"arn:aws:iam::{whose}:policy/NoSuchPolicy", role_name="rp")
    assert refusal.what == f"There is no policy arn:aws:iam::{whose}:policy/NoSuchPolicy for the role."
    assert f"aws iam list-policies --scope {scope} " in refusal.next


def test_a_policy_of_another_partition_is_refused_with_the_right_arn(refused):
    refusal = refused(policy_arn="arn:aws-cn:iam::aws:policy/AmazonS3ReadOnlyAccess")
    assert "is of the partition aws-cn, and the region us-east-1 is of aws." in refusal.what
    assert 'policy_arn = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"' in refusal.next


def test_a_cluster_without_nodes_is_refused(home, tmp_path, monkeypatch):
    # The API server alone: nothing takes its pods.
    environment = {**os.environ, "LABKIT_HOME": str(tmp_path / ".lab")}
    subprocess.run([LABKIT, "up", "--bare"], env=environment, check=True, capture_output=True, timeout=120)
    try:
        state = json.loads((tmp_path / ".lab-bare" / "server.json").read_text())
        monkeypatch.setenv("AWS_ENDPOINT_URL", state["endpoint_url"])
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", state["access_key_id"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", state["secret_access_key"])
        with pytest.raises(NoCluster, match="no node that takes pods") as refusal:
            labkit.Lab.open(**EKS)
        assert "eksctl create nodegroup --cluster blue" in refusal.value.next
        assert (
            boto3.client("iam", region_name="us-east-1").list_open_id_connect_providers()["OpenIDConnectProviderList"]
            == []
        )
    finally:
        subprocess.run([LABKIT, "down", "--bare"], env=environment, check=True, capture_output=True, timeout=60)


# Credentials.


def without_credentials(monkeypatch):
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


def a_profile_that_is_gone(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "gone")


def keys_that_nobody_has(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


def a_profile_with_keys_that_nobody_has(monkeypatch):
    file = Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).with_name("keys-of-nobody")
    file.write_text("[mine]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = none\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "mine")


@pytest.mark.parametrize(
    ("given", "said", "then"),
    [
        (without_credentials, "There are no AWS credentials", "aws configure sso"),
        (a_profile_that_is_gone, "(gone) could not be found", "aws configure list-profiles"),
        (keys_that_nobody_has, "none that AWS knows", "unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY)"),
        (a_profile_with_keys_that_nobody_has, "none that AWS knows", "aws sso login --profile mine "),
    ],
)
def test_what_is_wrong_with_the_credentials_is_a_sentence(refused, monkeypatch, given, said, then):
    given(monkeypatch)
    refusal = refused()
    assert isinstance(refusal, NoCredentials)
    assert said in refusal.what
    assert then in refusal.next


@pytest.mark.parametrize("session", ["", "sso_session = work\n"], ids=["a profile of its own", "a shared session"])
def test_expired_sso_credentials_are_a_sentence(refused, monkeypatch, tmp_path, session):
    where = "sso_start_url = https://example.awsapps.com/start\nsso_region = us-east-1\n"
    account = f"sso_account_id = {ACCOUNT}\nsso_role_name = Reader\nregion = us-east-1\n"
    own = session or where
    config = (
        f"[profile mine]\n{own}{account}\n[sso-session work]\n{where}sso_registration_scopes = sso:account:access\n"
    )
    (tmp_path / "config").write_text(config)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    refusal = refused()
    assert isinstance(refusal, NoCredentials)
    assert "SSO" in refusal.what
    assert refusal.where == "profile mine"
    assert "aws sso login --profile mine " in refusal.next
    # The one that is to sign in is the one that the credentials come from.
    with (tmp_path / "config").open("a") as file:
        file.write(f"[profile chained]\nrole_arn = arn:aws:iam::{ACCOUNT}:role/r\nsource_profile = mine\n")
    monkeypatch.setenv("AWS_PROFILE", "chained")
    assert "aws sso login --profile mine " in refused().next


@pytest.mark.parametrize("process", ["/gone/credentials", "echo nothing", "echo 'no end"])
def test_a_credential_process_that_gives_none_is_a_sentence(terminal, monkeypatch, tmp_path, process):
    (tmp_path / "config").write_text(f"[profile mine]\ncredential_process = {process}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_PROFILE", "mine")
    for asked in ("plan", "remove"):
        refusal = command(asked, "-ptarget=eks", f"-paccount_id={ACCOUNT}")
        assert isinstance(refusal, NoCredentials)
        assert "The credentials cannot be got: " in refusal.what
        assert refusal.where == "credential_process of the profile mine in ~/.aws/config"
        assert refusal.next == "aws configure list, until it shows an access key"
    # The profile that is to be mended is the one that has the process.
    with (tmp_path / "config").open("a") as file:
        file.write(f"[profile chained]\nrole_arn = arn:aws:iam::{ACCOUNT}:role/r\nsource_profile = mine\n")
    monkeypatch.setenv("AWS_PROFILE", "chained")
    refusal = command("plan", "-ptarget=eks", f"-paccount_id={ACCOUNT}")
    assert refusal.where == "credential_process of the profile mine in ~/.aws/config"


def test_a_token_s_file_that_is_not_there_is_named(terminal, monkeypatch, tmp_path):
    gone, role = tmp_path / "gone", f"arn:aws:iam::{ACCOUNT}:role/r"
    (tmp_path / "config").write_text(f"[profile mine]\nrole_arn = {role}\nweb_identity_token_file = {gone}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    for variables, where in (
        ({"AWS_PROFILE": "mine"}, "web_identity_token_file of the profile mine in ~/.aws/config"),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": str(gone), "AWS_ROLE_ARN": role}, "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        refusal = command("plan", "-ptarget=eks", f"-paccount_id={ACCOUNT}")
        assert isinstance(refusal, NoCredentials)
        assert str(gone) in refusal.what
        assert refusal.where == where


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_EKS", "AWS_ENDPOINT_URL_IAM"])
def test_an_endpoint_that_is_no_url_is_a_sentence(terminal, monkeypatch, variable):
    monkeypatch.setenv(variable, "garbage")
    refusal = command("plan", "-ptarget=eks", f"-paccount_id={ACCOUNT}")
    assert refusal.what == "The endpoint is no URL: Invalid endpoint: garbage"
    assert "unset AWS_ENDPOINT_URL" in refusal.next


def test_an_endpoint_of_another_scheme_is_a_sentence(terminal, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "ftp://127.0.0.1")
    refusal = command("plan", "-ptarget=eks", f"-paccount_id={ACCOUNT}")
    assert refusal.what == "The endpoint is no URL: Not supported URL scheme ftp"
    assert "unset AWS_ENDPOINT_URL" in refusal.next


def test_a_ca_bundle_that_is_not_there_is_named(terminal, state, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{next(iter(state.issuers.values()))}")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/gone.pem")
    refusal = command("plan", "-ptarget=eks", f"-paccount_id={ACCOUNT}")
    assert "No such file or directory" in refusal.what
    assert refusal.where == "AWS_CA_BUNDLE = /gone.pem"


def test_an_endpoint_that_keeps_silent_is_a_sentence_before_anybody_gives_up(terminal, monkeypatch):
    # What is waited for at most, and how often, as botocore was told; waiting itself is not tried here.
    assert (account.PATIENT.merge(account.FIRST).read_timeout + 5) * 2 <= 30
    monkeypatch.setattr(account, "FIRST", account.FIRST.merge(Config(read_timeout=1)))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        refusal = command("plan", "-ptarget=eks", f"-paccount_id={ACCOUNT}")
        mute.setblocking(False)
        for _ in range(2):
            mute.accept()
        with pytest.raises(BlockingIOError):
            mute.accept()
    assert "AWS does not answer: Read timeout on endpoint URL" in refusal.what
    assert refusal.next == "aws sts get-caller-identity, until it answers"


def test_credentials_that_expire_while_the_lab_is_open_are_a_sentence_too(terminal, moto, monkeypatch):
    iam = moto.aws.client("iam")
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    arn = iam.create_role(RoleName="person-on-call", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    iam.attach_role_policy(RoleName="person-on-call", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    admit(moto, arn)
    try:
        keys = moto.aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="a-person")["Credentials"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
        monkeypatch.setenv("AWS_SESSION_TOKEN", keys["SessionToken"])
        with labkit.Lab.open(**EKS) as lab:
            assert "(assumed-role/person-on-call)" in lab.connection.note
            assert "a-person" not in lab.connection.note
            moto.clock.advance(hours=2)
            with pytest.raises(NoCredentials, match="have expired: ExpiredToken") as refusal:
                lab.aws.client("iam").list_roles()
            given = "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN"
            assert f"(unset {given})" in refusal.value.next
    finally:
        moto.clock.reset()
        expel(moto, arn)
        iam.detach_role_policy(RoleName="person-on-call", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
        iam.delete_role(RoleName="person-on-call")


# The cluster's API.


def admit(moto, principal_arn, **association):
    eks = moto.aws.client("eks")
    eks.create_access_entry(clusterName="blue", principalArn=principal_arn)
    given = {"policyArn": f"{POLICIES}AmazonEKSClusterAdminPolicy", "accessScope": {"type": "cluster"}, **association}
    eks.associate_access_policy(clusterName="blue", principalArn=principal_arn, **given)


def expel(moto, principal_arn):
    moto.aws.client("eks").delete_access_entry(clusterName="blue", principalArn=principal_arn)


POLICIES = "arn:aws:eks::aws:cluster-access-policy/"


@pytest.fixture
def operator(moto, terminal, monkeypatch):
    """A user of the account, who is in no cluster's access entries, in this terminal."""
    iam = moto.aws.client("iam")
    arn = iam.create_user(UserName="operator")["User"]["Arn"]
    iam.attach_user_policy(UserName="operator", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    key = iam.create_access_key(UserName="operator")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    yield arn
    iam.delete_access_key(UserName="operator", AccessKeyId=key["AccessKeyId"])
    iam.detach_user_policy(UserName="operator", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
    iam.delete_user(UserName="operator")


def test_whom_the_cluster_does_not_know_it_does_not_let_in(refused, operator):
    refusal = refused(namespace="team-n")
    assert isinstance(refusal, NotLetIn)
    assert "does not know user/operator" in refusal.what
    assert "labkit policy --kubernetes -p namespace=team-n | kubectl apply -f -" in refusal.next
    assert f"create-access-entry --cluster-name blue --principal-arn {operator} --region us-east-1" in refusal.next


def test_a_cluster_that_takes_no_access_entries_is_told_of_by_its_config_map(refused, operator, moto):
    eks = moto.aws.client("eks")
    mode = {"authenticationMode": "CONFIG_MAP"}
    eks.create_cluster(
        name="old", roleArn=f"arn:aws:iam::{ACCOUNT}:role/eks-cluster-role", resourcesVpcConfig={}, accessConfig=mode
    )
    try:
        eks.get_waiter("cluster_active").wait(name="old", WaiterConfig={"Delay": 0.2, "MaxAttempts": 150})
        refusal = refused(cluster="old")
    finally:
        eks.delete_cluster(name="old")
    assert "does not know user/operator: no line of aws-auth lets it in" in refusal.what
    mapping = f"--cluster old --region us-east-1 --arn {operator} --group irsa-lab"
    assert f"eksctl create iamidentitymapping {mapping}" in refusal.next
    assert "access-entry" not in refusal.next


def test_who_may_only_look_is_told_what_lacks_before_anything_is_made(refused, operator, moto):
    admit(moto, operator, policyArn=f"{POLICIES}AmazonEKSViewPolicy")
    try:
        refusal = refused()
        assert isinstance(refusal, AllowedTooLittle)
        for lacks in ("create serviceaccounts in default", "create pods in default", "get pods/exec in default"):
            assert lacks in refusal.what
        assert "get pods in default" not in refusal.what
        assert "create namespaces" not in refusal.what
        assert "labkit policy --kubernetes -p namespace=default | kubectl apply -f -" in refusal.next
        entry = f"--cluster-name blue --principal-arn {operator} --region us-east-1"
        assert f"aws eks update-access-entry {entry} --kubernetes-groups irsa-lab" in refusal.next
        assert f"aws eks describe-access-entry {entry}" in refusal.next
        # A namespace that is not there has to be made, too.
        assert "create namespaces, delete namespaces" in refused(namespace="team-n").what
        # Looking, and removing what there is, takes no more than it did.
        assert targets.look(Parameters.checked(target="eks")).account_id == ACCOUNT
        assert command("remove", "-ptarget=eks", f"-paccount_id={ACCOUNT}", "--yes") == "nothing to remove\n"
    finally:
        expel(moto, operator)


def test_whom_the_cluster_allows_too_little_is_told(refused, operator, moto, monkeypatch):
    scope = {"type": "namespace", "namespaces": ["default"]}
    admit(moto, operator, policyArn=f"{POLICIES}AmazonEKSViewPolicy", accessScope=scope)
    try:
        refusal = refused(namespace="team-n")
        described, mode = eks_cluster.describe, {"accessConfig": {"authenticationMode": "CONFIG_MAP"}}
        monkeypatch.setattr(eks_cluster, "describe", lambda *of: {**described(*of), **mode})
        by_config_map = refused()
    finally:
        expel(moto, operator)
    assert "kubectl edit configmap aws-auth -n kube-system" in by_config_map.next
    assert "access-entry" not in by_config_map.next
    assert isinstance(refusal, NotLetIn)
    assert "allows it too little" in refusal.what
    assert "labkit policy --kubernetes -p namespace=team-n | kubectl apply -f -" in refusal.next
    assert f"update-access-entry --cluster-name blue --principal-arn {operator}" in refusal.next


def test_who_may_not_even_look_at_the_cluster_is_told_of_the_policy(refused, operator, moto):
    moto.aws.client("iam").detach_user_policy(
        UserName="operator", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess"
    )
    refusal = refused()
    moto.aws.client("iam").attach_user_policy(
        UserName="operator", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess"
    )
    assert isinstance(refusal, NotAllowed)
    assert "eks:DescribeCluster" in refusal.what
    assert "labkit policy" in refusal.next


def test_kubectl_is_called_with_the_context_that_is_named(terminal, tmp_path):
    arn = f"arn:aws:eks:us-east-1:{ACCOUNT}:cluster/blue"
    mine = tmp_path / "my config"
    mine.write_text('{"contexts": [{"name": "mine", "context": {}}]}')
    for given, kubectl in (
        ({}, f"kubectl --context {arn}"),
        ({"context": "mine"}, "kubectl --context mine"),
        ({"kubeconfig": str(mine), "context": "mine"}, f"kubectl --kubeconfig '{mine}' --context mine"),
    ):
        assert targets.connect(Parameters.checked(target="eks", **given)).kubectl == kubectl


@pytest.mark.parametrize("text", ['{"contexts": [{"name": "mine", "context": {}}]}', "", "a: [", "contexts: 3"])
def test_a_context_that_is_gone_is_a_sentence(refused, tmp_path, text):
    (tmp_path / "config").write_text(text)
    refusal = refused(kubeconfig=str(tmp_path / "config"), context="min")
    assert isinstance(refusal, UnknownName)
    assert "'min' is no context of the kubeconfig" in refusal.what
    assert "aws eks update-kubeconfig --name blue" in refusal.next


@pytest.mark.parametrize(("public", "said"), [(True, "does not answer"), (False, "from inside its VPC alone")])
def test_an_api_server_that_cannot_be_reached_is_a_sentence(terminal, moto, public, said):
    session = boto3.Session()
    cluster = eks_cluster.describe(session, "blue", ACCOUNT)
    cluster |= {"endpoint": "https://127.0.0.1:9", "resourcesVpcConfig": {"endpointPublicAccess": public}}
    caller = SimpleNamespace(principal="user/me", arn="arn")
    with pytest.raises(LabError, match=said) as refusal:
        eks_access.require_access(eks_cluster.api_client(session, cluster), cluster, caller, Parameters())
    assert refusal.value.next


def test_an_api_server_that_keeps_silent_is_a_sentence(terminal, moto, monkeypatch):
    monkeypatch.setattr(targets, "ANSWERS_WITHIN", (1, 1))
    session = boto3.Session()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        cluster = eks_cluster.describe(session, "blue", ACCOUNT)
        cluster["endpoint"] = f"https://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(LabError, match="does not answer"):
            eks_access.require_access(
                eks_cluster.api_client(session, cluster), cluster, SimpleNamespace(), Parameters()
            )


def test_the_token_is_renewed_before_the_cluster_stops_taking_it(terminal, moto, monkeypatch):
    now = 1_000_000.0
    monkeypatch.setattr(eks_cluster, "time", SimpleNamespace(time=lambda: now))
    made = []
    monkeypatch.setattr(eks_cluster, "token", lambda *of, new=eks_cluster.token: made.append(of) or new(*of))
    session = boto3.Session()
    api = eks_cluster.api_client(session, eks_cluster.describe(session, "blue", ACCOUNT))
    assert who(api) == f"arn:aws:iam::{ACCOUNT}:user/administrator"
    assert len(made) == 1
    now += 601
    assert who(api) == f"arn:aws:iam::{ACCOUNT}:user/administrator"
    assert len(made) == 2


def who(api):
    review = AuthenticationV1Api(api).create_self_subject_review({})
    return review.status.user_info.username


# Removing.


def test_removing_shows_first_what_goes_and_takes_what_bears_the_tag_alone(terminal, moto, capsys):
    iam = moto.aws.client("iam")
    iam.create_role(RoleName="untagged", AssumeRolePolicyDocument=json.dumps(TRUST))
    tags = [{"Key": "labkit:run", "Value": "blue/other/other/other"}]
    iam.create_role(RoleName="of-another-run", AssumeRolePolicyDocument=json.dumps(TRUST), Tags=tags)
    with labkit.Lab.open(**EKS, namespace="team-b", role_name="team-b", bucket="team-b") as lab:
        lab.ready(through="pod")
        iam.create_role(RoleName="of-a-notebook", AssumeRolePolicyDocument=json.dumps(TRUST), Tags=lab.tags)
        capsys.readouterr()
        lab.remove()
    provider = moto.provider_arn.partition("oidc-provider/")[2]
    went = [
        "pod team-b/my-pod",
        "service account team-b/my-service-account",
        "namespace team-b",
        "role of-a-notebook",
        "role team-b",
        f"OIDC provider {provider}",
        "bucket team-b",
    ]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "These bear the tag labkit:run=blue/team-b/my-service-account/team-b, and are removed now:"
    assert said[1:8] == [f"  {thing}" for thing in went]
    assert said[8:] == [f"removed {thing}" for thing in went]
    for name in ("untagged", "of-another-run"):
        assert iam.get_role(RoleName=name)
        iam.delete_role(RoleName=name)


def test_what_has_the_run_s_name_and_not_its_tag_stays(terminal, moto, capsys):
    iam = moto.aws.client("iam")
    with labkit.Lab.open(**EKS) as lab:
        iam.create_role(RoleName="my-role", AssumeRolePolicyDocument=json.dumps(TRUST))
        lab.remove()
        assert "left alone role my-role: it bears no tag of the lab" in capsys.readouterr().out
        iam.delete_role(RoleName="my-role")


def test_a_provider_that_other_roles_trust_stays_until_they_are_gone(terminal, moto, inventory, capsys):
    before, iam = inventory(), moto.aws.client("iam")
    first, second = [
        {"namespace": f"team-{one}", "role_name": f"role-{one}", "bucket": f"bucket-of-{one}"} for one in ("a", "b")
    ]
    for given in (first, second):
        with labkit.Lab.open(**EKS, **given) as lab:
            lab.ready(through="service_account")
    # The one that makes the provider goes first; a team's own role came since.
    by_hand = json.dumps(TRUST).replace('"Service": "ec2.amazonaws.com"', f'"Federated": "{moto.provider_arn}"')
    iam.create_role(RoleName="of-a-team", AssumeRolePolicyDocument=by_hand)
    given = [f"-p{name}={value}" for name, value in {**EKS, **first}.items()]
    left = f"left alone OIDC provider {moto.provider_arn.partition('oidc-provider/')[2]}: "
    assert f"{left}the roles of-a-team, role-b trust it; once none does any more: " in command("remove", *given)
    said = command("remove", *given, "--yes")
    assert "removed role role-a" in said
    assert f"{left}the roles of-a-team, role-b trust it; once none does any more: " in said
    assert iam.get_open_id_connect_provider(OpenIDConnectProviderArn=moto.provider_arn)
    iam.delete_role(RoleName="of-a-team")
    assert f"{left}the role role-b trusts it; once none does any more: " in command("remove", *given)
    # What is left says what takes it, whoever was the last.
    last = [f"-p{name}={value}" for name, value in {**EKS, **second}.items()]
    said = command("remove", *last, "--yes")
    run = "blue/team-a/my-service-account/role-a"
    (line,) = [line for line in said.splitlines() if line.startswith(left)]
    assert line.startswith(f"{left}it bears the tag of another run, {run}, and is removed with that: labkit remove ")
    assert "removed OIDC provider" in command(*shlex.split(line.partition(": labkit ")[2]), "--yes")
    assert inventory() == before


def test_a_bucket_that_other_runs_may_use_is_shown_as_such(terminal, moto, inventory):
    before = inventory()
    for role in ("role-a", "role-b"):
        with labkit.Lab.open(**EKS, role_name=role, namespace=f"of-{role}") as lab:
            lab.ready(through="iam_role")
    given = [f"-p{name}={value}" for name, value in EKS.items()]
    first, last = [["remove", *given, f"-prole_name={role}", f"-pnamespace=of-{role}"] for role in ("role-a", "role-b")]
    shown = "bucket irsa-lab, which other runs may still use: the role role-b is there\n"
    assert f"  {shown}" in command(*first)
    assert f"removed {shown}" in command(*first, "--yes")
    # The one that is left needs it again; then nobody else does.
    with labkit.Lab.open(**EKS, role_name="role-b", namespace="of-role-b") as lab:
        lab.ready(through="iam_role")
    assert "removed bucket irsa-lab\n" in command(*last, "--yes")
    assert "removed OIDC provider" in command(*first, "--yes")
    assert inventory() == before


@pytest.fixture
def green(moto):
    """Another cluster of the account; the function deletes it."""
    eks, name = moto.aws.client("eks"), {"name": "green"}
    eks.create_cluster(**name, roleArn=f"arn:aws:iam::{ACCOUNT}:role/eks-cluster-role", resourcesVpcConfig={})
    eks.get_waiter("cluster_active").wait(**name, WaiterConfig={"Delay": 0.2, "MaxAttempts": 150})

    def delete():
        eks.delete_cluster(**name)
        eks.get_waiter("cluster_deleted").wait(**name, WaiterConfig={"Delay": 0.2, "MaxAttempts": 150})

    yield delete
    with contextlib.suppress(eks.exceptions.ResourceNotFoundException):
        delete()


def test_what_a_run_left_in_aws_goes_when_its_cluster_is_gone(terminal, green, inventory):
    before = inventory()
    with labkit.Lab.open(**EKS, cluster="green") as lab:
        lab.ready(through="service_account")
        provider = lab.provider_arn.partition("oidc-provider/")[2]
    green()
    given = ["-ptarget=eks", "-pcluster=green", f"-paccount_id={ACCOUNT}"]
    gone = (
        f"The account {ACCOUNT} has no EKS cluster green in us-east-1. Only what a run left in AWS is there to remove."
    )
    assert command("remove", *given).splitlines() == [
        gone,
        "  role my-role",
        f"  OIDC provider {provider}",
        "  bucket irsa-lab",
        "Nothing was deleted. To delete all that: --yes",
    ]
    # The role tells where its cluster is: it may be this command that is mistaken.
    elsewhere = command("remove", *given, "-pregion=eu-west-1", "--yes")
    assert "The role my-role is for a cluster in us-east-1, and eu-west-1 has none named green." in elsewhere.what
    assert "-p region=us-east-1" in elsewhere.next
    assert "removed role my-role" in command("remove", *given, "--yes")
    assert inventory() == before
    assert command("remove", *given, "--yes").splitlines() == [gone, "nothing to remove"]


def test_a_provider_that_another_run_made_is_told_of_when_the_cluster_is_gone_too(terminal, green, inventory):
    before = inventory()
    for role in ("role-a", "role-b"):
        with labkit.Lab.open(**EKS, cluster="green", role_name=role, namespace=f"of-{role}") as lab:
            lab.ready(through="iam_role")
    green()
    given = ["remove", "-ptarget=eks", "-pcluster=green", f"-paccount_id={ACCOUNT}", "--yes"]
    assert "the role role-b trusts it" in command(*given, "-prole_name=role-a", "-pnamespace=of-role-a")
    said = command(*given, "-prole_name=role-b", "-pnamespace=of-role-b")
    assert "it bears the tag of another run, green/of-role-a/my-service-account/role-a, and is removed with" in said
    takes = said.partition(": labkit ")[2].splitlines()[0]
    assert "removed OIDC provider" in command(*shlex.split(takes), "--yes")
    assert inventory() == before


def test_who_may_not_list_the_roles_cannot_see_what_a_removal_takes(terminal, moto, operator):
    admit(moto, operator)
    iam = moto.aws.client("iam")
    deny = {"Effect": "Deny", "Action": "iam:ListRoles", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    iam.put_user_policy(UserName="operator", PolicyName="deny", PolicyDocument=document)
    try:
        refusal = command("remove", "-ptarget=eks")
    finally:
        iam.delete_user_policy(UserName="operator", PolicyName="deny")
        expel(moto, operator)
    assert isinstance(refusal, NotAllowed)
    assert "AWS does not allow ListRoles" in refusal.what


# The pod.


def test_an_image_that_cannot_be_pulled_leaves_no_pod(terminal, moto):
    with labkit.Lab.open(**EKS, image="nobody.example/knows:1") as lab:
        with pytest.raises(ImageNotPulled, match=r"nobody\.example/knows:1 .* cannot be pulled, and it was removed"):
            lab.ready(through="pod")
        assert CoreV1Api(lab.kubernetes).list_namespaced_pod("default").items == []
        lab.remove()


def test_a_cluster_that_makes_its_nodes_is_given_the_time(terminal, moto, monkeypatch):
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


def test_a_role_that_iam_does_not_know_yet_is_waited_for(terminal, moto, monkeypatch):
    """IAM tells its changes to STS after a while: here, when the pod has been refused once."""
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


def test_a_role_that_never_lets_the_pod_in_is_not_waited_for_longer(terminal, moto, monkeypatch):
    monkeypatch.setattr(pod, "AGAIN_AFTER", 0)
    with labkit.Lab.open(**EKS) as opened:
        lab = labkit.Lab(opened.parameters, replace(opened.connection, propagates_within=1))
        lab.ready(through="service_account")
        lab.aws.client("iam").update_assume_role_policy(RoleName="my-role", PolicyDocument=json.dumps(TRUST))
        CoreV1Api(lab.kubernetes).create_namespaced_pod("default", pod.build(lab.parameters))
        pod.wait_until_running(lab)
        assert not lab.check("credentials")
        lab.remove()


def test_a_pod_that_no_node_takes_is_told_in_the_scheduler_s_words(terminal, moto, monkeypatch):
    monkeypatch.setattr(pod, "RUNNING_WITHIN", 2)
    with labkit.Lab.open(**EKS) as lab:
        lab.ready(through="service_account")
        manifest = pod.build(lab.parameters)
        manifest["spec"]["nodeSelector"] = {"kubernetes.io/arch": "none"}
        CoreV1Api(lab.kubernetes).create_namespaced_pod("default", manifest)
        with pytest.raises(pod.PodDoesNotRun, match="Unschedulable: 0/1 nodes are available"):
            pod.wait_until_running(lab)
        lab.remove()


# In a terminal.


def command(*words):
    done = CliRunner().invoke(account_commands.app, [*words])
    return done.stdout if done.exit_code == 0 else done.exception


def test_the_plan_in_a_terminal(terminal, inventory):
    before = inventory()
    assert "will be made   role my-role" in command("plan", "-ptarget=eks", f"-paccount_id={ACCOUNT}")
    assert "is not named" in command("plan", "-ptarget=eks").what
    assert inventory() == before


def test_a_removal_in_a_terminal_is_shown_and_waits_for_its_yes(terminal, moto, inventory):
    before = inventory()
    with labkit.Lab.open(**EKS, bucket="of-a-terminal") as lab:
        lab.ready(through="pod")
    made = inventory()
    given = ["-ptarget=eks", "-pbucket=of-a-terminal"]
    shown = command("remove", *given).splitlines()
    assert "  role my-role" in shown
    assert "  bucket of-a-terminal" in shown
    assert shown[-1] == "Nothing was deleted. To delete all that: --yes"
    refused = command("remove", *given, "--yes")
    assert isinstance(refused, LabError)
    assert "account is not named" in refused.what
    assert inventory() == made
    assert "removed role my-role" in command("remove", *given, f"-paccount_id={ACCOUNT}", "--yes")
    assert inventory() == before
    assert command("remove", *given) == "nothing to remove\n"


# What the account has beside the lab's.


def test_a_bucket_that_is_closed_to_its_own_account_is_nobody_s_business(terminal, moto, capsys):
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


def test_what_aws_denies_while_the_lab_is_open_is_a_sentence(terminal, moto, operator):
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


def test_what_the_cluster_denies_while_the_lab_is_open_is_a_sentence(terminal, moto, operator):
    admit(moto, operator)
    try:
        with labkit.Lab.open(**EKS) as lab:
            expel(moto, operator)
            admit(moto, operator, policyArn=f"{POLICIES}AmazonEKSViewPolicy")
            with pytest.raises(NotAllowed, match="The cluster does not allow it: serviceaccounts is forbidden"):
                lab.ready(through="pod")
            lab.remove()
    finally:
        expel(moto, operator)
