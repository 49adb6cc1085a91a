"""Run a notebook once with papermill, or many times side by side on Dask, and compare two runs.

`notebook_run` runs one notebook and reads the results from it; `python -m labkit.runs NOTEBOOK…` runs notebooks and
stores their outputs in them. `fleet` runs a notebook for each row of a file. `differences` compares two executed
notebooks.

This module is the door, and so is `fleet/__init__.py`: everybody else imports from these two alone.
"""

from typing import TYPE_CHECKING

from labkit import at_first_use

if TYPE_CHECKING:
    from labkit.runs import differences, fleet
    from labkit.runs.notebook_run import Run, RunFailed, examined, main, run
else:
    __getattr__ = at_first_use(__name__, {
        "differences": ["differences"],
        "fleet": ["fleet"],
        "notebook_run": ["Run", "RunFailed", "examined", "main", "run"],
    })  # fmt: skip
