"""The hub's configuration. https://jupyterhub.readthedocs.io/en/stable/reference/config-reference.html"""

import sys
from html import escape
from pathlib import Path

from traitlets.config import Config

from labkit.course import contents, progress
from labkit.workshop import networks, roles
from labkit.workshop.board import sharing
from labkit.workshop.login import ClassAuthenticator
from labkit.workshop.settings import Workshop, read
from labkit.workshop.spawner import ParticipantSpawner

OPTIONS = ["--no-browser"]


def configure(config: Config, file: str) -> Workshop:
    """Set what a workshop needs in JupyterHub's `config`. `file` is in the folder of workshop.yaml.

    Raises `LabError` if workshop.yaml is wrong.
    """
    workshop = read(Path(file).parent)
    state = workshop.state
    board = f"http://{workshop.hub_address}:{networks.BOARD_PORT}"
    hub = config.JupyterHub
    hub.hub_bind_url = f"http://{workshop.hub_address}:{networks.HUB_PORT}"
    hub.bind_url = workshop.url
    hub.db_url = f"sqlite:///{state / 'hub.sqlite'}"
    hub.cookie_secret_file = str(state / "cookie-secret")
    # Servers and proxy live on while the hub is restarted.
    hub.cleanup_servers = False
    hub.cleanup_proxy = False
    hub.last_activity_interval = 5  # seconds; then a proxy that was started again gets its routes back
    hub.template_paths = [str(Path(__file__).parent / "templates")]
    hub.template_vars = {"announcement_login": escape(workshop.title)}
    config.ConfigurableHTTPProxy.should_start = False
    config.ConfigurableHTTPProxy.api_url = f"http://{workshop.hub_address}:{networks.PROXY_API_PORT}"
    config.ConfigurableHTTPProxy.auth_token = (state / "proxy-token").read_text()

    hub.authenticator_class = ClassAuthenticator
    config.ClassAuthenticator.workshop = workshop
    config.ClassAuthenticator.allow_all = True  # it decides itself

    hub.spawner_class = ParticipantSpawner
    hub.concurrent_spawn_limit = 0  # the spawner has a queue; the hub would refuse
    hub.active_server_limit = 0
    spawner = config.ParticipantSpawner
    spawner.workshop = workshop
    spawner.cmd = [sys.executable, "-P", "-m", "labkit.cli", "lab", *OPTIONS]
    spawner.environment = {
        progress.BOARD: f"{board}/services/board/report",
        sharing.LEADERS: " ".join(workshop.leaders),
    }
    spawner.default_url = f"/lab/tree/learn/{contents.NAME}"
    spawner.env_keep = ["LANG", "LC_ALL"]
    spawner.start_timeout = 30 * 60  # seconds, with the time in the queue
    spawner.http_timeout = 5 * 60  # a server that has started answers late on a busy machine
    spawner.poll_interval = 5

    # The keeper's: it ends idle servers, and a rehearsal deletes its participants. And the board, for leaders.
    hub.services = [
        {"name": "keeper", "api_token": (state / "hub-token").read_text()},
        {
            "name": "board",
            "url": board,
            "api_token": (state / "board-token").read_text(),
            "oauth_no_confirm": True,
        },
    ]
    keeper = {"scopes": [*roles.ACTIVITY, "delete:users"], "services": ["keeper"]}
    hub.load_roles = [{"name": name} | role for name, role in (roles.roles(workshop) | {"keeper": keeper}).items()]
    return workshop
