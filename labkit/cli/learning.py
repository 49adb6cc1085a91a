"""`labkit lab`: copy the notebooks to ./learn/, and open JupyterLab there."""

import itertools
import json
import os
import socket
import sys
import webbrowser
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode, urlsplit

import typer

from labkit.cli.commands import command
from labkit.cli.given import Given, named
from labkit.cli.lab import variables
from labkit.cli.up import start
from labkit.course import NOTEBOOKS, contents, renumbering
from labkit.course import progress as progress_of
from labkit.errors import LabError
from labkit.showing import LIVE
from labkit.simulator import environment

FIRST = "00-the-problem.ipynb"
LEARN = "learn"
LAYOUTS = ".layouts"  # JupyterLab's layouts for the copies; other folders keep theirs
LAYOUT = "default-37a8.jupyterlab-workspace"  # the name that JupyterLab gives to the layout `default`
PICTURES = "pictures"  # the folder of the pictures, beside the notebooks
# Settings without the parts that call the internet (the news, the extension manager), and without those that delay
# the first page (language servers, nbdime's buttons, the check of JupyterLab's own build). The kernel is the
# environment's own, and loads `labkit.course.widgets.kernel`.
SETTINGS = Path(__file__).parent / "jupyter"
# A read-only extension manager, because the other one loads an HTTP client. And the seconds after which Jupyter kills a
# kernel that doesn't end.
OPTIONS = ["--LabApp.extension_manager=readonly", "--KernelManager.shutdown_wait_time=3"]


def lab(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[JUPYTERLAB_OPTION]", help="Options for JupyterLab, such as --no-browser or --port=9000."
        ),
    ] = None,
    fresh: Annotated[
        str, typer.Option(metavar="NUMBER", help="The number of a notebook to start over, such as 02.")
    ] = "",
) -> None:
    """Start the lab and open JupyterLab on your copies of the notebooks, in ./learn/."""
    here = _folder()
    running = _running(here)
    opened = contents.NAME
    if fresh:
        opened, message = put_aside(here / LEARN, fresh)
        typer.echo(message)
    # The lab's server starts while the notebooks are copied.
    with ThreadPoolExecutor(1) as thread:
        copying = thread.submit(copy_notebooks, here / LEARN, with_contents=not running)
        _, _, note = start("blue", "us-east-1")
    made = copying.result()
    typer.echo(f"Copied to {LEARN}/: {', '.join(made)}." if made else f"{LEARN}/ has your notebooks already.")
    if note:
        typer.echo(note)
    if running:
        address = f"{running['url']}lab/tree/{LEARN}/{opened}?{urlencode({'token': running['token']})}"
        reload = (
            "If a tab still shows the old notebook: File, Reload Notebook from Disk; then Kernel, Restart Kernel.\n"
        )
        typer.echo(
            f"JupyterLab runs in this folder already:\n  {address}\n{reload if fresh else ''}"
            "To start it with other options, first end it: Ctrl-C in its terminal, or File, Shut Down."
        )
        if "--no-browser" not in (arguments or []):
            webbrowser.open(address)
        return
    typer.echo(
        f"The lab is up, and JupyterLab starts now. Ctrl-C ends JupyterLab; `{command()} down` ends the lab.\n"
        f"Next:  follow the first link on the page that opens, {contents.NAME}.\n"
        "Terminals in JupyterLab already use the lab. In any other terminal, first run\n"
        f'  eval "$({command()} env)"'
    )
    # https://docs.jupyter.org/en/latest/use/jupyter-directories.html
    leading = {
        name: os.pathsep.join([str(SETTINGS), *filter(None, [os.environ.get(name)])])
        for name in ("JUPYTER_CONFIG_PATH", "JUPYTER_PATH")
    }
    own = {
        **leading,
        progress_of.VARIABLE: str(here / LEARN / progress_of.NAME),
        LIVE: "1",
    }
    closed_environment = environment.closed(os.environ) | variables() | own
    # Without this, Jupyter refuses to run as root, the only user in most containers.
    root = ["--allow-root"] if os.geteuid() == 0 else []
    # Without this, a JupyterLab that no terminal started opens login shells, in which /etc/profile replaces PATH.
    shell = f"--ServerApp.terminado_settings=shell_command={os.environ.get('SHELL') or 'sh'}"
    # With this option, the printed address also leads to the contents page, for a browser on another machine.
    page = f"--LabApp.default_url=/lab/tree/{LEARN}/{contents.NAME}"
    file = str(here / LEARN / contents.NAME)
    layouts = f"--LabApp.workspaces_dir={here / LEARN / LAYOUTS}"
    options = [f"--ServerApp.root_dir={here}", shell, page, layouts, *OPTIONS, *root, *(arguments or []), file]
    sys.stdout.flush()
    # JupyterLab replaces this process, so that only JupyterLab gets Ctrl-C. -P: no file in this folder hides a library.
    os.execve(sys.executable, [sys.executable, "-P", "-m", "labkit.cli.jupyterlab", *options], closed_environment)  # noqa: S606


def progress() -> None:
    """Print your progress in learn/: the steps, exercises, hints and questions that you have done so far."""
    file = _folder() / LEARN / progress_of.NAME
    if not file.is_file():
        raise LabError("No progress is saved yet.", where=str(file), next="labkit lab, and check a step in a notebook")
    typer.echo(repr(progress_of.read(file)))


def checklist(parameter: Given = None) -> None:
    """Print a page to take along, in Markdown: the steps on your own cluster, with your names and what you've done."""
    from labkit.course import checklist as page
    from labkit.run_parameters import Parameters

    typer.echo(page.markdown(Parameters.checked(**named(parameter)), _folder() / LEARN / progress_of.NAME))


