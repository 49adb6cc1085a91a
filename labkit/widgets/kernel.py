"""The IPython extension that `labkit lab` loads into each kernel before its first cell.

https://ipython.readthedocs.io/en/stable/config/extensions/
"""

from typing import TYPE_CHECKING

from labkit import showing
from labkit.widgets import short_errors

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: "InteractiveShell") -> None:
    """Shorten errors even before the lab is opened, and note when each cell starts, for `showing.doing`."""
    short_errors.install()
    shell.events.register("pre_run_cell", lambda _: showing.cell_begins())
