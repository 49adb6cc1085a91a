"""`python -m labkit.runs NOTEBOOK…`: run each notebook, and store its outputs in it."""

import sys

from labkit.runs.notebook_run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
