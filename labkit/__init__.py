"""labkit: what the notebooks of the IRSA lab stand on.

::

    import labkit

    lab = labkit.Lab.open(**labkit.parameters())
    lab.ready(before="iam_role")

The names below are imported when they are first asked for: `import labkit` costs next to nothing.
"""

import importlib
from typing import Any

_WHERE = {
    "Check": "labkit.widgets.check",
    "Evidence": "labkit.diagnosis.evidence",
    "Finding": "labkit.diagnosis.findings",
    "Lab": "labkit.lab",
    "LabError": "labkit.errors",
    "Parameters": "labkit.parameters",
    "expect_denied": "labkit.errors",
    "parameters": "labkit.parameters",
    "run": "labkit.runs",
}
__all__ = sorted(_WHERE)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'labkit' has no attribute {name!r}")
    module = importlib.import_module(_WHERE[name])
    return globals().setdefault(name, getattr(module, name))


def __dir__() -> list[str]:
    return [*__all__, "errors", "findings", "steps", "targets"]
