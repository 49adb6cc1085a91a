"""JupyterLab on the lab, in a browser."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from labkit import Lab

TOKEN = "of-this-test-alone"
# Turned off in addition to what Playwright turns off.
CHROMIUM = ["--disable-gpu", "--disable-quic", "--disable-sync"]
WITHIN = 60_000  # milliseconds
WIDTH, HEIGHT = 1280, 1000
# Leave no other notebook on the page. `dispose` doesn't ask whether to save it.
OPEN = """async path => {
for (const widget of Array.from(window.jupyterapp.shell.widgets('main'))) widget.dispose();
await window.jupyterapp.commands.execute('docmanager:open', {path});
}"""
RUN_ALL = "window.jupyterapp.commands.execute('notebook:run-all-cells')"
READY = """() => {
const panel = window.jupyterapp?.shell.currentWidget;
return panel?.content?.model?.cells?.length > 0 && panel.sessionContext?.session?.kernel?.status === 'idle';
}"""


@dataclass(frozen=True)
class JupyterLab:
    """A running JupyterLab: its folder and its URL."""

    folder: Path
    url: str

    def write(self, name: str, *cells: str) -> str:
        """Write a notebook of these cells; return its path."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.folder / name)
        return name

    def open(self, page: Page, path: str) -> None:
        """Open a notebook of the folder in the page, and wait for its kernel. JupyterLab itself is loaded once."""
        if page.evaluate("'jupyterapp' in window"):
            page.evaluate(OPEN, path)
        else:
            page.goto(f"{self.url}lab/tree/{path}?token={TOKEN}&reset")
        page.wait_for_function(READY)


@pytest.fixture(scope="module")
def jupyterlab(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterLab]:
    """JupyterLab as `labkit lab` starts it in an empty folder, on a free port, with settings of its own."""
    folder = tmp_path_factory.mktemp("jupyterlab")
    settings = {
        "IPYTHONDIR": "ipython",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    own = tmp_path_factory.mktemp("settings")
    environment = os.environ | {name: str(own / value) for name, value in settings.items()}
    options = ["--no-browser", "--port=0", f"--IdentityProvider.token={TOKEN}", "--expose-app-in-browser"]
    forkserver.ensure_running()
    command = [sys.executable, "-m", "tests.course.widgets.forked_jupyterlab"]
    server = subprocess.Popen(
        [*command, forkserver._forkserver._forkserver_address, *options],
        env=environment,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = []
        for line in server.stderr:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                break
        else:
            pytest.fail(f"JupyterLab did not start:\n{''.join(said)}")
        # Keep reading: a full pipe would stop JupyterLab.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield JupyterLab(folder, found[0])
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    """The machine's own Chromium, headless, with an empty profile. Playwright downloads no browser."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        context = chromium.new_context()
        context.set_default_timeout(WITHIN)
        expect.set_options(timeout=WITHIN)
        yield context
        chromium.close()


@pytest.fixture(scope="module")
def module_page(browser: BrowserContext) -> Page:
    return browser.new_page()


@pytest.fixture
def page(module_page: Page) -> Page:
    """The module's page, in its usual size."""
    module_page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    return module_page
