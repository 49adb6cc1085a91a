"""Helm values with which Zero to JupyterHub holds a workshop on a Kubernetes cluster.

https://z2jh.jupyter.org/en/stable/resources/reference.html. The chart's hub is JupyterHub 5: nothing here needs 6.
"""

import secrets

import yaml

from labkit.course import contents
from labkit.errors import LabError
from labkit.workshop.settings import NAME, Workshop

HEADER = """\
# {title}: values for Zero to JupyterHub. Keep this file to yourself: it has the passwords.
#   helm upgrade --install workshop jupyterhub --repo https://hub.jupyter.org/helm-chart/ --values FILE
# To log in with accounts that people have already, replace hub.config:
#   https://z2jh.jupyter.org/en/stable/administrator/authentication.html
"""
UID = 1000  # of `jovyan` in the image
HOME = "/home/jovyan"
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
        "hub": _hub(workshop),
        "singleuser": _server(workshop, name, tag, user_namespaces),
        "cull": {"enabled": True, "timeout": workshop.idle * 60, "every": 60},
    }
    return HEADER.format(title=workshop.title) + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _hub(workshop: Workshop) -> dict[str, object]:
    """Return who may log in, and how many servers run. The board's place is `services`, beside these."""
    leaders = {"admin_users": workshop.leaders} if workshop.leaders else {}
    admitted = {"allowed_users": workshop.names} if workshop.names else {"allow_all": True}
    passwords = {"user_password": workshop.phrase or secrets.token_hex(8)}
    if workshop.leaders:
        passwords["admin_password"] = secrets.token_hex(16)
    return {
        "activeServerLimit": workshop.users,
        "config": {
            "JupyterHub": {
                "authenticator_class": "shared-password",
                "template_vars": {"announcement_login": workshop.title},
            },
            "Authenticator": {"username_pattern": f"^{NAME.pattern}$", **leaders, **admitted},
            "SharedPasswordAuthenticator": passwords,
        },
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
        # The chart lets the hub and the proxy in, and calls of the hub out. Beyond these, only names can be looked up.
        "networkPolicy": {
            "enabled": True,
            "egressAllowRules": {"nonPrivateIPs": False, "privateIPs": False, "cloudMetadataServer": False},
        },
        "extraPodConfig": {"enableServiceLinks": False} | ({"hostUsers": False} if user_namespaces else {}),
    }
