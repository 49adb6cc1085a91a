"""What labkit adds to a notebook's kernel: short errors, and the line that a slow cell runs.

A short error is the error's message, the line of the cell that raised it, and the next step. `%tb` still shows the
whole traceback. The cell's output is still an error, so nbval and papermill fail on it.

`labkit lab` loads this module into each kernel before its first cell, as an IPython extension.
https://ipython.readthedocs.io/en/stable/config/extensions/
"""

import gc
import json
import linecache
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from textwrap import shorten
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from labkit import showing
from labkit.errors import said_by_the_cluster, the_stop, with_answer

if TYPE_CHECKING:
    from IPython.core.compilerop import CachingCompiler
    from IPython.core.interactiveshell import InteractiveShell


START_OVER = "run the opening cell again to start over (in an exercise, the cell that opened the exercise)"
FROM_THE_TOP = "run the cells above this one first, but none that hands in an exercise or a task"
LAB_ENDED = "if the lab has ended, run the opening cell again: it starts the lab, and nothing is lost"
WHY = "lab.trail(last=1) shows what AWS decided, and why"
CORRECT = "correct this line; if it looks right, %tb in a new cell shows the whole traceback"
# A notebook asserts what the lab's answer is at this point of the notebook.
UNEXPECTED = f"an earlier or later cell left the lab in another state; {START_OVER}"
STOPPED = f"if the cell had changed nothing yet, run it again; otherwise, {START_OVER}"
LONGEST, LONGEST_LINE = 600, 100  # the most characters of a line of the message, and of the cell's line
MOST_LINES = 6
# How the error codes of AWS and Kubernetes begin for a name that exists already.
EXISTS = ("EntityAlreadyExists", "AlreadyExists", "BucketAlreadyOwnedByYou", "BucketAlreadyExists", "ResourceInUse")
MISSING = ("NoSuchEntity", "NoSuchBucket", "NotFound", "ResourceNotFoundException")
DENIED = ("AccessDenied", "AccessDeniedException", "InvalidIdentityToken", "ExpiredToken", "ExpiredTokenException")


def shorten_errors() -> None:
    """Shorten errors in the running notebook. Does nothing elsewhere.

    https://ipython.readthedocs.io/en/stable/api/generated/IPython.core.interactiveshell.html
    """
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython else None
    if getattr(shell, "kernel", None) is not None:
        shell.set_custom_exc((Exception, KeyboardInterrupt), _show)


def error_lines(error: BaseException) -> list[str]:
    """Return the lines for this error: its code, its message and, if known, the next step."""
    return _short(error) or [f"{type(error).__name__}: {error}"]


def _short(error: BaseException) -> list[str]:
    for kind, explain in _kinds().items():
        if isinstance(error, kind):
            what, next_step = explain(error)
            return [*_lines(what), f"next:  {next_step}"]
    return []


def _show(shell: Any, kind: type[BaseException], error: BaseException, trace: TracebackType, **_: Any) -> list[str]:
    if hasattr(error, "_render_traceback_"):  # the lab's own errors are short already
        # Do what IPython does without this hook. tb_offset leaves out the first frame, which is IPython's.
        shell.showtraceback((kind, error, trace), tb_offset=1)
        return []
    if stop := the_stop(error):
        kind, error = KeyboardInterrupt, stop
    lines = _short(error) or _of_a_line(shell, error, trace)
    # `%tb` shows these: https://docs.python.org/3/library/sys.html#sys.last_traceback
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
    shell._showtraceback(kind, error, lines)
    _store_short(error, lines)
    return lines


def _store_short(error: Any, lines: list[str]) -> None:
    """Make IPython's history keep these lines instead of the whole traceback, which takes seconds to format.

    https://github.com/ipython/ipython/blob/main/IPython/core/interactiveshell.py
    """

    def render() -> list[str]:
        # IPython calls `_render_traceback_` once, before the cell ends.
        del error._render_traceback_
        return lines

    with suppress(AttributeError):  # an error with slots accepts no attribute
        error._render_traceback_ = render


