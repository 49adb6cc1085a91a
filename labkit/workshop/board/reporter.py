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
from labkit.workshop.board.report import ParticipantReport, report

LOOKS = 2  # seconds between two looks at the progress file
AGAIN = 10  # seconds after which an unchanged file is reported again


def start() -> None:
    """Report this server's progress file for as long as the server runs."""
    threading.Thread(target=_go_on, args=(Path(os.environ[progress.VARIABLE]),), daemon=True).start()


def _go_on(file: Path) -> None:
    sent, size = 0.0, -1
    while True:
        length = file.stat().st_size if file.exists() else 0
        if length != size or time.monotonic() - sent > AGAIN:
            said = report(progress.events(file), time.time())
            try:
                seen = _send(said)
                sent, size = time.monotonic(), length
                if seen and said.hand == "raised":
                    progress.kept("seen", "")
            except (OSError, http.client.HTTPException, ValueError):
                pass  # the board is being started again; the next look sends the report
        time.sleep(LOOKS)


def _send(said: ParticipantReport) -> bool:
    """Send a report, and return whether the leader has seen the raised hand. Raises `ValueError` if it's refused."""
    address = urlsplit(os.environ[progress.BOARD])
    header = {"Authorization": f"token {os.environ['JUPYTERHUB_API_TOKEN']}"}
    with closing(http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)) as connection:
        connection.request("POST", address.path, json.dumps(asdict(said)), header)
        answer: dict[str, bool] = json.loads(connection.getresponse().read())
        return answer["seen"]
