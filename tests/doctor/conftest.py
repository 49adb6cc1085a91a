"""A healthy lab of its own for each module of tests, because the doctor also reports other tests' leftovers."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit import Lab, simulator
from labkit.course.faults import Situation, live
from labkit.simulator import Folder

PROGRAMS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The lab, ready through the pod. LABKIT_HOME is its folder while the tests run."""
    folder = Folder(tmp_path_factory.mktemp("own") / ".lab")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LABKIT_HOME", str(folder.path))
        try:
            with Lab.open() as lab:
                lab.ready(through="pod")
                yield lab
        finally:
            simulator.stop(folder)


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
