"""Send reports from a participant's server to the board, in a thread."""

import http.client
import json
import os
import threading
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from labkit.course import progress
from labkit.workshop.board import obeying
from labkit.workshop.board.report import ParticipantReport, report

LOOKS = 2  # seconds between two looks at the progress file
AGAIN = 3  # seconds after which the same is reported again, so that a lab gets an order within 5


def start() -> None:
    """Report this server's progress file for as long as the server runs."""
    threading.Thread(target=_go_on, args=(Path(os.environ[progress.VARIABLE]),), daemon=True).start()


def _go_on(file: Path) -> None:
    sent, last = 0.0, None
    obeying.resume()
    while True:
        order = obeying.taken()
        now = file.stat().st_size if file.exists() else 0, order
        if now != last or time.monotonic() - sent > AGAIN:
            said = report(progress.events(file), time.time(), order)
            try:
                answer = _send(said)
                sent, last = time.monotonic(), now
                if answer["seen"] and said.hand == "raised":
                    progress.kept("seen", "")
                obeying.take_up(answer.get("order"))
            except (OSError, http.client.HTTPException, ValueError, KeyError):
                pass  # the board is being started again; the next look sends the report
        time.sleep(LOOKS)


def _send(said: ParticipantReport) -> dict[str, object]:
    """Send a report, and return the answer: whether the leader has `seen` the raised hand, and the leader's `order`.

    Raises `ValueError` or `KeyError` if it's refused.
    """
    address = urlsplit(os.environ[progress.BOARD])
    header = {"Authorization": f"token {os.environ['JUPYTERHUB_API_TOKEN']}"}
    with closing(http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)) as connection:
        connection.request("POST", address.path, json.dumps(asdict(said)), header)
        answer: dict[str, object] = json.loads(connection.getresponse().read())
        return answer
