"""Turns that stop a reader are kept out of code, messages, notebooks and pages: each has a plainer one beside it."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("*.md", "Makefile", "notebooks/*.md")
CODE = ("labkit/**/*.py", "labkit/**/*.js", "notebooks/book/*.py", "tests/**/*.py")
NOTEBOOKS = "notebooks/*.ipynb"
# This module quotes what it bans.
FILES = sorted({file for glob in (*PAGES, *CODE, NOTEBOOKS) for file in ROOT.glob(glob)} - {Path(__file__)})
# A docstring begins with an imperative, or with the thing.
VERBS = (
    "Add",
    "Ask",
    "Create",
    "Edit",
    "Give",
    "Make",
    "Open",
    "Put",
    "Read",
    "Remove",
    "Return",
    "Run",
    "Show",
    "Start",
)
VERBS += ("Take", "Wait", "Write")
# A turn, what to write instead, and a line that has it.
BANNED = [
    (r"[Ww]hat is there", "the resource, or its name", "look at what is there"),
    (r"is none", "doesn't exist; isn't one of", "an answer that is none"),
    # "There is no bucket" is plain; "it is no bucket" isn't.
    (r"(?<!here )is no(?! longer)(?= \w)", "is not a", "this is no bucket"),
    (r"of somebody", "the owner", "a pod of somebody else"),
    (r"[Bb]ears?", "carries", "the tag that a role bears"),
    (r"[Aa]new", "again", "read it anew"),
    (r"[Ww]hom", "who; which", "whom it admits"),
    (r"to be had", "could not be fetched", "it is not to be had"),
    (r"as it was(?! \w+(?:ed|wn|ten|ilt|ent)\b)", "unchanged; as before", "leave it as it was."),
    (r"[Nn]obody's", "belongs to nobody", "nobody's role"),
    (r"with this means", "with", "with this means, it's all of them"),
    (r"otherwise than", "differently from", "it ends otherwise than before"),
    (rf'(?<=""")(?:{"|".join(VERBS)})s', "Return, Give, Make", '"""Returns a token."""'),
]
ANY = re.compile("|".join(rf"\b(?:{turn})\b" for turn, _, _ in BANNED))
# A fault's id, which stays for whoever wrote it down, and a query of a request.
EXEMPT = ("cluster-made-anew", '"anew"')


@pytest.mark.parametrize("folder", ["labkit", "notebooks", "tests", "."])
def test_no_banned_turn(folder):
    parts = {file: file.relative_to(ROOT).parts for file in FILES}
    files = [file for file in FILES if folder in (parts[file][0], "." if len(parts[file]) == 1 else "")]
    found = [f"{'/'.join(parts[file])}:{line}" for file in files for line in lines_to_change(written(file))]
    assert files and not found, "\n".join(["", *found])


@pytest.mark.parametrize(("turn", "instead", "line"), BANNED)
def test_each_turn_is_found(turn, instead, line):
    assert lines_to_change(f"first\n{line}\n") == [f"2: {line}   (write: {instead})"]


def written(file: Path) -> str:
    """Return the text of a file as people read it: a notebook's cells, and a test's name as words."""
    text = file.read_text()
    if file.suffix == ".ipynb":
        return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return re.sub(r"(?<=def )test_\w+", lambda name: name[0].replace("_", " "), text)


def lines_to_change(text: str) -> list[str]:
    """Return the lines that hold a banned turn, each with its number and the plainer turn."""
    if not ANY.search(text):
        return []
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if ANY.search(line)]
    return [
        f"{number}: {line}   (write: {instead})"
        for number, line in lines
        for turn, instead, _ in BANNED
        if re.search(rf"\b(?:{turn})\b", line) and not any(exempt in line for exempt in EXEMPT)
    ]
