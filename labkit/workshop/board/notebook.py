"""The address `labkit/class` of a participant's server: what notebooks show of the class, and what their buttons do.

https://jupyter-server.readthedocs.io/en/stable/developers/extensions.html
"""

import asyncio
import json
import os
import re
from contextlib import suppress
from typing import Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.utils import url_path_join
from tornado.web import HTTPError, authenticated

from labkit.course import progress
from labkit.errors import LabError
from labkit.showing import counted
from labkit.workshop.board import obeying, reporter, sharing
from labkit.workshop.board.report import ParticipantReport

NOTEBOOK = re.compile(r"learn/(?P<number>\d\d)-[\w-]+\.ipynb")


def add(server: ServerApp) -> None:
    """Add the address to a server, which has its web application."""
    web: Any = server.web_app  # tornado has no types for this
    web.add_handlers(".*$", [(url_path_join(server.base_url, "labkit/class"), ClassHandler)])


class ClassHandler(APIHandler):
    """Answers with the participant's hand and the banner, and does what their buttons say."""

    _track_activity = False  # an open page asks again and again, and its server may end all the same

    @authenticated
    def get(self) -> None:
        """Answer with the hand ("", "raised" or "seen") and the banner: a text, and buttons' texts by their names.

        The argument `at` is the path of the notebook that the participant looks at.
        """
        if at := NOTEBOOK.fullmatch(self.get_query_argument("at", "")):
            reporter.look_at(at["number"])
        order, said = reporter.current()
        self.finish(json.dumps({"hand": said.hand, "banner": banner(said, order)}))

    @authenticated
    async def post(self) -> None:
        """Raise the hand if the body says `{"up": true}`, take it down with false; `{"press": "check"}` is a button."""
        _, before = reporter.current()
        match self.get_json_body():
            case {"up": bool(up)}:
                progress.raised(up=up)
            case {"press": "let-in"}:
                progress.kept("shared", "")  # the reporter asks the hub
            case {"press": "keep-out"}:
                progress.kept("shared", "", right=False)
            case {"press": str(button)}:
                await asyncio.to_thread(obeying.answer, button)
            case _:
                raise HTTPError(400, 'Send {"up": true}, {"up": false} or {"press": "BUTTON"}.')
        if before.lets_in and not reporter.current()[1].lets_in:
            await self._keep_out()
        self.get()

    async def _keep_out(self) -> None:
        """End the leaders' access now: not when what the hub said expires, nor when they close their pages."""
        with suppress(LabError):  # without the hub, the reporter goes on asking
            await asyncio.to_thread(sharing.share, False)
        provider: Any = self.identity_provider  # of JupyterHub, which has no types
        provider.hub_auth.cache.values.clear()
        for connection in list(ZMQChannelsWebsocketConnection._open_sockets):
            connection.websocket_handler.close()  # the participant's own page connects again
        for terminal in self.settings["terminal_manager"].terminals.values():
            for client in list(terminal.clients):
                client.close()


def banner(said: ParticipantReport, order: obeying.TakenOrder) -> dict[str, object]:
    """Return what a notebook shows of the leader's order and of a raised hand: its text, its buttons, and which
    notebook the button "close" opens; {} if it shows nothing.
    """
    text, buttons, opens = _of_order(said, order)
    if said.lets_in:
        text += " The leader can open your lab, and see and change everything in it, until you end this."
        buttons["keep-out"] = "End it"
    elif said.hand and os.environ.get(sharing.LEADERS):
        text += " If you like, the leader can open your lab, too, to look at it with you."
        buttons["let-in"] = "Let the leader in"
    return {"text": text.strip(), "buttons": buttons, "opens": opens} if text else {}


def _of_order(said: ParticipantReport, order: obeying.TakenOrder) -> tuple[str, dict[str, str], str]:
    match said.state:
        case "broken":
            text = f"Something in your lab is broken. {order.text} Find out why, and repair it."
            text += f" Not mended yet, after {counted(said.checks, 'check')}." if said.checks else ""
            return text, {"check": "Is it mended?"}, ""
        case "mended" if order.text:
            text = "Mended: the pod has its role and its bucket again. Run your notebook's first cells again."
            return text, {"close": "Close"}, ""
        case "coming" | "changing" if order.what == "break":
            return "The leader is breaking something in your lab. Soon you read here what the pod says.", {}, ""
        case "coming" | "changing" if order.what == "mend":
            return "The leader is mending your lab.", {}, ""
        case "invited":
            text = f"The class goes on with {order.about}. Your lab gets its earlier steps, and your notebooks stay."
            return text, {"go": "Prepare my lab", "stay": "Not now"}, ""
        case "coming" | "changing" if order.what == "goto":
            return f"Your lab gets ready for {order.about}.", {}, ""
        case "there" if order.text:
            return order.text, {"close": f"Open {order.about}"}, f"learn/{order.about}.ipynb"
        case "" | "refused" | "failed" if order.text:
            return order.text, {"close": "Close"}, ""
        case _:
            return "", {}, ""
