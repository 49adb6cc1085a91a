"""Deployments in a running lab, and faults that keep the webhook from their pods: the findings and the repairs."""

import base64
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from kubernetes.client import AdmissionregistrationV1Api, AppsV1Api, CoreV1Api
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from labkit.connection import awaited
from labkit.simulator import Authority
from labkit.steps import pod as pod_step
from tests.commands import labkit
from tests.doctor.repairing import commands

pytestmark = pytest.mark.kubectl

PROGRAMS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
NAME = "pod-identity-webhook"
REGISTRATION = f"mutatingwebhookconfiguration/{NAME}"


@pytest.fixture(scope="module")
def shell(lab):
    """A function that runs a script after `eval "$(labkit env)"`. A failing command fails the test."""
    pod_step.delete(lab, "my-pod", "default")
    prepared = labkit("env").stdout

    def run(script):
        command = ["bash", "-ec", f"{prepared}\n{script}"]
        done = subprocess.run(
            command, env={**os.environ, "PATH": PROGRAMS}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def registration(lab):
    """A function that edits the webhook's registration, which is restored after the test."""
    api = AdmissionregistrationV1Api(lab.kubernetes)

    def read():
        registration = lab.kubernetes.sanitize_for_serialization(api.read_mutating_webhook_configuration(NAME))
        return {**registration, "metadata": {"name": NAME}}

    def edit(change):
        changed = read()
        change(changed["webhooks"][0])
        api.replace_mutating_webhook_configuration(NAME, changed)

    before = read()
    edit.read = read
    yield edit
    api.replace_mutating_webhook_configuration(NAME, before)


@pytest.fixture
def cart(lab, shell):
    """Make the Deployment `cart`, and wait until its pods run."""

    # Kubernetes' times are whole seconds, and the annotation has to be older than the pods.
    lab.clock.advance(seconds=1)

    def make(*, account="my-service-account", app="cart", wait=True, **pod):
        container = {"name": "aws", "image": "amazon/aws-cli", "command": ["sleep", "infinity"]}
        spec = {"containers": [container], "terminationGracePeriodSeconds": 0, **pod}
        labels = {"app": app}
        template = {"metadata": {"labels": labels}, "spec": spec | ({"serviceAccountName": account} if account else {})}
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        AppsV1Api(lab.kubernetes).create_namespaced_deployment("default", {"metadata": {"name": "cart"}, "spec": spec})
        if wait:
            shell("kubectl rollout status deployment/cart --timeout=60s")

    yield make
    shell("kubectl delete deployment cart --cascade=foreground --timeout=60s")


def found(*options):
    """The report of `labkit doctor --json` without its notes."""
    diagnosis = json.loads(labkit("doctor", "--json", *options).stdout)
    diagnosis["findings"] = [each for each in diagnosis["findings"] if each["severity"] != "note"]
    return diagnosis


def only(*options):
    (finding,) = found(*options)["findings"]
    return finding


def pods(lab):
    """The kinds of the pods' owners, without the pods that are being deleted."""
    listed = CoreV1Api(lab.kubernetes).list_namespaced_pod("default").items
    there = [each.metadata for each in listed if not each.metadata.deletion_timestamp]
    return [owner.kind for each in there for owner in each.owner_references or [each]]


def selecting(**selectors):
    def change(webhook):
        for name, selector in selectors.items():
            webhook[name] = {**webhook.get(name, {}), **selector}

    return change


@pytest.mark.parametrize(("change", "id"), [
    (selecting(namespaceSelector={"matchLabels": {"team": "platform"}}), "webhook-not-asked-about-pod"),
    (selecting(objectSelector={"matchLabels": {"irsa": "yes"}}), "webhook-not-asked-about-pod"),
    (selecting(namespaceSelector={"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn",
            "values": ["kube-system", "default"]}]}), "pod-opted-out-of-webhook"),
], ids=["namespaces", "pods", "not in"])  # fmt: skip
def test_the_repair_removes_only_the_selector_that_leaves_the_pods_out(lab, shell, registration, cart, change, id):
    before = registration.read()
    registration(change)
    cart()
    finding = only()
    assert finding["id"] == id
    assert f"# --- {REGISTRATION}, as it is" in finding["repair"]
    # Applying the original registration again doesn't remove the selector.
    shell('kubectl apply -f "$LABKIT_HOME/clusters/blue/webhook.json"')
    assert only()["id"] == id
    shell(finding["repair"])
    assert found()["findings"] == []
    assert registration.read()["webhooks"][0]["clientConfig"] == before["webhooks"][0]["clientConfig"]
    assert "kube-system" in json.dumps(registration.read()) or registration.read() == before


def other_bundle(webhook):
    bundle = Authority.create("kubernetes").certificate_pem
    webhook["clientConfig"]["caBundle"] = base64.b64encode(bundle).decode()


