"""The OIDC provider: does IAM have one for the cluster's issuer, with the tokens' audience? Can STS read the keys?"""

import re
import unicodedata
from contextlib import suppress

from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, NotRead, kinds, variables
from labkit.doctor.evidence.account import EKS_ISSUER, PastCall
from labkit.doctor.evidence.reading import FORBIDDEN
from labkit.doctor.finding import Symptom, any_finding, cause
from labkit.doctor.repairs import advice
from labkit.doctor.repairs.commands import Commands
from labkit.doctor.repairs.repair import Repair
from labkit.policy.arn import Arn
from labkit.policy.written import conditions_of, federated_of, name_of
from labkit.showing import few

LEARN = "01-oidc-provider.ipynb"
INSIDE = "06-inside-the-exchange.ipynb"
ENDPOINT = re.compile(r"(https://)?sts(-fips)?\.[a-z0-9-]+\.(amazonaws|api)\.\S+")
# An issuer's last part identifies the issuer on any host if it has at least this many characters.
SHORTEST_ID = 16
CREATION = ("CreateOpenIDConnectProvider", "TagOpenIDConnectProvider")
DELETION = "DeleteOpenIDConnectProvider"


# Is the issuer registered?


@cause("oidc-provider-missing", stages.PROVIDER, LEARN, reads=(kinds.PROVIDER,))
def missing(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/eks/latest/userguide/enable-iam-roles-for-service-accounts.html"""
    if evidence.aws.provider is not None or any_finding(evidence, *EXPLAIN_ABSENCE):
        return None
    return Symptom(
        f"IAM has no OIDC provider for the cluster's issuer, {evidence.expected.provider_name}.",
        expected=evidence.expected.provider_arn,
        found=", ".join(evidence.aws.provider_arns) or "no OIDC provider",
        source="iam:ListOpenIDConnectProviders",
        repair=Commands(evidence).create_provider(),
    )


@cause("oidc-provider-in-another-account", stages.PROVIDER, LEARN, reads=(kinds.PROVIDER,))
def in_another_account(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/eks/latest/userguide/cross-account-access.html"""
    if evidence.aws.provider is not None:
        return None
    elsewhere = _provider_elsewhere(evidence)
    if not elsewhere:
        return None
    repair = Repair.of(Commands(evidence).create_provider())
    if evidence.aws.role is not None and not evidence.aws.trust.admits:
        repair = Repair.of(repair, Commands(evidence).admit())
    return Symptom(
        f"The cluster's issuer is registered in the account {Arn.parse(elsewhere).account}, but STS looks for it in "
        f"the role's account, {evidence.expected.role_account_id}.",
        expected=evidence.expected.provider_arn,
        found=elsewhere,
        source="iam:ListOpenIDConnectProviders",
        repair=repair,
    )


@cause("cluster-rebuilt", stages.PROVIDER, LEARN, reads=(kinds.PROVIDER,))
def cluster_rebuilt(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/eks/latest/userguide/enable-iam-roles-for-service-accounts.html"""
    expected = evidence.expected
    old = _gone_issuer_of_role(evidence)
    if not old:
        return None
    repair = Repair.of(
        Commands(evidence).create_provider(),
        Commands(evidence).admit(),
        *(advice.provider_stays(arn) for arn in evidence.aws.provider_arns if name_of(arn) == old),
    )
    return Symptom(
        f"The role {expected.role_name} trusts the issuer {old}, but no cluster in this account and region has that "
        "issuer. The role's account has no OIDC provider for the present issuer of the cluster "
        f"{evidence.parameters.cluster}.",
        expected=expected.provider_name,
        found=f"{old}, but no cluster here has this issuer",
        source="iam:GetRole, AssumeRolePolicyDocument, and eks:DescribeCluster, identity.oidc.issuer",
        repair=repair,
    )


@cause("operator-not-permitted", stages.PROVIDER, LEARN, reads=(kinds.PROVIDER,))
def operator_not_permitted(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateOpenIDConnectProvider.html"""
    call = _refused_registration(evidence) if evidence.aws.provider is None else None
    if call is None:
        return None
    name, caller = call["eventName"], call.get("caller") or "the caller"
    return Symptom(
        f"IAM refused to register the issuer: {caller} is not allowed to do iam:{name}.",
        expected=f"{caller} is allowed to do iam:{name}",
        found=str(call.get("errorMessage")),
        source=f"cloudtrail:LookupEvents, {name} at {call.get('eventTime')}",
        repair=Repair.of(
            "# let an administrator register the issuer. That is necessary only once:",
            Commands(evidence).create_provider(),
        ),
    )


@cause("oidc-provider-url-differs", stages.PROVIDER, LEARN, reads=(kinds.PROVIDER,))
def url_differs(evidence: Evidence) -> Symptom | None:
    """A provider's URL resembles the cluster's issuer, but isn't the same.

    A token's `iss` must equal `https://` plus the provider's URL, character by character.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_create_oidc.html
    """
    expected = evidence.expected
    if evidence.aws.provider is not None or _with_invisible(evidence):
        return None
    near = [arn for arn in evidence.aws.provider_arns if _is_alike(name_of(arn), expected.provider_name)]
    if not near:
        return None
    return Symptom(
        f"The OIDC provider's URL is {few([*map(name_of, near)])}, but the issuer is {expected.provider_name}.",
        expected=expected.issuer,
        found=", ".join(f"https://{name_of(arn)}" for arn in near),
        source="iam:ListOpenIDConnectProviders",
        repair=Repair.of(Commands(evidence).create_provider(), *map(advice.provider_stays, near)),
    )


@cause("oidc-provider-audience-invisible-character", stages.PROVIDER, LEARN, reads=(kinds.PROVIDER,))
def invisible_character(evidence: Evidence) -> Symptom | None:
    """A client id or the URL of the OIDC provider looks right, but contains an invisible or look-alike character."""
    if evidence.aws.provider is None:
        arns = _with_invisible(evidence)
        if not arns:
            return None
        expected, actual = evidence.expected.issuer, ", ".join(f"https://{name_of(arn)}" for arn in arns)
        repair = Repair.of(Commands(evidence).create_provider(), *map(advice.provider_stays, arns))
    else:
        actual = _look_alike(evidence) if _lacks_audience(evidence) else ""
        if not actual:
            return None
        expected, repair = evidence.expected.audience, Repair.of(Commands(evidence).add_client_id(instead_of=actual))
    return Symptom(
        f"The OIDC provider contains an invisible or look-alike character: {_names(actual, expected)} in {actual!a}.",
        expected=repr(expected),
        found=f"{actual!a}: {_names(actual, expected)}",
        source="iam:GetOpenIDConnectProvider",
        repair=repair,
    )


@cause("oidc-provider-dangling", stages.PROVIDER, LEARN, reads=(kinds.PROVIDERS,))
def dangling(evidence: Evidence) -> Symptom | None:
    """IAM still has the OIDC provider of a deleted cluster.

    The provider would trust anyone who took over the cluster's issuer.
    """
    arns, own = evidence.aws.account.provider_arns, evidence.expected.provider_name
    others = {name_of(arn): arn for arn in arns if not _is_alike(_clean(name_of(arn)), own)}
    gone = {name: others[name] for name in evidence.aws.account.gone(others, evidence.parameters.region)}
    with suppress(NotRead):
        # The finding `cluster-rebuilt` already reports this provider.
        gone.pop(_gone_issuer_of_role(evidence), None)
    if not gone:
        return None
    return Symptom(
        f"IAM has OIDC providers that don't belong to a cluster of this account and region: {few(gone)}.",
        expected="a cluster for each OIDC provider of EKS in this region",
        found=", ".join(gone),
        source="iam:ListOpenIDConnectProviders, and eks:DescribeCluster, identity.oidc.issuer",
        repair="\n".join(advice.provider_stays(arn) for arn in gone.values()),
        # A cluster in another account may have this issuer.
        severity="note",
    )


# For which audience?


@cause("oidc-provider-audience-missing", stages.PROVIDER, LEARN, reads=(kinds.PROVIDER,))
def audience_missing(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/IAM/latest/APIReference/API_AddClientIDToOpenIDConnectProvider.html"""
    expected = evidence.expected
    if not _lacks_audience(evidence) or _endpoint(evidence) or _look_alike(evidence):
        return None
    audiences = _audiences(evidence)
    return Symptom(
        f"The OIDC provider lists {few(audiences) or 'no audience'}, but the tokens are for {expected.audience}.",
        expected=expected.audience,
        found=", ".join(repr(audience) for audience in audiences) or "no client id",
        source="iam:GetOpenIDConnectProvider, ClientIDList",
        repair=Commands(evidence).add_client_id(),
    )


@cause("oidc-provider-audience-is-an-endpoint", stages.PROVIDER, LEARN, reads=(kinds.PROVIDER,))
def audience_is_an_endpoint(evidence: Evidence) -> Symptom | None:
    expected = evidence.expected
    if not _lacks_audience(evidence) or _look_alike(evidence) or not (endpoint := _endpoint(evidence)):
        return None
    return Symptom(
        f"The OIDC provider lists the address {endpoint} as an audience, but the tokens are for {expected.audience}.",
        expected=expected.audience,
        found=endpoint,
        source="iam:GetOpenIDConnectProvider, ClientIDList",
        repair=Commands(evidence).add_client_id(instead_of=endpoint),
    )


# Can STS read what the issuer publishes?


@cause("oidc-provider-thumbprint-stale", stages.PROVIDER, LEARN, reads=(kinds.PROVIDER,))
def thumbprint_stale(evidence: Evidence) -> Symptom | None:
    """The provider doesn't list the thumbprint of the certificate that the issuer's host serves.

    AWS compares thumbprints only if the certificate doesn't chain to a public root.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_create_oidc_verify-thumbprint.html
    """
    if evidence.aws.provider is None:
        return None
    listed = [thumbprint.lower() for thumbprint in evidence.aws.provider.get("ThumbprintList") or []]
    if not listed or evidence.cluster.issuer.thumbprint in listed:
        return None
    public = evidence.cluster.issuer.is_of_eks
    compared = (
        "AWS does not compare thumbprints of EKS's issuers"
        if public
        else "AWS compares thumbprints if no public root signed the certificate"
    )
    return Symptom(
        f"The OIDC provider's thumbprint {listed[0]} does not match the issuer's certificate; {compared}.",
        expected=evidence.cluster.issuer.thumbprint,
        found=", ".join(listed),
        source="iam:GetOpenIDConnectProvider, ThumbprintList",
        repair=Commands(evidence).update_thumbprint(evidence.cluster.issuer.thumbprint),
        severity="note" if public else "error",
    )


@cause("issuer-unreachable", stages.PROVIDER, INSIDE, reads=(kinds.DISCOVERY, kinds.KEYS))
def issuer_unreachable(evidence: Evidence) -> Symptom | None:
    """https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfigurationValidation"""
    published = evidence.cluster.issuer
    discovery = published.discovery.get("document")
    expected = f"{evidence.expected.issuer}/.well-known/openid-configuration, which names {evidence.expected.issuer}"
    if discovery is None:
        actual = published.discovery["error"]
    elif not isinstance(discovery, dict):
        actual = "a discovery document that is not a JSON object"
    elif discovery.get("issuer") != evidence.expected.issuer:
        actual = f"a discovery document that names {discovery.get('issuer')!r}"
    elif "error" in published.keys:
        expected, actual = f"the issuer's keys at {discovery.get('jwks_uri')}", published.keys["error"]
    elif not _is_list_of_keys(published.keys["document"]):
        expected, actual = f"the issuer's keys at {discovery.get('jwks_uri')}", "a document without a list of keys"
    else:
        return None
    is_right = isinstance(discovery, dict) and discovery.get("issuer") == evidence.expected.issuer
    lacking = "its keys" if is_right else "its discovery document"
    return Symptom(
        f"The issuer doesn't publish {lacking} in a form that STS can use.",
        expected=expected,
        found=actual,
        source=f"GET {evidence.expected.issuer}/.well-known/openid-configuration, and its jwks_uri",
        repair=Commands(evidence).publish_issuer(),
    )


@cause("signing-key-not-published", stages.PROVIDER, INSIDE, reads=(kinds.KEYS,))
def signing_key_not_published(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/eks/latest/userguide/irsa-fetch-keys.html"""
    if any_finding(evidence, issuer_unreachable):
        return None
    published, signing = evidence.cluster.issuer.key_ids, _signing_key_ids(evidence)
    if not signing or set(signing) & set(published):
        return None
    return Symptom(
        f"The key {few(signing)} signs the cluster's tokens, but the issuer publishes {few(published) or 'no key'}.",
        expected=", ".join(signing),
        found=", ".join(published) or "no key",
        source="kubectl get --raw /openid/v1/jwks, compared with the issuer's jwks_uri",
        repair=Commands(evidence).publish_issuer(),
    )


@cause("eks-identity-provider-config", stages.PROVIDER, LEARN, reads=(kinds.IDENTITY_PROVIDER_CONFIGS,))
def eks_identity_provider_config(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/eks/latest/userguide/authenticate-oidc-identity-provider.html"""
    for config in evidence.aws.account.identity_provider_configs(evidence.parameters.cluster):
        issuer = str(config.get("issuerUrl"))
        # An EKS cluster's issuer has no users, so its config is a mistake. Without an OIDC provider, any config may be.
        confused = EKS_ISSUER.match(issuer.removeprefix("https://")) is not None
        if confused or evidence.aws.provider is None:
            return Symptom(
                f"The cluster's identity provider config for {issuer} lets users into the cluster, not pods into AWS.",
                expected="an OIDC provider in IAM for this issuer, and no identity provider config",
                found=f"{config.get('identityProviderConfigName')}: {issuer}",
                source="eks:DescribeIdentityProviderConfig",
                repair=advice.login_stays(evidence, str(config.get("identityProviderConfigName"))),
                severity="warning" if confused else "note",
            )
    return None


EXPLAIN_ABSENCE = (in_another_account, cluster_rebuilt, operator_not_permitted, url_differs, invisible_character)


def _refused_registration(evidence: Evidence) -> PastCall | None:
    """Return the newest attempt to register the issuer, if IAM refused that attempt."""
    registrations, tags = (_calls_about_issuer(evidence, name) for name in CREATION)
    # The lists begin with the newest.
    last = next(iter(registrations or tags), None)
    if last is None or last.get("errorCode") not in FORBIDDEN:
        return None
    # A later deletion explains the missing provider better than the refusal.
    deleted = [call["eventTime"] for call in _calls_about_issuer(evidence, DELETION) if not call.get("errorCode")]
    return None if any(time > last["eventTime"] for time in deleted) else last


def _calls_about_issuer(evidence: Evidence, name: str) -> list[PastCall]:
    issuer, calls = evidence.expected.provider_name, evidence.aws.role_account.calls(name)
    return [call for call in calls if issuer in f"{call.get('errorMessage')} {call.get('requestParameters')}"]


def _provider_elsewhere(evidence: Evidence) -> str:
    """Return the ARN of the issuer's OIDC provider outside the role's account."""
    cluster = evidence.connection.provider_arn
    if evidence.expected.role_account_id != evidence.connection.account_id and evidence.aws.account.provider(cluster):
        return cluster
    for statement in evidence.aws.trust.statements if evidence.aws.role else ():
        for arn in federated_of(statement):
            if (
                name_of(arn) == evidence.expected.provider_name
                and Arn.parse(arn).account != evidence.expected.role_account_id
            ):
                return arn
    return ""


def _gone_issuer_of_role(evidence: Evidence) -> str:
    """Return a deleted EKS cluster's issuer that the role's trust policy still names."""
    if evidence.aws.provider is not None or evidence.aws.role is None or evidence.aws.trust.admits:
        return ""
    named = [
        name
        for statement in evidence.aws.trust.allows
        for name in (*map(name_of, federated_of(statement)), *(c.issuer for c in conditions_of(statement)))
    ]
    # The role names today's cluster somewhere, so it has been updated, although not completely.
    if any(_is_alike(name, evidence.expected.provider_name) for name in named if name):
        return ""
    return next(iter(evidence.aws.account.gone(sorted({*named}), evidence.parameters.region)), "")


def _is_alike(name: str, issuer: str) -> bool:
    """Whether `name` has the issuer's id, or the issuer's host with a longer or shorter path."""
    mine, theirs = _canonical(issuer), _canonical(name)
    host, _, path = mine.partition("/")
    other, _, rest = theirs.partition("/")
    last = path.rpartition("/")[2]
    same_id = len(last) >= SHORTEST_ID and rest.rpartition("/")[2] == last
    nested = path == rest or path.startswith(f"{rest}/") or rest.startswith(f"{path}/") or not rest
    return same_id or (host == other and nested)


def _canonical(name: str) -> str:
    text = name.lower().removesuffix("/.well-known/openid-configuration").rstrip("/")
    return re.sub(r"/{2,}", "/", re.sub(r":443(?=/|$)", "", re.sub(r"^https?:/+", "", text)))


def _with_invisible(evidence: Evidence) -> list[str]:
    wanted = evidence.expected.provider_name
    return [arn for arn in evidence.aws.provider_arns if name_of(arn) != wanted and _looks_like(name_of(arn), wanted)]


def _audiences(evidence: Evidence) -> list[str]:
    return evidence.aws.provider["ClientIDList"] if evidence.aws.provider else []


def _lacks_audience(evidence: Evidence) -> bool:
    return evidence.aws.provider is not None and evidence.expected.audience not in _audiences(evidence)


def _endpoint(evidence: Evidence) -> str:
    return next((text for text in _audiences(evidence) if ENDPOINT.fullmatch(text)), "")


def _look_alike(evidence: Evidence) -> str:
    return next((text for text in _audiences(evidence) if _looks_like(text, evidence.expected.audience)), "")


def _looks_like(text: str, wanted: str) -> bool:
    """Whether `text` differs from `wanted` only by invisible or look-alike characters."""
    if text == wanted:
        return False
    if _clean(text) == wanted:
        return True
    same_length = len(text) == len(wanted)
    return same_length and all(a == b or not a.isascii() for a, b in zip(text, wanted, strict=True))


def _clean(text: str) -> str:
    seen = unicodedata.normalize("NFKC", text)
    return "".join(c for c in seen if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf", "Cn", "Mn"))


def _names(actual: str, expected: str) -> str:
    strange = [c for c in dict.fromkeys(actual) if c not in expected]
    return ", ".join(unicodedata.name(c, f"U+{ord(c):04X}") for c in strange) or "a character too many"


def _is_list_of_keys(document: object) -> bool:
    return isinstance(document, dict) and isinstance(document.get("keys"), list)


def _signing_key_ids(evidence: Evidence) -> list[str]:
    """Return the id of the key that signed the pod's token, or else the ids of the cluster's keys."""
    try:
        # A copied token has a cause of its own: its signer doesn't matter here.
        is_copied = any(variables.copied_token(evidence, container) for container in evidence.pod.containers)
        token = None if is_copied else evidence.pod.probe.token
    except NotRead:
        token = None
    return [token.key_id] if token and token.key_id else evidence.cluster.issuer.cluster_key_ids
