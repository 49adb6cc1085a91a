"""Loaded by the fork server: the workers of a fleet, which it forks, fork their kernels from it, too."""

import os
import re
import socket
import sys
from multiprocessing import forkserver

import pytest

from tests import forked

# The debugger of a kernel warns of frozen modules as it loads.
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
# A newer Python's fork server serves only processes that have its key, and a worker doesn't have it.
if (listener := re.search(r"forkserver import main; main\((\d+),", sys.orig_argv[-1])) and not hasattr(
    forkserver._forkserver, "_forkserver_authkey"
):
    with socket.socket(fileno=int(listener[1])) as listening:
        address = listening.getsockname()
        listening.detach()
    forked.stay_with({"_forkserver_address": address})
    forked.kernels(pytest.MonkeyPatch())
