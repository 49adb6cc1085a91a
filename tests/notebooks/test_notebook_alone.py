"""Alone from an empty lab, a notebook prints what it stores, byte for byte; one of them is run again in the same lab.

`make test-notebooks` compares each in a lab that others have used; the longest, fleet and examination, in an empty one.
Those with exercises run alone from an empty lab in `tests/exercises/test_copies.py`, unsolved.
"""

import pytest

from labkit import exercises
from tests.notebooks.books import FOLDER, NAMES, executed, outputs

ELSEWHERE = (*exercises.NOTEBOOKS, "98")
ALONE = [name for name in NAMES if name.partition("-")[0] not in ELSEWHERE]


@pytest.mark.parametrize("name", ALONE)
def test_alone_from_an_empty_lab_it_prints_what_is_stored(name, empty_lab, tmp_path):
    stored, printed = (FOLDER / name).read_text(), executed(name, tmp_path)
    assert outputs(printed) == outputs(stored)
    assert printed == stored


def test_again_it_prints_the_same(empty_lab, tmp_path):
    name = "03-service-account.ipynb"
    stored = (FOLDER / name).read_text()
    assert [executed(name, tmp_path), executed(name, tmp_path)] == [stored, stored]
