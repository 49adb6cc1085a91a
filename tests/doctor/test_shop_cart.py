"""`labkit doctor -n shop -s cart` in a lab: the doctor compares whole ARNs, and guesses no name and no role."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kubernetes.client import CoreV1Api

from labkit import steps
from labkit.doctor.findings import credentials
from labkit.run_parameters import Parameters
from tests.commands import labkit as labkit_command
from tests.doctor.repairing import commands

ACCOUNT = "123456789012"
POLICY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
KEY = "eks.amazonaws.com/role-arn"
EKSCTL = "alpha.eksctl.io/iamserviceaccount-name"
PROGRAMS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


class Shop:
    """The namespace shop, with a service account cart, whose roles and annotation the tests choose."""

    def __init__(self, lab):
        self.lab = lab
        self.iam, self.core = lab.aws.client("iam"), CoreV1Api(lab.kubernetes)
        self.roles = []

    def add_role(self, name, *, account="cart", path="/", tags=(), change=lambda statement: None):
        """Make a role that trusts a service account of the namespace; return its ARN."""
        parameters = Parameters.checked(namespace="shop", service_account=account)
        trust = steps.step("iam_role").build(parameters, self.lab.provider_arn)
        change(trust["Statement"][0])
        made = self.iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=json.dumps(trust), Tags=[*tags])
        self.iam.attach_role_policy(RoleName=name, PolicyArn=POLICY)
        self.roles.append(name)
        return made["Role"]["Arn"]

    def add_account(self, arn="", name="cart"):
        metadata = {"name": name, "annotations": {KEY: arn} if arn else {}}
        self.core.create_namespaced_service_account("shop", {"metadata": metadata})

    def add_pod(self):
        container = {"name": "aws", "image": "amazon/aws-cli", "command": ["sleep", "infinity"]}
        spec = {"serviceAccountName": "cart", "containers": [container]}
        self.core.create_namespaced_pod("shop", {"metadata": {"name": "cart"}, "spec": spec})
        self.shell("kubectl wait pod cart -n shop --for=condition=Ready --timeout=60s")

    def clear(self):
        for pod in self.core.list_namespaced_pod("shop").items:
            self.core.delete_namespaced_pod(pod.metadata.name, "shop", grace_period_seconds=0)
        for account in self.core.list_namespaced_service_account("shop").items:
            if account.metadata.name != "default":
                self.core.delete_namespaced_service_account(account.metadata.name, "shop")
        for name in self.roles:
            for policy in self.iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
                self.iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
            self.iam.delete_role(RoleName=name)
        self.roles.clear()

    @staticmethod
    def shell(script):
        """Run a script after `eval "$(labkit env)"`; return its output."""
        done = subprocess.run(
            ["bash", "-ec", f'eval "$(labkit env)"\n{script}'],
            env=os.environ | {"PATH": PROGRAMS},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def lab_with_shop(lab):
    CoreV1Api(lab.kubernetes).create_namespace({"metadata": {"name": "shop", "labels": lab.labels}})
    return lab


@pytest.fixture
def shop(lab_with_shop):
    shop = Shop(lab_with_shop)
    yield shop
    shop.clear()


def doctor(*arguments):
    more = () if "--json" in arguments else ("--verbose",)
    return labkit_command("doctor", "-n", "shop", "-s", "cart", *more, *arguments)


def found(*arguments):
    """The doctor's findings as JSON, by id."""
    report = json.loads(doctor(*arguments, "--json").stdout)
    return {finding["id"]: finding for finding in report["findings"]}


# The role is the one that the annotation's ARN names.


