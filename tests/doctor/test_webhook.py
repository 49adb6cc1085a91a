"""The pod identity webhook: each fault is found alone, and its repair leaves nothing to be found."""

import base64
import datetime
import json
import shlex

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from labkit.connection import Connection
from labkit.diagnosis import stages
from labkit.diagnosis.evidence import Evidence, Reads
from labkit.doctor import examination
from labkit.steps import pod
from labkit.targets import eks
from tests.doctor.applying import applied, made
from tests.doctor.recording import (
    ACCOUNT_ID,
    ALL_SERVICE_ACCOUNTS,
    DRY_RUN,
    EVENTS,
    ISSUER,
    METRICS,
    METRICS_AGAIN,
    NAMESPACE,
    PARAMETERS,
    PODS,
    SERVICE_ACCOUNTS,
    WEBHOOK,
    WEBHOOK_ANSWERS,
    healthy,
)
from tests.doctor.repairing import commands
from tests.doctor.test_pod import applying, examine, found

SKIP = "eks.amazonaws.com/skip-containers"
OPT_OUT = "eks.amazonaws.com/skip-pod-identity-webhook"
TOKEN_PATH = "/var/run/secrets/eks.amazonaws.com/serviceaccount"


def registered(**client):
    """A lab whose webhook is registered otherwise, and whose pod was made since."""
    answers = healthy()
    webhook = answers[WEBHOOK]["webhooks"][0]
    webhook["clientConfig"] |= client
    webhook["objectSelector"]["matchExpressions"].append({"key": "team", "operator": "NotIn", "values": ["b"]})
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
        (of_a_service(None, None), "no service webhook in namespace kube-system"),
        (of_a_service({}, {"subsets": []}), "the service kube-system/webhook has no ready endpoint"),
    ],
)
def test_a_webhook_that_cannot_be_called_is_found_alone(answers, says):
    diagnosis = examine(answers)
    assert [finding.id for finding in diagnosis.findings] == ["webhook-unreachable"]
    (finding,) = diagnosis.findings
    assert finding.found == f"{says} (failurePolicy: Ignore)"
    after = applied(answers, finding.repair)
    assert found(after) == []
    # Another team keeps its pods out by a selector: nothing but the clientConfig changes.
    client = healthy()[WEBHOOK]["webhooks"][0]["clientConfig"]
    assert after[WEBHOOK]["webhooks"] == [{**answers[WEBHOOK]["webhooks"][0], "clientConfig": client}]
    assert [step["op"] for step in patch_of(finding.repair)] == ["test", "replace"]
    assert "# --- mutatingwebhookconfiguration/pod-identity-webhook, as it is" in finding.repair.splitlines()


def test_a_webhook_that_is_registered_rightly_and_does_not_answer_is_not_registered_again():
    (finding,) = examine(silent()).findings
    assert finding.found == "https://127.0.0.1:8443/mutate: Connection refused (failurePolicy: Ignore)"
    assert commands(finding.repair) == []


def test_where_nobody_knows_the_right_client_configuration_the_repair_is_words():
    (finding,) = examine_on_eks(registered(caBundle=""))
    assert finding.id == "webhook-unreachable"
    assert commands(finding.repair) == [] and eks.WEBHOOK_RESTORED_BY in finding.repair


def test_where_somebody_else_registers_the_webhook_the_pod_stays():
    """A new pod would come without its role again."""
    answers = healthy() | {WEBHOOK: None}
    answers[PODS] = [made(pod.build(PARAMETERS), answers)]
    (finding,) = examine_on_eks(answers)
    assert finding.id == "webhook-missing"
    assert commands(finding.repair) == [] and eks.WEBHOOK_RESTORED_BY in finding.repair
    assert "kubectl delete pod my-pod" in finding.repair


def examine_on_eks(answers):
    on_eks = Connection(
        aws=None,
        kubernetes=None,
        issuer=ISSUER,
        account_id=ACCOUNT_ID,
        webhook_restored_by=eks.WEBHOOK_RESTORED_BY,
    )
    return examination.examine(Evidence(PARAMETERS, on_eks, reads=Reads(answers), probe=False)).findings


