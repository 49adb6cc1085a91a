"""The calls to AWS in a notebook: as a table with the reason of each decision, and as arrows while they happen.

The real AWS doesn't tell the reason. The arrows are between the parties in the picture of the eleven steps.

The calls come from the lab's trail, which keeps no token and no secret. Keys and ids are masked before the page gets
the calls.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from labkit.connection import ENTRANCE, Connection, Record
from labkit.course.widgets import flow
from labkit.policy.arn import Arn
from labkit.showing import Code, as_text, block, is_live, left_aligned, stable, table

if TYPE_CHECKING:
    import ipywidgets


COLUMNS = ("event", "who", "decision", "reason")


@dataclass(frozen=True, repr=False)
class Calls:
    """Records of the trail, shown as a table without ids or dates.

    A record has CloudTrail's fields, and the lab's reason for its decision.
    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
    """

    records: Sequence[Record]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The table's rows: event, caller, decision, reason."""
        return [
            (record.get("eventName", ""), stable(who(record)), decision(record), stable(reason(record)))
            for record in self.records
        ]

    @property
    def _shown(self) -> list[tuple[str, ...]]:
        if not is_live():
            return self.rows
        pairs = zip(self.records, self.rows, strict=True)
        return [(row[0], session_of(record), *row[2:]) for record, row in pairs]

    def of_issuer(self, provider_arn: str) -> "Calls":
        """Return the calls, except the calls of pods in other clusters.

        ``provider_arn`` is the ARN of this cluster's OIDC provider.
        """
        issuer = _issuer(provider_arn)
        return Calls([record for record in self.records if _issuer(_provider(record)) in ("", issuer)])

    def only(self, *, event: str = "", who: str = "", decision: str = "", last: int = 0) -> "Calls":
        """Return the calls with this name, caller and decision. An empty argument matches every call.

        With `last`, return only the newest `last` of these calls.
        """
        wanted = (event, who, decision)
        kept = [
            record
            for record, row in zip(self.records, self.rows, strict=True)
            if all(want in ("", value) for want, value in zip(wanted, row[:3], strict=True))
        ]
        return Calls(kept[-last:])

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        if not self.records:
            return "no call"
        table = [COLUMNS, *self._shown]
        widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        )

    def _repr_html_(self) -> str:
        from labkit.course.widgets import live

        return live.shown(table(self._shown, COLUMNS)) if self.records else "<p>no call</p>"


@dataclass(frozen=True, repr=False)
class NoCalls(Calls):
    """The reason why the target keeps no trail, shown instead of the table."""

    why: str

    def __repr__(self) -> str:
        return self.why

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.why)}</p>"


def calls(connection: Connection, since: str | None) -> Calls:
    """Return the calls after the record with the id `since`, the oldest first, without other clusters' pods."""
    newest = takewhile(lambda record: record.get("eventID") != since, connection.trail() if connection.trail else ())
    return Calls([*newest][::-1]).of_issuer(connection.provider_arn)


def _provider(record: Record) -> str | None:
    identity = record.get("userIdentity") or {}
    federation = (identity.get("sessionContext") or {}).get("webIdFederationData") or {}
    return identity.get("identityProvider") or federation.get("federatedProvider")


def _issuer(provider_arn: str | None) -> str:
    return (provider_arn or "").partition(":oidc-provider/")[2]


def who(record: Record) -> str:
    """Return the caller's name without account and session: a role, a service account, or the administrator.

    For a caller without a proven identity, return only its type, such as ``Unknown``.
    """
    identity = record.get("userIdentity") or {}
    arn = Arn.find(str(identity.get("arn", "")))
    if arn and arn.session_role:
        return arn.session_role
    if name := identity.get("userName"):
        return str(name)
    if identity.get("type") == "AWSAccount":
        return str(identity.get("accountId", ""))
    return arn.name if arn else str(identity.get("type", ""))


def session_of(record: Record) -> str:
    """Return ``ROLE/SESSION`` if the caller is a role session; otherwise, the same name as `who`."""
    arn = Arn.find(str((record.get("userIdentity") or {}).get("arn", "")))
    return arn.resource.removeprefix("assumed-role/") if arn and arn.session_role else who(record)


def decision(record: Record) -> str:
    """Return ``allowed``, or the error code in the caller's answer. CloudTrail may spell the code differently."""
    lab = record.get("lab") or {}
    return str(lab.get("code") or record.get("errorCode") or lab.get("decision", ""))


def reason(record: Record) -> str:
    """Return the lab's reason for the decision; empty if the record has no reason.

    If the caller had the permissions but the call failed, the reason begins with the error's message. AWS's own records
    have no field for the reason.
    """
    lab = record.get("lab") or {}
    why = str(lab.get("reason", ""))
    if lab.get("decision") == "allowed" and lab.get("message"):
        return f"{lab['message']} (permitted: {why})"
    return why


def is_refused(record: Record) -> bool:
    """Whether the call ended with an error."""
    return decision(record) not in ("", "allowed")


WATCH_MIME = "application/vnd.labkit.watch+json"
TITLE = "The calls to AWS, as they happen"
PARTIES = (*flow.IRSA.parties, "other")
RECEIVERS = {"sts.amazonaws.com": "STS", "iam.amazonaws.com": "IAM", "s3.amazonaws.com": "S3"}
# EC2's names for the sessions of a machine's role:
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html#principal-role-session
INSTANCE = re.compile(r"i-[0-9a-f]+")
YOU, POD, NODE, OTHER = "you", "pod", "node", "other"
NEXT = "run a cell in which a pod calls AWS; each call appears here as it happens"
MOST = 2000  # the page shows at most this many calls, the newest; the trail has the others
LONGEST = 4000  # characters of a request or an answer
# The number of the step that uses S3. The trail has another name for that step's ListObjectsV2.
USE = next(
    number for number, step in enumerate(flow.IRSA.steps, 1) if any(arrow.receiver == "S3" for arrow in step.arrows)
)


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
            decision(record),
            is_refused(record),
            step,
            flow.IRSA.steps[step - 1].text if step else "",
            stable(session_of(record)),
            stable(str(record.get("eventTime", ""))),
            _text(record.get("requestParameters")),
            _answer(record),
            stable(reason(record)),
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
        return bundle if self.why_not else bundle | {WATCH_MIME: self.recorded} | live.drawn(self.panel)

    @property
    def recorded(self) -> dict[str, object]:
        """The calls of pods and nodes as the page gets them, for a page without a kernel."""
        calls = [asdict(replace(call, number=number, time="")) for number, call in enumerate(self.calls, start=1)]
        return {**self._page, "title": "The calls to AWS, as they happened", "calls": calls}

    def panel(self) -> "ipywidgets.Widget":
        """Return the widget: a row for each call to AWS, as it happens, and buttons that step through the calls."""
        from labkit.course.widgets.pages import CallsPage, framed

        return framed(CallsPage(self.reader(), **self._page))

    @property
    def _page(self) -> dict[str, Any]:
        return {"title": TITLE, "parties": [*PARTIES], "own": YOU, "next": NEXT, "most": MOST}

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
    for number, step in enumerate(flow.IRSA.steps, start=1):
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
