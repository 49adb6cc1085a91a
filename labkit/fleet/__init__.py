"""Many runs of a notebook: one cluster or a thousand, side by side on Dask.

`table` reads the fleet file; `rows` checks it; `workers` opens the Dask cluster; `running` hands it the rows; `task` is
one row in a worker's process; `results` is what it leaves in the output folder; `report` shows them all; `looking` is
what only looks at the rows, or removes what they made; `live` draws a run in a notebook.
"""
