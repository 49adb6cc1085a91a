"""`make book` on a course of one notebook: it folds the solutions, and names each broken link."""

import re
import shutil
import subprocess
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from playwright.sync_api import expect, sync_playwright

from labkit.course import Check, Questions, Watch, flow, lessons, trail, who_gets_in
from labkit.doctor import Comparison
from labkit.showing import left_aligned
from tests.accessibility import faults
from tests.conftest import lacking

ROOT = Path(__file__).parent.parent
SPHINX = ROOT / ".venv" / "book"
PYODIDE = SPHINX / "npm" / "node_modules" / "pyodide" / "package.json"
TRY_IT = re.search("<details>.*</details>", (ROOT / "README.md").read_text())[0]
COURSE = "| notebook | what |\n| --- | --- |\n| [00 Start](notebooks/00-start.ipynb) | begin |\n"
README = f"# The lab\n\n{TRY_IT}\n\n## Words\n\n{COURSE}"
SHEET = "how-to-read-an-error.md"
MANUAL = "# The manual\n\n| page | what |\n| --- | --- |\n| [Doctor](doctor.md) | look |\n"
LINKS = """# Start

[right](../README.md#words)
[no such heading](../README.md#wards)
[no such page](01-next.ipynb)
![no such picture](pictures/steps.svg)
![the steps](pictures/own.svg)

| variable | value |
| --- | --- |
| AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE | AWS_CONTAINER_CREDENTIALS_FULL_URI |
"""
EXERCISE = "question = 6\n### BEGIN SOLUTION\nanswer = 7\n### END SOLUTION\nquestion * answer"
POD = {"type": "WebIdentityUser", "userName": "system:serviceaccount:default:</script>"}
RECORD = {
    "eventSource": "sts.amazonaws.com",
    "eventName": "AssumeRoleWithWebIdentity",
    "userIdentity": POD,
    "lab": {"decision": "allowed"},
    "requestParameters": {f"parameter{n}": "value" for n in range(40)},
}
QUESTION = lessons.prediction("02-1")
PROVIDER = f"arn:aws:iam::123456789012:oidc-provider/{who_gets_in.EXAMPLE}"
CHECK = Check("iam_role", "the IAM role", [Comparison("provider", PROVIDER, "none", False)], [])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The result of `make book`, and the notebook's page. After an error, the page stays where it was built."""
    if not (SPHINX / ".ready").exists():
        lacking("Sphinx:  make book")
    course = tmp_path_factory.mktemp("course")
    (course / ".venv" / "book").mkdir(parents=True)
    for name in ("bin", "lib", "pyvenv.cfg"):
        (course / ".venv" / "book" / name).symlink_to(SPHINX / name)
    if PYODIDE.exists():
        (course / ".venv" / "book" / "npm").symlink_to(SPHINX / "npm")
    (course / "labkit").symlink_to(ROOT / "labkit")
    shutil.copytree(ROOT / "notebooks" / "book", course / "notebooks" / "book")
    (course / "README.md").write_text(README)
    for name in ("CONTRIBUTING", "SECURITY", "CHANGELOG"):
        (course / f"{name}.md").write_text(f"# {name}\n")
    nbformat.write(a_notebook(), course / "notebooks" / "00-start.ipynb")
    manual = course / "notebooks" / "manual"
    manual.mkdir()
    (manual / "index.md").write_text(MANUAL)
    (manual / "doctor.md").write_text("# Doctor\n\n[right](index.md) [no such page](words.md)\n")
    (manual / "orphan.md").write_text("# Orphan\n")
    (course / "notebooks" / "pictures").mkdir()
    (course / "notebooks" / "pictures" / "own.svg").write_text(flow.svg())
    sheet = (ROOT / "notebooks" / SHEET).read_text()
    (course / "notebooks" / SHEET).write_text(re.sub(r"\(\d\d-[\w-]+\.ipynb\)", "(00-start.ipynb)", sheet))
    ready = [f"-o{made}" for made in (".venv/.ready", ".venv/book/.ready", PYODIDE.relative_to(ROOT))]
    done = subprocess.run(["make", "-f", ROOT / "Makefile", *ready, "book"], cwd=course, capture_output=True, text=True)
    return done, course / ".venv" / "book" / "html" / "notebooks" / "00-start.html"


@pytest.fixture
def page(built):
    """The text of the notebook's page."""
    return built[1].read_text()


