"""Compare two executed notebooks with nbdime. Ignore the parts that differ between any two executions."""

import io
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from labkit.run_parameters import INJECTED, read_cells
from labkit.runs.fleet.table import NothingRan
from labkit.runs.fleet.workers import NO_EXTRA
from labkit.runs.notebook_run import normalize

TEXT = "text/plain"


def parameters(before: Path, after: Path) -> dict[str, tuple[object, object]]:
    """Return the parameters whose values differ between the two runs, each with the old and the new value.

    Raises `NothingRan` if a file isn't a notebook.
    """
    old, new = _given(_read(before)), _given(_read(after))
    return {name: (old.get(name), new.get(name)) for name in new if old.get(name) != new.get(name)}


def cells(before: Path, after: Path, *, colour: bool) -> str:
    """Return the cells and outputs that differ, as nbdime prints them; empty if nothing differs.

    Raises `NothingRan` if a file isn't a notebook, or if nbdime isn't installed.

    https://nbdime.readthedocs.io/en/latest/cli.html
    """
    if find_spec("nbdime") is None:
        raise NothingRan(NO_EXTRA)
    from nbdime import diff_notebooks
    from nbdime.prettyprint import PrettyPrintConfig, pretty_print_notebook_diff

    old, new = (_as_read(_read(file)) for file in (before, after))
    difference = diff_notebooks(old, new)
    if not difference:
        return ""
    printed = io.StringIO()
    pretty_print_notebook_diff(
        str(before), str(after), old, difference, PrettyPrintConfig(out=printed, use_color=colour, use_git=False)
    )
    return printed.getvalue().strip()


def _read(file: Path) -> NotebookNode:
    try:
        notebook = nbformat.read(file, as_version=4)
        nbformat.validate(notebook)
    except OSError as error:
        raise NothingRan(f"No notebook {file}: {error.strerror}.", next="ls runs/") from None
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError, KeyError):
        raise NothingRan(f"{file} is not a notebook.", next="labkit diff A.ipynb B.ipynb") from None
    return normalize(notebook)


def _given(notebook: NotebookNode) -> dict[str, object]:
    tags = ("parameters", "injected-parameters")
    return read_cells([cell.source for cell in notebook.cells if {*cell.metadata.get("tags", [])} & {*tags}], {})


def _as_read(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook without the content that the comparison ignores."""
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith(INJECTED)]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
                if TEXT in output.get("data", {}):
                    output["data"] = NotebookNode({TEXT: output["data"][TEXT]})
    return notebook
