"""Calls to the board of a class. Only a class on one machine has a board, and its hub's tokens say who calls."""

import http.client
import json
import os
from contextlib import closing
from typing import Any
from urllib.parse import urljoin, urlsplit

from labkit.course.progress import BOARD
from labkit.errors import LabError


def ask(what: str, body: object) -> Any:
    """Send the board a document, and return its answer. `what` is `report` or `examination`.

    Raises `LabError` with the board's words if it refuses, or if it doesn't answer.
    """
    address = urlsplit(urljoin(os.environ[BOARD], what))
    header = {"Authorization": f"token {os.environ.get('JUPYTERHUB_API_TOKEN', '')}"}
    try:
        with closing(http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)) as connection:
            connection.request("POST", address.path, json.dumps(body), header)
            answer = connection.getresponse()
            said = answer.read().decode()
            if answer.status == http.client.OK:
                return json.loads(said)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise LabError(
            "The class's board doesn't answer.", where=address.netloc, next="try again in a minute"
        ) from error
    raise LabError(said, where="the class's board", next="exam = lab.examination()")
