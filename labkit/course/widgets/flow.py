"""The pictures of who calls which party: the eleven steps of IRSA, and what some notebooks do instead.

A picture is SVG 1.1 (https://www.w3.org/TR/SVG11/) with two cuts: a line for each party, and below 640 pixels a list of
the messages. `python -m labkit.course.widgets.flow FOLDER` stores the pictures that README and the notebooks show.
"""

import string
import sys
import textwrap
import tomllib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Arrow:
    """A message from one party to another, with its content in one word."""

    sender: str
    receiver: str
    carries: str
    answered: bool = False
    """Whether the receiver's answer comes back on the same arrow."""


@dataclass(frozen=True)
class Step:
    """A sentence, and the step's messages. A step without messages happens inside the party `at`."""

    text: str
    arrows: tuple[Arrow, ...] = ()
    at: str = ""


@dataclass(frozen=True)
class Diagram:
    """The parties from left to right, and the steps from top to bottom."""

    title: str
    parties: Sequence[str]
    groups: Sequence[tuple[str, str, str]]
    """Groups of parties: the first party, the last one, and the group's name."""
    steps: Sequence[Step]
    labels: Sequence[str]
    """The steps' names: numbers for the eleven steps of IRSA, and letters for the steps of another picture."""


def _diagram(data: dict[str, Any], labels: Sequence[str]) -> Diagram:
    return Diagram(**data | {"steps": [_step(**each) for each in data["steps"]]}, labels=labels)


def _step(text: str, arrows: Sequence[dict[str, Any]] = (), at: str = "") -> Step:
    return Step(text, tuple(Arrow(**arrow) for arrow in arrows), at)


_FOLDER = Path(__file__).parent
_DATA = tomllib.loads((_FOLDER / "flow.toml").read_text(encoding="utf-8"))
IRSA = _diagram(_DATA.pop("steps"), [str(number) for number in range(1, 12)])
# What a notebook shows that doesn't take IRSA's steps itself, by the picture's name.
OTHERS = {name: _diagram(data, string.ascii_lowercase) for name, data in _DATA.items()}

# The marked steps in each stored picture of IRSA. The first one is for README and for notebooks that aren't about a
# certain step.
PICTURES: tuple[tuple[int, ...], ...] = (
    (),
    (1,),
    (2,),
    (3,),
    (4, 5),
    (6, 7, 8, 9, 10),
    (5, 6, 7, 8, 9, 10, 11),
    (8, 10),
    (1, 2, 3, 4),
    tuple(range(1, 11)),
)

# Lengths in units of the view box. On a wide page a unit is a pixel.
WIDTH = 720
HEAD = 58
BAND, LANE = 24, 32

# In the moving picture: a step's height, and its seconds.
LOW, PACE = 20, 2.4
EXCHANGE = 7
STILL = "You take steps 1 to 4. Steps 5 to 11 happen by themselves."

STYLE = (_FOLDER / "flow.css").read_text(encoding="utf-8")


def svg(own: Collection[int] = (), diagram: Diagram = IRSA) -> str:
    """Return the picture as an SVG document, 720 pixels wide.

    Args:
        own: the numbers of the steps to mark. These are the steps of the notebook that shows the picture.
        diagram: the parties and steps to draw.

    Raises `ValueError` if a number in `own` isn't a step's.
    """
    if unknown := sorted(set(own) - set(range(1, len(diagram.steps) + 1))):
        raise ValueError(f"{unknown[0]} is not a step: the steps are 1 to {len(diagram.steps)}")
    height = HEAD + sum(_height(diagram, step) for step in diagram.steps) + 8
    return _document(diagram, own, height, _wide(diagram, own, height), _narrow(diagram, own, height))


def in_motion(diagram: Diagram = IRSA) -> str:
    """Return a lower picture, which shows one step after the other. It stands still for readers who asked for that."""
    height = HEAD + LOW * len(diagram.steps) + 38
    return _document(diagram, (), height, _moving(diagram, height), _moving_narrow(diagram))


def _document(diagram: Diagram, own: Collection[int], height: int, wide: Iterable[str], narrow: Iterable[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="irsa-flow" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" role="img" aria-labelledby="irsa-flow-title irsa-flow-desc">',
            f'<title id="irsa-flow-title">{escape(diagram.title, quote=False)}</title>',
            f'<desc id="irsa-flow-desc">{escape(described(own, diagram), quote=False)}</desc>',
            f"<style>\n{STYLE}</style>",
            f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
            *('<g class="wide">', *wide, "</g>"),
            *('<g class="narrow">', *narrow, "</g>"),
            "</svg>\n",
        ]
    )


