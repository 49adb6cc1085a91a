"""The commands: their pages of the manual, and how the reader can type them, also outside an activated environment."""

import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from shlex import quote

from labkit.errors import LabError

# The pages of the manual, each with the commands whose help names it.
PAGES = {
    "doctor": ("doctor",),
    "eks": ("checklist", "plan", "policy", "remove"),
    "many-clusters": ("diff", "fleet"),
    "set-up": ("lab",),
    "terminal": (
        *("break", "certificate", "clock", "down", "env", "fetch", "mend", "progress", "reset", "restore", "run"),
        *("snapshot", "status", "trail", "up", "verify"),
    ),
    "webhook": ("manifest", "serve", "webhook"),
    "workshop": ("board", "cards", "export", "forget", "goto", "guide", "init", "rehearse", "workshop"),
    "workshop-on-a-cluster": ("workshop values",),
}
_COMMANDS = re.compile(rf"(?<![\w/.-])labkit(?= (?:{'|'.join(name for names in PAGES.values() for name in names)})\b)")


def command() -> str:
    """Return the shell command that runs this installation of labkit.

    It's `labkit`, or the installed program's path if PATH has another `labkit` or none.
    """
    path = Path(sys.executable).parent / "labkit"
    on_path = shutil.which("labkit")
    if on_path and Path(on_path).resolve() == path.resolve():
        return "labkit"
    with suppress(OSError, ValueError):  # the current folder was deleted, or isn't above the program
        path = path.relative_to(Path.cwd())
    return quote(str(path))


def typed(said: str | LabError) -> str:
    """Return a text, or the text of an error, with `command()` in each command. In an error, these are in `next`."""
    if isinstance(said, str):
        return _COMMANDS.sub(lambda _: command(), said)
    return str(said).removesuffix(said.next) + typed(said.next)
