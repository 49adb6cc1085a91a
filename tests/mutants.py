"""`make mutants`: change one thing in the code, and check that a test fails.

It changes the code that decides who gets in, and runs the tests that need no lab. SAMPLE=100 tries a hundred changes,
and SEED draws other ones. Without SAMPLE it tries all, which takes an hour or two. FILE=labkit/tokens.py: one file.

It leaves out changes that no test can see, such as a dataclass's `frozen=True` or a cache's size. It also leaves out a
change that equals another one: `not a == b` is `a != b`, and in `return True` the constant is changed.
"""

import ast
import contextlib
import gc
import os
import random
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path

import hypothesis
import pytest

from tests import forked_commands

ROOT = Path(__file__).parents[1]
TESTS = {
    "labkit/policy/*.py": ["tests/policy"],
    "labkit/tokens.py": ["tests/test_tokens.py"],
    "labkit/webhook/review.py": ["tests/webhook/test_review.py"],
    "labkit/simulator/aws/web_identity.py": ["tests/simulator/aws/test_any_token.py",
        "tests/simulator/aws/test_role_sessions.py", "tests/simulator/aws/test_issuers.py",
        "tests/simulator/aws/test_gate.py", "tests/simulator/aws/test_refusals.py"],
}  # fmt: skip
# The tests named after a module run first, because most changes fail there. These modules share another one's tests.
AMONG = {"matching": "evaluation", "principals": "evaluation", "validation": "document"}
# A change that makes the tests need more than this counts as caught: seconds of CPU, and bytes.
LONGEST = 30
LARGEST = 4 * 2**30
UNSEEN = {"compare", "eq", "frozen", "init", "maxsize", "repr", "slots"}
EXACT = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OTHERS = EXACT | {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """The change with this number in a file."""

    file: Path
    number: int
    tests: list[str]

    def make(self) -> tuple[str, str]:
        """Return the file's code with the change, and the change in words."""
        tree = ast.parse(self.file.read_text())
        node, change = [*_places(tree)][self.number]
        before = ast.unparse(node)
        change()
        after = ast.unparse(ast.fix_missing_locations(node))
        description = f"{self.file.relative_to(ROOT)}:{node.lineno}  {_short(before)}  ->  {_short(after)}"
        return ast.unparse(tree), description


def main() -> None:
    """Print each change that no test catches."""
    every = [*_every(os.environ.get("FILE") or "labkit/**/*.py")]
    sample = int(os.environ.get("SAMPLE") or len(every))
    drawn = random.Random(int(os.environ.get("SEED") or 0)).sample(every, min(sample, len(every)))
    load(sorted({test for mutant in drawn for test in mutant.tests}))
    for file, tests in {mutant.file: mutant.tests for mutant in drawn}.items():
        if fails(file, file.read_text(), tests):
            sys.exit(f"{' '.join(tests)}: a test fails without a change")
    survived = 0
    for number, mutant in enumerate(drawn, 1):
        code, description = mutant.make()
        if not fails(mutant.file, code, mutant.tests):
            survived += 1
            print(f"survived ({number} tried): {description}", flush=True)
    print(f"{len(drawn) - survived} of {len(drawn)} killed; there are {len(every)}")


def _every(wanted: str) -> Iterator[Mutant]:
    files = set(ROOT.glob(wanted))
    for pattern, tests in TESTS.items():
        for file in sorted(files.intersection(ROOT.glob(pattern))):
            own = [f"{folder}/test_{AMONG.get(file.stem, file.stem)}.py" for folder in tests]
            first = [test for test in own if Path(test).exists()]
            for number in range(len([*_places(ast.parse(file.read_text()))])):
                yield Mutant(file, number, first + tests)


def _places(tree: ast.AST) -> Iterator[tuple]:
    keywords = [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg in UNSEEN]
    unseen = {inner for keyword in keywords for inner in ast.walk(keyword)}
    for node in ast.walk(tree):
        if node in unseen:
            continue
        match node:
            case ast.Compare(ops=[operator]) if type(operator) in OTHERS:
                yield node, lambda node=node, of=type(operator): node.ops.__setitem__(0, OTHERS[of]())
            case ast.BoolOp():
                yield node, lambda node=node: setattr(node, "op", OTHERS[type(node.op)]())
            case ast.If(test=test) | ast.IfExp(test=test) if not _is_exact(test):
                yield test, lambda node=node: _negate(node)
            case ast.Return(value=value) if value is not None and not _is_number(value):
                yield node, lambda node=node: setattr(node, "value", ast.Constant(None))
            case ast.Constant(value=bool() | int() as value):
                yield (
                    node,
                    lambda node=node, value=value: setattr(
                        node, "value", not value if isinstance(value, bool) else value + 1
                    ),
                )


def _is_exact(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and len(test.ops) == 1 and type(test.ops[0]) in EXACT


def _is_number(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and (value.value is None or isinstance(value.value, bool | int))


def _negate(node: ast.If | ast.IfExp) -> None:
    # Change the node in place, because the report shows this node.
    test = ast.parse(ast.unparse(node.test), mode="eval").body
    node.test.__class__ = ast.UnaryOp
    node.test.__dict__.update(op=ast.Not(), operand=test)


def _short(text: str) -> str:
    return " ".join(text.split())[:70]


def load(tests: list[str]) -> None:
    """Import the tests' libraries once for all mutants. Each mutant imports the project's own modules again."""
    # These tests call neither `aws` nor `labkit`. The servers for them would take most of a mutant's time.
    forked_commands.begin = lambda: lambda: None
    with _silence():
        pytest.main(["--collect-only", "-p", "no:cacheprovider", *tests])
    for name in [*sys.modules]:
        if name.startswith(("labkit", "tests")) and name != forked_commands.__name__:
            del sys.modules[name]
    gc.freeze()


def fails(file: Path, code: str, tests: list[str]) -> bool:
    """Return whether a test fails in a new process that runs this code instead of the file's."""
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (LONGEST, LONGEST))
        resource.setrlimit(resource.RLIMIT_AS, (LARGEST, LARGEST))
        get_code = SourceFileLoader.get_code
        SourceFileLoader.get_code = lambda loader, name: (
            compile(code, loader.path, "exec") if Path(loader.path) == file else get_code(loader, name)
        )
        failed = True
        with _silence(), contextlib.suppress(BaseException):
            failed = any(pytest.main(["-x", "-q", "-p", "no:cacheprovider", test]) for test in tests)
        os._exit(failed)
    return os.waitpid(child, 0)[1] != 0


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    kept = [os.dup(1), os.dup(2)]
    with Path(os.devnull).open("wb") as nothing:
        for descriptor in (1, 2):
            os.dup2(nothing.fileno(), descriptor)
    try:
        yield
    finally:
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


if __name__ == "__main__":
    hypothesis.settings.register_profile(
        "few",
        max_examples=20,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    hypothesis.settings.load_profile("few")
    os.chdir(ROOT)
    sys.exit(main())