@pytest.fixture
def tab():
    """An empty tab of a browser."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=shutil.which("chromium")) as chromium,
    ):
        yield chromium.new_page()


def a_notebook() -> nbformat.NotebookNode:
    shown = new_output("execute_result", {"text/html": "<b>42</b>", "application/vnd.labkit.check+json": {}})
    asked = new_output("execute_result", {"text/html": Questions("Predict first", [QUESTION], print)._repr_html_()})
    watched = new_output(
        "execute_result",
        {
            "text/html": "<table></table>",
            trail.WATCH_MIME: Watch(lambda: iter([RECORD, RECORD]), "0", lambda _: True).recorded,
        },
    )
    checked = new_output("execute_result", {"text/html": left_aligned(CHECK._repr_html_())})
    simulated = new_output("execute_result", {"text/html": who_gets_in.example(time.time)._repr_html_()})
    cells = [
        new_markdown_cell(LINKS),
        new_code_cell("cluster = 'blue'", metadata={"tags": ["parameters"]}),
        new_code_cell(EXERCISE, metadata={"tags": ["exercise"]}, outputs=[shown]),
        new_code_cell(EXERCISE.replace("7", "8"), metadata={"tags": ["examination"]}),
        new_code_cell("lab.predict('00-1')", outputs=[asked]),
        new_code_cell("lab.watch()", outputs=[watched]),
        new_code_cell("lab.check('iam_role')", outputs=[checked]),
        new_code_cell("lab.who_gets_in()", outputs=[simulated]),
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "", "language": ""}})


def test_make_book_fails_and_names_each_broken_link(built):
    done, _ = built
    assert done.returncode != 0 and "Built" not in done.stdout
    assert done.stderr.count("WARNING") == 5
    for broken in ("wards", "01-next.ipynb", "steps.svg"):
        assert re.search(rf"notebooks/00-start\.ipynb:\d+: WARNING: .*{re.escape(broken)}", done.stderr)
    assert re.search(r"notebooks/manual/doctor\.md:\d+: WARNING: .*words\.md", done.stderr)


def test_make_book_fails_and_names_a_page_that_no_contents_list(built):
    done, _ = built
    assert re.search(r"notebooks/manual/orphan\.md: WARNING: document isn't included in any toctree", done.stderr)


def test_the_book_folds_parameters_and_solutions_and_hides_exam_answers(page):
    text = re.sub(r"<details.*?</details>", "[folded]", page, flags=re.DOTALL)
    open_code = re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL)
    *shown, policy = [re.sub(r"<.*?>|\n", "", code) for code in open_code]
    assert policy.startswith("   1  {")
    assert shown == [
        "question = 6# Your code here....question * answer",
        "question = 6# Your code here....question * answer",
        "lab.predict('00-1')",
        "lab.watch()",
        "lab.check('iam_role')",
        "lab.who_gets_in()",
    ]
    folded = [re.sub(r"<.*?>", "", details) for details in re.findall(r"<details.*?</details>", page, re.DOTALL)]
    assert len(folded) == 3
    assert "Show the parameters" in folded[0] and "'blue'" in folded[0].replace("&#39;", "'")
    assert "Solution" in folded[1] and "answer = 7" in folded[1] and "42" in folded[1]
    assert "answer = 8" not in re.sub(r"<.*?>", "", page)


def test_a_page_of_the_book_loads_nothing_from_another_host(page):
    loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"([^\"]*)\"", page)
    assert loaded and not [address for address in loaded if "//" in address]


@pytest.mark.browser
def test_a_picture_follows_the_theme_that_the_reader_picks(built, tab):
    picture, theme = tab.get_by_alt_text("the steps"), tab.locator("body")

    def seen(system: str, picked: str) -> bytes:
        tab.emulate_media(color_scheme=system)
        tab.goto(built[1].as_uri())
        theme.evaluate("(body, picked) => { body.dataset.theme = picked; }", picked)
        return picture.screenshot()

    light, dark = seen("light", "auto"), seen("dark", "auto")
    assert light != dark
    assert seen("light", "dark") == dark
    assert seen("dark", "light") == light


# Firefox has these since version 119: https://developer.mozilla.org/docs/Web/API/Element/ariaPressed
OLD = "for (const name of ['role', 'ariaPressed', 'ariaLabel', 'ariaExpanded']) delete Element.prototype[name]"


@pytest.mark.browser
@pytest.mark.parametrize("before", ["", OLD], ids=["new", "old"])
def test_a_click_or_a_key_answers_a_question_from_a_file(built, tab, before):
    tab.add_init_script(before)
    tab.goto(built[1].as_uri())
    question = tab.get_by_role("group", name=QUESTION.text)
    assert question.get_by_role("status").text_content() == ""
    wrong, right = QUESTION.answers[:2]
    question.get_by_role("button", name=wrong.text).click()
    assert question.get_by_role("status").text_content() == f"✗ wrong: {wrong.why}"
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert question.get_by_role("status").text_content() == f"✓ right: {right.why}"
    assert question.get_by_role("button", pressed=True).text_content() == right.text


@pytest.mark.browser
def test_the_front_page_has_a_question_to_try(built, tab):
    tab.goto(built[1].parents[1].joinpath("README.html").as_uri())
    question = tab.get_by_role("group")
    question.get_by_role("button", name="AccessDenied").click()
    assert question.get_by_role("status").text_content().startswith("✓ right: ")
    assert faults(tab, ".question") == []


@pytest.mark.browser
def test_the_stored_calls_can_be_stepped_through_from_a_file(built, tab):
    tab.goto(built[1].as_uri())
    watch = tab.locator(".labkit-watch")
    watch.get_by_role("button", name="Next").press("Enter")
    expect(watch.get_by_role("status")).to_have_text("Call 1 of 2: pod → STS: AssumeRoleWithWebIdentity, ✓ allowed")
    expect(watch.locator("dl")).to_contain_text("system:serviceaccount:default:</script>")
    assert faults(tab, ".labkit-watch") == []
    watch.get_by_role("button", name="Last").click()
    expect(watch.locator(".labkit-current dt").first).to_be_visible()
    expect(watch.get_by_role("status")).to_contain_text("Call 2 of 2")


@pytest.mark.browser
def test_without_javascript_a_question_unfolds_its_answers(built, tab):
    page = tab.context.browser.new_page(java_script_enabled=False)
    page.goto(built[1].as_uri())
    assert not page.get_by_text(QUESTION.answers[0].why).is_visible()
    page.get_by_text(QUESTION.text).click()
    assert page.get_by_text(QUESTION.answers[0].why).is_visible()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_a_stored_check_is_the_card_of_a_running_notebook(built, tab, width):
    page = tab.context.browser.new_page(java_script_enabled=False, viewport={"width": width, "height": 900})
    page.goto(built[1].as_uri())
    card = page.locator(".labkit", has_text="the IAM role")
    assert card.evaluate("card => getComputedStyle(card).borderStyle") == "solid"
    assert card.locator(".labkit-wrong").first.inner_text() == "✗ wrong:"
    assert card.locator("td", has_text="D1B9").inner_text() == "arn:aws:iam::123456789012:oidc-provider/…D1B9"
    assert card.locator(".labkit-report").evaluate("report => report.scrollWidth <= report.clientWidth")


@pytest.fixture
def served(built):
    """The address of the notebook's page on a web server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    page = built[1]
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=page.parents[1])) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/notebooks/{page.name}"
        server.shutdown()


