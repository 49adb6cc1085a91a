"""The trail in a notebook: each call's name, caller, decision and reason. The real AWS doesn't tell the reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import takewhile

from labkit.connection import Connection, Record
from labkit.policy.arn import Arn
from labkit.showing import is_live, stable, table

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
    arn = Arn.find(identity.get("arn") or "")
    if arn and arn.session_role:
        return arn.session_role
    if name := identity.get("userName"):
        return str(name)
    if identity.get("type") == "AWSAccount":
        return str(identity.get("accountId", ""))
    return arn.name if arn else str(identity.get("type", ""))


def session_of(record: Record) -> str:
    """Return ``ROLE/SESSION`` if the caller is a role session; otherwise, the same name as `who`."""
    arn = Arn.find((record.get("userIdentity") or {}).get("arn") or "")
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
