"""Who gets in? A simulation: six callers and a role's trust policy, with the line that admits or refuses each caller.

The simulation decides with the code of the emulated STS: `labkit.tokens.refused`, then `labkit.policy.evaluate_trust`.
It doesn't know a request's IP address and user agent, and ignores an organization's policies. It treats every signature
as genuine.

The book runs this module in a browser, by Pyodide. So it loads neither pydantic nor botocore.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

from labkit.course.widgets import ISSUER_ID
from labkit.errors import LabError, answering
from labkit.policy import (
    Decision,
    MalformedPolicy,
    Policy,
    Statement,
    evaluate_trust,
    resource_tags,
    statement_positions,
)
from labkit.policy.trust import of_provider_and_time
from labkit.showing import Code, block, left_aligned, stable, table
from labkit.tokens import LATEST, NO_JWT, Claims, refused

if TYPE_CHECKING:
    import ipywidgets

    from labkit.doctor import Evidence
    from labkit.workspace import Workspace

ISSUER = re.compile(r"(?:https://)?oidc\.eks\.[\w-]+\.amazonaws\.com/id/[0-9A-F]{28}([0-9A-F]{4})\b")
PROVIDERS = "arn:aws:iam::123456789012:oidc-provider/"
EXAMPLE = "oidc.eks.us-east-1.amazonaws.com/id/5321EAF5DE6E4333EB8626A124C5D1B9"
ADMITTED, REFUSED = "✓ admitted", "✗ refused"
TITLE = "Who gets in?"
SIMULATED = "A simulation: STS isn't asked, and every signature counts as genuine."
LONGEST_LINE = 160
# The simulated session's name, which GetCallerIdentity and CloudTrail would show.
SESSION_NAME = "simulation"
LIFETIME = 60  # minutes until a valid token expires
EMPTY = "The policy is empty."
MISSING = (
    "The role {} doesn't exist. This is the policy that step 2 gives it.\n"
    "next:  run the cell that creates the role, then this one again"
)
START_OVER = "press Start over, which reads the role's policy again"
CORRECT = f"correct it, or {START_OVER}"
# IAM's limits for the text of a policy, with white space. They come before the limit for a role.
# https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAssumeRolePolicy.html#API_UpdateAssumeRolePolicy_RequestParameters
LONGEST = 131072
UNACCEPTED = re.compile("[^\t\n\r -\u00ff]")
# The condition keys that only a real request has.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
UNKNOWN = re.compile(r"\baws:(?:Referer|ResourceOrg\w+|SourceIp|SourceVpc\w*|UserAgent|VpcSourceIp)\b", re.IGNORECASE)


@dataclass(frozen=True)
class SimulatedCaller:
    """The claims that STS checks in a caller's web identity token. `name` only tells the reader who the caller is."""

    name: str
    iss: str
    sub: str
    aud: str
    minutes: float = LIFETIME
    """The minutes until the token expires. Below 0, it has expired."""

    @classmethod
    def of_json(cls, sent: Any) -> "SimulatedCaller":
        """Return the caller that the front end's JSON describes. If `minutes` isn't a finite number, use 0."""
        name, iss, sub, aud = (str(sent.get(field, "")) for field in ("name", "iss", "sub", "aud"))
        minutes = sent.get("minutes")
        is_number = isinstance(minutes, int | float) and math.isfinite(minutes)
        return cls(name, iss, sub, aud, minutes if is_number else 0)

    def unreadable(self, now: float) -> str:
        """Return the reason why STS can't read a token with these claims; empty if STS can read it."""
        for name, value in (("iss", self.iss), ("sub", self.sub), ("aud", self.aud)):
            if not value:
                return f"Missing a required claim: {name}"
        return f"{NO_JWT}: exp is not a number of seconds" if abs(now + self.minutes * 60) > LATEST else ""

    def claims(self, now: float) -> Claims:
        """Return the token's claims at the time ``now``, in seconds since the epoch."""
        return Claims.of({"iss": self.iss, "sub": self.sub, "aud": self.aud, "exp": now + self.minutes * 60})


@dataclass(frozen=True)
class Verdict:
    """STS's answer to a caller, and what decides the answer: a line of the policy, or an earlier check."""

    caller: SimulatedCaller
    admitted: bool
    decides: str
    """The text of the policy's deciding line; or the check that refused the token before STS read the policy."""
    reason: str
    line: int = 0
    """The number of the deciding line, from 1; 0 if no line decides, or if STS refuses before it reads the policy."""

    @property
    def mark(self) -> str:
        """The verdict in one word."""
        return ADMITTED if self.admitted else REFUSED

    @property
    def decided_by(self) -> str:
        """The text in `decides`. If a line of the policy decides, its number comes first, such as `line 12: …`."""
        return f"line {self.line}: {self.decides}" if self.line else self.decides


