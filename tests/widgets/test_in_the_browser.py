"""The widgets as a learner sees them: in JupyterLab, in a browser, with the mouse and with the keyboard."""

import pytest
from playwright.sync_api import expect

from labkit.widgets import flow

pytestmark = pytest.mark.browser

RUN_ALL = "window.jupyterapp.commands.execute('notebook:run-all-cells')"
READY = """() => {
const panel = window.jupyterapp?.shell.currentWidget;
return panel?.content?.model?.cells?.length > 0 && panel.sessionContext?.session?.kernel?.status === 'idle';
}"""

# The boxes of all texts of a picture, and the picture's own: left, top, right, bottom.
BOXES = """() => {
const box = ({left, top, right, bottom}) => [left, top, right, bottom];
const named = text => [text.textContent, box(text.getBoundingClientRect())];
const picture = document.documentElement;
return [box(picture.getBoundingClientRect()), Array.from(picture.querySelectorAll('text'), named)];
}"""


@pytest.fixture
def opened(jupyterlab, page):
    """Opens a notebook of these cells and runs it."""

    def open_and_run(name, *cells):
        page.goto(jupyterlab.write(name, *cells))
        page.wait_for_function(READY)
        page.evaluate(RUN_ALL)

    return open_and_run


def test_the_check_is_a_button_that_reads_the_live_lab_again(lab, opened, page):
    lab.ready(through="oidc_provider")
    opened(
        "check.ipynb", "import labkit", f'labkit.Lab.open(cluster="{lab.parameters.cluster}").check("oidc_provider")'
    )
    report = page.locator(".labkit")
    button = report.get_by_role("button")
    expect(button).to_have_text("Check the OIDC provider again")
    expect(report).to_contain_text("✓ right: the OIDC provider")

    audience = {"OpenIDConnectProviderArn": lab.provider_arn, "ClientID": "sts.amazonaws.com"}
    iam = lab.aws.client("iam")
    iam.remove_client_id_from_open_id_connect_provider(**audience)
    button.click()
    expect(report).to_contain_text("✗ wrong: the OIDC provider")
    expect(report).to_contain_text("oidc-provider-audience-missing")
    expect(report.get_by_role("status")).to_contain_text("it has changed")

    iam.add_client_id_to_open_id_connect_provider(**audience)
    button.press("Space")
    expect(report).to_contain_text("✓ right: the OIDC provider")
    expect(button).to_be_focused()


def test_no_text_of_the_picture_touches_another_or_the_edge(tmp_path, page):
    picture = tmp_path / "steps.svg"
    picture.write_text(flow.svg(own=range(1, 12)))
    page.goto(picture.as_uri())
    (left, top, right, bottom), texts = page.evaluate(BOXES)
    for number, (text, (x, y, end, below)) in enumerate(texts):
        assert left < x < end < right and top < y < below < bottom, text
        for other, (its_x, its_y, its_end, its_below) in texts[:number]:
            assert end <= its_x or its_end <= x or below <= its_y or its_below <= y, f"{text} touches {other}"


def test_a_learners_copy_shows_its_picture(jupyterlab, page):
    page.goto(jupyterlab.url_of("learn/04-pod.ipynb"))
    image = page.locator("img[alt*='Steps 4 and 5']")
    image.scroll_into_view_if_needed()
    page.wait_for_function("([image, width]) => image.naturalWidth === width", arg=[image.element_handle(), flow.WIDTH])
    assert image.bounding_box()["width"] <= image.locator("xpath=ancestor::div[1]").bounding_box()["width"]
