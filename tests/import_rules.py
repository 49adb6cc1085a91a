"""`python -m tests.import_rules`: import-linter's contracts, and one sentence for each import that breaks one.

The contracts are in pyproject.toml. https://import-linter.readthedocs.io
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
# An import that a contract forbids, and below it the imports by which it leads to a forbidden module: two spaces in
# under a contract of layers, four under one of forbidden modules.
NOT_ALLOWED = re.compile(r"^-\s+(labkit\S*) -> (\S+) \((.+?)\)((?:\n {2,}\S+ -> .+)*)", re.MULTILINE)
CIRCLE = re.compile(r"^No cycles are allowed in (\S+)\.$(?:\n.*)*?\n-\s+(\S+) -> (\S+) \((.+?)\)", re.MULTILINE)
PAST_A_DOOR = re.compile(r"^Illegal imports of protected package .*(?:\n(?:\(via .*|- .*)?)*", re.MULTILINE)
UNLISTED = re.compile(r"^The following modules are not listed as layers:?\n+\s*- (\S+)", re.MULTILINE)


def main() -> None:
    # Rich wraps its lines at the width of the terminal; without a terminal, at 80.
    wide = os.environ | {"COLUMNS": "400"}
    done = subprocess.run([LINT_IMPORTS, "--no-cache"], capture_output=True, text=True, env=wide)
    if done.returncode:
        sys.exit("\n".join(sentences(done.stdout + done.stderr)))


def sentences(printed: str) -> list[str]:
    """Return what to do about each broken contract, or import-linter's last line if none is recognised."""
    return [*dict.fromkeys(_known(printed))] or printed.strip().splitlines()[-1:]


def _known(printed: str) -> Iterator[str]:
    past = re.findall(r"- (\S+) -> (labkit\.\w+)(\.\S+) \((.+)\)", "\n".join(PAST_A_DOOR.findall(printed)))
    forbidden = NOT_ALLOWED.findall(printed := PAST_A_DOOR.sub("", printed))
    for module, part, inner, line in past if not forbidden else []:
        yield (
            f"{module} imports {part}{inner} ({line}) past the door of {part}. "
            f"Import a name of {part.replace('.', '/')}/__init__.py, or add the name there."
        )
    # One import in the wrong layer also breaks the contracts of every module that reaches it, and makes a circle.
    for module, imported, line, further in [each for each in forbidden if not each[3]] or forbidden:
        end = further.rpartition(" -> ")[2].partition(" ")[0]
        remedy = "Move what is imported down" if (end or imported).startswith("labkit") else "Ask a module that may"
        leads = f", which leads to {end}" if end else ""
        yield f"{module} may not import {imported} ({line}){leads}. {remedy}; the layers are in pyproject.toml."
    for package, module, other, line in [] if forbidden else CIRCLE.findall(printed):
        yield (
            f"{package}: two of its parts import each other. One of the imports is {package}{module} -> "
            f"{package}{other} ({line}). Move what both need below them."
        )
    for module in UNLISTED.findall(printed):
        yield f"{module}: give it a layer in pyproject.toml, or move it into a folder."


if __name__ == "__main__":
    main()
