"""The JupyterLab of `labkit lab`. It shows its first page sooner than plain JupyterLab, and shuts down within seconds.

`python -m labkit.cli.jupyterlab` takes JupyterLab's own options.
"""

import asyncio
import importlib
import os
import queue
import signal
import threading
from collections.abc import Collection
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from tornado.web import HTTPError
from traitlets import default

from labkit import workshop
from labkit.course import live

GIVE_UP = 10  # seconds
ANSWERS_WITHIN = 2  # seconds that a page waits for a kernel which is still starting or hangs


def main() -> None:
    """Run JupyterLab until a signal or JupyterLab's own menu ends it."""
    from jupyterlab import commands

    # While JupyterLab loads, it asks Node.js for yarn's settings and waits. Only JupyterLab's own build needs them.
    commands.which = _without_node
    if "JUPYTERHUB_SERVICE_URL" in os.environ:  # a participant's server
        workshop.launch(LearnerServer)
        return
    from jupyterlab.labapp import LabApp

    LabApp.serverapp_class = LearnerServer
    LabApp.launch_instance()


class LearnerServer(ServerApp):
    """Jupyter's server for one learner. `labkit lab` finds the server by its folder."""

    @default("contents_manager_class")
    def _contents(self) -> type[AsyncLargeFileManager]:
        return LearnerFiles

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


class LearnerFiles(AsyncLargeFileManager):
    """The learner's files. A saved report whose widget no longer exists is shown as its stored HTML.

    A widget ends with the kernel that made it. JupyterLab would show an error in its place.
    """

    async def get(self, path: str, *args: object, **more: object) -> dict[str, object]:
        """Return the model of a file or a folder, as Jupyter's own manager does."""
        read: Any = super().get  # Jupyter's manager has no types
        model: dict[str, object] = await read(path, *args, **more)
        if model["type"] == "notebook" and model["content"] and (saved := _with_widget(model["content"])):
            existing = await self._widgets(path.strip("/"))
            for output in saved:
                if output[live.VIEW]["model_id"] not in existing:
                    del output[live.VIEW]
        return model

    async def _widgets(self, path: str) -> Collection[str]:
        """Return the ids of the widgets in the notebook's kernel; none if no kernel answers."""
        server: Any = self.parent
        sessions = [one for one in await server.session_manager.list_sessions() if one["path"] == path]
        if not sessions:
            return ()
        client = server.kernel_manager.get_kernel(sessions[0]["kernel"]["id"]).client()
        client.start_channels(shell=False, iopub=False, stdin=False, hb=False)
        try:
            # A kernel answers on this channel also while a cell runs.
            client.control_channel.send(client.session.msg("comm_info_request", {"target_name": "jupyter.widget"}))
            answer = await client.get_control_msg(timeout=ANSWERS_WITHIN)
        except queue.Empty:
            return ()
        finally:
            client.stop_channels()
        comms: dict[str, object] = answer["content"]["comms"]
        return comms


def _with_widget(notebook: Any) -> list[dict[str, Any]]:
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return [output["data"] for output in outputs if {live.VIEW, "text/html"} <= output.get("data", {}).keys()]


def _without_node(command: str, *_: object) -> str:
    raise ValueError(f"{command}: labkit lab needs none")


if __name__ == "__main__":
    main()
