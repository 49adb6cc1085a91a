"""The layout: the top level, no circular imports, short commit subjects, and a command that starts fast.

pyproject.toml says which module may import which. `make lint` runs import-linter as well as these tests.
"""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

import labkit
from tests import any_in_signatures, import_rules
from tests.conftest import lacking

ROOT = Path(__file__).parent.parent
LABKIT = ROOT / "labkit"
TOP = {
    "notebooks",
    "labkit",
    "tests",
    ".binder",
    ".ci",
    ".devcontainer",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "environment.yml",
    "pyproject.toml",
    "requirements.lock",
}
FOLDERS = {"steps", "targets", "course", "runs", "doctor", "simulator", "policy", "webhook", "workshop", "cli"}
DOORS = ["labkit/course", "labkit/doctor", "labkit/runs", "labkit/runs/fleet", "labkit/simulator", "labkit/workshop"]
SIBLINGS = 21  # with `__init__.py`
LONGEST_FILE = 500  # lines
STILL_LONG = {"tests/contract/scenario.py"}  # a copy, byte for byte
LONGEST_HELPER = 3500  # lines
MOST_LOADED = 35  # modules of labkit, by all of labkit.steps
MOST_IGNORED = 39
# A line that mypy ignores, and how it must explain that: with mypy's code and the reason.
IGNORED = re.compile(r"#\s*(type:\s*ignore|mypy:)")
EXPLAINED = re.compile(r"# type: ignore\[[a-z, -]+\]  # \S")
# Commits after this one must have short subjects.
SINCE = "cdecea6"
LONGEST_SUBJECT = 72


def git(*arguments: str) -> str:
    """Return what git prints here. Outside a whole clone, skip the test; in CI, fail."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        lacking(f"a whole clone: git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def tracked(folder: str) -> list[str]:
    """The files below a folder that git tracks, or would add."""
    return git("ls-files", "-z", "--cached", "--others", "--exclude-standard", folder).split("\0")[:-1]


def test_the_top_level_holds_only_the_listed_files_and_folders():
    names = {name.partition("/")[0] for name in tracked(".")}
    stray = sorted(names - TOP)
    assert not stray, (
        f"{', '.join(stray)}: move it into labkit/, notebooks/ or tests/, or list it in {Path(__file__).name}"
    )


def test_labkit_holds_only_the_listed_folders_and_few_modules():
    names = [name.removeprefix("labkit/").partition("/") for name in tracked("labkit")]
    folders = {name for name, slash, _ in names if slash}
    modules = {name for name, slash, _ in names if not slash and name.endswith(".py")}
    new = sorted(folders - FOLDERS)
    assert not new, f"labkit/{new[0]}/: put it into one of {', '.join(sorted(FOLDERS))}, or change the plan first"
    count = len(folders) + len(modules)
    assert count <= SIBLINGS, f"labkit/ has {count} siblings, at most {SIBLINGS}: move the newest into a folder"


def test_the_helper_stays_small():
    lines = {path: path.read_text().count("\n") for path in [*LABKIT.glob("*.py"), *LABKIT.glob("steps/*.py")]}
    longest = max(lines, key=lambda path: lines[path]).relative_to(ROOT)
    assert sum(lines.values()) <= LONGEST_HELPER, (
        f"labkit/*.py and labkit/steps have {sum(lines.values())} lines, at most {LONGEST_HELPER}: move what only one "
        f"folder uses into that folder; the longest is {longest}"
    )


def test_no_file_is_long():
    names = [name for name in [*tracked("labkit"), *tracked("tests")] if name.endswith(".py")]
    files = [ROOT / name for name in names if name not in STILL_LONG]
    lines = {file: file.read_text().count("\n") for file in files if file.exists()}
    long = [f"{file.relative_to(ROOT)} has {count} lines" for file, count in lines.items() if count > LONGEST_FILE]
    assert not long, f"{long[0]}, at most {LONGEST_FILE}: split it by what its parts are for"


def test_the_steps_load_few_modules_and_none_of_the_parts_above_them():
    code = (
        "import importlib, pkgutil, sys, labkit.steps\n"
        "for step in pkgutil.iter_modules(labkit.steps.__path__):\n"
        "    importlib.import_module('labkit.steps.' + step.name)\n"
        "print(*(name for name in sys.modules if name.partition('.')[0] == 'labkit'))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    above = [name for name in loaded if name.startswith(("labkit.doctor", "labkit.simulator", "labkit.course"))]
    assert not above, f"labkit.steps loads {above[0]}: move what the steps need of it down, or import it at first use"
    assert len(loaded) <= MOST_LOADED, (
        f"labkit.steps loads {len(loaded)} modules of labkit, at most {MOST_LOADED}: import the newest at first use"
    )


def test_no_modules_import_each_other_in_a_circle():
    graph = grimp.build_graph("labkit", cache_dir=None)
    arrows = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    circles = [circle for module in sorted(arrows) if (circle := circle_of(module, arrows))]
    assert not circles, f"{' -> '.join(circles[0])}: move what both need below them"


def circle_of(module: str, arrows: dict[str, set[str]]) -> list[str]:
    """The shortest chain of imports from a module back to itself; empty if there isn't one."""
    ways = [[module]]
    seen: set[str] = set()
    for way in ways:
        for imported in sorted(arrows[way[-1]]):
            if imported == module:
                return [*way, module]
            if imported not in seen:
                seen.add(imported)
                ways.append([*way, imported])
    return []


