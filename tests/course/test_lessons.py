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


@pytest.mark.parametrize("file", lessons.FILES.values(), ids=lambda file: file.stem)
def test_the_lab_s_lessons_have_no_mistake(file):
    lessons.read(file)


def test_an_answer_may_be_any_text(tmp_path):
    (question,) = read(tmp_path, FILE).recall
    assert [(answer.text, answer.right) for answer in question.answers] == [("Nobody.", False), ("No", True)]


@pytest.mark.parametrize(
    ("before", "after", "place", "mistake"),
    [
        ("why: A", "wy: A", "question 02-1, answer 1", "'wy' is not a key of an answer. Did you mean 'why'? There are"),
        ("title:", "titel:", "exercise 02-a", "'titel' is not a key of an exercise. Did you mean 'title'? There are"),
        ("recall:", "recal:", "", "'recal' is not a key of a lesson. Did you mean 'recall'? There are"),
        ("        why: A missing condition excludes nobody.\n", "", "question 02-1, answer 1", "'why' is missing."),
        (" A missing condition excludes nobody.", "", "question 02-1, answer 1", "'why' is empty."),
        ("right: No", "wrong: No", "question 02-1", "a question needs exactly one right answer, but this one has 0."),
        ("wrong: No", "right: No", "question 02-1", "a question needs exactly one right answer, but this one has 2."),
        ("right: No", "right: a\n        wrong: b", "answer 2", "an answer needs either 'right' or 'wrong'."),
        ("id: 02-1", "id: 03-1", "question 03-1", "'03-1' is not an id of notebook 02, such as 02-1."),
        ("id: 02-a", "id: 02-1", "", "two entries have the id '02-1'."),
        ("wrong: Nobody.", "why: Nobody.", "line 12", "'why' is here twice."),
        ("Who gets in?", "Who gets in: a?", "line 9", "mapping values are not allowed in this context."),
        ("Who gets in?", "Who gets in\a?", "", "control characters are not allowed."),
        ("    hints:\n      - Read the trust policy.", "    hints: []", "exercise 02-a", "'hints' is empty."),
        ("- id: 02-a", "- 02-a\n  - id: 02-a", "exercise 1", "this is not a list of keys and values."),
        ("      - Read", "      - hint: Read", "exercise 02-a", "'hints' is not text."),
    ],
)
def test_a_mistake_in_a_lesson_is_one_sentence(tmp_path, before, after, place, mistake):
    assert before in FILE
    with pytest.raises(LabError) as raised:
        read(tmp_path, FILE.replace(before, after, 1))
    assert raised.value.what.startswith(mistake) and "\n" not in raised.value.what
    assert raised.value.where.startswith(str(tmp_path / "02-iam-role.yaml")) and raised.value.where.endswith(place)


def test_an_exercise_with_texts_but_no_judge_is_named(tmp_path, monkeypatch):
    read(tmp_path, FILE.replace("02-a", "02-c"))
    monkeypatch.setitem(lessons.FILES, "02", tmp_path / "02-iam-role.yaml")
    with pytest.raises(LabError, match=r"^Exercise 02-a is not in both 02-iam-role\.yaml and exercises/iam_role\.py\."):
        exercises.by_id("02-c")
