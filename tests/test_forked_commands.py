"""The tests' forked commands behave like the ones that a user starts."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked_commands import REAL

FORKED = Path(sys.executable).parent


def said(folder: Path, line: str, **given: str) -> tuple[int, str, str]:
    name, *arguments = line.split()
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    variables = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "PATH": path, **given}
    done = subprocess.run(
        [folder / name, *arguments], env=os.environ | variables, input="{}", capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("line", "code"), [
    ("aws --version", 0),
    ("aws iam list-rolez", 2),
    ("aws configure list", 0),
    ("aws sts get-caller-identity", 255),
    ("labkit --version", 0),
    ("labkit down now", 2),
])  # fmt: skip
def test_a_forked_command_prints_the_same_as_the_real_one(line, code):
    assert said(FORKED, line) == said(REAL, line)
    assert said(FORKED, line)[0] == code


def test_a_forked_command_has_the_callers_variables_folder_and_streams(tmp_path, monkeypatch):
    (tmp_path / "config").write_text("[profile mine]\nregion = eu-west-3\n")
    monkeypatch.chdir(tmp_path)
    printed = said(FORKED, "aws configure get region", AWS_PROFILE="mine", AWS_CONFIG_FILE="config")
    assert printed == (0, "eu-west-3\n", "")


def test_a_forked_command_writes_to_the_callers_home(tmp_path):
    aws, url = tmp_path / ".aws", "https://example.com/start"
    (aws / "sso" / "cache").mkdir(parents=True)
    settings = {"start_url": url, "region": "us-east-1", "account_id": "123456789012", "role_name": "reader"}
    (aws / "config").write_text("[default]\n" + "".join(f"sso_{name} = {value}\n" for name, value in settings.items()))
    old = {"accessToken": "old", "expiresAt": "2020-01-01T00:00:00Z"}
    (aws / "sso" / "cache" / f"{hashlib.sha1(url.encode()).hexdigest()}.json").write_text(json.dumps(old))
    line, home = "aws sts get-caller-identity", {"HOME": str(tmp_path)}
    assert said(FORKED, line, **home) == said(REAL, line, **home)
    assert "has expired" in said(FORKED, line, **home)[2]


LOADING_AT_THE_FORK = """
import os, threading
from tests import forked_commands
class Loading(threading.Thread):
    waited_for = threading.Event()
    def run(self):
        self.waited_for.wait()
    def join(self, timeout=None):
        self.waited_for.set()
        super().join(timeout)
Loading().start()
os.fork = lambda: print(threading.active_count()) or 1
forked_commands._fork_lab([], stdout=None, pass_fds=[])
Loading.waited_for.set()
"""


def test_a_forked_lab_inherits_no_lock_of_a_thread_that_loads_meanwhile():
    done = subprocess.run([sys.executable, "-c", LOADING_AT_THE_FORK], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_forked_command_ends_with_its_caller(number):
    with subprocess.Popen(
        [FORKED / "aws", "configure"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as asking:
        prompt = "AWS Access Key ID [None]: "
        assert asking.stdout.read(len(prompt)) == prompt
        started = Path(f"/proc/{asking.pid}/cmdline")
        assert not started.exists() or b"itself" not in started.read_bytes()  # the client found the server
        asking.send_signal(number)
        # The stream ends only once every process that holds it has ended.
        assert asking.stdout.read() == ""
    assert asking.returncode == -number
