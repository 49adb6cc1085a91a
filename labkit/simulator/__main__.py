"""``python -m labkit.simulator FOLDER READY_FD``: the lab's server."""

import gc
import json
import os
import sys

# Loading modules makes no garbage. Without garbage collection, the server starts sooner.
gc.disable()
# If rich is installed, httpx loads its own command line, which loads rich. httpx works without both.
sys.modules["httpx._main"] = None  # type: ignore[assignment]  # None: Python does not import this module

try:
    from labkit.simulator.server import main
except ImportError as missing:
    failure = {
        "what": f"the lab's server could not be loaded: {missing}.",
        "where": f"the Python environment {sys.prefix}",
        "next": "install labkit in that environment again; in a clone of the repository: make -B setup",
    }
    os.write(int(sys.argv[2]), json.dumps(failure).encode())
    raise

gc.freeze()
gc.enable()
main()
