"""``python -m labkit.emulator FOLDER READY_FD``: the lab's server."""

import gc
import json
import os
import sys

# Nothing that is loaded is garbage: without looking for any, the server is up sooner.
gc.disable()
# httpx loads its own command line wherever rich is installed, and rich with it. It does without.
sys.modules["httpx._main"] = None  # type: ignore[assignment]  # Python's word for a module that cannot be imported

try:
    from labkit.emulator.server import main
except ImportError as missing:
    told = {
        "what": f"the lab's server could not be loaded: {missing}.",
        "where": f"the Python environment {sys.prefix}",
        "next": "install labkit there again; in a clone of the repository: make -B setup",
    }
    os.write(int(sys.argv[2]), json.dumps(told).encode())
    raise

gc.freeze()
gc.enable()
main()
