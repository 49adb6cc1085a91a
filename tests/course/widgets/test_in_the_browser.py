"""The widgets as a learner sees them: in JupyterLab, in a browser, with the mouse and with the keyboard."""

import json
import re

import kubernetes
import pytest
from playwright.sync_api import expect

from labkit.course.widgets import flow
from tests.accessibility import faults
from tests.course.widgets.conftest import HEIGHT, READY, RUN_ALL, WIDTH

pytestmark = pytest.mark.browser

SAVE = "window.jupyterapp.commands.execute('docmanager:save')"
SHUT_DOWN = "window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"
RESTART = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
# Run the last cell again.
AGAIN = """async () => {
const panel = window.jupyterapp.shell.currentWidget;
panel.content.activeCellIndex = panel.content.model.cells.length - 1;
await window.jupyterapp.commands.execute('notebook:run-cell');
}"""
MISSED = "Error displaying widget: model not found"
# The note that the style sheet adds below a widget.
NOTE = "getComputedStyle(document.querySelector('.labkit'), '::after').content"

# The texts of table cells that stick out of their output.
OUTSIDE = """() => {
const right = element => element.getBoundingClientRect().right;
return Array.from(document.querySelectorAll('.jp-OutputArea-output td'))
  .filter(cell => right(cell) > right(cell.closest('.jp-OutputArea-output'))).map(cell => cell.textContent);
}"""

# The boxes of widgets that scroll up and down, by their height and the height of what they hold.
SCROLLING = """() => Array.from(document.querySelectorAll('.labkit, .labkit .widget-box'))
  .filter(box => box.scrollHeight > box.clientHeight && getComputedStyle(box).overflowY !== 'visible')
  .map(box => [box.clientHeight, box.scrollHeight])"""

PANEL = "document.querySelector('.jp-NotebookPanel:not(.lm-mod-hidden)').getBoundingClientRect()"

# The boxes of the picture and of each text in it: left, top, right, bottom.
BOXES = """() => {
const box = ({left, top, right, bottom}) => [left, top, right, bottom];
const named = text => [text.textContent, box(text.getBoundingClientRect())];
const picture = document.documentElement;
const shown = [...picture.querySelectorAll('text')].filter(text => text.getClientRects().length);
return [box(picture.getBoundingClientRect()), shown.map(named)];
}"""

# Of the first step, which the picture shows for 2.4 seconds.
COLOURS = """() => {
const colours = (selector) => getComputedStyle(document.querySelector(selector));
return [colours(".lit .line").stroke, colours(".token").fill];
}"""
# How JupyterLab's own style would change a report's tables.
LOOKS = """() => Array.from(document.querySelectorAll('.labkit-report :is(table, tr, code)'))
  .map(part => getComputedStyle(part)).map(({tableLayout, backgroundColor}) => `${tableLayout} ${backgroundColor}`)"""

# The reports and buttons that don't show their whole width.
CUT = """() => Array.from(document.querySelectorAll('.labkit-report, .labkit button'))
  .filter(box => box.scrollWidth > box.clientWidth).map(box => box.textContent)"""


@pytest.fixture
def opened(jupyterlab, page):
    """Return a function that opens a notebook of these cells and runs it."""

    def open_and_run(name, *cells):
        jupyterlab.open(page, jupyterlab.write(name, *cells))
        page.evaluate(RUN_ALL)

    return open_and_run


def test_the_check_s_button_reads_the_live_lab_again(lab, opened, page):
    lab.ready(through="oidc_provider")
    opened(
        "check.ipynb", "import labkit", f'labkit.Lab.open(cluster="{lab.parameters.cluster}").check("oidc_provider")'
    )
    report = page.locator(".labkit")
    button = report.get_by_role("button")
    expect(button).to_have_text("Check the OIDC provider again")
    expect(report).to_contain_text("✓ right: the OIDC provider")
    # A screen reader announces a new text only of an element that it already knows.
    announced = report.get_by_role("status")
    known = announced.element_handle()

    audience = {"OpenIDConnectProviderArn": lab.provider_arn, "ClientID": "sts.amazonaws.com"}
    iam = lab.aws.client("iam")
    iam.remove_client_id_from_open_id_connect_provider(**audience)
    button.click()
    expect(report).to_contain_text("✗ wrong: the OIDC provider")
    expect(report).to_contain_text("oidc-provider-audience-missing")
    expect(announced).to_contain_text("it has changed")
    assert known.evaluate("line => line.isConnected")

    iam.add_client_id_to_open_id_connect_provider(**audience)
    button.press("Space")
    expect(report).to_contain_text("✓ right: the OIDC provider")
    expect(button).to_be_focused()


