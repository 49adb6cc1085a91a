"""JupyterLab as `labkit lab` runs it: it ends with every process it started, and a second start finds it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time

import httpx
import psutil
import pytest
from jupyter_client import BlockingKernelClient
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

from labkit.cli.jupyterlab import LearnerServer
from tests.commands import LABKIT

PATIENCE = 60
PATHS = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
# Neither SIGINT nor SIGTERM ends it.
STUBBORN = """
import pathlib, signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
pathlib.Path({flag!r}).touch()
while True:
    time.sleep(1)
"""


@pytest.fixture
def environment(home, tmp_path):
    return os.environ | {name: str(tmp_path / name) for name in PATHS}


@pytest.fixture
def started(environment, tmp_path):
    """Return a function that starts `labkit lab` in an empty folder; it returns the process and the URL."""
    running = []

    def start(*options):
        process = subprocess.Popen(
            [LABKIT, "lab", "--no-browser", "--port=0", "--IdentityProvider.token=known", *options],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                threading.Thread(target=process.stderr.read, daemon=True).start()
                return process, found[0]
        return pytest.fail(f"JupyterLab did not start:\n{''.join(said)}")

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def manager(tmp_path):
    return AsyncMappingKernelManager(connection_dir=str(tmp_path))


@pytest.mark.parametrize("others", [0, 1])
def test_the_server_s_cleanup_ends_a_kernel_that_is_still_starting(manager, others):
    ServerApp.clear_instance()
    server = LearnerServer()
    server.kernel_manager = manager

    async def ended_while_it_starts():
        for _ in range(others):
            await manager.start_kernel()
        starting = asyncio.create_task(manager.start_kernel())
        await asyncio.sleep(0)
        assert len(manager) == others
        await server.cleanup_kernels()
        await asyncio.wait([starting])

    asyncio.run(asyncio.wait_for(ended_while_it_starts(), PATIENCE))
    assert not manager.list_kernel_ids()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_jupyterlab_ends_its_terminal_a_stubborn_kernel_and_one_still_starting(started, tmp_path, number):
    process, url = started()
    # JupyterLab prints its address before it listens.
    answers = httpx.HTTPTransport(retries=10)
    with httpx.Client(base_url=url, params={"token": "known"}, transport=answers, timeout=PATIENCE) as asked:
        kernel = asked.post("api/kernels", json={"name": "python3"}).json()
        client = BlockingKernelClient()
        client.load_connection_file(str(tmp_path / "JUPYTER_RUNTIME_DIR" / f"kernel-{kernel['id']}.json"))
        client.start_channels()
        flag = tmp_path / "runs"
        client.execute(STUBBORN.format(flag=str(flag)))
        while not flag.exists():
            time.sleep(0.05)
        client.stop_channels()
        asked.post("api/terminals")
        asked.post("api/kernels", json={"name": "python3"})
        # The lab's server keeps running without JupyterLab.
        own = [each for each in psutil.Process(process.pid).children() if "labkit.simulator" not in each.cmdline()]
        own += [below for each in own for below in each.children(recursive=True)]
        process.send_signal(number)
        process.wait(PATIENCE)
    _, alive = psutil.wait_procs(own, timeout=PATIENCE)
    assert (len(own) > 2, alive) == (True, [])


def test_jupyterlab_starts_without_running_node(started, environment, tmp_path):
    node = tmp_path / "bin" / "node"
    node.parent.mkdir()
    node.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
    node.chmod(0o700)
    environment["PATH"] = f"{node.parent}{os.pathsep}{environment['PATH']}"
    started()
    assert not (tmp_path / "asked").exists()


def test_a_second_labkit_lab_points_to_the_running_jupyterlab(started, environment, tmp_path):
    process, url = started()
    page = tmp_path / "learn" / "contents.ipynb"
    page.write_text("open in a tab")
    again = labkit_lab(environment, tmp_path)
    assert f"\n  {local(url)}lab/tree/learn/contents.ipynb?token=known\n" in again.stdout, again.stderr
    assert "Reload" not in again.stdout
    assert page.read_text() == "open in a tab"
    mine = tmp_path / "learn" / "02-iam-role.ipynb"
    mine.write_text("mine")
    over = labkit_lab(environment, tmp_path / "learn", "--fresh", "02")
    assert f"\n  {local(url)}lab/tree/learn/02-iam-role.ipynb?token=known\n" in over.stdout, over.stderr
    assert "File, Reload Notebook from Disk" in over.stdout
    assert "your-turn-a" in mine.read_text()
    assert (tmp_path / "learn" / "02-iam-role.before-1.ipynb").read_text() == "mine"
    # A killed server leaves its entry in Jupyter's list of servers.
    process.kill()
    process.wait()
    assert started()[1] != url


def labkit_lab(environment, folder, *options):
    command = [LABKIT, "lab", "--no-browser", "--port=0", *options]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True
    )


def local(url):
    return url.replace("127.0.0.1", "localhost")


def test_jupyterlab_ends_even_if_its_cleanup_hangs(tmp_path):
    program = f"""
        import asyncio, os, signal
        from labkit.cli import jupyterlab
        jupyterlab.GIVE_UP = 1
        class Hanging(jupyterlab.LearnerServer):
            async def cleanup_extensions(self):
                await asyncio.Event().wait()
            def start_app(self):
                self.io_loop.add_callback(os.kill, os.getpid(), signal.SIGTERM)
        Hanging.launch_instance(["--allow-root", "--no-browser", "--port=0", "--ServerApp.root_dir={tmp_path}"])
        """
    done = subprocess.run(
        [sys.executable, "-c", "import textwrap; exec(textwrap.dedent('''" + program + "'''))"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == -signal.SIGALRM, done.stderr