def described(own: Collection[int] = (), diagram: Diagram = IRSA) -> str:
    """Return the picture in words: each step, and then the numbers of the marked steps.

    `own` has the numbers of the steps that the picture marks.
    """
    steps = " ".join(f"{label}. {step.text}." for label, step in zip(diagram.labels, diagram.steps, strict=False))
    marked = f" This notebook's steps are marked: {', '.join(map(str, sorted(own)))}." if own else ""
    return steps + marked


def file_name(own: Collection[int]) -> str:
    """Return the file name of the picture that marks these steps: `steps.svg`, `steps-4-5.svg`, `steps-6-to-10.svg`."""
    numbers = sorted(own)
    run = len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1))
    parts = [numbers[0], "to", numbers[-1]] if run else numbers
    return "-".join(["steps", *map(str, parts)]) + ".svg"


def drawn() -> dict[str, str]:
    """Return every stored picture, by its file's name."""
    of_irsa = {file_name(own): svg(own) for own in PICTURES}
    return (
        of_irsa
        | {"steps-in-motion.svg": in_motion()}
        | {f"{name}.svg": svg(diagram=diagram) for name, diagram in OTHERS.items()}
    )


def store(folder: Path) -> None:
    """Write the pictures into the folder. Create the folder if it's missing. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in drawn().items():
        (folder / name).write_text(picture, encoding="utf-8")


def _lanes(diagram: Diagram, step: Step) -> Iterator[tuple[int, Arrow]]:
    """Yield each arrow with its lane. An arrow that would lie on one before it starts the next lane."""
    lane, taken = 0, list[list[int]]()
    for arrow in step.arrows:
        span = sorted(map(diagram.parties.index, (arrow.sender, arrow.receiver)))
        if any(left < span[1] and span[0] < right for left, right in taken):
            lane, taken = lane + 1, []
        taken.append(span)
        yield lane, arrow


def _height(diagram: Diagram, step: Step) -> int:
    return BAND + LANE * (1 + max((lane for lane, _ in _lanes(diagram, step)), default=0))


def _places(diagram: Diagram) -> dict[str, int]:
    apart = (WIDTH - 18) // len(diagram.parties)
    return {party: 9 + apart // 2 + apart * place for place, party in enumerate(diagram.parties)}


def _head(diagram: Diagram, bottom: int) -> Iterator[str]:
    at, half = _places(diagram), (WIDTH - 18) // len(diagram.parties) // 2
    for first, last, name in diagram.groups:
        left, right = at[first] - half + 5, at[last] + half - 5
        yield f'<path class="line" d="M{left} 28 V23 H{right} V28"/>'
        yield f'<text class="party" x="{(left + right) // 2}" y="17">{name}</text>'
    for party, x in at.items():
        yield f'<text class="party" x="{x}" y="44">{party}</text>'
        yield f'<path class="life" d="M{x} 50 V{bottom}"/>'


def _wide(diagram: Diagram, own: Collection[int], height: int) -> Iterator[str]:
    yield from _head(diagram, height - 8)
    at = _places(diagram)
    top = HEAD
    for number, step in enumerate(diagram.steps, start=1):
        yield '<g class="own">' if number in own else "<g>"
        yield f'<rect class="band" x="8" y="{top}" width="{WIDTH - 16}" height="{BAND}" rx="4"/>'
        if number in own:
            yield f'<rect class="bar" x="4" y="{top}" width="5" height="{_height(diagram, step) - 6}"/>'
            yield f'<text class="here" x="{WIDTH - 14}" y="{top + 16}">this notebook</text>'
        yield f'<circle class="circle" cx="25" cy="{top + 12}" r="10"/>'
        yield f'<text class="number" x="25" y="{top + 16}">{diagram.labels[number - 1]}</text>'
        yield f'<text class="says" x="42" y="{top + 17}">{escape(step.text, quote=False)}</text>'
        for lane, arrow in _lanes(diagram, step):
            yield from _arrow(arrow, at[arrow.sender], at[arrow.receiver], top + BAND + 22 + LANE * lane, 6)
        if not step.arrows:
            yield f'<circle class="tip" cx="{at[step.at]}" cy="{top + BAND + 16}" r="5"/>'
        yield "</g>"
        top += _height(diagram, step)


def _narrow(diagram: Diagram, own: Collection[int], height: int) -> Iterator[str]:
    """Yield a line for each message: on a phone, two units are a pixel."""
    line = (height - 16) // sum(len(step.arrows) or 1 for step in diagram.steps)
    y = 8 + line // 2
    for number, step in enumerate(diagram.steps, start=1):
        tall = line * (len(step.arrows) or 1)
        yield '<g class="own">' if number in own else "<g>"
        yield f'<rect class="band" x="6" y="{y - line // 2 + 2}" width="{WIDTH - 12}" height="{tall - 4}" rx="6"/>'
        yield f'<circle class="circle" cx="30" cy="{y}" r="18"/>'
        yield f'<text class="number" x="30" y="{y + 8}">{diagram.labels[number - 1]}</text>'
        for row, arrow in enumerate(step.arrows):
            yield from _message(arrow, y + line * row)
        if not step.arrows:
            yield f'<text class="inside" x="64" y="{y + 8}">{escape(step.text, quote=False)}</text>'
        yield "</g>"
        y += tall


def _message(arrow: Arrow, y: int, above: int = -7) -> Iterator[str]:
    yield f'<text class="sender" x="186" y="{y + 9}">{arrow.sender}</text>'
    yield from _arrow(arrow, 196, 576, y, above)
    yield f'<text class="receiver" x="587" y="{y + 9}">{arrow.receiver}</text>'


def _moving(diagram: Diagram, height: int) -> Iterator[str]:
    yield from _head(diagram, height - 38)
    at = _places(diagram)
    for place, step in enumerate(diagram.steps):
        y = HEAD + LOW * place + LOW // 2
        yield f'<g class="lit" style="{_after(diagram, place)}">'
        yield f'<text class="number" x="20" y="{y + 4}">{diagram.labels[place]}</text>'
        for arrow in step.arrows:
            yield from _line(arrow, at[arrow.sender], at[arrow.receiver], y)
        if not step.arrows:
            yield f'<circle class="tip" cx="{at[step.at]}" cy="{y}" r="5"/>'
        yield "</g>"
        for turn, arrow in enumerate(step.arrows):
            yield _token(at[arrow.sender], at[arrow.receiver], y, _after(diagram, place + turn / 4))
        yield f'<text class="now" x="{WIDTH // 2}" y="{height - 14}" style="{_after(diagram, place)}">'
        yield f"{diagram.labels[place]}. {escape(step.text, quote=False)}</text>"
    yield f'<text class="still" x="{WIDTH // 2}" y="{height - 14}">{STILL}</text>'


def _moving_narrow(diagram: Diagram) -> Iterator[str]:
    """Yield one step at a time, as large as a phone needs it. The step that stands still is the exchange."""
    for place, step in enumerate(diagram.steps):
        yield f'<g class="{"now shown" if place == EXCHANGE - 1 else "now"}" style="{_after(diagram, place)}">'
        yield f'<circle class="circle" cx="34" cy="36" r="20"/><text class="number" x="34" y="44">{place + 1}</text>'
        for row, line in enumerate(textwrap.wrap(step.text, 42)):
            yield f'<text class="inside" x="66" y="{44 + 34 * row}">{escape(line, quote=False)}</text>'
        for row, arrow in enumerate(step.arrows):
            yield from _message(arrow, 150 + 62 * row, above=16)
            yield _token(196, 576, 150 + 62 * row, _after(diagram, place + row / 4))
        yield "</g>"


def _after(diagram: Diagram, steps: float) -> str:
    """Return when an element's turn is. A delay below zero begins in the middle: nothing waits in its first state."""
    return f"animation-delay: {PACE * (steps - len(diagram.steps)):.1f}s"


def _token(start: int, end: int, y: int, after: str) -> str:
    return f'<circle class="token" cx="{start}" cy="{y}" r="6" style="--far: {end - start}px; {after}"/>'


def _arrow(arrow: Arrow, start: int, end: int, y: int, above: int) -> Iterator[str]:
    yield from _line(arrow, start, end, y)
    yield f'<text class="carries" x="{(start + end) // 2}" y="{y - above}">{arrow.carries}</text>'


def _line(arrow: Arrow, start: int, end: int, y: int) -> Iterator[str]:
    yield f'<path class="line" d="M{start} {y} H{end}"/>'
    yield _tip(end, y, towards=1 if end > start else -1)
    if arrow.answered:
        yield _tip(start, y, towards=-1 if end > start else 1)


def _tip(x: int, y: int, towards: int) -> str:
    return f'<path class="tip" d="M{x} {y} l{-9 * towards} -5 v10 z"/>'


if __name__ == "__main__":
    store(Path(sys.argv[1]))
