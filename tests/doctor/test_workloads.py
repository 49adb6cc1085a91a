"""Deployments, Jobs and their pods: the repair changes the workload, and makes no pod beside it."""

import json
import shlex

import jsonpatch
import pytest

from labkit import doctor
from labkit.doctor.evidence import Evidence, Reads
from labkit.steps import pod
from tests.doctor import recording
from tests.doctor.applying import applied
from tests.doctor.pods import KEY, KEYS, applying, deployment, examine, found, owned, workload
from tests.doctor.recording import a_pod, healthy
from tests.doctor.repairing import commands


def test_the_repair_corrects_a_deployments_pod_in_the_template():
    (finding,) = examine(owned([{"name": "AWS_PROFILE", "value": "dev"}])).findings
    assert commands(finding.repair) == [
        "kubectl set env deployment/cart -n default -c aws AWS_PROFILE-",
        "kubectl rollout status deployment/cart -n default --timeout=90s",
    ]
    assert finding.repair.splitlines()[:4] == [
        "# This replaces the pods of Deployment cart, one after the other.",
        "#   -     env:",
        "#   -     - name: AWS_PROFILE",
        "#   -       value: dev",
    ]


def test_the_repair_shows_the_changes_of_a_template_without_any_secret():
    env = [{"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "AWS_PROFILE", "value": "dev"}]
    env += [{"name": name, "value": value} for name, value in KEYS.items()]
    answers = owned(env)
    answers["get deployment cart -n default"]["spec"]["template"]["metadata"]["annotations"] = {KEY: recording.ROLE_ARN}
    # The second finding's repair also makes the first one's change of the template.
    repair = examine(answers).findings[1].repair
    assert {"#   -     - name: AWS_ACCESS_KEY_ID", f"#   -     {KEY}: {recording.ROLE_ARN}"} <= {*repair.splitlines()}
    assert not any(secret in repair for secret in ("hunter2", *KEYS.values()))


def test_the_repair_restarts_a_deployment_if_its_template_is_right():
    answers = owned([])
    for container in answers[recording.PODS][0]["spec"]["containers"]:
        container["env"] = []
    del answers[recording.PODS][0]["spec"]["volumes"]
    (finding,) = examine(answers).findings
    assert finding.id == "pod-older-than-annotation"
    assert commands(finding.repair)[0] == "kubectl rollout restart deployment/cart -n default"


def test_the_repair_patches_a_deployments_template_if_a_label_in_it_is_wrong():
    answers = owned([])
    label = "eks.amazonaws.com/skip-pod-identity-webhook"
    answers["get deployment cart -n default"]["spec"]["template"]["metadata"]["labels"][label] = "true"
    live = answers[recording.PODS][0]
    live["metadata"]["labels"][label] = "true"
    live["spec"].pop("volumes")
    live["spec"]["containers"][0].pop("env")
    (finding,) = examine(answers).findings
    assert finding.id == "pod-opted-out-of-webhook"
    patch = json.loads(shlex.split(commands(finding.repair)[0])[-1])
    assert patch == [{"op": "remove", "path": f"/spec/template/metadata/labels/{label.replace('/', '~1')}"}]


def test_the_repair_recreates_the_labs_own_pod_from_its_original_manifest():
    answers = healthy() | {recording.INLINE: []}
    answers[recording.PODS][0]["status"] = {"phase": "Pending"}
    (finding,) = examine(answers).findings
    delete, apply = commands(finding.repair)
    assert delete == "kubectl delete pod my-pod -n default --grace-period=1"
    assert json.loads(shlex.split(apply)[1]) == pod.build(recording.PARAMETERS)


def without_pods(*workloads):
    return healthy() | {recording.PODS: [], recording.DEPLOYMENTS: list(workloads)}


def test_the_repair_patches_a_deployment_that_names_no_service_account():
    (finding,) = examine(without_pods(workload("web", account="", app="my-service-account")), pod_name="").findings
    assert (finding.id, finding.found) == ("pod-missing", "deployment/web without serviceAccountName")
    said, (patch, status) = finding.repair.splitlines()[0], commands(finding.repair)
    assert said.startswith("# deployment/web runs as default; after this change, its pods run as my-service-account")
    words = shlex.split(patch)
    assert words[:3] == ["kubectl", "patch", "deployment/web"]
    named = {"op": "add", "path": "/spec/template/spec/serviceAccountName", "value": "my-service-account"}
    assert json.loads(words[-1]) == [named]
    assert status.startswith("kubectl rollout status deployment/web")


@pytest.mark.parametrize(("mark", "manager"), [
    ({"annotations": {"meta.helm.sh/release-name": "web"}}, "Helm"),
    ({"annotations": {"argocd.argoproj.io/tracking-id": "web:apps/Deployment:default/web"}}, "Argo CD"),
    ({"labels": {"app.kubernetes.io/managed-by": "pulumi"}}, "pulumi"),
])  # fmt: skip
def test_a_deployments_patch_names_the_program_that_manages_it(mark, manager):
    managed = workload("web", account="", app="my-service-account")
    managed["metadata"] |= mark
    (finding,) = examine(without_pods(managed), pod_name="").findings
    said = (
        f"# {manager} manages this object: make this change in the source of the object, too, "
        f"or {manager} may undo the change."
    )
    assert said in finding.repair.splitlines()


@pytest.mark.parametrize("account", ["", "my-service-account"])
def test_access_keys_in_a_deployment_without_pods_are_reported_at_once(account):
    bare = workload("web", account=account, app="my-service-account")
    (container,) = bare["spec"]["template"]["spec"]["containers"]
    container["env"] = [{"name": name, "value": value} for name, value in {**KEYS, "GREETING": "hello"}.items()]
    findings = {finding.id: finding for finding in examine(without_pods(bare), pod_name="").findings}
    assert set(findings) == {"pod-missing", "pod-static-keys"}
    first, keys = findings["pod-missing"], findings["pod-static-keys"]
    assert keys.severity == "warning"
    assert keys.found.startswith("deployment/web, container aws: AWS_ACCESS_KEY_ID (env)")
    change = commands(keys.repair)[0]
    assert " deployment/web " in change
    if not account:
        assert next(iter(findings)) == "pod-missing"
        after = jsonpatch.apply_patch(bare, shlex.split(change)[-1])
        (changed,) = after["spec"]["template"]["spec"]["containers"]
        assert changed["env"] == [{"name": "GREETING", "value": "hello"}]
    assert not any(secret in f"{first}{keys}" for secret in KEYS.values())


def test_the_doctor_picks_the_workload_labelled_with_the_service_accounts_name():
    named = workload("web", account="", app="my-service-account")
    (finding,) = examine(without_pods(workload("queue", account=""), named), pod_name="").findings
    assert finding.found == "deployment/web without serviceAccountName"


def test_the_repair_scales_a_deployment_with_no_replicas_and_makes_no_pod():
    (finding,) = examine(without_pods(workload(replicas=0)), pod_name="").findings
    assert (finding.id, finding.severity) == ("pod-missing", "warning")
    assert finding.found == "deployment/cart has replicas: 0"
    assert finding.repair.splitlines()[1:] == ["kubectl scale deployment/cart -n default --replicas=1"]
    (finding,) = examine(without_pods(workload(replicas=0)), pod_name="cart-5f6d8b9c7d-x2x4b").findings
    assert finding.found == "deployment/cart has replicas: 0"
    assert "echo" not in finding.repair


@pytest.mark.parametrize("kind", [recording.CRON_JOBS, recording.JOBS])
def test_the_repair_makes_no_pod_if_a_job_makes_the_pods(kind):
    template = {"spec": {"serviceAccountName": recording.PARAMETERS.service_account, "containers": []}}
    spec = {"template": template}
    if kind == recording.CRON_JOBS:
        spec = {"schedule": "0 3 * * *", "jobTemplate": {"spec": spec}}
    called = "cronjob/cart" if kind == recording.CRON_JOBS else "job/cart"
    answers = healthy() | {recording.PODS: [], kind: [{"metadata": {"name": "cart"}, "spec": spec}]}
    diagnosis = examine(answers, pod_name="")
    (finding,) = diagnosis.findings
    assert (finding.id, finding.severity, diagnosis.exit_code) == ("pod-missing", "note", 0)
    assert finding.found == f"{called} without a pod now"
    assert commands(finding.repair) == []
    # A Job of another service account doesn't count.
    template["spec"]["serviceAccountName"] = "web"
    (finding,) = examine(answers, pod_name="").findings
    assert (finding.severity, len(commands(finding.repair))) == ("warning", 1)


@pytest.mark.parametrize("pod_name", ["", "my-pod"])
def test_the_repair_makes_no_pod_if_the_caller_may_not_list_deployments(pod_name):
    answers = healthy() | {recording.PODS: []}
    del answers[recording.DEPLOYMENTS]
    (finding,) = examine(answers, pod_name=pod_name).findings
    assert finding.id == "pod-missing"
    assert [line for line in finding.repair.splitlines() if not line.startswith("#")] == []


def test_the_finding_says_why_a_deployment_could_not_make_its_pod():
    answers = without_pods(workload())
    message = 'Error creating: pods "cart-1-" is forbidden: exceeded quota: small'
    involved = {"kind": "ReplicaSet", "name": "cart-1"}
    answers[recording.EVENTS] = [{"reason": "FailedCreate", "message": message, "involvedObject": involved}]
    (finding,) = examine(answers, pod_name="").findings
    assert (finding.id, finding.found) == ("pod-missing", f"deployment/cart: {message}")
    assert "echo" not in finding.repair
    # The event is about the ReplicaSet, so `kubectl describe deployment` doesn't print it.
    assert finding.repair.splitlines()[-1] == "# kubectl get events -n default --field-selector reason=FailedCreate"
    (finding,) = examine(answers | {recording.EVENTS: []}, pod_name="").findings
    assert finding.found == "deployment/cart: it has made no pod yet"
    assert finding.repair.splitlines()[-1] == "# kubectl describe deployment/cart -n default"


def test_the_repair_does_not_recreate_a_replaced_pod_and_names_its_successor():
    answers = owned([])
    answers[recording.DEPLOYMENTS] = [workload()]
    answers[recording.PODS][0]["metadata"] |= {"name": "cart-7b4f9c6d5f-bbbbb", "labels": {"app": "cart"}}
    (finding,) = examine(answers, pod_name="cart-5f6d8b9c7d-x2x4b").findings
    assert finding.found == "no such pod; deployment/cart has other pods: cart-7b4f9c6d5f-bbbbb"
    assert [line for line in finding.repair.splitlines() if not line.startswith("#")] == []
    assert "--pod cart-7b4f9c6d5f-bbbbb" in finding.repair
    # A pod with an unknown owner isn't recreated either.
    (finding,) = examine(healthy(), pod_name="shop-5f6d8b9c7d-x2x4b").findings
    assert finding.repair.splitlines()[-1] == "# kubectl get pods -n default"


def replica_set_pod(hashed, at, *, has_role):
    """A Deployment's pod of the ReplicaSet with this hash."""
    live = a_pod()
    owner = {"kind": "ReplicaSet", "name": f"cart-{hashed}", "controller": True}
    labels = {"app": "cart", "pod-template-hash": hashed}
    live["metadata"] |= {"name": f"cart-{hashed}-x", "creationTimestamp": at, "ownerReferences": [owner]}
    live["metadata"]["labels"] = labels
    if not has_role:
        live["spec"]["containers"][0].pop("env")
        live["spec"]["volumes"] = []
    return live


def rollout(*, new_has_role):
    answers = healthy()
    old = replica_set_pod("old", "2026-01-01T00:00:10Z", has_role=False)
    new = replica_set_pod("new", "2026-01-01T00:07:00Z", has_role=new_has_role)
    answers[recording.PODS] = [old, new]
    above = [{"kind": "Deployment", "name": "cart", "controller": True}]
    for hashed in ("old", "new"):
        metadata = {"name": f"cart-{hashed}", "ownerReferences": above}
        answers[f"get replicaset cart-{hashed} -n default"] = {"metadata": metadata}
    answers["get deployment cart -n default"] = deployment([])
    return answers


def examine_all(answers):
    def evidence(name):
        return Evidence(recording.PARAMETERS, recording.CONNECTION, pod_name=name, probe=False, reads=Reads(answers))

    return doctor.examination.examine_pods(evidence)


def test_during_a_rollout_the_repair_of_the_old_pod_only_waits_for_its_end():
    diagnosis = examine_all(rollout(new_has_role=True))
    assert diagnosis.pods == ["cart-new-x", "cart-old-x"]
    (finding,) = diagnosis.findings
    assert finding.id == "pod-older-than-annotation"
    assert commands(finding.repair) == ["kubectl rollout status deployment/cart -n default --timeout=90s"]


def test_two_pods_of_one_deployment_with_one_fault_give_one_finding_and_one_restart():
    (finding,) = examine_all(rollout(new_has_role=False)).findings
    assert finding.repair.count("rollout restart") == 1


def test_a_terminating_pod_is_not_checked():
    answers = rollout(new_has_role=True)
    answers[recording.PODS][0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:08:00Z"
    diagnosis = examine_all(answers)
    assert (diagnosis.pods, diagnosis.findings) == (["cart-new-x"], [])


def commands_of(diagnosis):
    return list(filter(None, commands(diagnosis.script())))


def test_two_repairs_restart_a_deployment_once_and_after_the_webhook_is_back():
    answers = rollout(new_has_role=False)
    answers[recording.PODS] = answers[recording.PODS][1:]
    answers[recording.WEBHOOK] = None
    answers[recording.SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {}
    diagnosis = examine(answers, pod_name="cart-new-x")
    assert [finding.id for finding in diagnosis.findings] == ["webhook-missing", "service-account-annotation-missing"]
    assert [line.partition(" -n ")[0] for line in commands_of(diagnosis)] == [
        "labkit reset",
        "kubectl annotate serviceaccount my-service-account",
        "kubectl rollout restart deployment/cart",
        "kubectl rollout status deployment/cart",
    ]


def test_the_webhook_is_repaired_before_a_pod_is_recreated():
    answers = applying(lambda m: m["spec"].pop("serviceAccountName"))
    answers[recording.WEBHOOK] = None
    diagnosis = examine(answers)
    assert [finding.id for finding in diagnosis.findings] == ["pod-uses-another-service-account", "webhook-missing"]
    lines = commands_of(diagnosis)
    assert [line.split()[0:3] for line in lines][:2] == [["labkit", "reset"], ["kubectl", "delete", "pod"]]
    assert found(applied(answers, "\n".join(lines))) == []


def test_a_deployment_is_started_after_its_service_account_is_annotated():
    answers = without_pods(workload(replicas=0))
    answers[recording.SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {}
    lines = commands_of(examine(answers, pod_name=""))
    assert [line.split()[1] for line in lines] == ["annotate", "scale"]
