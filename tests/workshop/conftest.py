"""One workshop for the tests of this folder, with the real hub and the real proxy, over TLS."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_network
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
LAPTOP = ip_network(f"10.{246 + os.getpid() % 8}.{os.getpid() // 8 % 256}.0/30")
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
        "title": "Roles & <Service> Accounts",
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


@pytest.fixture(scope="session")
def laptop(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """How Playwright launches Chromium as on a laptop in the room, with a network of its own.

    On this machine, Chromium would give up all that it loads whenever an interface comes or goes.
    """
    name, (machine, own) = f"laptop{os.getpid()}", LAPTOP.hosts()
    commands = f"""netns add {name}
link add lap{os.getpid()} type veth peer name eth0 netns {name}
address add {machine}/30 dev lap{os.getpid()}
link set lap{os.getpid()} up"""
    inside = f"link set lo up\naddress add {own}/30 dev eth0\nlink set eth0 up"
    chromium = tmp_path_factory.mktemp("laptop") / "chromium"
    chromium.write_text(f'#!/bin/sh\nexec nsenter --net=/run/netns/{name} {shutil.which("chromium")} "$@"\n')
    chromium.chmod(0o755)
    try:
        subprocess.run(["ip", "-batch", "-"], input=commands, text=True, check=True)
        subprocess.run(["ip", "-netns", name, "-batch", "-"], input=inside, text=True, check=True)
        found = f"--host-resolver-rules=MAP 127.0.0.1 {machine}"
        yield {"executable_path": chromium, "args": ["--disable-gpu", "--disable-quic", "--disable-sync", found]}
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
