"""Many runs of a notebook: one cluster or a thousand, side by side on Dask.

`table` reads the fleet file, and `rows` checks it. `workers` opens the Dask cluster, and `running` hands it the rows.
`task` runs one row in a worker's process. `results` stores its result in the output folder, and `report` shows all
results. `looking` plans, examines or removes the rows without running them. `live` draws a run in a notebook.
"""
