"""`labkit remove` on eks: what it deletes, what it leaves alone, and what it prints about both."""

import contextlib
import json
import shlex

import pytest

import labkit
from labkit.errors import LabError, NotAllowed
from tests.targets.conftest import ACCOUNT, EKS, TRUST, admit, command, expel


def test_remove_first_lists_then_deletes_only_resources_with_the_runs_tag(terminal, moto, capsys):
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
    tag = "labkit:run=blue/team-b/my-service-account/team-b"
    assert said[0] == f"These resources carry the tag {tag}, and are deleted now:"
    assert said[1:8] == [f"  {thing}" for thing in went]
    last = "namespace team-b"  # reported last: remove waits until it is gone
    assert said[8:] == [f"removed {thing}" for thing in [*(each for each in went if each != last), last]]
    for name in ("untagged", "of-another-run"):
        assert iam.get_role(RoleName=name)
        iam.delete_role(RoleName=name)


def test_remove_keeps_an_untagged_role_with_the_runs_name(terminal, moto, capsys):
    iam = moto.aws.client("iam")
    with labkit.Lab.open(**EKS) as lab:
        iam.create_role(RoleName="my-role", AssumeRolePolicyDocument=json.dumps(TRUST))
        lab.remove()
        assert "left alone role my-role: it carries no tag of the lab" in capsys.readouterr().out
        iam.delete_role(RoleName="my-role")


def test_remove_keeps_the_provider_while_other_roles_trust_it(terminal, moto, inventory, capsys):
    before, iam = inventory(), moto.aws.client("iam")
    first, second = [
        {"namespace": f"team-{one}", "role_name": f"role-{one}", "bucket": f"bucket-of-{one}"} for one in ("a", "b")
    ]
    for given in (first, second):
        with labkit.Lab.open(**EKS, **given) as lab:
            lab.ready(through="service_account")
    # The run that created the provider is removed first. Meanwhile a team has created its own role.
    by_hand = json.dumps(TRUST).replace('"Service": "ec2.amazonaws.com"', f'"Federated": "{moto.provider_arn}"')
    iam.create_role(RoleName="of-a-team", AssumeRolePolicyDocument=by_hand)
    given = [f"-p{name}={value}" for name, value in {**EKS, **first}.items()]
    left = f"left alone OIDC provider {moto.provider_arn.partition('oidc-provider/')[2]}: "
    then = "once no role outside this run trusts the provider, run: "
    assert f"{left}the roles of-a-team, role-b trust it; {then}" in command("remove", *given)
    said = command("remove", *given, "--yes")
    assert "removed role role-a" in said
    assert f"{left}the roles of-a-team, role-b trust it; {then}" in said
    assert iam.get_open_id_connect_provider(OpenIDConnectProviderArn=moto.provider_arn)
    iam.delete_role(RoleName="of-a-team")
    assert f"{left}the role role-b trusts it; {then}" in command("remove", *given)
    # The last run didn't create the provider, so the message names the run that did and the command that removes it.
    last = [f"-p{name}={value}" for name, value in {**EKS, **second}.items()]
    said = command("remove", *last, "--yes")
    run = "blue/team-a/my-service-account/role-a"
    (line,) = [line for line in said.splitlines() if line.startswith(left)]
    assert line.startswith(f"{left}it carries the tag of another run, {run}. To remove that run: labkit remove ")
    assert "removed OIDC provider" in command(*shlex.split(line.partition(": labkit ")[2]), "--yes")
    assert inventory() == before


def test_remove_says_if_another_run_may_still_use_the_bucket(terminal, moto, inventory):
    before = inventory()
    for role in ("role-a", "role-b"):
        with labkit.Lab.open(**EKS, role_name=role, namespace=f"of-{role}") as lab:
            lab.ready(through="iam_role")
    given = [f"-p{name}={value}" for name, value in EKS.items()]
    first, last = [["remove", *given, f"-prole_name={role}", f"-pnamespace=of-{role}"] for role in ("role-a", "role-b")]
    shown = "bucket irsa-lab (the role role-b of another run may still use it)\n"
    assert f"  {shown}" in command(*first)
    assert f"removed {shown}" in command(*first, "--yes")
    # The other run creates the bucket again. Now no third run uses it.
    with labkit.Lab.open(**EKS, role_name="role-b", namespace="of-role-b") as lab:
        lab.ready(through="iam_role")
    assert "removed bucket irsa-lab\n" in command(*last, "--yes")
    assert "removed OIDC provider" in command(*first, "--yes")
    assert inventory() == before