def test_whether_the_webhook_answers_is_not_asked_where_pods_have_their_role():
    assert found(healthy() | {WEBHOOK_ANSWERS: "Connection refused"}) == []


def test_no_webhook_is_found_and_the_pod_replaced_after_it():
    answers = healthy() | {WEBHOOK: None}
    answers[PODS] = [made(pod.build(PARAMETERS), answers)]
    (finding,) = examine(answers).findings
    assert finding.id == "webhook-missing"
    assert commands(finding.repair)[1].startswith("kubectl delete pod my-pod")
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
    assert commands(finding.repair)[0].startswith("kubectl patch deployment/cart -n default --type=merge")
    assert found(failing({"readyReplicas": 1}), pod_name="") == ["pod-missing"]


# What the registration's selectors and rules leave out.

TEAM = {"team": "platform"}
SELECTORS = [
    ({"matchLabels": TEAM}, "team=platform", "no label team"),
    (
        {"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]},
        "team in (a, b)",
        "no label team",
    ),
    ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, "team=…", "no label team"),
    ({"matchLabels": {"app": "other"}}, "app=other", "app=cart"),
]


def selecting(**selectors):
    """A lab whose webhook is registered with these selectors beside its own, and whose pod was made since."""
    answers, manifest = healthy(), pod.build(PARAMETERS)
    webhook = answers[WEBHOOK]["webhooks"][0]
    for name, selector in selectors.items():
        expressions = [*webhook[name].get("matchExpressions", []), *selector.get("matchExpressions", [])]
        webhook[name] = {**selector, **({"matchExpressions": expressions} if expressions else {})}
    answers[NAMESPACE]["metadata"]["labels"]["app"] = manifest["metadata"]["labels"]["app"] = "cart"
    answers[PODS] = [made(manifest, answers)]
    return answers


def patch_of(repair):
    (line,) = [line for line in repair.splitlines() if line.startswith("kubectl patch mutatingwebhook")]
    return json.loads(shlex.split(line)[-1])


@pytest.mark.parametrize(("name", "subject"), [("namespaceSelector", "namespace"), ("objectSelector", "pod")])
@pytest.mark.parametrize(("selector", "wanted", "label"), SELECTORS, ids=str)
def test_a_selector_that_wants_a_label_is_found_alone_and_removed(name, subject, selector, wanted, label):
    answers = selecting(**{name: selector})
    (finding,) = examine(answers).findings
    assert finding.id == "webhook-not-asked-about-pod"
    who = "default" if subject == "namespace" else "my-pod"
    assert (finding.expected, finding.found) == (f"{subject} with {wanted}", f"{subject} {who} with {label}")
    after = applied(answers, finding.repair)
    assert found(after) == []
    # What is not this pod's concern stays, and so does what EKS has filled in.
    kept = after[WEBHOOK]["webhooks"][0]
    assert kept["clientConfig"] == answers[WEBHOOK]["webhooks"][0]["clientConfig"]
    assert {"key": OPT_OUT, "operator": "DoesNotExist"} in kept["objectSelector"]["matchExpressions"]
    assert [step["op"] for step in patch_of(finding.repair)] == ["test", "remove"]


@pytest.mark.parametrize("name", ["namespaceSelector", "objectSelector"])
@pytest.mark.parametrize(
    "expression", [{"operator": "NotIn", "values": ["cart"]}, {"operator": "DoesNotExist"}], ids=lambda e: e["operator"]
)
def test_the_repair_removes_the_selector_and_keeps_the_pods_label(name, expression):
    answers = selecting(**{name: {"matchExpressions": [{"key": "app", **expression}]}})
    (finding,) = examine(answers).findings
    assert finding.id == "pod-opted-out-of-webhook"
    after = applied(answers, finding.repair)
    assert found(after) == []
    assert after[NAMESPACE] == answers[NAMESPACE]
    assert after[PODS][0]["metadata"]["labels"]["app"] == "cart"