@dataclass(frozen=True)
class Problem:
    """The reason why IAM would reject the text as a trust policy, and the next step."""

    what: str
    next: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.what}\nnext:  {self.next}"


@dataclass(frozen=True, repr=False)
class WhoGetsIn:
    """Six callers and a role's trust policy. A running notebook lets you edit the policy and the claims."""

    role_name: str
    policy: str
    callers: Sequence[SimulatedCaller]
    provider_arn: Callable[[str], str]
    """A function that returns the ARN of an issuer's OIDC provider in the role's account, registered or not."""
    client_ids: Callable[[str], Sequence[str] | None]
    """A function that returns the client ids of an issuer's provider; None if the account has no such provider."""
    now: Callable[[], float]
    again: Callable[[], "WhoGetsIn"]
    """A function that reads the live lab again."""
    apply: Callable[[str], None] | None = None
    """A function that writes a text as the role's trust policy; None if a widget must not change the account."""
    has_role: bool = True
    """Whether the role exists. If it doesn't, the policy is the one that step 2 would create."""
    context: Mapping[str, object] = field(default_factory=dict)
    """The condition keys that every request for the role has: see `of_region_and_role`."""

    def problem(self) -> Problem | None:
        """Return the reason why IAM would reject the text as a trust policy; None if IAM would accept the text.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAssumeRolePolicy.html#API_UpdateAssumeRolePolicy_Errors
        """
        if not self.policy.strip():
            return Problem(EMPTY, START_OVER)
        if (size := len(self.policy)) > LONGEST:
            what = f"IAM accepts at most {LONGEST} characters, with white space. This text has {size}."
            return Problem(what, f"shorten it, or {START_OVER}")
        if match := UNACCEPTED.search(self.policy):
            before = self.policy[: match.start()]
            line, column = before.count("\n") + 1, match.start() - before.rfind("\n")
            what = f"Line {line}, column {column} has the character {match[0]!r}, which IAM doesn't accept in a policy."
            return Problem(what, f"correct line {line}, or {START_OVER}", line, column)
        try:
            Policy.parse(self.policy, kind="trust", name=self.role_name)
        except MalformedPolicy as malformed:
            answer = f"IAM would answer {malformed.code}: {malformed.message}"
            try:
                json.loads(self.policy)
            except json.JSONDecodeError as error:
                what = f"Line {error.lineno}, column {error.colno} isn't JSON: {error.msg}. {answer}"
                return Problem(what, f"correct line {error.lineno}, or {START_OVER}", error.lineno, error.colno)
            except RecursionError:
                return Problem(f"The text is nested too deeply. {answer}", START_OVER)
            if malformed.code == "LimitExceeded":
                return Problem(f"{answer} characters. White space doesn't count.", f"shorten it, or {START_OVER}")
            return Problem(answer, CORRECT)
        return None

    def verdicts(self) -> list[Verdict]:
        """Return STS's answer to each caller. Raises `LabError` if the account's providers can't be read."""
        trust = Policy.read(self.policy, kind="trust", name=self.role_name)
        return [self._verdict(caller, trust) for caller in self.callers]

    def _verdict(self, caller: SimulatedCaller, trust: Policy) -> Verdict:
        now = self.now()
        if unreadable := caller.unreadable(now):
            return Verdict(caller, False, "before the policy: the token", f"InvalidIdentityToken: {unreadable}")
        claims = caller.claims(now)
        early = refused(
            caller.iss,
            claims.audiences,
            client_ids=self.client_ids(caller.iss) if caller.iss.startswith("https://") else None,
            expires=claims.expires or 0,
            not_before=now,
            now=now,
        )
        if early:
            detail = f": {early.detail}" if early.detail else ""
            return Verdict(
                caller, False, f"before the policy: the {early.check}", f"{early.code}: {early.message}{detail}"
            )
        arn = self.provider_arn(caller.iss)
        own = {"sts:RoleSessionName": SESSION_NAME}
        context = {**self.context, **of_provider_and_time(arn, now), **own, **claims.context()}
        decision = evaluate_trust(trust, provider_arn=arn, context=context)
        line = _line(decision, trust)
        text = _cut(self.policy.split("\n")[line - 1].strip()) if line else "no statement of the policy allows it"
        reason = decision.reason if decision.allowed else f"AccessDenied: {decision.reason}"
        return Verdict(caller, decision.allowed, text, reason, line)

    @property
    def missing(self) -> str:
        """A message if the role doesn't exist; empty if the role exists."""
        return "" if self.has_role else MISSING.format(self.role_name)

    @property
    def headline(self) -> str:
        """A line with the number and the names of the admitted callers, and the unknown condition keys."""
        names = [verdict.caller.name for verdict in self.verdicts() if verdict.admitted]
        admitted = f"{len(names)} of {len(self.callers)} get in" + (f": {', '.join(names)}." if names else ".")
        return f"{admitted}{undecided(self.policy, UNKNOWN, 'The simulation')}"

    def __repr__(self) -> str:
        lines = [f"{TITLE} {SIMULATED}", *filter(None, [self.missing])]
        if problem := self.problem():
            return "\n".join([*lines, str(problem)])
        lines += [_numbered(self.policy), f"The trust policy of {self.role_name}: {self.headline}"]
        width = max(len(caller.name) for caller in self.callers)
        for verdict in self.verdicts():
            decides = f"line {verdict.line}" if verdict.line else verdict.decides
            lines.append(f"  {verdict.mark:{len(ADMITTED)}}  {verdict.caller.name:{width}}  {decides}")
            lines.append(f"  {'':{len(ADMITTED)}}  {'':{width}}  {_stored(verdict.reason)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = f"<p><strong>{TITLE}</strong> {SIMULATED}</p>" + (self.missing and f"<p>{escape(self.missing)}</p>")
        if problem := self.problem():
            return head + block(str(problem))
        rows = [
            (verdict.mark, verdict.caller.name, Code(_stored(verdict.decided_by)), _stored(verdict.reason))
            for verdict in self.verdicts()
        ]
        said = f"<p>The trust policy of <code>{escape(self.role_name)}</code>: {escape(self.headline)}</p>"
        policy = block(_numbered(self.policy))
        return head + policy + said + table(rows, ("", "caller", "what decides", "why"))

    def as_json(self) -> dict[str, object]:
        """Return the front end's data: the problem, or the verdicts and a sentence that sums them up."""
        try:
            if problem := self.problem():
                return {"problem": vars(problem)}
            rows = [
                {
                    "admitted": verdict.admitted,
                    "mark": verdict.mark,
                    "who": verdict.caller.name,
                    "decides": verdict.decides,
                    "line": verdict.line,
                    "reason": ISSUER.sub(r"…\1", verdict.reason),
                }
                for verdict in self.verdicts()
            ]
            return {"rows": rows, "headline": self.headline}
        except LabError as error:
            return {"problem": vars(Problem(error.what, error.next or START_OVER))}

    def judge(self, policy: str, callers: Sequence[object]) -> dict[str, object]:
        """Return the front end's data for another policy and other callers."""
        return replace(self, policy=policy, callers=[*map(SimulatedCaller.of_json, callers)]).as_json()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from labkit.course.widgets import live

        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": left_aligned(self._repr_html_())}
        return bundle | live.drawn(self.panel)

    def panel(self) -> "ipywidgets.Widget":
        """Return the widget: the editable policy and claims, the six verdicts, and a button that applies the policy."""
        from labkit.course.widgets.pages import PolicyPage, Start, framed

        def start_over() -> Start:
            read = self.again()
            return read.policy, [dict(vars(caller)) for caller in read.callers], read.missing

        page = PolicyPage(self.role_name, judge=self.judge, start_over=start_over, apply=self.apply, correct=CORRECT)
        return framed(page)


def write_trust_policy(lab: "Workspace", policy: str) -> None:
    """Write the policy, a text, to the run's role. Raises `LabError`, for example if the role isn't the run's."""
    from labkit.steps import iam_role

    with answering(lab.parameters.namespace):
        iam_role.make_way(lab)
        lab.aws.client("iam").update_assume_role_policy(RoleName=lab.parameters.role_name, PolicyDocument=policy)


def simulate(
    evidence: "Evidence", again: Callable[[], WhoGetsIn], apply: Callable[[str], None] | None = None
) -> WhoGetsIn:
    """Return six callers and the role's live trust policy. Without a role, use the policy that step 2 creates.

    Args:
        apply: a function that writes a text as the role's trust policy; None if a widget must not change the policy.
    """
    from labkit.doctor import tags_of
    from labkit.steps import iam_role

    connection, parameters = evidence.connection, evidence.parameters
    document = (
        evidence.aws.trust_policy if evidence.aws.role else iam_role.build(parameters, evidence.expected.provider_arn)
    )
    tags = tags_of(evidence.aws.role) if evidence.aws.role else {tag["Key"]: tag["Value"] for tag in parameters.tags}
    own = evidence.expected.provider_arn

    def provider_arn(url: str) -> str:
        return own.partition("oidc-provider/")[0] + "oidc-provider/" + url.removeprefix("https://")

    def client_ids(url: str) -> Sequence[str] | None:
        arn = provider_arn(url)
        provider = evidence.aws.role_account.provider(arn) if arn in evidence.aws.provider_arns else None
        return provider["ClientIDList"] if provider else None

    return WhoGetsIn(
        evidence.expected.role_name,
        json.dumps(document, indent=2, ensure_ascii=False),
        _callers(connection.issuer, parameters.namespace, parameters.service_account, evidence.expected.audience),
        provider_arn,
        client_ids,
        connection.now,
        again,
        apply,
        evidence.aws.role is not None,
        of_region_and_role(parameters.region, tags),
    )


def example(now: Callable[[], float]) -> WhoGetsIn:
    """Return six callers and the policy that step 2 creates, without a lab."""
    audience, namespace, name = "sts.amazonaws.com", "default", "my-service-account"
    issuer = f"https://{EXAMPLE}"
    condition = {f"{EXAMPLE}:sub": f"system:serviceaccount:{namespace}:{name}", f"{EXAMPLE}:aud": audience}
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": PROVIDERS + EXAMPLE},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": condition},
    }
    return WhoGetsIn(
        "my-role",
        json.dumps({"Version": "2012-10-17", "Statement": [statement]}, indent=2),
        _callers(issuer, namespace, name, audience),
        provider_arn=lambda url: PROVIDERS + url.removeprefix("https://"),
        client_ids=lambda url: [audience] if url == issuer else None,
        now=now,
        again=lambda: example(now),
        context=of_region_and_role("us-east-1", {}),
    )


