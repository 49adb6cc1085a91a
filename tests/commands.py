"""The `labkit` command as a shell sees it: what it prints, and its exit code."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.cli.main import main
from tests.forked_commands import REAL

LABKIT = REAL / "labkit"  # as a user starts it: not forked


def labkit(*arguments: str, given: str = "", cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess:
    """Run the command in this process, which saves a start of Python. Run one at a time: it redirects the output.

    ``given`` goes to its standard input.
    """
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as shell:
        for name, value in variables.items():
            shell.setenv(name, value)
        if cwd:
            shell.chdir(cwd)
        shell.setattr(sys, "argv", [str(LABKIT), *map(str, arguments)])
        shell.setattr(sys, "stdin", io.StringIO(given))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as ended:
                code = ended.code or 0
    return subprocess.CompletedProcess([LABKIT, *arguments], code, out.getvalue(), err.getvalue())


def labkit_process(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Run the command as a process of its own, for a test that needs one."""
    return subprocess.run(
        [LABKIT, *arguments], env=os.environ | variables, capture_output=True, text=True, timeout=120, check=False
    )
