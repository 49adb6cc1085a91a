"""`make mutants`: one thing in the code is made another, and a test has to fail.

Of the code that decides who gets in, by the tests that need no lab. SAMPLE=100 tries so many, and another hundred with
another SEED; without, it tries all, which takes hours.
"""

import ast
import contextlib
import os
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parents[1]
TESTS = {
    "labkit/policy/*.py": ("tests/policy",),
    "labkit/tokens.py": ("tests/test_tokens.py",),
    "labkit/webhook/review.py": ("tests/webhook/test_review.py",),
    "labkit/emulator/aws/web_identity.py": ("tests/emulator/aws/test_any_token.py",),
}
LONGEST = 300  # seconds: a test that doesn't end has noticed
OTHERS = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change in a file; `code` is all of it, changed."""

    file: Path
    line: int
    change: str
    code: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}  {self.change}"


def main() -> None:
    every = [
        mutant for pattern, tests in TESTS.items() for file in sorted(ROOT.glob(pattern)) for mutant in of(file, tests)
    ]
    sample = int(os.environ.get("SAMPLE") or len(every))
    drawn = random.Random(int(os.environ.get("SEED") or 0)).sample(every, min(sample, len(every)))
    survived = 0
    for number, mutant in enumerate(drawn, 1):
        if is_killed(mutant):
            continue
        survived += 1
        print(f"survived ({number} tried): {mutant}", flush=True)
    print(f"{len(drawn) - survived} of {len(drawn)} killed; there are {len(every)}")


def of(file: Path, tests: tuple[str, ...]) -> Iterator[Mutant]:
    """The mutants of a file."""
    for number in range(len([*_places(ast.parse(file.read_text()))])):
        tree = ast.parse(file.read_text())
        node, change = [*_places(tree)][number]
        before = ast.unparse(node)
        change()
        after = ast.unparse(ast.fix_missing_locations(node))
        yield Mutant(file, node.lineno, f"{_short(before)}  ->  {_short(after)}", ast.unparse(tree), tests)


def _places(tree: ast.AST) -> Iterator[tuple]:
    for node in ast.walk(tree):
        match node:
            case ast.Compare(ops=[operator]) if type(operator) in OTHERS:
                yield node, lambda node=node, of=type(operator): node.ops.__setitem__(0, OTHERS[of]())
            case ast.BoolOp():
                yield node, lambda node=node: setattr(node, "op", OTHERS[type(node.op)]())
            case ast.If() | ast.IfExp():
                yield node.test, lambda node=node: _negate(node)
            case ast.Return(value=value) if value is not None and not _gives_none(value):
                yield node, lambda node=node: setattr(node, "value", ast.Constant(None))
            case ast.Constant(value=bool() | int() as value):
                yield (
                    node,
                    lambda node=node, value=value: setattr(
                        node, "value", not value if isinstance(value, bool) else value + 1
                    ),
                )


def _negate(node: ast.If | ast.IfExp) -> None:
    # In place: what is shown of the change is this node.
    test = ast.parse(ast.unparse(node.test), mode="eval").body
    node.test.__class__ = ast.UnaryOp
    node.test.__dict__.update(op=ast.Not(), operand=test)


def _gives_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _short(text: str) -> str:
    return " ".join(text.split())[:70]


def is_killed(mutant: Mutant) -> bool:
    """Whether a test fails, in a process of its own that has the mutant in place of the code."""
    child = os.fork()
    if not child:
        signal.alarm(LONGEST)
        with Path(os.devnull).open("wb") as nothing:
            for descriptor in (1, 2):
                os.dup2(nothing.fileno(), descriptor)
        code = SourceFileLoader.get_code
        SourceFileLoader.get_code = lambda loader, name: (
            compile(mutant.code, loader.path, "exec") if Path(loader.path) == mutant.file else code(loader, name)
        )
        failed = 1
        with contextlib.suppress(BaseException):
            failed = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *mutant.tests])
        os._exit(int(failed))
    return os.waitpid(child, 0)[1] != 0


if __name__ == "__main__":
    hypothesis.settings.register_profile("few", max_examples=20, derandomize=True, database=None)
    hypothesis.settings.load_profile("few")
    os.chdir(ROOT)
    sys.exit(main())
