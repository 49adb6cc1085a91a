"""The OIDC provider: is the cluster's issuer registered in IAM, for the audience of its tokens?"""

from typing import TYPE_CHECKING

from labkit.findings import Finding

if TYPE_CHECKING:
    from labkit.evidence import Evidence

LEARN = "01-oidc-provider.ipynb"


def missing(evidence: "Evidence") -> Finding | None:
    """No OIDC provider for the cluster's issuer in the account.

    https://docs.aws.amazon.com/eks/latest/userguide/enable-iam-roles-for-service-accounts.html
    """
    if evidence.provider is not None:
        return None
    return Finding(
        id="oidc-provider-missing",
        summary="IAM has no OIDC provider for the cluster's issuer, so STS knows nobody who vouches for its tokens.",
        expected=evidence.provider_arn,
        found=", ".join(evidence.provider_arns) or "no OIDC provider",
        source="iam:ListOpenIDConnectProviders",
        repair=evidence.commands.create_provider(),
        learn=LEARN,
    )


def audience_missing(evidence: "Evidence") -> Finding | None:
    """The provider's client ids lack the audience of the cluster's tokens.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_AddClientIDToOpenIDConnectProvider.html
    """
    if evidence.provider is None:
        return None
    audiences = evidence.provider["ClientIDList"]
    if evidence.audience in audiences:
        return None
    return Finding(
        id="oidc-provider-audience-missing",
        summary="The OIDC provider does not list the audience of the tokens among its client ids.",
        expected=evidence.audience,
        # repr shows what is invisible in print: a stray blank, another script's letter.
        found=", ".join(repr(audience) for audience in audiences) or "no client id",
        source="iam:GetOpenIDConnectProvider, ClientIDList",
        repair=evidence.commands.add_client_id(),
        learn=LEARN,
    )
