"""The IPython extension that `labkit lab` loads into each kernel before its first cell.

https://ipython.readthedocs.io/en/stable/config/extensions/
"""

import gc
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from labkit import showing
from labkit.course.widgets import short_errors

if TYPE_CHECKING:
    from IPython.core.compilerop import CachingCompiler
    from IPython.core.interactiveshell import InteractiveShell

LOOKS_EVERY = 0.1  # seconds between two looks at the running line, while the cell isn't compiled yet


def load_ipython_extension(shell: "InteractiveShell") -> None:
    """Shorten errors even before the lab is opened, and let a slow cell say which line it runs."""
    # Loading libraries makes hardly any garbage, but collecting it takes a fifth of a first cell's processor time.
    gc.set_threshold(100_000, 50, 50)
    short_errors.install()
    cell = _Cell(shell)
    shell.events.register("pre_run_cell", lambda _: cell.begins())
    shell.events.register("post_run_cell", lambda _: cell.ends())


class _Cell:
    """The running cell. If a slow cell has no progress text, a thread prints the cell's current line."""

    def __init__(self, shell: "InteractiveShell"):
        self._compiler: CachingCompiler = shell.compile
        self._ended = threading.Event()

    def begins(self) -> None:
        showing.cell_begins()
        self._ended = threading.Event()
        if showing.is_live():
            given = threading.get_ident(), self._ended
            threading.Thread(target=self._watch, args=given, daemon=True).start()

    def ends(self) -> None:
        self._ended.set()

    def _watch(self, thread: int, ended: threading.Event) -> None:
        patience = showing.LINES_PATIENCE
        while not ended.wait(patience):
            if showing.has_said():
                return
            if line := self._line(thread):
                showing.say(f"Running {line}")
                return
            patience = LOOKS_EVERY

    def _line(self, thread: int) -> str:
        """Return the line of the cell that this thread is running."""
        # The outermost line says more than a line in one of the cell's functions.
        for frame, number in reversed([*traceback.walk_stack(sys._current_frames()[thread])]):
            if line := short_errors.line_of(self._compiler, frame, number)[1]:
                return line
        return ""
