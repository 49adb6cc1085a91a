"""labkit: the library behind the notebooks of the IRSA lab.

::

    import labkit

    lab = labkit.Lab.open(**labkit.parameters())
    lab.ready(before="iam_role")

A name of this package is imported at its first use, so that `import labkit` takes almost no time.

The helper is the modules at the top and `steps`: what a notebook touches. Each folder is for one use:

- `course`: the learner's exercises, faults, views, examination and progress.
- `runs`: one notebook run through papermill, many on Dask, and what changed between two.
- `doctor`: finds out why a pod doesn't get its role.
- `targets`: where a lab runs (moto, kind, eks).
- `simulator`: the AWS and Kubernetes of the target moto. `policy` (IAM's policies) and `webhook` (the pod identity
  webhook) also work without it.
- `workshop`: a class on one machine, behind JupyterHub.
- `cli`: the `labkit` command.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def at_first_use(package: str, places: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """Return the `__getattr__` of a package that imports a name from its module when the name is first used.

    `places`: the names in each module; a module's own name is the module. https://peps.python.org/pep-0562/
    """
    where = {name: f"{package}.{module}" for module, names in places.items() for name in names}

    def __getattr__(name: str) -> object:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(where[name])
        return module if where[name].endswith(f".{name}") else getattr(module, name)

    return __getattr__


_PLACES = {
    "course": ["Check", "contents"],
    "doctor": ["Evidence", "Finding", "doctor", "explain"],
    "errors": ["LabError", "errors", "expect_denied"],
    "lab": ["Lab"],
    "run_parameters": ["Parameters", "parameters"],
    "runs": ["fleet", "run"],
    "steps": ["steps"],
    "targets": ["targets"],
    "tokens": ["Claims"],
}
_MODULES = {module.rpartition(".")[2] for module in _PLACES}
__all__ = sorted({name for names in _PLACES.values() for name in names} - _MODULES)  # noqa: PLE0605
__getattr__ = at_first_use(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted(name for names in _PLACES.values() for name in names)


# Names until revision 877237c9. Promised are only those that notebooks of 0.1.0 import, or that a .lab/ of 0.1.0 names
# in its state.
_MOVED = {
    "labkit.diagnosis": "labkit.doctor",
    "labkit.emulator": "labkit.simulator",
    "labkit.exercises": "labkit.course.exercises",
    **{f"labkit.course.exercises.{x}": f"labkit.course.{x}" for x in ("contents", "copies", "examination", "progress")},
    "labkit.faults": "labkit.course.faults",
    "labkit.fleet": "labkit.runs.fleet",
    "labkit.widgets": "labkit.course.widgets",
}


class _MovedModules(MetaPathFinder, Loader):
    """Import a module of a moved package from its new place, under both names.

    https://docs.python.org/3/reference/import.html#the-meta-path
    """

    def find_spec(self, fullname: str, _path: object, _target: object = None) -> Any:
        old = fullname if fullname in _MOVED else ".".join(fullname.split(".")[:2])
        new = _MOVED.get(old, "") + fullname.removeprefix(old)
        return ModuleSpec(fullname, self, origin=new) if old in _MOVED and find_spec(new) else None

    def get_code(self, fullname: str) -> None:
        raise ImportError(f"{fullname} has a new name; see CHANGELOG.md")  # for `python -m`

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(str(spec.origin))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has written the old name's spec into the module.
        if module.__spec__:
            module.__spec__ = module.__spec__.loader_state


# Before the finder of files, which would load a module a second time, under its old name.
sys.meta_path.insert(0, _MovedModules())
