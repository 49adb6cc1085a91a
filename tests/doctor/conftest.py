"""A healthy lab of its own for each module of tests."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit import Lab, simulator
from labkit.course.faults import Situation, live

PROGRAMS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="module")
def irsa_lab() -> Iterator[simulator.in_tests.LabInTests]:
    """A lab for each module, because the doctor also reports what other tests left."""
    with simulator.in_tests.running() as lab:
        yield lab


@pytest.fixture(scope="module")
def lab(lab: Lab) -> Lab:
    """The lab, ready through the pod."""
    lab.ready(through="pod")
    return lab


@pytest.fixture(scope="module")
def healthy(lab: Lab) -> Situation:
    """The lab's situation before anything is broken."""
    return live.read(lab)


@pytest.fixture(scope="module")
def shell(lab: Lab) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """A function that runs a script after `eval "$(labkit env)"`. The script stops at its first failing command."""
    variables = {**os.environ, "PATH": PROGRAMS}
    lines = subprocess.run(["labkit", "env"], env=variables, capture_output=True, text=True, check=True).stdout

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-ec", f"{lines}\n{script}"], env=variables, capture_output=True, text=True, check=False
        )

    return run
