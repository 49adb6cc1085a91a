"""A lab folder for each test, and a function that runs labkit in it."""

import pytest

from labkit.simulator.folder import Folder
from tests import commands


@pytest.fixture
def labkit(tmp_path):
    """Return a function that runs labkit in this test's own lab folder."""
    folder = Folder(tmp_path / ".lab")

    def labkit(*arguments: str, fails: bool = False, **variables: str) -> str:
        done = commands.labkit(*arguments, cwd=tmp_path, LABKIT_HOME=str(folder.path), **variables)
        assert "Traceback" not in done.stderr, done.stderr
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    labkit.folder = folder
    yield labkit
    labkit("down")
