"""environment.yml, pyproject.toml and requirements.lock name the same environment, also for Binder and Codespaces."""

import json
import os
import re
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft201909Validator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
ENTRY = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*])?==(\S+)(.*(?:\n    --hash=\S+(?: \\)?)+)", re.MULTILINE)
LOCKED = {canonicalize_name(name): Version(version) for name, version, _ in ENTRY.findall(LOCK)}
ASKED_FOR = [
    Requirement(line)
    for line in [
        *PROJECT["project"]["dependencies"],
        *chain.from_iterable(PROJECT["project"]["optional-dependencies"].values()),
        *chain.from_iterable(PROJECT["dependency-groups"].values()),
    ]
]


@pytest.mark.parametrize("requirement", ASKED_FOR, ids=lambda requirement: requirement.name)
def test_the_lock_satisfies_the_projects_requirements(requirement):
    assert LOCKED[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_lock_pins_every_package_with_a_hash_and_names_no_index():
    lines = [line for line in LOCK.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(lines) == len(ENTRY.findall(LOCK))
    assert "://" not in LOCK
    assert not re.search(r"^\s*(-i|--index-url|--extra-index-url|--find-links|-f)\b", LOCK, re.MULTILINE)


def test_conda_installs_the_programs_and_pip_the_locked_packages():
    text = (ROOT / "environment.yml").read_text()
    *packages, pip = yaml.safe_load(text)["dependencies"]
    assert packages == [
        f"python{PROJECT['project']['requires-python']}",
        "pip",
        "kubernetes-client",
        "nodejs",
        "rclone",
        "make",
    ]
    assert pip == {"pip": ["-r requirements.lock"]}
    for package in packages:
        assert re.search(rf"- {re.escape(package)} +# \w+", text), f"{package} has no comment that says who needs it"


def test_binder_has_the_same_environment_with_one_version_of_python():
    # https://repo2docker.readthedocs.io/en/latest/configuration/#environment-yml: a range would mean its own default
    lines = (ROOT / "environment.yml").read_text().splitlines()
    binder = (ROOT / ".binder/environment.yml").read_text().splitlines()
    different = [(line, other) for line, other in zip(lines, binder, strict=True) if line != other]
    assert [line.split("#")[0].strip() for line, _ in different] == ["- python>=3.11"], "copy the root's other lines"
    pinned = re.match(r"  - python=(3\.\d+) ", different[0][1])
    assert pinned and Requirement(f"python{PROJECT['project']['requires-python']}").specifier.contains(pinned[1])
    # conda looks for the lock beside the file that names it.
    assert (ROOT / ".binder/requirements.lock").samefile(ROOT / "requirements.lock")


@pytest.mark.parametrize("program", [
    ["python3", "-c", "import os, sys; os.execvp('jupyter-lab', sys.argv)"],
    ["jupyter-notebook"],
], ids=["Binder", "repo2docker"])  # fmt: skip
def test_binders_command_starts_the_lab_with_binders_options(tmp_path, program):
    labkit = tmp_path / "labkit"
    labkit.write_text('#!/bin/sh\necho "$@" ${JUPYTERHUB_SERVICE_URL-none}\n')
    labkit.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JUPYTERHUB_SERVICE_URL": "http://0.0.0.0:8888/"}
    command = [ROOT / ".binder/start", *program, "--ip=0.0.0.0", "--NotebookApp.token=a b"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("lab --no-browser --ip=0.0.0.0 --NotebookApp.token=a b none\n", "")


DEVCONTAINER = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())


@pytest.mark.parametrize(("change", "field"), [
    ({}, None),
    ({"postCreateComand": "make setup"}, "postCreateComand"),
    ({"forwardPorts": "8888"}, "forwardPorts"),
], ids=["ours", "a typo", "a wrong type"])  # fmt: skip
def test_the_devcontainer_fits_its_schema(change, field):
    schema = json.loads((ROOT / "tests/schemas/devcontainer/devContainer.base.schema.json").read_text())
    errors = [*Draft201909Validator(schema).iter_errors(DEVCONTAINER | change)]
    assert bool(errors) == bool(field), errors
    assert not field or field in str(errors[0])
