"""A fleet's report in a browser: sorted by a click, and whole in a narrow window."""

import pytest
from playwright.sync_api import Page, expect

from labkit.fleet.report import Report
from labkit.fleet.results import Result
from labkit.fleet.rows import Row
from labkit.fleet.running import Outcome
from labkit.run_parameters import Parameters

pytestmark = pytest.mark.browser
RESULTS = [
    Result("succeeded", seconds=9.5),
    Result("failed", seconds=12.25, error=f"arn:aws:iam::aws:policy/{'A' * 90} does not exist\nnext:  mend it"),
    Result("not run", error="the fleet was interrupted"),
]


@pytest.fixture
def opened(page: Page, tmp_path) -> Page:
    rows = [Row(n, f"row {n}", Parameters.checked(cluster="c" * 40, role_name=f"r{n}")) for n in (1, 2, 3)]
    Report("fleet.yaml", "irsa.ipynb", [*map(Outcome, rows, RESULTS)]).write(tmp_path)
    page.goto((tmp_path / "report.html").as_uri())
    return page


def test_a_column_s_button_sorts_the_rows_and_again_the_other_way_round(opened: Page):
    seconds = opened.locator("tbody td:nth-child(7)")
    opened.get_by_role("button", name="seconds").click()
    expect(seconds).to_have_text(["", "9.5", "12.2"])
    opened.get_by_role("button", name="seconds").click()
    expect(seconds).to_have_text(["12.2", "9.5", ""])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [520, 1000])
def test_nothing_is_outside_a_narrow_window(opened: Page, theme, width):
    opened.emulate_media(color_scheme=theme)
    opened.set_viewport_size({"width": width, "height": 900})
    opened.locator("summary").click()
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    expect(opened.get_by_text("next: mend it")).to_be_in_viewport()
