"""Pods that the webhook's registration leaves out by its selectors, rules or match conditions."""

import pytest

from labkit.doctor import stages
from labkit.steps import pod
from tests.doctor.applying import applied, made
from tests.doctor.pods import examine, found
from tests.doctor.recording import (
    ALL_SERVICE_ACCOUNTS,
    NAMESPACE,
    PARAMETERS,
    PODS,
    SERVICE_ACCOUNTS,
    WEBHOOK,
    WEBHOOK_ANSWERS,
    healthy,
)
from tests.doctor.registering import LEFT_OUT, OPT_OUT, in_a_namespace_that_opted_out, patch_of
from tests.doctor.repairing import commands

TEAM = {"team": "platform"}
SELECTORS = [
    ({"matchLabels": TEAM}, "team=platform", "no label team"),
    ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}, "team in (a, b)",
     "no label team"),
    ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, "team=…", "no label team"),
    ({"matchLabels": {"app": "other"}}, "app=other", "app=cart"),
]  # fmt: skip


def selecting(**selectors):
    """A lab with these selectors added to the webhook's registration, and a pod that was made after the change."""
    answers, manifest = healthy(), pod.build(PARAMETERS)
    webhook = answers[WEBHOOK]["webhooks"][0]
    for name, selector in selectors.items():
        expressions = [*webhook[name].get("matchExpressions", []), *selector.get("matchExpressions", [])]
        webhook[name] = {**selector, **({"matchExpressions": expressions} if expressions else {})}
    answers[NAMESPACE]["metadata"]["labels"]["app"] = manifest["metadata"]["labels"]["app"] = "cart"
    answers[PODS] = [made(manifest, answers)]
    return answers


@pytest.mark.parametrize(("name", "subject"), [("namespaceSelector", "namespace"), ("objectSelector", "pod")])
@pytest.mark.parametrize(("selector", "wanted", "label"), SELECTORS, ids=str)
def test_the_repair_removes_a_selector_for_a_label_that_pod_or_namespace_lacks(name, subject, selector, wanted, label):
    answers = selecting(**{name: selector})
    (finding,) = examine(answers).findings
    assert finding.id == "webhook-not-asked-about-pod"
    who = "default" if subject == "namespace" else "my-pod"
    assert (finding.expected, finding.found) == (f"{subject} with {wanted}", f"{subject} {who} with {label}")
    after = applied(answers, finding.repair)
    assert found(after) == []
    # The rest of the registration stays, including the parts that EKS has filled in.
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


def test_only_the_matching_value_is_removed_from_a_selector():
    expression = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "default"]}
    answers = selecting(namespaceSelector={"matchExpressions": [expression]})
    (finding,) = examine(answers).findings
    assert finding.id == "pod-opted-out-of-webhook"
    # Every namespace has a label with this key, so the message has to include the value.
    label = "the label kubernetes.io/metadata.name=default"
    assert (finding.expected, finding.found) == (f"no {label.removeprefix('the ')}", f"namespace with {label}")
    path = "/webhooks/0/namespaceSelector/matchExpressions/0/values/1"
    assert patch_of(finding.repair) == [
        {"op": "test", "path": path, "value": "default"},
        {"op": "remove", "path": path},
    ]
    assert "#   -       - default" in finding.repair.splitlines()
    after = applied(answers, finding.repair)
    assert found(after) == []
    (kept,) = after[WEBHOOK]["webhooks"][0]["namespaceSelector"]["matchExpressions"]
    assert kept["values"] == ["kube-system"]


def test_a_value_is_removed_beside_a_whole_requirement_and_the_other_values_stay():
    named = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "default"]}
    labelled = {"key": "app", "operator": "NotIn", "values": ["cart"]}
    answers = selecting(namespaceSelector={"matchExpressions": [named, labelled]})
    (finding,) = examine(answers).findings
    after = applied(answers, finding.repair)
    assert found(after) == []
    # The namespace kube-system stays left out.
    (kept,) = after[WEBHOOK]["webhooks"][0]["namespaceSelector"]["matchExpressions"]
    assert kept == {**named, "values": ["kube-system"]}


def test_the_repair_names_the_service_accounts_that_its_patch_also_affects():
    answers = selecting(namespaceSelector={"matchLabels": TEAM})
    (finding,) = examine(answers).findings
    said = "# This changes nothing for new pods of other service accounts."
    assert said in finding.repair
    names = [f"web-{number}" for number in range(6)]
    annotations = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/web"}
    others = [{"metadata": {"name": name, "namespace": "shop", "annotations": annotations}} for name in names]
    answers[ALL_SERVICE_ACCOUNTS] += others
    (finding,) = examine(answers).findings
    assert "their role: shop/web-0, shop/web-1, shop/web-2, shop/web-3 and 2 more.\n" in finding.repair
    # Somebody may have left these out on purpose, so a pasted repair runs nothing.
    assert all(line.startswith("#") for line in finding.repair.splitlines())


