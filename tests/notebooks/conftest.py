"""What the tests of the notebooks share."""

import pytest

from labkit.emulator import process
from labkit.emulator.folder import Folder


@pytest.fixture
def empty_lab(home):
    """No server, and nothing of what an earlier one kept."""
    process.stop(Folder(home))
    process.forget(Folder(home))
