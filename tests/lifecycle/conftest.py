"""A lab folder for each test, and the command in it."""

import pytest

from labkit.emulator.folder import Folder
from tests import commands


@pytest.fixture
def lab(tmp_path):
    """A lab folder of this test's own, and the command in it."""
    folder = Folder(tmp_path / ".lab")

    def labkit(*arguments: str, fails: bool = False, **variables: str) -> str:
        done = commands.labkit(*arguments, cwd=tmp_path, LABKIT_HOME=str(folder.path), **variables)
        assert "Traceback" not in done.stderr, done.stderr
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    labkit.folder = folder
    yield labkit
    labkit("down")