WITH_OTHERS = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/web"}
NOBODY_SELECTS = {
    f"list {kind} --all-namespaces": []
    for kind in ("services", "networkpolicies", "poddisruptionbudgets", "validatingwebhookconfigurations")
}


def beside_others(**selectors):
    """A lab with selectors that leave the pod out, and with another service account that names a role."""
    answers = selecting(**selectors)
    other = {"metadata": {"name": "web", "namespace": "shop", "annotations": WITH_OTHERS}}
    answers[ALL_SERVICE_ACCOUNTS] = [*answers[ALL_SERVICE_ACCOUNTS], other]
    registrations = {"list mutatingwebhookconfigurations --all-namespaces": [answers[WEBHOOK]]}
    return answers | NOBODY_SELECTS | registrations


@pytest.mark.parametrize(("name", "line"), [
    ("namespaceSelector", "kubectl label namespace default team=platform"),
    ("objectSelector", "kubectl delete pod my-pod -n default --grace-period=1"),
])  # fmt: skip
def test_the_repair_adds_the_label_if_others_would_get_a_role_without_the_selector(name, line):
    answers = beside_others(**{name: {"matchLabels": TEAM}})
    (finding,) = examine(answers).findings
    assert "# This adds the label team=platform to the " in finding.repair.splitlines()[0]
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
    """The answers with lists of the whole cluster's namespaces, pods and workloads."""
    everywhere = {kind: [] for kind in ("deployments", "statefulsets", "daemonsets", "cronjobs", "jobs")} | workloads
    everywhere |= {"pods": [*answers[PODS], *pods], "namespaces": [answers[NAMESPACE]["metadata"], *namespaces]}
    everywhere["namespaces"] = [{"metadata": each} for each in everywhere["namespaces"]]
    return answers | {f"list {kind} --all-namespaces": each for kind, each in everywhere.items()}


def of_account(namespace, account, **labels):
    return {"metadata": {"namespace": namespace, "labels": labels}, "spec": {"serviceAccountName": account}}


NAME_OF_NAMESPACE = "kubernetes.io/metadata.name"
FIVE = [f"five/web-{number}" for number in range(2)]
OF_MANY = [*FIVE, *(f"shop/web-{number}" for number in range(30))]


def test_a_patch_of_a_namespace_selector_affects_only_the_namespaces_that_it_left_out():
    expression = {"key": NAME_OF_NAMESPACE, "operator": "NotIn", "values": ["default", "five"]}
    answers = selecting(namespaceSelector={"matchExpressions": [expression]})
    answers[ALL_SERVICE_ACCOUNTS] += named(*OF_MANY)
    namespaces = [{"name": name, "labels": {NAME_OF_NAMESPACE: name}} for name in ("five", "shop")]
    (finding,) = examine(of_cluster(answers, namespaces=namespaces)).findings
    # The repair removes only the value default, so the namespace five stays left out.
    assert "# This changes nothing for new pods of other service accounts." in finding.repair
    after = applied(answers, finding.repair)
    assert after[WEBHOOK]["webhooks"][0]["namespaceSelector"]["matchExpressions"][0]["values"] == ["five"]
    # Both namespaces have this label, so the selector leaves both out.
    answers[WEBHOOK]["webhooks"][0]["namespaceSelector"] = {
        "matchExpressions": [{"key": "no", "operator": "DoesNotExist"}]
    }
    answers[NAMESPACE]["metadata"]["labels"]["no"] = namespaces[0]["labels"]["no"] = ""
    (finding,) = examine(of_cluster(answers, namespaces=namespaces)).findings
    assert (
        "# This also gives new pods of other service accounts their role: five/web-0, five/web-1.\n" in finding.repair
    )
    assert "# Nothing is changed" in finding.repair and "kubectl patch" not in "".join(commands(finding.repair))


SOLO = {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}  # `selecting` gives the pod this label
CRON_JOB = {"jobTemplate": {"spec": {"template": of_account("", "web-0", app="till")}}}