def test_of_several_values_only_the_one_that_hits_is_taken_off():
    expression = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "default"]}
    answers = selecting(namespaceSelector={"matchExpressions": [expression]})
    (finding,) = examine(answers).findings
    assert finding.id == "pod-opted-out-of-webhook"
    # Every namespace has a label of this key.
    label = "the label kubernetes.io/metadata.name=default"
    assert (finding.expected, finding.found) == (f"no {label.removeprefix('the ')}", f"namespace with {label}")
    path = "/webhooks/0/namespaceSelector/matchExpressions/0/values/1"
    assert patch_of(finding.repair) == [
        {"op": "test", "path": path, "value": "default"},
        {"op": "remove", "path": path},
    ]
    assert "# -      - default" in finding.repair.splitlines()
    after = applied(answers, finding.repair)
    assert found(after) == []
    (kept,) = after[WEBHOOK]["webhooks"][0]["namespaceSelector"]["matchExpressions"]
    assert kept["values"] == ["kube-system"]


def test_the_patch_says_first_who_else_it_affects():
    answers = selecting(namespaceSelector={"matchLabels": TEAM})
    (finding,) = examine(answers).findings
    said = "# this changes nothing for others: the webhook skips no other service account that names a role"
    assert said in finding.repair
    names = [f"web-{number}" for number in range(6)]
    annotations = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/web"}
    others = [{"metadata": {"name": name, "namespace": "shop", "annotations": annotations}} for name in names]
    answers[ALL_SERVICE_ACCOUNTS] += others
    (finding,) = examine(answers).findings
    assert "their role: shop/web-0, shop/web-1, shop/web-2, shop/web-3 and 2 more\n" in finding.repair
    # Somebody may have left these out on purpose: nothing of it runs when it is pasted.
    assert all(line.startswith("#") for line in finding.repair.splitlines())


WITH_OTHERS = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/web"}
NOBODY_SELECTS = {
    f"list {kind} --all-namespaces": []
    for kind in ("services", "networkpolicies", "poddisruptionbudgets", "validatingwebhookconfigurations")
}


def beside_others(**selectors):
    """A selector leaves the pod out, and another service account names a role."""
    answers = selecting(**selectors)
    other = {"metadata": {"name": "web", "namespace": "shop", "annotations": WITH_OTHERS}}
    answers[ALL_SERVICE_ACCOUNTS] = [*answers[ALL_SERVICE_ACCOUNTS], other]
    registrations = {"list mutatingwebhookconfigurations --all-namespaces": [answers[WEBHOOK]]}
    return answers | NOBODY_SELECTS | registrations


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("namespaceSelector", "kubectl label namespace default team=platform"),
        ("objectSelector", "kubectl delete pod my-pod -n default --grace-period=1"),
    ],
)
def test_where_others_would_get_a_role_the_label_is_given_that_the_selector_wants(name, line):
    answers = beside_others(**{name: {"matchLabels": TEAM}})
    (finding,) = examine(answers).findings
    assert "The selector of the webhook stays; the " in finding.repair.splitlines()[0]
    assert "kubectl patch" not in finding.repair
    assert commands(finding.repair)[0] == line
    after = applied(answers, finding.repair)
    assert found(after) == [] and after[WEBHOOK] == answers[WEBHOOK]


def named(*names):
    """Service accounts that name a role."""
    return [
        {"metadata": {"namespace": namespace, "name": name, "annotations": WITH_OTHERS}}
        for namespace, _, name in (each.partition("/") for each in names)
    ]


def of_cluster(answers, *, namespaces=(), pods=(), **workloads):
    """The same with what runs in the whole cluster."""
    everywhere = {kind: [] for kind in ("deployments", "statefulsets", "daemonsets", "cronjobs", "jobs")} | workloads
    everywhere |= {"pods": [*answers[PODS], *pods], "namespaces": [answers[NAMESPACE]["metadata"], *namespaces]}
    everywhere["namespaces"] = [{"metadata": each} for each in everywhere["namespaces"]]
    return answers | {f"list {kind} --all-namespaces": each for kind, each in everywhere.items()}


def of_account(namespace, account, **labels):
    return {"metadata": {"namespace": namespace, "labels": labels}, "spec": {"serviceAccountName": account}}


NAME_OF_NAMESPACE = "kubernetes.io/metadata.name"
FIVE = [f"five/web-{number}" for number in range(2)]
OF_MANY = [*FIVE, *(f"shop/web-{number}" for number in range(30))]


