"""The policy editor: its bundle is what npm and esbuild make of its source, and it holds a long policy."""

import shutil
import subprocess
from pathlib import Path

import pytest

from labkit.course import widgets
from tests.conftest import lacking

FOLDER = Path(widgets.__file__).parent / "editor"
COMMANDS = "npm ci --silent --no-audit --no-fund", "npm run --silent build"


@pytest.mark.node
def test_the_bundle_and_its_licences_are_what_npm_and_esbuild_make(tmp_path):
    for name in ("editor.js", "package.json", "package-lock.json"):
        shutil.copy(FOLDER / name, tmp_path)
    for command in COMMANDS:
        done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True)
        if done.returncode:
            print(done.stderr)
            lacking("the editor's packages, from a network, with npm:  make editor")
    for name in ("codemirror.js", "LICENSES"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), f"{name} is old:  make editor"
