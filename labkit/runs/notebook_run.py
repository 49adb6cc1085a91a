"""Run a notebook with papermill, and read the steps' checks and the pod's answers from the executed notebook."""

import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import nbformat
from nbformat import NotebookNode
from traitlets.config import Config

from labkit import course, showing, simulator, targets
from labkit.course import LIST_NOTEBOOKS
from labkit.errors import LabError
from labkit.run_parameters import Parameters

if TYPE_CHECKING:
    from labkit.connection import Connection
    from labkit.doctor import Diagnosis, Reads

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# Without this, a kernel warns in the terminal that its messages aren't encrypted (they stay on this machine), and
# complains when it's ended. A cell's own error doesn't need the log: it comes as a message.
QUIET = ["--IPKernelApp.log_level=CRITICAL"]
# Loading libraries makes hardly any garbage, but collecting it takes a fifth of a short notebook's processor time.
RARE_COLLECTION = ["--IPKernelApp.exec_lines=__import__('gc').set_threshold(100_000, 50, 50)"]
# A kernel with widgets and its clients has about 70 open files. A process that runs notebooks in turn has up to 91.
OPEN_FILES, FEWEST_OPEN_FILES = 1024, 128


@dataclass(frozen=True)
class Run:
    """An executed notebook, and the results in it."""

    output: Path
    """The executed notebook's file."""
    parameters: Parameters
    checks: list[dict[str, Any]] = field(default_factory=list)
    """The reports of the steps' checks, in order; see `labkit.course.widgets.check.Check.as_json`."""
    answers: list[dict[str, str]] = field(default_factory=list)
    """The commands that the notebook showed, with their answers: `{"command": …, "answer": …}`."""

    @property
    def ok(self) -> bool:
        """Whether all checks passed."""
        return all(check["ok"] for check in self.checks)


class RunFailed(LabError):
    """A cell failed. The executed notebook ends with this cell's error."""

    def __init__(self, what: str, run: Run, source: str, *, where: str = "", next: str = ""):
        super().__init__(what, where=where, next=next)
        self.run = run
        self.source = source
        """The failing cell's source."""


class Interrupted(LabError):
    """The run was interrupted before it ended. All resources that the run had created still exist."""

    exit_code = 130


def run(
    notebook: Path | str,
    output: Path | str,
    parameters: Mapping[str, object] | None = None,
    *,
    progress: bool = False,
    skips: bool = True,
) -> Run:
    """Execute a notebook with these parameters. Write the executed notebook to `output`, even if the run fails.

    With moto and kind, the kernel gets none of this machine's AWS and proxy variables. With `progress`, stderr shows a
    progress bar. Unless `skips` is false, the run skips each cell with the tag `skip-execution`, as papermill does.

    Raises:
        UnknownName, InvalidParameter: a parameter is wrong; nothing was made.
        LabError: the folder isn't writable, the file isn't a notebook, or its kernel isn't installed or doesn't start;
            nothing was made.
        RunFailed: a cell failed; `output` is written.
        Interrupted: the user pressed Ctrl-C, or the kernel ended; `output` is written.

    https://papermill.readthedocs.io/en/latest/usage-execute.html
    """
    notebook, output = Path(notebook), Path(output)
    validated = Parameters.checked(**parameters or {})
    _require_notebook(notebook)
    _make_folder(output.parent)
    simulator.allow_open_files(OPEN_FILES, fewest=FEWEST_OPEN_FILES, to="a notebook's run")
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from zmq import ZMQError

    # papermill warns of parameters that the notebook doesn't list. They are valid, as checked above.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    failure = None
    with _environment(targets.target(validated.target).environment(os.environ)), _sockets() as config:
        config.PapermillNotebookClient.skip_cells_with_tag = "skip-execution" if skips else ""
        try:
            papermill.execute_notebook(
                str(notebook),
                str(output),
                parameters=validated.given,
                progress_bar=progress,
                engine_name=_engine(),
                extra_arguments=[*QUIET, *RARE_COLLECTION],
                config=config,
            )
        except PapermillExecutionError as error:
            failure = error
        except NoSuchKernel as error:
            raise LabError(
                f"The kernel {error.name!r} is not installed.",
                where=f"{notebook}, its metadata",
                next="jupyter kernelspec list",
            ) from None
        except OSError as error:
            raise _unwritten(output, error) from error
        except (KeyboardInterrupt, DeadKernelError, ZMQError):
            # At Ctrl-C nbclient ends the kernel, and then raises one of these errors because the kernel is gone.
            raise _interrupted(output, validated) from None
        except RuntimeError as error:
            # jupyter_client has no class of its own for a kernel that ends before it answers, or never answers.
            if not str(error).startswith("Kernel "):
                raise
            raise LabError(
                f"The notebook's kernel did not start: {error}.",
                where=str(notebook),
                next="run the notebook again, because the machine may have been busy. To see the kernel's error:\n"
                "       python -m ipykernel_launcher",
            ) from None
        finally:
            executed = _tidied(output)
    if failure is not None and failure.ename == "KeyboardInterrupt":
        raise _interrupted(output, validated)
    done = read_run(executed, output, validated)
    if failure is not None:
        what, where, next_ = _parts(_without_colour(failure.evalue))
        cell = f"{output}, In [{failure.exec_count}]: {_first_line(failure.source)}"
        raise RunFailed(
            f"{failure.ename}: {what}",
            done,
            failure.source,
            where=f"{where}\n       {cell}" if where else cell,
            next=next_ or f"jupyter lab {quote(str(output))}",
        )
    return done