def test_of_a_namespace_that_is_left_out_only_its_own_accounts_are_affected():
    expression = {"key": NAME_OF_NAMESPACE, "operator": "NotIn", "values": ["default", "five"]}
    answers = selecting(namespaceSelector={"matchExpressions": [expression]})
    answers[ALL_SERVICE_ACCOUNTS] += named(*OF_MANY)
    namespaces = [{"name": name, "labels": {NAME_OF_NAMESPACE: name}} for name in ("five", "shop")]
    (finding,) = examine(of_cluster(answers, namespaces=namespaces)).findings
    # Only its own value goes, so five stays left out.
    assert "# this changes nothing for others" in finding.repair
    after = applied(answers, finding.repair)
    assert after[WEBHOOK]["webhooks"][0]["namespaceSelector"]["matchExpressions"][0]["values"] == ["five"]
    # A label that both have keeps both out.
    answers[WEBHOOK]["webhooks"][0]["namespaceSelector"] = {
        "matchExpressions": [{"key": "no", "operator": "DoesNotExist"}]
    }
    answers[NAMESPACE]["metadata"]["labels"]["no"] = namespaces[0]["labels"]["no"] = ""
    (finding,) = examine(of_cluster(answers, namespaces=namespaces)).findings
    assert "skipped until now also get their role: five/web-0, five/web-1\n" in finding.repair
    assert "# Nothing is changed" in finding.repair and "kubectl patch" not in "".join(commands(finding.repair))


SOLO = {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}  # `selecting` gives the pod this label
CRON_JOB = {"jobTemplate": {"spec": {"template": of_account("", "web-0", app="till")}}}


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ({"pods": [of_account("shop", "web-3", tier="front")]}, ""),
        ({"pods": [of_account("shop", "web-3", app="till")]}, "shop/web-3"),
        (
            {
                "deployments": [
                    {"metadata": {"namespace": "shop"}, "spec": {"template": of_account("", "web-2", app="x")}}
                ]
            },
            "shop/web-2",
        ),
        ({"cronjobs": [{"metadata": {"namespace": "five"}, "spec": CRON_JOB}]}, "five/web-0"),
    ],
    ids=["nobody", "a pod", "a Deployment without pods", "a CronJob"],
)
def test_of_pods_that_a_label_keeps_out_only_their_accounts_are_affected(there, told):
    answers = selecting(objectSelector=SOLO)
    answers[ALL_SERVICE_ACCOUNTS] += named(*OF_MANY)
    (finding,) = examine(of_cluster(answers, **there)).findings
    assert finding.id == "pod-opted-out-of-webhook"
    if told:
        assert f"skipped until now also get their role: {told}\n" in finding.repair
        assert "# Nothing is changed" in finding.repair and "kubectl patch" not in "".join(commands(finding.repair))
    else:
        assert "# this changes nothing for others" in finding.repair
        assert found(applied(answers, finding.repair)) == []


ACCOUNTS, PASSED_OVER = healthy()[SERVICE_ACCOUNTS], selecting(namespaceSelector={"matchLabels": TEAM})[PODS]
OTHER = {"metadata": {"name": "till", "namespace": "default"}}
OF_OTHER = {"metadata": {"name": "till-1", "namespace": "default"}, "spec": {"containers": []}}
POLICY = {"metadata": {"name": "db"}, "spec": {"ingress": [{"from": [{"namespaceSelector": {"matchLabels": TEAM}}]}]}}


@pytest.mark.parametrize(
    "answers",
    [
        beside_others(namespaceSelector={"matchLabels": TEAM}) | {SERVICE_ACCOUNTS: [*ACCOUNTS, OTHER]},
        beside_others(namespaceSelector={"matchLabels": TEAM}) | {PODS: [*PASSED_OVER, OF_OTHER]},
        beside_others(namespaceSelector={"matchLabels": TEAM}) | {"list networkpolicies --all-namespaces": [POLICY]},
        beside_others(objectSelector={"matchLabels": TEAM})
        | {"list services --all-namespaces": [{"metadata": {"name": "web"}, "spec": {"selector": TEAM}}]},
        beside_others(objectSelector={"matchLabels": {"app": "other"}}),
        beside_others(namespaceSelector={"matchLabels": {"pod-security.kubernetes.io/enforce": "privileged"}}),
        {
            call: answer
            for call, answer in beside_others(objectSelector={"matchLabels": TEAM}).items()
            if call not in NOBODY_SELECTS
        },
    ],
    ids=["another account", "another's pod", "a policy", "a service", "has another value", "of Kubernetes", "not read"],
)
def test_no_label_is_given_that_others_may_notice(answers):
    (finding,) = examine(answers).findings
    assert finding.id == "webhook-not-asked-about-pod"
    assert all(line.startswith("#") for line in finding.repair.splitlines())


