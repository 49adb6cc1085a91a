"""`labkit diff` shows the changes between two runs of one row, but nothing that differs in any two runs."""

import importlib.util

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tests.commands import labkit


@pytest.fixture
def executed(tmp_path):
    def write(name: str, role: str, answer: str, count: int = 1):
        cells = [
            new_code_cell(
                'cluster = "blue"\nrole_name = "my-role"', metadata={"tags": ["parameters"]}, id="parameters"
            ),
            new_code_cell(f'# Parameters\nrole_name = "{role}"\n', metadata={"tags": ["injected-parameters"]}),
            new_code_cell("show()", id="show", execution_count=count, outputs=[new_output("stream", text=answer)]),
        ]
        metadata = {"papermill": {"start_time": f"2026-01-0{count}T00:00:00"}}
        nbformat.write(new_notebook(cells=cells, metadata=metadata), tmp_path / name)
        return tmp_path / name

    return write


def test_diff_finds_no_change_between_two_runs_with_the_same_answers(executed):
    done = labkit("diff", executed("a.ipynb", "reader", "ok\n", 1), executed("b.ipynb", "reader", "ok\n", 2))
    assert (done.returncode, done.stdout) == (0, "No cell and no output changed.\n")


def test_diff_shows_a_changed_parameter_and_a_changed_output(executed):
    done = labkit("diff", executed("a.ipynb", "reader", "ok\n"), executed("b.ipynb", "writer", "AccessDenied\n"))
    assert done.returncode == 1
    assert done.stdout.startswith('parameter role_name: "reader" → "writer"\n')
    assert "-      ok" in done.stdout and "+      AccessDenied" in done.stdout
    assert "# Parameters" not in done.stdout


def test_diff_shows_an_output_in_several_formats_once(executed):
    files = [executed("a.ipynb", "reader", ""), executed("b.ipynb", "reader", "")]
    for file, region in zip(files, ("eu-west-1", "us-east-1"), strict=True):
        notebook = nbformat.read(file, as_version=4)
        data = {"text/plain": f"found {region}", "text/html": f"<b>found {region}</b>", "application/json": [region]}
        notebook.cells[-1].outputs = [new_output("execute_result", data, execution_count=1)]
        nbformat.write(notebook, file)
    printed = labkit("diff", *files).stdout
    assert (printed.count("eu-west-1"), printed.count("us-east-1"), printed.count("<b>")) == (1, 1, 0)


def test_diff_reports_a_file_that_is_missing_or_not_a_notebook(executed, tmp_path):
    (tmp_path / "text.ipynb").write_text("text")
    for other, said in (("text.ipynb", "is not a notebook"), ("none.ipynb", "No such file")):
        done = labkit("diff", executed("a.ipynb", "reader", ""), tmp_path / other)
        assert done.returncode == 2
        assert said in done.stderr and "Traceback" not in done.stderr


def test_diff_without_the_fleet_packages_says_what_to_install(executed, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("labkit.runs.differences.find_spec", lambda name: None if name == "nbdime" else find_spec(name))
    notebook = executed("a.ipynb", "reader", "")
    assert labkit("diff", notebook, notebook).stderr == (
        'labkit: The commands fleet and diff need more packages: pip install "./labkit-….whl[fleet]"   '
        "(in a clone, build this file with: make wheel)\n"
    )
