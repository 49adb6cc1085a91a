"""How a notebook and the README become pages of the book."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from labkit.course import copies
from labkit.course.widgets import live

ROOT = Path(__file__).parent.parent.parent
FOR_PROGRAMS = "application/vnd.labkit."
WATCH = f"{FOR_PROGRAMS}watch+json"
REPORTS = ("<p><strong>", "<table>")
MANUAL = "notebooks/manual"
# A row of a table of pages: the README's table of notebooks, and the manual's contents.
ROW = r"^\| \[(?P<title>[^]]+)\]\((?P<page>[^)]+)\.%s\) \|"
CONTENTS = """

```{{toctree}}
:hidden:
:caption: {caption}

{pages}
```
"""


def for_readers(text: str) -> NotebookNode:
    """Return a notebook as the book shows it: its parameters are folded, and each solution is folded below its stub."""
    notebook = nbformat.reads(text, as_version=4)
    notebook.cells = [shown for cell in notebook.cells for shown in _shown(cell)]
    return notebook


def add_contents(_app: Any, page: str, source: list[str]) -> None:
    """Add the book's contents to the README, in the order of the tables. Every other page is left alone."""
    if page != "README":
        return
    course = [f"{row['title']} <{row['page']}>" for row in re.finditer(ROW % "ipynb", source[0], re.MULTILINE)]
    texts = sorted(f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.md"))
    source[0] += CONTENTS.format(caption="The course", pages="\n".join([*course, *texts]))
    index = (ROOT / MANUAL / "index.md").read_text(encoding="utf-8")
    manual = [f"{row['title']} <{MANUAL}/{row['page']}>" for row in re.finditer(ROW % "md", index, re.MULTILINE)]
    source[0] += CONTENTS.format(caption="The manual", pages="\n".join([f"{MANUAL}/index", *manual]))
    source[0] += CONTENTS.format(caption="The project", pages="CONTRIBUTING\nSECURITY\nCHANGELOG")


def _shown(cell: NotebookNode) -> list[NotebookNode]:
    for output in cell.get("outputs", []):
        _make_card(output)
        _record(output)
        _drop_data_for_programs(output)
    tags = cell.metadata.get("tags", [])
    if "parameters" in tags:
        return [_folded(cell, "Show the parameters")]
    if copies.EXAMINED in tags:
        return [_with(cell, source=copies.split(cell.source)[0])]
    if copies.TAG in tags:
        stub = _with(cell, id=f"{cell.id}-stub", source=copies.split(cell.source)[0], outputs=[])
        solved = copies.SOLUTION.sub(lambda found: found["solution"].rstrip("\n"), cell.source)
        return [stub, _folded(_with(cell, source=solved), "Solution")]
    return [cell]


def _make_card(output: NotebookNode) -> None:
    """Give a report of the lab the look that it has in a running notebook."""
    html = output.get("data", {}).get("text/html", "")
    if html.startswith(REPORTS):
        output.data["text/html"] = live.card(html)


def _record(output: NotebookNode) -> None:
    """Put the calls of `lab.watch()` below their table, for the script that shows them as a picture."""
    if calls := output.get("data", {}).get(WATCH):
        text = json.dumps(calls).replace("<", "\\u003c")
        output.data["text/html"] += f'<script type="application/json" class="recorded">{text}</script>'


def _drop_data_for_programs(output: NotebookNode) -> None:
    """Drop data that no browser shows: Sphinx would warn about it. The same output also holds HTML or text."""
    for kind in [kind for kind in output.get("data", {}) if kind.startswith(FOR_PROGRAMS)]:
        del output.data[kind]


def _folded(cell: NotebookNode, title: str) -> NotebookNode:
    looks = {"code_prompt_show": title, "code_prompt_hide": title}
    return _with(cell, metadata=NotebookNode({"tags": ["hide-cell"], "mystnb": looks}))


def _with(cell: NotebookNode, **changed: Any) -> NotebookNode:
    return NotebookNode({**cell, **changed})
