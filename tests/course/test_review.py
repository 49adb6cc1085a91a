"""Questions come back: wrong ones soon, right ones after days, and new ones from earlier notebooks."""

import json
import time
from datetime import timedelta

import pytest

from labkit.course import contents, lessons, review
from labkit.course.lessons import OpenQuestion
from labkit.course.progress import NAME, VARIABLE, VERSION
from labkit.course.widgets.question import DID_NOT, KNEW, Questions
from labkit.errors import LabError, UnknownName

HOUR = 3600


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """A function that writes an answer of so many seconds ago into the progress file."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / NAME))

    def answer(id, right, ago, what="answered"):
        event = {"version": VERSION, "at": time.time() - ago, "what": what, "id": id, "right": right}
        with (tmp_path / NAME).open("a") as file:
            file.write(json.dumps(event) + "\n")

    return answer


def drawn(notebook):
    return [each.id for each in review.before(notebook).questions]


def due():
    return [each.id for each in review.due()]


def test_the_bank_has_150_questions_and_each_id_once():
    ids = [each.id for number in lessons.FILES for each in review.bank(number)]
    assert len(ids) >= 150 and len(set(ids)) == len(ids)


def test_each_file_for_review_belongs_to_a_notebook():
    known = {file.name.partition("-")[2] for file in lessons.FILES.values()}
    assert {file.name for file in lessons.REVIEW.glob("*.yaml")} <= known


def test_an_id_that_is_twice_in_the_bank_is_named(tmp_path):
    file = tmp_path / "iam-role.yaml"
    entry = "  - id: iam-role-1\n    question: Who?\n    answer: Nobody.\n"
    file.write_text(f"open:\n{entry}{entry}")
    with pytest.raises(LabError, match="two entries have the id 'iam-role-1'") as raised:
        lessons.read(file)
    assert raised.value.where == str(file)


def test_a_learner_without_progress_gets_the_same_two_questions_of_two_earlier_notebooks(answered):
    assert drawn("03") == drawn("03") == [review.bank("02")[0].id, review.bank("01")[0].id]
    assert len(drawn("01")) == 2 and all(id in {each.id for each in review.bank("00")} for id in drawn("01"))
    with pytest.raises(UnknownName):
        review.before("55")


def test_a_wrong_answer_comes_back_first_and_a_right_one_after_days(answered):
    answered("01-3", right=False, ago=HOUR)
    answered("00-2", right=True, ago=HOUR)
    assert due() == ["01-3"]
    assert drawn("02")[0] == "01-3" and "00-2" not in drawn("02")
    answered("01-3", right=True, ago=0, what="reviewed")
    assert due() == [] and "01-3" not in drawn("02")
    assert "01-3" not in drawn("01")  # a later notebook's question


def test_a_right_answer_is_due_again_after_its_interval(answered):
    answered("00-2", right=True, ago=timedelta(days=10).total_seconds())
    assert due() == ["00-2"]
    answered("00-2", right=True, ago=timedelta(days=4).total_seconds(), what="reviewed")
    assert due() == []


def test_the_second_click_on_a_question_does_not_undo_a_wrong_answer(answered):
    answered("01-3", right=False, ago=HOUR)
    answered("01-3", right=True, ago=HOUR - 5)
    assert due() == ["01-3"]


def test_progress_of_another_version_stays_in_the_file_and_does_not_count(answered, tmp_path):
    answered("01-3", right=False, ago=HOUR)
    file = tmp_path / NAME
    lines = ['{"version": 99, "what": "answered"}', "not json", "{}"]
    lines.append(json.dumps({"version": VERSION, "at": 1e300, "what": "answered", "id": "01-2", "right": False}))
    lines.append(json.dumps({"version": VERSION, "at": 0, "what": "reviewed", "id": "gone-1", "right": False}))
    file.write_text("\n".join(lines) + "\n" + file.read_text())
    before = file.read_text()
    assert due() == ["01-3"] and drawn("02")[0] == "01-3"
    assert file.read_text() == before


def test_the_contents_page_says_how_many_questions_are_due(answered):
    assert "due" not in repr(contents.read())
    for number in range(1, 7):
        answered(review.bank("00")[number].id, right=False, ago=HOUR)
    assert "Review: 6 due, two minutes: run the cell below." in contents.read()._repr_markdown_()
    assert [each.id for each in contents.review().questions] == due()[:5]


def test_a_notebook_asks_only_after_a_click(answered):
    panel = review.before("03").panel()
    title, ask = panel.children
    assert "earlier notebooks" in title.value
    ask.click()
    assert len(panel.children) == 1 + review.IN_A_NOTEBOOK


def test_a_learner_compares_an_open_question_s_answer_and_says_whether_they_knew_it():
    question = OpenQuestion.model_validate({"id": "02-1", "question": "Who?", "answer": "<Nobody>"}, context="02")
    said = []
    shown = Questions("Do you still know?", [question], lambda id, right: said.append((id, right)))
    assert "&lt;Nobody&gt;" in shown._repr_html_() and repr(shown).endswith("02-1  Who?\n    <Nobody>")
    _, panel = shown.panel().children
    panel.children[1].click()
    buttons = {each.description: each for each in panel.children if hasattr(each, "description")}
    assert "&lt;Nobody&gt;" in panel.children[1].value
    buttons[KNEW].click()
    buttons[DID_NOT].click()
    assert said == [("02-1", True), ("02-1", False)]
