"""The fixture of all fleet tests."""

import pytest
from jupyter_client import launcher
from jupyter_client.provisioning import local_provisioner


@pytest.fixture(autouse=True)
def kernels_of_their_own(monkeypatch):
    """Start each row's kernel as a program: a time limit finds it by its command line, which a forked kernel lacks."""
    monkeypatch.setattr(local_provisioner, "launch_kernel", launcher.launch_kernel)
