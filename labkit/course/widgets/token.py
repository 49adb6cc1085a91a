"""The token view: each claim of a token beside the value that the provider or the trust policy requires.

The view doesn't keep the token. It never shows the token or its signature, because anyone who has a token can act as
the service account.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from labkit.course.widgets import who_gets_in
from labkit.doctor import tags_of
from labkit.errors import LabError
from labkit.policy import Policy, Principal, Request, evaluate_trust
from labkit.policy.conditions import quoted
from labkit.policy.trust import of_provider_and_time
from labkit.showing import RIGHT, WRONG, Code, left_aligned, stable, table
from labkit.tokens import Claims, NotAToken

if TYPE_CHECKING:
    from labkit.doctor import Evidence

SIGNATURE = "This view doesn't check the signature. STS does, with the key that the issuer publishes."
TRUST_POLICY = "trust policy"
NONE = "(none)"
# The condition keys that only a real request has.
UNKNOWN = re.compile(rf"{who_gets_in.UNKNOWN.pattern}|\bsts:RoleSessionName\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ClaimComparison:
    """A row of the token view: a required value (`wanted`), and the token's own (`presented`).

    `field` names what is compared: mostly a claim of the token. `where` names the setting, the policy statement or the
    check that requires the value.
    """

    field: str
    wanted: str
    presented: str
    matches: bool
    where: str


@dataclass(frozen=True, repr=False)
class TokenView:
    """A token's claims beside their expected values, in the order in which STS compares them.

    As a bool, it's True if STS would accept the token. Stored outputs show `<date>` instead of each date.
    """

    claims: Claims
    role_name: str
    rows: Sequence[ClaimComparison]
    refusal: str
    """The reason why the trust policy as a whole refuses the token; empty if the policy admits the token."""
    again: Callable[[], "TokenView"]
    """A function that compares the same claims with the live provider and trust policy again."""

    @property
    def ok(self) -> bool:
        """Whether the provider and the trust policy would both accept the token, if its signature is genuine."""
        # One statement of the trust policy is enough, so a row alone doesn't decide.
        return not self.refusal and all(row.matches for row in self.rows if not row.where.startswith(TRUST_POLICY))

    def __bool__(self) -> bool:
        return self.ok

    @property
    def _headline(self) -> tuple[str, str]:
        accept = "and the trust policy of {} accept" if self.ok else "or the trust policy of {} refuses"
        return RIGHT if self.ok else WRONG, f"the provider {accept.format(self.role_name)} this token"

    @property
    def _refused(self) -> str:
        """A text that says why the trust policy refuses the token.

        Empty if the trust policy admits the token, or if a row already shows a mismatch with the trust policy.
        """
        is_shown = any(row.where.startswith(TRUST_POLICY) and not row.matches for row in self.rows)
        return "" if is_shown or not self.refusal else f"AccessDenied: {self.refusal}"

    @property
    def _about(self) -> str:
        names = {"namespace": self.claims.kubernetes.get("namespace")}
        for kind in ("serviceaccount", "pod", "node"):
            thing = self.claims.kubernetes.get(kind)
            names[kind] = thing.get("name") if isinstance(thing, dict) else None
        return ", ".join(f"{kind} {name}" for kind, name in names.items() if isinstance(name, str))

    def __repr__(self) -> str:
        mark, said = self._headline
        lines = [f"{mark}: {said}"]
        for row in self.rows:
            lines += [
                f"  {RIGHT if row.matches else WRONG}  {row.field}  ({row.where})",
                f"           in the token  {stable(row.presented) or NONE}",
                f"           wanted        {stable(row.wanted) or NONE}",
            ]
        if self._refused:
            lines.append(stable(self._refused))
        if self._about:
            lines.append(f"AWS doesn't compare the claim kubernetes.io: {self._about}.")
        return "\n".join([*lines, SIGNATURE])

    def _repr_html_(self) -> str:
        return self._html(stable)

    def _html(self, shown: Callable[[str], str]) -> str:
        mark, said = self._headline
        rows = [
            (
                RIGHT if row.matches else WRONG,
                Code(row.field),
                Code(shown(row.presented) or NONE),
                Code(shown(row.wanted) or NONE),
                row.where,
            )
            for row in self.rows
        ]
        refused = f"{escape(shown(self._refused))}<br>" if self._refused else ""
        about = (
            f"AWS doesn't compare the claim <code>kubernetes.io</code>: {escape(self._about)}.<br>"
            if self._about
            else ""
        )
        return (
            f"<p><strong>{mark}: {escape(said)}</strong></p>"
            + table(rows, ("", "claim", "in the token", "wanted", "by"))
            + f"<p>{refused}{about}{SIGNATURE}</p>"
        )

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from labkit.course.widgets import live

        widget = live.view(self._html(str), lambda: self.again()._html(str), "Compare again")
        return {"text/plain": repr(self), "text/html": left_aligned(self._repr_html_()), **widget}


def parse_token(token: str) -> Claims:
    """Return a token's claims. Raises `LabError` if the text isn't a token; the message doesn't quote it."""
    try:
        return Claims.parse(token.strip() if isinstance(token, str) else token)
    except NotAToken as error:
        raise LabError(
            f"This is not a web identity token: {error}.",
            where="lab.token",
            next="read the pod's file that AWS_WEB_IDENTITY_TOKEN_FILE names, and pass its content to lab.token",
        ) from None


