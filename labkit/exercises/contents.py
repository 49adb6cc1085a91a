"""The contents page of learn/: the course, what the learner has done, what comes next, and the course's words.

`labkit lab` writes it again at each start. In the learner's copies it stands in the place of the README, so that no
link leads out of learn/: a wheel is installed without a checkout around it.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.exercises import progress

if TYPE_CHECKING:
    from labkit.exercises.progress import Progress

PACKAGE = Path(__file__).parents[1]
# A wheel carries the notebooks inside the package; in a checkout they lie beside it. The README lies above them.
NOTEBOOKS = PACKAGE / "notebooks" if (PACKAGE / "notebooks").is_dir() else PACKAGE.parent / "notebooks"
NAME = "contents.ipynb"
CLEAN_UP = "99-clean-up.ipynb"
# The step that a notebook teaches, by its number.
STEPS = {"01": "oidc_provider", "02": "iam_role", "03": "service_account", "04": "pod", "05": "credentials"}

TITLE = """# IAM Roles for Service Accounts (IRSA): contents

A pod on Amazon EKS needs AWS credentials, and nobody should give it a key. Here you learn by doing how it gets them.

The notebooks in this folder are yours; `labkit lab --fresh 02` starts one over. This page isn't: `labkit lab` writes it
again each time."""
CELL = """# Shift+Enter reads your progress again.
from labkit.exercises import contents

contents.read()"""
TERMINAL = """## In a terminal

In a terminal of this JupyterLab (*File*, *New*, *Terminal*), `aws`, `kubectl` and `labkit` talk to the lab already. In
any other one, first run the line that `labkit lab` printed, which ends in `eval "$(labkit env)"`.

`kubectl` isn't a Python package: use `apt-get install kubectl` or `brew install kubernetes-cli`. Only the `bash` boxes
need it. `labkit --help` lists what `labkit` can do."""

# What a notebook says of its kernel. JupyterLab adds what is missing as soon as it opens the notebook, and marks it as
# unsaved. Each start of `labkit lab` would wait for the import of ipykernel, which has the same words.
METADATA: dict[str, Any] = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
        "version": sys.version.split()[0],
    },
}
MARKDOWN: dict[str, Any] = {"cell_type": "markdown"}

ROW = re.compile(r"^\| \[(?P<label>.+?)\]\(notebooks/(?P<name>.+?\.ipynb)\) \| (?P<about>.+?) \|$", re.M)
TIME = re.compile(r"^Time: (.+?)\.", re.M)
EXERCISE = re.compile(r'lab\.exercise\("(\d\d-[a-z])"\)')
# A question begins so where it is shown as text.
QUESTION = re.compile(r"^(\d\d-\d+)  ", re.M)
TO_README = re.compile(r"\]\(\.\./README\.md(?:#([\w-]+))?\)")


@dataclass(frozen=True)
class Chapter:
    """A notebook of the course, and what is done and left in it."""

    name: str
    label: str
    about: str
    """What happens in it."""
    time: str
    """How long it takes, in its own words."""
    done: str
    left: Sequence[str]
    """What the learner has not done yet, as what to do next."""
    begun: bool

    @property
    def link(self) -> str:
        """The link to the learner's copy, in Markdown."""
        return f"[{self.label}]({self.name})"


@dataclass(frozen=True, repr=False)
class Contents:
    """The course's notebooks, and what comes next; a notebook shows them as a table."""

    chapters: Sequence[Chapter]
    next: str
    """What to do next, in Markdown."""
    unread: int
    """Lines of the learner's progress that can't be read."""

    def __repr__(self) -> str:
        lines = [f"{each.label}: {each.time}. {each.done}".rstrip(" .") for each in self.chapters]
        return "\n".join([re.sub(r"\[(.+?)\]\(.+?\)", r"\1", self.next), *lines])

    def _repr_markdown_(self) -> str:
        rows = [f"| {each.link} | {each.about} | {each.time} | {each.done} |" for each in self.chapters]
        table = "\n".join(["| notebook | what happens | time | what you've done |", "| :-- | :-- | :-- | :-- |", *rows])
        unread = progress.not_counted(self.unread) if self.unread else ""
        return "\n\n".join(filter(None, [f"**Next:** {self.next}", table, unread]))


def read(file: Path | None = None) -> Contents:
    """The course, and what the learner has done by this file of progress; without it, by the running JupyterLab's."""
    done = progress.read(file)
    chapters = [_chapter(row, done) for row in ROW.finditer(_readme()) if (NOTEBOOKS / row["name"]).is_file()]
    return Contents(chapters, _next(chapters, done.last), done.unread)


