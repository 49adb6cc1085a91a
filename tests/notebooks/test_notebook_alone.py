"""Alone from an empty lab, a notebook prints what it stores, byte for byte; one of them is run again in the same lab.

`make test-notebooks` compares each once more, in a lab that others have used.
"""

import pytest

from tests.notebooks.books import FOLDER, NAMES, executed, outputs


@pytest.mark.parametrize("name", NAMES)
def test_alone_from_an_empty_lab_it_prints_what_is_stored(name, empty_lab, tmp_path):
    stored, printed = (FOLDER / name).read_text(), executed(name, tmp_path)
    assert outputs(printed) == outputs(stored)
    assert printed == stored


def test_again_it_prints_the_same(empty_lab, tmp_path):
    first, second = executed("03-service-account.ipynb", tmp_path), executed("03-service-account.ipynb", tmp_path)
    assert first == second
