"""Faults of the OIDC provider and of its issuer."""

import json

from labkit.course.faults.fault import rows
from labkit.course.faults.situation import ANOTHER_ACCOUNT, Situation

OLD_ID = "0" * 31 + "1"
OLD_THUMBPRINT = "9e99a48a9960b14926bb7f3b02e22da2b0ab7280"


def oidc_provider_deleted(situation: Situation) -> None:
    situation.providers.pop(situation.provider_arn, None)


def oidc_provider_made_in_another_account(situation: Situation) -> None:
    if provider := situation.providers.pop(situation.provider_arn, None):
        arn = situation.provider_arn.replace(situation.account_id, ANOTHER_ACCOUNT)
        situation.providers[arn] = provider
        situation.trust(arn, situation.provider_name)


def oidc_provider_with_a_slash_at_its_end(situation: Situation) -> None:
    if provider := situation.providers.pop(situation.provider_arn, None):
        situation.providers[f"{situation.provider_arn}/"] = {**provider, "Url": f"{situation.issuer}/"}


def cluster_made_anew(situation: Situation) -> None:
    if provider := situation.providers.pop(situation.provider_arn, None):
        arn = situation.provider_arn.replace(situation.issuer_id, OLD_ID)
        situation.providers[arn] = {**provider, "Url": situation.issuer.replace(situation.issuer_id, OLD_ID)}
        situation.trust(arn, situation.provider_name.replace(situation.issuer_id, OLD_ID))


def provider_of_a_cluster_that_is_gone(situation: Situation) -> None:
    arn = situation.provider_arn.replace(situation.issuer_id, "F" * 32)
    situation.providers[arn] = {
        "Url": situation.issuer.replace(situation.issuer_id, "F" * 32),
        "ClientIDList": ["sts.amazonaws.com"],
        "ThumbprintList": [OLD_THUMBPRINT],
        "Tags": situation.parameters.tags,
    }


EDITS = rows(
    lambda run, audience: run.provider.update(ClientIDList=[audience]),
    {
        "audience-misspelt": lambda _: "sts.amazon.com",
        "audience-taken-for-an-endpoint": lambda run: f"sts.{run.parameters.region}.amazonaws.com",
        "audience-copied-from-a-chat": lambda _: "sts.amazonaws.com\u200b",
    },
)


def thumbprint_of_an_old_certificate(situation: Situation) -> None:
    situation.provider["ThumbprintList"] = [OLD_THUMBPRINT]


def discovery_is_not_public(situation: Situation) -> None:
    body = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    situation.published["openid-configuration"] = {"status": 403, "body": body}


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


def signing_key_changed(situation: Situation) -> None:
    # The form of a public RSA key of 2,048 bits. No private key belongs to it.
    key = {"use": "sig", "kty": "RSA", "kid": "an-older-key", "alg": "RS256", "n": "u" * 342, "e": "AQAB"}
    situation.published["keys"] = {"status": 200, "body": json.dumps({"keys": [key]})}


def identity_provider_config_associated(situation: Situation) -> None:
    issuer = situation.issuer.replace(situation.issuer_id, OLD_ID)
    situation.identity_provider_configs = [
        {"identityProviderConfigName": "irsa", "issuerUrl": issuer, "clientId": "sts.amazonaws.com"}
    ]
