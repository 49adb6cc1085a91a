"""The OIDC provider and the issuer: each fault gives one finding, and its repair mends it."""

import dataclasses
import json

import pytest

from labkit import doctor
from labkit.doctor.evidence import Evidence, Reads
from labkit.doctor.evidence.issuer import served_chain
from labkit.doctor.findings import provider
from tests.doctor.recording import (
    ACCOUNT_ID,
    ALL_SERVICE_ACCOUNTS,
    CALLER,
    CLUSTER_KEYS,
    CLUSTERS,
    CONNECTION,
    DISCOVERY,
    IDENTITY_PROVIDER_CONFIGS,
    ISSUER,
    KEYS,
    NAME,
    PARAMETERS,
    PROVIDER,
    PROVIDERS,
    PROVIDERS_DELETED,
    PROVIDERS_MADE,
    PROVIDERS_TAGGED,
    ROLE,
    ROLE_ARN,
    SERVED,
    SERVICE_ACCOUNTS,
    THUMBPRINT,
    healthy,
)
from tests.doctor.repairing import commands as commands_of
from tests.doctor.repairing import repaired

OTHER_ACCOUNT = "210987654321"
OLD = "oidc.eks.us-east-1.amazonaws.com/id/FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
CONNECTED = dataclasses.replace(CONNECTION, account=lambda account_id: object(), issuer_restored_by="# told\nlabkit …")


def arn(name, account_id=ACCOUNT_ID):
    return f"arn:aws:iam::{account_id}:oidc-provider/{name}"


def examine(answers, connection=CONNECTED, **settings):
    return doctor.examine(Evidence(PARAMETERS, connection, reads=Reads(answers), **settings))


def found(answers, **settings):
    return [finding.id for finding in examine(answers, **settings).findings]


def registered(**changes):
    """A healthy lab with these changes in its provider."""
    answers = healthy()
    answers[PROVIDER] |= changes
    return answers


def registered_as(*names):
    """A healthy lab in which these names are registered instead of the issuer's."""
    return healthy() | {PROVIDER: None, PROVIDERS: [{"Arn": arn(name)} for name in names]}


def of_old_cluster(answers, *, with_provider=True):
    """A role, and maybe a provider, of a cluster that is gone."""
    text = json.dumps(answers[ROLE]["AssumeRolePolicyDocument"])
    answers[ROLE]["AssumeRolePolicyDocument"] = json.loads(text.replace(NAME, OLD))
    answers[PROVIDER], answers[PROVIDERS] = None, [{"Arn": arn(OLD)}] if with_provider else []
    return answers


def trusting_another_account(answers):
    answers[ROLE]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] = {"Federated": arn(NAME, OTHER_ACCOUNT)}
    return answers | {PROVIDER: None, PROVIDERS: []}


def denied(name):
    message = f"User: {ACCOUNT_ID} is not authorized to perform: iam:{name} on resource: {arn(NAME)} because no …"
    call = {"eventTime": "2026-01-01T00:00:00Z", "eventName": name, "errorCode": "AccessDenied"}
    return [call | {"errorMessage": message, "requestParameters": None, "caller": f"arn:aws:iam::{ACCOUNT_ID}:user/op"}]


def associated(issuer, answers):
    answers[IDENTITY_PROVIDER_CONFIGS] = [{"type": "oidc", "name": "users"}]
    described = f"eks:DescribeIdentityProviderConfig blue users ({ACCOUNT_ID})"
    return answers | {described: {"identityProviderConfigName": "users", "issuerUrl": issuer}}


