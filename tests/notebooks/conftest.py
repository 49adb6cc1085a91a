"""Fixtures of the notebook tests."""

import pytest

from tests.conftest import emptied


@pytest.fixture
def empty_lab(home):
    """End the lab's server and delete its state."""
    emptied(home)
