"""A lab for one module of tests, healthy and with nobody else in it: what others leave behind is a finding, too."""

from collections.abc import Iterator

import pytest

from labkit import Lab
from labkit.emulator import process
from labkit.emulator.folder import Folder
from labkit.faults import Situation, live


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The lab, ready through the pod; its folder is LABKIT_HOME meanwhile."""
    folder = Folder(tmp_path_factory.mktemp("own") / ".lab")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LABKIT_HOME", str(folder.path))
        try:
            with Lab.open() as lab:
                lab.ready(through="pod")
                yield lab
        finally:
            process.stop(folder)


@pytest.fixture(scope="module")
def healthy(lab: Lab) -> Situation:
    """What the lab is before anything is broken."""
    return live.read(lab)
