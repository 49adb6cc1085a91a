"""The notebooks' numbers in version 0.1.0, and today's: what carries a learner's folder and progress over.

Break and repair, and Pod Identity, became two notebooks each.
"""

import re
from pathlib import Path

# The names of the notebooks, without `.ipynb`. Of two new notebooks, the first.
NOTEBOOKS = {
    "06-terraform": "08-terraform",
    "07-inside-the-exchange": "06-inside-the-exchange",
    "08-least-privilege": "07-least-privilege",
    "09-break-and-repair": "09-break-and-repair-sts",
    "10-cross-account": "11-cross-account",
    "11-pod-identity": "12-pod-identity",
    "12-fleet": "14-fleet",
}
NUMBERS = {old[:2]: new[:2] for old, new in NOTEBOOKS.items()}
# The ids of exercises and questions that are in the second of two new notebooks, or changed their place in the first.
MOVED = {
    "09-b": "10-a",
    "09-1": "10-1",
    "09-2": "10-2",
    "09-3": "09-2",
    "09-4": "10-3",
    "09-5": "10-4",
    "09-6": "09-3",
    "09-7": "10-5",
    "09-8": "09-4",
    "11-6": "13-2",
    "11-7": "13-3",
}
ID = re.compile(r"(?<!\d-)(?<!\d)(0[6-9]|1[0-2])-([ab1-8])\b")
LINK = re.compile(rf"\[(← )?\d\d([^\]\n]*\]\([\w./]*)({'|'.join(NOTEBOOKS)})(?=\.ipynb)")
NAME = re.compile(rf"\b({'|'.join(NOTEBOOKS)})(?![\w-])")
SAID = re.compile(r"\b([Nn]otebook |lab\.recall\(\\?\")(0[6-9]|1[0-2])\b")
ASIDE = "old-numbers"
"""The folder in learn/ that keeps the learner's notebooks as they were."""


def today(id: str) -> str:
    """Return today's id of an exercise or question of version 0.1.0. Any other text is returned unchanged."""
    number, _, end = id.partition("-")
    return MOVED.get(id) or (
        f"{NUMBERS[number]}-{end}" if number in NUMBERS and re.fullmatch("[a-z]|[0-9]", end) else id
    )


def renumbered(text: str) -> str:
    """Return the text of a notebook or page of version 0.1.0, with today's ids, numbers and links."""
    text = LINK.sub(lambda link: f"[{link[1] or ''}{NOTEBOOKS[link[3]][:2]}{link[2]}{NOTEBOOKS[link[3]]}", text)
    text = NAME.sub(lambda name: NOTEBOOKS[name[1]], text)
    text = SAID.sub(lambda said: said[1] + NUMBERS[said[2]], text)
    return ID.sub(lambda id: today(id[0]), text)


def carry_over(learn: Path) -> bool:
    """Give the learner's notebooks of version 0.1.0 in `learn` today's names, ids and links; keep the originals.

    Return whether `learn` had any. A file that the learner changed since is left alone. Raises `OSError`.
    """
    if not any((learn / f"{old}.ipynb").exists() for old in NOTEBOOKS):
        return False
    aside = learn / ASIDE
    if not aside.exists():
        draft = aside.with_name(f".{ASIDE}")
        draft.mkdir(exist_ok=True)
        for file in (*learn.glob("[0-9]*.ipynb"), *learn.glob("*.md")):
            (draft / file.name).write_bytes(file.read_bytes())
        draft.rename(aside)
    for kept in aside.iterdir():
        original, source = kept.read_bytes(), learn / kept.name
        target = source.with_stem(NOTEBOOKS.get(source.stem, source.stem))
        if not target.exists() or target.read_bytes() == original:
            target.write_text(renumbered(original.decode()), encoding="utf-8")
        if source != target and source.exists() and source.read_bytes() == original:
            source.unlink()
    return True