def other_path(webhook):
    webhook["clientConfig"]["url"] += "d"


def test_a_ca_bundle_of_another_authority_is_found_without_a_probe(shell, registration, cart):
    registration(other_bundle)
    cart()
    finding = only()
    assert finding["id"] == "webhook-unreachable"
    assert "certificate" in finding["found"]
    shell(finding["repair"])
    assert found()["findings"] == []


def test_a_probe_finds_a_wrong_webhook_url_by_counters_and_a_dry_run_that_makes_no_pod(lab, shell, registration, cart):
    registration(other_path)
    cart()
    said = labkit("doctor", "--verbose").stdout
    assert "webhook-passed-over-pod" in said and "pod-older-than-annotation" not in said
    assert "Not read: create pod --dry-run=server" in said
    there = pods(lab)
    finding = only("--probe")
    assert pods(lab) == there
    assert finding["id"] == "webhook-unreachable"
    counter = 'apiserver_admission_webhook_fail_open_count{name="iam-for-pods.amazonaws.com",type="admit"} rose from '
    assert finding["found"].startswith(counter)
    # If the webhook fails closed, the API server refuses the dry run itself.
    registration(lambda webhook: webhook.update(failurePolicy="Fail"))
    assert only("--probe")["found"].startswith('Internal error occurred: failed calling webhook "iam-for-pods')
    shell(finding["repair"])
    assert found("--probe")["findings"] == []


def test_the_repair_mends_a_pod_that_the_webhook_missed(shell, registration, cart):
    registration(other_path)
    cart()
    shell('kubectl apply -f "$LABKIT_HOME/clusters/blue/webhook.json"')
    finding = only("--probe")
    assert finding["id"] == "webhook-passed-over-pod"
    assert finding["found"].endswith("a pod like this one would get the role now")
    shell(finding["repair"])
    assert found()["findings"] == []


def test_the_repair_patches_a_deployment_without_service_account_and_makes_no_pod(lab, shell, cart):
    cart(account="", app="my-service-account")
    finding = only()
    assert (finding["id"], finding["found"]) == ("pod-missing", "deployment/cart without serviceAccountName")
    shell(finding["repair"])
    diagnosis = found("--probe")
    assert (diagnosis["findings"], len(diagnosis["pods"])) == ([], 1)
    assert pods(lab) == ["ReplicaSet"]


def test_the_repair_makes_no_pod_for_a_replaced_pod_or_a_deployment_of_no_replicas(lab, shell, cart):
    cart()
    (before,) = found()["pods"]
    shell("kubectl rollout restart deployment/cart && kubectl rollout status deployment/cart --timeout=60s")
    shell(f"kubectl wait --for=delete pod/{before} --timeout=60s")
    replaced = only("--pod", before)
    (now,) = found()["pods"]
    assert replaced["found"] == f"no such pod; deployment/cart has other pods: {now}"
    shell(replaced["repair"])
    shell(f"kubectl scale deployment/cart --replicas=0 && kubectl wait --for=delete pod/{now} --timeout=60s")
    for options in ([], ["--pod", now]):
        assert only(*options)["found"] == "deployment/cart has replicas: 0"
    assert pods(lab) == []
    shell(only()["repair"])
    shell("kubectl rollout status deployment/cart --timeout=60s")
    assert pods(lab) == ["ReplicaSet"]


WITH_KEYS = {"env": [{"name": "AWS_ACCESS_KEY_ID", "value": "AKIAIOSFODNN7EXAMPLE"}]}


def test_the_repair_of_a_paused_deployment_has_no_command(shell, cart):
    cart(containers=[{"name": "aws", "image": "amazon/aws-cli", "command": ["sleep", "infinity"], **WITH_KEYS}])
    shell("kubectl rollout pause deployment/cart")
    repair = only()["repair"]
    assert commands(repair) == []
    assert "\n#   kubectl rollout resume deployment/cart -n default\n" in repair
    shell("\n".join(line.removeprefix("#   ") for line in repair.splitlines() if line.startswith("#   kubectl")))
    assert found("--probe")["findings"] == []


@pytest.mark.parametrize("has_keys", [True, False])
def test_the_repair_recreates_the_pods_of_a_replica_set_without_a_deployment(lab, shell, has_keys):
    container = {"name": "aws", "image": "amazon/aws-cli", "command": ["sleep", "infinity"]}
    pod = {"containers": [container | (WITH_KEYS if has_keys else {})], "terminationGracePeriodSeconds": 0}
    template = {"metadata": {"labels": {"app": "cart"}}, "spec": {"serviceAccountName": "my-service-account", **pod}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "cart"}}, "template": template}
    core, apps = CoreV1Api(lab.kubernetes), AppsV1Api(lab.kubernetes)
    annotations = core.read_namespaced_service_account("my-service-account", "default").metadata.annotations
    if not has_keys:
        shell("kubectl annotate serviceaccount my-service-account eks.amazonaws.com/role-arn-")
    apps.create_namespaced_replica_set("default", {"metadata": {"name": "cart"}, "spec": spec})
    running = "kubectl wait replicaset/cart --for=jsonpath='{.status.readyReplicas}'=2 --timeout=60s"
    try:
        shell(running)
        body = {"metadata": {"annotations": annotations}}
        core.patch_namespaced_service_account("my-service-account", "default", body)
        shell(only()["repair"])
        shell(running)
        assert found("--probe")["findings"] == []
    finally:
        shell("kubectl delete replicaset cart --cascade=foreground --timeout=60s")


