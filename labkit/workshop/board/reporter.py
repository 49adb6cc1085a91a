"""Send reports from a participant's server to the board, in a thread."""

import os
import threading
import time
from dataclasses import asdict
from pathlib import Path

from labkit.course import board, progress
from labkit.errors import LabError
from labkit.workshop.board import obeying, sharing
from labkit.workshop.board.report import ParticipantReport, report

LOOKS = 1  # seconds between two looks at the progress file
AGAIN = 1.5  # seconds after which the same is reported again: a notebook shows an order within 5
_notebook: list[str] = []  # that the participant looks at


def start() -> None:
    """Report this server's progress file for as long as the server runs."""
    threading.Thread(target=_go_on, args=(Path(os.environ[progress.VARIABLE]),), daemon=True).start()


def look_at(notebook: str) -> None:
    """Report the number of the notebook that the participant looks at, from now on."""
    _notebook[:] = [notebook]


def current() -> tuple[obeying.TakenOrder, ParticipantReport]:
    """Return the order that the lab took up last, and the report of this moment."""
    order, events = obeying.taken(), progress.events(Path(os.environ[progress.VARIABLE]))
    return order, report(events, time.time(), order, "".join(_notebook))


def _go_on(file: Path) -> None:
    sent, last, lets_in = 0.0, None, None
    obeying.resume()
    while True:
        now = file.stat().st_size if file.exists() else 0, obeying.taken(), tuple(_notebook)
        if now != last or time.monotonic() - sent > AGAIN:
            _, said = current()
            try:
                if said.lets_in != lets_in:
                    sharing.share(said.lets_in)
                    lets_in = said.lets_in
                answer = board.ask("report", asdict(said))
                sent, last = time.monotonic(), now
                if answer["seen"] and said.hand == "raised":
                    progress.kept("seen", "")
                obeying.take_up(answer.get("order"))
            except (LabError, KeyError):
                pass  # the board is being started again; the next look sends the report
        time.sleep(LOOKS)
