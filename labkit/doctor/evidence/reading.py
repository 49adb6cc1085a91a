"""Read a live system with calls that change nothing. Each call is made once, and its answer or failure is kept."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, TypeVar, overload
from urllib.parse import urlsplit

from labkit.errors import LabError, NoCredentials, said_by_the_cluster, without_session

# AWS's error codes for a missing resource.
ABSENT = (
    "AWS.SimpleQueueService.NonExistentQueue",
    "NotFound",
    "NotFoundException",
    "PolicyNotFoundException",
    "QueueDoesNotExist",
    "RepositoryNotFoundException",
    "RepositoryPolicyNotFoundException",
    "ResourceNotFoundException",
)  # and all that begin with NoSuch
FORBIDDEN = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AccessDeniedByAccount")
# AWS's error codes for unknown or expired credentials.
NOBODY = (
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)
CREDENTIALS = "valid AWS credentials   (aws sts get-caller-identity)"


Document = dict[str, Any]
"""An object that AWS or Kubernetes defines, as JSON."""
Answer = TypeVar("Answer")
Fact = TypeVar("Fact")
Answerer = Literal["AWS", "the cluster", "the pod", "a host", "a request"]


@dataclass(frozen=True, slots=True)
class Read:
    """One call, described by a text such as `iam:GetRole my-role (123456789012)`.

    Reports, records and `--json` show this text.
    """

    kind: str
    """The kind of call: `iam:GetRole`, `list pods`, `the token's claims in pod`."""
    name: str = ""
    """The name of the role, pod or other object that the call is about, or a URL."""
    where: str = ""
    """`(123456789012)` for an account, `-n default` for a namespace."""
    of: Answerer = "the cluster"
    """The system that answers."""

    def __str__(self) -> str:
        # A URL alone says what the call reads.
        parts = (self.name,) if self.of == "a host" else (self.kind, self.name, self.where)
        return " ".join(filter(None, parts))

    @property
    def endpoint(self) -> str:
        """The endpoint that answers: an AWS service in an account, the cluster's API server, a pod, or a host."""
        match self.of:
            case "the pod":
                return str(self)
            case "a host":
                return urlsplit(self.name).netloc
            case "AWS":
                return f"{self.kind.partition(':')[0]} {self.where}"
        return self.of


class NotRead(LabError):
    """A fact couldn't be read, or the doctor wasn't allowed to read it."""

    def __init__(self, read: Read, why: str, needs: str = "", *, no_answer: bool = False, no_credentials: bool = False):
        super().__init__(f"{read}: {why}", next=f"needed: {needs}" if needs else "")
        self.read = read
        self.why = why
        self.needs = needs
        """The permission, connection or option that was missing."""
        self.no_answer = no_answer
        """Whether the endpoint didn't answer at all."""
        self.no_credentials = no_credentials
        """Whether the endpoint rejected the credentials."""

    @property
    def call(self) -> str:
        """The call as text: `iam:GetRole my-role (123456789012)`."""
        return str(self.read)

    @property
    def is_lost(self) -> bool:
        """Whether every other call to the same endpoint would fail in the same way."""
        return self.no_answer or self.no_credentials

    @property
    def is_of_the_organization(self) -> bool:
        """Whether the failed call was to AWS Organizations. Most accounts can't read an organization's policies."""
        return self.read.kind.startswith("organizations:")

    @property
    def is_open(self) -> bool:
        """Whether the fact is a value that only a request has, such as `aws:SourceVpce`."""
        return self.read.of == "a request"

    @property
    def is_choice(self) -> bool:
        """Whether the call needs an option, such as `--probe`, that the user didn't give."""
        return self.needs.startswith("--")


def depends(keys: Iterable[str], why: str) -> NotRead:
    """Return the error for a result that depends on the values of these condition keys, which only a request has."""
    return NotRead(Read("depends on", " and ".join(dict.fromkeys(keys)), of="a request"), why)


