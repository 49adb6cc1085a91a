"""Why a pod lacks its role: the annotation's time, a dry run and the API server's counters show it."""

import pytest

from labkit.steps import pod
from tests.doctor import recording
from tests.doctor.applying import applied, made
from tests.doctor.pods import examine, found
from tests.doctor.recording import healthy
from tests.doctor.registering import LEFT_OUT
from tests.doctor.repairing import commands

FAIL_OPEN = 'apiserver_admission_webhook_fail_open_count{name="iam-for-pods.amazonaws.com",type="admit"}'
REJECTION = (
    'apiserver_admission_webhook_rejection_count{error_type="%s",name="iam-for-pods.amazonaws.com",'
    'operation="CREATE",rejection_code="503",type="admit"}'
)
STARTED = "process_start_time_seconds"
MADE = "2026-01-01T00:05:00Z"  # the time that `made` gives a pod


def annotated(at, manager="kubectl-annotate"):
    """A lab whose pod has no role, and whose service account was annotated at a time."""
    answers = healthy()
    answers[recording.PODS] = [made(pod.build(recording.PARAMETERS), answers | {recording.WEBHOOK: None})]
    fields = {"f:metadata": {"f:annotations": {".": {}, "f:eks.amazonaws.com/role-arn": {}}}}
    entry = {"manager": manager, "operation": "Update", "time": at, "fieldsType": "FieldsV1", "fieldsV1": fields}
    other = {"manager": "x", "operation": "Update", "time": "2026-01-01T09:00:00Z", "fieldsV1": {"f:metadata": {}}}
    answers[recording.SERVICE_ACCOUNTS][0]["metadata"]["managedFields"] = [other, entry]
    return answers


def tried(answers, *, has_role=False, refused="", **counted):
    """The answers with those of a probe: a dry run between two readings of counters, which rise by `counted`."""
    before = {STARTED: 1.0, FAIL_OPEN: 3.0}
    after = before | {name: before.get(name, 0) + by for name, by in counted.items()}
    dry_run = {"has_role": has_role, "refused": refused}
    return answers | {recording.METRICS: before, recording.DRY_RUN: dry_run, recording.METRICS_AGAIN: after}


@pytest.mark.parametrize(("at", "summary"), [
    ("2026-01-01T00:06:00Z", "The pod was made before the service account named this role"),
    (MADE, "The pod may have been made before"),
])  # fmt: skip
def test_the_finding_says_whether_the_pod_is_or_may_be_older_than_the_annotation(at, summary):
    (finding,) = examine(annotated(at)).findings
    assert finding.id == "pod-older-than-annotation"
    assert finding.summary.startswith(summary)
    assert found(applied(annotated(at), finding.repair)) == []


def test_without_the_annotations_time_the_pod_may_be_older():
    answers = annotated(MADE)
    del answers[recording.SERVICE_ACCOUNTS][0]["metadata"]["managedFields"]
    (finding,) = examine(answers).findings
    assert finding.summary.startswith("The pod may have been made before")


def test_a_dry_run_that_gets_the_role_shows_that_a_pod_of_the_same_second_is_older():
    (finding,) = examine(tried(annotated(MADE), has_role=True), probe=True).findings
    assert finding.summary.startswith("The pod was made before")


YOUNGER = "2026-01-01T00:04:00Z"


def test_a_pod_that_is_younger_than_the_annotation_was_missed_by_the_webhook():
    diagnosis = examine(annotated(YOUNGER))
    (finding,) = diagnosis.findings
    assert finding.id == "webhook-passed-over-pod"
    times = "service account annotated at 2026-01-01T00:04:00Z or before, pod made at 2026-01-01T00:05:00Z"
    assert finding.found == f"no AWS_ROLE_ARN; {times}; only a dry run tells why"
    assert "--probe" in {unread.needs for unread in diagnosis.unread}
    assert found(applied(annotated(YOUNGER), finding.repair)) == []


def test_the_repair_recreates_a_younger_pod_that_got_the_previous_role():
    answers = annotated(YOUNGER)
    answers[recording.PODS] = [made(pod.build(recording.PARAMETERS), answers)]
    variables = answers[recording.PODS][0]["spec"]["containers"][0]["env"]
    before = "arn:aws:iam::123456789012:role/before"
    next(each for each in variables if each["name"] == "AWS_ROLE_ARN")["value"] = before
    (finding,) = examine(answers).findings
    assert finding.id == "webhook-passed-over-pod"
    assert finding.found.startswith(f"AWS_ROLE_ARN={before}; service account annotated at")
    assert found(applied(answers, finding.repair)) == []


