"""A participant's Jupyter server, which asks the hub who may use it, and reports to the board.

It runs inside the sandbox.

https://jupyterhub.readthedocs.io/en/stable/reference/singleuser.html
"""

import os
import sys
from pathlib import Path
from types import ModuleType

from jupyter_server.serverapp import ServerApp

from labkit.course import progress
from labkit.workshop.board import reporter

EXTENSIONS = str(Path(reporter.__file__).parent / "jupyter")
# Only the hub needs these. JupyterHub imports them in servers, too: 30 MiB and a third of a second for each.
OF_THE_HUB = (
    "sqlalchemy",
    "sqlalchemy.exc",
    "jupyterhub.handlers",
    "jupyterhub.handlers.pages",
    "jupyterhub.orm",
    "jupyterhub.roles",
    "jupyterhub.singleuser.mixins",
)


def launch(server: type[ServerApp]) -> None:
    """Run this server with JupyterLab until a signal ends it."""
    if progress.BOARD in os.environ:
        # The button in notebooks that raises a hand is an extension of JupyterLab.
        os.environ["JUPYTER_PATH"] = os.pathsep.join([EXTENSIONS, os.environ["JUPYTER_PATH"]])
        reporter.start()
    sys.modules.update({name: _Unused(name) for name in OF_THE_HUB})
    from jupyterhub.singleuser.extension import JupyterHubSingleUser

    JupyterHubSingleUser.serverapp_class = _of_a_class(server)
    JupyterHubSingleUser.launch_instance()


def _of_a_class(server: type[ServerApp]) -> type[ServerApp]:
    from labkit.workshop.board import notebook  # jupyter_server's handlers, after the modules above are replaced

    class ParticipantServer(server):  # type: ignore[misc, valid-type]  # a class that the caller chooses
        def init_webapp(self) -> None:
            super().init_webapp()
            notebook.add(self)

    return ParticipantServer


class _Unused(ModuleType):
    """Stands for a module of which a server imports names, and uses none: each is a class that nothing belongs to."""

    def __getattr__(self, name: str) -> type[Exception]:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {})
