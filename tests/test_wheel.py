"""The wheel as a new user gets it: its files, and how it works in an empty folder with an empty home."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import httpx
import nbformat
import pytest
from tornado.websocket import websocket_connect

from labkit.cli import learning
from labkit.course import copies
from labkit.errors import LabError

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(book.name for book in (ROOT / "notebooks").glob("*.ipynb"))
PICTURES = sorted(f"pictures/{picture.name}" for picture in (ROOT / "notebooks" / "pictures").iterdir())
TEXTS = [text.name for text in (ROOT / "notebooks").glob("*.md")]
MANUAL = [f"manual/{page.name}" for page in (ROOT / "notebooks" / "manual").glob("*.md")]
PATIENCE = 120  # seconds, for JupyterLab on a busy machine


@pytest.fixture(scope="module")
def packed(wheel) -> set[str]:
    """The names of the wheel's files, as they lie in site-packages."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def stranger(installed, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """An empty folder, and an environment with an empty home and the wheel's `labkit`. The lab is ended afterwards."""
    place = tmp_path_factory.mktemp("stranger")
    home, folder = place / "home", place / "folder"
    home.mkdir()
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LABKIT_", "JUPYTER_"))}
    # PYTHONPATH comes before site-packages, where this checkout is installed. Pods and kernels inherit it.
    environment |= {"HOME": str(home), "PYTHONPATH": str(installed), "SHELL": "/bin/bash"}
    yield folder, environment
    labkit(stranger=(folder, environment), arguments=["down"])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_notebook_is_in_the_wheel(packed, name):
    assert f"labkit/notebooks/{name}" in packed, (
        f"The wheel lacks notebooks/{name}: let [tool.hatch.build.targets.wheel] of pyproject.toml include it."
    )


def test_the_wheel_has_each_file_of_labkit_and_nothing_else(packed):
    # Caches in labkit/ are not part of it.
    files = {file.relative_to(ROOT).as_posix() for file in (ROOT / "labkit").rglob("*") if file.is_file()}
    wanted = {file for file in files if "__pycache__" not in file}
    wanted |= {f"labkit/notebooks/{name}" for name in [*NOTEBOOKS, *PICTURES, *TEXTS, *MANUAL]} | {"labkit/README.md"}
    assert {"labkit/py.typed", "labkit/cli/jupyter/labconfig/page_config.json"} <= wanted
    inside = {file for file in packed if ".dist-info/" not in file}
    wrong = sorted(inside ^ wanted)
    assert not wrong, f"{wrong[0]}: put it into [tool.hatch.build.targets.wheel] of pyproject.toml, or take it out"
    assert any(re.fullmatch(r"labkit-.*\.dist-info/licenses/LICENSE", file) for file in packed)


def test_the_sources_build_the_same_wheel(packed, tmp_path):
    uv = [
        Path(sys.prefix, "bin/uv"),
        "build",
        "--quiet",
        "--offline",
        "--no-build-isolation",
        "--python",
        sys.executable,
    ]
    subprocess.run([*uv, "--sdist", "--out-dir", tmp_path, ROOT], check=True)
    (sources,) = tmp_path.glob("labkit-*.tar.gz")
    subprocess.run([*uv, "--wheel", "--out-dir", tmp_path, sources], check=True)
    (wheel,) = tmp_path.glob("labkit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {*archive.namelist()} == packed


def test_the_wheel_runs_the_whole_lab_in_an_empty_folder(stranger):
    folder, _ = stranger
    done = labkit(stranger, ["run"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^  (ok|NOT OK) +", done.stdout, re.MULTILINE) == ["ok"] * 5
    executed = next((folder / "runs").rglob("*.ipynb"))
    assert json.loads(executed.read_text())["cells"]


async def said_in_a_terminal(url: str, line: str) -> str:
    """Run a line in a terminal of this JupyterLab; return what it prints.

    https://github.com/jupyter/terminado#readme
    """
    made = httpx.post(f"{url}api/terminals?token=known", trust_env=False, timeout=PATIENCE).json()
    address = f"{url.replace('http', 'ws', 1)}terminals/websocket/{made['name']}?token=known"
    terminal, said = await websocket_connect(address), ""
    await terminal.write_message(json.dumps(["stdin", f"{line}; echo the e''nd\r"]))
    while "the end" not in said:
        message = await asyncio.wait_for(terminal.read_message(), PATIENCE)
        kind, *what = json.loads(message)
        said += what[0] if kind == "stdout" else ""
    terminal.close()
    return said


def test_the_wheel_opens_jupyterlab_on_copies_of_the_notebooks(stranger):
    folder, environment = stranger
    (folder / "learn").mkdir(exist_ok=True)
    mine = folder / "learn" / "01-oidc-provider.ipynb"
    mine.write_text("mine")
    options = ["--no-browser", "--port=0", "--IdentityProvider.token=known"]
    with (folder / "jupyterlab.log").open("w") as log:
        jupyterlab = subprocess.Popen(
            command(["lab", *options]), cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        url = answered_url(jupyterlab, folder / "jupyterlab.log")
        page = httpx.get(f"{url}lab/tree/learn/contents.ipynb?token=known", trust_env=False, timeout=PATIENCE)
        contents = httpx.get(f"{url}api/contents/learn?token=known", trust_env=False, timeout=PATIENCE)
        # JupyterLab itself wasn't started in a terminal with the lab's variables.
        line = "command -v labkit; aws configure get region; echo live $LABKIT_LIVE"
        printed = asyncio.run(said_in_a_terminal(url, line))
    finally:
        jupyterlab.send_signal(signal.SIGTERM)
        jupyterlab.wait(PATIENCE)
    assert page.status_code == 200
    assert f"{Path(sys.executable).parent}/labkit" in printed and "us-east-1" in printed and "live 1" in printed
    said = (folder / "jupyterlab.log").read_text()
    assert "follow the first link on the page that opens, contents.ipynb" in said and "mounts" not in said
    assert re.search(r"http://127\.0\.0\.1:\d+/lab/tree/learn/contents\.ipynb\?token=", said)
    # The settings of labkit/cli/jupyter, as the page gives them to the browser.
    assert '"disabledExtensions": ["@jupyterlab/apputils-extension:announcements"' in page.text
    assert '"buildCheck": false' in page.text
    loaded = re.findall(r"(\w+) \| extension was successfully loaded", said)
    assert "jupyterlab" in loaded and not {"jupyter_lsp", "nbdime"} & {*loaded}
    assert sorted(entry["name"] for entry in contents.json()["content"]) == sorted(
        [*NOTEBOOKS, *TEXTS, "contents.ipynb", "manual", "pictures"]
    )
    for name in PICTURES:
        assert (folder / "learn" / name).read_bytes() == (ROOT / "notebooks" / name).read_bytes()
    assert {f"manual/{page.name}" for page in (folder / "learn" / "manual").iterdir()} == {*MANUAL}
    assert mine.read_text() == "mine"
    for name in NOTEBOOKS:
        if name != mine.name:
            original = nbformat.read(ROOT / "notebooks" / name, as_version=4)
            assert nbformat.read(folder / "learn" / name, as_version=4) == copies.copy(original)
    assert "JupyterLab starts now" in (folder / "jupyterlab.log").read_text()
    assert (folder / ".lab").is_dir()


def test_copying_names_the_notebook_that_an_installation_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "NOTEBOOKS", tmp_path / "nowhere")
    with pytest.raises(LabError, match=r"^This installation of labkit has no notebook 00-the-problem\.ipynb\.\n"):
        learning.copy_notebooks(tmp_path / "learn")
    assert not (tmp_path / "learn").exists()


def test_copying_names_a_folder_that_cannot_take_the_notebooks(tmp_path, monkeypatch):
    (tmp_path / "learn").write_text("a file")
    with pytest.raises(LabError, match=r"^The notebooks could not be copied to .*/learn: File exists\.\n"):
        learning.copy_notebooks(tmp_path / "learn")


def test_a_failed_copy_leaves_no_notebook_behind(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LabError, match="No space left on device"):
        learning.copy_notebooks(tmp_path / "learn")
    assert not [*(tmp_path / "learn").glob("*.ipynb")]


def command(arguments: list[str]) -> list[str]:
    """The command as its entry point runs it. -P keeps Python from importing from the current folder."""
    return [sys.executable, "-P", "-c", "from labkit.cli.main import main; main()", *arguments]


def labkit(stranger: tuple[Path, dict[str, str]], arguments: list[str]) -> subprocess.CompletedProcess:
    folder, environment = stranger
    return subprocess.run(command(arguments), cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


def answered_url(jupyterlab: subprocess.Popen, log: Path) -> str:
    """Wait for JupyterLab; return its URL on loopback. Fail with its log if it doesn't answer in time."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and jupyterlab.poll() is None:
        # The URL can stand in the log before a connection succeeds.
        if said := re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text()):
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", int(said[1]))):
                return said[0]
        time.sleep(0.2)
    raise AssertionError(f"JupyterLab does not answer:\n{log.read_text()}")
