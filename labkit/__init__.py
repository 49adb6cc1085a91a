"""labkit: the library behind the notebooks of the IRSA lab.

::

    import labkit

    lab = labkit.Lab.open(**labkit.parameters())
    lab.ready(before="iam_role")

A name of this package is imported at its first use, so that `import labkit` takes almost no time.

labkit has four parts. The numbers count their lines of Python:

- the helper, 11,200: the parts that a notebook uses. `lab`, `workspace`, `run_parameters`, `documents`, `connection`,
  `errors`, `showing`, `tokens`, `runs`, `terraform`, `execution`, and the folders `steps`, `widgets`, `exercises` and
  `fleet`.
- the targets, 3,200: where a lab runs. `targets`: moto, kind, eks.
- the doctor, 14,000: finds out why a pod doesn't get its role. `doctor`, `diagnosis`, and `faults` to test the doctor.
- the simulator, 29,400: the AWS and Kubernetes of the target moto. `emulator`, and the folders `policy` and
  `webhook`, which also work without `emulator`.

`cli` (2,000) is the `labkit` command, which uses all four parts.
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