REFUSED = """import kubernetes, labkit
lab = labkit.Lab.open()
core = kubernetes.client.CoreV1Api(lab.kubernetes)
wanted = {"spec": {"audiences": ["sts.amazonaws.com"]}}
token = core.create_namespaced_service_account_token("default", "default", wanted).status.token
with labkit.expect_denied("AccessDenied"):
    lab.aws.client("sts").assume_role_with_web_identity(
        RoleArn=lab.role_arn, RoleSessionName="narrow", WebIdentityToken=token)
display(lab.check("service_account"), lab.journey(), lab.trail(event="AssumeRoleWithWebIdentity", last=1))
lab.break_("oidc-provider-deleted")
lab.mended()"""


def test_tables_fit_into_a_narrow_notebook_panel(lab, opened, page):
    lab.ready(through="pod")
    opened("narrow.ipynb", REFUSED)
    reason = page.locator("td").filter(has_text="the trust policy wants …D1B9:sub")
    expect(reason).to_have_count(1)
    expect(page.get_by_text("not mended yet")).to_be_visible()
    # A report without a button looks like one with a button, and not like any other output of JupyterLab.
    assert set(page.evaluate(LOOKS)) == {"auto rgba(0, 0, 0, 0)"}
    for width in (1280, 1024, 800, 390):
        if width == 390:
            page.evaluate("window.jupyterapp.shell.collapseLeft()")
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_function(f"{PANEL}.right <= {width}")
        assert page.evaluate(OUTSIDE) == [], width
        expect(reason).to_be_visible()
    assert reason.evaluate("cell => getComputedStyle(cell).textAlign") == "left"
    assert faults(page, ".labkit") == []
    assert page.evaluate(CUT) == []
    # Stacked, each value has its column's name beside it.
    assert reason.evaluate("cell => getComputedStyle(cell, '::before').content") == '"reason"'


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["steps", *flow.OTHERS])
def test_no_text_of_the_picture_touches_another_or_the_edge(tmp_path, page, name, width):
    picture = tmp_path / "picture.svg"
    drawn = flow.svg(diagram=flow.OTHERS[name]) if name in flow.OTHERS else flow.svg(own=range(1, 12))
    picture.write_text(drawn.replace(f'width="{flow.WIDTH}"', "", 1))
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(picture.as_uri())
    (left, top, right, bottom), texts = page.evaluate(BOXES)
    assert texts
    for number, (text, (x, y, end, below)) in enumerate(texts):
        assert left < x < end < right and top < y < below < bottom, text
        for other, (its_x, its_y, its_end, its_below) in texts[:number]:
            assert end <= its_x or its_end <= x or below <= its_y or its_below <= y, f"{text} touches {other}"


@pytest.mark.parametrize("width", [1280, 390])
def test_the_moving_picture_stands_still_for_readers_who_asked_for_that(tmp_path, page, width):
    picture = tmp_path / "picture.svg"
    picture.write_text(flow.in_motion())
    page.set_viewport_size({"width": width, "height": 900})
    moving = "document.getAnimations().length"
    page.emulate_media(reduced_motion="no-preference")
    page.goto(picture.as_uri())
    assert page.evaluate(moving) > 0
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == 0
    shown = flow.STILL if width == 1280 else "Its SDK calls"
    expect(page.locator("text:visible").filter(has_text=shown)).to_have_count(1)


def test_the_moving_picture_s_arrow_has_the_colour_of_its_token_after_the_theme_changes(tmp_path, page):
    picture = tmp_path / "picture.svg"
    picture.write_text(flow.in_motion())
    page.emulate_media(reduced_motion="no-preference", color_scheme="light")
    page.goto(picture.as_uri())
    light = page.evaluate(COLOURS)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(COLOURS)
    assert light[0] == light[1] != dark[0] == dark[1]


def test_a_learner_s_copy_of_a_notebook_shows_its_picture(jupyterlab, page):
    jupyterlab.open(page, "learn/04-pod.ipynb")
    image = page.locator("img[alt*='Steps 4 and 5']")
    image.scroll_into_view_if_needed()
    page.wait_for_function("([image, width]) => image.naturalWidth === width", arg=[image.element_handle(), flow.WIDTH])
    assert image.bounding_box()["width"] <= image.locator("xpath=ancestor::div[1]").bounding_box()["width"]


