"""Show answers of AWS and Kubernetes, with a placeholder for each value that differs from run to run.

With LABKIT_LIVE=1, which `labkit lab` sets, session names, dates, ports and a token's first characters are shown
unchanged.
"""

import builtins
import json
import os
import re
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from html import escape
from pathlib import Path
from typing import Any

MIME = "application/vnd.labkit.answer+json"
# The marks of a check, a diagnosis and a finding.
RIGHT, WRONG, WARNING = "✓ right", "✗ wrong", "! warning"

# Fields with secret values, or values that change each time.
FIELDS = {
    "AccessKeyId": "<access key>",
    "accessKeyId": "<access key>",
    "secretAccessKey": "<secret access key>",
    "sessionToken": "<session token>",
    "SecretAccessKey": "<secret access key>",
    "SessionToken": "<session token>",
    "Token": "<token>",
    "WebIdentityToken": "<token>",
    "token": "<token>",
    "Expiration": "<expiration>",
    "CreateDate": "<date>",
    "CreationDate": "<date>",
    "LastModified": "<date>",
    "createdAt": "<date>",
    "creationTimestamp": "<date>",
    "startTime": "<date>",
    "startedAt": "<date>",
    "lastTransitionTime": "<date>",
    "RoleId": "<role id>",
    "RequestId": "<request id>",
    "HostId": "<request id>",
    "x5t": "<key's fingerprint>",
    "uid": "<uid>",
    "resourceVersion": "<version>",
    "containerID": "<container id>",
    "exp": "<expiration>",
    "iat": "<date>",
    "nbf": "<date>",
    "jti": "<token id>",
    "warnafter": "<date>",
}
# The placeholders that LABKIT_LIVE doesn't use: it shows the real values. For a token, see `BEGINNING`.
SHOWN_LIVE = {"<date>", "<expiration>", "<session name>", r"\1<session name>", r"\1:<port>"} | {
    "current date/time <now>",
    "expiration date/time <expiration>",
}
PATIENCE = 1.0  # seconds; a cell that takes longer prints what it does
LINES_PATIENCE = 2.0  # seconds; if nothing says what a longer cell does, it prints the line that runs
# The start of the running cell, by `time.monotonic`; empty outside a learner's kernel.
_BEGAN: list[float] = []
_DOING: list[str] = []
_SAID: list[str] = []
JWT = "<token>"
BEGINNING = 12  # characters of a token: a part of a JWT's header, which only names the signature's algorithm and key
LIVE = "LABKIT_LIVE"
# Fields of the transport, or of the API's own bookkeeping.
LEFT_OUT = {"ResponseMetadata", "managedFields"}

_PATTERNS = [
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), "<token>"),
    (re.compile(r"\b(AKIA|ASIA)[A-Z2-7]{16}\b"), "<access key>"),
    (re.compile(r"\bAROA[A-Z2-7]{12,17}\b"), "<role id>"),
    (re.compile(r"(:assumed-role/[\w+=,.@-]+/)[\w+=,.@-]+"), r"\1<session name>"),
    (re.compile(r"\ba-[a-z0-9]{17}\b"), "<association id>"),
    (re.compile(r"\bbotocore-session-\d+"), "<session name>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I), "<id>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?( ?(Z|UTC|[+-]\d\d:?\d\d))?"), "<date>"),
    (re.compile(r"\b[A-Z][a-z]{2} \d\d?, \d{4}, \d\d?:\d\d:\d\d [AP]M\b"), "<date>"),  # CloudTrail's
    (re.compile(r"\bcurrent date/time \d+"), "current date/time <now>"),
    (re.compile(r"\bexpiration date/time \d+"), "expiration date/time <expiration>"),
    (re.compile(r"(Request ?Id|RequestID|HostId|Host ID): ?[\w/+=-]+", re.I), r"\1: <request id>"),
    (re.compile(r"\b(127\.0\.0\.1|localhost):\d+"), r"\1:<port>"),
    (re.compile(r"\b(kube-api-access-)[a-z0-9]{5}\b"), r"\1<id>"),
]


@dataclass(frozen=True, repr=False)
class Shown:
    """A text to show. If the text is the answer of a command, `command` is that command; otherwise, it's empty."""

    text: str
    command: str = ""

    def __repr__(self) -> str:
        return f"$ {self.command}\n{self.text}" if self.command else self.text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": block(repr(self))}
        if self.command:
            bundle[MIME] = {"command": self.command, "answer": self.text}
        return bundle


def show(thing: object, command: str = "") -> None:
    """Show a text, a document, an answer of boto3 or an object of Kubernetes.

    Placeholders such as `<access key>` replace secrets and random ids. Unless LABKIT_LIVE=1 is set, they also replace
    other values that differ from run to run. With `command`, the text appears as that command's answer.
    """
    shown = Shown(as_text(thing), command)
    if command and hasattr(builtins, "get_ipython"):
        from IPython.display import display

        display(shown)
    else:
        print(shown)


def as_text(thing: object) -> str:
    """Return the text that `show` shows for `thing`."""
    if isinstance(thing, bytes):
        thing = thing.decode(errors="replace")
    if isinstance(thing, str):
        return stable(thing.rstrip("\n"))
    return json.dumps(_document(thing), indent=2, ensure_ascii=False)


