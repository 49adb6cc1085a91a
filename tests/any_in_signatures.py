"""Count `Any`, and aliases that hide it, in public signatures. `make lint` prints both counts; a test limits them."""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST = 78
MOST_HIDDEN = 216


def count() -> int:
    """Count `Any` in the parameters and results of labkit's public functions and its public classes' methods."""
    return _count(lambda _, part: isinstance(part, ast.Name) and part.id == "Any")


def count_hidden() -> int:
    """Count the modules' aliases there that hide `Any`, such as ``Document = dict[str, Any]``."""
    return _count(_hides_any)


def _count(counts: Callable[[str, ast.AST], bool]) -> int:
    functions = ((module, function) for module in _modules() for function in _public(_modules()[module].body))
    return sum(counts(module, part) for module, function in functions for part in _annotated(function))


@cache
def _modules() -> dict[str, ast.Module]:
    files = sorted((ROOT / "labkit").rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return {name: ast.parse(file.read_text()) for name, file in zip(names, files, strict=True)}


def _public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for statement in body:
        match statement:
            case ast.ClassDef() if not statement.name.startswith("_"):
                yield from _public(statement.body)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if name == "__init__" or not name.startswith("_"):
                    yield statement


def _annotated(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    """All parts of the annotations of a function's parameters and result."""
    annotations = [argument.annotation for argument in ast.walk(function.args) if isinstance(argument, ast.arg)]
    for annotation in (*annotations, function.returns):
        if annotation is not None:
            yield from ast.walk(_unquoted(annotation))


def _unquoted(annotation: ast.expr) -> ast.expr:
    quoted = isinstance(annotation, ast.Constant) and isinstance(annotation.value, str)
    return ast.parse(annotation.value, mode="eval").body if quoted else annotation


def _hides_any(module: str, part: ast.AST) -> bool:
    """Whether this name, seen in a module, is an alias of a type with `Any` in it."""
    match part:
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            source, below = _imported(module).get(owner, ("", ""))
            return _is_alias(f"{source}.{below}", name)
        case ast.Name(id=name):
            return _is_alias(module, name)
    return False


@cache
def _is_alias(module: str, name: str) -> bool:
    if value := _aliases(module).get(name):
        parts = list(ast.walk(value))
        return any((isinstance(part, ast.Name) and part.id == "Any") or _hides_any(module, part) for part in parts)
    source, original = _imported(module).get(name, ("", ""))
    return bool(source) and _is_alias(source, original)


@cache
def _aliases(module: str) -> dict[str, ast.expr]:
    """The names at the top of a module that stand for a type: ``Object = dict[str, Any]``."""
    body = _modules()[module].body if module in _modules() else []
    return {
        target.id: statement.value
        for statement in body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Subscript | ast.BinOp | ast.Name)
        for target in statement.targets
        if isinstance(target, ast.Name) and target.id[0].isupper() and not target.id.isupper()
    }


@cache
def _imported(module: str) -> dict[str, tuple[str, str]]:
    """The names that a module imports from labkit, each with the module and the name that it has there."""
    parts = ast.walk(_modules()[module]) if module in _modules() else []
    return {
        name.asname or name.name: (part.module, name.name)
        for part in parts
        if isinstance(part, ast.ImportFrom) and (part.module or "").startswith("labkit") and part.module != module
        for name in part.names
    }


if __name__ == "__main__":
    print(f"Any in the signatures of public functions: {count()}, at most {MOST}")
    print(f"hidden there by an alias: {count_hidden()}, at most {MOST_HIDDEN}")
