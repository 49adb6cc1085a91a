"""`labkit lab` with JupyterLab in the same process and kernels forked by pytest's fork server: 1.5 s less CPU a kernel.

python -m tests.course.widgets.forked_jupyterlab FORK_SERVER OPTION …
"""

import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver

import pytest

from labkit.cli.main import main
from tests import forked
from tests.commands import LABKIT


def replace_process(_: str, command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Do what `labkit lab` does by `os.execve`: run `python … -m labkit.cli.jupyterlab OPTION …`."""
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = [*command[command.index("labkit.cli.jupyterlab") :]]
    from labkit.cli import jupyterlab

    jupyterlab.main()


if __name__ == "__main__":
    address = sys.argv.pop(1)
    alive = os.open(os.devnull, os.O_WRONLY)  # a fork server hands each process a file that shows whether it is needed
    vars(forkserver._forkserver).update(
        _forkserver_address=address, _forkserver_alive_fd=alive, ensure_running=lambda: None
    )
    forked.kernels(pytest.MonkeyPatch())
    os.execve = replace_process
    sys.argv = [str(LABKIT), "lab", *sys.argv[1:]]
    main()
