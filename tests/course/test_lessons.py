"""A mistake in a lesson's file is one sentence, which names the file, the entry and the mistake."""

import pytest

from labkit.course import exercises, lessons
from labkit.errors import LabError

FILE = """
exercises:
  - id: 02-a
    title: let cart in
    hints:
      - Read the trust policy.
recall:
  - id: 02-1
    question: Who gets in?
    answers:
      - wrong: Nobody.
        why: A missing condition excludes nobody.
      - right: No
        why: STS never sees the annotation.
"""


def read(tmp_path, text):
    file = tmp_path / "02-iam-role.yaml"
    file.write_text(text)
    return lessons.read(file)


def test_an_answer_may_be_any_text(tmp_path):
    (question,) = read(tmp_path, FILE).recall
    assert [(answer.text, answer.right) for answer in question.answers] == [("Nobody.", False), ("No", True)]


@pytest.mark.parametrize(
    ("before", "after", "mistake"),
    [
        (
            "why: A",
            "wy: A",
            ", question 02-1, answer 1: 'wy' is not a key of an answer. Did you mean 'why'? "
            "There are: right, wrong, why.",
        ),
        ("title:", "titel:", ", exercise 02-a: 'titel' is not a key of an exercise. Did you mean 'title'? "),
        ("recall:", "recal:", ": 'recal' is not a key of a lesson. Did you mean 'recall'? "),
        ("        why: A missing condition excludes nobody.\n", "", ", question 02-1, answer 1: 'why' is missing."),
        (" A missing condition excludes nobody.", "", ", question 02-1, answer 1: 'why' is empty."),
        ("right: No", "wrong: No", ", question 02-1: it has 0 right answers, but needs exactly one."),
        ("wrong: Nobody.", "right: Nobody.", ", question 02-1: it has 2 right answers, but needs exactly one."),
        ("wrong: Nobody.", "right: a\n        wrong: b", ", answer 1: it needs either 'right' or 'wrong'."),
        ("id: 02-1", "id: 03-1", ", question 03-1: '03-1' is not an id of notebook 02, such as 02-1."),
        ("id: 02-a", "id: 02-1", ": it has the id '02-1' twice."),
        ("wrong: Nobody.", "why: Nobody.", ", line 12: 'why' is here twice."),
        ("Who gets in?", "Who gets in: a?", ", line 9: mapping values are not allowed in this context."),
        ("Who gets in?", "Who gets in\a?", ": control characters are not allowed."),
        ("    hints:\n      - Read the trust policy.", "    hints: []", ", exercise 02-a: 'hints' is empty."),
        ("- id: 02-a", "- 02-a\n  - id: 02-a", ", exercise 1: it is not a list of keys and values."),
        ("      - Read", "      - hint: Read", ", exercise 02-a: 'hints' is not text."),
    ],
)
def test_a_mistake_in_a_lesson_is_one_sentence(tmp_path, before, after, mistake):
    assert before in FILE
    with pytest.raises(LabError) as raised:
        read(tmp_path, FILE.replace(before, after, 1))
    assert raised.value.what.startswith("02-iam-role.yaml") and mistake in raised.value.what
    assert "\n" not in raised.value.what and raised.value.where == str(tmp_path / "02-iam-role.yaml")


def test_an_exercise_with_texts_but_no_judge_is_named(tmp_path, monkeypatch):
    read(tmp_path, FILE.replace("02-a", "02-c"))
    monkeypatch.setitem(lessons.FILES, "02", tmp_path / "02-iam-role.yaml")
    with pytest.raises(LabError, match=r"^Exercise 02-a is not in both 02-iam-role\.yaml and exercises/iam_role\.py\."):
        exercises.by_id("02-c")
