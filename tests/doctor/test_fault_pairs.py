"""Every fault, and every pair of faults, over recorded evidence: what is there is found, and nothing else."""

import re

import pytest

from labkit.diagnosis.findings import catalogue as causes
from labkit.doctor.examination import examine
from labkit.doctor.report import CREATION
from labkit.emulator.certificates import Authority
from labkit.faults import CATALOGUE, Situation, expected
from labkit.run_parameters import Parameters
from labkit.webhook import mutating_webhook_configuration
from tests.doctor import answers, recording
from tests.doctor.examining import found, ids

FAULTS = list(CATALOGUE.values())


@pytest.fixture(scope="module")
def healthy():
    authority = Authority.create("kubernetes").certificate_pem
    webhook = mutating_webhook_configuration("https://127.0.0.1:8443/mutate", authority)
    return Situation.wanted(Parameters.checked(), recording.CONNECTION, webhook)


def test_nothing_is_found_in_a_healthy_lab(healthy):
    assert found(answers.evidence(healthy, probe=True)) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_a_fault_alone_is_its_own_finding(healthy, fault):
    before = healthy.model_copy(deep=True)
    seen = answers.evidence(fault.put_into(healthy), probe=fault.needs_probe)
    assert found(seen, fault.finding) == [fault.finding]
    assert healthy == before, "a fault edits what it is given, and nothing else"


@pytest.mark.parametrize("at", range(len(FAULTS)), ids=lambda at: FAULTS[at].id)
def test_of_every_pair_both_are_found_but_for_what_one_hides(healthy, at):
    wrong = []
    for earlier in FAULTS[:at]:
        # Half of the pairs come in the one order, and half in the other.
        pair = (earlier, FAULTS[at]) if (at + FAULTS.index(earlier)) % 2 else (FAULTS[at], earlier)
        there = [fault for fault in pair if fault is pair[-1] or not pair[-1].takes_the_place_of(fault)]
        situation = healthy
        for fault in there:
            situation = fault.put_into(situation)
        seen = answers.evidence(situation, probe=any(fault.needs_probe for fault in there))
        diagnosis = examine(seen)
        told = ids(diagnosis, *(fault.finding for fault in pair))
        if set(told) != expected(pair):
            wrong.append(f"{pair[0].id}, then {pair[1].id}: {sorted(told)}, not {sorted(expected(pair))}")
        made = CREATION.findall("\n".join(finding.repair for finding in diagnosis.findings))
        if len(made) != len(set(made)):
            wrong.append(f"{pair[0].id}, then {pair[1].id}: {made} would be made twice")
    assert not wrong, "\n".join(wrong)


def test_a_fault_hides_what_there_is():
    known = {fault.id for fault in FAULTS} | set(causes.CATALOGUE)
    patterns = {pattern for fault in FAULTS for pattern in (*fault.hides, *fault.seen_as)}
    assert {pattern for pattern in patterns if not re.search(r"[*\[]", pattern)} <= known


def test_a_description_does_not_give_the_finding_away():
    for fault in FAULTS:
        assert fault.finding not in fault.description and fault.id not in fault.description
        assert fault.description.endswith(".") and "\n" not in fault.description
