"""How often public signatures say `Any`: `make lint` prints the number, and a test holds that it does not grow."""

import ast
from collections.abc import Iterator
from pathlib import Path

LABKIT = Path(__file__).parent.parent / "labkit"
MOST = 79


def count() -> int:
    """The `Any` in the parameters and results of labkit's public functions and of its public classes' methods."""
    files = sorted(LABKIT.rglob("*.py"))
    return sum(_anys(function) for file in files for function in _public(ast.parse(file.read_text()).body))


def _public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for statement in body:
        match statement:
            case ast.ClassDef() if not statement.name.startswith("_"):
                yield from _public(statement.body)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if name == "__init__" or not name.startswith("_"):
                    yield statement


def _anys(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    found = [argument.annotation for argument in ast.walk(function.args) if isinstance(argument, ast.arg)]
    annotations = [annotation for annotation in (*found, function.returns) if annotation is not None]
    names = [name for annotation in annotations for name in ast.walk(_unquoted(annotation))]
    return sum(isinstance(name, ast.Name) and name.id == "Any" for name in names)


def _unquoted(annotation: ast.expr) -> ast.expr:
    quoted = isinstance(annotation, ast.Constant) and isinstance(annotation.value, str)
    return ast.parse(annotation.value, mode="eval").body if quoted else annotation


if __name__ == "__main__":
    print(f"Any in the signatures of public functions: {count()}, at most {MOST}")