def of_region_and_role(region: str, tags: Mapping[str, str]) -> Mapping[str, object]:
    """Return the condition keys that every request for a role has: the region, and the role's tags."""
    return {"aws:RequestedRegion": region, **resource_tags(tags, "iam")}


def _callers(issuer: str, namespace: str, name: str, audience: str) -> list[SimulatedCaller]:
    def subject(of_namespace: str, of_name: str) -> str:
        return f"system:serviceaccount:{of_namespace}:{of_name}"

    another = "default" if name != "default" else "another"
    elsewhere = "elsewhere" if namespace != "elsewhere" else "default"
    host, slash, id = issuer.rpartition("/")
    own = SimulatedCaller("this service account", issuer, subject(namespace, name), audience)
    return [
        own,
        replace(own, name="another service account", sub=subject(namespace, another)),
        replace(own, name="the same name in another namespace", sub=subject(elsewhere, name)),
        replace(own, name="the same name in another cluster", iss=f"{host}{slash}{id[::-1]}"),
        replace(own, name="a token for another audience", aud="https://kubernetes.default.svc"),
        replace(own, name="an expired token", minutes=-LIFETIME),
    ]


def undecided(policy: str, unknown: re.Pattern[str], subject: str) -> str:
    """Return a sentence that names the unknown condition keys in the policy's text; empty without such keys."""
    keys = ", ".join(dict.fromkeys(unknown.findall(policy)))
    return f" {subject} has no value for {keys}, so STS may decide otherwise." if keys else ""


