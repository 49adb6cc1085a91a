"""The pod identity webhook: each fault is found alone, and its repair leaves nothing to be found."""

import base64
import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from labkit.steps import pod
from tests.doctor.applying import applied, made
from tests.doctor.recording import EVENTS, NAMESPACE, PARAMETERS, PODS, WEBHOOK, WEBHOOK_ANSWERS, healthy
from tests.doctor.test_pod import applying, examine, found

SKIP = "eks.amazonaws.com/skip-containers"
OPT_OUT = "eks.amazonaws.com/skip-pod-identity-webhook"
TOKEN_PATH = "/var/run/secrets/eks.amazonaws.com/serviceaccount"


def registered(**client):
    """A lab whose webhook is registered otherwise, and whose pod was made since."""
    answers = healthy()
    answers[WEBHOOK]["webhooks"][0]["clientConfig"] |= client
    answers[PODS] = [made(pod.build(PARAMETERS), answers)]
    return answers


def expired():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    began = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(began).not_valid_after(began + datetime.timedelta(days=1))
    return base64.b64encode(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)).decode()


def silent():
    answers = healthy() | {WEBHOOK_ANSWERS: "Connection refused"}
    answers[PODS] = [made(pod.build(PARAMETERS), answers | {WEBHOOK: None})]
    return answers


def of_a_service(service, endpoints):
    answers = registered(service={"namespace": "kube-system", "name": "webhook"})
    del answers[WEBHOOK]["webhooks"][0]["clientConfig"]["url"]
    answers["get service webhook -n kube-system"] = service
    answers["get endpoints webhook -n kube-system"] = endpoints
    return answers


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (registered(caBundle=""), "caBundle: empty"),
        (registered(caBundle="bm90IGEgY2VydGlmaWNhdGU="), "caBundle: no certificate"),
        (registered(caBundle="%"), "caBundle: no certificate"),
        (registered(caBundle=expired()), "caBundle: expired on 2020-01-02"),
        (registered(url=""), "neither a URL nor a service"),
        (silent(), "https://127.0.0.1:8443/mutate: Connection refused"),
        (of_a_service(None, None), "no service webhook in namespace kube-system"),
        (of_a_service({}, {"subsets": []}), "nobody answers for the service kube-system/webhook"),
    ],
)
def test_a_webhook_that_cannot_be_called_is_found_alone(answers, says):
    diagnosis = examine(answers)
    assert [finding.id for finding in diagnosis.findings] == ["webhook-unreachable"]
    (finding,) = diagnosis.findings
    assert finding.found == f"{says} (failurePolicy: Ignore)"
    assert found(applied(answers | {WEBHOOK_ANSWERS: ""}, finding.repair)) == []


def test_whether_the_webhook_answers_is_not_asked_where_pods_have_their_role():
    assert found(healthy() | {WEBHOOK_ANSWERS: "Connection refused"}) == []


def test_no_webhook_is_found_and_the_pod_made_anew_after_it():
    answers = healthy() | {WEBHOOK: None}
    answers[PODS] = [made(pod.build(PARAMETERS), answers)]
    (finding,) = examine(answers).findings
    assert finding.id == "webhook-missing"
    assert finding.repair.splitlines()[1].startswith("kubectl delete pod my-pod")
    assert found(applied(answers, finding.repair)) == []


def opted_out(manifest):
    manifest["metadata"]["labels"] = {**manifest["metadata"]["labels"], OPT_OUT: "true"}


def in_a_namespace_that_opted_out():
    answers = healthy()
    selector = {"matchExpressions": [{"key": "no-webhook", "operator": "NotIn", "values": ["yes"]}]}
    answers[WEBHOOK]["webhooks"][0]["namespaceSelector"] = selector
    answers[NAMESPACE]["metadata"]["labels"]["no-webhook"] = "yes"
    answers[PODS] = [made(pod.build(PARAMETERS), answers)]
    return answers


def with_volume(name, path):
    def change(manifest):
        manifest["spec"]["volumes"] = [{"name": name, "emptyDir": {}}]
        manifest["spec"]["containers"][0]["volumeMounts"] = [{"name": name, "mountPath": path}]

    return change


def with_own_mount():
    answers = applying(with_volume("cache", "/cache"))
    container = answers[PODS][0]["spec"]["containers"][0]
    container["volumeMounts"].append({"name": "cache", "mountPath": TOKEN_PATH})
    return answers


@pytest.mark.parametrize(
    ("id", "answers"),
    [
        ("pod-opted-out-of-webhook", applying(opted_out)),
        ("pod-opted-out-of-webhook", in_a_namespace_that_opted_out()),
        ("pod-container-skipped", applying(lambda m: m["metadata"].update(annotations={SKIP: "aws"}))),
        ("pod-volume-name-taken", applying(with_volume("aws-iam-token", "/cache"))),
        ("pod-volume-name-taken", applying(with_volume("aws-iam-token", TOKEN_PATH))),
        ("pod-mount-path-twice", with_own_mount()),
    ],
)
def test_what_keeps_the_webhook_from_a_pod_is_found_alone_and_mended_by_its_repair(id, answers):
    diagnosis = examine(answers)
    assert [finding.id for finding in diagnosis.findings] == [id]
    (finding,) = diagnosis.findings
    assert finding.severity == "error"
    assert found(applied(answers, finding.repair)) == []


def test_a_sidecar_that_is_skipped_is_a_note_and_stays_so_when_something_else_is_repaired():
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
    """A lab whose Deployment's pod is refused, since something else is mounted where the token goes."""
    container = {"name": "aws", "image": "amazon/aws-cli", "volumeMounts": [{"name": "own", "mountPath": TOKEN_PATH}]}
    spec = {"serviceAccountName": "my-service-account", "containers": [container]}
    event = {
        "reason": "FailedCreate",
        "message": f'Error creating: spec.containers[0].volumeMounts[2].mountPath: "{TOKEN_PATH}": must be unique',
        "involvedObject": {"kind": "ReplicaSet", "name": "cart-1"},
    }
    above = [{"kind": "Deployment", "name": "cart", "controller": True}]
    return healthy() | {
        PODS: [],
        EVENTS: [event],
        "get replicaset cart-1 -n default": {"metadata": {"name": "cart-1", "ownerReferences": above}},
        "get deployment cart -n default": {
            "metadata": {"name": "cart"},
            "spec": {"template": {"metadata": {}, "spec": spec}},
            "status": status,
        },
    }


def test_a_pod_that_is_refused_for_two_mounts_at_one_path_is_seen_by_its_owner_s_events():
    (finding,) = examine(failing({}), pod_name="").findings
    assert finding.id == "pod-mount-path-twice"
    assert finding.repair.startswith("kubectl patch deployment/cart -n default --type=merge")
    assert found(failing({"readyReplicas": 1}), pod_name="") == ["pod-missing"]
