"""The calls to AWS as they happen. Each call is an arrow between the parties in the picture of the eleven steps.

The calls come from the lab's trail, which keeps no token and no secret. Keys and ids are masked before the page gets
the calls.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from labkit.connection import ENTRANCE, Record
from labkit.course.widgets import flow, trail
from labkit.showing import Code, as_text, block, left_aligned, stable, table

if TYPE_CHECKING:
    import ipywidgets

TITLE = "The calls to AWS, as they happen"
PARTIES = (*flow.PARTIES, "other")
RECEIVERS = {"sts.amazonaws.com": "STS", "iam.amazonaws.com": "IAM", "s3.amazonaws.com": "S3"}
# EC2's names for the sessions of a machine's role:
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html#principal-role-session
INSTANCE = re.compile(r"i-[0-9a-f]+")
YOU, POD, NODE, OTHER = "you", "pod", "node", "other"
NEXT = "run a cell in which a pod calls AWS; each call appears here as it happens"
MOST = 2000  # the page shows at most this many calls, the newest; the trail has the others
LONGEST = 4000  # characters of a request or an answer
# The number of the step that uses S3. The trail has another name for that step's ListObjectsV2.
USE = next(number for number, step in enumerate(flow.STEPS, 1) if any(arrow.receiver == "S3" for arrow in step.arrows))


@dataclass(frozen=True)
class CallArrow:
    """A call to AWS, as the picture shows it: an arrow from the sender to the receiver, and the call's details."""

    number: int
    """The call's number in this picture, from 1."""
    sender: str
    receiver: str
    event: str
    decision: str
    refused: bool
    step: int
    """The number of the IRSA step that the call belongs to, from 1 to 11; 0 if it belongs to no step."""
    says: str
    """The step's sentence."""
    who: str
    time: str
    request: str
    answer: str
    reason: str

    @classmethod
    def of(cls, record: Record, number: int) -> "CallArrow":
        """Return the call that a record of the trail describes, without secrets."""
        sender, event = _sender(record), record.get("eventName", "")
        step = _step(sender, event)
        return cls(
            number,
            sender,
            RECEIVERS.get(record.get("eventSource", ""), OTHER),
            event,
            trail.decision(record),
            trail.is_refused(record),
            step,
            flow.STEPS[step - 1].text if step else "",
            stable(trail.session_of(record)),
            stable(str(record.get("eventTime", ""))),
            _text(record.get("requestParameters")),
            _answer(record),
            stable(trail.reason(record)),
        )

    @property
    def is_own(self) -> bool:
        """True for a call that the learner made, and for one that the lab made for the learner."""
        return self.sender == YOU


@dataclass(frozen=True, repr=False)
class Watch:
    """The calls since the lab was opened.

    A running notebook shows all calls. Stored outputs show only the calls of pods and nodes.
    """

    records: Callable[[], Iterator[Record]] | None
    """The records of the trail, newest first; None if the target keeps no trail."""
    seen: str | None
    """The id of the newest record from before the lab was opened; None if the trail was empty."""
    is_shown: Callable[[Record], bool]
    why_not: str = ""
    """The text to show if the target keeps no trail: the reason, and the next step."""

    def since(self, seen: str | None) -> list[Record]:
        """Return the records after the record with the id ``seen``, oldest first; at most the newest 2,000."""
        new = takewhile(lambda record: record.get("eventID") != seen, self.records() if self.records else ())
        newest = [record for record, _ in zip(new, range(MOST), strict=False)]
        return newest[::-1]

    @property
    def calls(self) -> list[CallArrow]:
        """The calls that pods and nodes have made since the lab was opened."""
        shown = [CallArrow.of(record, 0) for record in self.since(self.seen) if self.is_shown(record)]
        return [call for call in shown if not call.is_own]

    def __repr__(self) -> str:
        if self.why_not:
            return self.why_not
        rows = [_row(call) for call in self.calls]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([f"{TITLE}:", *lines] if lines else [f"{TITLE}. No pod has called AWS yet.", f"next:  {NEXT}"])

    def _repr_html_(self) -> str:
        if self.why_not or not (calls := self.calls):
            return block(repr(self))
        rows = [(step, arrow, Code(event), decision) for arrow, event, decision, step in map(_row, calls)]
        return f"<p><strong>{TITLE}</strong></p>" + table(rows, ("", "from → to", "call", "decision"))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from labkit.course.widgets import live

        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": left_aligned(self._repr_html_())}
        return bundle if self.why_not else bundle | live.drawn(self.panel)

    def panel(self) -> "ipywidgets.Widget":
        """Return the widget: a row for each call to AWS, as it happens, and buttons that step through the calls."""
        from labkit.course.widgets.pages import CallsPage, framed

        return framed(CallsPage(self.reader(), title=TITLE, parties=PARTIES, own=YOU, next=NEXT, most=MOST))

    def reader(self) -> Callable[[], list[dict[str, object]]]:
        """Return a function that returns the new calls to AWS, as JSON objects, each time it's called."""
        seen, number = self.seen, 0

        def read() -> list[dict[str, Any]]:
            nonlocal seen, number
            records = self.since(seen)
            if records:
                seen = records[-1].get("eventID")
            shown = [record for record in records if self.is_shown(record)]
            # If older calls were dropped, skip a number: the page sees the gap.
            number += len(shown) + (len(records) == MOST)
            return [asdict(CallArrow.of(record, n)) for n, record in enumerate(shown, number - len(shown) + 1)]

        return read


def _row(call: CallArrow) -> Sequence[str]:
    step = f"step {call.step}" if call.step else ""
    return f"{call.sender} → {call.receiver}", call.event, call.decision, step


def _sender(record: Record) -> str:
    identity = record.get("userIdentity") or {}
    if identity.get("type") == "WebIdentityUser":
        return POD
    if identity.get("type") != "AssumedRole":
        return YOU
    *_, role, session = identity.get("arn", "//").split("/")
    if (identity.get("sessionContext") or {}).get("webIdFederationData"):
        return POD
    # A session by EKS Pod Identity, or by assuming another role, names no web identity. It belongs to a pod, too.
    return NODE if INSTANCE.fullmatch(session) else YOU if role == ENTRANCE else POD


def _step(sender: str, event: str) -> int:
    for number, step in enumerate(flow.STEPS, start=1):
        if any(arrow.carries == event for arrow in step.arrows):
            return number
    return USE if sender == POD else 0


def _answer(record: Record) -> str:
    if code := record.get("errorCode"):
        # CloudTrail's own fields may differ from what the caller got.
        answered = record.get("lab") or {}
        code, message = answered.get("code", code), answered.get("message", record.get("errorMessage"))
        return stable(f"{code}: {message}" if message else code)
    return _text(record.get("responseElements"))


def _text(document: Any) -> str:
    # CloudTrail doesn't keep the answers to calls that only read.
    text = as_text(document) if document else "(the trail keeps none)"
    return text if len(text) <= LONGEST else text[:LONGEST] + "\n…"
