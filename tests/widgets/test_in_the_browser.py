"""The widgets as a learner sees them: in JupyterLab, in a browser, with the mouse and with the keyboard."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from labkit.cli import learning
from labkit.widgets import flow

pytestmark = pytest.mark.browser

WITHIN = 60  # seconds
RUN_ALL = "return window.jupyterapp.commands.execute('notebook:run-all-cells')"
READY = """
const panel = window.jupyterapp?.shell.currentWidget;
return panel?.content?.model?.cells?.length > 0 && panel.sessionContext?.session?.kernel?.status === 'idle';
"""

# The boxes of all texts of a picture, and the picture's own: left, top, right, bottom.
BOXES = """
const box = ({left, top, right, bottom}) => [left, top, right, bottom];
const named = text => [text.textContent, box(text.getBoundingClientRect())];
const picture = document.documentElement;
return [box(picture.getBoundingClientRect()), Array.from(picture.querySelectorAll('text'), named)];
"""


@pytest.fixture
def wait(browser):
    return WebDriverWait(browser, WITHIN, poll_frequency=0.1)


@pytest.fixture
def opened(jupyterlab, browser, wait):
    """Opens a notebook of these cells and runs it."""

    def open_and_run(name, *cells):
        browser.get(jupyterlab.write(name, *cells))
        wait.until(lambda browser: browser.execute_script(READY))
        browser.execute_script(RUN_ALL)

    return open_and_run


def only(found):
    (element,) = found
    return element


def test_the_check_is_a_button_that_reads_the_live_lab_again(lab, opened, browser, wait):
    lab.ready(through="oidc_provider")
    opened(
        "check.ipynb", "import labkit", f'labkit.Lab.open(cluster="{lab.parameters.cluster}").check("oidc_provider")'
    )
    wait.until(lambda browser: browser.find_elements(By.CSS_SELECTOR, ".labkit button"))
    report = only(browser.find_elements(By.CSS_SELECTOR, ".labkit"))
    button = only(report.find_elements(By.TAG_NAME, "button"))
    assert button.text == "Check the OIDC provider again"
    assert "✓ right: the OIDC provider" in report.text

    audience = {"OpenIDConnectProviderArn": lab.provider_arn, "ClientID": "sts.amazonaws.com"}
    iam = lab.aws.client("iam")
    iam.remove_client_id_from_open_id_connect_provider(**audience)
    button.click()
    wait.until(lambda _: "✗ wrong: the OIDC provider" in report.text)
    assert "oidc-provider-audience-missing" in report.text
    assert "it has changed" in only(report.find_elements(By.CSS_SELECTOR, "[role=status]")).text

    iam.add_client_id_to_open_id_connect_provider(**audience)
    button.send_keys(Keys.SPACE)
    wait.until(lambda _: "✓ right: the OIDC provider" in report.text)
    assert browser.switch_to.active_element == button


def test_no_text_of_the_picture_touches_another_or_the_edge(tmp_path, browser):
    picture = tmp_path / "steps.svg"
    picture.write_text(flow.svg(own=range(1, 12)))
    browser.get(picture.as_uri())
    (left, top, right, bottom), texts = browser.execute_script(BOXES)
    for number, (text, (x, y, end, below)) in enumerate(texts):
        assert left < x < end < right and top < y < below < bottom, text
        for other, (its_x, its_y, its_end, its_below) in texts[:number]:
            assert end <= its_x or its_end <= x or below <= its_y or its_below <= y, f"{text} touches {other}"


def test_a_learners_copy_shows_its_picture(jupyterlab, browser, wait):
    learning.copy_notebooks(jupyterlab.folder / "learn")
    browser.get(jupyterlab.url_of("learn/04-pod.ipynb"))
    image = wait.until(lambda browser: browser.find_elements(By.CSS_SELECTOR, "img[alt*='Steps 4 and 5']"))[0]
    wait.until(lambda browser: browser.execute_script("return arguments[0].naturalWidth", image) == flow.WIDTH)
    page, picture = image.find_element(By.XPATH, "./ancestor::div[1]").rect, image.rect
    assert picture["width"] <= page["width"]
