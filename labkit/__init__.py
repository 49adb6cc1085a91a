"""labkit: what the notebooks of the IRSA lab stand on.

::

    import labkit

    lab = labkit.Lab.open(**labkit.parameters())
    lab.ready(before="iam_role")

The names below are imported when they are first asked for: `import labkit` costs next to nothing.

Four parts, in lines of Python:

- the helper, 11,200: what a notebook touches. `lab`, `workspace`, `run_parameters`, `documents`, `connection`,
  `errors`, `showing`, `tokens`, `runs`, `terraform`, `execution`, and the folders `steps`, `widgets`, `exercises` and
  `fleet`.
- the targets, 3,200: where a lab runs. `targets`: moto, kind, eks.
- the doctor, 14,000: why a pod doesn't get its role. `doctor`, `diagnosis`, and `faults` to try it on.
- the simulator, 29,400: what the target moto runs on. `emulator`, with `policy` and `webhook`, which also work alone.

`cli` (2,000) is the command over all of them.
"""

import importlib
from typing import Any

_WHERE = {
    "Check": "labkit.widgets.check",
    "Evidence": "labkit.diagnosis.evidence",
    "Finding": "labkit.diagnosis.findings",
    "Lab": "labkit.lab",
    "LabError": "labkit.errors",
    "Parameters": "labkit.run_parameters",
    "expect_denied": "labkit.errors",
    "parameters": "labkit.run_parameters",
    "run": "labkit.runs",
}
_MODULES = ("doctor", "errors", "steps", "targets")
__all__ = sorted(_WHERE)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"labkit.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'labkit' has no attribute {name!r}")
    module = importlib.import_module(_WHERE[name])
    return globals().setdefault(name, getattr(module, name))


def __dir__() -> list[str]:
    return [*__all__, *_MODULES]
