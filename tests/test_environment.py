"""environment.yml, pyproject.toml and requirements.lock name the same environment."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
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