def test_who_gets_in_judges_an_edited_policy_and_the_watch_shows_new_calls(lab, opened, page):
    lab.ready(through="service_account")
    opened("pages.ipynb", "import labkit\nlab = labkit.Lab.open()", "lab.who_gets_in()", "lab.watch()")
    policy, verdicts = page.get_by_label("The trust policy of my-role"), page.get_by_role("listitem")
    expect(page.get_by_text("1 of 6 get in: this service account.")).to_be_visible()

    # The keyboard selects the line that refuses.
    verdicts.filter(has_text="another service account").get_by_role("button").press("Enter")
    expect(policy).to_be_focused()
    expect(policy.locator(".cm-line").nth(11)).to_contain_text('"…D1B9:sub": "system:serviceaccount')
    assert '…D1B9:sub": "system:serviceaccount' in re.sub(r"\s+", " ", page.evaluate("String(getSelection())"))

    # A claim with markup in it is shown, and not run.
    page.get_by_label("aud, who the token is for").fill("<img src=x onerror='window.ran = 1'>")
    expect(verdicts.filter(has_text="<img src=x")).to_have_count(1)
    assert page.evaluate("window.ran") is None

    # A click puts the focus into the policy.
    iam = lab.aws.client("iam")
    good = json.dumps(iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"], indent=2)
    policy.blur()
    policy.click()
    expect(policy).to_be_focused()

    # A broken text is refused with its line; a valid one is judged and can be applied.
    policy.fill(good.replace('"Allow",', '"Allow"'))
    expect(page.get_by_text("Line 6, column 7 isn't JSON").first).to_be_visible()
    headline = "There are no verdicts yet: correct this first. Line 6"
    expect(page.get_by_role("status").filter(has_text=headline)).to_be_visible()
    expect(policy.locator(".cm-lintRange-error")).to_have_text('"Principal": {')
    document = json.loads(good)
    policy.fill(json.dumps({**document, "Statement": document["Statement"] * 40}, indent=2))  # 22,000 characters
    expect(page.get_by_text("LimitExceeded").first).to_be_visible()
    policy.fill(good.replace("StringEquals", "StringLike").replace(":my-service-account", ":*"))
    expect(page.get_by_role("status").filter(has_text="1 of 6 get in: another service account.")).to_be_visible()
    page.get_by_role("button", name="Make it real").press("Space")
    expect(page.get_by_role("status").filter(has_text="Done: my-role")).to_be_visible()

    # The policy now admits this token. The call appears by itself, and its details hold no secrets.
    core = kubernetes.client.CoreV1Api(lab.kubernetes)
    wanted = {"spec": {"audiences": ["sts.amazonaws.com"]}}
    token = core.create_namespaced_service_account_token("default", "default", wanted).status.token
    request = {"RoleArn": lab.role_arn, "RoleSessionName": "browser", "WebIdentityToken": token}
    keys = lab.aws.client("sts").assume_role_with_web_identity(**request)["Credentials"]
    step = page.get_by_role("button", name="Next")
    expect(step).to_be_enabled()
    step.press("Enter")
    call = page.locator(".labkit-calls li").filter(has_text="pod → STS: AssumeRoleWithWebIdentity")
    expect(call).to_contain_text("statement 1 of the trust policy allows sts:AssumeRoleWithWebIdentity")
    expect(call).to_contain_text("serviceaccount:default:default")
    told = call.text_content()
    assert not any(secret in told for secret in (keys["AccessKeyId"], keys["SessionToken"], token))


MOTION = "dot => getComputedStyle(dot).animationName"
MANY_CALLS = """from labkit.course.widgets.pages import CallsPage
long = "a word " * 60
call = {"sender": "pod", "receiver": "S3", "event": "ListObjects", "decision": "allowed", "refused": False, "step": 10,
        "says": long, "who": long, "time": "", "request": long, "answer": long, "reason": long}
numbers = iter(range(1, 99))
told = [[{**call, "number": next(numbers)} for _ in range(7)]]
calls = CallsPage(lambda: told.pop() if told else [], title="Calls", parties=["pod", "S3"], own="you", next="-", most=5)
calls"""


def test_the_watch_shows_the_newest_calls_and_an_open_one_fits(opened, page):
    opened("many.ipynb", MANY_CALLS, "told.append([{**call, 'number': next(numbers)} for _ in range(7)]); calls.look()")
    watch = page.locator(".labkit-watch")
    expect(watch.get_by_role("status")).to_have_text("the newest 5 calls")
    watch.get_by_role("button", name="First").press("Enter")
    expect(watch.get_by_role("status")).to_contain_text("Call 1 of the newest 5: pod → S3: ListObjects")
    facts = watch.locator("dl").bounding_box()
    place = watch.locator(".labkit-scroller").bounding_box()
    assert place["x"] < facts["x"] and facts["x"] + facts["width"] < place["x"] + place["width"]
    # The call has its request and its answer, which travel unless the reader wants no motion.
    current, header = watch.locator(".labkit-current"), watch.locator(".labkit-parties")
    expect(current.locator(".labkit-carries")).to_have_text(["request", "answer"])
    travels = current.locator(".labkit-travels")
    assert [each.evaluate(MOTION) for each in travels.all()] == ["labkit-travels", "labkit-travels-left"]
    page.emulate_media(reduced_motion="reduce")
    expect(travels.first).to_be_hidden()
    page.emulate_media(reduced_motion="no-preference")
    assert faults(page, ".labkit-watch") == []
    # A narrow window shows the two parties of the call beside its arrows.
    expect(header).to_be_visible()
    page.set_viewport_size({"width": 800, "height": HEIGHT})
    expect(header).to_be_hidden()
    expect(current.locator(".labkit-end")).to_have_text(["pod", "S3"])
    expect(current.locator(".labkit-end").last).to_be_visible()
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    # An open call may drop out of the newest five. Then no call is open.
    page.evaluate(AGAIN)
    expect(watch.locator(".labkit-current")).to_have_count(0)
    expect(watch.get_by_role("status")).to_have_text("the newest 5 calls")


def test_an_answer_is_announced_and_a_note_appears_after_a_kernel_restart(opened, page):
    opened("restart.ipynb", 'import labkit\nlabkit.Lab.open().predict("02-1")')
    announced = page.locator(".labkit").get_by_role("status")
    page.get_by_role("button", name="Nobody.").press("Enter")
    expect(announced).to_have_text(re.compile("✓ right: Nobody."))
    assert page.evaluate(NOTE) == "none"
    page.evaluate(RESTART)
    page.wait_for_function(f"{NOTE}.includes('Run the opening cell')")


def test_the_whole_of_a_question_is_visible_without_scrolling(opened, page):
    opened("questions.ipynb", 'import labkit\nlabkit.Lab.open().recall("02")')
    answer = page.locator(".labkit").get_by_role("button").first
    expect(answer).to_be_visible()
    assert page.evaluate(SCROLLING) == []
    answer.press("Enter")
    expect(page.locator(".labkit").get_by_role("status").first).not_to_be_empty()
    assert page.evaluate(SCROLLING) == []
    assert faults(page, ".labkit") == []


def test_a_saved_copy_shows_its_reports_without_the_kernel_that_made_them(lab, opened, page):
    lab.ready(through="oidc_provider")
    cell = 'import labkit\nlabkit.Lab.open().check("oidc_provider")'
    opened("saved.ipynb", cell, 'lab = labkit.Lab.open()\nlab.aws.client("s3").list_buckets()\nlab.watch()')
    expect(page.locator(".labkit-watch")).to_contain_text("as it happens. To see your own calls, tick the box.")
    page.evaluate(SAVE)

    # A reloaded page finds the widgets of a kernel that still runs.
    # JupyterLab waits two seconds for a widget's model, so a busy machine may need more than one reload.
    button, missed = page.get_by_role("button", name="Check the OIDC provider again"), page.get_by_text(MISSED)
    for _ in range(5):
        page.reload()
        page.wait_for_function(READY)
        expect(button.or_(missed).first).to_be_visible()
        if button.is_visible():
            break
    expect(button).to_be_visible()

    # After that, a new kernel starts with the page. It didn't make the saved widgets.
    page.evaluate(SHUT_DOWN)
    for _ in range(2):
        page.reload()
        page.wait_for_function(READY)
        expect(page.get_by_text("right: the OIDC provider")).to_be_visible()
        expect(page.get_by_text("next:  run a cell in which a pod calls AWS")).to_be_visible()
        expect(page.get_by_text(MISSED)).to_have_count(0)