class Reads:
    """The calls of a diagnosis, and their answers as plain JSON. A call is made only once, even if the call fails.

    `recorded` holds the answers of a record. With `recorded`, no calls are made: all answers come from the record.
    """

    def __init__(self, recorded: Mapping[str, object] | None = None):
        self.answers: dict[str, Any] = dict(recorded or {})
        """The answers, by the text of their call. A record has the same form."""
        self.unread: dict[Read, NotRead] = {}
        self.answered: dict[Read, str] = {}
        """The answered calls, in the order of first use, each with its text."""
        self.used: dict[Read, None] = {}
        """The answered calls of the current stage. An examination clears this before each stage."""
        self.made: list[Read] = []
        """The calls that were really made and answered. All other answers were already known."""
        self._live = recorded is None
        self._lost: dict[str, NotRead] = {}

    def shared(self) -> "Reads":
        """Return new `Reads` for another service account. Answers are shared, but not the lists of calls."""
        other = Reads()
        other.answers, other.unread, other._live, other._lost = self.answers, self.unread, self._live, self._lost
        return other

    def know(self, read: Read, answer: object) -> None:
        """Store the answer to the call `read`, so that `once` needn't make this call."""
        self.answers.setdefault(str(read), _plain(answer))

    def once(self, read: Read, call: Callable[[], Answer]) -> Answer:
        """Return the answer to a call; None if the resource doesn't exist.

        `read` says which call it is, and the function `call` makes it. The function only runs if the answer isn't
        stored yet. Raises `NotRead` if there's no answer, for example because the call was refused.
        """
        if read not in self.answered:
            text = str(read)
            if text not in self.answers:
                if read not in self.unread:
                    self._read(read, call)
                if read in self.unread:
                    raise self.unread[read]
            self.answered[read] = text
        self.used[read] = None
        answer: Answer = self.answers[self.answered[read]]
        return answer

    def _read(self, read: Read, call: Callable[[], Any]) -> None:
        if not self._live:
            self.unread[read] = NotRead(read, "the record has no answer to this call")
        elif lost := self._lost.get(read.endpoint):
            # Don't call an endpoint again that didn't answer, or that rejected the credentials.
            self.unread[read] = NotRead(
                read, lost.why, lost.needs, no_answer=lost.no_answer, no_credentials=lost.no_credentials
            )
        else:
            try:
                self.answers[str(read)] = _plain(_answered(read, call))
                self.made.append(read)
            except NotRead as unread:
                self.unread[read] = unread
                if unread.is_lost:
                    self._lost[read.endpoint] = unread


@overload
def known(read: Callable[[], Fact]) -> Fact | None: ...
@overload
def known(read: Callable[[], Fact], otherwise: Fact) -> Fact: ...
def known(read: Callable[[], Fact], otherwise: Fact | None = None) -> Fact | None:
    """Return the fact that `read` returns; `otherwise` if it can't be read."""
    try:
        return read()
    except NotRead:
        return otherwise


def _answered(read: Read, call: Callable[[], Any]) -> Any:
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return call()
    except ClientError as error:
        code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        if code in ABSENT or code.startswith("NoSuch"):
            return None
        why = f"{code}: {without_session(message)}"
        if code in NOBODY:
            raise NotRead(read, why, CREDENTIALS, no_credentials=True) from None
        raise NotRead(read, why, read.kind if code in FORBIDDEN else "") from None
    except BotoCoreError as error:
        lost = isinstance(error, ConnectionError | HTTPClientError)
        needs = "a connection to AWS" if lost else CREDENTIALS
        raise NotRead(read, " ".join(str(error).split()), needs, no_answer=lost, no_credentials=not lost) from None
    except ApiException as error:
        if error.status == 404:
            return None
        needs = str(read) if error.status == 403 else ""
        if error.status == 401:
            needs = "a kubeconfig with a user that the cluster knows   (kubectl auth whoami)"
        raise NotRead(read, said_by_the_cluster(error), needs, no_credentials=error.status == 401) from None
    except HTTPError as error:
        why = f"the cluster's API server does not answer: {_reason(error)}"
        raise NotRead(read, why, "a connection to the API server", no_answer=True) from None
    except NoCredentials as error:
        # The session's own message already says why its credentials are invalid.
        raise NotRead(read, error.what, error.next, no_credentials=True) from None


def _reason(error: Any) -> str:
    """Return an error's reason, without the text about the connection pool and its retries."""
    said = str(getattr(error, "reason", None) or error)
    return said.partition("): ")[2] or said


def _plain(answer: Any) -> Any:
    return json.loads(
        json.dumps(answer, default=lambda each: each.isoformat() if isinstance(each, date) else str(each))
    )
