"""Whole commands, as a learner runs them."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from labkit.simulator import Folder, State

PROGRAMS = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


def up() -> str:
    """Measure from an empty folder to a cluster that accepts pods, seven times."""
    seconds = []
    for _ in range(7):
        with folder() as home:
            started = time.perf_counter()
            labkit(home, "up")
            seconds.append(time.perf_counter() - started)
    return f"median {statistics.median(seconds):.2f} s, slowest {max(seconds):.2f} s, of {len(seconds)}"


def memory() -> str:
    """The resident memory of the server with one cluster and no pod."""
    with folder() as home:
        labkit(home, "up")
        server = psutil.Process(State.read(Folder(home)).pid).memory_info().rss
        return f"{server / 2**20:.0f} MiB resident"


def run() -> str:
    """Measure the whole lab with papermill, including the start of the lab's server, three times."""
    seconds = []
    for _ in range(3):
        with folder() as home:
            started = time.perf_counter()
            labkit(home, "run")
            seconds.append(time.perf_counter() - started)
    return f"median {statistics.median(seconds):.1f} s, slowest {max(seconds):.1f} s, of {len(seconds)}"


def notebooks() -> str:
    """Measure `make test-notebooks`."""
    started = time.perf_counter()
    subprocess.run(["make", "--no-print-directory", "test-notebooks"], cwd=ROOT, check=True, capture_output=True)
    return f"{time.perf_counter() - started:.0f} s"


@contextmanager
def folder() -> Iterator[Path]:
    """An empty lab folder; its lab is ended afterwards."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary) / ".lab"
        try:
            yield home
        finally:
            labkit(home, "down")


def labkit(home: Path, *arguments: str) -> None:
    """Run the command in the lab of ``home``."""
    subprocess.run(
        [PROGRAMS / "labkit", *arguments],
        env=os.environ | {"LABKIT_HOME": str(home)},
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
