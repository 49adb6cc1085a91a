"""The course: what a learner meets beside the notebooks.

`lessons` has the texts of each notebook's exercises and questions. `exercises` has the exercises, judged by the live
lab. `faults` has the common mistakes that `lab.break_` puts into a running lab. `widgets` draws the views of the
notebooks. `examination` is notebook 98. `copies` makes the learner's notebooks, `progress` records the learner's
progress, and `contents` shows this progress.
"""
