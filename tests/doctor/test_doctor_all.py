"""`labkit doctor --all`, and a namespace with several service accounts."""

import json
import re
from functools import partial

import pytest
from kubernetes.client import ApiClient, Configuration, CoreV1Api

import labkit
from labkit.connection import awaited
from labkit.doctor.examination import diagnose
from labkit.doctor.survey import Survey
from labkit.documents import SLEEP
from labkit.errors import LabError
from labkit.run_parameters import Parameters
from tests.doctor.callers import POLICY, changed, doctor, session_of


@pytest.fixture
def shop(lab):
    """Seven more service accounts in the namespace shop: five healthy, one with a misspelt key, one without a role."""
    core, iam = CoreV1Api(lab.kubernetes), lab.aws.client("iam")
    core.create_namespace({"metadata": {"name": "shop", "labels": lab.labels}})
    names = [f"cart-{number}" for number in range(5)]
    for name in [*names, "typo", "none"]:
        key = {"typo": "eks.amazon.com/role-arn"}.get(name, "eks.amazonaws.com/role-arn")
        annotations = {} if name == "none" else {key: lab.connection.role_arn(name)}
        core.create_namespaced_service_account("shop", {"metadata": {"name": name, "annotations": annotations}})
    for name in [*names, "typo"]:
        parameters = Parameters.checked(namespace="shop", service_account=name)
        trust = labkit.steps.step("iam_role").build(parameters, lab.provider_arn)
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
        iam.attach_role_policy(RoleName=name, PolicyArn=POLICY)
    yield lab
    core.delete_namespace("shop")
    named = partial(core.list_namespace, field_selector="metadata.name=shop")
    awaited(named, lambda pods: not pods.items, within=60, every=0.2)  # its pods end first
    for name in [*names, "typo"]:
        iam.detach_role_policy(RoleName=name, PolicyArn=POLICY)
        iam.delete_role(RoleName=name)


def test_all_prints_a_line_for_each_service_account_that_should_have_a_role(shop):
    done = doctor("--all", "--verbose")
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    lines = [line.split() for line in done.stdout.splitlines() if re.match(r"[✓✗!·] (shop|default)/\S+  ", line)]
    accounts = ["default/my-service-account", *(f"shop/cart-{number}" for number in range(5)), "shop/typo"]
    assert [line[1] for line in lines] == accounts
    assert lines[-1][3] == "service-account-annotation-key-typo,"
    assert "7 service accounts in the cluster" in done.stdout


def test_all_prints_the_errors_first_one_line_each_and_folds_the_rest(shop):
    lines = doctor("--all").stdout.splitlines()
    assert lines[0].startswith("✗ shop/typo: ")
    assert [line for line in lines[1:] if line.startswith(("✗", "!", "i", "✓", "·"))] == [
        "! only warnings: shop/cart-0, shop/cart-1, shop/cart-2 and 2 more",
        "✓ nothing found: default/my-service-account",
    ]
    assert "The repair of one of them:  labkit doctor -n shop -s typo" in lines
    assert len(lines) < 9


def test_all_with_json_prints_one_object_per_service_account_of_the_namespace(shop):
    done = doctor("--all", "-n", "default", "--json")
    (report,) = map(json.loads, done.stdout.splitlines())
    assert (report["subject"], done.returncode) == ("system:serviceaccount:default:my-service-account", 0)
    nobody = doctor("--all", "-n", "kube-system")
    assert (nobody.returncode, nobody.stdout.strip()) == (
        0,
        "Found no service account in namespace kube-system that should have a role.",
    )


def test_the_doctor_does_not_choose_between_several_service_accounts(shop):
    done = doctor("-n", "shop")
    assert (done.returncode, done.stdout) == (2, "")
    names = ", ".join([*(f"cart-{number}" for number in range(5)), "typo"])
    assert f"shop: the doctor cannot choose between 6 service accounts: {names}." in done.stderr
    assert "labkit doctor --all -n shop" in done.stderr
    report = json.loads(doctor("-n", "shop", "--json").stdout)["could_not_look"]
    assert names in report["what"]


def test_the_doctor_picks_the_only_service_account_with_a_role(shop):
    core = CoreV1Api(shop.kubernetes)
    for name in ["typo", *(f"cart-{number}" for number in range(1, 5))]:
        core.delete_namespaced_service_account(name, "shop")
    done = doctor("-n", "shop", "--json")
    assert done.stderr == ""
    assert json.loads(done.stdout)["subject"] == "system:serviceaccount:shop:cart-0"
    core.delete_namespaced_service_account("cart-0", "shop")
    nothing = doctor("-n", "shop")
    assert (nothing.returncode, nothing.stdout) == (2, "")
    # "none" is the account's name.
    assert (
        "tells which service account should have a role; the namespace has the service account none." in nothing.stderr
    )
    assert "next:  labkit doctor -n shop -s none\n" in nothing.stderr


