"""Notebooks executed through papermill: checks and answers, the same bytes in each run, and cells that fail."""

import os
import shlex
import subprocess
from inspect import cleandoc
from pathlib import Path

import nbformat
import pytest
import typer
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill import iorw

from labkit import runs
from labkit.cli.main import app
from labkit.errors import LabError, UnknownName
from labkit.run_parameters import InvalidParameter
from tests.commands import LABKIT, labkit

CHECK = """
from labkit.course.widgets.check import Check
from labkit.doctor.checks import Comparison
Check("pod", "the pod", [Comparison("pod", "Running", "Running")], [])
"""
SHOW = """
from labkit.showing import show
import os
show(os.environ.get("AWS_PROFILE", "no profile") + " " + str(labkit.parameters()["cluster"]), command="aws s3 ls")
"""


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    def write(*sources: str) -> Path:
        parameters = new_code_cell('target = "moto"\ncluster = "blue"', metadata={"tags": ["parameters"]})
        cells = [parameters, *(new_code_cell(source) for source in sources)]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        for number, cell in enumerate(cells):
            cell["id"] = f"cell-{number}"
        nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "in.ipynb")
        return tmp_path / "in.ipynb"

    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / ".lab"))
    return write


def test_a_run_returns_checks_and_answers_and_writes_the_same_bytes_twice(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "of-this-machine")
    source = notebook("import labkit", CHECK, SHOW, "import ipywidgets; ipywidgets.HTML('<b>x</b>')")
    first, second = (
        runs.run(source, tmp_path / folder / "out.ipynb", {"cluster": "green"}) for folder in ("first", "second")
    )
    assert first.ok
    assert [check["step"] for check in first.checks] == ["pod"]
    assert first.answers == [{"command": "aws s3 ls", "answer": "no profile green"}]
    assert first.output.read_bytes() == second.output.read_bytes()
    assert os.environ["AWS_PROFILE"] == "of-this-machine"