def stable(text: str) -> str:
    """Return the text with a placeholder for each value that differs from run to run."""
    for pattern, name in _PATTERNS:
        if name == JWT:
            text = pattern.sub(lambda match: _token(match[0]), text)
        elif not (is_live() and name in SHOWN_LIVE):
            text = pattern.sub(name, text)
    for folder, name in ((Path.cwd(), "<here>"), (Path.home(), "~")):
        if len(folder.parts) > 1:
            text = text.replace(f"{folder}/", f"{name}/")
    return text


def counted(count: int, thing: str) -> str:
    """Return a number and a noun: `1 row`, `2 rows`. `thing` is the noun's singular."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def is_live() -> bool:
    """Return whether LABKIT_LIVE=1 is set.

    If it's set, dates, session names, ports and a token's first characters are shown unchanged.
    """
    return os.environ.get(LIVE) == "1"


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Print `what` if the learner's cell still runs after `PATIENCE` seconds, so that the cell doesn't seem stuck.

    Only a kernel of `labkit lab` prints `what`, and only once in a cell: several threads may wait for the same thing.
    """
    if not (is_live() and _BEGAN) or what in _DOING or what in _SAID:
        yield
        return
    _DOING.append(what)
    waited = time.monotonic() - _BEGAN[-1]
    later = threading.Timer(max(0, PATIENCE - waited), say, [what])
    later.daemon = True
    later.start()
    try:
        yield
    finally:
        _DOING.remove(what)
        later.cancel()


def say(what: str) -> None:
    """Print `what` as one line, with a single write, because another thread may print at the same time."""
    _SAID.append(what)
    print(f"{what} …\n", end="", flush=True)


def has_said() -> bool:
    """Return whether the running cell has already printed a text with `say`.

    In a kernel of `labkit lab`, also true while a `doing` block is open, because it may still call `say`.
    """
    return bool(_DOING or _SAID)


def cell_begins() -> None:
    """Remember that a learner's cell starts now."""
    _BEGAN[:] = [time.monotonic()]
    _SAID.clear()


def _token(text: str) -> str:
    return f"{text[:BEGINNING]}…" if is_live() and text.startswith("eyJ") else JWT


def _field(field: str, thing: Any) -> Any:
    name = FIELDS[field]
    if name == JWT:
        return _token(str(thing))
    if is_live() and name in SHOWN_LIVE:
        return thing if isinstance(thing, int | float) else str(thing)
    return name


def _document(thing: Any, field: str = "") -> Any:
    if field in FIELDS and thing is not None and not isinstance(thing, Mapping | list):
        return _field(field, thing)
    if hasattr(thing, "to_dict") and hasattr(thing, "attribute_map"):
        from kubernetes.client import ApiClient, Configuration

        # Only the client's serialization is used, which needs no configuration and no connection. It has no types.
        api: Any = ApiClient(Configuration(host="http://unused.invalid"))
        thing = api.sanitize_for_serialization(thing)
    if isinstance(thing, Mapping):
        return {str(key): _document(value, str(key)) for key, value in thing.items() if key not in LEFT_OUT}
    if isinstance(thing, list | tuple):
        return [_document(item) for item in thing]
    if isinstance(thing, datetime | date):
        return str(thing) if is_live() else "<date>"
    if isinstance(thing, str):
        return stable(thing)
    if thing is None or isinstance(thing, bool | int | float):
        return thing
    return stable(str(thing))


def left_aligned(html: str) -> str:
    """Return `html` with left-aligned table cells. JupyterLab aligns the cells of a plain table to the right."""
    return re.sub("<(td|th)>", r'<\1 style="text-align:left">', html)


def block(text: str) -> str:
    """Return the text as HTML in a monospaced font, also in JupyterLab and nbconvert."""
    return f"<pre><code>{escape(text)}</code></pre>"


class Code(str):
    """The text of a table cell, which `table` shows as code."""

    __slots__ = ()


class Name(str):
    """The text of a header cell. `table` shows it as the header of a row or a column."""

    __slots__ = ()


class Html(str):
    """The HTML of a table cell, which `table` doesn't escape."""

    __slots__ = ()


def table(rows: Iterable[Iterable[str]], head: Iterable[str] = ()) -> str:
    """Return a table as plain HTML, with escaped texts. It has no classes or styles, because code hosts drop them."""
    lines = [*([map(Name, head)] if head else []), *rows]
    return "<table>" + "".join(f"<tr>{''.join(map(_cell, line))}</tr>" for line in lines) + "</table>"


def _cell(text: str) -> str:
    if isinstance(text, Name):
        return f"<th>{escape(text)}</th>"
    if isinstance(text, Html):
        return f"<td>{text}</td>"
    return f"<td><code>{escape(text)}</code></td>" if isinstance(text, Code) else f"<td>{escape(text)}</td>"


def few(names: Collection[str]) -> str:
    """Return the first three names, and the number of the others: `a, b, c and 2 more`."""
    first, more = [*names][:3], max(0, len(names) - 3)
    return ", ".join(first) + (f" and {more} more" if more else "")
