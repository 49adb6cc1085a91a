"""What happens in the pod: is its token one that STS takes, and who does AWS say the pod is?"""

from datetime import datetime

from labkit.diagnosis.evidence import Evidence, NotRead
from labkit.diagnosis.evidence.evidence import AUDIENCE_KEY
from labkit.diagnosis.evidence.pod_spec import TOKEN_FILE
from labkit.diagnosis.evidence.probe import Caller
from labkit.diagnosis.finding import Finding
from labkit.diagnosis.findings import containers, role
from labkit.diagnosis.repairs import pod_commands

LEARN = "05-verify.ipynb"
CALL = "kubectl exec … -- aws sts get-caller-identity"
CAT = "kubectl exec … -- cat TOKEN_FILE"
EXCHANGE = "sts:AssumeRoleWithWebIdentity with the pod's token"
EXPIRED = ("ExpiredTokenException", "ExpiredToken")
ASSUME = "AssumeRoleWithWebIdentity"


def token_audience_mismatch(evidence: Evidence) -> Finding | None:
    """The projected token is made for an audience that the OIDC provider does not list.

    https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken
    """
    audience = _audience(evidence)
    if not audience or audience == evidence.audience or evidence.provider is None:
        return None
    audiences = evidence.provider["ClientIDList"]
    if audience in audiences:
        return None
    kubectl, parameters = evidence.connection.kubectl, evidence.parameters
    annotation = f"annotate serviceaccount {parameters.service_account} -n {parameters.namespace}"
    return Finding(
        id="token-audience-mismatch",
        summary="The pod's token is made for somebody else than STS.",
        expected=", ".join(audiences),
        found=audience,
        source="kubectl get pod -o yaml, the projected volume aws-iam-token",
        repair=f"{kubectl} {annotation} --overwrite {AUDIENCE_KEY}-\n{pod_commands.replaced(evidence)}",
        learn=LEARN,
    )


def token_malformed(evidence: Evidence) -> Finding | None:
    """What lies in the token's file is no token.

    https://github.com/aws/amazon-eks-pod-identity-webhook/issues/232
    """
    token = _token(evidence)
    if token is None or not token.malformed:
        return None
    return Finding(
        id="token-malformed",
        summary="The file that is to hold the pod's token holds something else.",
        expected="a JSON web token: header, claims and signature",
        found=token.malformed,
        source=CAT,
        repair=pod_commands.replaced(evidence, pod_commands.without_identity),
        learn=LEARN,
    )


def token_expired(evidence: Evidence) -> Finding | None:
    """STS says that the pod's token has expired: the node did not renew it.

    https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken
    """
    exchange = _refused_exchange(evidence)
    if exchange is None or exchange.code not in EXPIRED:
        return None
    return Finding(
        id="token-expired",
        summary="The token in the pod has expired, and the node has put no other in its place.",
        expected="a token that is renewed when four fifths of its time are over",
        found=f"{exchange.code}: {exchange.message}",
        source=EXCHANGE,
        repair=pod_commands.replaced(evidence),
        learn="07-inside-the-exchange.ipynb",
    )


def token_read_once(evidence: Evidence) -> Finding | None:
    """The application sends STS a token that has expired, while the file in the pod holds a fresh one: it read it once.

    CloudTrail is asked only where the token in the file has been renewed.
    https://docs.aws.amazon.com/eks/latest/userguide/pod-configuration.html
    """
    token = _token(evidence)
    if token is None or not token.claims or not _was_renewed(evidence, token.claims):
        return None
    late = [
        call
        for call in evidence.account.calls(ASSUME)
        if call.get("errorCode") in EXPIRED and evidence.role_arn in str(call.get("requestParameters"))
    ]
    if not late:
        return None
    return Finding(
        id="token-read-once",
        summary="The application sends a token that has expired, although the pod's file holds a fresh one.",
        expected=f"the file in {TOKEN_FILE} read anew for every exchange, as an SDK's own provider does",
        found=f"{late[0]['errorCode']}: {late[0].get('errorMessage', '')} at {late[0].get('eventTime', '')}",
        source=f"cloudtrail:LookupEvents {ASSUME}; {CAT}",
        repair="# let the SDK read the file (web identity provider), or read it anew yourself; until then:\n"
        + pod_commands.replaced(evidence),
        learn="07-inside-the-exchange.ipynb",
    )


def refused(evidence: Evidence) -> Finding | None:
    """The pod asked AWS who it is, and got no answer, or STS does not take its token."""
    caller = _caller(evidence)
    exchange = _refused_exchange(evidence)
    if (exchange is None and (caller is None or caller.arn)) or _is_named(evidence):
        return None
    return Finding(
        id="credentials-refused",
        summary="The pod gets no credentials.",
        expected=f"assumed-role/{_role_name(evidence)}",
        found=f"{exchange.code}: {exchange.message}" if exchange else caller.error,
        source=EXCHANGE if exchange else CALL,
        repair=pod_commands.replaced(evidence),
        learn=LEARN,
    )


def of_another_identity(evidence: Evidence) -> Finding | None:
    """AWS knows the pod as somebody else: as the node, most often, which means that IRSA was not used at all."""
    caller = evidence.caller
    if caller is None or not caller.arn or caller.role_name == _role_name(evidence) or _is_named(evidence):
        return None
    return Finding(
        id="credentials-of-another-identity",
        summary="AWS knows the pod as somebody else than the role.",
        expected=f"assumed-role/{_role_name(evidence)}",
        found=caller.identity,
        source=CALL,
        repair=pod_commands.replaced(evidence),
        learn=LEARN,
    )


CAUSES = (
    token_audience_mismatch,
    token_malformed,
    token_expired,
    token_read_once,
    refused,
    of_another_identity,
)


def _role_name(evidence: Evidence) -> str:
    return evidence.role_name or evidence.parameters.role_name


def _audience(evidence: Evidence) -> str | None:
    """Whom the token is made for that the containers send."""
    for container in evidence.containers:
        token = container.token_at(container.value(TOKEN_FILE)) if container.has_role else None
        if token and token.get("audience"):
            return token["audience"]
    return evidence.token_audience


def _token(evidence: Evidence):
    return evidence.probe.token if evidence.pod_spec else None


def _caller(evidence: Evidence) -> Caller | None:
    """Who the pod is; None also where there is no `aws` in it to ask with."""
    try:
        return evidence.caller
    except NotRead as unread:
        if unread.is_choice:
            raise
        return None


def _refused_exchange(evidence: Evidence):
    """STS's refusal of the pod's token; it is asked only where the pod is not known to be the role."""
    caller = _caller(evidence)
    if caller is not None and caller.role_name == _role_name(evidence):
        return None
    exchange = evidence.probe.exchange
    return exchange if exchange and exchange.code else None


def _is_named(evidence: Evidence) -> bool:
    """Whether what the pod's variables and token show says it more exactly."""
    named = (token_audience_mismatch, token_malformed, token_expired, role.too_new, *containers.CAUSES)
    return any(cause(evidence) for cause in named if cause is not containers.role_session_too_long)


def _was_renewed(evidence: Evidence, claims: dict) -> bool:
    """Whether the first token that the pod had is over."""
    made = (evidence.pod["metadata"].get("creationTimestamp") or "").replace("Z", "+00:00")
    issued, expires = claims.get("iat"), claims.get("exp")
    if not made or not isinstance(issued, int) or not isinstance(expires, int):
        return False
    return issued - datetime.fromisoformat(made).timestamp() >= expires - issued
