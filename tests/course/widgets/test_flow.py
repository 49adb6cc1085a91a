"""The picture of the eleven steps: its stored files, its marks, and its description for screen readers."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from labkit.course.widgets import flow

ROOT = Path(__file__).resolve().parents[3]
SVG = "{http://www.w3.org/2000/svg}"


def words(document: str) -> str:
    """The description that a screen reader reads out."""
    return ElementTree.fromstring(document).findtext(f"{SVG}desc")


def test_the_stored_pictures_are_the_ones_that_make_pictures_draws(tmp_path):
    flow.store(tmp_path)
    drawn = {picture.name: picture.read_text() for picture in tmp_path.iterdir()}
    stored = {picture.name: picture.read_text() for picture in (ROOT / "notebooks" / "pictures").iterdir()}
    assert stored == drawn, "run: make pictures"
    assert len(drawn) == len(flow.PICTURES)


@pytest.mark.parametrize("own", flow.PICTURES, ids=flow.file_name)
def test_a_picture_s_description_lists_every_step_it_shows(own):
    picture = ElementTree.fromstring(flow.svg(own))
    said = words(flow.svg(own))
    assert picture.get("role") == "img"
    assert all(f"{number}. {step.text}." in said for number, step in enumerate(flow.STEPS, start=1))
    shown = [text.text for text in picture.iter(f"{SVG}text")]
    assert [text for text in flow.PARTIES if text not in shown] == []
    assert shown.count("this notebook") == len(own)
    assert ("This notebook's steps are marked" in said) == bool(own)


@pytest.mark.parametrize("unknown", [0, 12])
def test_a_step_that_does_not_exist_is_refused(unknown):
    with pytest.raises(ValueError, match=f"^{unknown} is not a step: the steps are 1 to 11$"):
        flow.svg(own=(4, unknown))


def test_the_readme_lists_the_steps_in_the_words_of_the_picture():
    readme = (ROOT / "README.md").read_text()
    listed = "\n".join(f"{number}. {step.text}" for number, step in enumerate(flow.STEPS, start=1))
    assert "](notebooks/pictures/steps.svg)" in readme
    assert listed in readme
