"""The contents page in learn/: the course, the learner's progress, the next thing to do, and a glossary.

The learner's notebooks link to this page instead of the README, which isn't beside learn/, and instead of two pages of
the manual.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from labkit.course import progress, schedule

if TYPE_CHECKING:
    from labkit.course.progress import Progress
    from labkit.course.widgets.question import Questions

PACKAGE = Path(__file__).parents[1]
# The notebooks are inside the package in a wheel, and beside it in a checkout. The README is in the folder above them.
NOTEBOOKS = PACKAGE / "notebooks" if (PACKAGE / "notebooks").is_dir() else PACKAGE.parent / "notebooks"
LIST_NOTEBOOKS = f"ls {quote(str(NOTEBOOKS))}"
NAME = "contents.ipynb"
MANUAL = "manual"  # the folder of the manual's pages, beside the notebooks
CLEAN_UP = "99-clean-up.ipynb"
# The step that a notebook teaches, by the notebook's number.
STEPS = {"01": "oidc_provider", "02": "iam_role", "03": "service_account", "04": "pod", "05": "credentials"}

TITLE = """# IAM Roles for Service Accounts (IRSA): contents

A pod on Amazon EKS needs AWS credentials, but nobody should store a key in it. Here you learn by doing how a pod gets
credentials without a stored key.

![One step of IRSA after the other, between you, the cluster and AWS](pictures/steps-in-motion.svg)

Try it: click into the cell below, and press Shift+Enter. Its first line links to the next notebook."""
CELL = """# Shift+Enter reads your progress again.
import labkit

labkit.contents.read()"""
REVIEW = """# Shift+Enter asks the questions that are due, five at most.
import labkit

labkit.contents.review()"""
TERMINAL = """The notebooks in this folder are yours. `labkit lab --fresh 02` starts notebook 02 over. Don't edit this
page: `labkit lab` writes it again at each start.

## In a terminal

In a terminal of this JupyterLab (*File*, *New*, *Terminal*), `aws`, `kubectl` and `labkit` talk to the lab already. In
any other terminal, first run the line that `labkit lab` printed. It ends in `eval "$(labkit env)"`. The
[manual](manual/index.md) lists every command.

`kubectl` isn't a Python package: use `apt-get install kubectl` or `brew install kubernetes-cli`. You need `kubectl`
only for the notebooks' `bash` boxes."""

# A notebook's metadata about its kernel. If a part is missing, JupyterLab adds it and marks the notebook as unsaved.
# ipykernel has the same values, but each start of `labkit lab` would wait for its import.
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
EXERCISE = re.compile(r'lab\.exercise\("(\w+-[a-z])"\)')
# The beginning of a question in text output.
QUESTION = re.compile(r"^(\d\d-\d+)  ", re.M)
LINK = re.compile(r"\]\((?P<page>[\w./-]+\.md)(?:#(?P<anchor>[\w-]+))?\)")
# Pages that a learner's notebook doesn't link to, and the heading of the contents page that it links to instead.
REPLACED = {"../README.md": "", "manual/terminal.md": "in-a-terminal", "manual/words.md": "words"}


@dataclass(frozen=True)
class Chapter:
    """A notebook of the course, and the learner's progress in this notebook."""

    name: str
    label: str
    about: str
    """A sentence about the notebook."""
    time: str
    """The time that the notebook takes, as text, such as `~8 minutes`."""
    done: str
    left: Sequence[str]
    """The remaining tasks, such as `exercise 02-a in`. The page adds the notebook's link to the end of each task."""
    begun: bool
    share: float | None
    """How much is done, from 0 to 1; `None` if the notebook has no task."""

    @property
    def link(self) -> str:
        """The link to the learner's copy of the notebook, in Markdown."""
        return f"[{self.label}]({self.name})"


@dataclass(frozen=True, repr=False)
class Contents:
    """The course's notebooks, and the next thing to do."""

    chapters: Sequence[Chapter]
    next: str
    """The next thing to do, in Markdown."""
    unread: int
    """The number of unreadable lines in the progress file."""
    due: int = 0
    """The number of questions that are due for a review."""

    def __repr__(self) -> str:
        lines = [f"{each.label}: {each.time}. {each.done}".rstrip(" .") for each in self.chapters]
        return "\n".join([re.sub(r"\[(.+?)\]\(.+?\)", r"\1", self.next), *self._review, *lines])

    @property
    def _review(self) -> list[str]:
        return [f"Review: {self.due} due, two minutes: run the cell below."] if self.due else []

    def _repr_markdown_(self) -> str:
        rows = [f"| {each.link} | {each.about} | {each.time} | {_with_bar(each)} |" for each in self.chapters]
        table = "\n".join(["| notebook | what happens | time | what you've done |", "| :-- | :-- | :-- | :-- |", *rows])
        unread = progress.not_counted(self.unread) if self.unread else ""
        shares = [each.share for each in self.chapters if each.share is not None]
        whole = f"{_bar(sum(shares) / len(shares), 'the course')} {shares.count(1)} of {len(shares)} notebooks done"
        return "\n\n".join(filter(None, [f"**Next:** {self.next}", whole, *self._review, table, unread]))


def read(file: Path | None = None) -> Contents:
    """Return the course's contents, with the progress in `file`.

    `file` defaults to the progress file of the running JupyterLab.
    """
    done = progress.read(file)
    chapters = [_chapter(row, done) for row in ROW.finditer(_readme()) if (NOTEBOOKS / row["name"]).is_file()]
    return Contents(chapters, _next(chapters), done.unread, _due(file))


