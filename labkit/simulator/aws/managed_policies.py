"""Read AWS's managed policies from moto's data, which is one long text.

A policy is only parsed when needed: all parsed policies would take about 50 MiB of memory.
"""

import json
import re
from collections.abc import Iterator

_ARN = re.compile(r"arn:aws:iam::aws:policy/(?:.*/)?([^/]+)")
_NAME = re.compile(r'^ "([^"]+)":\{', re.MULTILINE)
_decoder = json.JSONDecoder()


def find(text: str, arn: str) -> tuple[str, dict[str, object]] | None:
    """Return the name and the content of an AWS managed policy. Return None if moto's ``text`` has no such policy.

    The policy is found by the name at the end of ``arn``. The path before the name is ignored.
    """
    if not (match := _ARN.fullmatch(arn)):
        return None
    key = f'\n "{match[1]}":'
    at = text.find(key)
    return (match[1], _decoder.raw_decode(text, at + len(key))[0]) if at >= 0 else None


def every(text: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the name and the content of each policy in moto's text."""
    for match in _NAME.finditer(text):
        yield match[1], _decoder.raw_decode(text, match.end() - 1)[0]
