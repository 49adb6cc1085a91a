"""A learner's way through the copies that `labkit lab` makes, in a browser: from the contents to a solved exercise.

`make lessons` also opens every other copy and runs its cells unsolved. `make test` does so only with the quickest copy.
"""

import os
import platform
import re
import shutil
from contextlib import suppress

import pytest
from playwright.sync_api import TimeoutError, expect

from labkit.cli import learning
from labkit.course.contents import NAME as CONTENTS
from tests.course.widgets.conftest import READY, RUN_ALL, TOKEN
from tests.notebooks.books import NAMES

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

WALKED = "02-iam-role.ipynb"
ALL = os.environ.get("LABKIT_LESSONS") == "all"
OTHERS = [name for name in NAMES if name != WALKED] if ALL else ["doctor.ipynb"]
RUN_WITHIN = 600_000  # milliseconds
# What an unsolved copy has to refuse.
REFUSED = {"98-examination.ipynb": ["LabError: The examination isn't over: 10 tasks left.\nnext:  exam.hand_in()"]}
STUB = "# Your code here.\n..."
SOLUTION = 'equals[f"{provider}:sub"] = f"system:serviceaccount:{task}:cart"'
# Replace the first stub with the solution, and ask for a hint in a new cell.
WRITE = """([stub, solution]) => {
const model = window.jupyterapp.shell.currentWidget.content.model.sharedModel;
const at = model.cells.findIndex(cell => cell.source.includes(stub));
model.cells[at].setSource(model.cells[at].source.replace(stub, solution));
model.insertCell(at, {cell_type: 'code', source: 'lab.hint("02-a")', metadata: {}, outputs: []});
}"""
LANGUAGE = """async () => {
const panel = window.jupyterapp.shell.currentWidget;
const told = await panel.sessionContext.session.kernel.info;
await new Promise(requestAnimationFrame);
return told.language_info;
}"""
CHANGED = "window.jupyterapp.shell.currentWidget.context.model.dirty"
SOURCES = "window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells.map(cell => cell.source)"
APPEND = """source => window.jupyterapp.shell.currentWidget.content.model.sharedModel
.addCell({cell_type: 'code', source, metadata: {}, outputs: []})"""
SAVE = "window.jupyterapp.commands.execute('docmanager:save')"
THEME = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
THEME_IS = "light => document.body.dataset.jpThemeLight === light"
# Every cell has run, or one has failed.
RAN = """() => {
const panel = window.jupyterapp.shell.currentWidget;
const cells = panel.content.model.sharedModel.cells.filter(cell => cell.cell_type === 'code');
const failed = cells.some(cell => cell.outputs.some(output => output.output_type === 'error'));
return panel.sessionContext.session.kernel.status === 'idle' && (failed || cells.every(cell => cell.execution_count));
}"""
ERRORS = """() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells
.flatMap(cell => cell.outputs ?? []).filter(output => output.output_type === 'error')
.map(output => output.traceback.join('\\n'))"""
# The contrast of a text with its background: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio
CONTRAST = """element => {
const parts = colour => [...colour.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
const light = ([r, g, b]) => {
  const [red, green, blue] = [r, g, b].map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
// A row under the pointer has a background that what is behind it shows through.
const behind = element => {
  if (!element) return [255, 255, 255];
  const [r, g, b, alpha] = parts(getComputedStyle(element).backgroundColor);
  if (alpha === 1) return [r, g, b];
  const below = behind(element.parentElement);
  return [r, g, b].map((part, at) => part * alpha + below[at] * (1 - alpha));
};
const [dark, bright] = [parts(getComputedStyle(element).color), behind(element)].map(light).sort((a, b) => a - b);
return (bright + 0.05) / (dark + 0.05);
}"""
READABLE = 4.5


def run_all(page, refused=()):
    page.evaluate(RUN_ALL)
    page.wait_for_function(RAN, timeout=RUN_WITHIN)
    assert page.evaluate(ERRORS) == [*refused]


