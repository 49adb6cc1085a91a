"""Every fault that notebook 09 can draw has the symptom that the notebook states, and is solved by the same answer."""

import os

import pytest

from labkit.course.exercises import break_and_repair
from tests.course.attempts.break_and_repair import the_annotation_and_a_new_pod, the_trust_policy_written_again

# One of each here; `make lessons` tries them all.
SOME = slice(None) if os.environ.get("LABKIT_LESSONS") else slice(1)
REFUSED = [("09-a", fault, "AccessDenied: Not authorized") for fault in break_and_repair.REFUSED[SOME]]
NODES = [("09-b", fault, "Unable to locate credentials") for fault in break_and_repair.WITHOUT_ROLE[SOME]]
SOLUTIONS = {"09-a": the_trust_policy_written_again, "09-b": the_annotation_and_a_new_pod}
pytestmark = pytest.mark.lab(through="service_account")


@pytest.mark.parametrize(("exercise", "fault", "symptom"), REFUSED + NODES)
def test_a_drawn_fault_has_the_stated_symptom_and_is_solved(lab, monkeypatch, exercise, fault, symptom):
    with monkeypatch.context() as drawn:
        drawn.setattr(break_and_repair.random, "choice", lambda names: fault if fault in names else names[0])
        name = lab.exercise(exercise)
    wrong = [row.found for row in lab.check(exercise).rows if not row.right]
    assert any(found.startswith(symptom) for found in wrong)
    SOLUTIONS[exercise](lab, name)
    assert lab.check(exercise)
