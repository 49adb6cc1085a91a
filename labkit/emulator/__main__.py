"""``python -m labkit.emulator FOLDER READY_FD``: the lab's server."""

import gc
import sys

# Nothing that is loaded is garbage: without looking for any, the server is up sooner.
gc.disable()
# httpx loads its own command line wherever rich is installed, and rich with it. It does without.
sys.modules["httpx._main"] = None  # type: ignore[assignment]  # Python's word for a module that cannot be imported

from labkit.emulator.server import main  # noqa: E402

gc.freeze()
gc.enable()
main()
