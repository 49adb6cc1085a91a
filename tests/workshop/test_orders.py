"""The leader's orders: the labs' turns, and what a lab does, also if its server or the class ends meanwhile."""

import time

import pytest

from labkit.course import progress
from labkit.workshop.board import notebook, obeying
from labkit.workshop.board.obeying import TakenOrder
from labkit.workshop.board.orders import OrderRefused, Orders
from labkit.workshop.board.report import ParticipantReport, report
from tests.workshop.test_board import a_class

GOTO = {"number": 9, "what": "goto", "about": "05-verify", "turn": False}


def test_few_labs_carry_an_order_out_at_a_time_and_a_lost_one_gives_its_turn_away(tmp_path):
    clock = [0.0]
    orders = Orders(a_class(tmp_path, starts=2), lambda: clock[0])
    orders.give("break", ["one"])
    coming = ParticipantReport(order=orders.now.number, state="coming")

    def turns(*names, report=coming):
        return [orders.for_lab(name, report)["turn"] for name in names]

    assert turns("a", "b", "c", "a") == [True, True, False, True]
    turns("a", report=ParticipantReport(order=orders.now.number, state="broken"))
    assert turns("c", "d") == [True, False]
    clock[0] = 121
    assert turns("d", "b") == [True, True]
    with pytest.raises(OrderRefused):
        orders.give("break", ["two"])


def test_a_lab_takes_an_order_up_once_and_the_banner_tells_the_symptom_alone(tmp_path, monkeypatch):
    file = tmp_path / "progress.jsonl"
    monkeypatch.setenv(progress.VARIABLE, str(file))
    ran, done = [], {"state": "broken", "text": "AccessDenied"}

    def run(what, about=""):
        ran.append((what, about))
        return done

    monkeypatch.setattr(obeying, "_run", run)
    monkeypatch.setattr(obeying, "_in_thread", lambda order: obeying._carry_out(obeying._note(order)))

    def shown():
        said = report(progress.events(file), time.time(), obeying.taken())
        return said.state, notebook.banner(said, obeying.taken()).get("text", "")

    order = {"number": 1, "what": "break", "about": "fault-x", "turn": False}
    obeying.take_up(order)
    breaking = "The leader is breaking something in your lab. Soon you read here what the pod says."
    assert (shown(), ran) == (("coming", breaking), [])
    for _ in range(2):
        obeying.take_up(order | {"turn": True})
    assert ran == [("break", "fault-x")]
    assert shown() == ("broken", "Something in your lab is broken. AccessDenied Find out why, and repair it.")
    obeying.resume()
    assert shown()[0] == "broken"
    progress.kept("mended", "", right=False)
    assert shown()[1].endswith("Not mended yet, after 1 check.")
    progress.kept("mended", "")
    assert shown()[0] == "mended" and shown()[1].startswith("Mended: the pod has its role and its bucket again.")
    obeying.answer("close")
    assert shown() == ("mended", "")
    done = {"state": "", "text": "The leader has mended your lab."}
    obeying.take_up({"number": 2, "what": "mend", "about": "", "turn": False})
    assert shown() == ("coming", "The leader is mending your lab.")
    obeying.take_up({"number": 2, "what": "mend", "about": "", "turn": True})
    obeying.answer("close")
    assert (shown(), ran[1:]) == (("", ""), [("mend", "")])
    done = {"state": "there", "text": "Ready."}
    obeying.take_up({"number": 3, "what": "goto", "about": "05-verify", "turn": True})
    assert shown()[0] == "invited" and "goes on with 05-verify" in shown()[1]
    for press in ("check", "<b>", "go"):
        obeying.answer(press)
    assert (shown(), ran[2:]) == (("there", "Ready."), [("goto", "05-verify")])
    obeying.take_up({"number": 4, "what": "goto", "about": "01-oidc-provider", "turn": True})
    progress.kept("opened", "02-a")
    assert shown() == ("there", "")  # not behind
    for done, text in (({"state": "refused", "text": "Not now."}, "Not now."), ({}, obeying.FAILED)):
        obeying.take_up({"number": 5 + len(text), "what": "break", "about": "fault-x", "turn": True})
        assert shown() == (done.get("state", "failed"), text)
    for order in ({"number": 90, "what": "goto", "about": "99-clean-up", "turn": True}, {}):
        obeying.take_up(order)
    assert shown() == ("", "")  # a new class has no invitation


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """What a lab does, as it would at once."""
    ran = []
    monkeypatch.setenv(progress.VARIABLE, str(tmp_path / "progress.jsonl"))
    monkeypatch.setattr(obeying, "_run", lambda what, about="": ran.append(what) or {"state": "", "text": "Mended."})
    monkeypatch.setattr(obeying, "_in_thread", lambda order: obeying._carry_out(obeying._note(order)))
    return ran


@pytest.mark.parametrize(
    "left",
    [
        TakenOrder(7, "break", "fault-x", "broken"),
        TakenOrder(7, "break", "fault-x", "changing"),
        TakenOrder(8, "mend", "", "changing"),
    ],
)
def test_a_new_class_mends_what_the_last_one_left_broken(ran, left):
    obeying._note(left)
    obeying.resume()
    for _ in range(2):
        obeying.take_up({})
    assert (ran, obeying.taken().state, obeying.taken().text) == (["mend"], "", "Mended.")


@pytest.mark.parametrize("left", [
    TakenOrder(7, "break", "fault-x", "broken"),
    TakenOrder(8, "mend", "", "coming"),
    TakenOrder(8, "mend", "", "changing"),
])  # fmt: skip
def test_a_lab_is_mended_before_the_class_goes_on_also_if_its_server_ended_meanwhile(ran, left):
    obeying._note(left)
    obeying.resume()
    for turn in (False, True):
        obeying.take_up(GOTO | {"turn": turn})
        assert ran == ["mend"] * turn
    obeying.take_up(GOTO)
    assert (ran, obeying.taken().state) == (["mend"], "invited")