@pytest.mark.kubectl
@pytest.mark.parametrize(("path", "annotation"), [
    ("/team/", f"arn:aws:iam::{ACCOUNT}:role/x-r"),
    ("/", f"arn:aws:iam::{ACCOUNT}:role/team/x-r"),
    ("/", f"arn:aws-cn:iam::{ACCOUNT}:role/x-r"),
    ("/", "arn:aws:iam::222222222222:role/x-r"),
], ids=["its path left out", "a path put in", "another partition", "another account"])  # fmt: skip
def test_an_annotation_that_differs_from_the_roles_arn_gives_one_finding_and_is_mended(shop, path, annotation):
    right = shop.add_role("x-r", path=path)
    shop.add_account(annotation)
    shop.add_pod()
    done = doctor()
    assert done.returncode == 1, done.stdout + done.stderr
    first, expected, seen = done.stdout.splitlines()[:3]
    assert first == f"✗ shop/cart: the role's ARN is {right}, but the annotation says {annotation}"
    assert (expected.split(), seen.split()) == (["expected", right], ["found", annotation])
    assert [*found("--probe")] == ["service-account-annotation-arn-differs"]
    shop.shell(found()["service-account-annotation-arn-differs"]["repair"])
    shop.shell("kubectl wait pod cart -n shop --for=condition=Ready --timeout=60s")
    mended = doctor("--probe")
    assert mended.returncode == 0, mended.stdout
    assert mended.stdout.splitlines()[0] == "✓ shop/cart: nothing is wrong"


@pytest.mark.parametrize(("namespace", "commands_of"), [
    ("team-b", []),  # somebody else's role, which only has the name
    ("shop", ["service-account-annotation-arn-differs", "trust-policy-sub-mismatch"]),
])  # fmt: skip
def test_a_role_of_the_annotated_name_is_proposed_only_if_it_serves_the_namespace(shop, namespace, commands_of):
    def for_another(statement):
        (key,) = (each for each in statement["Condition"]["StringEquals"] if each.endswith(":sub"))
        statement["Condition"]["StringEquals"][key] = f"system:serviceaccount:{namespace}:web"

    right = shop.add_role("x-r", path="/team-b/", change=for_another)
    annotation = f"arn:aws:iam::{ACCOUNT}:role/team-a/x-r"
    shop.add_account(annotation)
    findings = found()
    assert findings["service-account-annotation-arn-differs"]["summary"] == (
        f"The role's ARN is {right}, but the annotation says {annotation}."
    )
    errors = [id for id, finding in findings.items() if finding["severity"] == "error"]
    assert len(errors) == 2
    assert [id for id in errors if commands(findings[id]["repair"])] == commands_of
    if not commands_of:
        text = "# The role x-r stays unchanged. If it is the right role, its owner has to admit shop:cart."
        assert all(text in findings[id]["repair"].splitlines() for id in errors)


def test_the_repair_makes_a_missing_role_under_the_path_in_the_annotation(shop):
    shop.add_account(f"arn:aws:iam::{ACCOUNT}:role/team/x-r")
    assert "aws iam create-role --role-name x-r --path /team/ " in found()["role-missing"]["repair"]


@pytest.mark.kubectl
def test_an_unexplained_refusal_is_a_finding_even_beside_an_unrelated_one(shop, monkeypatch):
    monkeypatch.setattr(credentials, "SETTLED", 0)  # so that the doctor does not excuse a new role

    def from_elsewhere(statement):
        statement["Condition"]["NotIpAddress"] = {"aws:SourceIp": "127.0.0.0/8"}

    shop.add_account(shop.add_role("x-r", change=from_elsewhere))
    shop.add_pod()
    done = doctor("--probe")
    assert done.returncode == 1
    first = done.stdout.splitlines()[0]
    assert first.startswith("✗ shop/cart: STS refused the exchange: AccessDenied: Not authorized to perform ")
    assert first.endswith("; nothing that the doctor read explains this")
    assert re.search(r"^  ✗ 7  the exchange with STS +credentials-refused$", done.stdout, re.MULTILINE)
    shop.iam.detach_role_policy(RoleName="x-r", PolicyArn=POLICY)
    assert [*found("--probe")] == ["credentials-refused", "role-policy-not-attached"]


