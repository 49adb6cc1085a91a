"""One workshop for the tests of this folder, with the real hub and the real proxy, over TLS."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from labkit.workshop import Workshop, read, words, write_examples
from labkit.workshop.participant import Participant
from tests import forked_commands
from tests.conftest import lacking

# Tests of several checkouts can run on one machine.
NETWORK = f"10.{214 + os.getpid() % 16}.{os.getpid() // 16 % 256}.0/24"
SPARE_NETWORK = f"10.{230 + os.getpid() % 16}.{os.getpid() // 16 % 256}.0/26"
UIDS = 430000 + os.getpid() % 1000 * 10
# `make workshop` takes six browsers through all of 01 to 05.
SIX = "LABKIT_SIX" in os.environ
BROWSERS = ["ana", "ben", "chi", "dan", "fay", "gus"] if SIX else ["ana", "ben"]
HOSTILE_NAMES = ["eve", "mal"]
CHOSEN = ["01", "02", "03", "04", "05"] if SIX else ["01", "02", "05"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A leader's folder. Its state is in it, too."""
    folder = tmp_path_factory.mktemp("workshop") / "class"
    write_examples(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"0.0.0.0:{free.getsockname()[1]}"
    settings = {
        "address": address,
        "names": [*BROWSERS, *HOSTILE_NAMES],
        "leaders": ["leader"],
        "notebooks": CHOSEN,
        "users": len([*BROWSERS, *HOSTILE_NAMES, "leader", "trial"]),
        "network": NETWORK,
        "uids": UIDS,
        "state": str(folder / "state"),
        "limits": {"home": 128, "processes": 400},
    }
    (folder / "workshop.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture(scope="session")
def workshop(folder: Path) -> Iterator[Workshop]:
    """The running workshop. At the end, nothing of it may be left."""
    if sys.platform != "linux" or os.geteuid() != 0:
        lacking("root on Linux")
    workshop = read(folder)
    up = command("up", folder)
    try:
        assert up.returncode == 0, up.stderr
        yield workshop
    finally:
        down = command("down", folder)
    assert down.returncode == 0, down.stderr


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `labkit workshop` with the installed interpreter, which a participant can read, too."""
    python = forked_commands.REAL / "python"
    return subprocess.run([python, "-m", "labkit.cli", "workshop", *arguments], capture_output=True, text=True)


@pytest.fixture(scope="session")
def participant(workshop: Workshop) -> Callable[[str], Participant]:
    """Make a client for the participant of a name, with the word of the card."""
    return lambda name: Participant(workshop.url, name, words.known(workshop)[name], timeout=120)
