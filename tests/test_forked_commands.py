"""The AWS CLI of the tests, which is forked, beside the one that a user starts."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked_commands import REAL

FORKED, ITSELF = str(Path(sys.executable).with_name("aws")), str(REAL / "aws")


def said(program: str, line: str, **given: str) -> tuple[int, str, str]:
    variables = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", **given}
    done = subprocess.run(
        [program, *line.split()], env=os.environ | variables, input="{}", capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("line", "code"), [("--version", 0), ("iam list-rolez", 2), ("configure list", 0), ("sts get-caller-identity", 255)]
)
def test_it_says_what_the_one_that_a_user_starts_says(line, code):
    assert said(FORKED, line) == said(ITSELF, line)
    assert said(FORKED, line)[0] == code


def test_it_has_the_caller_s_variables_folder_and_streams(tmp_path, monkeypatch):
    (tmp_path / "config").write_text("[profile mine]\nregion = eu-west-3\n")
    monkeypatch.chdir(tmp_path)
    told = said(FORKED, "configure get region", AWS_PROFILE="mine", AWS_CONFIG_FILE="config")
    assert told == (0, "eu-west-3\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_as_its_caller_does(number):
    with subprocess.Popen([FORKED, "configure"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asking:
        prompt = "AWS Access Key ID [None]: "
        assert asking.stdout.read(len(prompt)) == prompt
        started = Path(f"/proc/{asking.pid}/cmdline")
        assert not started.exists() or b"itself" not in started.read_bytes()  # it found the server
        asking.send_signal(number)
        # Only then has everything ended that holds this stream.
        assert asking.stdout.read() == ""
    assert asking.returncode == -number
