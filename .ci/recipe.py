"""Write the recipe for conda-forge from pyproject.toml and the checksum of the sources. `make release` runs this.

https://rattler-build.prefix.dev/latest/reference/recipe_file/, https://conda-forge.org/docs/maintainer/adding_pkgs/
"""

import hashlib
import re
from pathlib import Path

import rattler_build
import yaml

# What conda-forge calls by another name than Python's package index.
NAMES = {"kubernetes": "python-kubernetes"}
# What the recipe can't have: it's one package for every platform.
LEFT_OUT = {"libfaketime"}
HEADER = """\
# The recipe for conda-forge. Before you hand it in: each package under `run` must be on conda-forge, so hand in the
# others first, and put the names of those who maintain it for those under recipe-maintainers.
# Without libfaketime, which is for Linux x86-64 alone, the pods have the machine's clock.
"""


def write(project: dict, sources: Path, file: Path) -> None:
    """Write `file`. `project` is pyproject.toml's `[project]`, `sources` the sdist of its version.

    Raises `rattler_build.RattlerBuildError` for what conda-forge's builder wouldn't read.
    """
    repository = project["urls"]["Repository"]
    owner = repository.rstrip("/").split("/")[-2]
    name, program = project["name"], "${{ PYTHON }} -m pip install . --no-deps --no-build-isolation -vv"
    lowest = project["requires-python"].removeprefix(">=")
    recipe = {
        "schema_version": 1,
        "context": {"version": project["version"], "python_min": lowest},
        "package": {"name": name, "version": "${{ version }}"},
        "source": {
            "url": f"{repository}/releases/download/v${{{{ version }}}}/{name}-${{{{ version }}}}.tar.gz",
            "sha256": hashlib.sha256(sources.read_bytes()).hexdigest(),
        },
        "build": {
            "number": 0,
            "noarch": "python",
            "script": program,
            "python": {"entry_points": [f"{command} = {place}" for command, place in project["scripts"].items()]},
        },
        "requirements": {
            "host": ["python ${{ python_min }}.*", "pip", "hatchling >=1.27"],
            "run": ["python >=${{ python_min }}", *filter(None, map(_required, project["dependencies"]))],
        },
        "tests": [
            {"python": {"imports": [name], "pip_check": False, "python_version": "${{ python_min }}.*"}},
            {"script": [f"{name} --version"], "requirements": {"run": ["python ${{ python_min }}.*"]}},
        ],
        "about": {
            "homepage": repository,
            "summary": project["description"],
            "license": project["license"],
            "license_file": project["license-files"],
        },
        "extra": {"recipe-maintainers": [owner]},
    }
    text = HEADER + yaml.safe_dump(recipe, sort_keys=False, width=120)
    rattler_build.Stage0Recipe.from_yaml(text).render()
    file.write_text(text)


def _required(requirement: str) -> str:
    """Return `requests[x]>=2; marker` as conda writes it; empty if the recipe leaves it out."""
    package, versions = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?\s*([^;]*?)\s*(?:;.*)?", requirement).groups()
    return "" if package in LEFT_OUT else f"{NAMES.get(package, package)} {versions}".strip()
