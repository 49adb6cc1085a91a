"""Every fault that notebooks 09 and 10 can draw has the symptom that they state, and is solved by the same answer."""

import os

import pytest

from labkit.course.exercises import break_and_repair_pods, break_and_repair_sts, drawn
from tests.course.attempts.break_and_repair_pods import the_annotation_and_a_new_pod
from tests.course.attempts.break_and_repair_sts import the_trust_policy_written_again

# One of each here; `make lessons` tries them all.
SOME = slice(None) if os.environ.get("LABKIT_LESSONS") else slice(1)
REFUSED = [("09-a", fault, "AccessDenied: Not authorized") for fault in break_and_repair_sts.REFUSED[SOME]]
NODES = [("10-a", fault, "Unable to locate credentials") for fault in break_and_repair_pods.WITHOUT_ROLE[SOME]]
SOLUTIONS = {"09-a": the_trust_policy_written_again, "10-a": the_annotation_and_a_new_pod}
pytestmark = pytest.mark.lab(through="service_account")


@pytest.mark.parametrize(("exercise", "fault", "symptom"), REFUSED + NODES)
def test_a_drawn_fault_has_the_stated_symptom_and_is_solved(lab, monkeypatch, exercise, fault, symptom):
    with monkeypatch.context() as patched:
        patched.setattr(drawn.random, "choice", lambda names: fault if fault in names else names[0])
        name = lab.exercise(exercise)
    wrong = [row.found for row in lab.check(exercise).rows if not row.right]
    assert any(found.startswith(symptom) for found in wrong)
    SOLUTIONS[exercise](lab, name)
    assert lab.check(exercise)
