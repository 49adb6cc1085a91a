"""The output of `make` while it installs: a growing count in a terminal, one line for each part elsewhere."""

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SAID = "\n".join(
    [
        "Resolved 90 packages in 2ms",
        *(f" Downloading package{n} (1MiB)" for n in range(88)),
        *(f" Downloaded package{n}" for n in range(88)),
        "Prepared 90 packages in 9s",
        "Installed 90 packages in 1s",
        " + moto==5",
        "warning: the index is slow",
    ]
)


@pytest.fixture
def counting(tmp_path):
    """Write a Makefile that counts uv's lines as the project's own does."""
    counted = re.search(r"^COUNTED := (?:.*\\\n)*.*\n", (ROOT / "Makefile").read_text(), re.MULTILINE)[0]
    (tmp_path / "said").write_text(f"{SAID}\n")
    (tmp_path / "Makefile").write_text(f"{counted}all:\n\t@cat said | $(COUNTED)\n")
    return tmp_path


def test_make_prints_one_line_for_each_part_outside_a_terminal(counting):
    done = subprocess.run(["make"], cwd=counting, capture_output=True, text=True, check=True)
    assert done.stdout == "  downloading …\n  installing …\n"
    assert done.stderr == "warning: the index is slow\n"


def test_make_prints_a_growing_count_in_a_terminal(counting):
    ours, theirs = pty.openpty()
    subprocess.run(["make"], cwd=counting, stdout=theirs, stderr=subprocess.DEVNULL, check=True)
    os.close(theirs)
    said = b""
    while b"installing" not in said:  # a terminal gives what it has so far
        said += os.read(ours, 65536)
    assert b"\r  downloading: 88 of 88 large packages\r  installing" in said
    os.close(ours)
