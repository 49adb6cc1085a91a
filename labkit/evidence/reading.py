"""What is read of a live system: each thing once, by calls that change nothing; and what could not be read."""

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

from labkit.errors import LabError

# What AWS answers where there is no such thing, and where it is not this caller's to know.
ABSENT = ("NoSuchEntity", "NoSuchEntityException", "ResourceNotFoundException", "NoSuchBucketPolicy", "NoSuchBucket")
FORBIDDEN = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AccessDeniedByAccount")


class NotRead(LabError):
    """Something that a cause needs could not be read, or was not to be; the cause says nothing then."""

    def __init__(self, call: str, why: str, needs: str = "", *, no_answer: bool = False):
        super().__init__(f"{call}: {why}", next=f"needed: {needs}" if needs else "")
        self.call = call
        """What was asked, such as `iam:GetRole my-role`."""
        self.why = why
        self.needs = needs
        """The permission, endpoint or option that was missing."""
        self.no_answer = no_answer
        """Whether nobody answered at all."""


class Reads:
    """Answers by the call that gave them. What was read once is not asked for again, also where it was refused.

    Answers are plain JSON, so that they can be kept as a record: with `recorded`, nothing but that is answered.
    """

    def __init__(self, recorded: Mapping[str, Any] | None = None):
        self.answers: dict[str, Any] = dict(recorded or {})
        self.unread: dict[str, NotRead] = {}
        self._live = recorded is None

    def once(self, what: str, call: Callable[[], Any]) -> Any:
        """The answer of `call`, None where there is no such thing.

        `what` names the call (`iam:GetRole my-role`, `get pod my-pod -n default`): two of one name are one.
        Raises `NotRead` where it is forbidden, or nobody answers.
        """
        if what in self.answers:
            return self.answers[what]
        if what not in self.unread:
            if not self._live:
                self.unread[what] = NotRead(what, "the record does not hold it")
                raise self.unread[what]
            try:
                self.answers[what] = _plain(_asked(what, call))
                return self.answers[what]
            except NotRead as unread:
                self.unread[what] = unread
        raise self.unread[what]


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
        raise NotRead(what, f"{code}: {message}", what.partition(" ")[0] if code in FORBIDDEN else "") from None
    except BotoCoreError as error:
        raise NotRead(what, str(error), "AWS's endpoint, or credentials for it", no_answer=_is_lost(error)) from None
    except ApiException as error:
        if error.status == 404:
            return None
        raise NotRead(what, _status_message(error), what if error.status in (401, 403) else "") from None
    except HTTPError as error:
        why = f"the cluster's API server does not answer: {error}"
        raise NotRead(what, why, "the API server's endpoint", no_answer=True) from None


def _is_lost(error: Any) -> bool:
    from botocore.exceptions import ConnectionError, HTTPClientError

    return isinstance(error, ConnectionError | HTTPClientError)


def _status_message(error: Any) -> str:
    try:
        return json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"


def _plain(answer: Any) -> Any:
    return json.loads(json.dumps(answer, default=_as_text))


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, date | datetime) else str(value)
