"""What the tests of the notebooks share."""

import pytest

from tests.conftest import emptied


@pytest.fixture
def empty_lab(home):
    """No server, and nothing of what an earlier one kept."""
    emptied(home)