def test_a_webhook_that_works_again_is_reported_to_have_missed_the_pod():
    (finding,) = examine(tried(annotated(YOUNGER), has_role=True), probe=True).findings
    assert finding.id == "webhook-passed-over-pod"
    assert finding.found.endswith("; a pod like this one would get the role now")


@pytest.mark.parametrize(("at", "id"), [(YOUNGER, "webhook-passed-over-pod"), (MADE, "pod-older-than-annotation")])
def test_a_webhook_that_was_registered_after_the_pod_is_reported_to_be_younger(at, id):
    answers = tried(annotated(at), has_role=True)
    answers[recording.WEBHOOK]["metadata"]["creationTimestamp"] = "2026-01-01T00:06:00Z"
    (finding,) = examine(answers, probe=True).findings
    assert finding.id == id and not finding.summary.startswith("The pod was made before")
    assert "; the webhook was registered at 2026-01-01T00:06:00Z, later than the pod was made" in finding.found


def test_a_webhook_that_adds_nothing_is_reported_to_have_missed_the_pod():
    answers = tried(annotated(YOUNGER))
    answers[recording.WEBHOOK]["webhooks"][0]["matchConditions"] = [{"name": "a", "expression": "request.name != 'x'"}]
    (finding,) = examine(answers, probe=True).findings
    assert finding.id == "webhook-passed-over-pod"
    assert finding.found.endswith(f"the pod of a dry run gets no role either{LEFT_OUT}")
    assert commands(finding.repair) == [] and "matchConditions should leave them out" in finding.repair
    (finding,) = examine(answers, probe=False).findings
    assert commands(finding.repair) == [] and "--probe" in finding.repair


@pytest.mark.parametrize(("counter", "says"), [
    (FAIL_OPEN, f"{FAIL_OPEN} rose from 3 to 4 during a dry run"),
    (REJECTION % "calling_webhook_error", f"{REJECTION % 'calling_webhook_error'} rose from 0 to 1 during a dry run"),
], ids=["fail open", "rejection"])  # fmt: skip
def test_the_api_servers_counters_show_that_it_cannot_call_the_webhook(counter, says):
    (finding,) = examine(tried(annotated(YOUNGER), **{counter: 1}), probe=True).findings
    assert (finding.id, finding.found) == ("webhook-unreachable", f"{says} (failurePolicy: Ignore)")
    assert "/metrics" in finding.source


@pytest.mark.parametrize("counter", [FAIL_OPEN.replace("iam-for-pods", "other"), REJECTION % "no_error"])
def test_counters_of_other_webhooks_and_of_other_rejections_are_ignored(counter):
    assert found(tried(annotated(YOUNGER), **{counter: 1}), probe=True) == ["webhook-passed-over-pod"]


def test_the_refusal_of_a_dry_run_shows_why_the_webhook_fails():
    said = 'Internal error occurred: failed calling webhook "iam-for-pods.amazonaws.com": … connection refused'
    (finding,) = examine(tried(annotated(YOUNGER), refused=said), probe=True).findings
    assert (finding.id, finding.found) == ("webhook-unreachable", f"{said} (failurePolicy: Ignore)")


def test_counters_that_may_not_be_read_are_listed_as_unread():
    answers = tried(annotated(YOUNGER), **{FAIL_OPEN: 1})
    del answers[recording.METRICS], answers[recording.METRICS_AGAIN]
    diagnosis = examine(answers, probe=True)
    assert [finding.id for finding in diagnosis.findings] == ["webhook-passed-over-pod"]
    assert recording.METRICS in [unread.call for unread in diagnosis.unread]


def test_the_counters_of_two_api_servers_are_not_compared():
    diagnosis = examine(tried(annotated(YOUNGER), **{FAIL_OPEN: 1, STARTED: 60}), probe=True)
    assert [finding.id for finding in diagnosis.findings] == ["webhook-passed-over-pod"]
    assert any("another API server answered" in unread.why for unread in diagnosis.unread)
