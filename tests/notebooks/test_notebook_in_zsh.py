"""Every box typed into zsh, the shell of a Mac: it calls the same programs and writes the same files as in bash.

The programs are recorders. `test_notebook_commands.py` runs the boxes against the lab.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from labkit.cli.lab import COMMENTS
from tests.notebooks.books import FOLDER, NAMES, commands, fences, read, text_boxes

PAGES = [FOLDER.parent / "README.md", FOLDER / "how-to-read-an-error.md", *sorted((FOLDER / "manual").glob("*.md"))]
TYPED = [page for page in PAGES if text_boxes(page.read_text())]
# Real programs that a box may use. Nothing else of this machine is on the PATH.
TOOLS = ("cat", "cut", "sed", "tee")
CALLED = ("aws", "conda", "helm", "kubectl", "labkit", "make", "papermill", "pip")
# A recorder notes its name and arguments, and prints an answer that the box can use.
RECORDER = f"""#!/bin/sh
call=$(printf '<%s>' "${{0##*/}}" "$@")
echo "$call" >> "$CALLS"
case "$1" in
env) echo '{COMMENTS}';;
*) printf https://oidc.example.com/id/ABC;;
esac
"""
ENV = 'eval "$(labkit env)"'


def asked(shell: list[str], lines: list[str], folder: Path) -> dict[str, str]:
    """The calls that the lines make when they are typed into the shell, and the files that they write."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name in TOOLS:
        (programs / name).symlink_to(str(shutil.which(name)))
    for name in CALLED:
        (programs / name).write_text(RECORDER)
        (programs / name).chmod(0o755)
    work = folder / "work"
    (work / ".venv").mkdir(parents=True)
    (work / ".venv" / "bin").symlink_to(programs)
    calls = work / "calls"
    calls.touch()
    variables = {"PATH": str(programs), "HOME": "/nobody", "CALLS": str(calls), "TERM": "dumb"}
    program = [str(shutil.which(shell[0])), *shell[1:]]
    streams = {"input": "\n".join([*lines, ""]), "capture_output": True, "text": True}
    # Without a session of its own, an interactive shell would take over the terminal.
    subprocess.run(program, **streams, env=variables, cwd=work, timeout=60, start_new_session=True)
    # Sorted, because the programs of a pipe run at the same time.
    return {path.name: sorted(path.read_text().splitlines()) for path in work.iterdir() if path.is_file()}


def typed_alike(lines: list[str], tmp_path: Path) -> None:
    in_bash = asked(["bash", "--norc", "--noprofile"], lines, tmp_path / "bash")
    assert asked(["zsh", "-f", "-i"], lines, tmp_path / "zsh") == in_bash
    assert in_bash["calls"]


@pytest.mark.zsh
@pytest.mark.parametrize("name", [name for name in NAMES if fences(read(name))])
def test_a_notebook_s_boxes_do_the_same_in_zsh_as_in_bash(name, tmp_path):
    typed_alike([ENV, *(command for box in fences(read(name)) for command in commands(box))], tmp_path)


@pytest.mark.zsh
@pytest.mark.parametrize("page", TYPED, ids=lambda page: page.name)
def test_a_page_s_boxes_do_the_same_in_zsh_as_in_bash(page, tmp_path):
    """The first boxes run in a shell without the lab's variables. The manual's contents name the line for comments."""
    first = [COMMENTS] if page.parent.name == "manual" and page.name != "terminal.md" else []
    typed_alike([*first, *(command for box in text_boxes(page.read_text()) for command in commands(box))], tmp_path)


def bare(command: str) -> str:
    """The command without its here-document, its quoted parts and its comment."""
    line = re.sub(r"<<'?(\w+)'?.*", "", command, flags=re.DOTALL)
    return re.sub(r"'[^']*'|\"(\\.|[^\"\\])*\"|(?<!\S)#[^\n]*", "", line)


@pytest.mark.parametrize(
    "text",
    [pytest.param("\n".join(fences(read(name))), id=name) for name in NAMES]
    + [pytest.param("\n".join(text_boxes(page.read_text())), id=page.name) for page in PAGES],
)
def test_no_box_has_a_character_that_zsh_reads_differently(text):
    for command in commands(text):
        assert not re.search(r"[][*?]", bare(command)), f"zsh looks for files of this name; quote it: {command}"
        # zsh reads $NAME:s and $NAME:a as a change of the value, even in quotes and in a here-document.
        assert not re.search(r"\$\w+:[a-zA-Z&]", command), f"write ${{NAME}}: with braces: {command}"
