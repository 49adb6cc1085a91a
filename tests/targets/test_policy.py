"""`labkit policy`: with it, `irsa.ipynb` runs and can be removed; without any one of its permissions, a step fails."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError
from kubernetes.client import CoreV1Api, RbacAuthorizationV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.utils import create_from_dict
from typer.testing import CliRunner

import labkit
from labkit import steps
from labkit.cli import account as account_commands
from labkit.errors import LabError
from labkit.run_parameters import Parameters
from labkit.runs import Run
from labkit.targets.eks import access as eks_access
from labkit.targets.eks import operator_policy
from labkit.targets.eks.access import NotLetIn
from tests.notebooks.books import FOLDER
from tests.targets.conftest import ACCOUNT

GIVEN = {
    "target": "eks",
    "account_id": ACCOUNT,
    "confirm": "yes",
    "namespace": "team-p",
    "role_name": "of-the-operator",
    "bucket": "of-the-operator",
}
POLICY = operator_policy.build(Parameters.checked(**GIVEN), ACCOUNT)
SIDS = [statement["Sid"] for statement in POLICY["Statement"]]
ACTIONS = [(statement["Sid"], action) for statement in POLICY["Statement"] for action in statement["Action"]]
MANIFESTS = operator_policy.in_the_cluster(Parameters.checked(**GIVEN))
# One rule for each verb and resource, so that a test can leave out exactly one.
RULES = {
    manifest["kind"]: [
        rule | {"verbs": [verb], "resources": [resource]}
        for rule in manifest["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]
    for manifest in MANIFESTS
    if "rules" in manifest
}
VERBS = {
    f"{kind}-{rule['verbs'][0]}-{rule['resources'][0]}": (kind, rule) for kind, rules in RULES.items() for rule in rules
}
# AWS denies a HEAD request without a message: the second text is botocore's, the third one labkit's.
DENIED = ("is not authorized to perform", "Forbidden", "you lack the permission to read it")


class Operator:
    """A user of the account, and of the cluster, whose permissions in both can be changed."""

    def __init__(self, moto: labkit.Lab):
        self.iam, self.eks, self.cluster = moto.aws.client("iam"), moto.aws.client("eks"), moto.kubernetes
        arn = self.iam.create_user(UserName="operator")["User"]["Arn"]
        self.key = self.iam.create_access_key(UserName="operator")["AccessKey"]
        self.entry = {"clusterName": "blue", "principalArn": arn}
        self.eks.create_access_entry(**self.entry, kubernetesGroups=[operator_policy.GROUP])
        for manifest in MANIFESTS:
            create_from_dict(self.cluster, manifest)

    def may(self, policy: dict[str, Any]) -> None:
        self.may_nothing()
        made = self.iam.create_policy(PolicyName="operators", PolicyDocument=json.dumps(policy))
        self.iam.attach_user_policy(UserName="operator", PolicyArn=made["Policy"]["Arn"])

    def may_nothing(self) -> None:
        for attached in self.iam.list_attached_user_policies(UserName="operator")["AttachedPolicies"]:
            self.iam.detach_user_policy(UserName="operator", PolicyArn=attached["PolicyArn"])
            self.iam.delete_policy(PolicyArn=attached["PolicyArn"])

    def may_in_the_cluster(self, kind: str, rules: list[dict[str, Any]]) -> None:
        rbac = RbacAuthorizationV1Api(self.cluster)
        if kind == "Role":
            rbac.patch_namespaced_role(operator_policy.GROUP, GIVEN["namespace"], {"rules": rules})
        else:
            rbac.patch_cluster_role(operator_policy.GROUP, {"rules": rules})

    def close(self) -> None:
        self.may_nothing()
        rbac, core = RbacAuthorizationV1Api(self.cluster), CoreV1Api(self.cluster)
        rbac.delete_cluster_role_binding(operator_policy.GROUP)
        rbac.delete_cluster_role(operator_policy.GROUP)
        core.delete_namespace(GIVEN["namespace"])
        self.eks.delete_access_entry(**self.entry)
        self.iam.delete_access_key(UserName="operator", AccessKeyId=self.key["AccessKeyId"])
        self.iam.delete_user(UserName="operator")


@pytest.fixture
def operator(moto, terminal, monkeypatch):
    """The user who runs the lab in this terminal. Afterwards the user and the run's resources are deleted."""
    someone = Operator(moto)
    someone.may(POLICY)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", someone.key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", someone.key["SecretAccessKey"])
    yield someone
    someone.close()
    values = {name: GIVEN[name] for name in ("namespace", "role_name", "bucket")}
    labkit.Lab(Parameters.checked(**values), moto.connection).remove()


