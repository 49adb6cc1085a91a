"""The code's own words: one meaning each. CONTRIBUTING.md lists them, under "Words in the code"."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

LABKIT = Path(__file__).parent.parent / "labkit"
# These words say nothing about a thing, or mean several: the field has a term for each.
RETIRED = {
    "found": "say what it is, such as present, match, actual or findings",
    "asked": "call it request",
    "told": "call it message, reason or lines",
    "beside": "say where, such as in_thread",
    "null": "say what it means, such as required or none",
    "beyond": "call it out_of_range",
    "unmet": "say what must hold, such as must_satisfy",
}
# Terms of others: of HTTP, AWS and Kubernetes (ResourceNotFoundException), and of Python's logging.
OF_OTHERS = re.compile("NotFound|not_found|NOT_FOUND|NullHandler")
# A key of JSON that the lab prints and reads beside `expected`: the field of these classes, and of those with both.
JSON_KEY = "found"
OF_JSON = {"Comparison", "Finding", "Symptom"}
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def retired(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Each identifier that contains a retired word, with its line and the advice."""
    of_json = {id(node) for part in ast.walk(tree) for node in json_names(part)}
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                pass
            case ast.Name(id=name) | ast.arg(arg=name) | ast.alias(asname=str(name)) | ast.MatchAs(name=str(name)):
                pass
            case ast.ExceptHandler(name=str(name)) | ast.MatchStar(name=str(name)):
                pass
            case ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                pass
            case _:
                continue
        if id(node) not in of_json:
            yield from ((node.lineno, name, advice) for advice in advices(name))


def advices(name: str) -> list[str]:
    """The advice for each retired word in a name."""
    return [RETIRED[word] for word in RETIRED.keys() & {each.lower() for each in WORD.findall(OF_OTHERS.sub("", name))}]


def json_names(part: ast.AST) -> Iterator[ast.AST]:
    """Yield the names that are `JSON_KEY`: a field, its keyword and attribute, and an argument next to `expected`."""
    match part:
        case ast.Attribute(attr="found", ctx=ast.Load()):  # of a field, and each field is looked at where it's defined
            yield part
        case ast.Call(func=func, keywords=keywords):
            if getattr(func, "id", "") in OF_JSON or "expected" in {each.arg for each in keywords}:
                yield from (each for each in keywords if each.arg == JSON_KEY)
        case ast.ClassDef(name=name, body=body):
            fields = {
                getattr(field.target, "id", ""): field.target for field in body if isinstance(field, ast.AnnAssign)
            }
            if JSON_KEY in fields and (name in OF_JSON or "expected" in fields):
                yield fields[JSON_KEY]
        case ast.FunctionDef(args=args) if {"expected", JSON_KEY} <= {
            each.arg for each in [*args.args, *args.kwonlyargs]
        }:
            yield from (
                node for node in ast.walk(part) if JSON_KEY in (getattr(node, "arg", 0), getattr(node, "id", 0))
            )


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(LABKIT.rglob("*.py")):
        yield path.relative_to(LABKIT.parent), ast.parse(path.read_text())


def test_identifiers_use_no_retired_word():
    places = [f"{path}:{line}: {name}: {advice}" for path, tree in modules() for line, name, advice in retired(tree)]
    places += [f"{path}: {path.stem}: {advice}" for path, _ in modules() for advice in advices(path.stem)]
    folders = {path.parent for path, _ in modules()}
    places += [f"{folder}: {folder.name}: {advice}" for folder in sorted(folders) for advice in advices(folder.name)]
    assert not places, "\n".join([f"{len(places)} identifiers contain a retired word:", *places[:40]])


@pytest.mark.parametrize(("code", "names"), [
    ("is_told = 1", ["is_told"]),
    ("def f(asked): ...", ["asked"]),
    ("class FoundThing: ...", ["FoundThing"]),
    ("import labkit as beside", ["beside"]),
    ("x = Finding(found=1).found", []),
    ("class Finding:\n    found: str", []),
    ("class Refused:\n    told: str", ["told"]),
    ("found = 1", ["found"]),
    ("def symptom(expected, found): return Symptom(found=found)", []),
    ("def look(found): return found", ["found", "found"]),
    ("except_not_found = iam.exceptions.ResourceNotFoundException", []),
    ("foundation, annulled = 1, 2", []),
    ("try: ...\nexcept ValueError as asked: ...", ["asked"]),
    ("match x:\n    case [1, *told]: ...", ["told"]),
    ("class Miss:\n    wanted: str\n    found: str", ["found"]),
    ("class Wrong:\n    expected: str\n    found: str", []),
    ("Miss(wanted=1, found=2)", ["found"]),
    ("self.found = 1", ["found"]),
])  # fmt: skip
def test_a_retired_word_is_seen_as_a_word_of_its_own(code, names):
    assert [name for _, name, _ in retired(ast.parse(code))] == names


def test_a_class_name_has_one_meaning():
    places = defaultdict(list)
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{path}:{node.lineno}")
    twice = [f"class {name} stands in {' and '.join(all_of)}" for name, all_of in places.items() if len(all_of) > 1]
    assert not twice, "\n".join([*twice, "rename all but one: say which request, event or server it is"])
    assert "Kept" not in places, f"{places['Kept'][0]}: class Kept: name what is kept, such as Record"