@pytest.mark.parametrize(("id", "answers"), [
    ("oidc-provider-missing", registered_as()),
    ("oidc-provider-missing", registered_as("idp.example.com/users")),
    ("oidc-provider-in-another-account", trusting_another_account(healthy())),
    ("oidc-provider-audience-missing", registered(ClientIDList=[])),
    ("oidc-provider-audience-missing", registered(ClientIDList=["sts.amazonaws.com.cn"])),
    ("oidc-provider-audience-is-an-endpoint", registered(ClientIDList=["sts.eu-west-1.amazonaws.com"])),
    ("oidc-provider-audience-is-an-endpoint", registered(ClientIDList=["https://sts.us-east-1.amazonaws.com"])),
    ("oidc-provider-audience-invisible-character", registered(ClientIDList=["sts.amazonaws.com\u200b"])),
    ("oidc-provider-audience-invisible-character", registered(ClientIDList=["sts.amazonaws.com "])),
    ("oidc-provider-audience-invisible-character", registered(ClientIDList=["sts.\u0430mazonaws.com"])),
    ("oidc-provider-audience-invisible-character", registered_as(f"{NAME}\u200b")),
    ("oidc-provider-thumbprint-stale", registered(ThumbprintList=["f" * 40])),
    ("cluster-rebuilt", of_old_cluster(healthy())),
    ("cluster-rebuilt", of_old_cluster(healthy(), with_provider=False)),
    ("oidc-provider-dangling", healthy() | {PROVIDERS: [{"Arn": arn(NAME)}, {"Arn": arn(OLD)}]}),
    ("operator-not-permitted", registered_as() | {PROVIDERS_MADE: denied("CreateOpenIDConnectProvider")}),
    ("operator-not-permitted", registered_as() | {PROVIDERS_TAGGED: denied("TagOpenIDConnectProvider")}),
    ("oidc-provider-url-differs", registered_as(f"{NAME}/")),
    ("oidc-provider-url-differs", registered_as(NAME.lower())),
    ("oidc-provider-url-differs", registered_as(NAME.replace("us-east-1", "eu-west-1"))),
    ("oidc-provider-url-differs", registered_as(NAME.replace("/id/", "/"))),
    ("eks-identity-provider-config", associated(f"https://{OLD}", healthy())),
])  # fmt: skip
def test_a_fault_of_the_provider_gives_one_finding_and_its_repair_mends_it(id, answers):
    (finding,) = examine(answers).findings
    assert finding.id == id
    assert finding.expected != finding.found
    if id in ("oidc-provider-dangling", "eks-identity-provider-config"):
        # Somebody may need it.
        assert not commands_of(finding.repair)
        keeps = "is not changed, because someone may need it."
        kept = keeps if id == "oidc-provider-dangling" else "# Nothing is changed: people may use the identity "
        assert kept in finding.repair
        return
    calls = {PROVIDERS_MADE: [], PROVIDERS_TAGGED: []}
    after = repaired(answers | calls, finding.repair)
    # A registered provider stays, even one of a deleted cluster.
    left = ["oidc-provider-dangling"] if id == "cluster-rebuilt" and arn(OLD) in str(answers[PROVIDERS]) else []
    assert found(after) == left
    assert all(provider in after[PROVIDERS] for provider in answers[PROVIDERS])
    for key in ("ClientIDList", "ThumbprintList"):
        assert set((answers[PROVIDER] or {}).get(key, [])) <= set(after[PROVIDER][key])


@pytest.mark.parametrize(("id", "answers"), [
    ("issuer-unreachable", {DISCOVERY: {"error": f"{DISCOVERY} answers 403: AccessDenied"}}),
    ("issuer-unreachable", {DISCOVERY: {"document": {"issuer": f"{ISSUER}/", "jwks_uri": KEYS}}}),
    ("issuer-unreachable", {DISCOVERY: {"document": ["no object"]}}),
    ("issuer-unreachable", {DISCOVERY: {"document": {"issuer": ISSUER}}}),
    ("issuer-unreachable", {KEYS: {"error": f"{KEYS} answers 404"}}),
    ("issuer-unreachable", {KEYS: {"document": {"keys": "none"}}}),
    ("signing-key-not-published", {KEYS: {"document": {"keys": []}}}),
    ("signing-key-not-published", {KEYS: {"document": {"keys": [{"kid": "another", "kty": "RSA"}]}}}),
])  # fmt: skip
def test_a_document_or_key_that_the_issuer_does_not_publish_gives_one_finding(id, answers):
    (finding,) = examine(healthy() | answers).findings
    assert (finding.id, finding.severity, finding.repair) == (id, "error", "# told\nlabkit …")


