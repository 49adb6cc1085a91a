"""The words with which people log in, each on a card to print."""

import json
import secrets
from pathlib import Path

from labkit.workshop.settings import Workshop

# Without letters and digits that look alike in print.
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"


def cards(workshop: Workshop, also: tuple[str, ...] = ()) -> dict[str, str]:
    """Return each name's word. Names of the workshop and of `also` that lack one get a new one.

    The words are kept in the workshop's folder, which only root can read.
    """
    words = known(workshop)
    for name in (*workshop.leaders, *workshop.names, *also):
        words.setdefault(name, "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(3)))
    _write(workshop, words)
    return words


def withdraw(workshop: Workshop, names: list[str]) -> None:
    """Make the words of these names invalid."""
    _write(workshop, {name: word for name, word in known(workshop).items() if name not in names})


def known(workshop: Workshop) -> dict[str, str]:
    """Return the word of each name that has a card."""
    file = _file(workshop)
    words: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return words


def _write(workshop: Workshop, words: dict[str, str]) -> None:
    workshop.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    written = _file(workshop).with_suffix(".new")
    written.touch(mode=0o600)
    written.write_text(json.dumps(words, indent=1))
    written.replace(_file(workshop))


def _file(workshop: Workshop) -> Path:
    return workshop.state / "words.json"
