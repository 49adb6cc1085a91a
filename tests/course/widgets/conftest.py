"""JupyterLab on the lab, in a browser."""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from labkit import Lab
from tests.commands import LABKIT

TOKEN = "of-this-test-alone"
# Turned off in addition to what Playwright turns off.
CHROMIUM = ["--disable-gpu", "--disable-quic", "--disable-sync"]
WITHIN = 60_000  # milliseconds
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
        """Write a notebook of these cells; return its URL."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.folder / name)
        return self.url_of(name)

    def url_of(self, path: str) -> str:
        """The URL that opens a file of the folder."""
        return f"{self.url}lab/tree/{path}?token={TOKEN}&reset"


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
    server = subprocess.Popen(
        [LABKIT, "lab", *options],
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
        context = chromium.new_context(viewport={"width": 1280, "height": 1000})
        context.set_default_timeout(WITHIN)
        expect.set_options(timeout=WITHIN)
        yield context
        chromium.close()


@pytest.fixture
def page(browser: BrowserContext) -> Iterator[Page]:
    """A page of its own; the pages of a module share the browser's cache."""
    with browser.new_page() as opened:
        yield opened
