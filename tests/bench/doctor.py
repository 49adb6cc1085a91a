"""The doctor's time for one service account with a running pod, and for a cluster with 500 service accounts."""

import json
import os
import statistics
import time

from tests.bench.lab import folder

RUNS, MANY = 15, 500


def one() -> str:
    """Measure `lab.diagnose()` on a healthy run, and count its calls to AWS."""
    with folder() as home:
        lab = _lab(home)
        seconds, calls = [], 0
        for _ in range(RUNS):
            started = time.perf_counter()
            diagnosis = lab.diagnose()
            seconds.append(time.perf_counter() - started)
            assert diagnosis.exit_code == 0, diagnosis
            calls = sum(read.of == "AWS" for read in diagnosis.made)
    return (
        f"median {statistics.median(seconds) * 1000:.0f} ms, slowest {max(seconds) * 1000:.0f} ms; {calls} calls to AWS"
    )


def every() -> str:
    """Measure `labkit doctor --all`, without the start of the command."""
    from labkit.doctor import Survey

    with folder() as home:
        lab = _lab(home)
        for number in range(MANY - 1):
            _service_account(lab, f"account-{number:03}")
        started = time.perf_counter()
        survey = Survey(lab.connection, lab.parameters)
        diagnoses = list(survey)
        seconds = time.perf_counter() - started
        assert len(diagnoses) == MANY
        assert not any(diagnosis.findings for diagnosis in diagnoses), diagnoses
        calls = {read for diagnosis in diagnoses for read in diagnosis.made} | set(survey.reads.made)
    return f"{seconds:.1f} s, {len(calls)} calls"


def _lab(home):
    os.environ["LABKIT_HOME"] = str(home)
    import labkit

    lab = labkit.Lab.open()
    lab.ready(through="pod")
    return lab


def _service_account(lab, name: str) -> None:
    """Make a service account with a role of its own, and a pod on a node that isn't this machine."""
    from kubernetes.client import CoreV1Api

    from labkit.steps import iam_role, pod, service_account

    parameters = lab.parameters.model_copy(update={"service_account": name, "role_name": f"role-of-{name}"})
    iam, core = lab.aws.client("iam"), CoreV1Api(lab.kubernetes)
    trust = json.dumps(iam_role.build(parameters, lab.provider_arn))
    iam.create_role(RoleName=parameters.role_name, AssumeRolePolicyDocument=trust)
    iam.attach_role_policy(RoleName=parameters.role_name, PolicyArn=parameters.policy_arn)
    role_arn = lab.connection.role_arn(parameters.role_name)
    core.create_namespaced_service_account("default", service_account.build(parameters, role_arn))
    manifest = pod.build(parameters, lab.image)
    manifest["metadata"]["name"] = f"pod-of-{name}"
    manifest["spec"]["nodeName"] = "elsewhere"
    core.create_namespaced_pod("default", manifest)
    status = {"status": {"phase": "Running"}}
    core.patch_namespaced_pod_status(manifest["metadata"]["name"], "default", status)
