"""Helpers that read and run the notebooks."""

import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

import labkit

REFUSED = re.compile(r"  # refused: ([\w ]+)$")
CHANGES = re.compile(
    r"\bkubectl (annotate|apply|create (?!token)|delete|label|patch|run)\b"
    r"|\baws [\w-]+ (add|attach|create|delete|detach|modify|put|remove|update)-"
    r"|\baws s3 (cp -|mb|rb)|\blabkit (break|mend)\b"
)

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [path.name for path in PATHS]


def read(name: str) -> NotebookNode:
    """Read a notebook. Raise `nbformat.ValidationError` if its format is invalid."""
    notebook = nbformat.read(FOLDER / name, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: NotebookNode) -> str:
    """All Markdown, a blank line between cells."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def fences(notebook: NotebookNode) -> list[str]:
    """The texts of the notebook's `bash` boxes, in order."""
    return [box for cell in notebook.cells for box in boxes(cell)]


def boxes(cell: NotebookNode) -> list[str]:
    """The texts of the `bash` boxes in a cell; empty for a code cell."""
    return text_boxes(cell.source) if cell.cell_type == "markdown" else []


def changes(cell: NotebookNode) -> bool:
    """Whether a box of this cell changes something in AWS or in the cluster."""
    lines = [line for box in boxes(cell) for line in commands(box)]
    return any(CHANGES.search(line) and not REFUSED.search(line) for line in lines)


def text_boxes(text: str) -> list[str]:
    """The texts of the `bash` boxes in a Markdown text."""
    return re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(fence: str) -> list[str]:
    """The commands of a box, each with its continued lines and its here-document."""
    found: list[str] = []
    open_until: str | None = None
    for line in fence.splitlines():
        continues = bool(found) and (open_until is not None or found[-1].endswith("\\"))
        if continues:
            found[-1] += "\n" + line
        elif line.strip() and not line.startswith("#"):
            found.append(line)
        if open_until is not None:
            open_until = None if line == open_until else open_until
        elif document := re.search(r"<<'?(\w+)'?$", line):
            open_until = document[1]
    return found


def printed(cell: NotebookNode) -> str:
    """Everything in a code cell's stored outputs, in each of their forms."""
    parts = []
    for output in cell.outputs:
        parts += [str(output.get("text", "")), *(str(value) for value in output.get("data", {}).values())]
    return "\n".join(parts)


def executed(name: str, folder: Path) -> str:
    """Run a notebook; return its text as it would be stored."""
    return labkit.run(FOLDER / name, folder / name, skips=False).output.read_text()


def outputs(text: str) -> list[tuple[str, list[NotebookNode]]]:
    """The id and the outputs of each code cell of a notebook's text."""
    return [(cell.id, cell.outputs) for cell in code(nbformat.reads(text, as_version=4))]