def test_the_repair_copies_the_clusters_keys_if_nothing_says_how_they_are_published():
    broken = healthy() | {KEYS: {"document": {"keys": []}}}
    (finding,) = examine(broken, connection=CONNECTION).findings
    # The keys go to the path that the discovery document names.
    assert KEYS.endswith("/keys")
    assert "kubectl get --raw /openid/v1/jwks | aws s3 cp - s3://<BUCKET>/keys --content-type" in finding.repair
    silent = broken | {DISCOVERY: {"error": f"{DISCOVERY} answers 403: AccessDenied"}}
    (finding,) = examine(silent, connection=CONNECTION).findings
    assert (
        "kubectl get --raw /openid/v1/jwks | aws s3 cp - s3://<BUCKET>/openid/v1/jwks --content-type" in finding.repair
    )


def test_the_doctor_looks_for_the_key_that_signed_the_pods_token():
    token = {"header": {"kid": "old"}, "claims": {}, "unreadable": "", "malformed": "", "no_program": False}
    answers = healthy() | {"the token's claims in pod my-pod -n default": token}
    finding = provider.signing_key_not_published(Evidence(PARAMETERS, CONNECTED, reads=Reads(answers)))
    assert (finding.expected, finding.found) == ("old", "key-1")


def test_if_the_clusters_keys_cannot_be_read_they_are_listed_as_unread():
    answers = healthy()
    del answers[CLUSTER_KEYS]
    diagnosis = examine(answers, probe=False)
    assert list(diagnosis.findings) == []
    assert CLUSTER_KEYS in [error.call for error in diagnosis.unread]


def test_a_missing_provider_is_found_even_if_cloudtrail_may_not_be_read():
    answers = registered_as()
    del answers[PROVIDERS_MADE]
    assert found(answers) == ["oidc-provider-missing"]


def test_a_refusal_to_register_another_issuer_is_ignored():
    (call,) = denied("CreateOpenIDConnectProvider")
    other = call | {"errorMessage": call["errorMessage"].replace(NAME, OLD)}
    assert found(registered_as() | {PROVIDERS_MADE: [other]}) == ["oidc-provider-missing"]


def test_a_refused_registration_before_a_successful_one_is_ignored():
    made = {"eventTime": "2026-01-02T00:00:00Z", "eventName": "CreateOpenIDConnectProvider", "errorCode": None}
    made |= {"errorMessage": None, "requestParameters": {"url": ISSUER}, "caller": f"arn:aws:iam::{ACCOUNT_ID}:root"}
    refused = denied("CreateOpenIDConnectProvider")
    assert found(registered_as() | {PROVIDERS_MADE: [made, *refused]}) == ["oidc-provider-missing"]
    tagged = {PROVIDERS_MADE: [made], PROVIDERS_TAGGED: denied("TagOpenIDConnectProvider")}
    assert found(registered_as() | tagged) == ["oidc-provider-missing"]
    # A refusal after the successful registration counts.
    assert found(registered_as() | {PROVIDERS_MADE: [*refused, made]}) == ["operator-not-permitted"]


