"""The JupyterLab of `labkit lab`. It shows its first page sooner than plain JupyterLab, and shuts down within seconds.

`python -m labkit.cli.jupyterlab` takes JupyterLab's own options.
"""

import asyncio
import importlib
import signal
import threading

from jupyter_core.utils import ensure_async
from jupyter_server.serverapp import ServerApp
from tornado.web import HTTPError

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


def _without_node(command: str, *_: object) -> str:
    raise ValueError(f"{command}: labkit lab needs none")


if __name__ == "__main__":
    main()
