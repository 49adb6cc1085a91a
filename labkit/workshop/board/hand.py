"""The address `labkit/hand` of a participant's server, which the button in a notebook's toolbar calls.

https://jupyter-server.readthedocs.io/en/stable/developers/extensions.html
"""

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
from labkit.workshop.board.report import report


def add(server: ServerApp) -> None:
    """Add the address to a server, which has its web application."""
    web: Any = server.web_app  # tornado has no types for this
    web.add_handlers(".*$", [(url_path_join(server.base_url, "labkit/hand"), HandHandler)])


class HandHandler(APIHandler):
    """Answers whether the participant's hand is up, and moves it."""

    _track_activity = False  # an open page asks again and again, and its server may end all the same

    @authenticated
    def get(self) -> None:
        """Answer with the hand: "", "raised" or "seen"."""
        events = progress.events(Path(os.environ[progress.VARIABLE]))
        self.finish(json.dumps({"hand": report(events, time.time()).hand}))

    @authenticated
    def post(self) -> None:
        """Raise the hand if the body says `{"up": true}`; with false, take it down."""
        match self.get_json_body():
            case {"up": bool(up)}:
                progress.raised(up=up)
                self.get()
            case _:
                raise HTTPError(400, 'Send {"up": true} or {"up": false}.')