def _of_a_line(shell: Any, error: BaseException, trace: TracebackType) -> list[str]:
    """Return lines with an error's message, its place in a cell, and the next step."""
    where = [
        f"where: {cell}, {line}"
        for frame, number in traceback.walk_tb(trace)
        for cell, line in [line_of(shell.compile, frame, number)]
        if cell
    ]
    next_step = UNEXPECTED if isinstance(error, AssertionError) else CORRECT
    return [*_lines(f"{type(error).__name__}: {error}"), *where[-1:], f"next:  {next_step}"]


def line_of(compiler: "CachingCompiler", frame: FrameType, number: int) -> tuple[str, str]:
    """Return the name of the cell that a frame runs, such as In[5], and the text `line NUMBER:  CODE`.

    If the frame doesn't run a cell, return two empty texts.
    """
    file = frame.f_code.co_filename
    if not (named := compiler.format_code_name(file)):
        return "", ""
    code = shorten(linecache.getline(file, number), LONGEST_LINE, placeholder=" …")
    return named[1], f"line {number}:  {code}"


def _lines(what: str) -> list[str]:
    """Return the message's lines. The middle of a long message is left out.

    Its end stays, because AWS's messages often quote a long value and give the reason after it.
    """
    lines = what.strip().splitlines()
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 2], "…", lines[-1]]
    half = LONGEST // 2
    return [line if len(line) <= LONGEST else f"{line[:half]} … {line[-half:]}" for line in lines]


Explain = Callable[[Any], tuple[str, str]]


def _kinds() -> dict[type[BaseException], Explain]:
    # A cell can only raise the errors of modules that it has imported. So nothing is imported for this.
    kinds: dict[type[BaseException], Explain] = {
        NameError: lambda error: (f"NameError: {error}", FROM_THE_TOP),
        KeyboardInterrupt: lambda _: ("KeyboardInterrupt: you stopped this cell", STOPPED),
    }
    if botocore := sys.modules.get("botocore.exceptions"):
        kinds |= {
            botocore.ClientError: _aws,
            botocore.ParamValidationError: lambda error: (
                f"{type(error).__name__}: {error}",
                "correct the call in this cell",
            ),
            botocore.ConnectionError: _ended,
            botocore.HTTPClientError: _ended,
        }
    if kubernetes := sys.modules.get("kubernetes.client.exceptions"):
        kinds[kubernetes.ApiException] = _kubernetes
    if urllib3 := sys.modules.get("urllib3.exceptions"):
        kinds |= {urllib3.MaxRetryError: _ended, urllib3.ProtocolError: _ended}
    return kinds


def _aws(error: Any) -> tuple[str, str]:
    details = error.response.get("Error", {})
    code = details.get("Code", "Unknown")
    return f"{code}: {details.get('Message', '')}", _next(code)


def _kubernetes(error: Any) -> tuple[str, str]:
    if not with_answer(error).status:  # a command in a pod fails without a status if nothing answers
        return _ended(error)
    try:
        reason = json.loads(error.body)["reason"]
    except (TypeError, ValueError, KeyError):
        reason = str(error.status)
    return f"{reason}: {said_by_the_cluster(error)}", _next(reason)


def _next(code: str) -> str:
    if code.startswith(EXISTS):
        return f"this resource exists already. If you made the resource in this cell or in the box above, {START_OVER}"
    if code.startswith(MISSING):
        return f"this doesn't exist. The cell that makes it hasn't run yet, or a later cell deleted it; {START_OVER}"
    if code.startswith(DENIED):
        return WHY
    return f"read the message; if you can't explain it, {START_OVER}"


def _ended(error: Any) -> tuple[str, str]:
    return f"{type(error).__name__}: nothing answers at this address", LAB_ENDED


LOOKS_EVERY = 0.1  # seconds between two looks at the running line, while the cell isn't compiled yet


def load_ipython_extension(shell: "InteractiveShell") -> None:
    """Shorten errors even before the lab is opened, and let a slow cell say which line it runs."""
    # Loading libraries makes hardly any garbage, but collecting it takes a fifth of a first cell's processor time.
    gc.set_threshold(100_000, 50, 50)
    shorten_errors()
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
        # The outermost line says more than a line in one of the cell's functions.
        for frame, number in reversed([*traceback.walk_stack(sys._current_frames()[thread])]):
            if line := line_of(self._compiler, frame, number)[1]:
                return line
        return ""
