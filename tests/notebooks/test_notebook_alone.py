"""A notebook prints what it stores: alone from an empty lab, and once more; two runs are the same byte for byte."""

import pytest

from tests.notebooks.books import FOLDER, NAMES, executed, outputs


@pytest.mark.parametrize("name", NAMES)
def test_alone_from_an_empty_lab_and_again_it_prints_what_is_stored(name, empty_lab, tmp_path):
    stored = (FOLDER / name).read_text()
    first, second = executed(name, tmp_path), executed(name, tmp_path)
    assert outputs(first) == outputs(stored)
    assert first == second == stored