def compare_token(claims: Claims, evidence: "Evidence", again: Callable[[], TokenView]) -> TokenView:
    """Return a view that compares these claims with the live lab's provider and trust policy."""
    name, provider, now = evidence.parameters.role_name, evidence.aws.provider, evidence.connection.now()
    trust = Policy.read(evidence.aws.trust_policy, kind="trust", name=name) if evidence.aws.role else None
    rows = compare(
        claims,
        provider["Url"] if provider else None,
        provider["ClientIDList"] if provider else [],
        trust,
        evidence.expected.provider_arn,
        now=now,
    )
    if trust is None:
        return TokenView(claims, name, rows, f"the role {name} doesn't exist.", again)
    context = {
        **who_gets_in.of_region_and_role(evidence.parameters.region, tags_of(evidence.aws.role)),
        **of_provider_and_time(evidence.expected.provider_arn, now),
        **claims.context(),
    }
    decision = evaluate_trust(trust, provider_arn=evidence.expected.provider_arn, context=context)
    refusal = f"{decision.reason}.{who_gets_in.undecided(trust.text, UNKNOWN, 'This view')}"
    return TokenView(claims, name, rows, "" if decision.allowed else refusal, again)


def compare(
    claims: Claims,
    provider_url: str | None,
    client_ids: list[str],
    trust: Policy | None,
    provider_arn: str,
    *,
    now: float | None = None,
) -> list[ClaimComparison]:
    """Return the rows of the token view, in the order of STS's checks.

    Without `provider_url`, the role's account has no OIDC provider for the token's issuer. `now` is the lab's time in
    epoch seconds. Without `now`, the view has no row for the expiry.
    """
    url = f"https://{provider_url.removeprefix('https://')}" if provider_url else ""
    rows = [
        ClaimComparison(
            "iss",
            url or "an OIDC provider",
            claims.issuer or "",
            bool(url) and url == claims.issuer,
            "OIDC provider: URL",
        )
    ]
    field = "azp" if claims.authorized_party else "aud"
    known = any(audience in client_ids for audience in claims.compared)
    rows.append(
        ClaimComparison(field, " or ".join(client_ids), ", ".join(claims.compared), known, "OIDC provider: client ids")
    )
    if now is not None:
        expires = claims.expires
        shown = "" if expires is None else _utc(expires)
        rows.append(
            ClaimComparison("exp", f"after {_utc(now)}", shown, expires is not None and now < expires, "STS: the time")
        )
    return rows + (_trust_rows(claims, trust, provider_arn) if trust else [])


def _trust_rows(claims: Claims, trust: Policy, provider_arn: str) -> list[ClaimComparison]:
    request = Request(Principal.federated(provider_arn), "sts:AssumeRoleWithWebIdentity", "*", {**claims.context()})
    rows = []
    for statement in trust.statements:
        where = "trust policy" if len(trust.statements) == 1 else f"trust policy, {statement}"
        where += "" if statement.allow else " (Deny)"
        if statement.fault:
            rows.append(ClaimComparison("statement", "a readable statement", statement.fault, False, where))
            continue
        principals = statement.principals
        trusted = bool(principals and principals.match(request.principal, allow=statement.allow))
        rows.append(ClaimComparison("provider", str(principals), provider_arn, trusted, f"{where}: Principal"))
        for condition in statement.conditions:
            result = condition.result(request.values)
            issuer, _, claim = result.key.rpartition(":")
            if "." not in issuer.partition("/")[0] and issuer.lower() != claims.provider.lower():
                continue  # a key about the request, such as aws:SourceIp, or about the role
            wanted = f"{result.operator} {quoted(result.wanted)}"
            presented = ", ".join(result.actual)
            rows.append(ClaimComparison(claim, wanted, presented, result.matched, f"{where}: {result.key}"))
    return rows


def _utc(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return str(seconds)