def readable(page, *elements):
    for theme, light in (("JupyterLab Dark", "false"), ("JupyterLab Light", "true")):
        page.evaluate(THEME, theme)
        page.wait_for_function(THEME_IS, arg=light)
        for element in elements:
            # A theme's style sheet may apply a moment after the theme has its name.
            with suppress(TimeoutError):
                page.wait_for_function(f"element => ({CONTRAST})(element) >= {READABLE}", arg=element.element_handle())
            assert element.evaluate(CONTRAST) >= READABLE, (theme, element)


def test_jupyterlab_opens_with_the_contents_page_beside_the_files(jupyterlab, page):
    learn = jupyterlab.folder / "learn"
    shutil.rmtree(learn / learning.LAYOUTS, ignore_errors=True)
    learning.copy_notebooks(learn)
    page.goto(f"{jupyterlab.url}lab?token={TOKEN}")
    page.wait_for_function(f"({READY})() && window.jupyterapp.shell.currentWidget.context.path === 'learn/{CONTENTS}'")
    expect(page.locator(".jp-DirListing").get_by_text(WALKED)).to_be_visible()


@pytest.mark.parametrize("name", [CONTENTS, "01-oidc-provider.ipynb"])
def test_a_notebook_that_was_only_opened_has_nothing_to_save(jupyterlab, page, name):
    jupyterlab.open(page, f"learn/{name}")
    # JupyterLab writes the kernel's language version into the notebook.
    assert page.evaluate(LANGUAGE)["version"] == platform.python_version()
    assert page.evaluate(CHANGED) is False


def test_a_tab_whose_notebook_was_started_over_offers_to_reload_it(jupyterlab, page):
    learn, name = jupyterlab.folder / "learn", "03-service-account.ipynb"
    jupyterlab.open(page, f"learn/{name}")
    page.evaluate(APPEND, "mine")
    page.evaluate(SAVE)
    learning.put_aside(learn, "03")
    learning.copy_notebooks(learn, with_contents=False)
    page.evaluate(APPEND, "mine again")
    page.evaluate(f"void {SAVE}")
    page.get_by_role("dialog").get_by_role("button", name="Revert").click()
    page.wait_for_function(f"!{SOURCES}.includes('mine')")
    assert "mine again" not in (learn / name).read_text()


def test_a_learner_goes_from_the_contents_page_to_a_solved_exercise_and_back(jupyterlab, page):
    jupyterlab.open(page, f"learn/{CONTENTS}")
    step = page.locator(".jp-OutputArea").get_by_role("link", name="02 IAM role")
    step.hover()
    readable(page, step, page.get_by_text("what you've done"))
    step.click()
    page.wait_for_function(f"({READY})() && window.jupyterapp.shell.currentWidget.context.path === 'learn/{WALKED}'")
    page.evaluate(WRITE, [STUB, SOLUTION])
    run_all(page)
    shown = page.locator(".jp-NotebookPanel:visible")
    solved = shown.get_by_text("right: exercise 02-a")
    expect(shown.get_by_text("Hint 1 of 3: ")).to_have_count(1)
    solved.scroll_into_view_if_needed()
    readable(page, solved, shown.get_by_text("wrong: exercise 02-b"))

    page.evaluate(SAVE)
    jupyterlab.open(page, f"learn/{CONTENTS}")
    run_all(page)
    expect(page.get_by_text(re.compile("Next: 00 The problem"))).to_be_visible()
    row = page.get_by_role("row").filter(has_text="02 IAM role")
    expect(row).to_contain_text(re.compile(r"exercises 1 of 2, questions 0 of 6, step checked"))


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_copy_runs_unsolved_without_an_error(jupyterlab, page, name):
    jupyterlab.open(page, f"learn/{name}")
    run_all(page, REFUSED.get(name, []))
