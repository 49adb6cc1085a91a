"""The labkit command: its output and its error messages."""

import contextlib
import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from labkit.cli import terminal
from labkit.cli.commands import typed
from labkit.cli.main import app
from labkit.simulator.folder import Folder
from labkit.simulator.process import State
from tests import commands


def labkit(*arguments, home, **variables):
    return commands.labkit(*arguments, LABKIT_HOME=str(home), **variables)


@pytest.fixture(scope="module")
def up(home):
    done = labkit("up", "--json", home=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_version_is_reported_without_a_lab(home):
    assert labkit("--version", home=home).stdout == f"labkit {version('labkit')}\n"


CLEARS = "\x1b]0;t\x07\x9b2J\r\x08\x7f\u202e"


def test_no_control_character_reaches_the_terminal(tmp_path):
    """From the lab's files, which may come from a snapshot, or from what a user pasted."""
    folder, lab = Folder(tmp_path / ".lab"), {"home": tmp_path / ".lab"}
    keys = {"access_key_id": "", "secret_access_key": ""}
    State(1, "", "", "", **keys, issuers={}, ca_file="", kubeconfig="", ended=f"ended {CLEARS}").write(folder)
    folder.trail_file.write_text(json.dumps({"eventName": f"a {CLEARS}", "eventTime": CLEARS}))
    for arguments in (["status"], ["trail"], ["trail", "--json"], ["restore", CLEARS], ["doctor", "--explain", CLEARS]):
        done = labkit(*arguments, **lab)
        said = done.stdout + done.stderr
        assert "9b" in said or "--explain" in arguments
        assert [letter for letter in said if not letter.isprintable() and letter != "\n"] == []
        if "--json" in arguments:
            assert json.loads(said)["eventName"] == f"a {CLEARS}"


@pytest.mark.parametrize(("text", "shown"), [
    ("\x1b[1;31mred\x1b[0m\tand\n", "\x1b[1;31mred\x1b[0m\tand\n"),
    ("\x1b[8mhidden", "\\u001b[8mhidden"),
    ("\x1b[1;30mblack", "\\u001b[1;30mblack"),
    ("\x1b[38;5;0mblack", "\\u001b[38;5;0mblack"),
    ("\x1b[2J\x1b]8;;http://a\x1b\\\\", "\\u001b[2J\\u001b]8;;http://a\\u001b\\\\"),
    ("\x00\r\x7f\x85\u2028\u2066", "\\u0000\\u000d\\u007f\\u0085\\u2028\\u2066"),
    ("é 漢 שלום\u200f 👩\u200d💻", "é 漢 שלום\u200f 👩\u200d💻"),
])  # fmt: skip
def test_only_colours_tabs_and_line_breaks_are_printed_as_they_are(text, shown):
    assert terminal.printable(text) == shown


def test_ctrl_c_while_the_command_loads_leaves_no_traceback(tmp_path):
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = commands.labkit_process("--version", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_env_points_to_the_lab_and_unsets_conflicting_variables(home, up):
    hostile = {
        "AWS_PROFILE": "ghost",
        "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "AWS_ACCESS_KEY_ID": "AKIAHOSTILE",
        "https_proxy": "http://127.0.0.1:1",
        "HTTP_PROXY": "http://127.0.0.1:1",
    }
    lines = labkit("env", home=home, **hostile).stdout
    script = lines + 'env -0; printf "\\0"; aws sts get-caller-identity --query Account --output text'
    done = subprocess.run(["bash", "-euc", script], env=os.environ | hostile, capture_output=True, text=True)
    *variables, account = done.stdout.split("\0")
    found = dict(line.split("=", 1) for line in variables if "=" in line)
    assert account.strip() == up["account_id"], done.stderr
    assert found["AWS_ENDPOINT_URL"] == up["aws"]["endpoint_url"]
    assert found["KUBECONFIG"] == up["kubeconfig"]
    assert not set(hostile) & set(found)


@pytest.mark.zsh
def test_env_lets_you_type_a_comment_after_a_command_in_zsh(home, up):
    typed = f"""
        eval "$({commands.LABKIT} env)"
        aws sts get-caller-identity --query Account --output text  # who I am
        """
    shell = {"args": ["zsh", "-f", "-i"], "env": os.environ | {"LABKIT_HOME": str(home), "TERM": "dumb"}}
    # Without a session of its own, an interactive shell would take over the terminal.
    done = subprocess.run(**shell, input=typed, capture_output=True, text=True, start_new_session=True)
    assert done.stdout.strip() == up["account_id"], done.stderr


def test_opening_a_lab_on_another_cluster_leaves_kubectl_on_its_cluster(home, up):
    made = f"""
        set -e; eval "$({commands.LABKIT} env)"
        {sys.executable} -c 'import labkit; labkit.Lab.open(cluster="teal").close()'
        kubectl config current-context"""
    assert _in_bash(home, made) == "blue\n"
    assert "kubectl uses the cluster blue. The lab also has teal." in labkit("status", home=home).stdout
    labkit("up", "--cluster", "teal", home=home)
    env = labkit("env", home=home)
    assert "kubectl uses the cluster teal. The lab also has blue." in env.stderr
    labkit("up", home=home)
    assert _in_bash(home, f'eval "$({commands.LABKIT} env)"; kubectl config current-context') == "blue\n"
    assert "mounts" not in labkit("up", home=home).stdout


def _in_bash(home, script):
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "LABKIT_HOME": str(home)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_up_prints_a_line_that_lets_this_terminal_find_labkit(home, up):
    own = str(Path(sys.executable).parent)
    path = os.pathsep.join(each for each in os.environ["PATH"].split(os.pathsep) if each != own)
    said = labkit("up", home=home, PATH=path).stdout.splitlines()[-1]
    line = said.removeprefix("Next:  ")
    assert _in_bash(home, f"export PATH={path}; {line}; command -v labkit") == f"{own}/labkit\n"


def test_status_report_holds_no_secret_and_no_path(home, up):
    labkit("trail", home=home)
    report = labkit("status", "--report", home=home).stdout
    assert "mounts:" in report
    assert "moto" in report
    for secret in (up["aws"]["secret_access_key"], up["aws"]["access_key_id"], str(home), sys.prefix, str(Path.home())):
        assert secret not in report


def test_trail_prints_json_with_one_record_per_line_and_no_secret(home, up):
    done = labkit("trail", "--json", "--last", "0", home=home)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"CreateCluster", "DescribeCluster"} <= {record["eventName"] for record in records}
    assert up["aws"]["secret_access_key"] not in done.stdout


def test_fetch_reads_the_issuer_s_documents_by_their_real_urls(home, up):
    done = labkit("fetch", f"{up['issuer']}/.well-known/openid-configuration", home=home)
    discovery = json.loads(done.stdout)
    assert discovery["issuer"] == up["issuer"]
    keys = json.loads(labkit("fetch", discovery["jwks_uri"], home=home).stdout)
    assert [key["kty"] for key in keys["keys"]] == ["RSA"]


@pytest.mark.parametrize(("arguments", "words"), [
    (["fetch", "https://example.com/"], "fetches only from its own issuers"),
    (["fetch", "nonsense"], "fetches only from its own issuers"),
    (["fetch", "https://["], "fetches only from its own issuers"),
    (["clock", "2h"], "doesn't move the clock"),
    (["clock", "+4000d"], "more than ten years"),
    (["clock", "+99999999999d"], "more than ten years"),
    (["up", "--cluster", "no/such name"], "cluster"),
    (["up", "--target", "kind", "--bare"], "so it can't be combined with --target kind"),
    (["up", "--target", "motto"], "Did you mean 'moto'? There are: moto, kind.\nnext:  labkit up\n"),
    (["up", "--target", "eks"], "next:  labkit plan -p target=eks"),
    (["run", "-p", "role_nam=x"], "Did you mean 'role_name'?"),
    (["run", "-p", "role_name"], "NAME=VALUE"),
    (["run", "-p", "namespace=Default"], "namespace"),
    (["run", "nowhere.ipynb"], "nowhere.ipynb"),
    (["run", "-p", f"role_name={'x' * 65}"], "role_name"),
])  # fmt: skip
def test_a_user_s_mistake_gets_a_sentence_and_the_next_command(home, up, arguments, words):
    done = labkit(*arguments, home=home)
    assert done.returncode == 1
    assert words in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["env", "fetch https://x"])