@pytest.mark.kubectl
def test_a_probe_exchanges_the_token_again_and_uses_no_session_of_an_earlier_one(shop, monkeypatch):
    monkeypatch.setattr(credentials, "SETTLED", 0)
    shop.add_account(shop.add_role("x-r"))
    shop.add_pod()
    assert doctor("--probe").returncode == 0
    trust = shop.iam.get_role(RoleName="x-r")["Role"]["AssumeRolePolicyDocument"]
    refusing = copy.deepcopy(trust)
    refusing["Statement"][0]["Condition"]["NotIpAddress"] = {"aws:SourceIp": "127.0.0.0/8"}
    shop.iam.update_assume_role_policy(RoleName="x-r", PolicyDocument=json.dumps(refusing))
    done = doctor("--probe")
    assert done.returncode == 1, done.stdout
    assert re.search(r"^  ✗ 7  the exchange with STS +credentials-refused$", done.stdout, re.MULTILINE)
    assert not re.search("^  ✓ 8", done.stdout, re.MULTILINE)
    # Neither probe left a session in the pod.
    kept = shop.shell("kubectl exec cart -n shop -- sh -c 'find ~ -path \"*.aws/cli*\"'")
    assert kept == ""
    # The pod's own config counts.
    shop.iam.update_assume_role_policy(RoleName="x-r", PolicyDocument=json.dumps(trust))
    shop.shell("kubectl exec cart -n shop -- sh -c 'mkdir -p ~/.aws && echo [broken > ~/.aws/config'")
    assert "Unable to parse config file" in doctor("--probe").stdout


@pytest.mark.kubectl
def test_a_condition_on_the_request_is_only_a_warning_until_a_probe_asks_sts(shop):
    def from_here(statement):
        statement["Condition"]["IpAddress"] = {"aws:SourceIp": "127.0.0.0/8"}

    shop.add_account(shop.add_role("x-r", change=from_here))
    shop.add_pod()
    done = doctor()
    assert done.stdout.splitlines()[0] == (
        "! shop/cart: the trust policy's decision about shop:cart depends on aws:SourceIp (IpAddress 127.0.0.0/8), "
        "and the doctor can't see the pod's request"
    )
    probed = doctor("--probe")
    assert (probed.returncode, probed.stdout.splitlines()[0]) == (0, "✓ shop/cart: nothing is wrong")


def test_a_role_outside_any_run_does_not_get_the_labs_policy(shop):
    shop.add_account(shop.add_role("x-r"))
    shop.iam.detach_role_policy(RoleName="x-r", PolicyArn=POLICY)
    lacking = found("--role", "x-r")["role-policy-not-attached"]
    assert (lacking["expected"], lacking["found"]) == ("a policy", "no policy attached")
    assert POLICY not in lacking["repair"]
    statement = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::carts"}
    document = {"Version": "2012-10-17", "Statement": statement}
    shop.iam.put_role_policy(RoleName="x-r", PolicyName="own", PolicyDocument=json.dumps(document))
    done = doctor("--role", "x-r")
    shop.iam.delete_role_policy(RoleName="x-r", PolicyName="own")
    assert "role-policy-not-attached" not in done.stdout
    assert re.search("^  ✓ 9", done.stdout, re.MULTILINE)


# For a misspelt name, the doctor suggests the right one.


