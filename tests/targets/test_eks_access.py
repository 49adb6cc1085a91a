"""Errors on the way to an EKS account and its cluster: wrong credentials, permissions and endpoints."""

import json
import os
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from botocore.config import Config
from kubernetes.client import AuthenticationV1Api

import labkit
from labkit import connection, targets
from labkit.errors import LabError, NotAllowed, UnknownName
from labkit.run_parameters import Parameters
from labkit.targets.eks import access as eks_access
from labkit.targets.eks import account
from labkit.targets.eks import cluster as eks_cluster
from labkit.targets.eks.access import AllowedTooLittle, NotLetIn
from labkit.targets.eks.account import NoCredentials
from tests.targets.conftest import ACCOUNT, EKS, POLICIES, admit, command, expel

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


@pytest.mark.parametrize(("given", "said", "then"), [
    (without_credentials, "There are no AWS credentials", "aws configure sso"),
    (a_profile_that_is_gone, "(gone) could not be found", "aws configure list-profiles"),
    (keys_that_nobody_has, "not known to AWS", "unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY)"),
    (a_profile_with_keys_that_nobody_has, "not known to AWS", "To log in: aws sso login --profile mine\n"),
])  # fmt: skip
def test_wrong_credentials_are_reported_with_the_command_that_fixes_them(refused, monkeypatch, given, said, then):
    given(monkeypatch)
    refusal = refused()
    assert isinstance(refusal, NoCredentials)
    assert said in refusal.what
    assert then in f"{refusal.next}\n"


@pytest.mark.parametrize("session", ["", "sso_session = work\n"], ids=["a profile of its own", "a shared session"])
def test_expired_sso_credentials_are_reported_with_the_login_command(refused, monkeypatch, tmp_path, session):
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
    assert refusal.next.endswith("To log in: aws sso login --profile mine")
    # With source_profile, the user has to log in with that profile.
    with (tmp_path / "config").open("a") as file:
        file.write(f"[profile chained]\nrole_arn = arn:aws:iam::{ACCOUNT}:role/r\nsource_profile = mine\n")
    monkeypatch.setenv("AWS_PROFILE", "chained")
    assert refused().next.endswith("To log in: aws sso login --profile mine")


@pytest.mark.parametrize("process", ["/gone/credentials", "echo nothing", "echo 'no end"])
def test_a_failing_credential_process_is_reported_with_its_profile(terminal, monkeypatch, tmp_path, process):
    (tmp_path / "config").write_text(f"[profile mine]\ncredential_process = {process}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_PROFILE", "mine")
    for name in ("plan", "remove"):
        refusal = command(name, "-ptarget=eks", f"-paccount_id={ACCOUNT}")
        assert isinstance(refusal, NoCredentials)
        assert "The credentials could not be loaded: " in refusal.what
        assert refusal.where == "credential_process of the profile mine in ~/.aws/config"
        assert refusal.next == "aws configure list   (once the credentials are right, it shows an access key)"
    # With source_profile, the error names the profile that has the credential_process.
    with (tmp_path / "config").open("a") as file:
        file.write(f"[profile chained]\nrole_arn = arn:aws:iam::{ACCOUNT}:role/r\nsource_profile = mine\n")
    monkeypatch.setenv("AWS_PROFILE", "chained")
    refusal = command("plan", "-ptarget=eks", f"-paccount_id={ACCOUNT}")
    assert refusal.where == "credential_process of the profile mine in ~/.aws/config"


def test_a_missing_token_file_is_named(terminal, monkeypatch, tmp_path):
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
def test_an_endpoint_that_is_not_a_url_is_reported(terminal, monkeypatch, variable):
    monkeypatch.setenv(variable, "garbage")
    refusal = command("plan", "-ptarget=eks", f"-paccount_id={ACCOUNT}")
    assert refusal.what == "The endpoint is not a URL: Invalid endpoint: garbage"
    assert "unset AWS_ENDPOINT_URL" in refusal.next


def test_an_endpoint_with_an_unsupported_scheme_is_reported(terminal, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "ftp://127.0.0.1")
    refusal = command("plan", "-ptarget=eks", f"-paccount_id={ACCOUNT}")
    assert refusal.what == "The endpoint is not a URL: Not supported URL scheme ftp"
    assert "unset AWS_ENDPOINT_URL" in refusal.next


def test_a_missing_ca_bundle_is_named(terminal, state, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{next(iter(state.issuers.values()))}")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/gone.pem")
    refusal = command("plan", "-ptarget=eks", f"-paccount_id={ACCOUNT}")
    assert "No such file or directory" in refusal.what
    assert refusal.where == "AWS_CA_BUNDLE = /gone.pem"


