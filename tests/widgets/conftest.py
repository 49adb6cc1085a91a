"""A lab of these tests' own, and JupyterLab in a browser on it."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

from labkit import Lab

CLUSTER = "widget-tests"
TOKEN = "of-this-test-alone"
# No announcements, no look for updates, no list of extensions: nothing that leaves this machine.
OFF = ["@jupyterlab/apputils-extension:announcements", "@jupyterlab/extensionmanager-extension:plugin"]
CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
]


@pytest.fixture(scope="module")
def lab(home: Path) -> Iterator[Lab]:
    with Lab.open(cluster=CLUSTER) as opened:
        yield opened
        opened.remove()


@dataclass(frozen=True)
class JupyterLab:
    """A running JupyterLab: what it serves, and where."""

    folder: Path
    url: str

    def write(self, name: str, *cells: str) -> str:
        """Writes a notebook of these cells; returns its URL."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.folder / name)
        return self.url_of(name)

    def url_of(self, path: str) -> str:
        """The URL that opens a file of the folder."""
        return f"{self.url}lab/tree/{path}?token={TOKEN}&reset"


@pytest.fixture(scope="module")
def jupyterlab(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterLab]:
    """JupyterLab on a free port of loopback, in the lab's closed environment and with settings of its own."""
    from labkit.targets import moto

    folder = tmp_path_factory.mktemp("jupyterlab")
    (folder / "notebooks").mkdir()
    (folder / "config" / "labconfig").mkdir(parents=True)
    page = {"disabledExtensions": dict.fromkeys(OFF, True)}
    (folder / "config" / "labconfig" / "page_config.json").write_text(json.dumps(page))
    settings = {
        "IPYTHONDIR": "ipython",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    environment = moto.environment(os.environ) | {name: str(folder / value) for name, value in settings.items()}
    root = [] if not hasattr(os, "geteuid") or os.geteuid() else ["--allow-root"]
    address = [
        "--ip=127.0.0.1",
        "--port=0",
        "--no-browser",
        f"--IdentityProvider.token={TOKEN}",
        "--expose-app-in-browser",
    ]
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        *address,
        *root,
        f"--ServerApp.root_dir={folder / 'notebooks'}",
    ]
    server = subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        said = []
        for line in server.stderr:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                break
        else:
            pytest.fail(f"JupyterLab did not start:\n{''.join(said)}")
        # A pipe that nobody reads would stop it once it is full.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield JupyterLab(folder / "notebooks", found[0])
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium, with a profile of its own."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in [*CHROMIUM, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(argument)
    # The driver is named, so that selenium looks for none to download.
    with webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver"))) as driver:
        yield driver
