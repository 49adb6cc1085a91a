"""The board: what labs report, the order of the rows, what the service refuses, and both in the hub with a browser."""

import asyncio
import hashlib
import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from labkit.course import CATALOGUE
from labkit.errors import LabError
from labkit.workshop import leading
from labkit.workshop.board import changing, notebook, obeying, reporter, service
from labkit.workshop.board.access import TokenOwner
from labkit.workshop.board.orders import Orders
from labkit.workshop.board.report import ParticipantReport, report
from labkit.workshop.board.rows import Board
from labkit.workshop.settings import Workshop
from tests import accessibility
from tests.workshop.conftest import command
from tests.workshop.test_workshop import OPENS, WITHIN, own_started_again, ready

NPM = "d6fdc75f204e6bdefa99"  # of dist/htmx.min.js in htmx.org 2.0.11

expect.set_options(timeout=WITHIN)
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"  # the notebook in front
SOON = 5_000  # milliseconds until a lost key press is tried again
BEHIND = "eve"  # in another test, ana and ben go to the last notebook
PAGES = {"leader": "services/board/", "ana": f"user/ana/lab/tree/learn/{OPENS}"}


def event(what, id, at, right=True):
    return {"version": 1, "at": at, "what": what, "id": id, "right": right}


def test_a_report_says_where_somebody_is_and_how_long_nothing_went_on():
    events = [
        event("step", "iam_role", 10),
        event("finding", "trust-sub", 11),
        event("opened", "02-a", 20),
        event("hint", "02-a", 30),
        event("tried", "02-a", 40, right=False),
        None,
        event("finding", "trust-aud", 41),
        event("finding", "<b>", 42),
        event("help", "", 43),
    ]
    said = report(events, 100)
    where = {"notebook": "02", "step": "iam_role", "exercise": "02-a"}
    assert said == ParticipantReport(**where, tries=1, hints=1, quiet=80, hand="raised", findings=["trust-aud"])
    said = report([*events, event("seen", "", 50), event("tried", "02-a", 60)], 100)
    assert (said.exercise, said.hand, said.findings, said.quiet) == ("", "", [], 40)
    assert report([*events, event("tried", "02-a", 60)], 100).hand == "raised"  # nobody has answered yet
    assert report([], 100) == ParticipantReport()
    fault = obeying.TakenOrder(1, "break", "fault-x", "broken", at=90)
    assert report(events, 100, fault).quiet == 10, "they look for the leader's fault since then"
    gone = obeying.TakenOrder(2, "goto", "05-verify", "there", at=90)
    assert report(events, 100, gone).exercise == "", "the lab has closed it"
    assert report([*events, event("opened", "05-a", 95)], 100, gone).exercise == "05-a"


def test_the_board_puts_those_who_need_help_first():
    clock = [0.0]
    board = Board(["absent", "working"], 300, lambda: clock[0])
    board.receive("silent", ParticipantReport(exercise="02-a", quiet=0))
    clock[0] = 600
    board.receive("working", ParticipantReport(exercise="02-a", quiet=299, findings=["a", "b"]))
    board.receive("stuck", ParticipantReport(exercise="02-a", quiet=301, findings=["b"]))
    board.receive("longer", ParticipantReport(exercise="02-a", quiet=400))
    board.receive("help", ParticipantReport(hand="raised"))
    board.receive("other", None)
    names = [(row.name, row.state) for row in board.rows()]
    assert names == [("help", "help"), ("longer", "stuck"), ("stuck", "stuck"), ("silent", "silent"),
                     ("other", "other"), ("working", "working"), ("absent", "absent")]  # fmt: skip
    assert board.rows()[3].waits == "10:00"
    assert board.commonest() == [("b", 2), ("a", 1)]
    board.answer("help")
    board.answer("nobody")
    assert board.receive("help", ParticipantReport(hand="raised"))
    assert next(row.state for row in board.rows() if row.name == "help") == "seen"
    assert not board.receive("help", ParticipantReport(hand="seen"))


BAD_REPORTS = [
    "[]",
    "{",
    '{"version": 2}',
    '{"version": "1"}',
    '{"exercise": "<script>"}',
    '{"tries": -1}',
    '{"quiet": 1e999}',
    '{"quiet": NaN}',
    '{"findings": ["a b"]}',
]


