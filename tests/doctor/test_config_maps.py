"""A ConfigMap that others use keeps its keys; one that nobody else uses loses them."""

import json
import shlex

import pytest

from tests.doctor import recording
from tests.doctor.applying import applied
from tests.doctor.pods import KEYS, LONG_SESSION, applying, examine, found, with_config, with_sources
from tests.doctor.repairing import commands


def test_the_repair_keeps_a_config_map_that_another_pod_uses_and_changes_only_this_pod():
    answers = applying(lambda m: m["spec"]["containers"][0].update(envFrom=[{"configMapRef": {"name": "settings"}}]))
    of_webhook = {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/web", "AWS_REGION": "eu-west-1"}
    settings = {"data": {**KEYS, **of_webhook, "GREETING": "hello", "no-variable": "x"}}
    others = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"serviceAccountName": "web"}}
    others["spec"]["containers"] = [{"name": "web", "envFrom": [{"configMapRef": {"name": "settings"}}]}]
    answers |= {"get configmap settings -n default": settings, recording.PODS: [*answers[recording.PODS], others]}
    (finding,) = examine(answers).findings
    assert finding.id == "pod-static-keys"
    assert "# The ConfigMap settings is not changed: pod web may need it." in finding.repair
    assert not any(line.startswith("kubectl patch") for line in commands(finding.repair))
    manifest = json.loads(shlex.split(commands(finding.repair)[-1])[1])
    (container,) = manifest["spec"]["containers"]
    reference = {"configMapKeyRef": {"name": "settings", "key": "GREETING"}}
    assert container["env"] == [{"name": "GREETING", "valueFrom": reference}]
    assert "envFrom" not in container
    assert found(applied(answers, finding.repair)) == []


def another_team_s(kind):
    """A workload without pods, which uses the ConfigMap and runs as another service account."""
    spec = {"serviceAccountName": "web", "containers": [{"name": "web"}]}
    with_sources({"spec": spec})
    job = {"template": {"spec": spec}}
    spec = {"jobTemplate": {"spec": job}} if kind == "cronjob" else {"replicas": 0, **job}
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}


LISTS = {
    recording.DEPLOYMENTS: "deployment",
    recording.STATEFUL_SETS: "statefulset",
    recording.DAEMON_SETS: "daemonset",
    recording.CRON_JOBS: "cronjob",
    recording.JOBS: "job",
    recording.REPLICA_SETS: "replicaset",
}


@pytest.mark.parametrize(("call", "kind"), LISTS.items(), ids=LISTS.values())
def test_the_repair_keeps_keys_in_a_config_map_that_a_workload_without_pods_uses(call, kind):
    answers = applying(with_sources, KEYS) | {call: [another_team_s(kind)]}
    (finding,) = examine(answers).findings
    assert finding.id == "pod-static-keys"
    assert f"# The ConfigMap settings is not changed: {kind}/web may need it." in finding.repair
    assert not any(line.startswith("kubectl patch") for line in commands(finding.repair))
    assert found(applied(answers, finding.repair)) == []


@pytest.mark.parametrize("call", LISTS)
def test_the_repair_keeps_keys_in_a_config_map_if_workloads_cannot_be_listed(call):
    answers = applying(with_sources, KEYS)
    del answers[call]
    (finding,) = examine(answers).findings
    assert (
        "# The ConfigMap settings is not changed: workloads that the doctor could not list may need it."
        in finding.repair
    )
    assert not any(line.startswith("kubectl patch") for line in commands(finding.repair))


def test_the_repair_deletes_keys_from_a_config_map_that_nobody_else_uses():
    (finding,) = examine(applying(with_sources, KEYS)).findings
    said, who = finding.repair.splitlines()[:2]
    patch = commands(finding.repair)[0]
    assert said == "# This deletes the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY from the ConfigMap settings."
    assert who == "# No pod or workload of another service account uses the ConfigMap."
    assert json.loads(shlex.split(patch)[-1]) == [{"op": "remove", "path": f"/data/{key}"} for key in sorted(KEYS)]


def test_the_repair_keeps_an_aws_config_that_a_workload_without_pods_uses():
    answers = applying(with_config, {"config": LONG_SESSION}) | {recording.DEPLOYMENTS: [another_team_s("deployment")]}
    (finding,) = examine(answers).findings
    assert "# The ConfigMap settings is not changed: deployment/web may also use it." in finding.repair
    assert commands(finding.repair) == []
