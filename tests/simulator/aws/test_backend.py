"""The module that knows moto's inside: what it changes in moto, and which versions of moto the lab accepts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import labkit
from labkit.errors import LabError
from labkit.simulator import process
from labkit.simulator.aws import moto_guard
from labkit.simulator.folder import Folder


def test_the_lab_accepts_the_moto_version_that_pyproject_requires():
    moto_guard.check_release()
    moto_guard.check_release(f"{moto_guard.CHECKED_WITH}.99")
    assert f'"{moto_guard.REQUIREMENT}"' in (Path(__file__).parents[3] / "pyproject.toml").read_text()


@pytest.mark.parametrize("other", ["5.3.0", "5.1.9", "6.0.0", "4.2.14", "5"])
def test_another_moto_version_is_refused_with_the_command_that_installs_it(other):
    with pytest.raises(LabError) as caught:
        moto_guard.check_release(other)
    assert str(caught.value).startswith(f"moto {other} is installed; the lab was tested with moto")
    assert caught.value.next.startswith('pip install "moto>=5.2,<5.3"')
    # Without -B, make thinks that the environment is up to date.
    assert caught.value.next.endswith("make -B setup")


def test_a_start_with_another_moto_leaves_no_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(moto_guard, "CHECKED_WITH", "4.0")
    with pytest.raises(LabError, match=r"the lab was tested with moto 4\.0"):
        process.start(Folder(tmp_path / ".lab"))
    assert list(tmp_path.iterdir()) == []


def test_importing_the_gate_leaves_moto_unchanged():
    code = (
        "from moto.s3.models import FakeBucket; before = FakeBucket.get_permission; import labkit.simulator.aws.gate\n"
        "from labkit.simulator.aws import backend; assert FakeBucket.get_permission is before\n"
        "backend.adopt(); assert FakeBucket.get_permission is not before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_the_backend_reads_private_attributes_of_moto():
    of_python, private = ("._sslobj", "sys._getframe"), re.compile(r"(?<!self)(?<!cls)\._[a-z]")
    files = (Path(labkit.__file__).parent / "simulator/aws").rglob("*.py")
    others = [file for file in files if file.name != "backend.py"]
    lines = [line.strip() for file in others for line in file.read_text().splitlines() if private.search(line)]
    assert [line for line in lines if not any(name in line for name in of_python)] == []
