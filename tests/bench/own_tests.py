"""The pytest plugin in an outside project: its lab, its namespaces, and what it adds to a collection."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

TIMED = """
import json
import time

import pytest

SECONDS = {}

@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef):
    started = time.perf_counter()
    try:
        return (yield)
    finally:
        SECONDS.setdefault(fixturedef.argname, []).append(time.perf_counter() - started)

def pytest_unconfigure():
    with open("seconds.json", "w") as file:
        json.dump(SECONDS, file)
"""
TESTS = """
import pytest

def test_the_lab(irsa_lab, irsa_cluster, irsa_aws, irsa_kubernetes): pass

@pytest.mark.parametrize("_", range(20))
def test_a_namespace(irsa_namespace, _): pass
"""


def fixtures() -> str:
    """Measure the fixtures of a session that loads boto3 and kubernetes for the first time, five times."""
    sessions, namespaces = [], []
    with project() as folder:
        for _ in range(5):
            pytest(folder)
            seconds = json.loads((folder / "seconds.json").read_text())
            namespaces += seconds.pop("irsa_namespace")
            sessions.append(sum(sum(each) for name, each in seconds.items() if name.startswith("irsa_")))
    return (
        f"lab and cluster: median {statistics.median(sessions):.2f} s, slowest {max(sessions):.2f} s, "
        f"of {len(sessions)}; namespace: median {statistics.median(namespaces) * 1000:.0f} ms"
    )


def collection() -> str:
    """Measure the processor time of `pytest --collect-only` with and without the plugin, ten times in turn."""
    seconds: dict[str, list[float]] = {"labkit.simulator.pytest_plugin": [], "no:irsa": []}
    with project() as folder:
        for _ in range(10):
            for plugin, times in seconds.items():
                before = psutil.Process().cpu_times()
                pytest(folder, "--collect-only", "--disable-plugin-autoload", "-p", plugin)
                after = psutil.Process().cpu_times()
                times.append(sum(after[2:4]) - sum(before[2:4]))
    with_it, without_it = (min(times) * 1000 for times in seconds.values())
    return f"{with_it:.0f} ms of processor time at least, the plugin's part {with_it - without_it:+.0f} ms"


@contextmanager
def project() -> Iterator[Path]:
    """An outside project's folder. Its tests use the plugin."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "conftest.py").write_text(TIMED)
        (folder / "test_own.py").write_text(TESTS)
        (folder / "pytest.ini").write_text("[pytest]\n")
        pytest(folder)  # writes the bytecode
        yield folder


def pytest(folder: Path, *options: str) -> None:
    subprocess.run([sys.executable, "-m", "pytest", *options], cwd=folder, check=True, capture_output=True)