def test_a_webhook_that_cannot_be_called_shows_behind_a_selector():
    answers = selecting(namespaceSelector={"matchLabels": TEAM}) | {WEBHOOK_ANSWERS: "certificate verify failed"}
    assert set(found(answers)) == {"webhook-unreachable", "webhook-not-asked-about-pod"}


def test_two_selectors_that_leave_a_pod_out_are_one_finding_and_one_patch():
    exists = {"matchExpressions": [{"key": "team", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]}
    labels = {"app": "cart", "a/b~c": "x"}
    answers = selecting(namespaceSelector={"matchLabels": labels}, objectSelector=exists)
    (finding,) = examine(answers).findings
    assert finding.id == "webhook-not-asked-about-pod"
    assert "/webhooks/0/namespaceSelector/matchLabels/a~1b~0c" in [step["path"] for step in patch_of(finding.repair)]
    assert found(applied(answers, finding.repair)) == []


def test_a_registration_for_other_things_than_new_pods_gets_a_rule_for_them():
    answers = healthy()
    webhook = answers[WEBHOOK]["webhooks"][0]
    webhook["rules"][0]["operations"] = ["UPDATE"]
    answers[PODS] = [made(pod.build(PARAMETERS), answers | {WEBHOOK: None})]
    (finding,) = examine(answers).findings
    assert (finding.id, finding.found) == ("webhook-not-asked-about-pod", "no such rule")
    after = applied(answers, finding.repair)
    assert found(after) == []
    assert webhook["rules"][0] in after[WEBHOOK]["webhooks"][0]["rules"]


def test_a_pod_that_has_its_role_is_let_alone_whatever_the_selectors_have_become():
    answers = healthy()
    answers[WEBHOOK]["webhooks"][0]["namespaceSelector"] = {"matchLabels": TEAM}
    assert found(answers) == []


# When the annotation was written, and what a dry run tells.

FAIL_OPEN = 'apiserver_admission_webhook_fail_open_count{name="iam-for-pods.amazonaws.com",type="admit"}'
REJECTION = (
    'apiserver_admission_webhook_rejection_count{error_type="%s",name="iam-for-pods.amazonaws.com",'
    'operation="CREATE",rejection_code="503",type="admit"}'
)
STARTED = "process_start_time_seconds"
MADE = "2026-01-01T00:05:00Z"  # as `made` has it


def annotated(at, manager="kubectl-annotate"):
    """A lab whose pod has no role, and whose service account was annotated at a time."""
    answers = healthy()
    answers[PODS] = [made(pod.build(PARAMETERS), answers | {WEBHOOK: None})]
    fields = {"f:metadata": {"f:annotations": {".": {}, "f:eks.amazonaws.com/role-arn": {}}}}
    entry = {"manager": manager, "operation": "Update", "time": at, "fieldsType": "FieldsV1", "fieldsV1": fields}
    other = {"manager": "x", "operation": "Update", "time": "2026-01-01T09:00:00Z", "fieldsV1": {"f:metadata": {}}}
    answers[SERVICE_ACCOUNTS][0]["metadata"]["managedFields"] = [other, entry]
    return answers


def tried(answers, *, has_role=False, refused="", **counted):
    """The same where the doctor may probe: a dry run between two readings of counters, which rise by `counted`."""
    before = {STARTED: 1.0, FAIL_OPEN: 3.0}
    after = before | {name: before.get(name, 0) + by for name, by in counted.items()}
    dry_run = {"has_role": has_role, "refused": refused}
    return answers | {METRICS: before, DRY_RUN: dry_run, METRICS_AGAIN: after}


@pytest.mark.parametrize(
    ("at", "summary"),
    [
        ("2026-01-01T00:06:00Z", "The pod was made before the service account named this role"),
        (MADE, "The pod may have been made before"),
    ],
)
def test_a_pod_is_older_than_the_annotation_where_the_times_say_so_and_else_may_be(at, summary):
    (finding,) = examine(annotated(at)).findings
    assert finding.id == "pod-older-than-annotation"
    assert finding.summary.startswith(summary)
    assert found(applied(annotated(at), finding.repair)) == []


def test_without_the_annotations_time_the_pod_may_be_older():
    answers = annotated(MADE)
    del answers[SERVICE_ACCOUNTS][0]["metadata"]["managedFields"]
    (finding,) = examine(answers).findings
    assert finding.summary.startswith("The pod may have been made before")


def test_of_one_second_a_dry_run_that_gets_the_role_says_that_the_pod_is_older():
    (finding,) = examine(tried(annotated(MADE), has_role=True), probe=True).findings
    assert finding.summary.startswith("The pod was made before")


YOUNGER = "2026-01-01T00:04:00Z"


def test_a_pod_that_is_younger_than_the_annotation_was_passed_over_and_a_dry_run_tells_why():
    diagnosis = examine(annotated(YOUNGER))
    (finding,) = diagnosis.findings
    assert finding.id == "webhook-passed-over-pod"
    times = "annotated at 2026-01-01T00:04:00Z or before, made at 2026-01-01T00:05:00Z"
    assert finding.found == f"no AWS_ROLE_ARN; {times}; only a dry run tells why"
    assert "--probe" in {unread.needs for unread in diagnosis.unread}
    assert found(applied(annotated(YOUNGER), finding.repair)) == []


def test_a_pod_that_was_given_the_role_of_before_though_it_is_younger_is_made_again():
    answers = annotated(YOUNGER)
    answers[PODS] = [made(pod.build(PARAMETERS), answers)]
    variables = answers[PODS][0]["spec"]["containers"][0]["env"]
    before = "arn:aws:iam::123456789012:role/before"
    next(each for each in variables if each["name"] == "AWS_ROLE_ARN")["value"] = before
    (finding,) = examine(answers).findings
    assert finding.id == "webhook-passed-over-pod"
    assert finding.found.startswith(f"AWS_ROLE_ARN={before}; annotated at")
    assert found(applied(answers, finding.repair)) == []


def test_a_webhook_that_works_now_has_passed_over_the_pod():
    (finding,) = examine(tried(annotated(YOUNGER), has_role=True), probe=True).findings
    assert finding.id == "webhook-passed-over-pod"
    assert finding.found.endswith("; a pod like this one would get the role now")


def test_a_webhook_that_answers_and_gives_nothing_has_passed_over_the_pod():
    answers = tried(annotated(YOUNGER))
    answers[WEBHOOK]["webhooks"][0]["matchConditions"] = [{"name": "a", "expression": "request.name != 'x'"}]
    (finding,) = examine(answers, probe=True).findings
    assert finding.id == "webhook-passed-over-pod"
    assert finding.found.endswith(f"the pod of a dry run gets no role either{LEFT_OUT}")


CONDITIONS = [{"name": "a", "expression": "request.name != 'x'"}]
LEFT_OUT = (
    "; the webhook's matchConditions, which the doctor doesn't evaluate, may leave the pod out: request.name != 'x'"
)


def test_conditions_are_named_where_it_is_not_known_whether_the_pod_is_older_than_the_annotation():
    answers = healthy() | {PODS: PASSED_OVER}
    assert [LEFT_OUT in finding.found for finding in examine(answers).findings] == [False]
    answers[WEBHOOK]["webhooks"][0]["matchConditions"] = CONDITIONS
    (finding,) = examine(answers).findings
    assert (finding.id, finding.found.endswith(LEFT_OUT)) == ("pod-older-than-annotation", True)


def test_what_the_webhook_did_is_not_looked_at_where_conditions_may_have_left_the_pod_out():
    answers = healthy() | {PODS: PASSED_OVER}
    for account in answers[SERVICE_ACCOUNTS]:
        account["metadata"].pop("annotations", None)
    assert examine(answers).results[stages.WEBHOOK] == "right"
    answers[WEBHOOK]["webhooks"][0]["matchConditions"] = CONDITIONS
    diagnosis = examine(answers)
    assert diagnosis.results[stages.WEBHOOK] == "not looked at"
    assert any("doesn't evaluate" in unread.why for unread in diagnosis.unread)
    answers[PODS] = healthy()[PODS]
    assert examine(answers).results[stages.WEBHOOK] == "right"


@pytest.mark.parametrize(
    ("counter", "says"),
    [
        (FAIL_OPEN, f"{FAIL_OPEN} rose from 3 to 4 during a dry run"),
        (
            REJECTION % "calling_webhook_error",
            f"{REJECTION % 'calling_webhook_error'} rose from 0 to 1 during a dry run",
        ),
    ],
    ids=["fail open", "rejection"],
)
def test_a_webhook_that_the_api_server_cannot_call_is_seen_by_its_counters(counter, says):
    (finding,) = examine(tried(annotated(YOUNGER), **{counter: 1}), probe=True).findings
    assert (finding.id, finding.found) == ("webhook-unreachable", f"{says} (failurePolicy: Ignore)")
    assert "/metrics" in finding.source


@pytest.mark.parametrize("counter", [FAIL_OPEN.replace("iam-for-pods", "other"), REJECTION % "no_error"])
def test_what_else_is_counted_says_nothing_against_the_webhook(counter):
    assert found(tried(annotated(YOUNGER), **{counter: 1}), probe=True) == ["webhook-passed-over-pod"]


def test_a_dry_run_that_a_failing_webhook_refuses_says_why():
    said = 'Internal error occurred: failed calling webhook "iam-for-pods.amazonaws.com": … connection refused'
    (finding,) = examine(tried(annotated(YOUNGER), refused=said), probe=True).findings
    assert (finding.id, finding.found) == ("webhook-unreachable", f"{said} (failurePolicy: Ignore)")


def test_where_the_counters_may_not_be_read_it_says_that_it_was_not_looked_at():
    answers = tried(annotated(YOUNGER), **{FAIL_OPEN: 1})
    del answers[METRICS], answers[METRICS_AGAIN]
    diagnosis = examine(answers, probe=True)
    assert [finding.id for finding in diagnosis.findings] == ["webhook-passed-over-pod"]
    assert METRICS in [unread.call for unread in diagnosis.unread]


def test_the_counters_of_two_api_servers_are_not_compared():
    diagnosis = examine(tried(annotated(YOUNGER), **{FAIL_OPEN: 1, STARTED: 60}), probe=True)
    assert [finding.id for finding in diagnosis.findings] == ["webhook-passed-over-pod"]
    assert any("another API server answered" in unread.why for unread in diagnosis.unread)


def test_a_label_of_the_namespace_stays_where_it_keeps_a_role_from_others():
    answers = healthy()
    selector = {"matchExpressions": [{"key": OPT_OUT, "operator": "DoesNotExist"}]}
    answers[WEBHOOK]["webhooks"][0]["namespaceSelector"] = selector
    answers[NAMESPACE]["metadata"]["labels"][OPT_OUT] = "true"
    answers[PODS] = [made(pod.build(PARAMETERS), answers | {WEBHOOK: None})]
    other = {
        "name": "web",
        "namespace": "default",
        "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/web"},
    }
    answers[ALL_SERVICE_ACCOUNTS].append({"metadata": other})
    (finding,) = examine(answers).findings
    assert finding.id == "pod-opted-out-of-webhook"
    assert "default/web" in finding.repair
    assert all(line.startswith("#") for line in finding.repair.splitlines())


def test_a_selector_of_opted_out_namespaces_stays_where_others_would_get_a_role():
    answers = in_a_namespace_that_opted_out()
    other = {
        "name": "web",
        "namespace": "shop",
        "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/web"},
    }
    answers[ALL_SERVICE_ACCOUNTS].append({"metadata": other})
    (finding,) = examine(answers).findings
    assert finding.id == "pod-opted-out-of-webhook" and "shop/web" in finding.repair
    assert all(line.startswith("#") for line in finding.repair.splitlines())
