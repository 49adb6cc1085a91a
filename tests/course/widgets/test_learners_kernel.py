"""The kernel that `labkit lab` starts: errors are short before the lab is open, too; a slow cell says what it does."""

from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from labkit import showing
from labkit.cli import learning

# The block ends once its line is printed.
SLOW = """import builtins
import threading

from labkit import showing

said = threading.Event()
showing.print = lambda *text, **more: (builtins.print(*text, **more), said.set())
showing.PATIENCE = 0
with showing.doing("Making the IAM role"):
    print(said.wait(30))"""
# The cell ends once the running line is printed.
SLOW_LINE = """step = "the exchange"

print(step, said.wait(30))"""
PATIENCE = """showing.PATIENCE = 600
showing.LINES_PATIENCE = 0"""
QUICK = """showing.PATIENCE = 600
with showing.doing("Making the IAM role"):
    print("made")"""


@pytest.fixture
def run(home, monkeypatch):
    """Run cells in the kernel that JupyterLab starts for a learner; return each cell's outputs."""
    monkeypatch.setenv("JUPYTER_PATH", str(learning.SETTINGS))

    def outputs(*sources):
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        NotebookClient(book, allow_errors=True, kernel_name="python3", coalesce_streams=True).execute()
        return [cell.outputs for cell in book.cells]

    return outputs


def test_a_cell_run_before_the_opening_cell_gets_a_short_error(run):
    ((output,),) = run("lab.check('pod')")
    assert output.output_type == "error" and output.ename == "NameError"
    assert output.traceback[0] == "NameError: name 'lab' is not defined"
    assert output.traceback[-1].startswith("next:  run the cells above this one first")


def test_an_error_in_the_learner_s_own_code_shows_its_line(run):
    ((output,),) = run('{}["StringEquals"]')
    assert output.ename == "KeyError"
    assert output.traceback[1] == 'where: In[1], line 1:  {}["StringEquals"]'


def test_a_slow_cell_prints_its_current_action(run, monkeypatch):
    monkeypatch.setenv(showing.LIVE, "1")
    slow, quick = run(SLOW, QUICK)
    assert "".join(output.text for output in slow) == "Making the IAM role …\nTrue\n"
    assert [output.text for output in quick] == ["made\n"]


def test_a_slow_cell_without_an_action_prints_its_running_line(run, monkeypatch):
    monkeypatch.setenv(showing.LIVE, "1")
    *_, slow, quick = run(SLOW, "said.clear()", PATIENCE, SLOW_LINE, "showing.LINES_PATIENCE = 600\nprint('made')")
    assert (
        "".join(output.text for output in slow) == "Running line 3:  print(step, said.wait(30)) …\nthe exchange True\n"
    )
    assert [output.text for output in quick] == ["made\n"]


def test_a_cell_that_has_printed_its_action_shows_no_code_line(run, monkeypatch):
    monkeypatch.setenv(showing.LIVE, "1")
    told = 'assert not showing.has_said()\nshowing.say("Asking")\nassert showing.has_said()'
    ((output,),) = run("from labkit import showing", told, "assert not showing.has_said()")[1:2]
    assert output.text == "Asking …\n"


def test_a_slow_cell_s_action_is_written_in_one_piece(monkeypatch):
    written = []
    monkeypatch.setattr("sys.stdout", SimpleNamespace(write=written.append, flush=lambda: None))
    showing.say("Making the IAM role")
    assert [each for each in written if each] == ["Making the IAM role …\n"]


def test_a_slow_cell_prints_no_action_where_outputs_are_compared(run):
    (output,) = run(
        'from labkit import showing\nshowing.PATIENCE = 0\nwith showing.doing("Making"):\n    print("made")'
    )
    assert [each.text for each in output] == ["made\n"]
