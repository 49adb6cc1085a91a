"""The lab's API server against the recorded answers of a real kube-apiserver (see tests/contract/README.md)."""

import filecmp
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "contract"
SOURCE = Path(__file__).parents[2] / "shared" / "contract"
# The copied files, each with its SHA-256: a change to one is found where the source isn't beside the checkout, too.
COPIED = {
    "NOTES.md": "7a7022513c7c0dde2287833dbedc4fa02a148d49888cfcc34a6e5809dd463cd4",
    "README.md": "a2c2a44a86617b39586574c2a616e141546fc221305e4300b1bcbb4eb720dba3",
    "contract.py": "ddc41313ae5f84abc743cf16b335a39a6871a3e063dac896c1c56e296e6e01a5",
    "golden.json": "11518b442144a1d037d4e711b4675ea39c0c3c71a5d78c9eb7d6de84f8690e4e",
    "scenario.py": "c3d76b5711875eebe5fe791b76ce38c953f86e4f6786fb54e5a2be9e115c4d9c",
}
WAITED = ['"pod/p3 condition met"']


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The kubeconfig of an API server alone (`labkit up --bare`), as in the recording."""
    home = str(tmp_path_factory.mktemp("bare") / ".lab")

    def labkit(*arguments: str) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LABKIT_HOME", home)
            command = [Path(sys.executable).with_name("labkit"), *arguments]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    yield json.loads(labkit("up", "--bare", "--json"))["kubeconfig"]
    labkit("down", "--bare")


@pytest.mark.kubectl
def test_the_lab_s_api_server_answers_every_step_like_a_real_one(kubeconfig):
    command = [sys.executable, HERE / "contract.py", "check", "--kubeconfig", kubeconfig]
    check = subprocess.run(command, capture_output=True, text=True)
    *failures, summary = [*check.stdout.split("FAIL ")[1:], check.stdout.splitlines()[-1]]
    # kubectl walks a config map's keys in Go's map order, which changes now and then.
    shuffled = [text for text in failures if text.startswith("kubectl/configmap-describe\n") and _same_lines(text)]
    # This step deletes the pod a moment after kubectl starts. A slow kubectl finds it gone, and prints nothing.
    late = [text for text in failures if text.startswith("kubectl/wait-delete\n") and _lacks(text) == WAITED]
    known = [text for text in failures if text in shuffled or text in late]
    assert failures == known, check.stdout + check.stderr
    assert summary == f"{395 - len(known)} passed, {len(known)} failed", check.stdout + check.stderr


def _lacks(difference: str) -> list[str]:
    """The recorded lines that the answer lacks."""
    lines = [line for line in difference.splitlines() if not line.startswith(("--- golden", "+++ server"))]
    return [line[1:].strip() for line in lines if line[0] == "-" and line[1:].strip() not in ("]", '"stdout": [')]


def _same_lines(difference: str) -> bool:
    lines = [line for line in difference.splitlines() if not line.startswith(("--- golden", "+++ server"))]
    return sorted(line[1:] for line in lines if line[0] == "-") == sorted(line[1:] for line in lines if line[0] == "+")


@pytest.mark.parametrize("name", COPIED)
def test_no_file_of_the_copy_was_changed(name):
    assert hashlib.sha256((HERE / name).read_bytes()).hexdigest() == COPIED[name], "copy it from its source again"


@pytest.mark.skipif(not SOURCE.is_dir(), reason="the contract's source is not beside this checkout: nothing to compare")
@pytest.mark.parametrize("name", COPIED)
def test_the_copy_in_tests_contract_equals_its_source(name):
    assert filecmp.cmp(SOURCE / name, HERE / name, shallow=False)


def test_tests_contract_holds_only_the_copied_files():
    assert {file.name for file in HERE.iterdir()} - {"__pycache__"} == set(COPIED)
