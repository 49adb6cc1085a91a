"""The address `labkit/class` of a participant's server: what notebooks show of the class, and what their buttons do.

https://jupyter-server.readthedocs.io/en/stable/developers/extensions.html
"""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import url_path_join
from tornado.web import HTTPError, authenticated

from labkit.course import progress
from labkit.showing import counted
from labkit.workshop.board import obeying
from labkit.workshop.board.report import ParticipantReport, report


def add(server: ServerApp) -> None:
    """Add the address to a server, which has its web application."""
    web: Any = server.web_app  # tornado has no types for this
    web.add_handlers(".*$", [(url_path_join(server.base_url, "labkit/class"), ClassHandler)])


class ClassHandler(APIHandler):
    """Answers with the participant's hand and the banner, and does what their buttons say."""

    _track_activity = False  # an open page asks again and again, and its server may end all the same

    @authenticated
    def get(self) -> None:
        """Answer with the hand ("", "raised" or "seen") and the banner: a text, and buttons' texts by their names."""
        order = obeying.taken()
        said = report(progress.events(Path(os.environ[progress.VARIABLE])), time.time(), order)
        self.finish(json.dumps({"hand": said.hand, "banner": banner(said, order)}))

    @authenticated
    async def post(self) -> None:
        """Raise the hand if the body says `{"up": true}`, take it down with false; `{"press": "check"}` is a button."""
        match self.get_json_body():
            case {"up": bool(up)}:
                progress.raised(up=up)
            case {"press": str(button)}:
                await asyncio.to_thread(obeying.answer, button)
            case _:
                raise HTTPError(400, 'Send {"up": true}, {"up": false} or {"press": "BUTTON"}.')
        self.get()


def banner(said: ParticipantReport, order: obeying.TakenOrder) -> dict[str, object]:
    """Return what a notebook shows of the leader's order: its text and its buttons; {} if it shows nothing."""
    buttons: dict[str, str] = {}
    opens = ""
    match said.state:
        case "broken":
            text = f"Something in your lab is broken. {order.text} Find out why, and repair it."
            text += f" Not mended yet, after {counted(said.checks, 'check')}." if said.checks else ""
            buttons = {"check": "Is it mended?"}
        case "mended" if order.text:
            text, buttons = "Mended: the pod has its role and its bucket again.", {"close": "Close"}
        case "invited":
            text = f"The class goes on with {order.about}. Your lab gets its earlier steps, and your notebooks stay."
            buttons = {"go": "Prepare my lab", "stay": "Not now"}
        case "changing" if order.what == "goto":
            text = f"Your lab gets ready for {order.about}."
        case "there" if order.text:
            text, opens, buttons = order.text, f"learn/{order.about}.ipynb", {"close": f"Open {order.about}"}
        case "" if order.text:
            text, buttons = order.text, {"close": "Close"}
        case _:
            return {}
    return {"text": text, "buttons": buttons, "opens": opens}
