"""Run alone in an empty lab, a notebook prints the outputs that it stores, byte for byte.

`make test-notebooks` compares every notebook, most of them in a lab that others have used. Notebooks with exercises run
alone in an empty lab, unsolved, in `tests/course/test_copies.py`.
"""

import re

import pytest

from labkit.course import lessons
from tests.notebooks.books import FOLDER, NAMES, executed, outputs

ELSEWHERE = (*lessons.FILES, "97", "98")
ALONE = [name for name in NAMES if re.split(r"\W", name)[0] not in ELSEWHERE]


@pytest.mark.parametrize("name", ALONE)
def test_a_notebook_run_in_an_empty_lab_prints_its_stored_outputs(name, empty_lab, tmp_path):
    stored, printed = (FOLDER / name).read_text(), executed(name, tmp_path)
    assert outputs(printed) == outputs(stored)
    assert printed == stored


def test_a_notebook_run_twice_in_one_lab_prints_the_same(empty_lab, tmp_path):
    name = "03-service-account.ipynb"
    stored = (FOLDER / name).read_text()
    assert [executed(name, tmp_path), executed(name, tmp_path)] == [stored, stored]
