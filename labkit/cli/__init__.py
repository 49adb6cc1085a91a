"""The `labkit` command.

Each command imports its libraries only when it runs. Otherwise, `labkit --help` would take 2.5 s of CPU instead of
0.13 s. Only a module that loads within 3 ms is imported at the top.
"""