@pytest.mark.parametrize(("printed", "sentence"), [
    (
        "No cycles are allowed in labkit.\n\n- .policy -> .simulator (1 import)\n\n"
        "labkit.policy is not allowed to import labkit.simulator:\n\n"
        "- labkit.policy.arn -> labkit.simulator.folder (l.5)\n\n\n"
        "labkit.tokens is not allowed to import labkit.simulator:\n\n"
        "-   labkit.tokens -> labkit.policy.arn (l.15)\n"
        "    labkit.policy.arn -> labkit.simulator.folder (l.5)\n\n\n"
        "labkit.doctor.checks is not allowed to import labkit.doctor.survey:\n\n"
        "- labkit.doctor.checks -> labkit.documents (l.14)\n"
        "  labkit.documents -> labkit.policy.arn (l.10)\n"
        "  labkit.policy.arn -> labkit.simulator.folder (l.5)\n",
        "labkit.policy.arn may not import labkit.simulator.folder (l.5). "
        "Move what is imported down; the layers are in pyproject.toml.",
    ),
    (
        "labkit.doctor is not allowed to import moto:\n\n"
        "-   labkit.doctor.survey -> labkit.execution (l.3)\n"
        "    labkit.execution -> moto (l.2)\n",
        "labkit.doctor.survey may not import labkit.execution (l.3), which leads to moto. "
        "Ask a module that may; the layers are in pyproject.toml.",
    ),
    (
        "No cycles are allowed in labkit.policy.\nIt could be made acyclic by removing 1 dependency:\n\n"
        "- .arn -> .trust (1 import)\n",
        "labkit.policy: two of its parts import each other. One of the imports is labkit.policy.arn -> "
        "labkit.policy.trust (1 import). Move what both need below them.",
    ),
    (
        "The following modules are not listed as layers:\n\n- labkit.new\n",
        "labkit.new: give it a layer in pyproject.toml, or move it into a folder.",
    ),
    (
        "Illegal imports of protected package labkit.simulator.aws\n(via labkit.simulator.* expression):\n\n"
        "- tests.soak -> labkit.simulator.aws.trail (l.7)\n\n\n",
        "tests.soak imports labkit.simulator.aws.trail (l.7) past the door of labkit.simulator. "
        "Import a name of labkit/simulator/__init__.py, or add the name there.",
    ),
    ("\nMissing layer in container 'labkit'\n", "Missing layer in container 'labkit'"),
], ids=["layer", "by a third", "circle", "unlisted", "door", "anything else"])  # fmt: skip
def test_a_broken_import_rule_is_explained_in_one_sentence(printed, sentence):
    assert import_rules.sentences(printed) == [sentence]


def test_no_module_of_labkit_uses_a_name_that_is_for_those_outside():
    modules = {path: path.read_text() for path in LABKIT.rglob("*.py")}
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: import {new} instead of {old}, which hides it from the layers"
        for path, source in modules.items()
        for line, old, new in detours(source)
    ]
    assert not wrong, "\n".join(wrong)


def detours(source: str) -> list[tuple[int, str, str]]:
    """Each use of an old name, or of one that `labkit` looks up at its first use: the line, the name, and the place."""
    lazy = {f"labkit.{name}": f"labkit.{module}" for module, names in labkit._PLACES.items() for name in names}
    known = {old: new for old, new in {**lazy, **labkit._MOVED}.items() if old != new}
    uses = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=aliases):
                names = [alias.name for alias in aliases]
            case ast.ImportFrom(module=module, names=aliases, level=0):
                names = [f"{module}.{alias.name}" for alias in aliases]
            case ast.Attribute(value=ast.Name(id="labkit"), attr=name):
                names = [f"labkit.{name}"]
            case _:
                continue
        olds = [(name, ".".join(name.split(".")[:2])) for name in names]
        uses += [(node.lineno, name, known[old]) for name, old in olds if old in known]
    return uses


