"""The pod identity webhook: each fault gives one finding, and its repair mends it."""

import base64
import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from labkit.connection import Connection
from labkit.doctor import examination
from labkit.doctor.evidence import Evidence, Reads
from labkit.simulator import Authority
from labkit.steps import pod
from labkit.targets import eks
from tests.doctor import recording
from tests.doctor.applying import applied, made
from tests.doctor.pods import applying, examine, found
from tests.doctor.recording import healthy
from tests.doctor.registering import OPT_OUT, in_a_namespace_that_opted_out, patch_of
from tests.doctor.repairing import commands

SKIP = "eks.amazonaws.com/skip-containers"
TOKEN_PATH = "/var/run/secrets/eks.amazonaws.com/serviceaccount"


def registered(**client):
    """A lab with this client configuration of the webhook, and a pod that was made after the change."""
    answers = healthy()
    webhook = answers[recording.WEBHOOK]["webhooks"][0]
    webhook["clientConfig"] |= client
    webhook["objectSelector"]["matchExpressions"].append({"key": "team", "operator": "NotIn", "values": ["b"]})
    answers[recording.PODS] = [made(pod.build(recording.PARAMETERS), answers)]
    return answers


def expired():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    began = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(began).not_valid_after(began + datetime.timedelta(days=1))
    return base64.b64encode(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)).decode()


def silent():
    answers = healthy() | {recording.WEBHOOK_ANSWERS: "Connection refused"}
    answers[recording.PODS] = [made(pod.build(recording.PARAMETERS), answers | {recording.WEBHOOK: None})]
    return answers


def of_a_service(service, endpoints):
    answers = registered(service={"namespace": "kube-system", "name": "webhook"})
    del answers[recording.WEBHOOK]["webhooks"][0]["clientConfig"]["url"]
    answers["get service webhook -n kube-system"] = service
    answers["get endpoints webhook -n kube-system"] = endpoints
    return answers


@pytest.mark.parametrize(("answers", "says"), [
    (registered(caBundle=""), "caBundle: empty"),
    (registered(caBundle="bm90IGEgY2VydGlmaWNhdGU="), "caBundle: no certificate"),
    (registered(caBundle="%"), "caBundle: no certificate"),
    (registered(caBundle=expired()), "caBundle: expired on 2020-01-02"),
    (registered(url=""), "neither a URL nor a service"),
    (of_a_service(None, None), "no service webhook in namespace kube-system"),
    (of_a_service({}, {"subsets": []}), "the service kube-system/webhook has no ready endpoint"),
])  # fmt: skip
def test_a_webhook_that_cannot_be_called_gives_one_finding_and_its_repair_mends_it(answers, says):
    diagnosis = examine(answers)
    assert [finding.id for finding in diagnosis.findings] == ["webhook-unreachable"]
    (finding,) = diagnosis.findings
    assert finding.found == f"{says} (failurePolicy: Ignore)"
    after = applied(answers, finding.repair)
    assert found(after) == []
    # Another team's selector has to stay, so only the clientConfig changes.
    client = healthy()[recording.WEBHOOK]["webhooks"][0]["clientConfig"]
    assert after[recording.WEBHOOK]["webhooks"] == [
        {**answers[recording.WEBHOOK]["webhooks"][0], "clientConfig": client}
    ]
    steps = [step["op"] for step in patch_of(finding.repair)]
    assert steps[0] == "test" and set(steps) <= {"test", "replace", "remove", "add"}
    assert "# --- mutatingwebhookconfiguration/pod-identity-webhook, as it is" in finding.repair.splitlines()


def test_the_repair_of_another_webhooks_registration_does_not_restore_the_labs():
    """`labkit webhook serve` has a URL and a certificate of its own."""
    other = base64.b64encode(Authority.create("pod-identity-webhook").certificate_pem).decode()
    answers = registered(url="https://127.0.0.1:9443/mutate", caBundle=other)
    answers["get https://127.0.0.1:9443/mutate"] = "Connection refused"
    (finding,) = examine(answers).findings
    assert (finding.id, commands(finding.repair)) == ("webhook-unreachable", [])
    assert "the registered webhook is https://127.0.0.1:9443/mutate, not the one of this lab" in finding.repair
    assert "labkit webhook manifest --listen 127.0.0.1:9443 | kubectl apply -f -" in finding.repair


def test_the_repair_of_a_silent_but_correctly_registered_webhook_has_no_command():
    (finding,) = examine(silent()).findings
    assert finding.found == "https://127.0.0.1:8443/mutate: Connection refused (failurePolicy: Ignore)"
    assert commands(finding.repair) == []


def test_on_eks_the_repair_of_a_wrong_client_configuration_has_no_command():
    (finding,) = examine_on_eks(registered(caBundle=""))
    assert finding.id == "webhook-unreachable"
    assert commands(finding.repair) == [] and eks.WEBHOOK_RESTORED_BY in finding.repair


def test_on_eks_the_repair_of_a_missing_webhook_has_no_command():
    """A new pod would lack its role again, so the pod stays until the webhook is back."""
    answers = healthy() | {recording.WEBHOOK: None}
    answers[recording.PODS] = [made(pod.build(recording.PARAMETERS), answers)]
    (finding,) = examine_on_eks(answers)
    assert finding.id == "webhook-missing"
    assert commands(finding.repair) == [] and eks.WEBHOOK_RESTORED_BY in finding.repair
    assert "kubectl delete pod my-pod" in finding.repair