def examined(
    parameters: Parameters, connection: "Connection | None" = None, reads: "Reads | None" = None
) -> "Diagnosis":
    """Let the doctor examine a run's service account, and return its diagnosis. Changes nothing.

    For many runs in one cluster, pass the same `connection` and `reads`, so that no call is made twice.

    Raises `LabError` if the target can't be reached. Also raises `LabError` if the service account doesn't exist, and
    neither a pod nor a role names it.
    """
    from labkit.doctor import examine_run

    return examine_run(parameters, connection or targets.look(parameters), reads=reads)


def refresh(notebook: Path | str) -> Run:
    """Execute a notebook with its own parameters and store the outputs in the notebook's file.

    If a cell fails, raise `RunFailed`, and don't change the file.
    """
    notebook = Path(notebook)
    with tempfile.TemporaryDirectory() as folder:
        done = run(notebook, Path(folder) / notebook.name, skips=False)
        notebook.write_bytes(done.output.read_bytes())
    return replace(done, output=notebook)


def main(notebooks: Sequence[str]) -> int:
    """Refresh the outputs of each notebook, and return the exit code. `python -m labkit.runs NOTEBOOK…` calls this."""
    if not notebooks:
        print("usage: python -m labkit.runs NOTEBOOK…", file=sys.stderr)
        return 2
    for notebook in notebooks:
        print(f"{notebook} …", end=" ", flush=True)
        try:
            done = refresh(notebook)
        except LabError as error:
            print(f"failed\n{error}")
            return 1
        print(f"{len(done.checks)} checks, {len(done.answers)} answers")
    return 0


def read_run(executed: NotebookNode, output: Path, parameters: Parameters) -> Run:
    """Return the `Run` of an executed notebook."""
    data = [part["data"] for cell in executed.cells for part in cell.get("outputs", []) if "data" in part]
    return Run(
        output=output,
        parameters=parameters,
        checks=[bundle[course.CHECK_MIME] for bundle in data if course.CHECK_MIME in bundle],
        answers=[bundle[showing.MIME] for bundle in data if showing.MIME in bundle],
    )


def normalize(notebook: NotebookNode) -> NotebookNode:
    """Remove or replace the parts that differ between two executions.

    - Remove papermill's metadata, the widgets' metadata, the times of execution, the kernel's version and settings for
      editors.
    - Remove empty lists of tags, and the views of widgets in the outputs.
    - Join neighbouring outputs of one stream.
    - Replace the ids of the cells that papermill added, and each id that an earlier cell already has.

    Change the notebook in place, and return it.
    """
    for name in ("papermill", "widgets"):
        notebook.metadata.pop(name, None)
    # The kernel writes its version here, and settings for editors.
    if "language_info" in notebook.metadata:
        notebook.metadata["language_info"] = {"name": notebook.metadata["language_info"]["name"]}
    taken: set[str] = set()
    for number, cell in enumerate(notebook.cells):
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        if cell.metadata.get("tags") == []:  # papermill gives every cell a list of tags
            del cell.metadata["tags"]
        if "injected-parameters" in cell.metadata.get("tags", []) or _is_banner(cell) or cell.get("id", "") in taken:
            cell["id"] = f"papermill-{number}"
        taken.add(cell.get("id", ""))
        if "outputs" in cell:
            cell["outputs"] = _joined(cell["outputs"])
    return notebook


