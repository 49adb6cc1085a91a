"""AWS identities at a cluster's API: `aws eks get-token`, `update-kubeconfig`, and EKS's access entries."""

import base64
import contextlib
import datetime
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import botocore.auth
import httpx
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.signers import RequestSigner
from kubernetes import client

from labkit import Lab
from labkit.simulator import environment
from labkit.simulator.folder import Folder
from labkit.simulator.in_tests import LabInTests
from labkit.simulator.process import State
from labkit.tokens import read_jwt

CLUSTER, REGION, ACCOUNT = "violet", "us-east-1", "123456789012"
POLICY = "arn:aws:eks::aws:cluster-access-policy/AmazonEKS{}Policy"
UNAUTHORIZED = "You must be logged in to the server"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
        ],
    }
)
pytestmark = pytest.mark.lab(cluster=CLUSTER, namespace="tokens", service_account="reader", role_name="tokens-reader")


@pytest.fixture(scope="module")
def folder(irsa_lab: LabInTests) -> Folder:
    return irsa_lab.folder


@pytest.fixture(scope="module")
def state(folder: Folder) -> State:
    return State.read(folder)


@pytest.fixture
def terminal(lab: Lab, folder: Folder, state: State, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run a command as after `eval "$(labkit env)"`, with a kubeconfig only for this test."""
    variables = environment.variables(folder, state.endpoint_url, REGION)
    path = environment.with_programs(os.environ["PATH"], Path(sys.executable).parent)
    closed = environment.closed(os.environ) | variables | {"PATH": path, "KUBECONFIG": str(tmp_path / "kubeconfig")}

    def run(*command: str, code: int = 0, **more: str) -> subprocess.CompletedProcess:
        done = subprocess.run(command, env=closed | more, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@dataclass
class Signed:
    """A good presigned GetCallerIdentity. A test can spoil each part of it."""

    endpoint: str
    credentials: Credentials
    query: dict[str, str] = field(default_factory=lambda: {"Action": "GetCallerIdentity", "Version": "2011-06-15"})
    headers: dict[str, str] = field(default_factory=lambda: {"x-k8s-aws-id": CLUSTER})
    expires: int = 60
    method: str = "GET"
    after: Callable[[str], str] = str

    def token(self) -> str:
        url = self.endpoint + "/?" + "&".join(f"{name}={value}" for name, value in self.query.items())
        request = AWSRequest(self.method, url, headers=self.headers)
        botocore.auth.SigV4QueryAuth(self.credentials, "sts", REGION, self.expires).add_auth(request)
        return encoded(self.after(request.url))


def encoded(url: str) -> str:
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


@pytest.fixture
def signed(lab: Lab, state: State) -> Signed:
    return Signed(state.endpoint_url, lab.aws.get_credentials().get_frozen_credentials())


def api(lab: Lab, token: str) -> httpx.Client:
    """A client of the cluster's API with this token."""
    configuration = lab.kubernetes.configuration
    return httpx.Client(
        base_url=configuration.host,
        verify=ssl.create_default_context(cafile=configuration.ssl_ca_cert),
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
        timeout=60,
    )


def get(lab: Lab, token: str, path: str = "/api/v1/namespaces") -> tuple[int, str]:
    with api(lab, token) as bearer:
        answer = bearer.get(path)
    return answer.status_code, answer.json().get("message", "")


def whoami(lab: Lab, token: str) -> dict:
    with api(lab, token) as bearer:
        answer = bearer.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json={})
    assert answer.status_code == 201, answer.text
    return answer.json()["status"]["userInfo"]


def get_token(session: boto3.Session, cluster: str = CLUSTER) -> str:
    """Return a token, made as tools that use boto3 make it."""
    sts = session.client("sts")
    signer = RequestSigner(
        sts.meta.service_model.service_id, REGION, "sts", "v4", session.get_credentials(), session.events
    )
    request = {
        "method": "GET",
        "url": f"{sts.meta.endpoint_url}/?Action=GetCallerIdentity&Version=2011-06-15",
        "body": {},
        "headers": {"x-k8s-aws-id": cluster},
        "context": {},
    }
    url = signer.generate_presigned_url(request, region_name=REGION, expires_in=60, operation_name="")
    return encoded(url)


