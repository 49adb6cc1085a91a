"""Run a repair line by line, exactly as shown, and only if it is complete."""

import re
import subprocess
from collections.abc import Mapping

# A value that the reader has to fill in: a role's name, a bucket, a secret that isn't shown.
PLACEHOLDER = re.compile(r"<[A-Z][A-Z0-9_]*>|\bNOT-SHOWN\b")


def why_not_run(repair: str) -> str:
    """Return why a repair can't be run, as a sentence: it has no command, or lacks a value. Empty if it's complete."""
    commands = "\n".join(line for line in repair.splitlines() if not line.lstrip().startswith("#"))
    if not commands.strip():
        return "there is no command in it. Somebody has to decide first."
    if lacking := PLACEHOLDER.search(commands):
        return f"it lacks a value. Put yours in the place of {lacking[0]}, and run it yourself."
    return ""


def run(script: str, environment: Mapping[str, str]) -> str:
    """Run the lines of a script in a shell until one fails. Return why it failed, as a sentence; empty if none did.

    https://www.gnu.org/software/bash/manual/html_node/The-Set-Builtin.html
    """
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail"], input=script, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return ""
    printed = " ".join((done.stderr.strip() or done.stdout.strip() or "nothing").split())
    return f"The repair failed with exit code {done.returncode}; it printed: {printed}"