@pytest.fixture
def green(moto):
    """Create the cluster green in the account, and yield a function that deletes it."""
    eks, name = moto.aws.client("eks"), {"name": "green"}
    eks.create_cluster(**name, roleArn=f"arn:aws:iam::{ACCOUNT}:role/eks-cluster-role", resourcesVpcConfig={})
    eks.get_waiter("cluster_active").wait(**name, WaiterConfig={"Delay": 0.2, "MaxAttempts": 150})

    def delete():
        eks.delete_cluster(**name)
        eks.get_waiter("cluster_deleted").wait(**name, WaiterConfig={"Delay": 0.2, "MaxAttempts": 150})

    yield delete
    with contextlib.suppress(eks.exceptions.ResourceNotFoundException):
        delete()


def test_a_removal_deletes_aws_resources_of_a_missing_cluster(terminal, green, inventory):
    before = inventory()
    with labkit.Lab.open(**EKS, cluster="green") as lab:
        lab.ready(through="service_account")
        provider = lab.provider_arn.partition("oidc-provider/")[2]
    green()
    given = ["-ptarget=eks", "-pcluster=green", f"-paccount_id={ACCOUNT}"]
    gone = f"The account {ACCOUNT} has no EKS cluster green in us-east-1. labkit removes only the run's AWS resources."
    assert command("remove", *given).splitlines() == [
        gone,
        "  role my-role",
        f"  OIDC provider {provider}",
        "  bucket irsa-lab",
        "Nothing was deleted. To delete these resources, add --yes.",
    ]
    # The role's trust policy names the cluster's region, so a command with the wrong region deletes nothing.
    elsewhere = command("remove", *given, "-pregion=eu-west-1", "--yes")
    trusts = "The role my-role trusts a cluster in us-east-1, but the region eu-west-1 has no cluster green."
    assert trusts in elsewhere.what
    assert "-p region=us-east-1" in elsewhere.next
    assert "removed role my-role" in command("remove", *given, "--yes")
    assert inventory() == before
    assert command("remove", *given, "--yes").splitlines() == [gone, "nothing to remove"]


def test_remove_names_the_run_that_made_the_provider_after_the_cluster_is_gone(terminal, green, inventory):
    before = inventory()
    for role in ("role-a", "role-b"):
        with labkit.Lab.open(**EKS, cluster="green", role_name=role, namespace=f"of-{role}") as lab:
            lab.ready(through="iam_role")
    green()
    given = ["remove", "-ptarget=eks", "-pcluster=green", f"-paccount_id={ACCOUNT}", "--yes"]
    assert "the role role-b trusts it" in command(*given, "-prole_name=role-a", "-pnamespace=of-role-a")
    said = command(*given, "-prole_name=role-b", "-pnamespace=of-role-b")
    assert "it carries the tag of another run, green/of-role-a/my-service-account/role-a. To remove that run: " in said
    takes = said.partition(": labkit ")[2].splitlines()[0]
    assert "removed OIDC provider" in command(*shlex.split(takes), "--yes")
    assert inventory() == before


def test_remove_fails_for_a_caller_who_may_not_list_roles(terminal, moto, operator):
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


# In a terminal.


def test_labkit_plan_needs_the_account_id_and_creates_nothing(terminal, inventory):
    before = inventory()
    assert "will be made   role my-role" in command("plan", "-ptarget=eks", f"-paccount_id={ACCOUNT}")
    assert "You did not name the account" in command("plan", "-ptarget=eks").what
    assert inventory() == before


def test_labkit_remove_deletes_only_with_yes_and_the_account_id(terminal, moto, inventory):
    before = inventory()
    with labkit.Lab.open(**EKS, bucket="of-a-terminal") as lab:
        lab.ready(through="pod")
    made = inventory()
    given = ["-ptarget=eks", "-pbucket=of-a-terminal"]
    shown = command("remove", *given).splitlines()
    assert "  role my-role" in shown
    assert "  bucket of-a-terminal" in shown
    assert shown[-1] == "Nothing was deleted. To delete these resources, add --yes."
    refused = command("remove", *given, "--yes")
    assert isinstance(refused, LabError)
    assert "did not name the account" in refused.what
    assert inventory() == made
    assert "removed role my-role" in command("remove", *given, f"-paccount_id={ACCOUNT}", "--yes")
    assert inventory() == before
    assert command("remove", *given) == "nothing to remove\n"