def _line(decision: Decision, trust: Policy) -> int:
    """Return the number of the deciding line in the policy's text."""
    if decision.statement:
        return _place(trust, decision.statement, "Effect")
    if not decision.near:
        return 0
    near = decision.near[0]
    miss = near.misses[0]
    if miss.condition:
        return _place(trust, near.statement, miss.condition.operator, miss.condition.key)
    elements = {"action": ("NotAction", "Action"), "principal": ("NotPrincipal", "Principal")}.get(miss.part, ())
    return _place(trust, near.statement, *(name for name in elements if name in near.statement.raw))


def _place(trust: Policy, statement: Statement, *names: str) -> int:
    """Search the statement's text for `names`, in their order. Return the line number of the last name found.

    The search for a name starts where the previous name was found. A name that isn't found is skipped. If no name is
    found, return the number of the statement's first line. If the policy's text doesn't contain the statement, return
    0. Lines are numbered in the policy's text.
    """
    places = statement_positions(trust.text)
    if statement.position > len(places):
        return 0
    (line, column), (last, _) = places[statement.position - 1]
    lines = trust.text.split("\n")
    at = sum(len(each) + 1 for each in lines[: line - 1]) + column - 1
    end = sum(len(each) + 1 for each in lines[:last])
    while at < end and trust.text[at] in " \t\r\n,":
        at += 1
    for name in names:
        position = trust.text.find(json.dumps(name, ensure_ascii=False), at, end)
        at = position if position >= 0 else at
    return trust.text.count("\n", 0, at) + 1


def _stored(text: str) -> str:
    return short(stable(text))


def short(text: str) -> str:
    """Return the text with each issuer's id shortened, such as 5321…D1B9."""
    return ISSUER_ID.sub(lambda match: f"{match[0][:4]}…{match[0][-4:]}", text)


def _numbered(policy: str) -> str:
    """Return the policy with a number before each line. The verdicts refer to these numbers."""
    return "\n".join(f"{number:4}  {_stored(_cut(line))}" for number, line in enumerate(policy.split("\n"), 1))


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"
