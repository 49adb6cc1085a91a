"""The learner's copy of a notebook: a stub where the answer was, no outputs, and every cell runs unsolved."""

import re

import nbformat
import pytest
from ipykernel.ipkernel import IPythonKernel
from nbformat import NotebookNode

import labkit
from labkit.course import copies, exercises, lessons
from tests.conftest import emptied
from tests.notebooks.books import FOLDER, NAMES, code, read

WITH_EXERCISES = [name for name in NAMES if re.split(r"\W", name)[0] in lessons.FILES and exercises.of_notebook(name)]
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


@pytest.fixture(scope="module")
def copied() -> dict[str, NotebookNode]:
    return {name: copies.copy(read(name)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_learner_s_copy_has_no_outputs_and_no_answers(copied, name):
    nbformat.validate(copied[name])
    for cell in code(copied[name]):
        assert (cell.outputs, cell.execution_count) == ([], None)
        assert "SOLUTION" not in cell.source


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_names_the_kernel_s_language_so_that_jupyterlab_adds_nothing(copied, name):
    assert copied[name].metadata.language_info == IPythonKernel.language_info
    assert copied[name].metadata.kernelspec == KERNELSPEC


@pytest.mark.parametrize("name", WITH_EXERCISES)
def test_each_exercise_is_opened_attempted_and_judged_in_its_notebook(copied, name):
    sources = [cell.source for cell in code(copied[name])]
    for exercise in exercises.of_notebook(name):
        assert sum(f'lab.exercise("{exercise.id}")' in source for source in sources) == 1
        (attempt,) = [source for source in sources if f'lab.check("{exercise.id}")' in source]
        assert "# Your code here.\n..." in attempt.replace("    ", "")


@pytest.mark.parametrize("name", WITH_EXERCISES)
def test_every_cell_of_an_unsolved_copy_runs_in_an_empty_lab(home, tmp_path, copied, name):
    emptied(home)
    unsolved = tmp_path / name
    nbformat.write(copied[name], unsolved)
    done = labkit.run(unsolved, tmp_path / "out.ipynb", skips=False)
    judged = {check["step"]: check["ok"] for check in done.checks if "-" in check["step"]}
    assert judged == {exercise.id: False for exercise in exercises.of_notebook(name)}


def test_copying_raises_if_a_solution_is_not_marked():
    cell = nbformat.v4.new_code_cell("lab.check('02-a')", metadata={"tags": [copies.TAG]})
    with pytest.raises(ValueError, match="no solution between"):
        copies.copy(nbformat.v4.new_notebook(cells=[cell]))


def test_copying_does_not_change_the_original_notebook():
    before = nbformat.read(FOLDER / NAMES[0], as_version=4)
    after = nbformat.read(FOLDER / NAMES[0], as_version=4)
    copies.copy(after)
    assert after == before


@pytest.mark.parametrize("name", WITH_EXERCISES)
def test_the_variable_of_an_exercise_is_used_for_nothing_else(name):
    """On EKS, for example, exercises are refused. An attempt must then not find another cell's variable."""
    opening = [cell.source for cell in code(read(name)) if "lab.exercise(" in cell.source]
    variables = {each for source in opening for each in re.findall(r"^(.+) = lab\.exercise\(", source, re.MULTILINE)}
    assert len(variables) == 1
    others = "\n".join(cell.source for cell in code(read(name)) if cell.source not in opening)
    assert not re.search(rf"\b(for|as|def) {variables.copy().pop()}\b|\b{variables.pop()} = ", others)
