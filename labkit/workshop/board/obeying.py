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
from typing import Any

from labkit.course import progress

NAME = ".order.json"
# A new class has no order yet, and isn't the one that broke the lab.
ENDED: dict[str, Any] = {"number": 0, "what": "mend", "about": "", "turn": True}
WORKING = ("coming", "changing")
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
    """Begin again with an order in the middle of which the last server ended."""
    if (last := taken()).state == "changing":
        _note(replace(last, state="coming"))


def take_up(order: object) -> None:
    """Take up the board's order. When it's the lab's turn, carry it out in a thread.

    A lab that has to be mended takes up no other order before that.
    """
    if not isinstance(order, dict):
        return
    order, last = order or ENDED, taken()
    about, number, what = order["about"], order["number"], order["what"]
    is_mending = last.what == "mend" and last.state in WORKING
    if number != last.number and not (is_mending and what != "mend"):
        was_broken = is_mending or (last.what == "break" and last.state not in ("refused", "failed", "out"))
        if was_broken and what != "mend":
            about, number, what = "", 0, "mend"  # what an ended class has left goes first
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
