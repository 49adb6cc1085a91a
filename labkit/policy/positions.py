"""The positions of a policy's statements in its text, in lines and columns as IAM's policy simulator counts them.

https://docs.aws.amazon.com/IAM/latest/APIReference/API_Position.html
"""

import json
from functools import lru_cache

Position = tuple[int, int]
"""The line and column of the character after the position. Both count from 1."""

_decoder = json.JSONDecoder()


@lru_cache(maxsize=256)
def statement_positions(text: str) -> tuple[tuple[Position, Position], ...]:
    """Return the start and end of each statement in the text of a valid policy.

    In a list, the first statement starts after the bracket. Each later statement starts where the previous one ends.
    """
    at = _after(text, "{", 0)
    while at < len(text) and text[at] == '"':
        name, at = _decoder.raw_decode(text, at)
        at = _after(text, ":", at)
        if name == "Statement":
            return tuple((_position(text, start), _position(text, end)) for start, end in _spans(text, at))
        at = _after(text, ",", _decoder.raw_decode(text, at)[1])
    return ()


def _spans(text: str, at: int) -> list[tuple[int, int]]:
    if text[at] != "[":
        return [(at + 1, _decoder.raw_decode(text, at)[1])]
    spans, end = [], at + 1
    while (at := _after(text, ",", end)) < len(text) and text[at] != "]":
        start, end = end, _decoder.raw_decode(text, at)[1]
        spans.append((start, end))
    return spans


def _after(text: str, mark: str, at: int) -> int:
    while at < len(text) and (text[at].isspace() or text[at] == mark):
        at += 1
    return at


def _position(text: str, at: int) -> Position:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
