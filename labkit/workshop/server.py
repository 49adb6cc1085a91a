"""A participant's Jupyter server, which asks the hub who may use it. It runs inside the sandbox.

https://jupyterhub.readthedocs.io/en/stable/reference/singleuser.html
"""

from jupyter_server.serverapp import ServerApp
from jupyterhub.singleuser.extension import JupyterHubSingleUser


def launch(server: type[ServerApp]) -> None:
    """Run this server with JupyterLab until a signal ends it."""
    JupyterHubSingleUser.serverapp_class = server
    JupyterHubSingleUser.launch_instance()