def examine_on_eks(answers):
    on_eks = Connection(
        aws=None,
        kubernetes=None,
        issuer=recording.ISSUER,
        account_id=recording.ACCOUNT_ID,
        webhook_restored_by=eks.WEBHOOK_RESTORED_BY,
    )
    return examination.examine(Evidence(recording.PARAMETERS, on_eks, reads=Reads(answers), probe=False)).findings


def test_a_silent_webhook_is_not_reported_if_the_pod_has_its_role():
    assert found(healthy() | {recording.WEBHOOK_ANSWERS: "Connection refused"}) == []


def test_the_repair_of_a_missing_webhook_replaces_the_pod_afterwards():
    answers = healthy() | {recording.WEBHOOK: None}
    answers[recording.PODS] = [made(pod.build(recording.PARAMETERS), answers)]
    (finding,) = examine(answers).findings
    assert finding.id == "webhook-missing"
    assert commands(finding.repair)[1].startswith("kubectl delete pod my-pod")
    assert found(applied(answers, finding.repair)) == []


def opted_out(manifest):
    manifest["metadata"]["labels"] = {**manifest["metadata"]["labels"], OPT_OUT: "true"}


def with_token_for_vault(manifest):
    """A volume of the webhook's name that holds a token for another service."""
    with_volume("aws-iam-token", "/var/run/secrets/vault")(manifest)
    token = {"path": "vault-token", "audience": "vault", "expirationSeconds": 3600}
    sources = [{"serviceAccountToken": token}]
    manifest["spec"]["volumes"] = [{"name": "aws-iam-token", "projected": {"sources": sources}}]


def with_volume(name, path):
    def change(manifest):
        manifest["spec"]["volumes"] = [{"name": name, "emptyDir": {}}]
        manifest["spec"]["containers"][0]["volumeMounts"] = [{"name": name, "mountPath": path}]

    return change


def with_own_mount():
    answers = applying(with_volume("cache", "/cache"))
    container = answers[recording.PODS][0]["spec"]["containers"][0]
    container["volumeMounts"].append({"name": "cache", "mountPath": TOKEN_PATH})
    return answers


@pytest.mark.parametrize(("id", "answers"), [
    ("pod-opted-out-of-webhook", applying(opted_out)),
    ("pod-opted-out-of-webhook", in_a_namespace_that_opted_out()),
    ("pod-container-skipped", applying(lambda m: m["metadata"].update(annotations={SKIP: "aws"}))),
    ("pod-volume-name-taken", applying(with_volume("aws-iam-token", "/cache"))),
    ("pod-volume-name-taken", applying(with_volume("aws-iam-token", TOKEN_PATH))),
    ("pod-volume-name-taken", applying(with_token_for_vault)),
    ("pod-mount-path-twice", with_own_mount()),
])  # fmt: skip
def test_a_setting_that_keeps_the_webhook_out_gives_one_finding_and_its_repair_mends_it(id, answers):
    diagnosis = examine(answers)
    assert [finding.id for finding in diagnosis.findings] == [id]
    (finding,) = diagnosis.findings
    assert finding.severity == "error"
    assert found(applied(answers, finding.repair)) == []


def test_a_skipped_sidecar_is_a_note_and_stays_skipped_after_another_repair():
    def change(manifest):
        manifest["spec"]["containers"].append({"name": "proxy", "image": "proxy"})
        manifest["metadata"]["annotations"] = {SKIP: "proxy"}

    (finding,) = examine(applying(change)).findings
    assert (finding.id, finding.severity) == ("pod-container-skipped", "note")
    answers = applying(
        lambda m: (change(m), m["spec"]["containers"][0].update(env=[{"name": "AWS_PROFILE", "value": "a"}]))
    )
    error = next(finding for finding in examine(answers).findings if finding.severity == "error")
    assert found(applied(answers, error.repair)) == ["pod-container-skipped"]


def failing(status):
    """A lab that refuses a Deployment's pod, because another volume is mounted at the token's path."""
    container = {"name": "aws", "image": "amazon/aws-cli", "volumeMounts": [{"name": "own", "mountPath": TOKEN_PATH}]}
    spec = {"serviceAccountName": "my-service-account", "containers": [container]}
    event = {
        "reason": "FailedCreate",
        "message": f'Error creating: spec.containers[0].volumeMounts[2].mountPath: "{TOKEN_PATH}": must be unique',
        "involvedObject": {"kind": "ReplicaSet", "name": "cart-1"},
    }
    above = [{"kind": "Deployment", "name": "cart", "controller": True}]
    return healthy() | {
        recording.PODS: [],
        recording.EVENTS: [event],
        "get replicaset cart-1 -n default": {"metadata": {"name": "cart-1", "ownerReferences": above}},
        "get deployment cart -n default": {
            "metadata": {"name": "cart"},
            "spec": {"template": {"metadata": {}, "spec": spec}},
            "status": status,
        },
    }


def test_the_owners_events_show_a_pod_that_is_refused_for_two_mounts_at_one_path():
    (finding,) = examine(failing({}), pod_name="").findings
    assert finding.id == "pod-mount-path-twice"
    assert commands(finding.repair)[0].startswith("kubectl patch deployment/cart -n default --type=json")
    assert found(failing({"readyReplicas": 1}), pod_name="") == ["pod-missing"]


def test_a_webhook_that_fails_closed_explains_why_there_is_no_pod():
    answers = registered(caBundle="")
    answers[recording.WEBHOOK]["webhooks"][0]["failurePolicy"] = "Fail"
    answers[recording.PODS] = []
    assert found(answers) == ["webhook-unreachable"]
