"""Each exercise opens unsolved, refuses near-misses with what the lab said, and accepts more than one right answer."""

import importlib
import json
import os
import random
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from kubernetes.client import CoreV1Api

from labkit import documents
from labkit.course import exercises, lessons
from labkit.course.exercises import asking
from labkit.errors import LabError, UnknownName
from labkit.steps.namespace import until_gone
from labkit.workspace import Workspace
from tests.course.attempts import iam_role
from tests.notebooks import books

EXERCISES = [each for number in lessons.FILES for each in exercises.of_notebook(number)]
ATTEMPTS = [
    attempt
    for number, file in lessons.FILES.items()
    if exercises.of_notebook(number)
    for attempt in importlib.import_module(
        f"tests.course.attempts.{lessons.unnumbered(file).replace('-', '_')}"
    ).ATTEMPTS.all
]
# Here, a few tries at one exercise of each notebook. `make lessons` tries them all.
FEW = [each for each in ATTEMPTS if each.exercise.endswith("-a") and not each.title]
TRIED = ATTEMPTS if os.environ.get("LABKIT_LESSONS") else FEW
QUESTIONS = [
    each for number in lessons.FILES for each in (*lessons.of_notebook(number).predictions, *lessons.recall(number))
]
pytestmark = pytest.mark.lab(through="pod")


@pytest.mark.parametrize("attempt", TRIED, ids=lambda attempt: attempt.name)
def test_the_live_lab_judges_an_attempt_at_an_exercise(lab, attempt):
    name = lab.exercise(attempt.exercise)
    assert not lab.check(attempt.exercise)
    before = {*_providers(lab)}
    attempt.do(lab, name)
    check = lab.check(attempt.exercise)
    found = "\n".join(f"{row.what} found {row.found}" for row in check.rows if not row.right)
    assert attempt.said in found
    assert bool(check) == (not attempt.said), check
    assert len({row.what for row in check.rows}) == len(check.rows), "two rows read the same"
    for arn in {*_providers(lab)} - before:  # it may be another issuer's, which no exercise deletes
        lab.aws.client("iam").delete_open_id_connect_provider(OpenIDConnectProviderArn=arn)


@pytest.mark.parametrize("attempt", [
    iam_role.a_wildcard_for_the_last_letter, iam_role.the_same_name_in_any_namespace_of_the_same_length,
])  # fmt: skip
def test_a_random_newcomer_that_the_pattern_also_gave_has_one_row(lab, monkeypatch, attempt):
    monkeypatch.setattr(random, "choice", lambda names: next((each for each in names if each.endswith("x")), names[0]))
    name = lab.exercise("02-a")
    attempt(lab, name)
    check = lab.check("02-a")
    assert len({row.what for row in check.rows}) == len(check.rows)


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


def test_the_checks_of_two_kernels_at_once_find_the_same_as_one(lab, monkeypatch):
    monkeypatch.setattr(random, "choice", min)  # all choose the same names of new service accounts
    wildcard = next(each for each in ATTEMPTS if each.name == "02-a-a_wildcard_for_the_last_letter")
    wildcard.do(lab, name := lab.exercise("02-a"))
    own = {"namespace": name, "role_name": name, "service_account": "cart"}
    place = Workspace(lab.parameters.model_copy(update=own), lab.connection)
    with ThreadPoolExecutor(3) as kernels:
        found = [kernels.submit(asking.newcomers, place) for _ in range(3)]
    # Who finds a name taken takes the next one.
    letters = [
        re.findall("^exercise-02-a:car(.), created just now$", row.what) for each in found for row in each.result()
    ]
    assert all(each.result() for each in found) and all(letters)


def test_each_exercise_has_ten_near_misses_and_five_right_answers():
    for exercise in EXERCISES:
        tries = [bool(each.said) for each in ATTEMPTS if each.exercise == exercise.id]
        assert (tries.count(True), tries.count(False)) >= (10, 5), f"{exercise.id} in tests/course/attempts/"


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


def _providers(lab):
    """Return the tags of each OIDC provider, by its ARN."""
    iam = lab.aws.client("iam")
    arns = [each["Arn"] for each in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]]
    listed = {arn: iam.list_open_id_connect_provider_tags(OpenIDConnectProviderArn=arn)["Tags"] for arn in arns}
    return {arn: {tag["Key"]: tag["Value"] for tag in tags} for arn, tags in listed.items()}


def test_an_exercise_leaves_no_oidc_provider_behind(lab, capsys):
    lab.ready(before="oidc_provider")
    lab.exercise("02-a")
    lab.exercise("02-a")
    capsys.readouterr()
    lab.ready(before="oidc_provider")
    assert capsys.readouterr().out == "Clean start: nothing has been created yet. Next: the OIDC provider.\n"
    assert not _providers(lab)


def test_ready_deletes_the_oidc_provider_of_an_exercise_whose_namespace_is_gone(lab):
    lab.ready(before="oidc_provider")
    CoreV1Api(lab.kubernetes).delete_namespace(lab.exercise("02-a"))
    for _ in until_gone(lab, "exercise-02-a"):
        pass
    lab.ready(before="oidc_provider")
    assert not _providers(lab)


def test_an_exercise_leaves_its_oidc_provider_to_the_run_whose_role_trusts_it(lab, capsys):
    lab.ready(before="oidc_provider")
    lab.exercise("02-a")
    trust = json.dumps(documents.trust_policy(lab.parameters, lab.provider_arn))
    lab.aws.client("iam").create_role(RoleName="of-others", AssumeRolePolicyDocument=trust)
    try:
        lab.ready(through="iam_role")
        assert _providers(lab) == {lab.provider_arn: {tag["Key"]: tag["Value"] for tag in lab.tags}}
        capsys.readouterr()
        lab.ready(before="oidc_provider")
        assert "left alone" not in capsys.readouterr().out
        assert not _providers(lab)
    finally:
        lab.aws.client("iam").delete_role(RoleName="of-others")


def test_an_exercise_leaves_an_oidc_provider_that_it_did_not_register(lab):
    lab.ready(before="oidc_provider")
    wanted = documents.provider(lab.parameters, lab.issuer)
    lab.aws.client("iam").create_open_id_connect_provider(**wanted)
    lab.exercise("02-a")
    lab.ready(through="oidc_provider")
    assert _providers(lab) == {lab.provider_arn: {}}


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
