"""JupyterLab as `labkit lab` starts it: the first page is there sooner, and it ends within seconds whatever runs in it.

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
    """Run JupyterLab until a signal, or the menu, ends it."""
    from jupyterlab import commands

    # JupyterLab asks Node.js for yarn's settings while it loads, and waits for it. Only its own build needs them.
    commands.which = _without_node
    from jupyterlab.labapp import LabApp

    LabApp.serverapp_class = Server
    LabApp.launch_instance()


class Server(ServerApp):
    """Jupyter's server for one learner."""

    def server_info(self) -> dict[str, object]:
        """What Jupyter's list of servers says of this one: also that `labkit lab` started it in this folder."""
        return super().server_info() | {"labkit": str(self.root_dir)}

    def start_app(self) -> None:
        """Print the address, and open the browser."""
        super().start_app()
        # Of the list for the menu that exports a notebook. The first page asks for it, and would wait for this import;
        # now it is done while the browser starts.
        threading.Thread(target=importlib.import_module, args=("nbconvert.exporters",), daemon=True).start()

    def stop(self, from_signal: bool = False) -> None:
        """End the kernels and terminals, then this process. If they take too long, the process ends without them.

        Its kernels watch it, and end soon after it.
        """
        signal.alarm(GIVE_UP)
        super().stop(from_signal)

    async def cleanup_kernels(self) -> None:
        """End the kernels, also one that is still starting.

        Jupyter's server doesn't know such a kernel yet: beside another kernel it fails with 404, and then never ends.
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
