"""The one module that knows moto: what it does to it, and on which line of it the lab runs."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from labkit.emulator.aws import backend
from labkit.errors import LabError


def test_the_lab_runs_on_the_line_of_moto_that_is_locked():
    backend.checked(version("moto"))
    backend.checked(f"{backend.CHECKED_WITH}.99")


@pytest.mark.parametrize("other", ["5.3.0", "5.1.9", "6.0.0", "4.2.14", "5"])
def test_on_another_line_it_says_what_is_wanted_and_what_to_do(other):
    with pytest.raises(LabError) as caught:
        backend.checked(other)
    assert str(caught.value).startswith(f"moto {other} is installed; the lab was checked with moto")
    assert caught.value.next.startswith("make setup")


def test_to_import_the_gate_leaves_moto_unchanged():
    code = (
        "from moto.s3.models import FakeBucket; before = FakeBucket.get_permission; import labkit.emulator.aws.gate\n"
        "from labkit.emulator.aws import backend; assert FakeBucket.get_permission is before\n"
        "backend.adopt(); assert FakeBucket.get_permission is not before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