@pytest.mark.browser
def test_the_book_s_own_python_judges_an_edited_policy(served, tab):
    if not PYODIDE.exists():
        lacking("Pyodide, with npm:  make book")
    tab.goto(served)
    tab.get_by_role("button", name="Try it here").click()
    policy = tab.get_by_label("The trust policy of my-role")
    expect(policy).to_be_focused(timeout=120_000)
    tab.set_viewport_size({"width": 390, "height": 900})
    assert faults(tab, ".labkit") == []
    told = tab.get_by_text("1 of 6 get in: this service account.")
    expect(told).to_be_visible()
    # What the reader edits, and right below it what comes of it.
    assert told.bounding_box()["y"] < tab.get_by_label("whose token").bounding_box()["y"]
    good = who_gets_in.example(time.time).policy
    policy.fill(good.replace("StringEquals", "StringLike").replace(":default:my-service-account", ":*"))
    expect(tab.get_by_text("3 of 6 get in:")).to_be_visible()
    policy.press("ControlOrMeta+a")
    tab.keyboard.type("{")
    expect(tab.get_by_text("Line 1, column 2 isn't JSON")).to_be_visible()
    expect(tab.get_by_text("There are no verdicts yet")).to_be_visible()
    tab.get_by_role("button", name="Start over").click()
    expect(tab.get_by_text("1 of 6 get in: this service account.")).to_be_visible()


@pytest.mark.browser
@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_a_page_of_the_book_has_no_serious_fault_of_accessibility(built, tab, theme, width):
    tab.emulate_media(color_scheme=theme)
    tab.set_viewport_size({"width": width, "height": 900})
    tab.goto(built[1].as_uri())
    tab.get_by_role("group", name=QUESTION.text).get_by_role("button").first.click()
    assert faults(tab, "body") == []


@pytest.mark.browser
def test_from_a_file_the_stored_verdicts_stay(built, tab):
    tab.goto(built[1].as_uri())
    assert tab.get_by_role("button", name="Try it here").count() == 0
    assert tab.get_by_text("✓ admitted").is_visible()


@pytest.mark.browser
@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_the_cheat_sheet_is_printed_on_one_page(built, tab, paper):
    tab.goto(built[1].with_name(SHEET).with_suffix(".html").as_uri())
    assert len(re.findall(rb"/Type\s*/Page\b", tab.pdf(format=paper))) == 1
