"""When the annotation was written, and what a dry run and the API server's counters tell about the webhook."""

import pytest

from labkit.steps import pod
from tests.doctor.applying import applied, made
from tests.doctor.pods import examine, found
from tests.doctor.recording import (
    DRY_RUN,
    METRICS,
    METRICS_AGAIN,
    PARAMETERS,
    PODS,
    SERVICE_ACCOUNTS,
    WEBHOOK,
    healthy,
)
from tests.doctor.registering import LEFT_OUT

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
    times = "service account annotated at 2026-01-01T00:04:00Z or before, pod made at 2026-01-01T00:05:00Z"
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
    assert finding.found.startswith(f"AWS_ROLE_ARN={before}; service account annotated at")
    assert found(applied(answers, finding.repair)) == []


def test_a_webhook_that_works_again_is_reported_to_have_missed_the_pod():
    (finding,) = examine(tried(annotated(YOUNGER), has_role=True), probe=True).findings
    assert finding.id == "webhook-passed-over-pod"
    assert finding.found.endswith("; a pod like this one would get the role now")


def test_a_webhook_that_adds_nothing_is_reported_to_have_missed_the_pod():
    answers = tried(annotated(YOUNGER))
    answers[WEBHOOK]["webhooks"][0]["matchConditions"] = [{"name": "a", "expression": "request.name != 'x'"}]
    (finding,) = examine(answers, probe=True).findings
    assert finding.id == "webhook-passed-over-pod"
    assert finding.found.endswith(f"the pod of a dry run gets no role either{LEFT_OUT}")


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