@pytest.mark.parametrize(("namespace", "name", "meant"), [
    ("shop", "crat", "cart"),
    ("shopp", "my-service-account", "the namespace shop"),
    ("shopp", "cart", "shop/cart"),
    ("shopp", "crat", "shop/cart"),
    ("dev", "cart", "shop/cart"),
])  # fmt: skip
def test_for_a_misspelt_service_account_the_doctor_suggests_a_name_and_no_repair(shop, namespace, name, meant):
    shop.add_account(shop.add_role("x-r"))
    done = labkit_command("doctor", "-n", namespace, "-s", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{namespace}/{name}: no such service account; did you mean {meant}?" in done.stderr
    assert "next:  labkit doctor -n shop -s " in done.stderr
    assert "apply" not in done.stderr and "annotate" not in done.stderr
    report = json.loads(labkit_command("doctor", "-n", namespace, "-s", name, "--json").stdout)
    assert "did you mean" in report["could_not_look"]["what"]


def test_for_an_unknown_service_account_the_doctor_suggests_no_name(shop):
    done = labkit_command("doctor", "-n", "shop", "-s", "zebra")
    assert (done.returncode, done.stdout) == (2, "")
    assert "shop/zebra: no such service account" in done.stderr and "did you mean" not in done.stderr


def test_for_a_misspelt_pod_the_doctor_suggests_a_name(shop):
    shop.add_account(shop.add_role("x-r"))
    shop.add_pod()
    done = labkit_command("doctor", "-n", "shop", "-s", "cart", "--pod", "cart-nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert "shop/cart-nope: no such pod; did you mean cart?" in done.stderr
    assert "next:  labkit doctor -n shop -s cart --pod cart" in done.stderr


def test_a_service_account_that_a_role_trusts_is_reported_missing(shop):
    right = shop.add_role("x-r")
    shop.add_account(name="cartoon")
    missing = found()["service-account-missing"]
    assert "but the role x-r trusts it" in missing["summary"]
    assert right in missing["repair"]


@pytest.mark.kubectl
def test_a_service_account_that_a_pod_runs_as_is_reported_missing(shop):
    shop.add_account()
    shop.add_pod()
    shop.core.delete_namespaced_service_account("cart", "shop")
    shop.add_account(name="cartoon")
    assert "but the pod cart runs as it" in found()["service-account-missing"]["summary"]


@pytest.mark.parametrize(("admitted", "is_annotated", "misspelt", "meant"), [
    ("cart", True, "x-rr", "x-r"),
    ("web", True, "x-rr", "x-r"),
    ("cart", False, "x-rr", "x-r"),
    ("web", True, "zebra", ""),
], ids=["its own", "another team's", "by trust alone", "like no other"])  # fmt: skip
def test_for_a_misspelt_role_the_doctor_prints_no_repair(shop, admitted, is_annotated, misspelt, meant):
    right = shop.add_role("x-r", account=admitted)
    shop.add_account(right if is_annotated else "")
    done = doctor("--role", misspelt)
    assert (done.returncode, done.stdout) == (2, "")
    question = f"{misspelt}: no such role; did you mean {meant}?" if meant else f"{misspelt}: no such role."
    assert question in done.stderr
    assert f"next:  labkit doctor -n shop -s cart{f' --role {meant}' if meant else ''}\n" in done.stderr
    assert not any(word in done.stderr for word in ("annotate", "create-role", "attach"))


def test_the_repair_does_not_give_a_missing_annotated_role_the_labs_policy(shop):
    shop.add_account(f"arn:aws:iam::{ACCOUNT}:role/x-r")
    repair = found("--role", "x-r")["role-missing"]["repair"]
    assert "aws iam create-role --role-name x-r " in repair
    assert "--policy-arn <POLICY_ARN>" in repair and POLICY not in repair


# The doctor guesses no role.


def test_the_repair_lists_every_role_that_trusts_the_account_and_chooses_none(shop):
    arns = [shop.add_role("x-a"), shop.add_role("x-b", path="/team/")]
    shop.add_account()
    finding = found()["service-account-annotation-missing"]
    assert {*finding["expected"].removeprefix(f"{KEY}: ").split(" or ")} == {*arns}
    comment, *listed, command = finding["repair"].splitlines()
    assert "choose one" in comment
    assert {*listed} == {f"#   {arn}" for arn in arns}
    assert command.endswith(f"{KEY}=arn:aws:iam::{ACCOUNT}:role/<ROLE_NAME>")


def test_a_role_with_a_wildcard_is_listed_and_not_chosen(shop):
    def for_the_namespace(statement):
        equals = statement["Condition"]["StringEquals"]
        key = next(key for key in equals if key.endswith(":sub"))
        del equals[key]
        statement["Condition"]["StringLike"] = {key: "system:serviceaccount:shop:*"}

    arn = shop.add_role("x-r", change=for_the_namespace)
    shop.add_account()
    comment, listed, command = found()["service-account-annotation-missing"]["repair"].splitlines()
    assert "may be meant" in comment
    assert listed == f"#   {arn}" and command.endswith("role/<ROLE_NAME>")


@pytest.mark.parametrize(
    "tag",
    [(EKSCTL, "shop/cart"), ("ServiceAccount", "shop:cart"), ("Attributes", "cart@shop")],
    ids=["eksctl", "a Terraform module's list", "Cloud Posse's module"],
)
def test_a_tag_tells_which_of_two_roles_to_use(shop, tag):
    tags = [{"Key": tag[0], "Value": tag[1]}]
    shop.add_role("x-a")
    right = shop.add_role("x-b", tags=tags)
    shop.add_account()
    (finding,) = (each for each in found().values() if each["severity"] == "error")
    assert commands(finding["repair"])[0].endswith(f"{KEY}={right}")


def test_a_tagged_role_is_used_although_its_trust_policy_is_wrong(shop):
    right = shop.add_role("x-a", account="web", tags=[{"Key": EKSCTL, "Value": "shop/cart"}])
    shop.add_account()
    ids = found()
    assert f"{KEY}={right}" in ids["service-account-annotation-missing"]["repair"]
    assert ids["trust-policy-sub-mismatch"]["summary"] == "The trust policy admits shop:web, not shop:cart."


def test_the_doctor_does_not_choose_a_role_by_its_name_alone(shop):
    shop.add_role("x-r", account="web", tags=[{"Key": "Repository", "Value": "shop/cart"}])
    shop.add_role("eksctl-blue-addon-iamserviceaccount-shop-cart-Role1-1ABC", account="web")
    shop.add_role("cart", account="web")
    shop.add_account()
    assert "role/<ROLE_NAME>" in found()["service-account-annotation-missing"]["repair"]


def test_the_doctor_does_not_choose_a_role_of_an_account_with_a_similar_name(shop):
    shop.add_role("x-r", account="cart-v2")
    shop.add_account()
    assert "role/<ROLE_NAME>" in found()["service-account-annotation-missing"]["repair"]


def test_the_doctor_does_not_take_a_role_from_an_unrelated_annotation(shop):
    shop.add_account()
    arn = shop.add_role("x-r", account="web")
    metadata = {"metadata": {"annotations": {"example.com/audited-by": arn}}}
    shop.core.patch_namespaced_service_account("cart", "shop", metadata)
    assert "role/<ROLE_NAME>" in found()["service-account-annotation-missing"]["repair"]


# The first line is the cause.


def test_the_first_line_is_the_cause_and_the_other_findings_follow(shop):
    shop.add_account(shop.add_role("x-r", account="web"))
    shop.iam.detach_role_policy(RoleName="x-r", PolicyArn=POLICY)
    lines = doctor().stdout.splitlines()
    assert lines[0] == "✗ shop/cart: the trust policy admits shop:web, not shop:cart"
    assert [line.split()[0] for line in lines[1:4]] == ["expected", "found", "seen"]
    assert lines[4] == "  repair:"
    more = lines.index("1 more error and 1 more warning:")
    assert lines[more + 2].startswith("✗ shop/cart: ")
    checks = [at for at, line in enumerate(lines) if re.match(r"  [✗✓!·] \d  ", line)]
    assert len(checks) == 9 and checks[0] > more


# An old refusal is not today's cause.


def test_a_refused_registration_before_a_successful_one_is_not_reported(shop):
    provider = shop.iam.get_open_id_connect_provider(OpenIDConnectProviderArn=shop.lab.provider_arn)
    shop.add_account(shop.add_role("x-r"))
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    document = {"Version": "2012-10-17", "Statement": [trust]}
    operator = shop.iam.create_role(RoleName="deployer", AssumeRolePolicyDocument=json.dumps(document))["Role"]["Arn"]
    shop.roles.append("deployer")
    register = f"aws iam create-open-id-connect-provider --url {shop.lab.issuer} --client-id-list sts.amazonaws.com"
    shop.iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=shop.lab.provider_arn)
    try:
        keys = shop.lab.aws.client("sts").assume_role(RoleArn=operator, RoleSessionName="me")["Credentials"]
        variables = (
            f"AWS_ACCESS_KEY_ID={keys['AccessKeyId']} AWS_SECRET_ACCESS_KEY={keys['SecretAccessKey']} "
            f"AWS_SESSION_TOKEN={keys['SessionToken']}"
        )
        shop.shell(f"! env -u AWS_PROFILE {variables} {register}")
        refused = found()
        assert (
            "deployer is not allowed to do iam:CreateOpenIDConnectProvider"
            in refused["operator-not-permitted"]["summary"]
        )
        assert "put-" not in refused["operator-not-permitted"]["repair"]
        shop.shell(register)
        shop.iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=shop.lab.provider_arn)
        assert "oidc-provider-missing" in (ids := found()) and "operator-not-permitted" not in ids
        assert "policy" not in ids["oidc-provider-missing"]["repair"]
    finally:
        arns = [each["Arn"] for each in shop.iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]]
        if shop.lab.provider_arn not in arns:
            shop.iam.create_open_id_connect_provider(
                Url=shop.lab.issuer,
                ClientIDList=provider["ClientIDList"],
                ThumbprintList=provider["ThumbprintList"],
                Tags=provider["Tags"],
            )
