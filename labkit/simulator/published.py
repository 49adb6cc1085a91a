"""Files in the lab's folder that replace an issuer's documents. The lab's public issuer serves them.

A self-managed cluster publishes its issuer's documents in a bucket. Someone can break the bucket, or a document in it.
The lab has no such bucket. Instead, a file holds the answer that the broken bucket gives for a document. STS refuses
tokens because of this answer, as the real STS does.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from labkit.errors import LabError, UnknownName

ISSUER_DOCUMENTS = ("openid-configuration", "keys")
ISSUER = re.compile(r"(?:(?:https://[^/?#]+)?/id/)?([0-9A-Za-z]{1,64})")


@dataclass(frozen=True)
class IssuerAnswer:
    """An issuer's HTTP answer. It is the issuer's own document, the answer from an override's file, or an error."""

    status: int
    body: str

    @property
    def content_type(self) -> str:
        return "application/xml" if self.body.startswith("<") else "application/json"


class Published:
    """A folder of override files.

    Each file holds the HTTP answer that an issuer gives in place of one of its documents.

    The function ``write`` must write a file completely or not at all.
    """

    def __init__(self, path: Path, write: Callable[[Path, bytes], None]):
        self._path = Path(path)
        self._write = write

    def override(self, issuer: str, document: str) -> "Override":
        """Return the override for one document of an issuer.

        ``issuer`` is the issuer's URL, the URL's path (``/id/ID``) or only the ID. ``document`` is
        ``openid-configuration`` or ``keys``. Raises :class:`LabError` for any other ``issuer`` or ``document``.
        """
        if document not in ISSUER_DOCUMENTS:
            raise UnknownName("document of an issuer", document, ISSUER_DOCUMENTS)
        if not (match := ISSUER.fullmatch(issuer)):
            raise LabError(
                f"{issuer!r} is not an issuer of a cluster.",
                next="aws eks describe-cluster --name CLUSTER --query cluster.identity.oidc.issuer",
            )
        return Override(self._path / match[1] / f"{document}.json", self._write)

    def clear(self) -> None:
        """Delete all overrides: each issuer serves its own documents again."""
        shutil.rmtree(self._path, ignore_errors=True)

    def edition(self, issuer: str) -> tuple[IssuerAnswer | None, ...]:
        """Return a value that changes whenever the overrides of the issuer's documents change."""
        match = ISSUER.fullmatch(issuer)
        if not match:
            return ()
        if not (self._path / match[1]).is_dir():
            return (None,) * len(ISSUER_DOCUMENTS)
        return tuple(self.override(issuer, document).get() for document in ISSUER_DOCUMENTS)


@dataclass(frozen=True)
class Override:
    """The file that replaces one document of an issuer."""

    file: Path
    write: Callable[[Path, bytes], None]

    def get(self) -> IssuerAnswer | None:
        """Return the answer that replaces the issuer's document.

        Return None if the override's file doesn't exist. Return an answer with status 500 if the file is invalid.
        """
        try:
            content = json.loads(self.file.read_text())
            return IssuerAnswer(HTTPStatus(content["status"]).value, str(content["body"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError):
            # Someone wrote the file by hand, with a mistake. So the issuer answers that it failed.
            return IssuerAnswer(HTTPStatus.INTERNAL_SERVER_ERROR.value, "")

    def set(self, status: int, body: str | dict[str, object]) -> None:
        """Let the issuer serve this answer from now on. If ``body`` is a dictionary, serve it as JSON."""
        text = body if isinstance(body, str) else json.dumps(body)
        self.write(self.file, json.dumps({"status": HTTPStatus(status).value, "body": text}).encode())

    def clear(self) -> None:
        """Delete the override: the issuer serves its own document again."""
        self.file.unlink(missing_ok=True)
