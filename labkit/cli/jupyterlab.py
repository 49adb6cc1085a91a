"""The JupyterLab of `labkit lab`. It shows its first page sooner than plain JupyterLab, and shuts down within seconds.

`python -m labkit.cli.jupyterlab` takes JupyterLab's own options.
"""

import asyncio
import importlib
import signal
import threading
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError
from traitlets import default

from labkit.widgets.live import VIEW

GIVE_UP = 10  # seconds


def main() -> None:
    """Run JupyterLab until a signal or JupyterLab's own menu ends it."""
    from jupyterlab import commands

    # While JupyterLab loads, it asks Node.js for yarn's settings and waits. Only JupyterLab's own build needs them.
    commands.which = _without_node
    from jupyterlab.labapp import LabApp

    LabApp.serverapp_class = Server
    LabApp.launch_instance()


class Server(ServerApp):
    """Jupyter's server for one learner. `labkit lab` finds the server by its folder."""

    @default("contents_manager_class")
    def _contents(self) -> type[AsyncLargeFileManager]:
        return Contents

    def server_info(self) -> dict[str, object]:
        """Return this server's entry in Jupyter's list of servers.

        The entry's key `labkit` holds learn/'s parent folder.
        """
        return super().server_info() | {"labkit": str(self.root_dir)}

    def start_app(self) -> None:
        """Print the address and open the browser."""
        super().start_app()
        # The first page asks for the list of exporters, and would wait for this import. So import them while the
        # browser starts.
        threading.Thread(target=importlib.import_module, args=("nbconvert.exporters",), daemon=True).start()

    def stop(self, from_signal: bool = False) -> None:
        """End the kernels and terminals, then this process. After `GIVE_UP` seconds, end the process anyway."""
        signal.alarm(GIVE_UP)
        super().stop(from_signal)

    async def cleanup_kernels(self) -> None:
        """End the kernels, also those that are still starting.

        While a kernel starts, Jupyter's `shutdown_all` fails with 404.
        """
        while True:
            try:
                await ensure_async(self.kernel_manager.shutdown_all())
            except HTTPError:
                await asyncio.sleep(0.1)
            else:
                return


class Contents(AsyncLargeFileManager):
    """The learner's files. A notebook without a kernel shows the stored HTML of its reports instead of their widgets.

    The widgets ended with the kernel that made them. JupyterLab would show an error in their place.
    """

    async def get(self, path: str, *args: object, **more: object) -> dict[str, object]:
        """Return the model of a file or a folder, as Jupyter's own manager does."""
        read: Any = super().get  # Jupyter's manager has no types
        model: dict[str, object] = await read(path, *args, **more)
        if model["type"] == "notebook" and model["content"] and not await self._has_kernel(path.strip("/")):
            _drop_ended_widgets(model["content"])
        return model

    async def _has_kernel(self, path: str) -> bool:
        server: Any = self.parent
        return any(session["path"] == path for session in await server.session_manager.list_sessions())


def _drop_ended_widgets(notebook: Any) -> None:
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if "text/html" in (shown := output.get("data", {})):
                shown.pop(VIEW, None)


def _without_node(command: str, *_: object) -> str:
    raise ValueError(f"{command}: labkit lab needs none")


if __name__ == "__main__":
    main()
