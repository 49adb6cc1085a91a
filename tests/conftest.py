"""Shared by all tests: a lab folder for each module, and a summary of what could not run here."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

import tests.botocore_data  # noqa: F401  # before labkit is imported
from tests import forked, forked_commands

if TYPE_CHECKING:
    from labkit import Lab, simulator

# Loading modules and tests makes hardly any garbage, but collecting it takes a fifth of that time.
gc.set_threshold(100_000, 50, 50)

# A slow machine is not a failure.
hypothesis.settings.register_profile(
    "no hurry", hypothesis.settings(), deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("no hurry")

# What a test may need besides Python: its marker, the program, and how to install it.
PROGRAMS = {
    "kind": ("kind", "apt-get install kind   (or: brew install kind)"),
    "kubectl": ("kubectl", "apt-get install kubectl   (or: brew install kubernetes-cli)"),
    "browser": ("chromium", "apt-get install chromium   (or: brew install --cask chromium)"),
    "network": ("ip", "apt-get install iproute2 util-linux   (Linux only)"),
    "node": ("node", "apt-get install nodejs npm   (or: brew install node)"),
    "rclone": ("rclone", "apt-get install rclone   (or: brew install rclone)"),
    "workshop": ("bwrap", "apt-get install bubblewrap nftables nodejs npm   (Linux only)"),
    "zsh": ("zsh", "apt-get install zsh   (a Mac has it)"),
}
LONG = (
    "tests/course/test_copies.py",
    "tests/course/test_exercises.py",
    "tests/course/widgets/test_lessons_in_jupyterlab.py",
    "tests/course/widgets/test_in_the_browser.py",
    "tests/notebooks/",
    "tests/doctor/test_faults_live.py",
    "tests/doctor/test_repairs.py",
    "tests/targets/",
    "tests/lifecycle/",
    "tests/test_contract.py",
    "tests/test_wheel.py",
    "tests/workshop/test_workshop.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Keep this machine's AWS and Kubernetes settings, and those of a `make` around pytest, from the tests."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "MAKE")) or name in ("KUBECONFIG", "LABKIT_HOME", "MFLAGS"):
            del os.environ[name]
    # A background job ignores SIGINT and SIGQUIT, and nohup ignores SIGHUP. Every child inherits that, and some
    # tests send these signals to children. A child doesn't inherit a handler: it starts with the signal's default.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else lambda *_: None)
    forked.servers(pytest.MonkeyPatch())
    forked.kernels(pytest.MonkeyPatch())
    # The AWS CLI and kubectl keep caches in HOME. Workers inherit it from the process that starts them.
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ["HOME"] = tempfile.mkdtemp(prefix="labkit-home-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ["HOME"], ignore_errors=True))
        config.add_cleanup(forked_commands.begin())
        # As in an activated environment: `labkit` alone is the command that a message names.
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def pytest_collection_finish() -> None:
    # Modules and tests stay until the end.
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the modules that take a minute or more first. Started last, one would keep the other workers waiting."""
    items.sort(
        key=lambda item: next((rank for rank, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG))
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, (program, install) in PROGRAMS.items():
        if item.get_closest_marker(marker) and not shutil.which(program):
            lacking(f"{program}:  {install}")


def lacking(thing: str) -> None:
    """Skip the test because it needs this thing. In CI, fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"in CI nothing is skipped, and this test needs {thing}")
    pytest.skip(f"needs {thing}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = {report.longrepr[2].removeprefix("Skipped: ") for report in skipped if isinstance(report.longrepr, tuple)}
    if reasons:
        terminalreporter.section(f"{len(skipped)} skipped")
        for reason in sorted(reasons):
            terminalreporter.line(f"  {reason}")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty lab's folder. Each module gets its own, so that none depends on what another left behind."""
    path = tmp_path_factory.mktemp("lab") / ".lab"
    os.environ["LABKIT_HOME"] = str(path)
    yield path
    emptied(path)


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, irsa_lab: "simulator.in_tests.LabInTests") -> Iterator["Lab"]:
    """The session's lab, opened as a notebook opens it; LABKIT_HOME is its folder.

    The module's marker `lab(…)` has the parameters, and with ``through=`` the last step that exists already. A module
    deletes what it creates beside its run.
    """
    from labkit import Lab

    os.environ["LABKIT_HOME"] = str(irsa_lab.folder.path)
    marker = request.node.get_closest_marker("lab")
    parameters = {**marker.kwargs} if marker else {}
    through = parameters.pop("through", None)
    with Lab.open(**parameters) as opened:
        if through:
            opened.ready(through=through)
        yield opened
        opened.mend()
        opened.remove()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the installed packages; nothing is downloaded."""
    built = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(built)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(Path(__file__).parent.parent)], check=True)
    return next(built.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's packages, for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    return folder


def emptied(home: Path) -> Path:
    """Stop the lab's server and delete everything in its folder but the ports."""
    from labkit import simulator
    from labkit.simulator import Folder

    simulator.stop(Folder(home))
    simulator.forget(Folder(home))
    return home
