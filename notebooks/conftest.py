"""Notebooks that are compared side by side have a lab each: every worker of pytest-xdist has its own, and ends it."""

import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests import forked, forked_commands


def pytest_configure(config: pytest.Config) -> None:
    # A terminal of `labkit lab` has it; what is stored has names instead.
    os.environ.pop("LABKIT_LIVE", None)
    forked.kernels(pytest.MonkeyPatch())
    if hasattr(config, "workerinput"):
        # A kernel inherits the worker's environment.
        os.environ["LABKIT_HOME"] = str(Path(tempfile.mkdtemp(prefix="labkit-")) / ".lab")
    elif config.getoption("numprocesses", None):  # without workers the lab is the reader's, and goes on
        config.add_cleanup(forked_commands.begin())


def pytest_runtest_setup(item: pytest.Item) -> None:
    if getattr(item, "cell_num", None) != 0 or os.environ.get("LABKIT_TARGET", "moto") != "moto":
        return
    # The report shows the lab as it is: what another notebook left in it is not what is stored.
    if item.path.name == "doctor.ipynb":
        from labkit import Lab

        with Lab.open() as lab:
            lab.remove()
    # Only a lab of the worker's own: without workers it is the reader's.
    if item.path.name in ("14-fleet.ipynb", "98-examination.ipynb") and hasattr(item.config, "workerinput"):
        _empty_lab()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what a cell that failed wrote to stderr: nbval only says that it wrote something."""
    report = yield
    if report.failed and (outputs := getattr(item, "test_outputs", None)):
        said = [output.get("text", "") for output in outputs if output.get("name") == "stderr"]
        report.sections += [("stderr of the cell", text) for text in said]
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        _empty_lab()
        shutil.rmtree(Path(os.environ["LABKIT_HOME"]).parent, ignore_errors=True)


def _empty_lab() -> None:
    from labkit import simulator
    from labkit.simulator import Folder

    folder = Folder.find()
    simulator.stop(folder)
    simulator.forget(folder)
