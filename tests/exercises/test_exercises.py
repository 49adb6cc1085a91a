"""Each exercise opens unsolved, refuses near-misses with what the lab said, and accepts more than one right answer."""

import importlib
import json
import os

import pytest

from labkit import Lab, exercises
from labkit.errors import LabError, UnknownName
from tests.notebooks import books

MODULES = {number: importlib.import_module(f"labkit.exercises.{name}") for number, name in exercises.NOTEBOOKS.items()}
EXERCISES = [each for module in MODULES.values() for each in module.EXERCISES]
ATTEMPTS = [
    attempt
    for number, name in exercises.NOTEBOOKS.items()
    if MODULES[number].EXERCISES
    for attempt in importlib.import_module(f"tests.exercises.attempts.{name}").ATTEMPTS.all
]
# Here, one exercise of each notebook. `make lessons` tries them all.
TRIED = ATTEMPTS if os.environ.get("LABKIT_LESSONS") else [each for each in ATTEMPTS if each.exercise.endswith("-a")]
QUESTIONS = [each for module in MODULES.values() for each in (*module.PREDICTIONS, *module.RECALL)]


@pytest.fixture(scope="module")
def lab(home):
    with Lab.open() as opened:
        opened.ready(through="pod")
        yield opened


@pytest.mark.parametrize("attempt", TRIED, ids=lambda attempt: attempt.name)
def test_the_live_lab_judges_an_attempt_at_an_exercise(lab, attempt):
    name = lab.exercise(attempt.exercise)
    assert not lab.check(attempt.exercise)
    attempt.do(lab, name)
    check = lab.check(attempt.exercise)
    found = "\n".join(f"{row.what} found {row.found}" for row in check.rows if not row.right)
    assert attempt.said in found
    assert bool(check) == (not attempt.said), check
    assert len({row.what for row in check.rows}) == len(check.rows), "two rows read the same"


def test_the_solution_of_05_b_works_with_the_lab_s_clock_ahead(lab):
    cells = {cell.id: cell.source for cell in books.code(books.read("05-verify.ipynb"))}
    names = {"json": json, "lab": lab, "iam": lab.aws.client("iam")}
    lab.clock.advance(hours=2)
    try:
        exec(cells["your-turn-b"] + "\n" + cells["attempt-b"], names)
        assert lab.check("05-b")
    finally:
        lab.clock.reset()
        lab.ready(before="pod")  # running pods have credentials from that future


def test_each_exercise_has_three_near_misses_and_two_right_answers():
    for exercise in EXERCISES:
        tries = [bool(each.said) for each in ATTEMPTS if each.exercise == exercise.id]
        assert (tries.count(True), tries.count(False)) >= (3, 2), exercise.id


def test_an_exercise_opened_again_discards_the_earlier_solution(lab):
    solved = next(each for each in ATTEMPTS if not each.said)
    solved.do(lab, lab.exercise(solved.exercise))
    assert lab.check(solved.exercise)
    lab.exercise(solved.exercise)
    assert not lab.check(solved.exercise)


def test_ready_closes_an_open_exercise(lab):
    lab.exercise("02-a")
    lab.ready(through="pod")
    with pytest.raises(LabError, match="isn't open"):
        lab.check("02-a")


def test_hints_come_one_at_a_time(lab, capsys):
    for number in (1, 2, 3, 1):
        lab.hint("02-a")
        assert capsys.readouterr().out.startswith(f"Hint {number} of 3: ")


def test_a_check_before_the_exercise_is_open_says_how_to_open_it(lab):
    exercises.by_id("02-b").close(lab)
    with pytest.raises(LabError, match=r"^Exercise 02-b isn't open\.\n.*\n.*lab\.exercise\(\"02-b\"\)$"):
        lab.check("02-b")


def test_a_misspelt_exercise_id_gets_the_nearest_one_as_a_suggestion(lab):
    with pytest.raises(UnknownName, match=r"Did you mean '02-a'\?"):
        lab.exercise("02-aa")


def test_remove_also_deletes_open_exercises(lab, capsys):
    lab.exercise("02-a")
    lab.remove()
    assert "removed exercise 02-a" in capsys.readouterr().out
    with pytest.raises(LabError, match="isn't open"):
        lab.check("02-a")


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_a_question_has_one_right_answer_and_a_reason_for_each(question):
    assert [answer.right for answer in question.answers].count(True) == 1
    assert all(answer.why.endswith(".") for answer in question.answers)