def review() -> "Questions":
    """Ask the questions that are due, five at most."""
    from labkit.course import review as questions

    return questions.of_all()


def page(file: Path) -> str:
    """Return the contents page as the text of a notebook. The output of its code cell shows the progress in `file`.

    https://nbformat.readthedocs.io/en/latest/format_description.html
    """
    now = read(file)
    shown = {"text/plain": repr(now), "text/markdown": now._repr_markdown_()}
    output = {"output_type": "display_data", "data": shown, "metadata": {}}
    code = {"cell_type": "code", "execution_count": None, "outputs": [output]}
    cells = [("contents", TITLE, MARKDOWN), ("progress", CELL, code), ("review", REVIEW, code | {"outputs": []})]
    cells += [(f"words-{number}", text, MARKDOWN) for number, text in enumerate(_texts(), start=1)]
    notebook = {
        "cells": [{"id": id, "source": source, "metadata": {}, **kind} for id, source, kind in cells],
        "metadata": METADATA,
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    # Written without nbformat, which takes half a second to import at each start.
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def relinked(markdown: str, folder: Path = NOTEBOOKS) -> str:
    """Return a text of `folder` with links that work in learn/ and in JupyterLab.

    Links to the pages in `REPLACED` lead to the contents page.
    """

    def link(match: re.Match[str]) -> str:
        page, anchor = match["page"], match["anchor"]
        if page in REPLACED:
            return f"]({NAME}{_anchors(_texts()).get(anchor or REPLACED[page], '')})"
        return f"]({page}{_anchors([(folder / page).read_text(encoding='utf-8')])[anchor] if anchor else ''})"

    return LINK.sub(link, markdown)


def _due(file: Path | None) -> int:
    """Return the number of questions that are due."""
    if not schedule.read(file):
        return 0  # without the questions' texts, which take time to load
    from labkit.course import review as questions

    return len(questions.due(file))


def _chapter(row: re.Match[str], done: "Progress") -> Chapter:
    number = row["name"].partition("-")[0]
    time, exercises, questions = _tasks(row["name"])
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
    parts = [f"exercises {len(solved)} of {len(exercises)}"] if exercises else []
    parts += [f"questions {len(answered)} of {len(questions)}"]
    parts += ["step checked"] if checked else []
    said = f"{'' if left else '✓ '}{', '.join(parts)}" if begun else ""
    tasks = len(exercises) + len(questions) + bool(step)
    share = (len(solved) + len(answered) + checked) / tasks if tasks else None
    return Chapter(row["name"], row["label"], row["about"], time, said, left, begun, share)


def _examination(row: re.Match[str], time: str, done: "Progress") -> Chapter:
    is_over = done.examination is not None and not done.examination["left"]
    left = [] if is_over else ["go on with"]
    said = f"{'✓ ' if is_over else ''}{done.score}"
    return Chapter(row["name"], row["label"], row["about"], time, said, left, bool(done.examination), float(is_over))


def _with_bar(chapter: Chapter) -> str:
    return f"{_bar(chapter.share, chapter.label)}<br>{chapter.done}" if chapter.begun and chapter.left else chapter.done


def _bar(share: float | None, about: str) -> str:
    """Return a bar for Markdown, of a share from 0 to 1. JupyterLab keeps the element, and screen readers say it."""
    return f'<progress value="{share or 0:.2f}" title="{about}"></progress>'


def _next(chapters: Sequence[Chapter]) -> str:
    for each in chapters:
        if each.left:
            return f"{each.left[0]} {each.link}." if each.begun else f"{each.link}, {each.time}."
    end = next(each for each in chapters if each.name == CLEAN_UP)
    return f"{end.link}. You have finished everything on this page."


@cache
def _tasks(name: str) -> tuple[str, list[str], list[str]]:
    """Return how long a notebook takes (e.g. `~8 minutes`), the ids of its exercises, and the ids of its questions."""
    # Importing the modules that define the exercises would take longer.
    cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    time = TIME.search("".join(cells[0]["source"]))
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    exercises = [id for cell in code for id in EXERCISE.findall("".join(cell["source"]))]
    texts = ["".join(output.get("data", {}).get("text/plain", "")) for cell in code for output in cell["outputs"]]
    # The questions that come back belong to earlier notebooks.
    questions = [id for text in texts for id in QUESTION.findall(text) if name.startswith(id[:3])]
    return time[1] if time else "", exercises, questions


@cache
def _readme() -> str:
    return (NOTEBOOKS.parent / "README.md").read_text(encoding="utf-8")


@cache
def _texts() -> list[str]:
    """Return the contents page's sections that the notebooks link to."""
    sections = re.findall(r"^## (?:The eleven steps|Boxes and cells)\n.*?(?=^## |\Z)", _readme(), re.M | re.S)
    shown = [
        each.strip().replace("](notebooks/", "](").replace("](manual/terminal.md", "](#In-a-terminal")
        for each in sections
    ]
    words = (NOTEBOOKS / MANUAL / "words.md").read_text(encoding="utf-8")
    # The page has headings of a deeper level for the words.
    words = re.sub("^#", "##", words, flags=re.M).strip()
    return [TERMINAL, *shown, *re.split(r"\n+(?=### )", words)]


def _anchors(texts: Sequence[str]) -> dict[str, str]:
    """Return the anchors of the texts' headings.

    A key is a heading's anchor on a code host, such as `words`. The value is the heading's anchor in
    JupyterLab, such as `#Words`.
    """
    headings = re.findall(r"^#+ (.+)$", "\n".join(texts), re.M)
    return {heading.lower().replace(" ", "-"): "#" + heading.replace(" ", "-") for heading in headings}
