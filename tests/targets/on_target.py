"""A pytest plugin that runs the notebooks with `--nbval-lax` on the target named in the environment.

A variable `LABKIT_NAME` sets the parameter `name`: `LABKIT_TARGET=kind LABKIT_KUBECONFIG=… LABKIT_CONTEXT=…`. The
plugin appends these assignments to the notebook's cell of parameters.

A cell that needs a capability which the target lacks counts as skipped. So does a later cell that fails with a
NameError, if a skipped cell would have defined the name. Every other failure is a failure.

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
COLOUR = re.compile(r"\x1b\[[\d;]*m")
MISSING = re.compile(r"NameError: name '(\w+)'")
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
        notebook, said = item.parent, COLOUR.sub("", getattr(call.excinfo.value, "inner_traceback", None) or "")
        if lacks := LACKS.search(said):
            notebook.lacks = lacks[0]
        skipped, missing = getattr(notebook, "skipped", ""), MISSING.findall(said)
        if lacks or (missing and re.search(rf"\b{missing[-1]}\b", skipped)):
            notebook.skipped = f"{skipped}\n{item.cell.source}"
            report.outcome, report.longrepr = "skipped", (str(item.path), item.cell_num, f"Skipped: {notebook.lacks}")
    return report


def said_by(item: IPyNbCell) -> str:
    return "".join(str(output.get("text", output.get("data", ""))) for output in item.test_outputs)