@pytest.mark.parametrize(("source", "names"), [
    ("import labkit.emulator.aws.gate", ["labkit.emulator.aws.gate"]),
    ("from labkit.widgets import check", ["labkit.widgets.check"]),
    ("from labkit import Check, documents", ["labkit.Check"]),
    ("from labkit import contents", ["labkit.contents"]),
    ("import labkit\nlabkit.Lab.open()", ["labkit.Lab"]),
    ("from labkit import doctor, steps, targets\nimport labkit.fleeting\nlabkit.__path__", []),
])  # fmt: skip
def test_an_import_by_an_old_or_a_lazy_name_is_seen(source, names):
    assert [name for _, name, _ in detours(source)] == names


# In a process of its own: elsewhere, another module may have loaded what `labkit.lab` only names.
NAMED_BY_THE_LAB = """
import ast, inspect, labkit.lab as lab
for node in ast.walk(ast.parse(inspect.getsource(lab))):
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if inspect.ismodule(module := getattr(lab, node.value.id, None)):
            assert node.attr in vars(module) or "__getattr__" in vars(module), node.attr
"""


def test_the_lab_has_loaded_each_module_whose_functions_it_calls():
    subprocess.run([sys.executable, "-c", NAMED_BY_THE_LAB], check=True)


@pytest.mark.parametrize("door", DOORS)
def test_a_door_imports_at_first_use_what_mypy_reads(door):
    (types,) = (node for node in ast.parse((ROOT / door / "__init__.py").read_text()).body if isinstance(node, ast.If))
    for node in types.body:
        for alias in node.names:
            there = importlib.import_module(node.module)
            name = getattr(importlib.import_module(door.replace("/", ".")), alias.name, None)
            assert name is getattr(there, alias.name), f"{door}: list {alias.name} below {node.module}, too"


def test_commit_subjects_are_short():
    subjects = git("log", "--no-merges", "--format=%s", f"{SINCE}..HEAD").splitlines()
    long = [subject for subject in subjects if len(subject) > LONGEST_SUBJECT]
    assert not long, f"{long[0]!r} has {len(long[0])} characters, at most {LONGEST_SUBJECT}: reword it"


@pytest.mark.parametrize(
    "lock", ["requirements.lock", ".ci/offline/requirements.lock", "notebooks/book/requirements.lock"]
)
def test_the_lock_names_no_host(lock):
    assert not re.search(r"https?://", (ROOT / lock).read_text()), "run: make lock"


def test_the_labkit_command_starts_without_loading_slow_libraries():
    code = "import sys, labkit.cli.main; print(*{'boto3', 'kubernetes', 'moto', 'papermill'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_the_lab_starts_without_the_libraries_that_only_its_server_needs():
    code = (
        "import sys, labkit.targets.moto; print(*{'httpx', 'moto', 'rich', 'starlette', 'tenacity'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_public_signatures_use_any_no_more_often_than_before():
    count = any_in_signatures.count()
    message = (
        f"{count} times Any in the signatures of public functions, at most {any_in_signatures.MOST}: name the type"
    )
    assert count <= any_in_signatures.MOST, message


def test_public_signatures_hide_any_behind_aliases_no_more_than_before():
    count = any_in_signatures.count_hidden()
    message = f"{count} times an alias of Any in the signatures of public functions, at most "
    assert count <= any_in_signatures.MOST_HIDDEN, f"{message}{any_in_signatures.MOST_HIDDEN}: name the type"


def test_each_ignored_type_error_names_its_code_and_the_reason():
    lines = [
        (f"{file.relative_to(ROOT)}:{number}: {line.strip()}", line)
        for file in sorted(LABKIT.rglob("*.py"))
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if IGNORED.search(line)
    ]
    unexplained = [place for place, line in lines if not EXPLAINED.search(line)]
    assert not unexplained, f"{unexplained[0]}   (write: # type: ignore[CODE]  # WHY; mypy prints the code)"
    assert len(lines) <= MOST_IGNORED, f"{len(lines)} types are ignored, at most {MOST_IGNORED}: mend the newest"
