"""Let the leaders open a participant's server, or end it. The participant's server asks the hub.

https://jupyterhub.readthedocs.io/en/stable/reference/sharing.html
"""

import http.client
import json
import os
from contextlib import closing
from urllib.parse import urlsplit

from labkit.errors import LabError

LEADERS = "LABKIT_LEADERS"  # the variable with their names
WITHIN = 20  # seconds


def share(lets_in: bool) -> None:
    """Let each leader in, or nobody but the participant. Do nothing in a class without leaders.

    Raises `LabError` if the hub doesn't answer or refuses.
    """
    leaders = os.environ.get(LEADERS, "").split()
    if not leaders:
        return
    if not lets_in:
        _call("DELETE", {})
        return
    for leader in leaders:
        _call("POST", {"user": leader})


def _call(method: str, body: dict[str, str]) -> None:
    hub = urlsplit(os.environ["JUPYTERHUB_API_URL"])
    path = f"{hub.path}/shares/{os.environ['JUPYTERHUB_USER']}/"
    header = {"Authorization": f"token {os.environ['JUPYTERHUB_API_TOKEN']}", "Content-Type": "application/json"}
    try:
        with closing(http.client.HTTPConnection(str(hub.hostname), hub.port, timeout=WITHIN)) as connection:
            connection.request(method, path, json.dumps(body), header)
            status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise LabError("The class's hub doesn't answer.", where=hub.netloc, next="try again in a minute") from error
    if status >= http.client.MULTIPLE_CHOICES:
        raise LabError(f"The class's hub answers {status}.", where=path, next="try again in a minute")