@pytest.mark.parametrize(("there", "expected_text"), [
    ({"pods": [of_account("shop", "web-3", tier="front")]}, ""),
    ({"pods": [of_account("shop", "web-3", app="till")]}, "shop/web-3"),
    ({"deployments": [{"metadata": {"namespace": "shop"}, "spec": {"template": of_account("", "web-2", app="x")}}]},
     "shop/web-2"),
    ({"cronjobs": [{"metadata": {"namespace": "five"}, "spec": CRON_JOB}]}, "five/web-0"),
], ids=["nobody", "a pod", "a Deployment without pods", "a CronJob"])  # fmt: skip
def test_a_patch_of_an_object_selector_affects_only_accounts_with_pods_that_it_left_out(there, expected_text):
    answers = selecting(objectSelector=SOLO)
    answers[ALL_SERVICE_ACCOUNTS] += named(*OF_MANY)
    (finding,) = examine(of_cluster(answers, **there)).findings
    assert finding.id == "pod-opted-out-of-webhook"
    if expected_text:
        assert f"# This also gives new pods of other service accounts their role: {expected_text}.\n" in finding.repair
        assert "# Nothing is changed" in finding.repair and "kubectl patch" not in "".join(commands(finding.repair))
    else:
        assert "# This changes nothing for new pods of other service accounts." in finding.repair
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
        {call: answer for call,
         answer in beside_others(objectSelector={"matchLabels": TEAM}).items() if call not in NOBODY_SELECTS},
    ],
    ids=["another account", "another's pod", "a policy", "a service", "has another value", "of Kubernetes", "not read"],
)  # fmt: skip
def test_the_repair_adds_no_label_that_may_affect_something_else(answers):
    (finding,) = examine(answers).findings
    assert finding.id == "webhook-not-asked-about-pod"
    assert all(line.startswith("#") for line in finding.repair.splitlines())


def test_a_webhook_that_cannot_be_called_is_found_beside_a_wrong_selector():
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


def test_the_repair_adds_a_rule_for_new_pods_to_a_registration_without_one():
    answers = healthy()
    webhook = answers[WEBHOOK]["webhooks"][0]
    webhook["rules"][0]["operations"] = ["UPDATE"]
    answers[PODS] = [made(pod.build(PARAMETERS), answers | {WEBHOOK: None})]
    (finding,) = examine(answers).findings
    assert (finding.id, finding.found) == ("webhook-not-asked-about-pod", "no such rule")
    after = applied(answers, finding.repair)
    assert found(after) == []
    assert webhook["rules"][0] in after[WEBHOOK]["webhooks"][0]["rules"]


def test_a_wrong_selector_is_not_reported_if_the_pod_has_its_role():
    answers = healthy()
    answers[WEBHOOK]["webhooks"][0]["namespaceSelector"] = {"matchLabels": TEAM}
    assert found(answers) == []


CONDITIONS = [{"name": "a", "expression": "request.name != 'x'"}]


def test_match_conditions_are_named_if_the_pod_may_be_older_than_the_annotation():
    answers = healthy() | {PODS: PASSED_OVER}
    assert [LEFT_OUT in finding.found for finding in examine(answers).findings] == [False]
    answers[WEBHOOK]["webhooks"][0]["matchConditions"] = CONDITIONS
    (finding,) = examine(answers).findings
    assert (finding.id, finding.found.endswith(LEFT_OUT)) == ("pod-older-than-annotation", True)
    # Without a dry run, nothing tells whether a new pod would get the role.
    (finding,) = examine(answers, probe=False).findings
    assert commands(finding.repair) == [] and "--probe" in finding.repair


def test_the_webhook_check_is_skipped_if_match_conditions_may_exclude_the_pod():
    answers = healthy() | {PODS: PASSED_OVER}
    for account in answers[SERVICE_ACCOUNTS]:
        account["metadata"].pop("annotations", None)
    # Without an annotation, the webhook has nothing to change.
    diagnosis = examine(answers)
    assert diagnosis.results[stages.WEBHOOK] == "not looked at"
    assert not any("doesn't evaluate" in unread.why for unread in diagnosis.unread)
    answers[WEBHOOK]["webhooks"][0]["matchConditions"] = CONDITIONS
    diagnosis = examine(answers)
    assert diagnosis.results[stages.WEBHOOK] == "not looked at"
    assert any("doesn't evaluate" in unread.why for unread in diagnosis.unread)
    answers = healthy()
    answers[WEBHOOK]["webhooks"][0]["matchConditions"] = CONDITIONS
    assert examine(answers).results[stages.WEBHOOK] == "right"


def test_the_repair_keeps_a_namespaces_label_that_keeps_a_role_from_others():
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


def test_the_repair_keeps_a_selector_of_namespaces_that_keeps_a_role_from_others():
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
