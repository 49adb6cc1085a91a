"""The widgets as a learner sees them: in JupyterLab, in a browser, with the mouse and with the keyboard."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.browser

WITHIN = 60  # seconds
RUN_ALL = "return window.jupyterapp.commands.execute('notebook:run-all-cells')"
READY = """
const panel = window.jupyterapp?.shell.currentWidget;
return panel?.content?.model?.cells?.length > 0 && panel.sessionContext?.session?.kernel?.status === 'idle';
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