@pytest.fixture
def role(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """The ARN of a role that only this test uses, and that the account may assume."""
    iam, name = lab.aws.client("iam"), f"role-{request.node.name[:40].partition('[')[0]}"
    arn = iam.create_role(RoleName=name, Path="/people/", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
    yield arn
    iam.delete_role(RoleName=name)


def assumed(lab: Lab, role_arn: str, name: str = "alice", seconds: int = 3600) -> boto3.Session:
    """A session bound to the lab with the role's credentials."""
    sts = lab.aws.client("sts")
    made = sts.assume_role(RoleArn=role_arn, RoleSessionName=name, DurationSeconds=seconds)["Credentials"]
    session = boto3.Session(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"], region_name=REGION)
    session.client = lambda service: boto3.Session.client(session, service, endpoint_url=sts.meta.endpoint_url)
    return session


@pytest.fixture
def entry(lab: Lab, role: str) -> Iterator[Callable[..., None]]:
    """A function that creates the access entry that lets the role in."""
    eks = lab.aws.client("eks")
    yield lambda **more: eks.create_access_entry(clusterName=CLUSTER, principalArn=role, **more)
    with contextlib.suppress(eks.exceptions.ResourceNotFoundException):
        eks.delete_access_entry(clusterName=CLUSTER, principalArn=role)


@pytest.mark.kubectl
def test_update_kubeconfig_leads_kubectl_to_the_cluster_as_its_creator(terminal):
    arn = f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{CLUSTER}"
    assert f"Added new context {arn}" in terminal("aws", "eks", "update-kubeconfig", "--name", CLUSTER).stdout
    assert terminal("kubectl", "get", "pods", "-n", "kube-system").returncode == 0
    assert terminal("kubectl", "auth", "can-i", "*", "*").stdout == "yes\n"
    user = json.loads(terminal("kubectl", "auth", "whoami", "-o", "json").stdout)["status"]["userInfo"]
    administrator = f"arn:aws:iam::{ACCOUNT}:user/administrator"
    assert (user["username"], user["groups"]) == (administrator, ["system:authenticated"])
    assert user["uid"] == f"aws-iam-authenticator:{ACCOUNT}:{user['extra']['principalId'][0]}"
    assert user["extra"]["canonicalArn"] == user["extra"]["arn"] == [administrator]
    assert user["extra"]["accessKeyId"][0].startswith("AKIA")


def test_the_kubernetes_client_for_python_runs_aws_eks_get_token(terminal, tmp_path):
    terminal("aws", "eks", "update-kubeconfig", "--name", CLUSTER, "--kubeconfig", str(tmp_path / "another"))
    program = (
        "from kubernetes import client, config\n"
        f"api = client.AuthenticationV1Api(config.new_client_from_config({str(tmp_path / 'another')!r}))\n"
        "print(api.create_self_subject_review({}).status.user_info.username)"
    )
    assert terminal(sys.executable, "-c", program).stdout == f"arn:aws:iam::{ACCOUNT}:user/administrator\n"


@pytest.mark.kubectl
def test_a_role_gets_into_the_cluster_only_with_an_access_entry(terminal, folder, role, entry):
    terminal("aws", "eks", "update-kubeconfig", "--name", CLUSTER, "--role-arn", role)
    refused = terminal("kubectl", "get", "pods", code=1)
    assert UNAUTHORIZED in refused.stderr
    assert "(Unauthorized)" in refused.stderr or "provide credentials" in refused.stderr
    entry()
    # Only the log, which the cluster's administrator reads, says who was refused and why.
    assert f"access denied: no access entry lets {role} in" in folder.log_file.read_text()
    denied = terminal("kubectl", "get", "pods", code=1)
    name = role.rpartition("/")[2]
    assert denied.stderr.strip() == (
        f'Error from server (Forbidden): pods is forbidden: User "arn:aws:sts::{ACCOUNT}:assumed-role/{name}/'
        'EKSGetTokenAuth" cannot list resource "pods" in API group "" in the namespace "default"'
    )


def test_a_token_made_with_boto3_is_valid_and_names_its_owner(lab, role, entry):
    entry()
    user = whoami(lab, get_token(assumed(lab, role, "alice@example.com")))
    name = role.rpartition("/")[2]
    # The authenticator replaces the at sign in the user name. The extra fields keep AWS's own text.
    assert user["username"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/alice-example.com"
    assert user["extra"]["arn"] == [f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/alice@example.com"]
    assert user["extra"]["canonicalArn"] == [f"arn:aws:iam::{ACCOUNT}:role/{name}"]
    assert user["extra"]["sessionName"] == ["alice@example.com"]
    assert user["extra"]["principalId"][0].startswith("AROA")
    assert user["extra"]["accessKeyId"][0].startswith("ASIA")


def with_query(**more: str) -> Callable[[Signed], None]:
    return lambda made: made.query.update(more)


def with_header(**more: str) -> Callable[[Signed], None]:
    return lambda made: made.headers.update(more)


def after(change: Callable[[str], str]) -> Callable[[Signed], None]:
    return lambda made: setattr(made, "after", change)


def set_to(name: str, value: object) -> Callable[[Signed], None]:
    return lambda made: setattr(made, name, value)


REFUSED: dict[str, Callable[[Signed], None]] = {
    "a tampered signature": after(lambda url: url[:-4] + ("0000" if url[-4:] != "0000" else "1111")),
    "another secret": lambda made: setattr(
        made, "credentials", Credentials(made.credentials.access_key, "k" * 40, made.credentials.token)
    ),
    "another key": lambda made: setattr(made, "credentials", Credentials("AKIAIOSFODNN7EXAMPLE", "k" * 40)),
    "another cluster's name": set_to("headers", {"x-k8s-aws-id": "blue"}),
    "no cluster's name": set_to("headers", {}),
    "the name in another case": set_to("headers", {"x-k8s-aws-id": CLUSTER.upper()}),
    "AWS's own STS": set_to("endpoint", "https://sts.us-east-1.amazonaws.com"),
    "AWS's own STS, in plain": set_to("endpoint", "http://sts.us-east-1.amazonaws.com"),
    "the lab, over TLS": after(lambda url: url.replace("http://", "https://")),
    "a foreign host": set_to("endpoint", "http://127.0.0.1:9"),
    "the lab's name before somebody's": after(lambda url: url.replace("/?", "@127.0.0.1:9/?", 1)),
    "somebody's name before the lab's": after(lambda url: url.replace("http://", "http://sts.example@")),
    "no URL": after(lambda _: "nothing"),
    "half a URL": after(lambda _: "http://[::1"),
    "another path": after(lambda url: url.replace("/?", "/clusters?", 1)),
    "a fragment": after(lambda url: url + "#x"),
    "another operation": with_query(Action="GetSessionToken"),
    "two operations": after(lambda url: url + "&Action=GetCallerIdentity"),
    "a parameter too many": with_query(Colour="red"),
    "the cluster's name as a parameter": with_query(**{"x-k8s-aws-id": CLUSTER}),
    "another header": with_header(**{"x-amz-meta": "1"}),
    "an empty header": with_header(colour=""),
    "a POST": set_to("method", "POST"),
    "an hour": set_to("expires", 3600),
    "no expiry": after(lambda url: url.replace("X-Amz-Expires=60", "X-Amz-Expires=x")),
    "another version": with_query(Version="2010-05-08"),
    "more than a token": after(lambda url: url + "&" * 5000),
}


@pytest.mark.parametrize("spoil", REFUSED.values(), ids=REFUSED)
def test_the_cluster_refuses_a_wrong_token(lab, signed, spoil):
    assert get(lab, signed.token()) == (200, "")
    spoil(signed)
    assert get(lab, signed.token()) == (401, "Unauthorized")


@pytest.mark.parametrize("token", ["k8s-aws-v1.", "k8s-aws-v1.!", "k8s-aws-v1.AAAA", "k8s-aws-v2.AAAA", "k8s-aws-v1"])
def test_the_cluster_refuses_text_that_is_not_a_token(lab, token):
    assert get(lab, token) == (401, "Unauthorized")


@pytest.mark.parametrize(("minutes", "status"), [(14, 200), (16, 401), (-16, 401)])
def test_a_token_is_good_for_15_minutes(lab, signed, monkeypatch, minutes, status):
    now = botocore.auth.get_current_datetime() - datetime.timedelta(minutes=minutes)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: now)
    assert get(lab, signed.token())[0] == status


def test_a_token_ends_with_the_session_that_signed_it(lab, role, entry):
    entry(kubernetesGroups=["viewers"])
    session = assumed(lab, role, seconds=900)
    assert whoami(lab, get_token(session))["groups"] == ["viewers", "system:authenticated"]
    lab.clock.advance(minutes=16)
    try:
        assert get(lab, get_token(session)) == (401, "Unauthorized")
    finally:
        lab.clock.reset()


def test_an_access_entry_does_not_let_in_a_role_that_was_created_again(lab, role, entry):
    entry()
    assert whoami(lab, get_token(assumed(lab, role)))
    iam, name = lab.aws.client("iam"), role.rpartition("/")[2]
    iam.delete_role(RoleName=name)
    iam.create_role(RoleName=name, Path="/people/", AssumeRolePolicyDocument=TRUST)
    assert get(lab, get_token(assumed(lab, role))) == (401, "Unauthorized")


def test_rbac_goes_by_the_groups_of_an_access_entry(lab, role, entry):
    entry(kubernetesGroups=["viewers"], username="someone:{{SessionName}}")
    token = get_token(assumed(lab, role))
    assert whoami(lab, token)["username"] == "someone:alice"
    assert get(lab, token, "/api/v1/pods")[0] == 403
    rbac = client.RbacAuthorizationV1Api(lab.kubernetes)
    subject = {"kind": "Group", "name": "viewers", "apiGroup": "rbac.authorization.k8s.io"}
    reference = {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}
    rbac.create_cluster_role_binding({"metadata": {"name": "v"}, "subjects": [subject], "roleRef": reference})
    try:
        assert get(lab, token, "/api/v1/pods")[0] == 200
    finally:
        rbac.delete_cluster_role_binding("v")
    eks = lab.aws.client("eks")
    eks.update_access_entry(clusterName=CLUSTER, principalArn=role, kubernetesGroups=["others"])
    assert whoami(lab, token)["groups"] == ["others", "system:authenticated"]
    eks.delete_access_entry(clusterName=CLUSTER, principalArn=role)
    assert get(lab, token) == (401, "Unauthorized")


def test_the_raw_session_name_keeps_its_special_characters(lab, role, entry):
    """https://docs.aws.amazon.com/eks/latest/userguide/set-custom-username.html"""
    entry(username="team:{{SessionNameRaw}}")
    assert whoami(lab, get_token(assumed(lab, role, "alice@example.com")))["username"] == "team:alice@example.com"
    lab.aws.client("eks").update_access_entry(clusterName=CLUSTER, principalArn=role, username="team:{{SessionName}}")
    assert whoami(lab, get_token(assumed(lab, role, "alice@example.com")))["username"] == "team:alice-example.com"


EVERYWHERE, IN_DEFAULT = {"type": "cluster"}, {"type": "namespace", "namespaces": ["def*"]}
PODS, SECRETS = "/api/v1/namespaces/{}/pods", "/api/v1/namespaces/{}/secrets"


@pytest.mark.parametrize(("policy", "scope", "path", "status"), [
    ("View", EVERYWHERE, PODS.format("default"), 200),
    ("View", EVERYWHERE, PODS.format("kube-system"), 200),
    ("View", EVERYWHERE, SECRETS.format("default"), 403),
    ("View", EVERYWHERE, "/api/v1/nodes", 403),
    ("View", IN_DEFAULT, PODS.format("default"), 200),
    ("View", IN_DEFAULT, PODS.format("kube-system"), 403),
    ("View", IN_DEFAULT, "/api/v1/pods", 403),
    ("Edit", EVERYWHERE, SECRETS.format("default"), 200),
    ("Admin", IN_DEFAULT, "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", 200),
    ("ClusterAdmin", EVERYWHERE, "/api/v1/nodes", 200),
    ("ClusterAdmin", EVERYWHERE, "/openid/v1/jwks", 200),
])  # fmt: skip
def test_an_access_policy_decides_what_a_role_may_read(lab, role, entry, policy, scope, path, status):
    entry()
    eks, arn = lab.aws.client("eks"), POLICY.format(policy)
    given = eks.associate_access_policy(clusterName=CLUSTER, principalArn=role, policyArn=arn, accessScope=scope)
    assert given["associatedAccessPolicy"]["policyArn"] == arn
    token = get_token(assumed(lab, role))
    with api(lab, token) as bearer:
        assert bearer.get(path).status_code == status
    found = eks.list_associated_access_policies(clusterName=CLUSTER, principalArn=role)["associatedAccessPolicies"]
    assert [each["policyArn"] for each in found] == [arn]
    assert role in eks.list_access_entries(clusterName=CLUSTER, associatedPolicyArn=arn)["accessEntries"]
    eks.disassociate_access_policy(clusterName=CLUSTER, principalArn=role, policyArn=arn)
    with api(lab, token) as bearer:
        assert bearer.get(path).status_code == 403


def test_describe_access_entry_shows_the_role_s_entry(lab, role, entry):
    name = role.rpartition("/")[2]
    entry(tags={"team": "irsa"})
    described = lab.aws.client("eks").describe_access_entry(clusterName=CLUSTER, principalArn=role)["accessEntry"]
    assert described["username"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{{{{SessionName}}}}"
    assert described["accessEntryArn"].startswith(
        f"arn:aws:eks:{REGION}:{ACCOUNT}:access-entry/{CLUSTER}/role/{ACCOUNT}/{name}/"
    )
    assert (described["type"], described["kubernetesGroups"]) == ("STANDARD", [])
    assert described["tags"] == {"team": "irsa"}
    assert (
        f"arn:aws:iam::{ACCOUNT}:user/administrator"
        in (lab.aws.client("eks").list_access_entries(clusterName=CLUSTER)["accessEntries"])
    )


OF_THE_ROLE = "the role's ARN"


@pytest.mark.parametrize(("operation", "given", "code", "message"), [
    ("create_access_entry", {"principalArn": f"arn:aws:iam::{ACCOUNT}:role/nobody"}, "InvalidParameterException",
     "The specified principalArn is invalid: invalid principal."),
    ("create_access_entry", {"principalArn": "arn:aws:sts::1:assumed-role/a/b"}, "InvalidParameterException",
     "The specified principalArn is invalid: invalid principal."),
    ("create_access_entry", {"principalArn": OF_THE_ROLE}, "ResourceInUseException",
     "The specified access entry resource is already in use on this cluster."),
    ("update_access_entry", {"principalArn": OF_THE_ROLE, "kubernetesGroups": ["system:masters"]},
     "InvalidParameterException", "The kubernetes group name system:masters is invalid, it cannot start with system:"),
    ("update_access_entry", {"principalArn": OF_THE_ROLE, "username": "system:admin"}, "InvalidParameterException",
     "The username system:admin is invalid, it cannot start with system:"),
    ("update_access_entry", {"principalArn": OF_THE_ROLE, "username": "john{{SessionName}}"},
     "InvalidParameterException",
     "The username john{{SessionName}} is invalid, it must have a colon before {{SessionName}}"),
    ("describe_access_entry", {"principalArn": "arn:aws:iam::1:role/x"}, "ResourceNotFoundException",
     "The specified principalArn could not be found. "
     "You can view your available access entries with 'list-access-entries'."),
    ("list_access_entries", {"clusterName": "none"}, "ResourceNotFoundException", "No cluster found for name: none."),
])  # fmt: skip
def test_eks_refuses_an_invalid_call_about_access_entries(lab, role, entry, operation, given, code, message):
    entry()
    given = {"clusterName": CLUSTER} | {name: role if v == OF_THE_ROLE else v for name, v in given.items()}
    with pytest.raises(ClientError) as refused:
        getattr(lab.aws.client("eks"), operation)(**given)
    assert (refused.value.response["Error"]["Code"], refused.value.response["Error"]["Message"]) == (code, message)


def test_a_cluster_that_reads_only_its_config_map_has_no_access_entries(lab, role):
    eks = lab.aws.client("eks")
    cluster = {"name": "old", "roleArn": role, "resourcesVpcConfig": {}}
    mode = {"authenticationMode": "CONFIG_MAP"}
    with pytest.raises(eks.exceptions.InvalidParameterException, match="must be true if cluster authentication mode"):
        eks.create_cluster(**cluster, accessConfig=mode | {"bootstrapClusterCreatorAdminPermissions": False})
    eks.create_cluster(**cluster, accessConfig=mode)
    try:
        for call in (
            lambda: eks.create_access_entry(clusterName="old", principalArn=role),
            lambda: eks.list_access_entries(clusterName="old"),
            lambda: eks.describe_access_entry(clusterName="old", principalArn=role),
        ):
            with pytest.raises(ClientError) as refused:
                call()
            assert refused.value.response["Error"]["Code"] == "InvalidRequestException"
            assert refused.value.response["Error"]["Message"] == (
                "The cluster's authentication mode must be set to one of [API, API_AND_CONFIG_MAP] to perform this "
                "operation."
            )
        with pytest.raises(ClientError, match="The lab does not emulate eks:UpdateClusterConfig"):
            eks.update_cluster_config(name="old", accessConfig={"authenticationMode": "API_AND_CONFIG_MAP"})
    finally:
        eks.delete_cluster(name="old")


def test_a_token_review_accepts_an_aws_token_unless_it_asks_for_an_audience(lab, signed):
    review = client.AuthenticationV1Api(lab.kubernetes).create_token_review({"spec": {"token": signed.token()}})
    assert review.status.authenticated
    assert review.status.user.username == f"arn:aws:iam::{ACCOUNT}:user/administrator"
    spec = {"token": signed.token(), "audiences": ["sts.amazonaws.com"]}
    assert not client.AuthenticationV1Api(lab.kubernetes).create_token_review({"spec": spec}).status.authenticated


@pytest.mark.kubectl
def test_a_pod_whose_role_has_an_entry_speaks_to_its_own_cluster(lab, folder, terminal):
    lab.ready(through="pod")
    eks = lab.aws.client("eks")
    eks.create_access_entry(clusterName=CLUSTER, principalArn=lab.role_arn)
    own = str(folder.kubeconfig)
    (pod,) = client.CoreV1Api(lab.kubernetes).list_namespaced_pod("tokens").items
    inside = ("--context", CLUSTER, "-n", "tokens", "exec", pod.metadata.name, "--")
    command = ("kubectl", *inside, "aws", "eks", "get-token", "--cluster-name", CLUSTER)
    token = json.loads(terminal(*command, KUBECONFIG=own).stdout)["status"]["token"]
    user = whoami(lab, token)
    assert user["username"].startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/tokens-reader/")
    lab.remove()


@pytest.mark.kubectl
def test_a_service_accounts_token_lives_a_day_at_most(terminal, folder):
    create = ("kubectl", "--context", CLUSTER, "create", "token", "default", "--duration", "48h")
    done = terminal(*create, KUBECONFIG=str(folder.kubeconfig))
    assert done.stderr.strip() == "Warning: requested expiration of 172800 seconds shortened to 86400 seconds"
    claims = read_jwt(done.stdout.strip())[1]
    assert claims["exp"] - claims["iat"] == 86400
