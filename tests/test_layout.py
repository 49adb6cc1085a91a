"""Starting the command costs little. Who may import whom is in pyproject.toml, for import-linter."""

import subprocess
import sys


def test_the_command_starts_without_the_slow_libraries():
    code = "import sys, labkit.cli.main; print(*{'boto3', 'kubernetes', 'moto', 'papermill'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