class Hub:
    """The hub's answers: a token is its user's name; `leader` opens the board."""

    token = "of-the-board"

    async def user(self, token):
        return TokenOwner(token, token == "leader") if token else None

    async def token_for(self, code):
        return code

    def log_in(self, state):
        return f"/hub?state={state}"


@pytest.fixture
def made(tmp_path):
    return board_of(a_class(tmp_path))


def board_of(workshop):
    return service.BoardService(workshop, Board(workshop.names, 300), Hub(), Orders(workshop))


def a_class(folder, **more):
    return Workshop(folder=folder, state=folder, names=["ana", "ben"], leaders=["leader"], **more)


def client(made):
    transport = httpx.ASGITransport(made.application())
    return httpx.AsyncClient(transport=transport, base_url="http://board/services/board/")


def test_bad_reports_and_strangers_are_refused(made):
    good = json.dumps(asdict(ParticipantReport(exercise="02-a", quiet=1)))
    sent = []

    async def endless():
        for _ in range(1600):
            sent.append(1)
            yield bytes(65536)

    async def scenario():
        async with client(made) as web:
            ana = {"Authorization": "token ana"}
            assert (await web.post("report", content=good)).status_code == 403
            assert (await web.post("report", content=good, headers=ana)).json() == {"seen": False, "order": {}}
            assert (await web.post("report", content=endless(), headers=ana)).status_code == 413
            assert len(sent) < 5, "the service read on"
            forged = '{"name": "ben", "hand": "raised"}'
            for body in (forged, json.dumps({"findings": ["a"] * 21}), *BAD_REPORTS):
                assert (await web.post("report", content=body, headers=ana)).status_code == 422, body
            assert {row.name: row.state for row in made.board.rows()} == {"ana": "other", "ben": "absent"}
            for stranger in ({}, {"board-session": "x"}):
                web.cookies = stranger
                assert (await web.get("")).headers["location"].startswith("/hub?state=")
                assert (await web.get("rows")).text == ""
                assert (await web.post("seen?name=ana", headers={"HX-Request": "true"})).status_code == 403
            web.cookies = {"board-state": "s"}
            assert (await web.get("oauth_callback?state=s&code=ana")).status_code == 403
            assert (await web.get("oauth_callback?state=other&code=leader")).headers["location"] == "/services/board/"
            assert not made.sessions

    asyncio.run(scenario())


def test_200_labs_at_once_and_two_leaders_see_all_rows(made):
    made.board.reports["<b>x"] = (time.monotonic(), ParticipantReport(hand="raised"))

    async def scenario():
        async with client(made) as web:
            said = json.dumps(asdict(ParticipantReport(exercise="02-a", quiet=1, findings=["trust-sub"])))
            headers = [{"Authorization": f"token p{number}"} for number in range(200)]
            answers = await asyncio.gather(*(web.post("report", content=said, headers=each) for each in headers))
            assert {answer.status_code for answer in answers} == {200}
            used_the_doctor = await web.post("examination", json={"mark": "doctor"}, headers=headers[0])
            assert used_the_doctor.status_code == 200
            for _ in range(2):
                made.sessions["of-leader"] = "leader"
                web.cookies = {"board-session": "of-leader"}
                page = await web.get("")
                assert page.text.count('<tr class="working">') == 200
                assert "<code>trust-sub</code> (200)" in page.text
                assert "examination</th>" not in page.text, "nobody has begun one"
                assert "&lt;b&gt;x" in page.text and "<b>x" not in page.text
                assert "default-src 'none'" in page.headers["content-security-policy"]

    asyncio.run(scenario())


