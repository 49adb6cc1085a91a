"""No repair moves a workload to another service account, unless the workload is the account's and loses nothing."""

import re

import pytest

from labkit.doctor import examination
from labkit.doctor.evidence import Evidence, Reads
from labkit.documents import ROLE_ANNOTATION
from tests.doctor import recording
from tests.doctor.pods import applying, examine, owned, workload
from tests.doctor.recording import healthy
from tests.doctor.repairing import commands

NAME = recording.PARAMETERS.service_account
DEFAULT = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
USER = {"kind": "User", "name": "system:serviceaccount:default:default"}


def binding(*subjects, name="web-edit", namespace="default"):
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"metadata": metadata, "roleRef": {"kind": "ClusterRole", "name": "edit"}, "subjects": [*subjects]}


def without_pods(*workloads, **answers):
    return healthy() | {recording.PODS: [], recording.DEPLOYMENTS: list(workloads)} | answers


def pod_missing(answers):
    return next(each for each in examine(answers, pod_name="").findings if each.id == "pod-missing")


def with_role(arn):
    """A Deployment that runs as `default`, and whose manifest sets AWS_ROLE_ARN."""
    made = workload("web", account="", app="web")
    made["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "AWS_ROLE_ARN", "value": arn}]
    return made


@pytest.mark.parametrize("workloads", [
    [workload("web", account="", app="web")],
    [workload("web", account="", app="web"), workload("queue", account="default", app="queue")],
    [with_role(f"{recording.ROLE_ARN}-of-orders")],
])  # fmt: skip
def test_a_workload_that_nothing_ties_to_the_account_is_not_moved(workloads):
    finding = pod_missing(without_pods(*workloads))
    assert commands(finding.repair) == []
    assert "Nothing is changed: nothing shows that deployment/web" in finding.repair


@pytest.mark.parametrize(
    "own", [workload(NAME, account="", app="web"), workload("web", account="", app=NAME), with_role(recording.ROLE_ARN)]
)
def test_a_workload_is_moved_if_its_name_its_label_or_its_role_is_the_accounts(own):
    finding = pod_missing(without_pods(workload("queue", account="", app="queue"), own))
    assert commands(finding.repair)[0].startswith(f"kubectl patch deployment/{own['metadata']['name']} ")


@pytest.mark.parametrize("other", [
    workload("web", account="web", app=NAME),
    workload(NAME, account="web"),
    workload("web", account=f"release-{NAME}", app="web"),
])  # fmt: skip
def test_a_workload_that_runs_as_another_account_is_named_and_no_pod_is_made(other):
    """A Helm chart names its service account after the release, and the role names another one."""
    account = other["spec"]["template"]["spec"]["serviceAccountName"]
    finding = pod_missing(without_pods(other, workload("queue", account="queue", app="queue")))
    assert finding.found == f"deployment/{other['metadata']['name']} with serviceAccountName: {account}"
    assert commands(finding.repair) == [] and "serviceAccount.name" in finding.repair


def test_a_workload_with_the_accounts_labels_of_a_release_is_named():
    labels = {"app.kubernetes.io/name": "secrets", "app.kubernetes.io/instance": "manual"}
    chart, database = workload("web", account="web"), workload("db", account="db")
    chart["metadata"]["labels"] = labels
    database["metadata"]["labels"] = labels | {"app.kubernetes.io/name": "postgres"}
    answers = without_pods(chart, database)
    answers[recording.SERVICE_ACCOUNTS][0]["metadata"]["labels"] = labels
    assert pod_missing(answers).found == "deployment/web with serviceAccountName: web"


def test_a_workload_of_another_account_with_a_role_is_not_named():
    other = {"metadata": {"name": "web", "namespace": "default", "annotations": {ROLE_ANNOTATION: recording.ROLE_ARN}}}
    answers = without_pods(workload("web", account="web", app=NAME))
    for call in (recording.SERVICE_ACCOUNTS, recording.ALL_SERVICE_ACCOUNTS):
        answers[call] = [*answers[call], other]
    assert pod_missing(answers).found == "no pod in namespace default"


def test_the_repairs_for_two_accounts_make_pods_of_two_names():
    accounts = [{"metadata": {"name": name, "namespace": "default"}} for name in ("cart", "till")]
    answers = without_pods() | {recording.SERVICE_ACCOUNTS: accounts}
    made = []
    for name in ("cart", "till"):
        parameters = recording.PARAMETERS.model_copy(update={"service_account": name})
        seen = Evidence(parameters, recording.CONNECTION, pod_name="", reads=Reads(answers), role_is_known=False)
        (missing,) = [each for each in examination.examine(seen).findings if each.id == "pod-missing"]
        made += re.findall(r"This creates the pod (\S+)\.", missing.repair)
    assert made == ["cart-pod", "till-pod"]


@pytest.mark.parametrize("answers", [
    {recording.ROLE_BINDINGS: [binding(DEFAULT)]},
    {recording.ROLE_BINDINGS: [binding(USER, namespace="shop")]},
    {recording.CLUSTER_ROLE_BINDINGS: [binding(DEFAULT, namespace="")]},
])  # fmt: skip
def test_a_workload_whose_account_has_permissions_in_the_cluster_is_not_moved(answers):
    repair = pod_missing(without_pods(workload(NAME, account=""), **answers)).repair
    assert commands(repair) == []
    kind = "clusterrolebinding" if recording.CLUSTER_ROLE_BINDINGS in answers else "rolebinding"
    assert f"would lose what {kind}/web-edit (ClusterRole edit)" in repair


@pytest.mark.parametrize("call", [recording.ROLE_BINDINGS, recording.CLUSTER_ROLE_BINDINGS])
def test_a_workload_is_not_moved_if_the_bindings_cannot_be_listed(call):
    answers = without_pods(workload(NAME, account=""))
    del answers[call]
    repair = pod_missing(answers).repair
    assert commands(repair) == [] and "could not list RoleBindings" in repair


def test_a_binding_that_also_names_the_new_account_or_only_a_group_takes_nothing():
    group = {"kind": "Group", "name": "system:serviceaccounts:default"}
    both = binding(DEFAULT, {**DEFAULT, "name": NAME})
    elsewhere = binding({**DEFAULT, "namespace": "shop"})
    answers = without_pods(workload(NAME, account=""), **{recording.ROLE_BINDINGS: [both, binding(group), elsewhere]})
    assert commands(pod_missing(answers).repair)


def without_account(manifest):
    del manifest["spec"]["serviceAccountName"]


def test_a_pod_whose_account_has_permissions_in_the_cluster_is_not_moved():
    answers = applying(without_account)
    (finding,) = examine(answers).findings
    assert (finding.id, len(commands(finding.repair))) == ("pod-uses-another-service-account", 2)
    answers[recording.ROLE_BINDINGS] = [binding(DEFAULT)]
    (finding,) = examine(answers).findings
    assert commands(finding.repair) == []
    assert "would lose what rolebinding/web-edit (ClusterRole edit)" in finding.repair


def test_a_repair_of_a_workloads_variables_does_not_move_the_workload():
    bare = workload(NAME, account="")
    bare["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "AWS_ACCESS_KEY_ID", "value": "AKIA"}]
    answers = without_pods(bare, **{recording.ROLE_BINDINGS: [binding(DEFAULT)]})
    keys = next(each for each in examine(answers, pod_name="").findings if each.id == "pod-static-keys")
    assert commands(keys.repair) == []


def test_a_repair_of_a_pod_does_not_move_its_deployment_that_names_another_account_by_now():
    answers = owned([{"name": "AWS_PROFILE", "value": "dev"}])
    answers["get deployment cart -n default"]["spec"]["template"]["spec"]["serviceAccountName"] = "web"
    finding = examine(answers).findings[0]
    assert finding.id == "pod-profile-unknown" or "AWS_PROFILE" in finding.found
    assert commands(finding.repair) == []
    assert "default:web" in finding.repair