def _folder() -> Path:
    """Return the parent folder of `learn/`, even if the current folder is `learn/`."""
    here = Path.cwd()
    return here.parent if here.name == LEARN and (here / FIRST).is_file() else here


def _running(here: Path) -> dict[str, str] | None:
    """Return the contents of Jupyter's runtime file of the JupyterLab that `labkit lab` started in `here`."""
    from jupyter_core.paths import jupyter_runtime_dir

    # Jupyter's own function for these files imports the whole server.
    for file in Path(jupyter_runtime_dir()).glob("jpserver-*.json"):
        with suppress(OSError, ValueError):
            server: dict[str, str] = json.loads(file.read_text())
            address = urlsplit(server.get("url", ""))
            # Try the address, because a killed server leaves its file behind.
            if server.get("labkit") == str(here) and address.hostname and address.port:
                socket.create_connection((address.hostname, address.port), timeout=3).close()
                return server
    return None


def put_aside(learn: Path, number: str) -> tuple[str, str]:
    """Rename the learner's copy of the notebook with this number, so that `copy_notebooks` makes a new copy.

    Return the notebook's name, and a sentence with the old copy's new name. Raises `LabError` unless `number` matches
    exactly one copy.
    """
    copies = [path for path in learn.glob(f"{number}*.ipynb") if (NOTEBOOKS / path.name).exists()]
    if len(copies) != 1:
        known = sorted(path.stem for path in learn.glob("*.ipynb") if (NOTEBOOKS / path.name).exists())
        raise LabError(
            f"{number!r} does not name exactly one notebook in {LEARN}/.",
            where=f"{LEARN}/ has {', '.join(known) or 'no notebooks'}",
            next=f"labkit lab --fresh {known[0].partition('-')[0]}" if known else "labkit lab",
        )
    (copy,) = copies
    aside = next(
        name for n in itertools.count(1) if not (name := copy.with_name(f"{copy.stem}.before-{n}.ipynb")).exists()
    )
    copy.rename(aside)
    return copy.name, f"Your {copy.name} is now {LEARN}/{aside.name}."


def copy_notebooks(learn: Path, *, with_contents: bool = True) -> list[str]:
    """Copy each notebook that is missing in `learn`, with empty exercises. Return the names of the new copies.

    Copy the notebooks' pictures and linked pages, too, and write this version's manual. Pass `with_contents=False` if a
    browser may have the contents page open. An existing contents page then stays.

    Raises `LabError` if the notebooks aren't installed, or if no files can be written in `learn`.
    """
    originals = sorted(NOTEBOOKS.glob("*.ipynb"))
    if FIRST not in [original.name for original in originals]:
        raise LabError(
            f"This installation of labkit has no notebook {FIRST}.",
            where=str(NOTEBOOKS),
            next="pip install --force-reinstall --no-deps ./labkit-….whl   "
            "(in a clone, build this file with: make wheel)",
        )
    try:
        learn.mkdir(exist_ok=True)
        if renumbering.carry_over(learn):
            typer.echo(
                "The notebooks from 06 on have new numbers. Yours have them too, with your answers and your progress; "
                f"{LEARN}/{renumbering.ASIDE}/ has your files unchanged."
            )
        missing = [original for original in originals if not (learn / original.name).exists()]
        (learn / PICTURES).mkdir(exist_ok=True)
        for file in (*(NOTEBOOKS / PICTURES).glob("*.svg"), *NOTEBOOKS.glob("*.md")):
            copied = learn / file.relative_to(NOTEBOOKS)
            if not copied.exists():
                _write(copied, file.read_bytes())
        (learn / contents.MANUAL).mkdir(exist_ok=True)
        for page in (NOTEBOOKS / contents.MANUAL).glob("*.md"):
            text = contents.relinked(page.read_text(encoding="utf-8"), page.parent)
            _write(learn / contents.MANUAL / page.name, text.encode())
        for original in missing:
            _write(learn / original.name, _copied(original).encode())
        if with_contents or not (learn / contents.NAME).exists():
            _write(learn / contents.NAME, contents.page(learn / progress_of.NAME).encode())
        layout = learn / LAYOUTS / LAYOUT
        if not layout.exists():
            layout.parent.mkdir(exist_ok=True)
            _write(layout, json.dumps(_opened(f"{LEARN}/{contents.NAME}")).encode())
    except OSError as error:
        raise LabError(
            f"The notebooks could not be copied to {learn}: {error.strerror}.",
            next="run `labkit lab` in a folder where you can write",
        ) from error
    return [original.stem for original in missing]


def _copied(original: Path) -> str:
    # Imported here, so that a learner without missing copies needn't wait for it.
    import nbformat

    from labkit.course import copies

    made: str = nbformat.writes(copies.copy(nbformat.read(original, as_version=4)))
    return made


def _opened(page: str) -> dict[str, object]:
    """Return a JupyterLab layout in which `page` is open.

    JupyterLab opens a page sooner from a layout than from a URL.

    https://jupyterlab.readthedocs.io/en/stable/user/workspaces.html
    """
    opened = f"notebook:{page}"
    dock = {"type": "tab-area", "currentIndex": 0, "widgets": [opened]}
    files = {"collapsed": False, "visible": True, "current": "filebrowser", "widgets": ["filebrowser"]}
    return {
        "data": {
            "layout-restorer:data": {
                "main": {"dock": dock, "current": opened},
                "left": files,
                "relativeSizes": [0.2, 0.8, 0],
            },
            "file-browser-filebrowser:cwd": {"path": LEARN},
            opened: {"data": {"path": page, "factory": "Notebook"}},
        },
        "metadata": {"id": "default"},
    }


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.part")  # so that a full disk leaves no half file
    draft.write_bytes(content)
    draft.replace(path)
