"""What fails `make test-kind` and `make test-eks`: a failed cell, a printed traceback and, on kind, objects left."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from kubernetes.client import RbacAuthorizationV1Api

import labkit
from tests.targets import kind_suite

ROOT = Path(__file__).parents[2]
# A cell that shows a pod's log can print a traceback without raising an error.
TRACEBACK = "print('Traceback (most recent call last):')"


def ran(folder: Path, *sources: str) -> subprocess.CompletedProcess:
    """Run a notebook with a cell for each source, as `make test-kind` does."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "a.ipynb")
    plugins = ["-p", "tests.targets.on_target", "-p", "no:cacheprovider", "-p", "no:randomly"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "--nbval-lax", folder / "a.ipynb"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(("source", "code"), [(TRACEBACK, 1), ("print('Traceback')", 0)])
def test_a_notebook_whose_output_holds_a_traceback_fails(tmp_path, source, code):
    done = ran(tmp_path, source)
    assert done.returncode == code, done.stdout
    assert ("cell 0 prints a traceback" in done.stdout) == bool(code)


def test_only_a_missing_capability_and_the_names_that_it_leaves_undefined_are_skips(tmp_path):
    lacking = "raise RuntimeError('The target kind lacks the clock.')"
    opens = f"{lacking}; lab = 1"
    done = ran(tmp_path, opens, "other = lab", "other", lacking, "int('x')", "undefined", "'works'")
    assert "2 failed, 1 passed, 4 skipped" in done.stdout, done.stdout
    assert "invalid literal for int" in done.stdout
    assert "name 'undefined' is not defined" in done.stdout


def test_objects_left_in_the_cluster_fail_the_kind_suite_and_are_named(empty, existing, capfd):
    environment = {**os.environ, "LABKIT_KUBECONFIG": str(existing.kubeconfig), "LABKIT_CONTEXT": "existing"}
    before = kind_suite.things(environment)
    with labkit.Lab.open(**existing.parameters, namespace="default") as lab:
        lab.ready(through="pod")
    existing.core.create_namespace({"metadata": {"name": "left"}})
    RbacAuthorizationV1Api(existing.api).create_cluster_role({"metadata": {"name": "left"}, "rules": []})
    try:
        assert kind_suite.leave(environment, before) == 1
        said = capfd.readouterr().out.splitlines()[-1]
        assert said.endswith(": cluster role left, namespace left, service account left/default")
    finally:
        existing.core.delete_namespace("left")
        RbacAuthorizationV1Api(existing.api).delete_cluster_role("left")
    assert kind_suite.leave(environment, before) == 0
    assert existing.registered() == []
