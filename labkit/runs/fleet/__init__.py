"""Run a notebook many times, side by side on Dask: once for each row of a fleet file.

`table` reads the fleet file, and `rows` checks it. `workers` starts Dask's processes, and `running` gives them the
rows. `task` runs one row in such a process. `results` stores each row's result in the output folder, and `report`
shows all results. `looking` works without a run: it plans or examines the rows, or removes their resources. `live`
shows a running fleet in a notebook.

A notebook calls `fleet.read(file)`, `fleet.plans(rows)`, `fleet.run(file, out)`, `fleet.examinations(rows)` and
`fleet.removals(rows, …)`.
"""

import importlib
from typing import Any

# A worker needs only `task`, so the others are imported at their first use.
_WHERE = {"examinations": "looking", "plans": "looking", "read": "rows", "removals": "looking", "run": "live"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'labkit.runs.fleet' has no attribute {name!r}")
    return getattr(importlib.import_module(f"labkit.runs.fleet.{_WHERE[name]}"), name)
