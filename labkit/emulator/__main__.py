"""``python -m labkit.emulator FOLDER READY_FD``: the lab's server."""

import gc

# Nothing that is loaded is garbage: without looking for any, the server is up sooner.
gc.disable()

from labkit.emulator.server import main  # noqa: E402

gc.freeze()
gc.enable()
main()
