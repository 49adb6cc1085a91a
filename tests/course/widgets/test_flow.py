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


def texts(document: str, cut: str = "") -> list[str]:
    """The words of a picture, or of one of its cuts."""
    picture = ElementTree.fromstring(document)
    within = picture.find(f"{SVG}g[@class='{cut}']") if cut else picture
    return [text.text for text in within.iter(f"{SVG}text")]


def ends(step: flow.Step) -> set[str]:
    return {step.at, *(end for arrow in step.arrows for end in (arrow.sender, arrow.receiver))} - {""}


def test_the_stored_pictures_are_the_ones_that_make_pictures_draws(tmp_path):
    flow.store(tmp_path / "pictures")
    drawn = {picture.name: picture.read_text() for picture in (tmp_path / "pictures").iterdir()}
    stored = {picture.name: picture.read_text() for picture in (ROOT / "notebooks" / "pictures").iterdir()}
    assert stored == drawn, "run: make pictures"
    assert drawn == flow.drawn()


@pytest.mark.parametrize("own", flow.PICTURES, ids=flow.file_name)
def test_a_picture_s_description_lists_every_step_it_shows(own):
    said = words(flow.svg(own))
    assert all(f"{number}. {step.text}." in said for number, step in enumerate(flow.IRSA.steps, start=1))
    assert texts(flow.svg(own)).count("this notebook") == len(own)
    assert ("This notebook's steps are marked" in said) == bool(own)


@pytest.mark.parametrize("diagram", [flow.IRSA, *flow.OTHERS.values()], ids=["steps", *flow.OTHERS])
def test_a_picture_shows_every_party_and_step_in_both_cuts(diagram):
    document = flow.svg(diagram=diagram)
    assert ElementTree.fromstring(document).get("role") == "img"
    assert not {*diagram.parties, *(step.text for step in diagram.steps)} - {*texts(document)}
    for cut in ("wide", "narrow"):
        shown = texts(document, cut)
        assert not {arrow.carries for step in diagram.steps for arrow in step.arrows} - {*shown}
        assert [text for text in shown if text in diagram.labels] == [*diagram.labels[: len(diagram.steps)]]
    assert {party for step in diagram.steps for party in ends(step)} == {*diagram.parties}


def test_the_moving_picture_says_every_step_in_both_cuts_and_takes_one_after_the_other():
    picture = flow.in_motion()
    for cut in ("wide", "narrow"):
        said = " ".join(texts(picture, cut))
        assert [step.text for step in flow.IRSA.steps if step.text not in said] == []
    steps = len(flow.IRSA.steps)
    assert f"{steps * flow.PACE:.1f}s infinite" in flow.STYLE
    assert f"{100 / steps:.2f}%" in flow.STYLE


def test_an_arrow_never_lies_on_another():
    pairs = (("you", "IAM"), ("IAM", "S3"), ("pod", "S3"), ("S3", "IAM"))
    step = flow.Step("", tuple(flow.Arrow(*ends, "") for ends in pairs))
    picture = flow.svg(diagram=flow.Diagram("", ["you", "pod", "IAM", "S3"], [], [step], "a"))
    wide = ElementTree.fromstring(picture).find(f"{SVG}g[@class='wide']")
    lanes = [int(text.get("y")) for text in wide.iter(f"{SVG}text") if text.get("class") == "carries"]
    assert [lane - lanes[0] for lane in lanes] == [0, 0, flow.LANE, 2 * flow.LANE]


@pytest.mark.parametrize("unknown", [0, 12])
def test_a_step_that_does_not_exist_is_refused(unknown):
    with pytest.raises(ValueError, match=f"^{unknown} is not a step: the steps are 1 to 11$"):
        flow.svg(own=(4, unknown))


def test_the_readme_lists_the_steps_in_the_words_of_the_picture():
    readme = (ROOT / "README.md").read_text()
    listed = "\n".join(f"{number}. {step.text}" for number, step in enumerate(flow.IRSA.steps, start=1))
    assert "](notebooks/pictures/steps.svg)" in readme
    assert listed in readme
