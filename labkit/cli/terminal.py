"""Keep control characters out of the terminal.

Text from a snapshot, a cluster or an account may contain sequences that clear the screen, hide a line or write over it.
`labkit` prints such characters as escapes, like `\\u001b`. Colours are printed unchanged.

https://en.wikipedia.org/wiki/ANSI_escape_code
"""

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast

# A bold, dim, italic, underlined or coloured text; never a hidden, a black or a white one.
COLOUR = r"\x1b\[(?:(?:[0-4]|22|39|[39][1-6])(?:;(?=\d)|(?=m)))*m"
# The last two ranges change the direction of the text after them.
CONTROL = r"[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
UNSAFE = re.compile(f"({COLOUR})|{CONTROL}")


def printable(text: str) -> str:
    """Return the text with an escape in place of each control character, except tabs, line breaks and colours."""
    return UNSAFE.sub(lambda match: match[1] or f"\\u{ord(match[0]):04x}", text)


@contextlib.contextmanager
def protected() -> Iterator[None]:
    """Make all texts `printable` that this block writes to stdout and stderr."""
    with contextlib.redirect_stdout(_protected(sys.stdout)), contextlib.redirect_stderr(_protected(sys.stderr)):
        yield


def unprotected(stream: TextIO) -> TextIO:
    """Return the stream below a protected one, for a progress bar, which moves the cursor."""
    return stream.below if isinstance(stream, _Protected) else stream


def _protected(stream: TextIO) -> TextIO:
    return cast("TextIO", _Protected(stream)) if stream else stream  # a closed stream is None


class _Protected:
    def __init__(self, below: TextIO):
        self.below = below

    def write(self, text: str) -> int:
        self.below.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # click would write to it
            raise AttributeError(name)
        return getattr(self.below, name)