def test_without_a_lab_a_command_says_how_to_start_one(tmp_path, command):
    done = labkit(*command.split(), home=tmp_path / "none")
    assert done.returncode == 1
    assert "labkit up" in done.stderr


def test_outside_an_activated_environment_messages_name_a_command_that_can_be_typed(tmp_path):
    def said(*arguments, cwd=tmp_path, path="/usr/bin"):
        done = commands.labkit(*arguments, cwd=cwd, LABKIT_HOME=str(tmp_path / "lab"), PATH=str(path))
        return done.stdout + done.stderr

    program = Path(sys.executable).parent / "labkit"
    assert said("env").endswith(f"next:  {program} up\n")
    assert said("env", cwd=program.parent.parent).endswith("next:  bin/labkit up\n")
    assert said("status").endswith(f"Next:  {program} up\n")
    assert f"Usage: {program} up [OPTIONS]" in said("up", "--hours")
    assert '"next": "labkit doctor' in said("doctor", "--explain", "?", "--json")
    (tmp_path / "labkit").symlink_to(program)  # as pipx installs it
    assert said("env", path=tmp_path).endswith("next:  labkit up\n")


def test_every_command_is_typed_with_the_program_s_path(monkeypatch):
    monkeypatch.setenv("PATH", "")
    program = Path(sys.executable).parent / "labkit"
    for name in typer.main.get_command(app).commands:
        assert typed(f"labkit {name} -n shop") == f"{program} {name} -n shop"
    prose = "start the lab with the labkit version that made it"
    assert typed(prose) == prose


