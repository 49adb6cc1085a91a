"""What fails `make test-kind` and `make test-eks`: a traceback in an output and, on kind, an object left behind."""

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


@pytest.mark.parametrize(("source", "code"), [(TRACEBACK, 1), ("print('Traceback')", 0)])
def test_a_notebook_whose_output_holds_a_traceback_fails(tmp_path, source, code):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "a.ipynb")
    command = ["-m", "pytest", "-q", "-p", "tests.targets.on_target", "--nbval-lax", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, *command, tmp_path / "a.ipynb"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stdout
    assert ("cell 0 prints a traceback" in done.stdout) == bool(code)


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
