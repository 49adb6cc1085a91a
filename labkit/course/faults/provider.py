"""Faults of the OIDC provider and of its issuer."""

import json

from labkit.course.faults.fault import fault
from labkit.course.faults.role import ADMITTED_TOO_MUCH
from labkit.course.faults.role import ISSUER as TRUSTED_ISSUER
from labkit.course.faults.situation import ANOTHER_ACCOUNT, Situation

PRESENT = ("whether there is a provider",)
AUDIENCE = ("the provider's audiences",)
ISSUER = ("what the issuer publishes",)
# The findings that need a provider.
ABSENT_HIDES = ("oidc-provider-audience-*", "oidc-provider-thumbprint-stale")
OLD_ID = "0" * 31 + "1"
OLD_THUMBPRINT = "9e99a48a9960b14926bb7f3b02e22da2b0ab7280"


@fault(
    "The account's identity providers were tidied up.",
    finding="oidc-provider-missing",
    hides=ABSENT_HIDES,
    changes=PRESENT,
)
def oidc_provider_deleted(situation: Situation) -> None:
    situation.providers.pop(situation.provider_arn, None)


@fault(
    "The issuer was registered with the credentials of another account.",
    finding="oidc-provider-in-another-account",
    hides=(*ABSENT_HIDES, *ADMITTED_TOO_MUCH),
    seen_as=("oidc-provider-missing",),
    changes=(*PRESENT, *TRUSTED_ISSUER),
)
def oidc_provider_made_in_another_account(situation: Situation) -> None:
    if provider := situation.providers.pop(situation.provider_arn, None):
        arn = situation.provider_arn.replace(situation.account_id, ANOTHER_ACCOUNT)
        situation.providers[arn] = provider
        situation.trust(arn, situation.provider_name)


@fault(
    "The issuer was registered again, with a URL copied from another document.",
    finding="oidc-provider-url-differs",
    hides=ABSENT_HIDES,
    changes=PRESENT,
)
def oidc_provider_with_a_slash_at_its_end(situation: Situation) -> None:
    if provider := situation.providers.pop(situation.provider_arn, None):
        situation.providers[f"{situation.provider_arn}/"] = {**provider, "Url": f"{situation.issuer}/"}


@fault(
    "The cluster was created again from the same files. Nothing was changed in IAM.",
    finding="cluster-rebuilt",
    hides=(*ABSENT_HIDES, *ADMITTED_TOO_MUCH),
    seen_as=("oidc-provider-missing",),
    changes=(*PRESENT, *TRUSTED_ISSUER),
)
def cluster_made_anew(situation: Situation) -> None:
    if provider := situation.providers.pop(situation.provider_arn, None):
        arn = situation.provider_arn.replace(situation.issuer_id, OLD_ID)
        situation.providers[arn] = {**provider, "Url": situation.issuer.replace(situation.issuer_id, OLD_ID)}
        situation.trust(arn, situation.provider_name.replace(situation.issuer_id, OLD_ID))


@fault("An old cluster was deleted.", finding="oidc-provider-dangling", works=True)
def provider_of_a_cluster_that_is_gone(situation: Situation) -> None:
    arn = situation.provider_arn.replace(situation.issuer_id, "F" * 32)
    situation.providers[arn] = {
        "Url": situation.issuer.replace(situation.issuer_id, "F" * 32),
        "ClientIDList": ["sts.amazonaws.com"],
        "ThumbprintList": [OLD_THUMBPRINT],
        "Tags": situation.parameters.tags,
    }


@fault("A hand-written script created the provider again.", finding="oidc-provider-audience-missing", changes=AUDIENCE)
def audience_misspelt(situation: Situation) -> None:
    situation.provider["ClientIDList"] = ["sts.amazon.com"]


@fault(
    "Someone wanted pods to use the region's own STS, and changed the provider.",
    finding="oidc-provider-audience-is-an-endpoint",
    changes=AUDIENCE,
)
def audience_taken_for_an_endpoint(situation: Situation) -> None:
    situation.provider["ClientIDList"] = [f"sts.{situation.parameters.region}.amazonaws.com"]


@fault(
    "The provider's audience was copied from a chat window.",
    finding="oidc-provider-audience-invisible-character",
    changes=AUDIENCE,
)
def audience_copied_from_a_chat(situation: Situation) -> None:
    situation.provider["ClientIDList"] = ["sts.amazonaws.com\u200b"]


@fault("The issuer's certificate authority changed.", finding="oidc-provider-thumbprint-stale", works=True)
def thumbprint_of_an_old_certificate(situation: Situation) -> None:
    situation.provider["ThumbprintList"] = [OLD_THUMBPRINT]


@fault(
    "Someone tightened the access rules of the server that publishes the issuer's documents.",
    finding="issuer-unreachable",
    hides=("signing-key-not-published",),
    changes=ISSUER,
)
def discovery_is_not_public(situation: Situation) -> None:
    body = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    situation.published["openid-configuration"] = {"status": 403, "body": body}


@fault(
    "The issuer's documents were published again, from a template.",
    finding="issuer-unreachable",
    hides=("signing-key-not-published",),
    changes=ISSUER,
)
def discovery_of_another_issuer(situation: Situation) -> None:
    other = situation.issuer.replace(situation.issuer_id, OLD_ID)
    document = {
        "issuer": other,
        "jwks_uri": f"{situation.issuer}/keys",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }
    situation.published["openid-configuration"] = {"status": 200, "body": json.dumps(document)}


@fault("The cluster's signing key was changed in a hurry.", finding="signing-key-not-published", changes=ISSUER)
def signing_key_changed(situation: Situation) -> None:
    # The form of a public RSA key of 2,048 bits. No private key belongs to it.
    key = {"use": "sig", "kty": "RSA", "kid": "an-older-key", "alg": "RS256", "n": "u" * 342, "e": "AQAB"}
    situation.published["keys"] = {"status": 200, "body": json.dumps({"keys": [key]})}


@fault(
    "A guide said that a cluster needs an OIDC identity provider, so someone associated one with the cluster.",
    finding="eks-identity-provider-config",
    works=True,
)
def identity_provider_config_associated(situation: Situation) -> None:
    issuer = situation.issuer.replace(situation.issuer_id, OLD_ID)
    situation.identity_provider_configs = [
        {"identityProviderConfigName": "irsa", "issuerUrl": issuer, "clientId": "sts.amazonaws.com"}
    ]
