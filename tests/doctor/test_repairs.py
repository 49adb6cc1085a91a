"""Each finding's repair, run in a lab exactly as printed: it mends the lab."""

import pytest

from labkit.course.faults import CATALOGUE, breaking, live
from labkit.doctor.examination import examine
from tests.doctor.examining import evidence, found
from tests.doctor.repairing import commands

# Somebody may have done this on purpose or may need it, so the repair has no command and the lab stays unchanged.
WORDS = {
    "boundary-without-the-permission",
    "administrator-attached",
    "identity-provider-config-associated",
    "permission-denied-by-an-inline-policy",
    "pod-identity-association-made",
    "provider-of-a-cluster-that-is-gone",
    "proxy-without-exceptions",
    "region-under-one-name",
    "trust-policy-for-every-service-account",
    "trust-policy-for-the-whole-namespace",
    "trust-policy-has-grown",
    "trust-policy-without-a-subject",
}


@pytest.mark.kubectl
@pytest.mark.parametrize("fault", CATALOGUE.values(), ids=lambda fault: fault.id)
def test_the_printed_repair_mends_the_lab(lab, healthy, shell, fault):
    breaking.break_lab(lab, fault)
    broken = fault.put_into(healthy)
    try:
        findings = examine(evidence(lab, broken, probe=fault.needs_probe)).findings
        (finding,) = [each for each in findings if each.id == fault.finding]
        done = shell(finding.repair)
        assert done.returncode == 0, f"{finding.repair}\n{done.stderr}"
        there = shell("kubectl wait pods --all --for=condition=Ready --timeout=60s")
        assert there.returncode == 0, there.stderr
        now = live.read(lab, healthy, broken)
        left = found(evidence(lab, now, probe=fault.needs_probe), fault.finding)
        assert bool(commands(finding.repair)) is (fault.id not in WORDS)
        if fault.id in WORDS:
            assert now.is_as(broken)
            return
        assert left == [], finding.repair
        # STS has to agree.
        exchanged = evidence(lab, now, probe=True).pod.probe.exchange
        assert ":assumed-role/my-role/" in exchanged.arn, exchanged
    finally:
        breaking.mend(lab)


@pytest.mark.kubectl
def test_after_the_repair_the_pod_lists_the_bucket(lab, healthy, shell):
    fault = CATALOGUE["cluster-made-anew"]
    breaking.break_lab(lab, fault)
    try:
        (finding,) = examine(evidence(lab, fault.put_into(healthy))).findings
        # Delete the CLI's cached session first, because it stays valid for an hour.
        listing = "kubectl exec my-pod -- sh -c 'rm -rf ~/.aws/cli/cache && aws s3 ls s3://irsa-lab'"
        assert shell(listing).returncode != 0
        assert "hello.txt" in shell(f"{finding.repair}\n{listing}").stdout
    finally:
        breaking.mend(lab)