def test_down_mentions_a_bare_api_server_only_while_one_runs(tmp_path):
    folder = Folder(tmp_path / "lab")
    with folder.bare.lock("server.lock"):
        assert "labkit down --bare" in labkit("down", home=folder.path).stdout
    assert "--bare" not in labkit("down", home=folder.path).stdout


def test_commands_say_that_the_lab_s_folder_is_a_file(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for command in ("up", "env", "status", "status --report", "trail", "clock", "fetch https://x", "reset", "down"):
        done = labkit(*command.split(), home=file)
        assert (done.returncode, "LABKIT_HOME is" in done.stderr) == (1, True), command + done.stderr
        assert "Traceback" not in done.stderr
    below = labkit("up", home=file / "lab")
    assert "The lab's folder cannot be used: Not a directory" in below.stderr
    assert "next:" in below.stderr


@pytest.mark.parametrize(("home", "says"), [
    ("/" + "a-long-name/" * 400, "The lab's folder cannot be used: File name too long: /a-long-name"),
    ("/tmp/lab\nb", r"The lab's folder cannot be '/tmp/lab\nb': its path has a line break"),
    (os.fsdecode(b"/tmp/lab\xff"), "its path has a line break, or is not UTF-8."),
], ids=["too long", "line break", "not UTF-8"])  # fmt: skip
def test_commands_say_why_a_path_cannot_be_a_lab_s_folder(home, says):
    for command in ("up", "status", "down"):
        done = labkit(command, home=home)
        assert (done.returncode, says in done.stderr) == (1, True), command + done.stderr
        assert "next:  export LABKIT_HOME=" in done.stderr


def test_commands_say_that_the_file_system_has_no_locks(tmp_path, monkeypatch):
    """For example a network file system that was mounted without locks."""

    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / "server.lock").touch()
    monkeypatch.setattr(fcntl, "flock", refused)
    for command in ("up", "status", "down", "reset"):
        done = labkit(command, home=tmp_path)
        assert (done.returncode, f"No locks available: {tmp_path}" in done.stderr) == (1, True), done.stderr
        assert "next:  export LABKIT_HOME=" in done.stderr


