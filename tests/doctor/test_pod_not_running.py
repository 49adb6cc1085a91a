"""A pod that is missing, pending, or replaced again and again."""

import pytest

from labkit.doctor import stages
from tests.doctor.applying import applied
from tests.doctor.pods import examine, found
from tests.doctor.recording import ATTACHED, EVENTS, PODS, SERVICE_ACCOUNTS, a_pod, healthy
from tests.doctor.repairing import commands

UNSCHEDULABLE = "0/3 nodes are available: 3 Insufficient memory."


@pytest.mark.parametrize(("conditions", "events", "says"), [
    ([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": UNSCHEDULABLE}], [],
     f"Pending: Unschedulable: {UNSCHEDULABLE}"),
    ([], [{"reason": "FailedScheduling", "message": "older", "lastTimestamp": "2026-01-01T00:01:00Z"},
          {"reason": "FailedScheduling", "message": UNSCHEDULABLE, "lastTimestamp": "2026-01-01T00:02:00Z"}],
     f"Pending: FailedScheduling: {UNSCHEDULABLE}"),
], ids=["condition", "event"])  # fmt: skip
def test_the_finding_on_a_pending_pod_quotes_the_scheduler_and_names_kubectl_describe(conditions, events, says):
    answers = healthy()
    answers[PODS][0]["status"] = {"phase": "Pending", "conditions": conditions}
    answers[EVENTS] = [event | {"involvedObject": {"kind": "Pod", "name": "my-pod"}} for event in events]
    (finding,) = examine(answers).findings
    assert (finding.id, finding.found) == ("pod-not-running", says)
    assert finding.repair.splitlines()[-1] == "# kubectl describe pod my-pod -n default"


def test_a_missing_pod_is_an_error_if_it_was_named_and_otherwise_a_warning():
    answers = healthy() | {PODS: []}
    (finding,) = examine(answers).findings
    assert (finding.id, finding.severity) == ("pod-missing", "error")
    assert found(applied(answers, finding.repair)) == []
    other = a_pod()
    other["spec"]["serviceAccountName"] = "default"
    (finding,) = examine(healthy() | {PODS: [other]}, pod_name="").findings
    assert (finding.id, finding.severity) == ("pod-missing", "warning")
    assert finding.found == "pod my-pod runs as default"


def test_a_pod_that_its_controller_replaces_again_and_again_is_a_note():
    looping = a_pod()
    runner = {"kind": "Runner", "name": "my-pod", "controller": True}
    looping["metadata"]["ownerReferences"] = [runner]
    event = {"reason": "Killing", "count": 9, "involvedObject": {"kind": "Pod", "name": "my-pod"}}
    (finding,) = examine(healthy() | {PODS: [looping], EVENTS: [event]}).findings
    assert (finding.id, finding.severity) == ("pod-replaced-in-a-loop", "note")
    assert found(healthy() | {PODS: [looping], EVENTS: [event | {"count": 1}]}) == []
    # A person who replaces a pod by hand isn't a controller.
    assert found(healthy() | {EVENTS: [event]}) == []


@pytest.mark.parametrize(("changed", "expected"), [
    ({"status": {"phase": "Running"}}, []),
    ({"status": {"phase": "Pending"}}, ["pod-not-running", "pod-replaced-in-a-loop"]),
    ({"metadata": {"deletionTimestamp": "2026-01-01T00:02:00Z"}}, ["pod-replaced-in-a-loop"]),
], ids=["runs", "does not run", "goes"])  # fmt: skip
def test_earlier_deletions_count_only_if_the_pod_is_pending_or_being_deleted(changed, expected):
    event = {"reason": "SuccessfulDelete", "count": 9, "involvedObject": {"kind": "Runner", "name": "my-pod"}}
    one = a_pod()
    one["metadata"] |= changed.get("metadata", {})
    one["status"] |= changed.get("status", {})
    assert found(healthy() | {PODS: [one], EVENTS: [event]}) == expected


def stopped(answers, *states):
    """The answers, with a pod whose container never runs for long."""
    last = {"terminated": {"reason": "Error", "exitCode": 1}}
    statuses = [{"name": "app", "state": state, "lastState": last} for state in states]
    answers[PODS][0]["status"] = {"phase": "Running", "containerStatuses": statuses}
    return answers


WAITING = {"waiting": {"reason": "CrashLoopBackOff"}}


def test_a_pod_in_which_no_container_runs_gets_no_tick_and_no_blame_for_another_error():
    (finding,) = examine(stopped(healthy(), WAITING)).findings
    assert (finding.id, finding.severity, finding.found) == (
        "containers-not-running", "warning", "CrashLoopBackOff, Error, exit code 1",
    )  # fmt: skip
    assert not commands(finding.repair)
    assert found(stopped(healthy(), WAITING, {"running": {}})) == []
    # The program ends because it has no role: the error is the only finding.
    broken = stopped(healthy() | {ATTACHED: []}, WAITING)
    assert found(broken) == ["role-policy-not-attached"]
    assert examine(broken).results[stages.POD] == "warning"


@pytest.mark.parametrize("reason", ["PodInitializing", "ContainerCreating"])
def test_a_pod_that_its_node_still_starts_is_not_yet_wrong(reason):
    answers = healthy()
    status = {"phase": "Pending", "containerStatuses": [{"name": "app", "state": {"waiting": {"reason": reason}}}]}
    answers[PODS][0]["status"] = status
    (finding,) = examine(answers).findings
    assert (finding.id, finding.severity) == ("pod-not-running", "note")
    assert not commands(finding.repair)
    status["containerStatuses"][0]["state"]["waiting"]["message"] = "no such volume"
    (finding,) = examine(answers).findings
    assert finding.severity == "error"


def test_a_stage_whose_subject_was_never_compared_has_no_tick():
    answers = healthy()
    answers[SERVICE_ACCOUNTS] = []
    assert examine(answers).results[stages.POD] == "not looked at"
    answers = healthy()
    answers[SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {}
    for container in answers[PODS][0]["spec"]["containers"]:
        container["env"], container["volumeMounts"] = [], []
    answers[PODS][0]["spec"]["volumes"] = []
    assert examine(answers).results[stages.WEBHOOK] == "not looked at"