def run_and_clean_up(tmp_path) -> Run:
    """Run the whole notebook twice, then remove its resources."""
    for _ in range(2):
        done = labkit.run(FOLDER / "irsa.ipynb", tmp_path / "out.ipynb", GIVEN)
    with labkit.Lab.open(**GIVEN) as lab:
        lab.remove()
    return done


def test_the_policy_is_enough_to_run_irsa_ipynb_twice_and_remove_it(operator, moto, inventory, tmp_path):
    before = inventory()
    done = run_and_clean_up(tmp_path)
    assert done.ok
    assert "assumed-role/of-the-operator/" in done.answers[0]["answer"]
    assert "of-the-operator" in done.answers[1]["answer"]
    assert inventory() == before


def take_the_steps() -> None:
    """Do the notebook's steps, and remove their resources, without a kernel."""
    with labkit.Lab.open(**GIVEN) as lab:
        lab.ready(before="oidc_provider")
        lab.ready(through="pod")
        for step in steps.ORDER:
            assert lab.check(step)
        lab.ready(before="oidc_provider")
        lab.remove()


def test_the_policy_is_enough_for_the_steps_without_a_notebook(operator):
    take_the_steps()


@pytest.mark.parametrize("sid", SIDS)
def test_a_step_fails_if_any_one_statement_is_left_out_of_the_policy(operator, sid):
    operator.may(POLICY | {"Statement": [one for one in POLICY["Statement"] if one["Sid"] != sid]})
    with pytest.raises((LabError, ClientError)) as failure:
        take_the_steps()
    assert any(each in str(failure.value) for each in DENIED)


@pytest.mark.parametrize(("sid", "action"), ACTIONS, ids=[f"{sid}-{action}" for sid, action in ACTIONS])
def test_a_step_fails_if_any_one_action_is_left_out_of_the_policy(operator, sid, action):
    less = copy.deepcopy(POLICY)
    statement = next(one for one in less["Statement"] if one["Sid"] == sid)
    statement["Action"].remove(action)
    operator.may(less | {"Statement": [one for one in less["Statement"] if one["Action"]]})
    with pytest.raises((LabError, ClientError)) as failure:
        take_the_steps()
    assert any(each in str(failure.value) for each in DENIED)


@pytest.mark.parametrize(("kind", "rule"), VERBS.values(), ids=VERBS)
def test_a_run_is_refused_if_any_one_cluster_permission_is_missing(operator, inventory, monkeypatch, kind, rule):
    operator.may_in_the_cluster(kind, [one for one in RULES[kind] if one != rule])
    if rule["resources"] == ["nodes"]:
        assert "node" not in labkit.targets.target("eks").plan(Parameters.checked(**GIVEN))
        return
    before = inventory()
    with pytest.raises(NotLetIn) as refusal:
        labkit.Lab.open(**GIVEN)
    assert inventory() == before
    # Without the permission to list namespaces, the error is another one.
    if rule["resources"] != ["namespaces"] or rule["verbs"] != ["list"]:
        assert f"permissions are missing: {rule['verbs'][0]} {rule['resources'][0]}" in refusal.value.what
    # A step really needs the permission: without the check, it fails.
    monkeypatch.setattr(eks_access, "require_rights", lambda *of: None)
    with pytest.raises((LabError, ApiException)) as failure:
        take_the_steps()
    assert "forbidden" in str(failure.value).lower()