def test_of_two_leaders_who_break_at_once_the_second_is_refused_and_each_lab_gets_one_fault(made, tmp_path):
    async def scenario():
        async with client(made) as web:
            given = {"what": "break", "about": ["one", "two", "three"]}
            assert (await web.post("order", json=given)).status_code == 403
            assert (await web.post("order", json=given, headers={"Authorization": "token leader"})).status_code == 403
            leader = {"Authorization": "token of-the-board"}
            answers = await asyncio.gather(*(web.post("order", json=given, headers=leader) for _ in range(2)))
            assert sorted(answer.status_code for answer in answers) == [200, 409]
            assert "has a fault since" in max(answers, key=lambda answer: answer.status_code).text
            faults = []
            for name in ("ana", "ben", "ana"):
                said = json.dumps(asdict(ParticipantReport()))
                answer = await web.post("report", content=said, headers={"Authorization": f"token {name}"})
                faults.append(answer.json()["order"]["about"])
            assert faults == ["one", "two", "one"]
            # A board that was started again goes on with the same order.
            assert Orders(made.workshop).for_lab("ben", ParticipantReport())["about"] == "two"
            assert (await web.post("order", json={"what": "goto", "about": ["05"]}, headers=leader)).status_code == 409
            assert (await web.post("order", json={"what": "mend", "about": []}, headers=leader)).json() == {"labs": 2}
            assert (await web.post("order", json={"what": "mend", "about": []}, headers=leader)).status_code == 409

    asyncio.run(scenario())


def test_a_notebook_shows_an_order_within_5_seconds():
    page = (Path(notebook.__file__).parent / "jupyter/labextensions/labkit-class/static/remoteEntry.js").read_text()
    looks = int(re.search(r"LOOKS = (\d+);", page)[1]) / 1000
    assert reporter.AGAIN + reporter.LOOKS + looks < 5


def test_a_banner_tells_an_error_or_what_the_pod_is_and_never_the_cause():
    who, listing = ("aws sts who", "arn:aws:sts::1:role/node"), ("aws s3 ls", "cart.txt")
    assert changing.symptom([who, listing]) == (
        "In your pod, aws sts who says: arn:aws:sts::1:role/node. In your pod, aws s3 ls says: cart.txt."
    )
    unable = "Unable to locate credentials."
    assert (
        changing.symptom([("one", unable), ("two", unable)]) == "In your pod, two says: Unable to locate credentials."
    )
    assert changing.symptom([]) == "Your pod doesn't run as it should."


def test_a_class_gets_no_fault_without_a_symptom(tmp_path):
    silent = next(each.id for each in CATALOGUE.values() if each.works)
    for fault, sentence in ((silent, "still works"), ("no-such-fault", "no-such-fault"), ("", "Name one fault")):
        with pytest.raises(LabError, match=sentence):
            leading.break_(a_class(tmp_path), fault)


def test_each_notebook_says_what_it_needs_ready():
    for file in changing.NOTEBOOKS.glob("[0-9]*.ipynb"):
        assert all(which in ("before", "through") for which, _ in changing.ready(file)), file.name
    assert changing.ready(next(changing.NOTEBOOKS.glob("05-*.ipynb"))) == [("before", "pod"), ("through", "pod")]


def test_htmx_is_npm_s():
    file = Path(service.__file__).parent / "static" / "htmx.min.js"
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(NPM)


@pytest.mark.workshop
@pytest.mark.browser
def test_a_raised_hand_is_on_the_leader_s_board_and_the_answer_comes_back(workshop, participant, laptop):
    async def run(name, source):
        person = await ready(participant, name)
        async with person.kernel(OPENS) as kernel:
            return await kernel.run(source)

    async def refused(name):
        person = await ready(participant, name)
        return (await person.http.get("services/board/")).status_code

    lab = "import labkit; lab = labkit.Lab.open(**labkit.parameters()); lab.exercise('01-a'); lab.help()"
    assert "Your hand is up" in asyncio.run(run("ana", lab))
    assert asyncio.run(refused("ben")) == 403
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(**laptop)
        board, notebook = (logged_in(chromium, workshop, participant(name), path) for name, path in PAGES.items())
        first = board.locator("tbody tr").first
        expect(first).to_contain_text("needs help", timeout=WITHIN)
        expect(first.get_by_role("cell").nth(3)).to_have_text("01-a")
        expect(notebook.get_by_role("button", name="Hand is up")).to_be_visible(timeout=WITHIN)
        board.wait_for_load_state()  # the key's script is there
        board.keyboard.press("n")
        expect(board.get_by_role("button", name="Hide names")).to_have_attribute("aria-pressed", "true")
        board.get_by_role("button", name="Seen ana").press("Enter")
        expect(board.get_by_text("help is coming").first).to_be_visible()
        notebook.locator(".jp-DirListing-item", has_text="02-iam-role.ipynb").dblclick()
        looks_at = board.locator("tbody tr", has_text="ana").get_by_role("cell").nth(1)
        expect(looks_at).to_have_text("02", timeout=WITHIN)
        notebook.get_by_role("tab", name=OPENS).click()
        coming = notebook.get_by_role("button", name="Help is coming")
        expect(coming).to_be_visible(timeout=WITHIN)
        if folder := os.environ.get("LABKIT_SCREENSHOTS"):
            notebook.screenshot(path=f"{folder}/notebook.png")
        raising = notebook.get_by_role("button", name="Raise hand")
        press(coming, until=raising)
        expect(board.locator("tr.seen")).to_have_count(0, timeout=WITHIN)
        raising.click()
        expect(board.locator("tr.help")).to_have_count(1, timeout=WITHIN)
        chromium.close()


