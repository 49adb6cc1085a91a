"""Run a notebook once with papermill, or many times side by side on Dask, and compare two runs.

`notebook_run` runs one notebook and reads the results from it; `python -m labkit.runs NOTEBOOK…` runs notebooks and
stores their outputs in them. `fleet` runs a notebook for each row of a file. `differences` compares two executed
notebooks.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.runs.notebook_run import Interrupted, Run, RunFailed, examined, main, normalize, read_run, refresh, run

__all__ = ["Interrupted", "Run", "RunFailed", "examined", "main", "normalize", "read_run", "refresh", "run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("labkit.runs.notebook_run"), name)
    raise AttributeError(f"module 'labkit.runs' has no attribute {name!r}")
