"""The token view: each claim of a token beside the value that the provider or the trust policy requires.

The view doesn't keep the token. It never shows the token or its signature, because anyone who has a token can act as
the service account.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from labkit.course.widgets import who_gets_in
from labkit.doctor.evidence.account import tags_of
from labkit.errors import LabError
from labkit.policy import Policy, evaluate_trust
from labkit.showing import RIGHT, WRONG, Code, left_aligned, stable, table
from labkit.tokens import ClaimComparison, Claims, NotAToken, compare

if TYPE_CHECKING:
    from labkit.doctor.evidence import Evidence

SIGNATURE = "This view doesn't check the signature. STS does, with the key that the issuer publishes."
TRUST_POLICY = "trust policy"
NONE = "(none)"
# The condition keys that only a real request has.
UNKNOWN = re.compile(rf"{who_gets_in.UNKNOWN.pattern}|\bsts:RoleSessionName\b", re.IGNORECASE)


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
        """The token's namespace, service account, pod and node."""
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
                f"           in the token  {stable(row.found) or NONE}",
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
                Code(shown(row.found) or NONE),
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


def parse(token: str) -> Claims:
    """Return a token's claims. Raises `LabError` if the text isn't a token; the message doesn't quote it."""
    try:
        return Claims.parse(token.strip() if isinstance(token, str) else token)
    except NotAToken as error:
        raise LabError(
            f"This is not a web identity token: {error}.",
            where="lab.token",
            next="read the pod's file that AWS_WEB_IDENTITY_TOKEN_FILE names, and pass its content to lab.token",
        ) from None


def read(claims: Claims, evidence: "Evidence", again: Callable[[], TokenView]) -> TokenView:
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
        **who_gets_in.of_provider_and_time(evidence.expected.provider_arn, now),
        **claims.context(),
    }
    decision = evaluate_trust(trust, provider_arn=evidence.expected.provider_arn, context=context)
    refusal = f"{decision.reason}.{who_gets_in.undecided(trust.text, UNKNOWN, 'This view')}"
    return TokenView(claims, name, rows, "" if decision.allowed else refusal, again)
