"""Notebooks that are compared side by side have a lab each: every worker of pytest-xdist has its own, and ends it."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests import forked


def pytest_configure(config: pytest.Config) -> None:
    # A terminal of `labkit lab` has it; what is stored has names instead.
    os.environ.pop("LABKIT_LIVE", None)
    forked.kernels(pytest.MonkeyPatch())
    if hasattr(config, "workerinput"):
        # A kernel inherits the worker's environment.
        os.environ["LABKIT_HOME"] = str(Path(tempfile.mkdtemp(prefix="labkit-")) / ".lab")


def pytest_runtest_setup(item: pytest.Item) -> None:
    # The report shows the lab as it is: what another notebook left in it is not what is stored.
    first = item.path.name == "doctor.ipynb" and getattr(item, "cell_num", None) == 0
    if first and os.environ.get("LABKIT_TARGET", "moto") == "moto":
        from labkit import Lab

        with Lab.open() as lab:
            lab.remove()


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        from labkit.emulator import process
        from labkit.emulator.folder import Folder

        home = Path(os.environ["LABKIT_HOME"])
        process.stop(Folder(home))
        shutil.rmtree(home.parent, ignore_errors=True)