@pytest.mark.parametrize(("deletion", "id"), [
    ({}, "oidc-provider-missing"),
    ({"eventTime": "2025-12-31T00:00:00Z"}, "operator-not-permitted"),
    ({"errorCode": "AccessDenied"}, "operator-not-permitted"),
    ({"requestParameters": {"openIDConnectProviderArn": arn(OLD)}}, "operator-not-permitted"),
], ids=["later", "earlier", "refused as well", "of another provider"])  # fmt: skip
def test_a_refused_registration_is_ignored_only_if_the_provider_was_deleted_later(deletion, id):
    deleted = {"eventTime": "2026-01-02T00:00:00Z", "eventName": "DeleteOpenIDConnectProvider", "errorCode": None}
    deleted |= {"requestParameters": {"openIDConnectProviderArn": arn(NAME)}, "caller": ""} | deletion
    refused = {PROVIDERS_MADE: denied("CreateOpenIDConnectProvider"), PROVIDERS_DELETED: [deleted]}
    assert found(registered_as() | refused) == [id]


@pytest.mark.parametrize("answers", [
    registered_as(f"{NAME}/") | {PROVIDERS_MADE: denied("CreateOpenIDConnectProvider")},
    of_old_cluster(healthy()) | {PROVIDERS_MADE: denied("CreateOpenIDConnectProvider")},
    trusting_another_account(healthy()) | {PROVIDERS: [{"Arn": arn(NAME.lower())}]},
])  # fmt: skip
def test_the_repairs_of_two_findings_make_a_provider_only_once(answers):
    findings = examine(answers).findings
    assert len(findings) > 1
    script = "\n".join(finding.repair for finding in findings)
    assert script.count("aws iam create-open-id-connect-provider") == 1
    assert "# done already by the repair of " in script
    calls = {PROVIDERS_MADE: [], PROVIDERS_TAGGED: []}
    # A registered provider stays, even one of a deleted cluster.
    left = ["oidc-provider-dangling"] if arn(OLD) in str(answers[PROVIDERS]) else []
    assert found(repaired(answers | calls, script)) == left


def test_a_caller_who_may_not_register_the_issuer_is_named_and_not_given_a_policy():
    (finding,) = examine(registered_as() | {PROVIDERS_MADE: denied("CreateOpenIDConnectProvider")}).findings
    assert "user/op is not allowed to do iam:CreateOpenIDConnectProvider" in finding.summary
    assert finding.repair.startswith("# let an administrator register the issuer")
    (create,) = commands_of(finding.repair)
    assert create.startswith(f"aws iam create-open-id-connect-provider --url {ISSUER} ")


def test_a_live_clusters_issuer_is_not_reported_as_gone():
    lives = {
        CLUSTERS: ["blue", "green"],
        f"eks:DescribeCluster green ({ACCOUNT_ID})": {"identity": {"oidc": {"issuer": f"https://{OLD}"}}},
    }
    # The whole statement is for the other cluster: that's one mistake, and not one more for its conditions' keys.
    whole = ["oidc-provider-missing", "trust-policy-provider-mismatch"]
    assert found(of_old_cluster(healthy()) | lives) == whole
    assert found(healthy() | {PROVIDERS: [{"Arn": arn(NAME)}, {"Arn": arn(OLD)}]} | lives) == []


def test_a_deny_is_reported_beside_a_provider_in_another_account():
    answers = trusting_another_account(healthy())
    denied = {"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRoleWithWebIdentity"}
    answers[ROLE]["AssumeRolePolicyDocument"]["Statement"].append(denied)
    assert found(answers) == ["oidc-provider-in-another-account", "trust-policy-refuses"]


def test_the_doctor_does_not_list_clusters_if_eks_has_no_other_provider():
    assert CLUSTERS not in examine(healthy()).looked


