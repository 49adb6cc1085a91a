"""Carry out the leader's order in a participant's lab, from the participant's server.

A program of its own changes the lab (`changing`), because the server doesn't load the lab. What was done is in a file
in learn/, so that a server that starts again goes on from there.
"""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from labkit.course import progress

NAME = ".order.json"
FAILED = "Your lab can't do what the leader wants. Raise your hand."
WITHIN = 300  # seconds
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class TakenOrder:
    """The order that the lab took up last, and how far it is. `board.orders.Order` has the first three."""

    number: int = 0
    what: str = ""
    about: str = ""
    state: str = ""
    """coming, changing, broken, out (taken out), refused, failed; invited, there, stays. The report adds mended."""
    at: float = 0
    """When the state began, in seconds since 1970."""
    text: str = ""
    """The symptom, or why it was refused."""


def taken() -> TakenOrder:
    """Return the order that the lab took up last."""
    try:
        return TakenOrder(**json.loads(_file().read_text()))
    except (OSError, ValueError, TypeError):
        return TakenOrder()


def resume() -> None:
    """Forget an order in the middle of which the last server ended: the board gives it again."""
    if taken().state in ("coming", "changing"):
        _file().unlink()


def take_up(order: object) -> None:
    """Take up the board's order, if it has one. When it's the lab's turn, carry it out in a thread."""
    if order == {} and taken().state == "invited":
        _note(TakenOrder())  # the class that goes there has ended
    if not isinstance(order, dict) or not order:
        return
    last = taken()
    if order["number"] != last.number:
        about, number, what = order["about"], order["number"], order["what"]
        was_broken = last.what == "break" and last.state not in ("refused", "failed", "out")
        state = "invited" if what == "goto" else "coming" if what == "break" or was_broken else ""
        last = _note(TakenOrder(number, what, about, state))
    if last.state == "coming" and order["turn"]:
        _in_thread(last)


def answer(button: str) -> None:
    """Do what the participant chose in the banner: check, close, go or stay."""
    last = taken()
    match button, last.state:
        case "check", "broken":
            if _run("check").get("state") == "out":
                _note(replace(last, state="out", text=""))
        case "go", "invited":
            _in_thread(last)
        case "stay", "invited":
            _note(replace(last, state="stays"))
        case "close", _:
            _write(replace(last, text=""))  # its state goes on


def _in_thread(order: TakenOrder) -> None:
    threading.Thread(target=_carry_out, args=(_note(replace(order, state="changing")),), daemon=True).start()


def _carry_out(order: TakenOrder) -> None:
    with _one_at_a_time:
        done = _run(order.what, order.about)
    if taken().number == order.number:
        _note(replace(order, state=done.get("state", "failed"), text=done.get("text", FAILED)))


def _run(what: str, about: str = "") -> dict[str, str]:
    """Change the lab, and return the new state and a text."""
    command = [sys.executable, "-P", "-m", "labkit.workshop.board.changing", what, about]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN)
        said: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return {}
    return said


def _note(order: TakenOrder) -> TakenOrder:
    _write(order := replace(order, at=time.time()))
    return order


def _write(order: TakenOrder) -> None:
    written = _file().with_suffix(".new")
    written.write_text(json.dumps(asdict(order)))
    written.replace(_file())


def _file() -> Path:
    return Path(os.environ[progress.VARIABLE]).with_name(NAME)
