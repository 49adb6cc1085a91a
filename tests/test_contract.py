"""What a real kube-apiserver answered, step by step, held against the lab's own (see tests/contract/README.md)."""

import filecmp
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "contract"
SOURCE = Path(__file__).parents[2] / "shared" / "contract"
WAITED = ['"pod/p3 condition met"']


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of an API server alone, as the record was made: `labkit up --bare`."""
    home = str(tmp_path_factory.mktemp("bare") / ".lab")

    def labkit(*arguments: str) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LABKIT_HOME", home)
            command = [Path(sys.executable).with_name("labkit"), *arguments]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    yield json.loads(labkit("up", "--bare", "--json"))["kubeconfig"]
    labkit("down", "--bare")


@pytest.mark.kubectl
def test_every_step_is_answered_as_by_a_real_api_server(kubeconfig):
    command = [sys.executable, HERE / "contract.py", "check", "--kubeconfig", kubeconfig]
    check = subprocess.run(command, capture_output=True, text=True)
    *failures, summary = [*check.stdout.split("FAIL ")[1:], check.stdout.splitlines()[-1]]
    # kubectl walks a config map's keys in Go's order of maps, which now and then is another.
    shuffled = [text for text in failures if text.startswith("kubectl/configmap-describe\n") and _same_lines(text)]
    # The record deletes the pod a moment after kubectl's start: a slow kubectl finds it gone, and has nothing to say.
    late = [text for text in failures if text.startswith("kubectl/wait-delete\n") and _lacks(text) == WAITED]
    known = [text for text in failures if text in shuffled or text in late]
    assert failures == known, check.stdout + check.stderr
    assert summary == f"{395 - len(known)} passed, {len(known)} failed", check.stdout + check.stderr


def _lacks(difference: str) -> list[str]:
    """The lines of the record that the answer lacks, if it is the record's otherwise."""
    lines = [line for line in difference.splitlines() if not line.startswith(("--- golden", "+++ server"))]
    return [line[1:].strip() for line in lines if line[0] == "-" and line[1:].strip() not in ("]", '"stdout": [')]


def _same_lines(difference: str) -> bool:
    lines = [line for line in difference.splitlines() if not line.startswith(("--- golden", "+++ server"))]
    return sorted(line[1:] for line in lines if line[0] == "-") == sorted(line[1:] for line in lines if line[0] == "+")


@pytest.mark.skipif(not SOURCE.is_dir(), reason="the contract's source is not beside this checkout: nothing to compare")
@pytest.mark.parametrize("name", ["NOTES.md", "README.md", "contract.py", "golden.json", "scenario.py"])
def test_the_copy_is_the_contract(name):
    assert filecmp.cmp(SOURCE / name, HERE / name, shallow=False)


def test_nothing_stands_beside_the_copy():
    assert {file.name for file in HERE.iterdir()} - {"__pycache__"} == {
        "NOTES.md",
        "README.md",
        "contract.py",
        "golden.json",
        "scenario.py",
    }
