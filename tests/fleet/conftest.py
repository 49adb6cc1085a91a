"""What the tests of fleets share."""

import pytest
from jupyter_client import launcher
from jupyter_client.provisioning import local_provisioner


@pytest.fixture(autouse=True)
def kernels_of_their_own(monkeypatch):
    """A row's kernel is a program of its own: a time limit ends it by its command line, which a forked one lacks."""
    monkeypatch.setattr(local_provisioner, "launch_kernel", launcher.launch_kernel)
