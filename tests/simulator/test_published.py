"""A file that replaces an issuer's document counts at once, for STS and for learners, but for no other cluster."""

import json
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from kubernetes.client import AuthenticationV1TokenRequest, CoreV1Api, V1TokenRequestSpec

from labkit.errors import LabError
from labkit.simulator import clients, process
from labkit.simulator.aws.trail import Trail
from labkit.simulator.folder import Folder
from labkit.targets import moto

AUDIENCE = "sts.amazonaws.com"
NO_KEY = "Couldn't retrieve verification key from your identity provider"
DENIED = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class Cluster:
    """A cluster, and a role that trusts every token of this cluster that is for STS."""

    def __init__(self, folder: Folder, name: str):
        self.folder, self.name = folder, name
        self.state = process.start(folder)
        self.aws = clients.session(self.state, "us-east-1")
        self.issuer = moto.ensure_cluster(self.aws, name, self.state.account_id)["identity"]["oidc"]["issuer"]
        issuer_name = self.issuer.removeprefix("https://")
        iam = self.aws.client("iam")
        self.provider = iam.create_open_id_connect_provider(Url=self.issuer, ClientIDList=[AUDIENCE])
        statement = {
            "Effect": "Allow",
            "Principal": {"Federated": self.provider["OpenIDConnectProviderArn"]},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {"StringEquals": {f"{issuer_name}:aud": AUDIENCE}},
        }
        trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.role_arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]

    def exchange(self) -> str:
        """Exchange a new token; return the reason in the trail if STS refuses it, otherwise an empty text."""
        wanted = AuthenticationV1TokenRequest(spec=V1TokenRequestSpec(audiences=[AUDIENCE]))
        with clients.api_client(self.state, self.name) as api:
            made = CoreV1Api(api).create_namespaced_service_account_token("default", "default", wanted)
        try:
            self.aws.client("sts").assume_role_with_web_identity(
                RoleArn=self.role_arn, RoleSessionName="exchange", WebIdentityToken=made.status.token
            )
        except ClientError as error:
            found = error.response
            status = found["ResponseMetadata"]["HTTPStatusCode"]
            assert (status, found["Error"]["Code"]) == (400, "InvalidIdentityToken")
            assert found["Error"]["Message"].startswith("The web identity token provided could not be validated.")
            return next(Trail.newest(self.folder.trail_file))["lab"]["reason"]
        return ""

    def delete(self) -> None:
        iam = self.aws.client("iam")
        iam.delete_role(RoleName=self.name)
        iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=self.provider["OpenIDConnectProviderArn"])
        self.aws.client("eks").delete_cluster(name=self.name)


@pytest.fixture(scope="module")
def clusters(home):
    """Two clusters of one lab, and the files that replace their issuers' documents."""
    folder = Folder(home)
    made = [Cluster(folder, name) for name in ("published", "other")]
    yield SimpleNamespace(one=made[0], other=made[1], published=folder.published)
    for cluster in made:
        cluster.delete()


BROKEN = {
    "discovery is denied": ("openid-configuration", 403, lambda _: DENIED, "openid-configuration answers 403"),
    "discovery is elsewhere": ("openid-configuration", 301, lambda _: "", "openid-configuration answers 301"),
    "another issuer": ("openid-configuration", 200, lambda issuer: {"issuer": f"{issuer}/",
            "jwks_uri": f"{issuer}/keys"}, "the discovery document names another issuer"),
    "discovery is not JSON": ("openid-configuration", 200, lambda _: "{", "is not JSON"),
    "no keys": ("keys", 404, lambda _: '{"message":"Not Found"}', "keys answers 404"),
    "another key": ("keys", 200, lambda _: {"keys": []}, "none of the keys of"),
}  # fmt: skip


@pytest.mark.parametrize(("document", "status", "body", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_issuer_document_fails_the_next_exchange_until_it_is_mended(clusters, document, status, body, reason):
    cluster = clusters.one
    assert cluster.exchange() == ""  # from now on, the gate has the keys in its cache
    override = clusters.published.override(cluster.issuer, document)
    override.set(status, body(cluster.issuer))
    try:
        told = cluster.exchange()
        assert told.startswith(NO_KEY)
        assert reason in told
        assert clusters.other.exchange() == ""
    finally:
        override.clear()
    assert cluster.exchange() == ""


def test_a_learner_who_fetches_the_keys_sees_the_replaced_document(clusters):
    url = f"{clusters.one.issuer}/keys"
    before = moto.fetch(clusters.one.state, url)
    override = clusters.published.override(clusters.one.issuer, "keys")
    override.set(403, DENIED)
    with pytest.raises(LabError, match="answers 403: <Error><Code>AccessDenied</Code>"):
        moto.fetch(clusters.one.state, url)
    for invalid in ("{", "[" * 100_000, '{"status": 1, "body": ""}'):
        override.file.write_text(invalid)
        with pytest.raises(LabError, match="answers 500"):
            moto.fetch(clusters.one.state, url)
    override.set(200, {"keys": []})
    assert moto.fetch(clusters.one.state, url) == {"keys": []}
    override.clear()
    assert moto.fetch(clusters.one.state, url) == before
