"""The learner's copy of a notebook: without outputs, and with a stub in place of each solution.

The solution is folded below the stub. Links lead to pages of learn/.

In a code cell with the tag `exercise`, the solution is between nbgrader's two comments:
https://nbgrader.readthedocs.io/en/stable/user_guide/creating_and_grading_assignments.html
"""

import re

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from labkit.course import contents

TAG = "exercise"
# For a cell with this tag, the copy has the stub, but no solution.
EXAMINED = "examination"
SOLUTION = re.compile(r"^(?P<indent>[ ]*)### BEGIN SOLUTION\n(?P<solution>.*?)^[ ]*### END SOLUTION$", re.M | re.S)
STUB = r"\g<indent># Your code here.\n\g<indent>..."


def copy(notebook: NotebookNode) -> NotebookNode:
    """Return the learner's copy of a notebook.

    Raises `ValueError` if a cell with the tag `exercise` or `examination` has no solution.
    """
    made: NotebookNode = nbformat.from_dict(
        {**notebook, "metadata": {**notebook.metadata, **contents.METADATA}, "cells": []}
    )
    for original in notebook.cells:
        cell = NotebookNode(original)
        made.cells.append(cell)
        if cell.cell_type != "code":
            cell.source = contents.relinked(cell.source)
            continue
        cell.update(outputs=[], execution_count=None)
        tags = cell.metadata.get("tags", [])
        if TAG not in tags and EXAMINED not in tags:
            continue
        cell.source, solution = split(original.source)
        if EXAMINED in tags:
            continue
        made.cells.append(new_markdown_cell(_folded(solution), id=f"{cell.id}-solution"))
    return made


def split(source: str) -> tuple[str, str]:
    """Return two texts: an exercise's cell with `# Your code here.` in place of the solution, and the solution.

    Raises `ValueError` if the cell has no solution.
    """
    solutions = [match["solution"].rstrip("\n") for match in SOLUTION.finditer(source)]
    if not solutions:
        raise ValueError(f"no solution between ### BEGIN SOLUTION and ### END SOLUTION in:\n{source}")
    return SOLUTION.sub(STUB, source), "\n".join(solutions)


def _folded(solution: str) -> str:
    return f"<details><summary>Solution</summary>\n\n```python\n{solution}\n```\n\n</details>"
