"""Every line that a notebook shows for a terminal, run in the order of the course in a lab that was empty before."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.emulator import environment, process
from labkit.emulator.folder import Folder
from tests.notebooks.books import NAMES, commands, fences, read

# Programs that need more than the lab; their lines are for the reader's own machine.
NOT_OF_THE_LAB = ("terraform", "papermill", "jupyter", "make", "eksctl")
REFUSED = re.compile(r"  # refused: (\w+)$")
FINDS = re.compile(r"  # finds: ([\w-]+)$")  # the doctor, which ends with 1 then


@pytest.fixture(scope="module")
def terminal(home):
    """The environment of a terminal after `labkit up`, the first notebook's first cell, and `eval "$(labkit env)"`."""
    import labkit

    with labkit.Lab.open() as lab:
        lab.ready(before="oidc_provider")
    folder = Folder(home)
    state = process.State.read(folder)
    variables = environment.closed(os.environ) | environment.variables(folder, state.endpoint_url, state.region)
    return variables | {"PATH": environment.with_programs(os.environ["PATH"], Path(sys.executable).parent)}


@pytest.mark.kubectl
@pytest.mark.timeout(1800)
def test_lines_for_a_terminal_work_in_the_order_of_the_course(terminal, tmp_path, subtests):
    # One test: each notebook's lines go on from what the notebooks before have made.
    for name in NAMES:
        with subtests.test(name):
            work = tmp_path / name
            work.mkdir()
            check_lines(name, terminal, work)


def check_lines(name: str, terminal: dict[str, str], work: Path) -> None:
    shown = [command for fence in fences(read(name)) for command in commands(fence)]
    run = [command for command in shown if command.split()[0] not in NOT_OF_THE_LAB]
    # One shell for all, since variables go from box to box; each command's answer and exit code in files of its own.
    script = "\n".join(
        f"{{ {command}\n}} >{number}.out 2>{number}.err </dev/null; echo $? >{number}.code"
        for number, command in enumerate(run)
    )
    subprocess.run(["bash", "-c", script], cwd=work, env=terminal, check=True, timeout=900)
    for number, command in enumerate(run):
        code, said, answer = ((work / f"{number}.{part}").read_text().strip() for part in ("code", "err", "out"))
        if refused := REFUSED.search(command):
            assert code != "0" and refused[1] in said, f"{command}\nwas to be refused ({refused[1]}): {code} {said}"
        elif finds := FINDS.search(command):
            assert code == "1" and finds[1] in answer, f"{command}\nwas to find {finds[1]}: {code} {answer} {said}"
        else:
            assert code == "0", f"{command}\n{said}"


def test_irsa_shows_no_line_for_the_lab():
    for fence in fences(read("irsa.ipynb")):
        assert all(command.split()[0] in NOT_OF_THE_LAB for command in commands(fence))
