"""What the guide knows of a notebook: its own goals, time and picture, and what leaders learned about teaching it."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from labkit.course import NOTEBOOKS, contents
from labkit.workshop.settings import Workshop, number

MINUTES = re.compile(r"\d+")
GOAL = re.compile(r"^- (.+)$", re.M)
PICTURE = re.compile(r"\((pictures/[\w-]+\.svg)\)")
INSIDE = re.compile(r"\[(.+?)\]\((?!https?:)[^)]*\)")


@dataclass(frozen=True)
class Stumble:
    """Where participants stumble."""

    sees: str
    """What the leader sees."""
    helps: str


@dataclass(frozen=True)
class NotebookAdvice:
    """What `notebooks.yaml` says of a notebook."""

    say: str
    stumbles: Sequence[Stumble]


@dataclass(frozen=True)
class TaughtNotebook:
    """A notebook of the class."""

    number: str
    label: str
    minutes: int
    """What the notebook claims."""
    goals: Sequence[str]
    """In Markdown; each goes on after "you can"."""
    picture: Path
    rank: int
    """Its place in the order in which a plan takes notebooks."""
    advice: NotebookAdvice


def of_class(workshop: Workshop) -> list[TaughtNotebook]:
    """Return the notebooks of the class that the guide has advice for, in the course's order."""
    numbers = {"00", *workshop.notebooks} if workshop.notebooks else set()
    chapters = [each for each in contents.read(Path(os.devnull)).chapters if advice_for(each.name)]
    return [_taught(each) for each in chapters if not numbers or number(Path(each.name)) in numbers]


def advice_for(name: str) -> str:
    """Return the key of the advice for a notebook's file; empty without advice."""
    slug = Path(name).stem.partition("-")[2]
    return slug if slug in advice() else ""


@cache
def advice() -> dict[str, NotebookAdvice]:
    """Return what `notebooks.yaml` says, by the notebooks' names without their numbers."""
    text = (Path(__file__).parent / "notebooks.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, NotebookAdvice]).validate_python(yaml.safe_load(text))


def without_inner_links(markdown: str) -> str:
    """Return Markdown in which links to the lab's own pages are plain text. The guide stands elsewhere."""
    return INSIDE.sub(r"\1", markdown)


def _taught(chapter: contents.Chapter) -> TaughtNotebook:
    cells = json.loads((NOTEBOOKS / chapter.name).read_text(encoding="utf-8"))["cells"]
    first = "".join(cells[0]["source"])
    key = advice_for(chapter.name)
    return TaughtNotebook(
        number(Path(chapter.name)),
        chapter.label,
        int(MINUTES.findall(chapter.time)[0]),
        [without_inner_links(goal) for goal in GOAL.findall(first)],
        NOTEBOOKS / PICTURE.findall(first)[0],
        list(advice()).index(key),
        advice()[key],
    )
