"""Keep phrases that stop a reader out of code, messages, notebooks and pages. Each has a plainer one beside it."""

import json
import re
from bisect import bisect
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("*.md", "Makefile", "notebooks/*.md", "tests/**/*.md")
CODE = ("labkit/**/*.py", "labkit/**/*.yaml", "labkit/**/*.js", "notebooks/book/*.py", "tests/**/*.py")
NOTEBOOKS = "notebooks/*.ipynb"
# This module quotes what it bans, and the recorded contract is a copy: its words are not ours to change.
NOT_OURS = {Path(__file__), *ROOT.glob("tests/contract/*")}
FILES = sorted({file for glob in (*PAGES, *CODE, NOTEBOOKS) for file in ROOT.glob(glob)} - NOT_OURS)
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
# A phrase, what to write instead, and a line that has it.
BANNED = [
    (r"[Ww]hat is there", "the resource, or its name", "look at what is there"),
    (r"[Ww]hat was (?:there|read)", "the resource; the evidence", "leave what was there"),
    (r"[Ww]hat is raised", "the error", "what is raised is why"),
    (r"[Ww]hat lacks", "what is missing", "it says what lacks"),
    (r"(?:that|which|it|One that) (?:is|are|was) not there", "missing; doesn't exist", "a bucket that is not there"),
    (r"(?:[Ii]s|[Aa]re) none(?! of)", "doesn't exist; isn't one of", "an answer that is none"),
    # "There is no bucket" is plain; "it is no bucket" isn't.
    (r"(?<!here )[Ii]s no(?! longer)(?= \w)", "is not a", "this is no bucket"),
    (r"of somebody", "the owner", "a pod of somebody else"),
    (r"[Bb]ears?", "carries", "the tag that a role bears"),
    (r"[Aa]new", "again", "read it anew"),
    (r"[Ww]hom", "who; which", "whom it admits"),
    (r"to be had", "could not be fetched", "it is not to be had"),
    (r"as it was(?! \w+(?:ed|wn|ten|ilt|ent)\b)", "unchanged; as before", "leave it as it was."),
    (r"[Nn]obody(?:'| )s", "belongs to nobody", "nobody's role"),
    (r"[Ww]hose (?:it|a thing) is", "the owner", "it says whose it is"),
    (r"[Ww]ithout what", "without the", "the pod without what the webhook added"),
    (r"[Ww]ithout a word", "without complaint", "IAM took it without a word"),
    (r"not get on", "is stalled", "a rollout that does not get on"),
    (r"away with it", "delete it", "makes it so, or away with it"),
    (r"with this means", "with", "with this means, it's all of them"),
    (r"otherwise than", "differently from", "it ends otherwise than before"),
    (rf'(?<=""")(?:{"|".join(VERBS)})s', "Return, Give, Make", '"""Returns a token."""'),
]
ANY = re.compile("|".join(rf"\b(?:{turn})\b" for turn, _, _ in BANNED))
# The marks around the words of a wrapped line: a comment's sign, or the quotes of one of several joined strings.
AROUND = re.compile(r"""^\s*(?:#+|//|>|[frb]?["'](?!["']))?\s*|\s*["']?\s*$""")
# A fault's id, which readers may have written down, and a parameter of a request.
EXEMPT = ("cluster-made-anew", '"anew"')


@pytest.mark.parametrize("folder", ["labkit", "notebooks", "tests", "."])
def test_no_file_has_a_banned_phrase(folder):
    parts = {file: file.relative_to(ROOT).parts for file in FILES}
    files = [file for file in FILES if folder in (parts[file][0], "." if len(parts[file]) == 1 else "")]
    places = [f"{'/'.join(parts[file])}:{line}" for file in files for line in lines_to_change(written(file))]
    assert files and not places, "\n".join(["", *places])


@pytest.mark.parametrize(("turn", "instead", "line"), BANNED)
def test_each_banned_phrase_gets_a_plainer_one(turn, instead, line):
    assert lines_to_change(f"first\n{line}\n") == [f"2: {line}   (write: {instead})"]


@pytest.mark.parametrize(
    "wrapped",
    ["look at what is\nthere", "    # look at what is\n    # there", '    "look at what is "\n    f"there {now}"'],
)
def test_a_banned_phrase_across_two_lines_counts(wrapped):
    first, _ = wrapped.splitlines()
    assert lines_to_change(wrapped) == [f"1: {first.strip()}   (write: the resource, or its name)"]


def written(file: Path) -> str:
    """Return the text of a file as people read it: a notebook's cells, and a test's name as words."""
    text = file.read_text()
    if file.suffix == ".ipynb":
        return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return re.sub(r"(?<=def )test_\w+", lambda name: name[0].replace("_", " "), text)


def lines_to_change(text: str) -> list[str]:
    """Return the lines where a banned phrase begins, each with its number and the plainer phrase."""
    lines, starts, unwrapped = text.splitlines(), [], ""
    for line in lines:
        starts.append(len(unwrapped))
        unwrapped += AROUND.sub("", line) + " "
    if not ANY.search(unwrapped):
        return []
    phrases = [
        (bisect(starts, match.start()), instead)
        for turn, instead, _ in BANNED
        for match in re.finditer(rf"\b(?:{turn})\b", unwrapped)
    ]
    return [
        f"{number}: {line}   (write: {instead})"
        for number, instead in sorted(phrases)
        if not any(exempt in (line := lines[number - 1].strip()) for exempt in EXEMPT)
    ]
