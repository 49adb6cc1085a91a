"""The board: what labs report, the order of the rows, what the service refuses, and both in the hub with a browser."""

import asyncio
import hashlib
import json
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from labkit.workshop.board import service
from labkit.workshop.board.access import TokenOwner
from labkit.workshop.board.report import ParticipantReport, report
from labkit.workshop.board.rows import Board
from labkit.workshop.settings import Workshop
from tests.workshop.test_workshop import CHROMIUM, OPENS, WITHIN, ready

NPM = "d6fdc75f204e6bdefa99"  # of dist/htmx.min.js in htmx.org 2.0.11


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

    async def user(self, token):
        return TokenOwner(token, token == "leader") if token else None

    async def token_for(self, code):
        return code

    def log_in(self, state):
        return f"/hub?state={state}"


@pytest.fixture
def made(tmp_path):
    workshop = Workshop(folder=tmp_path, names=["ana", "ben"], leaders=["leader"])
    return service.BoardService(workshop, Board(workshop.names, 300), Hub())


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
            assert (await web.post("report", content=good, headers=ana)).json() == {"seen": False}
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
            for _ in range(2):
                made.sessions["of-leader"] = "leader"
                web.cookies = {"board-session": "of-leader"}
                page = await web.get("")
                assert page.text.count('<tr class="working">') == 200
                assert "<code>trust-sub</code> (200)" in page.text
                assert "&lt;b&gt;x" in page.text and "<b>x" not in page.text
                assert "default-src 'none'" in page.headers["content-security-policy"]

    asyncio.run(scenario())


def test_htmx_is_npm_s():
    file = Path(service.__file__).parent / "static" / "htmx.min.js"
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(NPM)


@pytest.mark.workshop
@pytest.mark.browser
def test_a_raised_hand_is_on_the_leader_s_board_and_the_answer_comes_back(workshop, participant):
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
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
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
        coming = notebook.get_by_role("button", name="Help is coming")
        expect(coming).to_be_visible(timeout=WITHIN)
        if folder := os.environ.get("LABKIT_SCREENSHOTS"):
            notebook.screenshot(path=f"{folder}/notebook.png")
        coming.press("Enter")
        raising = notebook.get_by_role("button", name="Raise hand")
        expect(raising).to_be_visible()
        expect(board.locator("tr.seen")).to_have_count(0, timeout=WITHIN)
        raising.click()
        expect(board.locator("tr.help")).to_have_count(1, timeout=WITHIN)
        chromium.close()


def logged_in(chromium, workshop, person, path):
    """Open a page of the workshop in a browser of a person's own."""
    page = chromium.new_context(ignore_https_errors=True).new_page()
    page.set_default_timeout(WITHIN)
    page.goto(f"{workshop.url}{path}")
    page.get_by_label("Username:").fill(person.name)
    page.get_by_label("Password:").fill(person.word)
    page.keyboard.press("Enter")
    return page
