"""Run a repair exactly as shown, line by line. A repair with a placeholder, such as `<ROLE_NAME>`, isn't run."""

import re
import subprocess
from collections.abc import Mapping

# A value that the user has to fill in: a role's name, a bucket, a secret that isn't shown.
PLACEHOLDER = re.compile(r"<[A-Z][A-Z0-9_]*>|\bNOT-SHOWN\b")


def why_not_run(repair: str) -> str:
    """Return why a repair can't be run, as sentences; empty if it has a command and all values."""
    commands = "\n".join(line for line in repair.splitlines() if not line.lstrip().startswith("#"))
    if not commands.strip():
        return "the repair has no command. Someone has to decide first what to do."
    if lacking := PLACEHOLDER.search(commands):
        return f"the repair lacks a value. Replace {lacking[0]} with your value, and run the lines yourself."
    return ""


def run(script: str, environment: Mapping[str, str]) -> str:
    """Run a script in a shell until a line fails. Return the failure as a sentence; empty if no line failed.

    https://www.gnu.org/software/bash/manual/html_node/The-Set-Builtin.html
    """
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail"], input=script, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return ""
    printed = " ".join((done.stderr.strip() or done.stdout.strip() or "nothing").split())
    return f"The repair failed with exit code {done.returncode}; it printed: {printed}"