def test_the_doctor_takes_the_service_account_from_the_given_pod(shop):
    core = CoreV1Api(shop.kubernetes)
    containers = [{"name": "app", "image": "python", "command": SLEEP}]
    spec = {"serviceAccountName": "none", "containers": containers}
    core.create_namespaced_pod("shop", {"metadata": {"name": "till"}, "spec": spec})
    report = json.loads(doctor("-n", "shop", "--pod", "till", "--json").stdout)
    assert (report["subject"], report["pods"]) == ("system:serviceaccount:shop:none", ["till"])


@pytest.mark.parametrize("options", [(), ("--all",)], ids=["one", "all"])
def test_the_doctor_suggests_the_right_name_for_a_misspelt_namespace(shop, options):
    done = doctor(*options, "-n", "shopp")
    assert (done.returncode, done.stdout) == (2, "")
    assert "The cluster has no namespace shopp; did you mean shop?" in done.stderr
    assert "my-service-account" not in done.stderr


def test_in_the_namespace_default_the_doctor_picks_the_labs_service_account(shop):
    assert json.loads(doctor("-n", "default", "--json").stdout)["subject"].endswith(":default:my-service-account")


def test_all_looks_at_a_service_account_that_only_a_pod_identity_association_gives_a_role(shop):
    iam, eks = shop.aws.client("iam"), shop.aws.client("eks")
    of_irsa = iam.get_role(RoleName="cart-0")["Role"]["AssumeRolePolicyDocument"]
    statement = {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}}
    of_eks = {"Version": "2012-10-17", "Statement": [statement | {"Action": ["sts:AssumeRole", "sts:TagSession"]}]}
    iam.update_assume_role_policy(RoleName="cart-0", PolicyDocument=json.dumps(of_eks))
    named = {"namespace": "shop", "serviceAccount": "none", "roleArn": shop.connection.role_arn("cart-0")}
    made = eks.create_pod_identity_association(clusterName="blue", **named)["association"]
    # EKS looks at the trust policy only when the association is made.
    iam.update_assume_role_policy(RoleName="cart-0", PolicyDocument=json.dumps(of_irsa))
    survey = Survey(shop.connection, shop.parameters, "shop")
    (diagnosis,) = [each for each in survey if each.subject.endswith(":none")]
    assert "pod-identity-role-refuses-eks" in {finding.id for finding in diagnosis.findings}
    eks.delete_pod_identity_association(clusterName="blue", associationId=made["associationId"])


def test_all_makes_no_call_twice_and_does_not_read_roles_one_by_one(shop):
    survey = Survey(shop.connection, shop.parameters)
    calls = [str(read) for diagnosis in survey for read in diagnosis.made] + [*map(str, survey.reads.made)]
    assert len(survey) == 7
    assert len(calls) == len(set(calls))
    assert not [call for call in calls if call.startswith("iam:GetRole")]
    single = [diagnose(namespace="shop", service_account=f"cart-{n}", connection=shop.connection) for n in range(5)]
    diagnoses = [diagnosis for diagnosis in survey if "cart" in diagnosis.subject]
    assert [d.findings for d in diagnoses] == [d.findings for d in single]


def test_all_reads_roles_one_by_one_for_a_caller_who_may_not_read_all_at_once(shop):
    aws = session_of(shop, "iam:GetAccountAuthorizationDetails")
    survey = Survey(changed(shop.connection, aws=aws), shop.parameters)
    diagnoses = list(survey)
    assert {diagnosis.exit_code for diagnosis in diagnoses if "typo" not in diagnosis.subject} <= {0, 1}
    assert any(read.kind == "iam:GetRole" for diagnosis in diagnoses for read in diagnosis.made)


def test_a_caller_who_may_not_list_service_accounts_gets_an_error_that_says_so(lab):
    survey = {"connection": changed(lab.connection, kubernetes=_anonymous(lab)), "parameters": lab.parameters}
    with pytest.raises(LabError, match="serviceaccounts"):
        Survey(**survey)


def _anonymous(lab):
    configuration = Configuration(host=lab.kubernetes.configuration.host)
    configuration.ssl_ca_cert = lab.kubernetes.configuration.ssl_ca_cert
    return ApiClient(configuration)
