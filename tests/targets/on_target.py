"""A pytest plugin that runs the notebooks with `--nbval-lax` on the target named in the environment.

A variable `LABKIT_NAME` sets the parameter `name`: `LABKIT_TARGET=kind LABKIT_KUBECONFIG=… LABKIT_CONTEXT=…`. The
plugin appends these assignments to the notebook's cell of parameters.

A cell that needs a capability which the target lacks counts as skipped. So does a later cell that fails with a
NameError, because the skipped cell didn't define the name. If the skipped cell opens the lab, every later cell that
fails counts as skipped.

A cell whose output contains a traceback fails: it comes from a program in a pod, and the cell itself doesn't raise.
"""

import os
import re
from collections.abc import Iterator

import pytest
from nbval.plugin import IPyNbCell

from labkit.run_parameters import Parameters

GIVEN = {
    name: os.environ[f"LABKIT_{name.upper()}"] for name in Parameters.names() if f"LABKIT_{name.upper()}" in os.environ
}
LACKS = re.compile(r"The target \w+ lacks [^.]+\.")
TRACEBACK = "Traceback (most recent call last)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    Parameters.checked(**GIVEN)
    for item in items:
        if isinstance(item, IPyNbCell) and "parameters" in item.cell.metadata.get("tags", []):
            item.cell.source += "".join(f"\n{name} = {value!r}" for name, value in GIVEN.items())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    report = yield
    if isinstance(item, IPyNbCell) and call.when == "call" and report.passed and TRACEBACK in str(item.test_outputs):
        report.outcome, report.longrepr = (
            "failed",
            f"{item.path}, cell {item.cell_num} prints a traceback:\n{said_by(item)}",
        )
    if isinstance(item, IPyNbCell) and report.failed and call.excinfo:
        notebook, said = item.parent, getattr(call.excinfo.value, "inner_traceback", "") or ""
        if lacks := LACKS.search(said):
            notebook.lacks, notebook.is_ready = lacks[0], "Lab.open(" not in item.cell.source
        lacks = getattr(notebook, "lacks", "")
        if "AttributeError: module" in said:  # labkit's own mistake
            return report
        if lacks and (lacks in said or "NameError: " in said or not notebook.is_ready):
            report.outcome, report.longrepr = "skipped", (str(item.path), item.cell_num, f"Skipped: {lacks}")
    return report


def said_by(item: IPyNbCell) -> str:
    return "".join(str(output.get("text", output.get("data", ""))) for output in item.test_outputs)
