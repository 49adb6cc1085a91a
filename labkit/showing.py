"""Show what AWS and Kubernetes answer, with a name instead of what differs from run to run.

With LABKIT_LIVE=1, which `labkit lab` sets, the real session names and dates are shown, and how a token begins.
"""

import builtins
import json
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from html import escape
from pathlib import Path
from typing import Any

MIME = "application/vnd.labkit.answer+json"
# How a check, a diagnosis and a finding are marked.
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
# What LABKIT_LIVE shows as it is; of a token, its first characters.
SHOWN_LIVE = {"<date>", "<expiration>", "<session name>", r"\1<session name>", "current date/time <now>"} | {
    "expiration date/time <expiration>"
}
PATIENCE = 1.0  # seconds; a cell that has taken longer says what it does
# When the cell that runs began, by `time.monotonic`; empty outside a learner's kernel.
_BEGAN: list[float] = []
JWT = "<token>"
BEGINNING = 12  # characters: of a JWT's header, which says only how it is signed
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
    (re.compile(r"\bcurrent date/time \d+"), "current date/time <now>"),
    (re.compile(r"\bexpiration date/time \d+"), "expiration date/time <expiration>"),
    (re.compile(r"(Request ?Id|RequestID|HostId|Host ID): ?[\w/+=-]+", re.I), r"\1: <request id>"),
    (re.compile(r"\b(127\.0\.0\.1|localhost):\d+"), "<address>"),
    (re.compile(r"\b(kube-api-access-)[a-z0-9]{5}\b"), r"\1<id>"),
]


@dataclass(frozen=True, repr=False)
class Shown:
    """Something as it is shown; `command` is the command that it answers."""

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
    """Show a text, a document, an answer of boto3 or an object of Kubernetes, the same in every run.

    Ports, dates, keys, tokens, session names, paths and request ids are replaced by their names, such as
    `<access key>`. With `command`, it is shown as that command's answer, and `labkit run` prints it too.
    """
    shown = Shown(as_text(thing), command)
    if command and _in_ipython():
        from IPython.display import display

        display(shown)
    else:
        print(shown)


def as_text(thing: object) -> str:
    """The text that `show` shows."""
    if isinstance(thing, bytes):
        thing = thing.decode(errors="replace")
    if isinstance(thing, str):
        return stable(thing.rstrip("\n"))
    return json.dumps(_document(thing), indent=2, ensure_ascii=False)


def stable(text: str) -> str:
    """The text with a name instead of what differs from run to run."""
    for pattern, name in _PATTERNS:
        if name == JWT:
            text = pattern.sub(lambda found: _token(found[0]), text)
        elif not (is_live() and name in SHOWN_LIVE):
            text = pattern.sub(name, text)
    for folder, name in ((Path.cwd(), "<here>"), (Path.home(), "~")):
        if len(folder.parts) > 1:
            text = text.replace(f"{folder}/", f"{name}/")
    return text


def is_live() -> bool:
    """Whether the reader sees real session names and dates, and how a token begins."""
    return os.environ.get(LIVE) == "1"


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Print what this block does if the learner's cell takes long: nobody takes it for stuck then.

    Prints nothing outside a kernel of `labkit lab`: there, outputs are compared.
    """
    if not (is_live() and _BEGAN):
        yield
        return
    waited = time.monotonic() - _BEGAN[-1]
    later = threading.Timer(max(0, PATIENCE - waited), print, [f"{what} …"], {"flush": True})
    later.daemon = True
    later.start()
    try:
        yield
    finally:
        later.cancel()


def cell_begins() -> None:
    """Note that a cell of the learner's begins now."""
    _BEGAN[:] = [time.monotonic()]


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

        # Only its serialization is used, which has no types: no configuration, and no connection.
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


def _in_ipython() -> bool:
    return hasattr(builtins, "get_ipython")


def left_aligned(html: str) -> str:
    """The same tables with their cells to the left; JupyterLab sets those of a plain table to the right."""
    return re.sub("<(td|th)>", r'<\1 style="text-align:left">', html)


def block(text: str) -> str:
    """The text as HTML with letters of one width. JupyterLab and nbconvert give these to `code`, not to `pre` alone."""
    return f"<pre><code>{escape(text)}</code></pre>"


class Code(str):
    """The text of a cell that a table shows as code."""

    __slots__ = ()


class Name(str):
    """The text of a cell that heads its row or column."""

    __slots__ = ()


class Marked(str):
    """The text of a cell that a table shows as code, with one part of it underlined."""

    parts: tuple[str, str, str]

    @classmethod
    def of(cls, before: str, part: str, after: str) -> "Marked":
        """The text of these three parts, the middle one underlined."""
        made = cls(before + part + after)
        made.parts = (before, part, after)
        return made


def table(rows: Iterable[Iterable[str]], head: Iterable[str] = ()) -> str:
    """A table as plain HTML, every text escaped. Code hosts drop classes and styles, so it has none."""
    lines = [*([map(Name, head)] if head else []), *rows]
    return "<table>" + "".join(f"<tr>{''.join(map(_cell, line))}</tr>" for line in lines) + "</table>"


def _cell(text: str) -> str:
    if isinstance(text, Name):
        return f"<th>{escape(text)}</th>"
    if isinstance(text, Marked):
        before, part, after = map(escape, text.parts)
        return f"<td><code>{before}<u><strong>{part}</strong></u>{after}</code></td>"
    return f"<td><code>{escape(text)}</code></td>" if isinstance(text, Code) else f"<td>{escape(text)}</td>"
