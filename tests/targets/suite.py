"""What `make test-kind` and `make test-eks` run on their target: the contract, and the notebooks."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def contract(variables: Mapping[str, str]) -> int:
    """Run the contract's tests on the target that `LABKIT_TARGET` names; return the exit code."""
    return _pytest(["tests/targets/test_contract.py"], variables)


def notebooks(variables: Mapping[str, str]) -> int:
    """Run the notebooks with the parameters in these variables (see `on_target`); return the exit code."""
    return _pytest(["-p", "tests.targets.on_target", "--nbval-lax", "-p", "no:cacheprovider", "notebooks"], variables)


def _pytest(arguments: list[str], variables: Mapping[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode
