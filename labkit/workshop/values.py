"""Helm values with which Zero to JupyterHub holds a workshop on a Kubernetes cluster.

https://z2jh.jupyter.org/en/stable/resources/reference.html. The chart's hub is JupyterHub 5: nothing here needs 6.
"""

import secrets
from html import escape

import yaml

from labkit.course import contents, progress
from labkit.errors import LabError
from labkit.workshop.board import sharing
from labkit.workshop.networks import BOARD_PORT, HUB_PORT
from labkit.workshop.roles import roles
from labkit.workshop.settings import FILE, NAME, Workshop

HEADER = """\
# {title}: values for Zero to JupyterHub. Keep this file to yourself: it has the passwords.
#   helm upgrade --install workshop jupyterhub --repo https://hub.jupyter.org/helm-chart/ --values FILE
# To log in with accounts that people have already, replace hub.config and hub.extraConfig:
#   https://z2jh.jupyter.org/en/stable/administrator/authentication.html
"""
UID = 1000  # of `jovyan` in the image
HOME = "/home/jovyan"
BOARD = f"http://hub:{BOARD_PORT}"
# Its network is loopback, because the board is in the hub's pod.
BOARD_COMMAND = f"""\
umask 077
mkdir -p {HOME}/board
printenv WORKSHOP > {HOME}/board/{FILE}
printf %s "$JUPYTERHUB_API_TOKEN" > {HOME}/board/board-token
exec python -m labkit.workshop.board.service {HOME}/board 0.0.0.0
"""
# The chart's own shared password makes each leader an administrator, and hub 5.5 takes "Leader" for a participant.
LOG_IN = """\
from hmac import compare_digest
from jupyterhub.auth import Authenticator
from traitlets import List, Unicode

class ClassPasswords(Authenticator):
    password = Unicode(config=True)
    leaders = List(Unicode(), config=True)
    leaders_password = Unicode(config=True)

    async def authenticate(self, handler, data):
        name = self.normalize_username(data["username"])
        password = self.leaders_password if name in self.leaders else self.password
        return name if compare_digest(data["password"].encode(), password.encode()) else None

c.JupyterHub.authenticator_class = ClassPasswords
"""
MEMORY, CPU = "400M", 0.1  # each server's share for certain; an opened lab has 330 MiB, and is idle most of the time


def helm_values(workshop: Workshop, image: str, *, user_namespaces: bool = False) -> str:
    """Return the values as YAML, with new passwords for leaders and, without a phrase, for everybody else.

    `image` is NAME:TAG, built from the Dockerfile beside this module. `user_namespaces` gives a pod users of its own,
    if the cluster supports it: https://kubernetes.io/docs/concepts/workloads/pods/user-namespaces/

    Raises `LabError` if the image has no tag.
    """
    name, _, tag = image.rpartition(":")
    if not name or not tag or "/" in tag:
        raise LabError(f"The image {image!r} has no tag.", next="--image NAME:TAG, such as registry.example/lab:1.0")
    values = {
        "hub": _hub(workshop) | _board(workshop, image),
        "singleuser": _server(workshop, name, tag, user_namespaces),
        "cull": {"enabled": True, "timeout": workshop.idle * 60, "every": 60},
    }
    return HEADER.format(title=workshop.title) + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _hub(workshop: Workshop) -> dict[str, object]:
    """Return who may log in, and how many servers run."""
    admitted = {"allowed_users": [*workshop.names, *workshop.leaders]} if workshop.names else {"allow_all": True}
    return {
        "activeServerLimit": workshop.users,
        "config": {
            "JupyterHub": {"template_vars": {"announcement_login": escape(workshop.title)}},
            "Authenticator": {"username_pattern": f"^{NAME.pattern}$", **admitted},
            "ClassPasswords": {
                "password": workshop.phrase or secrets.token_hex(8),
                "leaders": workshop.leaders,
                "leaders_password": secrets.token_hex(16),
            },
        },
        "extraConfig": {"log-in": LOG_IN},
        "loadRoles": roles(workshop),
    }


def _board(workshop: Workshop, image: str) -> dict[str, object]:
    """Return the board as a container beside the hub's, and who reaches it: the proxy and the participants."""
    kept = {"title", "names", "phrase", "leaders", "notebooks", "stuck", "starts", "users"}
    own = {"address": f"127.0.0.1:{HUB_PORT}", "network": "127.0.0.0/20", "state": f"{HOME}/board"}
    settings = workshop.model_dump(mode="json", include=kept) | own
    # The chart makes this token: https://z2jh.jupyter.org/en/stable/resources/reference.html#hub-services
    token = {"secretKeyRef": {"name": "hub", "key": "hub.services.board.apiToken"}}
    container = {
        "name": "board",
        "image": image,
        "command": ["sh", "-ec", BOARD_COMMAND],
        "env": [
            # Kubernetes reads $$ in a variable's value as $, and $(NAME) as another variable.
            {"name": "WORKSHOP", "value": yaml.safe_dump(settings, sort_keys=False).replace("$", "$$")},
            {"name": "JUPYTERHUB_API_TOKEN", "valueFrom": token},
        ],
        "ports": [{"name": "board", "containerPort": BOARD_PORT}],
        "securityContext": {"runAsUser": UID, "runAsNonRoot": True, "allowPrivilegeEscalation": False},
    }
    callers = [{"podSelector": {"matchLabels": {"hub.jupyter.org/network-access-hub": "true"}}}]
    return {
        "services": {"board": {"url": BOARD, "oauth_no_confirm": True}},
        "extraContainers": [container],
        "service": {"extraPorts": [{"name": "board", "port": BOARD_PORT, "targetPort": "board"}]},
        "networkPolicy": {"ingress": [{"from": callers, "ports": [{"protocol": "TCP", "port": BOARD_PORT}]}]},
    }


def _server(workshop: Workshop, name: str, tag: str, user_namespaces: bool) -> dict[str, object]:
    """Return a participant's pod: the lab's image, its limits, its home and its network."""
    limits = workshop.limits
    return {
        "image": {"name": name, "tag": tag},
        "cmd": ["labkit", "lab", "--no-browser"],
        "defaultUrl": f"/lab/tree/learn/{contents.NAME}",
        "startTimeout": 900,  # seconds: a node that was added has to fetch the image
        "uid": UID,
        "fsGid": UID,
        "memory": {"limit": f"{limits.memory}M", "guarantee": MEMORY},
        "cpu": {"limit": limits.cpu / 100, "guarantee": CPU},
        "storage": {"capacity": f"{limits.home}Mi", "homeMountPath": HOME},
        "extraEnv": {
            progress.BOARD: f"{BOARD}/services/board/report",
            sharing.LEADERS: " ".join(workshop.leaders),
        },
        # The chart lets the hub and the proxy in, and calls of the hub out. Beyond these, only names can be looked up,
        # and the board reached.
        "networkPolicy": {
            "enabled": True,
            "egress": [
                {
                    "to": [{"podSelector": {"matchLabels": {"component": "hub"}}}],
                    "ports": [{"protocol": "TCP", "port": BOARD_PORT}],
                }
            ],
            "egressAllowRules": {"nonPrivateIPs": False, "privateIPs": False, "cloudMetadataServer": False},
        },
        "extraPodConfig": {"enableServiceLinks": False} | ({"hostUsers": False} if user_namespaces else {}),
    }