def test_an_aws_endpoint_that_never_answers_is_reported_after_two_tries(terminal, monkeypatch):
    # As configured, two tries take at most 30 s. The test itself doesn't wait that long.
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
    assert refusal.next == "correct the cause; then this command answers:  aws sts get-caller-identity"


def test_credentials_that_expire_while_the_lab_is_open_are_reported(terminal, moto, monkeypatch):
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
            assert refusal.value.next.endswith(f"(or, to use a profile instead, first: unset {given})")
    finally:
        moto.clock.reset()
        expel(moto, arn)
        iam.detach_role_policy(RoleName="person-on-call", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
        iam.delete_role(RoleName="person-on-call")


# The cluster's API.


def test_a_caller_unknown_to_the_cluster_gets_the_commands_that_admit_it(refused, operator):
    refusal = refused(namespace="team-n")
    assert isinstance(refusal, NotLetIn)
    assert "does not know user/operator" in refusal.what
    assert "labkit policy --kubernetes -p namespace=team-n | kubectl apply -f -" in refusal.next
    assert f"create-access-entry --cluster-name blue --principal-arn {operator} --region us-east-1" in refusal.next


def test_in_config_map_mode_an_unknown_caller_gets_the_eksctl_command(refused, operator, moto):
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
    assert "does not know user/operator: no line of aws-auth names this caller" in refusal.what
    mapping = f"--cluster old --region us-east-1 --arn {operator} --group irsa-lab"
    assert f"eksctl create iamidentitymapping {mapping}" in refusal.next
    assert "access-entry" not in refusal.next


def test_a_read_only_caller_learns_the_missing_permissions_before_anything_is_made(refused, operator, moto):
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
        # Pasted unchanged, the line must not replace the entry's groups: a shell rejects the placeholder.
        (update,) = (line for line in refusal.next.splitlines() if "update-access-entry" in line)
        pasted = ["sh", "-n", "-c", update[update.index("aws eks") :]]
        assert subprocess.run(pasted, capture_output=True, check=False).returncode != 0
        # The run also has to create a missing namespace.
        assert "create namespaces, delete namespaces" in refused(namespace="team-n").what
        # The missing permissions don't stop the caller from looking and removing.
        assert targets.look(Parameters.checked(target="eks")).account_id == ACCOUNT
        assert command("remove", "-ptarget=eks", f"-paccount_id={ACCOUNT}", "--yes") == "nothing to remove\n"
    finally:
        expel(moto, operator)


def test_a_caller_limited_to_another_namespace_gets_the_commands_for_this_one(refused, operator, moto, monkeypatch):
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
    assert "doesn't allow a run" in refusal.what
    assert "labkit policy --kubernetes -p namespace=team-n | kubectl apply -f -" in refusal.next
    assert f"update-access-entry --cluster-name blue --principal-arn {operator}" in refusal.next


def test_a_caller_who_may_not_describe_the_cluster_is_sent_to_labkit_policy(refused, operator, moto):
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


def test_the_kubectl_command_names_the_given_kubeconfig_and_context(terminal, tmp_path):
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
def test_a_missing_context_is_reported_with_the_update_kubeconfig_command(refused, tmp_path, text):
    (tmp_path / "config").write_text(text)
    refusal = refused(kubeconfig=str(tmp_path / "config"), context="min")
    assert isinstance(refusal, UnknownName)
    assert "'min' is not a context of the kubeconfig" in refusal.what
    assert "aws eks update-kubeconfig --name blue" in refusal.next


@pytest.mark.parametrize(("public", "said"), [(True, "does not answer"), (False, "only from inside its VPC")])
def test_an_unreachable_api_server_is_reported(terminal, moto, public, said):
    session = boto3.Session()
    cluster = eks_cluster.describe(session, "blue", ACCOUNT)
    cluster |= {"endpoint": "https://127.0.0.1:9", "resourcesVpcConfig": {"endpointPublicAccess": public}}
    caller = SimpleNamespace(principal="user/me", arn="arn")
    with pytest.raises(LabError, match=said) as refusal:
        eks_access.require_access(eks_cluster.api_client(session, cluster), cluster, caller, Parameters())
    assert refusal.value.next


def test_an_api_server_that_never_answers_is_reported(terminal, moto, monkeypatch):
    monkeypatch.setattr(connection, "ANSWERS_WITHIN", (1, 1))
    session = boto3.Session()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        cluster = eks_cluster.describe(session, "blue", ACCOUNT)
        cluster["endpoint"] = f"https://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(LabError, match="does not answer"):
            eks_access.require_access(
                eks_cluster.api_client(session, cluster), cluster, SimpleNamespace(), Parameters()
            )


def test_the_cluster_token_is_renewed_before_it_expires(terminal, moto, monkeypatch):
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
