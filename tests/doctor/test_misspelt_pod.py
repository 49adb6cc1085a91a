"""A misspelt pod's name: the doctor suggests the right one, and prints no repair that makes a pod."""

import json

import pytest

from labkit import doctor
from labkit.doctor.evidence import Reads
from labkit.errors import LabError
from tests.doctor.pods import unread, workload
from tests.doctor.recording import CONNECTION, DEPLOYMENTS, PODS, a_pod, healthy
from tests.doctor.repairing import commands


def in_shop(answers):
    """The answers, changed to a service account cart in the namespace shop, which the notebooks don't use."""
    text = json.dumps(answers).replace("-n default", "-n shop").replace('"namespace": "default"', '"namespace": "shop"')
    return json.loads(text.replace("my-service-account", "cart").replace("my-pod", "cart-one"))


def diagnosed(answers, pod):
    return doctor.diagnose(
        namespace="shop", service_account="cart", connection=CONNECTION, pod=pod, reads=Reads(in_shop(answers))
    )


@pytest.mark.parametrize("pod_name", ["cart-nope", "cart-5f6d8b9c7d-x2x4b", "x"])
def test_the_doctor_suggests_the_existing_pod_for_a_misspelt_name(pod_name):
    with pytest.raises(LabError) as refused:
        diagnosed(healthy(), pod_name)
    assert refused.value.what == f"shop/{pod_name}: no such pod; did you mean cart-one?"
    assert refused.value.next == "labkit doctor -n shop -s cart --pod cart-one"


def test_the_doctor_suggests_no_pod_if_the_service_account_has_no_pods():
    with pytest.raises(LabError) as refused:
        diagnosed(healthy() | {PODS: []}, "cart-nope")
    assert refused.value.what == "shop/cart-nope: no such pod."
    assert refused.value.next == "kubectl get pods -n shop"


def test_the_doctor_accepts_the_name_of_an_existing_pod():
    assert diagnosed(healthy(), "cart-one").pods == ["cart-one"]


OF_JOB = a_pod()
OF_JOB["metadata"] |= {"name": "nightly-q8w2z", "generateName": "nightly-"}


@pytest.mark.parametrize(("answers", "pod_name"), [
    (healthy() | {DEPLOYMENTS: [workload(replicas=0)]}, "cart-5f6d8b9c7d-x2x4b"),
    (healthy() | {PODS: [OF_JOB]}, "nightly-x2x4b"),
    (unread(healthy(), DEPLOYMENTS), "cart-5f6d8b9c7d-x2x4b"),
], ids=["workload", "newer pod of the same owner", "workloads unknown"])  # fmt: skip
def test_a_pod_that_may_have_been_replaced_is_reported_missing_and_not_recreated(answers, pod_name):
    findings = diagnosed(answers, pod_name).findings
    (missing,) = [finding for finding in findings if finding.id == "pod-missing"]
    assert commands(missing.repair) == [] or "scale" in missing.repair
    assert "echo" not in missing.repair