def test_a_command_in_a_deleted_folder_says_so(tmp_path, monkeypatch):
    for command in ("up", "status", "run", "lab", "progress", "doctor"):
        gone = tmp_path / "gone"
        gone.mkdir()
        with contextlib.chdir(gone):
            gone.rmdir()
            done = labkit(command, home=tmp_path / "lab")
        assert (done.returncode, "The current folder of this terminal was deleted." in done.stderr) == (1, True)
        assert "next:  cd" in done.stderr


def test_commands_name_a_lab_file_that_they_cannot_open(tmp_path):
    # Root can write anywhere, but can't open a folder as a file.
    for name in ("start.lock", "server.lock", "clock.new"):
        (tmp_path / name).mkdir()
    for command in ("up", "clock +1h", "down", "reset"):
        done = labkit(*command.split(), home=tmp_path)
        assert (done.returncode, "Is a directory" in done.stderr) == (1, True), command + done.stderr
        assert "Traceback" not in done.stderr


def test_trail_skips_a_record_that_a_killed_server_left_unfinished(tmp_path):
    (tmp_path / "trail.jsonl").write_text('{"eventName": "GetRole"}\n[1]\n"text"\n{"eventName": "Del')
    assert json.loads(labkit("trail", "--json", home=tmp_path).stdout) == {"eventName": "GetRole"}
    assert "GetRole" in labkit("trail", home=tmp_path).stdout


def test_the_clock_moves_forward_and_back_and_returns_to_machine_time(home, up):
    assert "2:00:00 ahead of the machine's time" in labkit("clock", "+2h", home=home).stdout
    assert "1:30:00 ahead of the machine's time" in labkit("clock", "-30m", home=home).stdout
    assert "UTC (the machine's time)" in labkit("clock", "0", home=home).stdout


def test_the_lab_s_folder_is_found_from_a_subfolder(tmp_path, monkeypatch):
    monkeypatch.delenv("LABKIT_HOME", raising=False)
    (tmp_path / "project" / "labkit").mkdir(parents=True)
    (tmp_path / "project" / "pyproject.toml").touch()
    (tmp_path / "project" / "notebooks").mkdir()
    assert Folder.find(tmp_path / "project" / "notebooks").path == tmp_path / "project" / ".lab"
    assert Folder.find(tmp_path).path == tmp_path / ".lab"
    (tmp_path / "project" / "notebooks" / ".lab").mkdir()
    assert Folder.find(tmp_path / "project" / "notebooks").path == tmp_path / "project" / "notebooks" / ".lab"


def test_three_runs_share_one_lab_at_once(tmp_path):
    def run(name):
        arguments = ["-p", f"role_name={name}", "-p", f"namespace={name}", "-p", f"bucket=irsa-{name}"]
        out = tmp_path / f"{name}.ipynb"
        return commands.labkit_process("run", *arguments, "--output", out, LABKIT_HOME=str(tmp_path / ".lab"))

    try:
        with ThreadPoolExecutor(3) as pool:
            done = list(pool.map(run, ["one", "two", "three"]))
    finally:
        labkit("down", home=tmp_path / ".lab")
    for each, name in zip(done, ["one", "two", "three"], strict=True):
        assert each.returncode == 0, each.stdout + each.stderr
        assert each.stdout.count("  ok  ") == 5
        assert f"assumed-role/{name}/" in each.stdout
        *_, first, _, _, _, last = each.stdout.splitlines()
        assert first.startswith("The cluster blue signed a token")
        assert re.fullmatch(r"Now do each step yourself, in notebooks:  (\S*/)?labkit lab", last)
        assert re.search(r"\nThe lab keeps running\. `(\S*/)?labkit down` ends it\.\n", each.stdout)
