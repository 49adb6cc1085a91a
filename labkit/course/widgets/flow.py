"""The picture of the eleven steps: who calls which party, from the registered issuer to renewed credentials.

The picture is SVG 1.1 (https://www.w3.org/TR/SVG11/). `python -m labkit.course.widgets.flow FOLDER` stores the pictures
that README and the notebooks show.
"""

import sys
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

# The groups of parties: the first party, the last one, and the group's name.
GROUPS = (("pod", "issuer", "the cluster"), ("STS", "S3", "AWS"))


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
    """One of the eleven steps: a sentence and the step's messages. A step without messages happens inside the pod."""

    text: str
    arrows: tuple[Arrow, ...] = ()


_FOLDER = Path(__file__).parent
_DATA = tomllib.loads((_FOLDER / "flow.toml").read_text(encoding="utf-8"))
PARTIES: tuple[str, ...] = tuple(_DATA["parties"])
STEPS = tuple(Step(each["text"], tuple(Arrow(**arrow) for arrow in each.get("arrows", ()))) for each in _DATA["steps"])

# The marked steps in each stored picture. The first picture has no marked step: it's for README and for notebooks that
# aren't about a certain step.
PICTURES: tuple[tuple[int, ...], ...] = (
    (),
    (1,),
    (2,),
    (3,),
    (4, 5),
    (6, 7, 8, 9, 10),
    (5, 6, 7, 8, 9, 10, 11),
    (8, 10),
    tuple(range(1, 12)),
    (1, 2, 3, 4),
    tuple(range(1, 11)),
)

# Lengths in units of the view box. On a wide page a unit is a pixel.
WIDTH = 720
FIRST, APART = 48, 78
HEAD = 58
BAND, LANE = 24, 32
ROW = BAND + LANE
HEIGHT = HEAD + ROW * len(STEPS) + 8

STYLE = (_FOLDER / "flow.css").read_text(encoding="utf-8")


def svg(own: Collection[int] = ()) -> str:
    """Return the picture as an SVG document, 720 pixels wide.

    Args:
        own: the numbers of the steps to mark. These are the steps of the notebook that shows the picture.

    Raises `ValueError` if a number in `own` isn't from 1 to 11.
    """
    if unknown := sorted(set(own) - set(range(1, len(STEPS) + 1))):
        raise ValueError(f"{unknown[0]} is not a step: the steps are 1 to {len(STEPS)}")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="irsa-flow" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" role="img" aria-labelledby="irsa-flow-title irsa-flow-desc">',
            '<title id="irsa-flow-title">The eleven steps of IRSA</title>',
            f'<desc id="irsa-flow-desc">{escape(described(own))}</desc>',
            f"<style>\n{STYLE}</style>",
            f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>',
            *_head(),
            *(line for number, step in enumerate(STEPS, start=1) for line in _row(number, step, number in own)),
            "</svg>\n",
        ]
    )


def described(own: Collection[int] = ()) -> str:
    """Return the picture in words: each step, and then the numbers of the marked steps.

    `own` has the numbers of the steps that the picture marks.
    """
    steps = " ".join(f"{number}. {step.text}." for number, step in enumerate(STEPS, start=1))
    marked = f" This notebook's steps are marked: {', '.join(map(str, sorted(own)))}." if own else ""
    return steps + marked


def file_name(own: Collection[int]) -> str:
    """Return the file name of the picture that marks these steps: `steps.svg`, `steps-4-5.svg`, `steps-6-to-10.svg`."""
    numbers = sorted(own)
    run = len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1))
    parts = [numbers[0], "to", numbers[-1]] if run else numbers
    return "-".join(["steps", *map(str, parts)]) + ".svg"


def store(folder: Path) -> None:
    """Write the pictures of ``PICTURES`` into the folder. Create the folder if it's missing. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    for own in PICTURES:
        (folder / file_name(own)).write_text(svg(own), encoding="utf-8")


def _middle(party: str) -> int:
    return FIRST + APART * PARTIES.index(party)


def _head() -> Iterator[str]:
    for first, last, name in GROUPS:
        left, right = _middle(first) - APART // 2 + 5, _middle(last) + APART // 2 - 5
        yield f'<path class="line" d="M{left} 28 V23 H{right} V28"/>'
        yield f'<text class="party" x="{(left + right) // 2}" y="17">{name}</text>'
    for party in PARTIES:
        yield f'<text class="party" x="{_middle(party)}" y="44">{party}</text>'
        yield f'<path class="life" d="M{_middle(party)} 50 V{HEIGHT - 8}"/>'


def _row(number: int, step: Step, own: bool) -> Iterator[str]:
    top = HEAD + ROW * (number - 1)
    yield '<g class="own">' if own else "<g>"
    yield f'<rect class="band" x="8" y="{top}" width="{WIDTH - 16}" height="{BAND}" rx="4"/>'
    if own:
        yield f'<rect class="bar" x="4" y="{top}" width="5" height="{ROW - 6}"/>'
        yield f'<text class="here" x="{WIDTH - 14}" y="{top + 16}">this notebook</text>'
    yield f'<circle class="circle" cx="25" cy="{top + 12}" r="10"/>'
    yield f'<text class="number" x="25" y="{top + 16}">{number}</text>'
    yield f'<text class="says" x="42" y="{top + 17}">{escape(step.text, quote=False)}</text>'
    for arrow in step.arrows:
        yield from _arrow(arrow, top + BAND + 22)
    if not step.arrows:
        yield f'<circle class="tip" cx="{_middle("pod")}" cy="{top + BAND + 16}" r="5"/>'
    yield "</g>"


def _arrow(arrow: Arrow, y: int) -> Iterator[str]:
    start, end = _middle(arrow.sender), _middle(arrow.receiver)
    yield f'<path class="line" d="M{start} {y} H{end}"/>'
    yield _tip(end, y, towards=1 if end > start else -1)
    if arrow.answered:
        yield _tip(start, y, towards=-1 if end > start else 1)
    yield f'<text class="carries" x="{(start + end) // 2}" y="{y - 6}">{arrow.carries}</text>'


def _tip(x: int, y: int, towards: int) -> str:
    return f'<path class="tip" d="M{x} {y} l{-9 * towards} -5 v10 z"/>'


if __name__ == "__main__":
    store(Path(sys.argv[1]))