def _engine() -> str:
    """Register an engine that saves the notebook only before each code cell and at the end. Return the engine's name.

    papermill's own engine saves the whole notebook twice for each cell. That takes a tenth of a run's processor time.

    https://papermill.readthedocs.io/en/latest/extending-developing.html
    """
    from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines

    class Engine(NBClientEngine):  # type: ignore[misc]  # papermill has no types
        @classmethod
        def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, kernel_name: str, **given: object) -> None:
            start, complete = nb_man.cell_start, nb_man.cell_complete

            def without_saving(tell: Callable[..., None], *cell: object, **place: int) -> None:
                nb_man.save = lambda: None
                tell(*cell, **place)
                del nb_man.save

            def cell_start(cell: NotebookNode, index: int) -> None:
                if cell.cell_type == "code":
                    start(cell, index)
                else:
                    without_saving(start, cell, index)

            nb_man.cell_start = cell_start
            nb_man.cell_complete = partial(without_saving, complete)
            super().execute_managed_notebook(nb_man, kernel_name, **given)

    papermill_engines.register("labkit", Engine)
    return "labkit"


def _require_notebook(file: Path) -> None:
    if not file.is_file():
        raise LabError(f"No notebook {file}.", next=LIST_NOTEBOOKS)
    try:
        nbformat.validate(nbformat.read(file, as_version=4))
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError, KeyError) as error:
        reason = str(error).splitlines()[0][:200]
        raise LabError(
            f"{file} is not a notebook: {reason}", where="labkit.run", next=f"jupyter lab {quote(str(file))}"
        ) from None


def _tidied(output: Path) -> NotebookNode:
    try:
        executed = normalize(nbformat.read(output, as_version=4))
    except (OSError, nbformat.reader.NotJSONError):
        return NotebookNode(cells=[])  # the run ended before its first cell, or the disk is full
    try:
        nbformat.write(executed, output)
    except OSError as error:
        raise _unwritten(output, error) from error
    return executed


def _unwritten(output: Path, error: OSError) -> LabError:
    return LabError(
        f"The executed notebook could not be written: {error.strerror or error}.",
        where=str(output),
        next="make room on the disk, and run the notebook again",
    )


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring outputs of one stream, and drop the views of widgets that no longer exist."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last is not None and output.output_type == "stream" == last.output_type and output.name == last.name:
            last["text"] += output.text
            continue
        output.get("data", {}).pop(WIDGET_VIEW, None)
        joined.append(output)
    return joined


def _is_banner(cell: NotebookNode) -> bool:
    return any(tag.startswith("papermill-error-cell") for tag in cell.metadata.get("tags", []))


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    # papermill starts the kernel with the environment of its own process.
    with simulator.environment.restored():
        os.environ.clear()
        # Executed notebooks are stored and compared, so they have placeholders where a learner sees live values.
        os.environ.update({name: value for name, value in variables.items() if name != showing.LIVE})
        yield


@contextmanager
def _sockets() -> Iterator[Config]:
    """Yield settings for a kernel that talks over sockets in a private folder.

    With TCP ports, two kernels that start at the same time may get the same port.
    """
    with tempfile.TemporaryDirectory(prefix="labkit-") as folder:
        yield Config(KernelManager={"transport": "ipc", "ip": f"{folder}/kernel"})


def _make_folder(folder: Path) -> None:
    reason = f"The executed notebook cannot be written to {folder.absolute()}"
    next_ = "run the notebook in a folder where you can write, or write elsewhere:  labkit run --output FILE"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"{reason}: {error.strerror}.", next=next_) from error
    if not os.access(folder, os.W_OK):
        raise LabError(f"{reason}: the folder is read-only.", next=next_)


def _first_line(source: str) -> str:
    return next((line for line in source.splitlines() if line.strip() and not line.startswith("#")), "")


def _interrupted(output: Path, parameters: Parameters) -> Interrupted:
    given = parameters.given
    named = "".join(f" -p {quote(f'{name}={value}')}" for name, value in given.items() if name != "confirm")
    return Interrupted(
        "The run was interrupted, or its kernel ended. Everything that the run created until then still exists.",
        where=f"{output}; everything that the run created carries the tag labkit:run={parameters.run}",
        next=f"run the notebook again, or list what the run created:  labkit remove{named}   (--yes deletes it)",
    )


def _parts(text: str) -> tuple[str, str, str]:
    rest, _, next_ = text.partition("\nnext:  ")
    what, _, where = rest.partition("\nwhere: ")
    return what, where, next_


def _without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
