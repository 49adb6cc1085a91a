"""What is read of a live system: each thing once, by calls that change nothing; and what could not be read."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from labkit.errors import LabError, NoCredentials, said_by_the_cluster, without_session

# What AWS answers where there is no such thing, and where it is not this caller's to know.
ABSENT = ("NoSuchEntity", "NoSuchEntityException", "ResourceNotFoundException", "NoSuchBucketPolicy", "NoSuchBucket")
FORBIDDEN = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AccessDeniedByAccount")
# What it answers to a caller whose credentials are none, or no longer any.
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
CREDENTIALS = "AWS credentials that are good   (aws sts get-caller-identity)"


class NotRead(LabError):
    """Something that a cause needs could not be read, or was not to be; the cause says nothing then."""

    def __init__(self, call: str, why: str, needs: str = "", *, no_answer: bool = False, no_credentials: bool = False):
        super().__init__(f"{call}: {why}", next=f"needed: {needs}" if needs else "")
        self.call = call
        """What was asked, such as `iam:GetRole my-role`."""
        self.why = why
        self.needs = needs
        """The permission, endpoint or option that was missing."""
        self.no_answer = no_answer
        """Whether nobody answered at all."""
        self.no_credentials = no_credentials
        """Whether the caller is nobody to whom it asked."""

    @property
    def is_lost(self) -> bool:
        """Whether asking the same endpoint for something else would end like this, too."""
        return self.no_answer or self.no_credentials

    @property
    def is_choice(self) -> bool:
        """Whether it was not to be read: an option of the doctor's was not given."""
        return self.needs.startswith("--")


class Reads:
    """Answers by the call that gave them. What was read once is not asked for again, also where it was refused.

    Answers are plain JSON, so that they can be kept as a record: with `recorded`, nothing but that is answered.
    """

    def __init__(self, recorded: Mapping[str, Any] | None = None):
        self.answers: dict[str, Any] = dict(recorded or {})
        self.unread: dict[str, NotRead] = {}
        self.asked: list[str] = []
        """The calls whose answers were used, in the order of their first use."""
        self.made: list[str] = []
        """Those of them that had to be made; the others were answered already."""
        self._live = recorded is None
        self._lost: dict[str, NotRead] = {}

    def shared(self) -> "Reads":
        """For another subject: the same answers, and an account of its own of what was asked."""
        other = Reads()
        other.answers, other.unread, other._live, other._lost = self.answers, self.unread, self._live, self._lost
        return other

    def know(self, what: str, answer: Any) -> None:
        """Keeps what this call would answer, since another has told it already."""
        self.answers.setdefault(what, _plain(answer))

    def once(self, what: str, call: Callable[[], Any]) -> Any:
        """The answer of `call`, None where there is no such thing.

        `what` names the call (`iam:GetRole my-role`, `get pod my-pod -n default`): two of one name are one.
        Raises `NotRead` where it is forbidden, or nobody answers.
        """
        if what not in self.answers:
            if what not in self.unread:
                self._read(what, call)
            if what in self.unread:
                raise self.unread[what]
        if what not in self.asked:
            self.asked.append(what)
        return self.answers[what]

    def _read(self, what: str, call: Callable[[], Any]) -> None:
        endpoint = _endpoint(what)
        if not self._live:
            self.unread[what] = NotRead(what, "the record does not hold it")
        elif lost := self._lost.get(endpoint):
            # Who waited for it once need not wait for it again.
            self.unread[what] = NotRead(
                what, lost.why, lost.needs, no_answer=lost.no_answer, no_credentials=lost.no_credentials
            )
        else:
            try:
                self.answers[what] = _plain(_asked(what, call))
                self.made.append(what)
            except NotRead as unread:
                self.unread[what] = unread
                if unread.is_lost:
                    self._lost[endpoint] = unread


def asked_of(what: str) -> Literal["AWS", "the cluster", "the issuer", "the pod"]:
    """Whom a call of this name asks."""
    if " in pod " in what:
        return "the pod"
    if "://" in what:
        return "the issuer"
    return "AWS" if re.match(r"[a-z0-9-]+:", what) else "the cluster"


def _endpoint(what: str) -> str:
    """Who answers it: a service of AWS in an account, the cluster's API server, a host."""
    match asked_of(what):
        case "the pod":
            return what
        case "the issuer":
            return urlsplit(what).netloc
        case "AWS":
            account = re.search(r" \((\d{12})\)$", what)
            return f"{what.partition(':')[0]} {account[1] if account else ''}"
    return "the cluster"


def _asked(what: str, call: Callable[[], Any]) -> Any:
    from botocore.exceptions import BotoCoreError, ClientError
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
            raise NotRead(what, why, CREDENTIALS, no_credentials=True) from None
        raise NotRead(what, why, what.partition(" ")[0] if code in FORBIDDEN else "") from None
    except BotoCoreError as error:
        lost = _is_lost(error)
        needs = "AWS's endpoint" if lost else CREDENTIALS
        raise NotRead(what, " ".join(str(error).split()), needs, no_answer=lost, no_credentials=not lost) from None
    except ApiException as error:
        if error.status == 404:
            return None
        needs = what if error.status == 403 else ""
        if error.status == 401:
            needs = "a kubeconfig whose user the cluster knows   (kubectl auth whoami)"
        raise NotRead(what, said_by_the_cluster(error), needs, no_credentials=error.status == 401) from None
    except HTTPError as error:
        why = f"the cluster's API server does not answer: {_reason(error)}"
        raise NotRead(what, why, "the API server's endpoint", no_answer=True) from None
    except NoCredentials as error:
        # The eks target's session says itself what is wrong with its credentials.
        raise NotRead(what, error.what, error.next, no_credentials=True) from None


def _is_lost(error: Any) -> bool:
    from botocore.exceptions import ConnectionError, HTTPClientError

    return isinstance(error, ConnectionError | HTTPClientError)


def _reason(error: Any) -> str:
    """Why, without the connection pool and its retries."""
    said = str(getattr(error, "reason", None) or error)
    return said.partition("): ")[2] or said


def _plain(answer: Any) -> Any:
    return json.loads(json.dumps(answer, default=_as_text))


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, date | datetime) else str(value)