def test_the_policy_denies_changes_to_others_roles_and_administrator_access(operator, moto):
    iam = labkit.targets.connect(Parameters.checked(**GIVEN)).aws.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    tags = Parameters.checked(**GIVEN).tags
    theirs = moto.aws.client("iam")
    theirs.create_role(RoleName=GIVEN["role_name"], AssumeRolePolicyDocument=document)
    for refused in (
        lambda: iam.delete_role(RoleName=GIVEN["role_name"]),
        lambda: iam.create_role(RoleName="another", AssumeRolePolicyDocument=document, Tags=tags),
        lambda: iam.create_role(RoleName=GIVEN["role_name"], AssumeRolePolicyDocument=document),
        lambda: iam.tag_role(RoleName=GIVEN["role_name"], Tags=[{"Key": "labkit:run", "Value": "mine"}]),
    ):
        with pytest.raises(ClientError, match="is not authorized to perform"):
            refused()
    theirs.tag_role(RoleName=GIVEN["role_name"], Tags=tags)
    with pytest.raises(ClientError, match="is not authorized to perform: iam:AttachRolePolicy"):
        iam.attach_role_policy(RoleName=GIVEN["role_name"], PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")


def test_labkit_policy_prints_a_document_that_iam_accepts(moto, terminal):
    given = ["-paccount_id=123456789012", "-prole_name=reader", "-pregion=cn-north-1"]
    refused = CliRunner().invoke(account_commands.app, ["policy", *given])
    assert "is in the partition aws, but the region cn-north-1 is in aws-cn." in str(refused.exception)
    in_china = "arn:aws-cn:iam::aws:policy/AmazonS3ReadOnlyAccess"
    assert f'policy_arn = "{in_china}"' in refused.exception.next
    done = CliRunner().invoke(account_commands.app, ["policy", *given, f"-ppolicy_arn={in_china}"])
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["Statement"][0]["Resource"] == "arn:aws-cn:eks:cn-north-1:123456789012:cluster/blue"
    provider = next(one for one in document["Statement"] if one["Sid"] == "ReadTheProvider")["Resource"]
    issuers = "arn:aws-cn:iam::123456789012:oidc-provider/oidc.eks.cn-north-1.amazonaws.com.cn"
    assert provider == [issuers, f"{issuers}/*"]
    assert "create-access-entry --cluster-name blue" in done.stderr
    iam = moto.aws.client("iam")
    made = iam.create_policy(PolicyName="operators", PolicyDocument=done.stdout)["Policy"]
    iam.delete_policy(PolicyArn=made["Arn"])


def test_the_commands_that_labkit_policy_prints_attach_the_policy_to_a_user(moto, terminal, tmp_path):
    given = [f"-paccount_id={ACCOUNT}", "-prole_name=reader"]
    printed = CliRunner().invoke(account_commands.app, ["policy", *given]).stderr.splitlines()
    lines = [line.strip() for line in printed if line.startswith(("  labkit policy -p", "  aws iam"))]
    assert [line.split()[:3] for line in lines] == [
        ["labkit", "policy", "-p"],
        ["aws", "iam", "create-policy"],
        ["aws", "iam", "attach-user-policy"],
    ]
    iam = moto.aws.client("iam")
    iam.create_user(UserName="sam")
    path = f"{Path(sys.executable).parent}:{terminal['PATH']}"
    script = "set -e\n" + "\n".join(lines).replace("NAME", "sam")
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=terminal | {"PATH": path}, check=True, timeout=120)
    (attached,) = iam.list_attached_user_policies(UserName="sam")["AttachedPolicies"]
    version = iam.get_policy_version(PolicyArn=attached["PolicyArn"], VersionId="v1")["PolicyVersion"]
    assert version["Document"] == operator_policy.build(Parameters.checked(role_name="reader"), ACCOUNT)
    iam.detach_user_policy(UserName="sam", PolicyArn=attached["PolicyArn"])
    iam.delete_policy(PolicyArn=attached["PolicyArn"])
    iam.delete_user(UserName="sam")


def test_labkit_policy_prints_the_manifests_and_no_namespace_for_default(moto, terminal):
    done = CliRunner().invoke(account_commands.app, ["policy", "--kubernetes", "-pnamespace=team-p"])
    assert done.exit_code == 0
    assert [*yaml.safe_load_all(done.stdout)] == MANIFESTS
    default = CliRunner().invoke(account_commands.app, ["policy", "--kubernetes"])
    assert "Namespace" not in [manifest["kind"] for manifest in yaml.safe_load_all(default.stdout)]


def test_labkit_policy_and_its_help_say_which_notebooks_need_more():
    said = " ".join(CliRunner().invoke(account_commands.app, ["policy", "--help"]).stdout.split())
    assert "Some notebooks need more permissions. Notebook 02 requests tokens" in said
    for options in ([f"-paccount_id={ACCOUNT}"], ["--kubernetes"]):
        done = CliRunner().invoke(account_commands.app, ["policy", *options])
        lines = [" ".join(line.split()) for line in done.stderr.splitlines()[-3:]]
        assert lines[0].endswith("Other notebooks need more, for example")
        assert lines[1] == "02 iam:UpdateAssumeRolePolicy, and in the cluster: create serviceaccounts/token"
        assert lines[2].startswith("07 iam:CreateRole and iam:PutRolePolicy for roles with other names")
        assert "need more" not in done.stdout


def test_labkit_policy_needs_the_account_id():
    done = CliRunner().invoke(account_commands.app, ["policy"])
    assert isinstance(done.exception, LabError)
    assert "-p account_id=" in done.exception.next
