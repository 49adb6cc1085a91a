"""Who may import whom: what the doctor needs on EKS works without the emulator, and its two halves stay apart."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LABKIT = Path(__file__).parent.parent / "labkit"
RULES = [
    # (these modules, may not import these)
    (
        ("policy", "tokens", "webhook", "findings", "steps", "evidence", "doctor", "lab", "widgets"),
        ("labkit.emulator", "moto"),
    ),
    (
        (
            "targets/eks",
            "targets/eks_access",
            "targets/eks_cluster",
            "targets/eks_plan",
            "targets/account",
            "operator_policy",
        ),
        ("labkit.emulator", "moto"),
    ),
    (("policy", "tokens"), ("boto3", "botocore", "kubernetes", "httpx")),
    (("emulator/aws",), ("labkit.emulator.kubernetes", "labkit.emulator.cluster", "labkit.emulator.server")),
    (("emulator/kubernetes",), ("labkit.emulator.aws", "labkit.emulator.cluster", "labkit.emulator.server", "moto")),
    (("emulator",), ("labkit.lab", "labkit.steps", "labkit.targets", "labkit.findings")),
]


def modules(name: str) -> list[Path]:
    """The files of a module or a package below labkit/."""
    return sorted((LABKIT / name).rglob("*.py")) or [LABKIT / f"{name}.py"]


def imports(file: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


CASES = [(file, forbidden) for names, forbidden in RULES for name in names for file in modules(name)]


@pytest.mark.parametrize(("file", "forbidden"), CASES, ids=lambda value: getattr(value, "stem", None))
def test_imports_keep_to_the_layout(file, forbidden):
    broken = {name for name in imports(file) if any(name == f or name.startswith(f + ".") for f in forbidden)}
    assert not broken, f"{file.relative_to(LABKIT)} imports {broken}"


def test_the_command_starts_without_the_slow_libraries():
    code = "import sys, labkit.cli; print(*{'boto3', 'kubernetes', 'moto', 'papermill'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