@pytest.mark.workshop
@pytest.mark.browser
def test_a_leader_opens_a_lab_only_while_its_participant_lets_them_in(workshop, participant, laptop):
    async def raised(name):
        person = await ready(participant, name)
        async with person.kernel(OPENS) as kernel:
            await kernel.run("import labkit; labkit.Lab.open(**labkit.parameters()).help()")

    async def refused(name):
        person = await ready(participant, name)
        return (await person.http.get("user/ana/lab")).status_code

    asyncio.run(raised("ana"))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(**laptop)
        board, notebook = (logged_in(chromium, workshop, participant(name), path) for name, path in PAGES.items())
        board.wait_for_url("**/services/board/")
        opening, leader = board.get_by_role("link", name="Open the lab of ana"), board.context.new_page()
        leader.set_default_timeout(WITHIN)
        lab = f"{workshop.url}user/ana/lab"
        assert leader.goto(lab).status == 403
        expect(opening).to_have_count(0)
        letting, ending = (notebook.get_by_role("button", name=name) for name in ("Let the leader in", "End it"))
        press(letting, until=ending)
        expect(opening).to_be_visible(timeout=WITHIN)
        with board.expect_popup() as popup:
            opening.press("Enter")
        shown = popup.value
        shown.get_by_role("button", name="Authorize").click(timeout=WITHIN)
        shown.get_by_role("button", name="Hand is up").wait_for(timeout=WITHIN)  # the notebook is there
        assert leader.goto(lab, wait_until="commit").status == 200
        with ThreadPoolExecutor(1) as thread:  # Playwright's own loop runs in this one
            assert thread.submit(asyncio.run, refused("ben")).result() == 403
        if shots := os.environ.get("LABKIT_SCREENSHOTS"):
            notebook.screenshot(path=f"{shots}/let-in.png")
            board.screenshot(path=f"{shots}/open.png")
        own_started_again(workshop, "jupyterhub")  # the hub knows it all the same
        press(ending, until=letting)
        expect(shown.get_by_role("status").filter(has_text="This lab is closed to you.")).to_be_visible()
        assert answered(leader, lab) == 403
        expect(opening).to_have_count(0, timeout=WITHIN)
        chromium.close()


@retry(stop=stop_after_delay(WITHIN / 1000), reraise=True)
def press(button, *, until):
    """Press a button by its key until something is visible: a notebook that opens can take the focus from it."""
    if not until.is_visible():
        button.press("Enter", timeout=SOON)
    expect(until).to_be_visible(timeout=SOON)


@retry(stop=stop_after_delay(WITHIN / 1000), wait=wait_fixed(0.5), retry=retry_if_result(lambda status: status == 503))
def answered(page, url):
    """The status of a page, once the proxy finds the hub again."""
    return page.goto(url).status


