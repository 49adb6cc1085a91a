"""A fleet's report in a browser: a click sorts it, and it fits into a narrow window."""

import json
from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from labkit.run_parameters import Parameters
from labkit.runs.fleet import Report, Result, Row, RowOutcome

pytestmark = pytest.mark.browser
RESULTS = [
    Result("succeeded", seconds=9.5),
    Result("failed", seconds=12.25, error=f"arn:aws:iam::aws:policy/{'A' * 90} does not exist\nnext:  mend it"),
    Result("not run", error="the fleet was interrupted"),
]


@pytest.fixture
def opened(page: Page, tmp_path) -> Page:
    rows = [Row(n, f"row {n}", Parameters.checked(cluster="c" * 40, role_name=f"r{n}")) for n in (1, 2, 3)]
    Report("fleet.yaml", "irsa.ipynb", [*map(RowOutcome, rows, RESULTS)]).write(tmp_path)
    page.goto((tmp_path / "report.html").as_uri())
    return page


def test_a_column_s_button_sorts_the_rows_and_a_second_click_reverses_them(opened: Page):
    seconds = opened.locator("tbody td:nth-child(7)")
    opened.get_by_role("button", name="seconds").click()
    expect(seconds).to_have_text(["9.5", "12.2", ""])
    opened.get_by_role("button", name="seconds").click()
    expect(seconds).to_have_text(["12.2", "9.5", ""])


def test_rows_without_a_value_come_last_in_either_sorting_order(opened: Page):
    rows = opened.locator("tbody td:nth-child(1)")
    opened.get_by_role("button", name="what was wrong").click()
    expect(rows).to_have_text(["2", "3", "1"])
    opened.get_by_role("button", name="what was wrong").click()
    expect(rows).to_have_text(["3", "2", "1"])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1000, 1160])
def test_the_report_fits_into_a_narrow_window(opened: Page, theme, width):
    opened.emulate_media(color_scheme=theme)
    opened.set_viewport_size({"width": width, "height": 900})
    opened.locator("summary").click()
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    # An opened error is wide enough to read.
    assert opened.locator("details").bounding_box()["width"] > 300
    assert opened.evaluate(
        "[...document.querySelectorAll('th, td')].every((each) => each.scrollWidth <= each.clientWidth)"
    )
    advice = opened.get_by_text("next: mend it")
    advice.scroll_into_view_if_needed()
    expect(advice).to_be_in_viewport()


def test_the_page_matches_the_json_report_and_shows_markup_as_text(page: Page, tmp_path):
    results = [replace(each, error=each.error and f"<b>{each.error}</b>", started=1.0) for each in RESULTS * 4]
    rows = [Row(n, f"row {n}", Parameters.checked(role_name=f"a,b{n}", namespace=f"n{n}")) for n in range(1, 13)]
    Report("<i>.yaml", "<u>.ipynb", [*map(RowOutcome, rows, results)], 3.4).write(tmp_path)
    told = json.loads((tmp_path / "report.json").read_text())
    page.goto((tmp_path / "report.html").as_uri())
    expect(
        page.get_by_text("12 rows; succeeded: 4, failed: 4, not run: 4, in 3 s. Notebook: <u>.ipynb")
    ).to_be_visible()
    assert told["counts"] == {"succeeded": 4, "failed": 4, "not run": 4}
    expect(page.locator("tbody td:nth-child(1)")).to_have_text([str(row["number"]) for row in told["rows"]])
    expect(page.locator("tbody td:nth-child(2)")).to_contain_text([row["state"] for row in told["rows"]])
    expect(page.locator("tbody td:nth-child(6)")).to_have_text([row["parameters"]["role_name"] for row in told["rows"]])
    seconds = [f"{row['seconds']:.1f}" if row["seconds"] else "" for row in told["rows"]]
    expect(page.locator("tbody td:nth-child(7)")).to_have_text(seconds)
    expect(page.locator("rect")).to_have_count(12)
    expect(page.locator("b, i, u")).to_have_count(0)


def test_the_report_s_rows_are_left_aligned_in_a_notebook():
    # JupyterLab right-aligns the cells of a plain table.
    row = Row(1, "row 1", Parameters.checked(cluster="c", role_name="r"))
    shown = Report("fleet.yaml", "irsa.ipynb", [RowOutcome(row, RESULTS[1])])._repr_html_()
    assert shown.count("<td") == shown.count('<td style="text-align:left">') == 3
