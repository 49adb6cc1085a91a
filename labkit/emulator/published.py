"""What an issuer publishes instead of its own documents: files in the lab's folder, read at each request.

A self-managed cluster's documents lie in a bucket that anybody may break. These files stand for that bucket: with one
of them there, the public issuer answers it, and STS, which asks the issuer, refuses as it refuses in the field.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from labkit.errors import LabError, UnknownName

DOCUMENTS = ("openid-configuration", "keys")
ISSUER = re.compile(r"(?:(?:https://[^/?#]+)?/id/)?([0-9A-Za-z]{1,64})")


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: str

    @property
    def content_type(self) -> str:
        return "application/xml" if self.body.startswith("<") else "application/json"


class Published:
    """What is answered instead of the issuers' documents; ``write`` writes a file whole or not at all."""

    def __init__(self, path: Path, write: Callable[[Path, bytes], None]):
        self._path = Path(path)
        self._write = write

    def override(self, issuer: str, document: str) -> "Override":
        """What stands instead of ``openid-configuration`` or ``keys`` of an issuer (its URL, ``/id/X`` or ``X``).

        Raises :class:`LabError` if an issuer has no such document, or if no cluster of the lab has this issuer.
        """
        if document not in DOCUMENTS:
            raise UnknownName("document of an issuer", document, DOCUMENTS)
        if not (found := ISSUER.fullmatch(issuer)):
            raise LabError(
                f"{issuer!r} is not an issuer of a cluster.",
                next="aws eks describe-cluster --name CLUSTER --query cluster.identity.oidc.issuer",
            )
        return Override(self._path / found[1] / f"{document}.json", self._write)

    def clear(self) -> None:
        """All issuers answer their own documents from now on."""
        shutil.rmtree(self._path, ignore_errors=True)

    def edition(self, issuer: str) -> tuple[Answer | None, ...]:
        """A value that changes whenever the issuer's published documents change."""
        found = ISSUER.fullmatch(issuer)
        if not found:
            return ()
        if not (self._path / found[1]).is_dir():
            return (None,) * len(DOCUMENTS)
        return tuple(self.override(issuer, document).get() for document in DOCUMENTS)


@dataclass(frozen=True)
class Override:
    """The text that replaces one document."""

    file: Path
    write: Callable[[Path, bytes], None]

    def get(self) -> Answer | None:
        """What is answered; None if it is the issuer's own document."""
        try:
            content = json.loads(self.file.read_text())
            return Answer(HTTPStatus(content["status"]).value, str(content["body"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            # Somebody wrote the file by hand, and so broke the document, too.
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR.value, "")

    def set(self, status: int, body: str | dict[str, object]) -> None:
        """Answer this from now on; a ``body`` that is a document is answered as JSON."""
        text = body if isinstance(body, str) else json.dumps(body)
        self.write(self.file, json.dumps({"status": HTTPStatus(status).value, "body": text}).encode())

    def clear(self) -> None:
        """Answer the issuer's own document from now on."""
        self.file.unlink(missing_ok=True)