def page(file: Path) -> str:
    """The page as a notebook's text, in which the learner's progress, from this file, is the output of the code cell.

    https://nbformat.readthedocs.io/en/latest/format_description.html
    """
    now = read(file)
    shown = {"text/plain": repr(now), "text/markdown": now._repr_markdown_()}
    output = {"output_type": "display_data", "data": shown, "metadata": {}}
    code = {"cell_type": "code", "execution_count": None, "outputs": [output]}
    cells = [("contents", TITLE, MARKDOWN), ("progress", CELL, code)]
    cells += [(f"words-{number}", text, MARKDOWN) for number, text in enumerate(_texts(), start=1)]
    notebook = {
        "cells": [{"id": id, "source": source, "metadata": {}, **kind} for id, source, kind in cells],
        "metadata": METADATA,
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    # Not by nbformat: its import takes half a second of each start.
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def led(markdown: str) -> str:
    """The text of a notebook, with its links to the README led to the contents page."""
    anchors = _anchors()
    return TO_README.sub(lambda link: f"]({NAME}{anchors.get(link[1], '')})", markdown)


def _chapter(row: re.Match[str], done: "Progress") -> Chapter:
    number = row["name"].partition("-")[0]
    time, exercises, questions = _asked(row["name"])
    solved = [id for id in exercises if id in done.solved]
    answered = [id for id in questions if id in done.answered]
    step = STEPS.get(number)
    checked = step in done.steps
    begun = bool(solved or answered or checked or any(id in done.opened or id in done.hints for id in exercises))
    if row["name"] == f"{progress.EXAMINATION}.ipynb":
        return _examination(row, time, done)
    left = [f"exercise {id} in" for id in exercises if id not in done.solved]
    if step and not checked:
        left.append(f'`lab.check("{step}")` in')
    if unanswered := len(questions) - len(answered):
        left.append(f"{unanswered} {'question' if unanswered == 1 else 'questions'} in")
    told = [f"exercises {len(solved)} of {len(exercises)}"] if exercises else []
    told += [f"questions {len(answered)} of {len(questions)}"]
    told += ["step checked"] if checked else []
    said = f"{'' if left else '✓ '}{', '.join(told)}" if begun else ""
    return Chapter(row["name"], row["label"], row["about"], time, said, left, begun)


def _examination(row: re.Match[str], time: str, done: "Progress") -> Chapter:
    is_over = done.examination is not None and not done.examination["left"]
    left = [] if is_over else ["go on with"]
    said = f"{'✓ ' if is_over else ''}{done.score}"
    return Chapter(row["name"], row["label"], row["about"], time, said, left, begun=bool(done.examination))


def _next(chapters: Sequence[Chapter], last: str) -> str:
    """Return the next thing to do: first in the learner's last notebook, then in those after it, then before it."""
    numbers = [each.name.partition("-")[0] for each in chapters]
    steps = {step: number for number, step in STEPS.items()}
    number = steps.get(last, last.partition("-")[0])
    start = numbers.index(number) if number in numbers else 0
    for each in (*chapters[start:], *chapters[:start]):
        if each.left:
            return f"{each.left[0]} {each.link}." if each.begun else f"{each.link}, {each.time}."
    end = next(each for each in chapters if each.name == CLEAN_UP)
    return f"{end.link}. You have finished everything on this page."


@cache
def _asked(name: str) -> tuple[str, list[str], list[str]]:
    """How long a notebook takes, its exercises and its questions. Read from its text: to import them takes a second."""
    cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    time = TIME.search("".join(cells[0]["source"]))
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    exercises = [id for cell in code for id in EXERCISE.findall("".join(cell["source"]))]
    questions = [id for cell in code for output in cell["outputs"] for id in QUESTION.findall(_plain(output))]
    return time[1] if time else "", exercises, questions


def _plain(output: dict[str, Any]) -> str:
    return "".join(output.get("data", {}).get("text/plain", ""))


@cache
def _readme() -> str:
    return (NOTEBOOKS.parent / "README.md").read_text(encoding="utf-8")


def _texts() -> list[str]:
    """What the notebooks link to, one text a heading."""
    steps, words = (_section(heading) for heading in ("The eleven steps", "Words"))
    return [TERMINAL, steps.replace("](notebooks/", "]("), *re.split(r"\n+(?=### )", words)]


def _section(heading: str) -> str:
    found = re.search(rf"^## {heading}\n.*?(?=^## |\Z)", _readme(), re.M | re.S)
    return found[0].strip() if found else ""


@cache
def _anchors() -> dict[str, str]:
    """How a link leads to a heading of the page: by its name on a code host, the anchor that JupyterLab gives it."""
    headings = re.findall(r"^#+ (.+)$", "\n".join(_texts()), re.M)
    return {heading.lower().replace(" ", "-"): "#" + heading.replace(" ", "-") for heading in headings}
