"""Run a notebook many times, side by side on Dask: once for each row of a fleet file.

`table` reads the fleet file, and `rows` checks it. `workers` starts Dask's processes, and `running` gives them the
rows. `task` runs one row in such a process. `results` stores each row's result in the output folder, and `report`
shows all results. `looking` works without a run: it plans or examines the rows, or removes their resources. `live`
shows a running fleet in a notebook.

A notebook calls `fleet.read(file)`, `fleet.plans(rows)`, `fleet.run(file, out)`, `fleet.examinations(rows)` and
`fleet.removals(rows, …)`.
"""

from typing import TYPE_CHECKING

from labkit import at_first_use

if TYPE_CHECKING:
    from labkit.runs.fleet import workers
    from labkit.runs.fleet.live import run
    from labkit.runs.fleet.looking import examinations, plans, removals
    from labkit.runs.fleet.report import DOCTOR, MARKS, RUNS, Report
    from labkit.runs.fleet.results import Result, Results, State, writing
    from labkit.runs.fleet.rows import Row, read
    from labkit.runs.fleet.running import INTERRUPTED, Fleet, RowOutcome, makes, run_rows
    from labkit.runs.fleet.table import NothingRan
    from labkit.runs.fleet.workers import Scheduler
else:
    __getattr__ = at_first_use(__name__, {
        "live": ["run"],
        "looking": ["examinations", "plans", "removals"],
        "report": ["DOCTOR", "MARKS", "RUNS", "Report"],
        "results": ["Result", "Results", "State", "writing"],
        "rows": ["Row", "read"],
        "running": ["INTERRUPTED", "Fleet", "RowOutcome", "makes", "run_rows"],
        "table": ["NothingRan"],
        "workers": ["Scheduler", "workers"],
    })  # fmt: skip
