"""Run a notebook many times, side by side on Dask: once for each row of a fleet file.

`table` reads the fleet file, and `rows` checks it. `workers` starts Dask's processes, and `running` gives them the
rows. `task` runs one row in such a process. `results` stores each row's result in the output folder, and `report`
shows all results. `looking` works without a run: it plans or examines the rows, or removes their resources. `live`
shows a running fleet in a notebook.
"""