def test_while_a_cell_runs_the_file_has_the_outputs_before_it(notebook, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(iorw.LocalHandler, "write", lambda _, text, path: saved.append(Path(path).write_text(text)))
    source = notebook("print('kept')", f"import shutil; shutil.copy({str(tmp_path / 'out.ipynb')!r}, 'seen.ipynb')")
    with_text = nbformat.read(source, as_version=4)
    with_text.cells += [new_markdown_cell("Read this.", id=f"text-{number}") for number in range(20)]
    nbformat.write(with_text, source)
    monkeypatch.chdir(tmp_path)
    runs.run(source, tmp_path / "out.ipynb")
    seen = nbformat.read("seen.ipynb", as_version=4).cells
    assert [cell.metadata.papermill["status"] for cell in seen[1:3]] == ["completed", "running"]
    assert [output.text for output in seen[1].outputs] == ["kept\n"]
    assert len(saved) <= 3 + 3, "at the start, before each code cell, at the end"


def test_an_unusable_output_folder_is_reported_before_the_lab_starts(notebook, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(LabError, match="The executed notebook cannot be written to") as refusal:
        runs.run(notebook(CHECK), tmp_path / "runs" / "out.ipynb")
    assert "--output FILE" in refusal.value.next
    assert not (tmp_path / ".lab").exists()


def test_a_failing_cell_is_named_and_the_notebook_is_still_written(notebook, tmp_path):
    source = notebook(CHECK, "from labkit.errors import LabError\nraise LabError('no role', next='lab.diagnose()')")
    with pytest.raises(runs.RunFailed) as failure:
        runs.run(source, tmp_path / "out.ipynb")
    assert failure.value.what == "LabError: no role"
    assert failure.value.next == "lab.diagnose()"
    assert failure.value.where.endswith("In [3]: from labkit.errors import LabError")
    assert len(failure.value.run.checks) == 1
    (error,) = [
        output
        for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    ]
    assert error.traceback == ["LabError: no role\nnext:  lab.diagnose()"]


def test_a_failing_cells_error_says_only_once_what_to_do_next(notebook, tmp_path):
    refusal = "LabError('no role', where='the account', next='aws configure')"
    source = notebook(f"from labkit.errors import LabError\nraise {refusal}")
    with pytest.raises(runs.RunFailed) as failure:
        runs.run(source, tmp_path / "out.ipynb")
    assert str(failure.value).splitlines() == [
        "LabError: no role",
        "where: the account",
        f"       {tmp_path / 'out.ipynb'}, In [2]: from labkit.errors import LabError",
        "next:  aws configure",
    ]


def test_wrong_parameters_are_refused_before_anything_is_written(notebook, tmp_path):
    source = notebook()
    with pytest.raises(UnknownName, match="Did you mean 'cluster'"):
        runs.run(source, tmp_path / "out.ipynb", {"clutser": "green"})
    with pytest.raises(InvalidParameter, match="parameter namespace = 'A_B'"):
        runs.run(source, tmp_path / "out.ipynb", {"namespace": "A_B"})
    assert not (tmp_path / "out.ipynb").exists()


def test_ctrl_c_gives_one_sentence_and_the_command_that_removes_the_run(notebook, tmp_path):
    # The kernel's parent is `labkit run`, which gets the signal of a terminal's Ctrl-C.
    source = notebook("import os, signal\nos.kill(os.getppid(), signal.SIGINT)\nsignal.pause()")
    command = [LABKIT, "run", source, "--output", tmp_path / "out.ipynb"]
    done = subprocess.run([*command, "-pcluster=green"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 130
    assert done.stderr.startswith("labkit: The run was interrupted")
    assert "tag labkit:run=green/default/my-service-account/my-role" in done.stderr
    assert "labkit remove -p cluster=green " in done.stderr
    assert "Traceback" not in done.stderr
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert executed.metadata.keys() <= {"kernelspec", "language_info"}
    assert executed.cells[0].execution_count == 1


def test_every_wrong_parameter_of_file_and_command_line_is_named_before_a_kernel_starts(notebook, tmp_path):
    (tmp_path / "parameters.yaml").write_text("clutser: green\nnamespace: Team_A\nbucket: [a, b]\nrole_name: file\n")
    given = ["-f", tmp_path / "parameters.yaml", "-p", "rolename=x", "-p", "role_name=no/slash"]
    done = labkit("run", notebook("1"), *given, cwd=tmp_path)
    assert done.returncode == 1
    for said in (
        "'clutser' is not a parameter of the lab. Did you mean 'cluster'?",
        "'rolename' is not a parameter of the lab. Did you mean 'role_name'?",
        "parameter namespace = 'Team_A' breaks its rule: a DNS-1123 label",
        "parameter bucket = ['a', 'b'] breaks its rule: text, not list",
        "parameter role_name = 'no/slash' breaks its rule",
    ):
        assert said in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [("- a\n", "does not have one NAME: VALUE on each line"), ("a: [", "is not YAML"), (None, "No such file")],
)
def test_an_invalid_or_missing_parameters_file_is_refused(notebook, tmp_path, text, said):
    file = tmp_path / "parameters.yaml"
    if text is not None:
        file.write_text(text)
    done = labkit("run", notebook("1"), "-f", file, cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert said in done.stderr and f"where: {file}" in done.stderr


def test_a_failing_cell_is_shown_whole_with_its_error_and_the_doctor(notebook, tmp_path):
    (tmp_path / "parameters.yaml").write_text("account_id: 012345670123\n")
    cell = "import labkit\nfound = labkit.parameters()['account_id']\nraise ValueError('account ' + found)"
    done = labkit("run", notebook(cell), "-f", tmp_path / "parameters.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "\n".join(f"    {line}" for line in cell.splitlines()) in done.stdout
    assert "The doctor could not look: parameter account_id = '012345670123': the account of" in done.stdout
    assert done.stderr.startswith("labkit: ValueError: account 012345670123")


def test_an_invalid_notebook_and_a_missing_kernel_are_reported(notebook, tmp_path):
    text = tmp_path / "a text; echo.ipynb"
    text.write_text("no notebook")
    with pytest.raises(LabError, match="is not a notebook") as refused:
        runs.run(text, tmp_path / "out.ipynb")
    # In quotes, so that a shell reads it as one name.
    assert refused.value.next == f"jupyter lab '{text}'"
    source = notebook("1")
    source.write_text(source.read_text().replace('"python3"', '"python2.7"'))
    with pytest.raises(LabError, match=r"kernel 'python2\.7' is not installed"):
        runs.run(source, tmp_path / "out.ipynb")


def test_a_low_limit_of_open_files_is_reported_before_a_kernel_starts(notebook, tmp_path):
    command = ["sh", "-c", f"ulimit -n 60; {LABKIT} run {notebook('1')}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 1
    told, where, then = done.stderr.splitlines()
    assert told == "labkit: A process may have 60 open files here, and a notebook's run needs 128."
    assert (where, then[:22]) == ("where: ulimit -Hn", "next:  ulimit -n 1024 ")
    assert not [*tmp_path.glob("runs/in/*")]


def test_a_terminal_shows_a_progress_bar_that_moves_with_each_cell(notebook, tmp_path):
    pexpect = pytest.importorskip("pexpect")
    shown = pexpect.spawn(str(LABKIT), ["run", str(notebook("1"))], cwd=tmp_path, timeout=120)
    shown.expect("Executing: +50%.*1/2")
    shown.expect(pexpect.EOF)


def test_a_run_with_the_longest_names_gets_an_output_file(notebook, tmp_path):
    names = {"cluster": "c" * 100, "namespace": "n" * 63, "role_name": "r" * 64}
    command = [LABKIT, "run", notebook("1")]
    given = [f"-p{name}={value}" for name, value in names.items()]
    done = subprocess.run([*command, *given], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len([*tmp_path.glob("runs/in/*.ipynb")]) == 1
    # This notebook has opened no lab.
    assert "keeps running" not in done.stdout


def test_a_missing_notebook_is_refused_with_the_command_that_lists_them(tmp_path):
    with pytest.raises(LabError, match="No notebook") as refused:
        runs.run(tmp_path / "none.ipynb", tmp_path / "out.ipynb")
    # The command has to work without a folder `notebooks/`, which a wheel does not have beside it.
    listed = subprocess.run(shlex.split(refused.value.next), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "irsa.ipynb" in listed.stdout


def test_a_misspelt_parameter_from_papermill_is_refused_in_the_notebook(notebook, tmp_path):
    import papermill
    from papermill.exceptions import PapermillExecutionError

    source = notebook("import labkit\nlabkit.parameters()")
    with pytest.raises(PapermillExecutionError, match="Did you mean 'role_name'"):
        papermill.execute_notebook(
            source, tmp_path / "out.ipynb", parameters={"rolename": "reader"}, progress_bar=False
        )


def test_refreshing_no_notebook_prints_the_usage(capsys):
    assert runs.main([]) == 2
    assert capsys.readouterr() == ("", "usage: python -m labkit.runs NOTEBOOK…\n")


def test_refreshing_stores_the_outputs_and_leaves_a_failed_notebook_unchanged(notebook, capsys):
    source = notebook("1 + 1")
    assert runs.main([str(source)]) == 0
    kept = source.read_bytes()
    assert b'"2"' in kept
    assert runs.main([str(source)]) == 0
    assert source.read_bytes() == kept
    source = notebook("1 / 0")
    before = source.read_bytes()
    assert runs.main([str(source)]) == 1
    assert "ZeroDivisionError: division by zero" in capsys.readouterr().out
    assert source.read_bytes() == before


def test_help_paragraphs_have_no_hard_line_breaks():
    # Typer keeps a docstring's line breaks after the first paragraph.
    commands = typer.main.get_command(app).commands.values()
    commands = [each for command in commands for each in getattr(command, "commands", {"": command}).values()]
    paragraphs = [(each.name, text) for each in commands for text in cleandoc(each.help).split("\n\n")[1:]]
    assert paragraphs and [(name, text) for name, text in paragraphs if "\n" in text] == []


@pytest.mark.parametrize("command", ["run", "fleet"])
def test_the_help_names_the_default_notebook_without_a_path_of_this_machine(command):
    said = " ".join(labkit(command, "--help", COLUMNS="200").stdout.split())
    assert "Without it: irsa.ipynb" in said
    assert "/notebooks" not in said