def test_in_a_stalled_rollout_both_pods_are_listed_and_the_scheduler_is_quoted(lab, shell, cart):
    cart()
    (before,) = found()["pods"]
    selector = json.dumps({"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}})
    shell(f"kubectl patch deployment/cart --type=merge -p '{selector}'")
    core = CoreV1Api(lab.kubernetes)
    until(lambda: any(each.reason == "FailedScheduling" for each in core.list_namespaced_event("default").items))
    diagnosis = found()
    assert len(diagnosis["pods"]) == 2 and before in diagnosis["pods"]
    (finding,) = diagnosis["findings"]
    assert finding["id"] == "pod-not-running"
    assert finding["found"].startswith("Pending: Unschedulable: 0/1 nodes are available: ")


def test_the_webhook_is_repaired_before_the_deployment_is_rolled_out_once(lab, shell, registration, cart):
    before = registration.read()
    AdmissionregistrationV1Api(lab.kubernetes).delete_mutating_webhook_configuration(NAME)
    try:
        cart(account="")
        name = CoreV1Api(lab.kubernetes).list_namespaced_pod("default").items[0].metadata.name
        findings = found("--pod", name)["findings"]
        assert {each["id"] for each in findings} == {"pod-uses-another-service-account", "webhook-missing"}
        script = "\n".join(each["repair"] for each in findings)
        shell(script)
        assert [script.count(part) for part in ("patch deployment/cart", "rollout status")] == [1, 1]
        assert script.index("webhook.json") < script.index("patch deployment/cart")
        assert found()["findings"] == []
    finally:
        shell(f"kubectl create -f - <<'END' || true\n{json.dumps(before)}\nEND")


def until(is_so):
    """Wait until the condition is true; fail after a minute."""
    retry(retry=retry_if_result(lambda so: not so), stop=stop_after_delay(60), wait=wait_fixed(0.1))(is_so)()


MOUNTED = {
    "volumes": [{"name": "own", "emptyDir": {}}],
    "containers": [{
        "name": "aws", "image": "amazon/aws-cli", "command": ["sleep", "infinity"],
        "volumeMounts": [{"name": "own", "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount"}],
    }],
}  # fmt: skip
NEWER = "amazon/aws-cli:2.99"


def test_a_repair_keeps_the_image_that_somebody_set_after_the_diagnosis(lab, shell, cart):
    cart(wait=False, **MOUNTED)
    is_seen = lambda findings: [each["id"] for each in findings] == ["pod-mount-path-twice"]  # noqa: E731
    (finding,) = awaited(lambda: found()["findings"], is_seen, within=60, every=0.2)
    shell(f"kubectl set image deployment/cart aws={NEWER}")
    printed = shell(f"{finding['repair']} || true")
    assert printed.strip().endswith(
        "deployment/cart was not changed. If the request is invalid, it changed since: run labkit doctor again"
    )
    (container,) = AppsV1Api(lab.kubernetes).read_namespaced_deployment("cart", "default").spec.template.spec.containers
    assert (container.image, bool(container.volume_mounts)) == (NEWER, True)
    shell(only()["repair"])
    (container,) = AppsV1Api(lab.kubernetes).read_namespaced_deployment("cart", "default").spec.template.spec.containers
    assert (container.image, container.volume_mounts) == (NEWER, None)
    assert found()["findings"] == []


def test_a_pod_that_somebody_changed_after_the_diagnosis_is_not_replaced(lab, shell):
    account = shlex.quote('{"spec": {"serviceAccountName": "my-service-account"}}')
    options = f"--image=amazon/aws-cli --env=AWS_PROFILE=dev --overrides={account}"
    shell(f"kubectl run cart {options} --command -- sleep infinity")
    try:
        shell("kubectl wait pod/cart --for=condition=Ready --timeout=60s")
        repair = next(each["repair"] for each in found("--pod", "cart")["findings"])
        shell(f"kubectl set image pod/cart cart={NEWER}")
        printed = shell(repair)
        assert "If the pod cart was not replaced, it changed since: run labkit doctor again" in printed
        assert CoreV1Api(lab.kubernetes).read_namespaced_pod("cart", "default").spec.containers[0].image == NEWER
    finally:
        shell("kubectl delete pod cart --grace-period=1")