def test_a_role_in_another_account_needs_a_provider_there():
    other = f"({OTHER_ACCOUNT})"
    role_arn = ROLE_ARN.replace(ACCOUNT_ID, OTHER_ACCOUNT)
    answers = healthy()
    for account in (*answers[SERVICE_ACCOUNTS][:1], *answers[ALL_SERVICE_ACCOUNTS][:1]):
        account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] = role_arn
        # Remove the run's labels, because the run has another role.
        account["metadata"]["labels"] = {}
    for variable in answers["list pods -n default"][0]["spec"]["containers"][0]["env"]:
        variable["value"] = variable["value"].replace(ROLE_ARN, role_arn)
    for call in (PROVIDER, PROVIDERS, ROLE, *(call for call in [*answers] if "RolePolicies" in call)):
        answers[call.replace(f"({ACCOUNT_ID})", other)] = answers[call]
    answers |= {PROVIDER.replace(f"({ACCOUNT_ID})", other): None, PROVIDERS.replace(f"({ACCOUNT_ID})", other): []}
    answers[ROLE.replace(f"({ACCOUNT_ID})", other)]["Arn"] = role_arn
    for name in ("CreateRole", "UpdateAssumeRolePolicy", "CreateOpenIDConnectProvider", "TagOpenIDConnectProvider"):
        answers[f"cloudtrail:LookupEvents {name} {other}"] = []
    answers[CALLER]["arn"] = answers[CALLER]["arn"].replace(ACCOUNT_ID, OTHER_ACCOUNT)
    (finding,) = examine(answers, role_is_known=False).findings
    assert (finding.id, finding.found) == ("oidc-provider-in-another-account", arn(NAME))
    assert f"aws sts assume-role --role-arn arn:aws:iam::{OTHER_ACCOUNT}:role/" in finding.repair
    assert found(repaired(answers, finding.repair), role_is_known=False) == []


def test_a_stale_thumbprint_is_an_error_only_for_an_issuer_outside_eks():
    issuer = "https://issuer.example.com/cluster"
    connection = dataclasses.replace(CONNECTED, issuer=issuer)
    name = issuer.removeprefix("https://")
    answers = healthy() | {
        f"iam:GetOpenIDConnectProvider {name} ({ACCOUNT_ID})": {
            "ClientIDList": ["sts.amazonaws.com"],
            "ThumbprintList": ["F" * 40],
        },
        "tls://issuer.example.com:443": THUMBPRINT,
    }
    finding = provider.thumbprint_stale(Evidence(PARAMETERS, connection, reads=Reads(answers)))
    assert (finding.severity, finding.expected, finding.found) == ("error", THUMBPRINT, "f" * 40)
    assert examine(registered(ThumbprintList=["f" * 40])).findings[0].severity == "note"


def test_the_doctor_fetches_no_certificate_if_the_provider_has_no_thumbprint():
    answers = registered(ThumbprintList=[])
    del answers[SERVED]
    assert found(answers) == []
    assert SERVED not in [error.call for error in examine(answers).unread]


def test_an_identity_provider_for_the_clusters_users_is_at_most_a_note():
    assert found(associated("https://idp.example.com", healthy())) == []
    missing = examine(associated("https://idp.example.com", registered_as())).findings
    assert {finding.id: finding.severity for finding in missing} == {
        "oidc-provider-missing": "error",
        "eks-identity-provider-config": "note",
    }


def test_another_audience_is_right_if_service_account_and_provider_agree_on_it():
    answers = registered(ClientIDList=["vault"])
    assert "oidc-provider-audience-missing" in found(answers)
    for account in answers[SERVICE_ACCOUNTS][:1]:
        account["metadata"]["annotations"]["eks.amazonaws.com/audience"] = "vault"
    statement = answers[ROLE]["AssumeRolePolicyDocument"]["Statement"][0]
    statement["Condition"]["StringEquals"][f"{NAME}:aud"] = "vault"
    token = answers["list pods -n default"][0]["spec"]["volumes"][0]["projected"]["sources"][0]
    token["serviceAccountToken"]["audience"] = "vault"
    assert found(answers) == []


def test_fetching_the_certificates_of_a_closed_port_raises_os_error():
    with pytest.raises(OSError):
        served_chain("localhost", address="127.0.0.1", port=9)


def test_the_repair_adds_no_thumbprint_to_a_provider_that_already_has_five():
    (finding,) = examine(registered(ThumbprintList=[digit * 40 for digit in "12345"])).findings
    assert finding.id == "oidc-provider-thumbprint-stale"
    assert not commands_of(finding.repair)
