"""Every terminal command in the notebooks, run in the order of the course in a lab that starts empty.

A box that changes something replaces the cell below it: a reader runs one of the two.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from labkit import simulator
from labkit.simulator import Folder, environment
from tests.notebooks.books import NAMES, REFUSED, boxes, changes, commands, fences, printed, read

# Programs that need more than the lab; their lines are for the reader's own machine.
NOT_OF_THE_LAB = ("terraform", "papermill", "jupyter", "make")
FINDS = re.compile(r"  # finds: ([\w-]+)$")  # the doctor then ends with exit code 1
# Which boxes replace their cells, counted from 0. In the first six notebooks a reader can choose at each step.
EVEN, ODD, ALL = (0,), (1,), (0, 1)
CHOSEN = [(number, chosen) for number in ("00", "01", "02", "03", "04", "05") for chosen in (EVEN, ODD)]
CHOSEN += [(number, ALL) for number in ("06", "07", "08", "09", "10", "11", "12", "13", "99")]


@pytest.fixture(scope="module")
def cleared(home):
    """The lab's folder after `labkit up` and the first notebook's first cell."""
    import labkit

    with labkit.Lab.open() as lab:
        lab.ready(before="oidc_provider")
    return home


@pytest.fixture
def terminal(cleared):
    """The environment of a terminal after `eval "$(labkit env)"`.

    99 ends the lab. If another program has taken its port since, the lab starts again at another one.
    """
    import labkit

    labkit.Lab.open().close()
    folder = Folder(cleared)
    state = simulator.State.read(folder)
    variables = environment.closed(os.environ) | environment.variables(folder, state.endpoint_url, state.region)
    return variables | {"PATH": environment.with_programs(os.environ["PATH"], Path(sys.executable).parent)}


@pytest.mark.kubectl
@pytest.mark.timeout(1800)
def test_terminal_commands_work_in_the_order_of_the_course(terminal, tmp_path, subtests):
    # One test, because each notebook's commands need the resources of the notebooks before.
    for name in NAMES:
        with subtests.test(name):
            work = tmp_path / name
            work.mkdir()
            check_lines(name, terminal, work)


def check_lines(name: str, terminal: dict[str, str], work: Path) -> None:
    with shell(terminal, work) as run:
        for cell in read(name).cells:
            # In a terminal, nothing tells a ticket: a reader opens the case in the notebook.
            for case in re.findall(r"lab\.case\(\d+\)", cell.source if cell.cell_type == "code" else ""):
                run(f'python -c "import labkit; labkit.Lab.open().{case[4:]}"')
            for box in boxes(cell):
                run(box)


@contextmanager
def shell(terminal: dict[str, str], work: Path) -> Iterator[Callable[[str], None]]:
    """Return a function that runs a box in one shell and judges its commands. Variables stay from box to box."""
    # The AWS CLI caches a role's credentials in the home folder. Another lab's are invalid here.
    variables = terminal | {"HOME": str(work)}
    with subprocess.Popen(["bash"], stdin=PIPE, stdout=PIPE, text=True, cwd=work, env=variables) as bash:
        said, written = work / "out", work / "err"
        assert bash.stdin and bash.stdout
        stdin, stdout = bash.stdin, bash.stdout

        def run(box: str) -> None:
            for command in commands(box):
                if command.split()[0] in NOT_OF_THE_LAB:
                    continue
                stdin.write(f"{{ {command}\n}} >{said} 2>{written} </dev/null; echo $?\n")
                stdin.flush()
                judge(command, stdout.readline().strip(), said.read_text(), written.read_text())

        yield run


def judge(command: str, code: str, answer: str, said: str) -> None:
    if refused := REFUSED.search(command):
        assert code != "0" and refused[1] in said, f"{command}\nwas to be refused ({refused[1]}): {code} {said}"
    elif finds := FINDS.search(command):
        assert code == "1" and finds[1] in answer, f"{command}\nwas to find {finds[1]}: {code} {answer} {said}"
    else:
        assert code == "0", f"{command}\n{said}"


@pytest.mark.kubectl
@pytest.mark.parametrize(("number", "chosen"), CHOSEN)
def test_a_reader_can_run_a_box_in_place_of_the_cell_below_it(number, chosen, terminal, tmp_path):
    (name,) = [name for name in NAMES if name.startswith(f"{number}-")]
    notebook, replaced, turn = read(name), False, -1
    client = NotebookClient(notebook, kernel_name="python3", timeout=120)
    with client.setup_kernel(), shell(terminal, tmp_path) as run:
        for index, cell in enumerate(notebook.cells):
            if boxes(cell):
                turn += changes(cell)
                replaced = changes(cell) and turn % 2 in chosen
                for box in boxes(cell) if replaced or not changes(cell) else []:
                    run(box)
            if cell.cell_type == "code":
                if not replaced:
                    stored = calls(cell)
                    client.execute_cell(cell, index)
                    assert calls(cell) == stored, f"{cell.id}: the box above changes what the cell's trail shows"
                replaced = False


def calls(cell: NotebookNode) -> list[str]:
    """The names of the newest calls, if the cell shows a number of them. (A trail of all calls grows with each box.)"""
    return re.findall(r"^([A-Z]\w+)  ", printed(cell), re.MULTILINE) if "last=" in cell.source else []


def test_the_irsa_notebook_has_no_terminal_command_for_the_lab():
    for box in fences(read("irsa.ipynb")):
        assert all(command.split()[0] in NOT_OF_THE_LAB for command in commands(box))
