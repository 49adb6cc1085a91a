"""The leader's guide: its plans, its advice for each notebook, and its pages without a network."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import expect, sync_playwright
from typer.testing import CliRunner

from labkit.cli.workshop import app
from labkit.course import NOTEBOOKS
from labkit.workshop import guide, read, write_examples
from labkit.workshop.guide import notebooks, plans
from tests import accessibility

NPM = {  # of reveal.js 5.2.1
    "dist/reveal.js": "46538b52db48724192f5",
    "dist/reveal.css": "68f915a11ebf7203c044",
    "plugin/notes/notes.js": "df1201d19d03241a2897",
}


@pytest.fixture
def folder(tmp_path):
    write_examples(tmp_path / "class")
    return tmp_path / "class"


def narrowed(folder, *numbers):
    settings = yaml.safe_load((folder / "workshop.yaml").read_text())
    (folder / "workshop.yaml").write_text(yaml.safe_dump(settings | {"notebooks": list(numbers)}))
    return read(folder)


def test_each_numbered_notebook_has_five_stumbles_and_nothing_else_has(folder):
    slugs = {file.stem.partition("-")[2] for file in NOTEBOOKS.glob("[0-9]*.ipynb")}
    assert notebooks.advice().keys() == slugs
    for each in notebooks.of_class(read(folder)):
        stumbles = each.advice.stumbles
        assert each.advice.say and len(stumbles) == 5 and all(one.sees and one.helps for one in stumbles), each.label
        assert each.goals and each.minutes > 0 and each.picture.is_file(), each.label


@pytest.mark.parametrize("numbers", [(), ("01",), ("01", "05")])
def test_each_plan_fills_its_time_in_the_course_s_order(folder, numbers):
    taught = notebooks.of_class(narrowed(folder, *numbers))
    made = plans.plans(taught)
    for plan in made:
        assert sum(part.minutes for part in plan.parts) == plans.LENGTHS[plan.title]
        assert all(part.minutes > 0 for part in plan.parts)
        assert [each.number for each in plan.notebooks] == sorted(each.number for each in plan.notebooks)
        assert plan.notebooks[0].number == "00"
    counts = [len(plan.notebooks) for plan in made]
    assert counts == sorted(counts) and counts[-1] > 1


def test_the_reveal_is_npm_s():
    for name, digest in NPM.items():
        assert hashlib.sha256((guide.FOLDER / "reveal" / name).read_bytes()).hexdigest().startswith(digest)


@pytest.mark.browser
def test_the_guide_and_its_slides_need_no_network_and_no_mouse(folder):
    (folder / "workshop.yaml").write_text((folder / "workshop.yaml").read_text().replace("title: IAM", "title: <b>IAM"))
    done = CliRunner().invoke(app, ["guide", str(folder)])
    assert done.exit_code == 0, done.output
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--disable-gpu"])
        page = chromium.new_page(viewport={"width": 480, "height": 800})
        asked, problems = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto((folder / "guide" / "slides.html").as_uri())
        expect(page.get_by_role("heading", name="<b>IAM Roles")).to_be_visible()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("heading", name="00 The problem")).to_be_visible()
        expect(page.get_by_text("They attach the policy")).to_be_hidden()
        page.keyboard.press("ArrowDown")
        expect(page.get_by_role("img", name="The eleven steps of IRSA")).to_be_visible()
        with page.expect_popup() as notes:
            page.keyboard.press("s")
        notes.value.close()
        page.goto((folder / "guide" / "guide.html").as_uri())
        expect(page.get_by_role("heading", name="When the wifi dies")).to_be_visible()
        expect(page.get_by_role("heading", name="Half a day")).to_be_visible()
        page.get_by_role("checkbox", name="Choose a plan, and write its line").press("Space")
        expect(page.get_by_role("checkbox", checked=True)).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"
        if shots := os.environ.get("LABKIT_SCREENSHOTS"):
            page.screenshot(path=f"{shots}/guide.png")
        page.goto((folder / "guide" / "feedback.html").as_uri())
        expect(page.get_by_text("Where did you lose the thread?")).to_be_visible()
        assert not problems and all(url.startswith(("file:", "blob:", "about:")) for url in asked)
        assert Path(done.output.split()[1]).name == "guide.html"
        page = chromium.new_page()  # axe fetches the style sheets
        for name in ("guide", "slides", "feedback"):
            page.goto((folder / "guide" / f"{name}.html").as_uri())
            for theme in ("light", "dark"):
                page.emulate_media(color_scheme=theme)
                assert accessibility.faults(page, "body") == [], f"{name}, {theme}"
        chromium.close()