@pytest.mark.workshop
@pytest.mark.browser
def test_the_class_is_broken_mends_and_goes_on(workshop, folder, participant, laptop):
    asyncio.run(both_ready(participant))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(**laptop)
        board, page = (logged_in(chromium, workshop, participant(name), path) for name, path in PAGES.items())
        ana, behind = (board.locator("tbody tr", has_text=name) for name in ("ana", BEHIND))
        given = command("break", folder, "bucket-policy-denies-the-role")
        assert "labs at work will break" in given.stdout, given.stderr
        assert " or ".join(command("board", folder).stdout.split()) in given.stdout
        again = command("break", folder, "--draw")
        assert again.returncode == 1 and f"labkit workshop mend {folder}" in again.stderr
        own_started_again(workshop, "board.service")
        status = page.get_by_role("status")
        banner = status.filter(has_text="AccessDenied")
        expect(banner).to_be_visible(timeout=WITHIN)
        expect(banner).not_to_contain_text("bucket-policy")
        box, cells = banner.bounding_box(), page.locator(".jp-Notebook").filter(visible=True).bounding_box()
        assert box["y"] + box["height"] <= cells["y"], "the notebook hides the banner"
        for row in (ana, behind):
            expect(row).to_contain_text("broken", timeout=WITHIN)
        page.get_by_role("button", name="Is it mended?").press("Enter")
        expect(status.filter(has_text="Not mended yet, after 1 check.")).to_be_visible(timeout=WITHIN)
        with ThreadPoolExecutor(1) as thread:  # Playwright's own loop runs in this one
            thread.submit(asyncio.run, repaired(participant)).result()
        if shots := os.environ.get("LABKIT_SCREENSHOTS"):
            page.screenshot(path=f"{shots}/banner.png")
        page.get_by_role("button", name="Is it mended?").press("Enter")
        expect(status.filter(has_text="Mended: the pod")).to_be_visible(timeout=WITHIN)
        expect(ana).to_contain_text("mended (2)", timeout=WITHIN)
        expect(board.get_by_text(re.compile(r"\d broken, 1 mended"))).to_be_visible()
        assert command("mend", folder).returncode == 0
        expect(status.filter(has_text="The leader has mended your lab.")).to_be_visible(timeout=WITHIN)
        refused = command("goto", folder, "07")
        assert refused.returncode == 1 and "use one of: 00, 01, 02, 05" in refused.stderr
        assert command("goto", folder, "05").returncode == 0
        prepared = page.get_by_role("button", name="Open 05-verify")
        press(page.get_by_role("button", name="Prepare my lab"), until=prepared)
        prepared.press("Enter")
        expect(page.get_by_role("tab", name="05-verify.ipynb")).to_be_visible()
        expect(ana).to_contain_text("there", timeout=WITHIN)
        expect(behind).to_contain_text("invited")
        if shots:
            board.screenshot(path=f"{shots}/orders.png")
        hand = page.locator(f"{PANEL} [data-jp-item-name=labkit-hand] button")  # another test can have raised it
        assert hand.get_attribute("aria-pressed") == "true" or hand.press("Enter") is None
        expect(page.get_by_role("button", name="Let the leader in")).to_be_visible()
        expect(board.get_by_role("button", name="Seen ana")).to_be_visible()
        for theme in ("light", "dark"):
            board.emulate_media(color_scheme=theme)
            assert accessibility.faults(board, "body") == [], theme
        for ours in ("[data-jp-item-name=labkit-hand]", ":has(> [role=status])"):
            assert accessibility.faults(page, f"{PANEL} {ours}") == []
        hand.press("Enter")
        expect(board.locator("tr.help")).to_have_count(0)
        chromium.close()


async def both_ready(participant):
    await asyncio.gather(*(ready(participant, name) for name in ("ana", BEHIND)))


async def repaired(participant):
    """Take the deny out of ana's bucket policy, as a learner does."""
    person = await ready(participant, "ana")
    async with person.kernel(OPENS) as kernel:
        lab = "import labkit; lab = labkit.Lab.open(**labkit.parameters())"
        await kernel.run(f"{lab}; lab.aws.client('s3').delete_bucket_policy(Bucket='irsa-lab')")


def logged_in(chromium, workshop, person, path):
    """Open a page of the workshop in a browser of a person's own."""
    page = chromium.new_context(ignore_https_errors=True).new_page()
    page.set_default_timeout(WITHIN)
    page.goto(f"{workshop.url}{path}")
    page.get_by_label("Username:").fill(person.name)
    page.get_by_label("Password:").fill(person.word)
    page.keyboard.press("Enter")
    return page
