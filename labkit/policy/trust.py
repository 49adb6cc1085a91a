"""Evaluate a role's trust policy: may a web identity or an AWS service assume the role?

https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_create_for-idp_oidc.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html#condition-keys-wif
"""

from collections.abc import Mapping

from labkit.policy.arn import Arn
from labkit.policy.conditions import ConditionResult, of_time, quoted
from labkit.policy.decision import Decision
from labkit.policy.document import Policy, Statement
from labkit.policy.matching import Request, applies, covers, failures, names, unevaluable
from labkit.policy.principals import Match, Principal

WEB_IDENTITY = "sts:AssumeRoleWithWebIdentity"
# A token's claims that have a condition key. IAM has no key for other claims, such as `iss`.
CLAIMS = ("sub", "aud", "oaud", "azp", "amr", "email")


def evaluate_trust(
    trust: Policy, *, provider_arn: str, action: str = WEB_IDENTITY, context: Mapping[str, object]
) -> Decision:
    """Decide by the trust policy whether a caller with a token of this provider may call `action`.

    `context` has the token's claims. Their keys begin with the provider's host and path, such as `oidc.eks…/id/X:sub`.
    The `reason` of a refusal names the condition, action or principal that doesn't match.
    """
    return _evaluate(trust, Request(Principal.federated(provider_arn), action, "*", context))


def evaluate_service_trust(trust: Policy, *, service: str, action: str, context: Mapping[str, object]) -> Decision:
    """Decide by the trust policy whether an AWS service (`pods.eks.amazonaws.com`) may call `action`.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_create_for-service.html
    """
    return _evaluate(trust, Request(Principal.service(service), action, "*", context))


def of_provider_and_time(provider_arn: str, now: float) -> dict[str, str]:
    """Return the condition keys about the provider, its account, the transport and the time, with their values.

    A role trusts only providers in its own account.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
    """
    return {
        "aws:FederatedProvider": provider_arn,
        "aws:ResourceAccount": Arn.parse(provider_arn).account,
        "aws:SecureTransport": "true",
        **of_time(now),
    }


def names_service(trust: Policy, *, service: str, action: str) -> bool:
    """Return whether an Allow statement covers this service and this action. Conditions are ignored."""
    request = Request(Principal.service(service), action, "*", {})
    return any(
        statement.allow and names(statement, request) > Match.NONE and covers(statement, request) is not False
        for statement in trust.statements
    )


def _evaluate(trust: Policy, request: Request) -> Decision:
    action, allowing = request.action, None
    for statement in trust.statements:
        verdict = applies(statement, request)
        if not statement.allow and verdict is not False:
            return _denied(_deny_reason(statement, request, verdict), request, trust, explicit=statement)
        if statement.allow and verdict and allowing is None:
            allowing = statement
    if allowing:
        reason = f"{allowing} of the trust policy allows {action}"
        return Decision(request, "allowed", None, trust, allowing, main_reason=reason)
    return _nearest(trust, request)


def _nearest(trust: Policy, request: Request) -> Decision:
    """Return a denial that names the nearest mismatch between the trust policy and the request."""
    allows = [statement for statement in trust.statements if statement.allow]
    if not allows:
        return _denied("the trust policy has no Allow statement", request, trust)
    faulty = [statement for statement in allows if statement.fault]
    trusting = [statement for statement in allows if not statement.fault and names(statement, request) > Match.NONE]
    covering = [statement for statement in trusting if covers(statement, request)]
    if covering:
        failed = min((failures(statement, request) for statement in covering), key=len)
        provider = _provider(request.principal.arn)
        reason = " and ".join(_tell(result, provider) for result in failed)
        return _denied(reason, request, trust)
    if trusting:
        who = "provider" if request.principal.kind == "federated" else "service"
        actions = ", ".join(trusting[0].written("Action"))
        reason = f"the trust policy lets the {who} do {actions}, and not {request.action}"
        return _denied(reason, request, trust)
    if faulty:
        problem = unevaluable(faulty[0], request)
        return _denied(f"{faulty[0]} of the trust policy cannot be evaluated: {problem}", request, trust)
    trusted = "; ".join(str(statement.principals) for statement in allows)
    if request.principal.kind == "service":
        return _denied(f"the trust policy doesn't name {request.principal.arn}; it trusts {trusted}", request, trust)
    federated = [arn for statement in allows if statement.principals for arn in statement.principals.federated]
    if not federated:
        return _denied(f"the trust policy names no federated principal; it trusts {trusted}", request, trust)
    reason = (
        f"the trust policy trusts {', '.join(sorted(federated))}, and the token's provider is {request.principal.arn}"
    )
    return _denied(reason, request, trust)


def _tell(result: ConditionResult, provider: str) -> str:
    if result.problem:
        return f"the trust policy cannot be evaluated: {result.problem}"
    issuer, _, claim = result.key.rpartition(":")
    wants = f"the trust policy wants {result.key} {result.operator} {quoted(result.wanted)}"
    if not result.actual and "." in issuer.partition("/")[0] and issuer.lower() != provider.lower():
        return f"{wants}, a key of another issuer: the token's provider is {provider}"
    if not result.actual and issuer.lower() == provider.lower() and claim.lower() not in CLAIMS:
        known = " and ".join([", ".join(CLAIMS[:-1]), CLAIMS[-1]])
        return f"{wants}, and IAM has no such key: the keys for a token are {known}"
    who = "the token" if issuer.lower() == provider.lower() else "the request"
    missing = claim if who == "the token" else result.key
    actual = quoted(result.actual).replace(" or ", ", ") if result.actual else f"no {missing}"
    literal = ""
    if "StringEquals" in result.operator and any("*" in value or "?" in value for value in result.wanted):
        literal = " (StringEquals compares * and ? literally; StringLike treats them as wildcards)"
    return f"{wants} and {who} has {actual}{literal}"


def _provider(arn: str) -> str:
    """Return the prefix of the provider's condition keys: its URL without `https://`."""
    return (named.issuer if (named := Arn.find(arn)) else "") or arn


def _deny_reason(statement: Statement, request: Request, verdict: bool | None) -> str:
    if verdict is None:
        problem = unevaluable(statement, request)
        return f"{statement} of the trust policy cannot be evaluated, so it counts as an explicit Deny: {problem}"
    return f"an explicit Deny, {statement} of the trust policy, refuses {request.action}"


def _denied(reason: str, request: Request, trust: Policy, explicit: Statement | None = None) -> Decision:
    if explicit:
        denial = "with an explicit deny in the role trust policy"
        return Decision(request, "explicitDeny", denial, trust, explicit, main_reason=reason)
    denial = f"because no role trust policy allows the {request.action} action"
    return Decision(request, "implicitDeny", denial, silent=(trust,), main_reason=reason)
