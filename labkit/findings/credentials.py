"""What happens in the pod: is its token made for STS, and who does AWS say the pod is?"""

from typing import TYPE_CHECKING

from labkit.findings import Finding

if TYPE_CHECKING:
    from labkit.evidence import Evidence

LEARN = "05-verify.ipynb"
CALL = "kubectl exec … -- aws sts get-caller-identity"


def token_audience_mismatch(evidence: "Evidence") -> Finding | None:
    """The projected token is made for an audience that the OIDC provider does not list.

    https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken
    """
    if evidence.pod is None or evidence.token_audience is None or evidence.provider is None:
        return None
    audiences = evidence.provider["ClientIDList"]
    if evidence.token_audience in audiences or evidence.token_audience == evidence.audience:
        return None
    return Finding(
        id="token-audience-mismatch",
        summary="The pod's token is made for somebody else than STS.",
        expected=", ".join(audiences),
        found=evidence.token_audience,
        source="kubectl get pod -o yaml, the projected volume aws-iam-token",
        repair=f"{evidence.commands.annotate(without='eks.amazonaws.com/audience')}\n{evidence.commands.replace_pod()}",
        learn=LEARN,
    )


def refused(evidence: "Evidence") -> Finding | None:
    """The pod asked AWS who it is, and got no answer."""
    caller = evidence.caller
    if caller is None or caller.arn:
        return None
    return Finding(
        id="credentials-refused",
        summary="The pod gets no credentials.",
        expected=f"assumed-role/{evidence.parameters.role_name}",
        found=caller.error,
        source=CALL,
        repair=evidence.commands.replace_pod(),
        learn=LEARN,
    )


def of_another_identity(evidence: "Evidence") -> Finding | None:
    """AWS knows the pod as somebody else: as the node, most often, which means that IRSA was not used at all."""
    caller = evidence.caller
    if caller is None or not caller.arn or caller.role_name == evidence.parameters.role_name:
        return None
    return Finding(
        id="credentials-of-another-identity",
        summary="AWS knows the pod as somebody else than the role.",
        expected=f"assumed-role/{evidence.parameters.role_name}",
        found=caller.identity,
        source=CALL,
        repair=evidence.commands.replace_pod(),
        learn=LEARN,
    )
