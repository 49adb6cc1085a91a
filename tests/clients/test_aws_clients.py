"""AWS clients in pods: each exchanges the pod's token by itself, through its own default credential chain.

A pod here has only what the webhook and the node give it: no key, no profile, no option that selects credentials.
https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from kubernetes.client import CoreV1Api
from kubernetes.watch import Watch

import labkit
from labkit import simulator
from tests import forked_commands
from tests.conftest import lacking

JAVASCRIPT = Path(__file__).with_name("javascript")
NAMESPACE, BUCKET = "clients", "irsa-clients"
BODY = "hello from the lab\n"
WEB_IDENTITY = "AssumeRoleWithWebIdentity"
ENDS_WITHIN = 120  # seconds; a pod's one command
BY_THE_WEBHOOK = {
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
}
TRUST = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
FORGED = (
    "The web identity token provided could not be validated. "
    "See the AssumeRoleWithWebIdentity documentation for requirements."
)
pytestmark = pytest.mark.lab(namespace=NAMESPACE, service_account="reader", role_name="reader", bucket=BUCKET)


@dataclass(frozen=True)
class Client:
    """A client's commands, and the errors that it prints."""

    agent: str | tuple[str, ...]  # how its User-Agent header begins
    list: str
    read: str
    denied: str
    refused: str  # what it says when S3 refuses, before the message
    forged: str  # … when STS refuses a forged token
    mistrusted: str  # … when STS refuses because of the trust policy
    whoami: str = ""


def aws(version: int, program: str) -> Client:
    error = "An error occurred ({}) when calling the {} operation: "
    return Client(
        agent=f"aws-cli/{version}.",
        whoami=f"{program} sts get-caller-identity --query Arn --output text",
        list=f"{program} s3 ls s3://{BUCKET}/open/",
        read=f"{program} s3 cp s3://{BUCKET}/open/hello.txt -",
        denied=f"{program} s3api get-object --bucket {BUCKET} --key closed/secret.txt /dev/null",
        refused=error.format("AccessDenied", "GetObject"),
        forged=error.format("InvalidIdentityToken", WEB_IDENTITY),
        mistrusted=error.format("AccessDenied", WEB_IDENTITY),
    )


def javascript() -> Client:
    install_javascript()
    program = f"node --no-warnings {JAVASCRIPT / 'client.mjs'}"
    return Client(
        agent="aws-sdk-js/3.",
        whoami=f"{program} whoami",
        list=f"{program} list {BUCKET} open/",
        read=f"{program} read {BUCKET} open/hello.txt",
        denied=f"{program} read {BUCKET} closed/secret.txt",
        refused="AccessDenied: ",
        forged="InvalidIdentityTokenException: ",
        mistrusted="AccessDenied: ",
    )


def rclone() -> Client:
    version = subprocess.run(["rclone", "version"], capture_output=True, text=True).stdout
    # rclone before 1.68 uses the AWS SDK for Go 1, which doesn't know AWS_ENDPOINT_URL.
    needs = int(re.match(r"rclone v1\.(\d+)", version)[1]) < 68
    leads = 'RCLONE_S3_ENDPOINT="$AWS_ENDPOINT_URL" RCLONE_S3_STS_ENDPOINT="$AWS_ENDPOINT_URL" ' if needs else ""
    # rclone calls an S3 without a host per bucket "Other". The SDK for Go retries after InvalidIdentityToken.
    program = f"{leads}rclone --config= --retries=1 --low-level-retries=1 --s3-provider=Other --s3-env-auth"
    return Client(
        agent=("rclone/", "aws-sdk-go-v2/"),
        list=f"{program} lsf :s3:{BUCKET}/open",
        read=f"{program} cat :s3:{BUCKET}/open/hello.txt",
        denied=f"{program} cat :s3:{BUCKET}/closed",
        # Both SDKs for Go, 1 and 2, print these.
        refused="AccessDenied: ",
        forged="InvalidIdentityToken: ",
        mistrusted="AccessDenied: ",
    )


def aws_cli_2() -> Client:
    program = shutil.which("aws", path="/usr/local/bin:/usr/bin") or "aws"
    done = subprocess.run(["sh", "-c", f"{program} --version"], capture_output=True, text=True)
    version = re.match(r"aws-cli/2\.(\d+)", done.stdout)
    # https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    if not version or int(version[1]) < 13:
        lacking("the AWS CLI 2.13 or newer, for all users:  apt-get install awscli   (Debian 13)")
    return aws(2, program)


def install_javascript() -> None:
    """Install the AWS SDK for JavaScript from the npm registry, unless it is installed already."""
    installed, lock = JAVASCRIPT / "node_modules/.package-lock.json", JAVASCRIPT / "package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    if not shutil.which("npm"):
        lacking("npm:  apt-get install npm   (or: brew install node)")
    done = subprocess.run(["npm", "ci"], cwd=JAVASCRIPT, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr)
        lacking("the AWS SDK for JavaScript, from a network:  (cd tests/clients/javascript && npm ci)")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(lambda: aws(1, str(forked_commands.REAL / "aws")), id="aws-cli-1"),
        pytest.param(aws_cli_2, id="aws-cli-2"),
        pytest.param(javascript, id="javascript", marks=pytest.mark.node),
        pytest.param(rclone, id="rclone", marks=pytest.mark.rclone),
    ],
)
def client(request: pytest.FixtureRequest) -> Client:
    return request.param()


@pytest.fixture(scope="module", autouse=True)
def accounts(lab: labkit.Lab) -> Iterator[None]:
    """A bucket and two service accounts: `reader`, and `mistrusted`, whose role doesn't trust it."""
    lab.ready(before="iam_role")
    s3, core = lab.aws.client("s3"), CoreV1Api(lab.kubernetes)
    for key in ("open/hello.txt", "closed/secret.txt"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=BODY.encode())
    role(lab, "reader", trusts="reader")
    role(lab, "mistrusted", trusts="another")
    core.create_namespace({"metadata": {"name": NAMESPACE, "labels": lab.labels}})
    for name in ("reader", "mistrusted"):
        annotations = {"eks.amazonaws.com/role-arn": lab.connection.role_arn(name)}
        core.create_namespaced_service_account(NAMESPACE, {"metadata": {"name": name, "annotations": annotations}})
    yield
    core.delete_namespace(NAMESPACE)


def role(lab: labkit.Lab, name: str, *, trusts: str) -> None:
    """Make a role for the service account `trusts`. It may list the bucket and read the objects under open/."""
    issuer = lab.issuer.removeprefix("https://")
    who = {f"{issuer}:sub": f"system:serviceaccount:{NAMESPACE}:{trusts}", f"{issuer}:aud": "sts.amazonaws.com"}
    trust = {"Action": f"sts:{WEB_IDENTITY}", "Principal": {"Federated": lab.provider_arn}}
    bucket = f"arn:aws:s3:::{BUCKET}"
    lists = {"Action": "s3:ListBucket", "Resource": bucket}
    reads = {"Action": "s3:GetObject", "Resource": f"{bucket}/open/*"}
    iam = lab.aws.client("iam")
    iam.create_role(
        RoleName=name, AssumeRolePolicyDocument=policy({**trust, "Condition": {"StringEquals": who}}), Tags=lab.tags
    )
    iam.put_role_policy(RoleName=name, PolicyName="open", PolicyDocument=policy(lists, reads))


def policy(*statements: dict) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **one} for one in statements]})


@dataclass(frozen=True)
class Ended:
    """A pod's output and exit code, and the client's calls meanwhile, from the trail."""

    output: str
    exit_code: int
    calls: list[dict]

    @property
    def names(self) -> list[str]:
        return [call["eventName"] for call in self.calls]


@pytest.fixture
def run(lab: labkit.Lab, client: Client) -> Callable[..., Ended]:
    def run(line: str, account: str = "reader") -> Ended:
        """Run a line in a pod of its own, so that nothing is left of an earlier exchange."""
        core, before = CoreV1Api(lab.kubernetes), len(lab.trail())
        container = {
            "name": "app",
            "image": "amazon/aws-cli",
            "command": ["sh", "-c", line],
            "volumeMounts": [
                {"name": "forged", "mountPath": "/forged"},
                {"name": "javascript", "mountPath": str(JAVASCRIPT), "readOnly": True},
            ],
        }
        spec = {
            "serviceAccountName": account,
            "restartPolicy": "Never",
            "containers": [container],
            "volumes": [
                {"name": "forged", "configMap": {"name": "forged", "optional": True}},
                {"name": "javascript", "hostPath": {"path": str(JAVASCRIPT)}},
            ],
        }
        made = core.create_namespaced_pod(NAMESPACE, {"metadata": {"generateName": f"{account}-"}, "spec": spec})
        given = {variable.name for variable in made.spec.containers[0].env or ()}
        assert given == (set() if account == "default" else BY_THE_WEBHOOK)
        selected = {"field_selector": f"metadata.name={made.metadata.name}", "timeout_seconds": ENDS_WITHIN}
        seen = (event["object"] for event in Watch().stream(core.list_namespaced_pod, NAMESPACE, **selected))
        pod = next(pod for pod in seen if pod.status.phase in ("Succeeded", "Failed"))
        output = core.read_namespaced_pod_log(pod.metadata.name, NAMESPACE)
        core.delete_namespaced_pod(pod.metadata.name, NAMESPACE, grace_period_seconds=0)
        calls = [call for call in lab.trail().records[before:] if call["userAgent"].startswith(client.agent)]
        return Ended(output, pod.status.container_statuses[0].state.terminated.exit_code, calls)

    return run


@pytest.fixture(scope="module")
def forged(lab: labkit.Lab) -> str:
    """The path of a forged token: a genuine one's claims, signed with another key under the same key id."""
    core = CoreV1Api(lab.kubernetes)
    asked = {"spec": {"audiences": ["sts.amazonaws.com"]}}
    genuine = core.create_namespaced_service_account_token("reader", NAMESPACE, asked).status.token
    claims = jwt.decode(genuine, options={"verify_signature": False})
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    token = jwt.encode(claims, key, "RS256", headers={"kid": jwt.get_unverified_header(genuine)["kid"]})
    core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "forged"}, "data": {"token": token}})
    return "/forged/token"


def session_of(ended: Ended) -> str:
    """Return the ARN of the session in which a client made all its calls, after its one exchange."""
    exchange, *others = ended.calls
    assert exchange["eventName"] == WEB_IDENTITY
    assert exchange["userIdentity"]["userName"] == f"system:serviceaccount:{NAMESPACE}:reader"
    assert exchange["requestParameters"]["roleArn"].endswith(":role/reader")
    arn = exchange["responseElements"]["assumedRoleUser"]["arn"]
    assert others
    assert {call["userIdentity"]["arn"] for call in others} == {arn}
    return arn


def test_a_client_reads_what_its_pod_s_role_allows(client: Client, run: Callable[..., Ended]):
    listed = run(client.list)
    assert listed.exit_code == 0, listed.output
    assert "hello.txt" in listed.output
    assert "secret.txt" not in listed.output
    assert session_of(listed)
    read = run(client.read)
    assert (read.output, read.exit_code) == (BODY, 0)
    assert session_of(read)
    assert read.names[-1] == "GetObject"
    if client.whoami:
        identity = run(client.whoami)
        assert (identity.output, identity.exit_code) == (f"{session_of(identity)}\n", 0)


def test_s3_refuses_a_client_an_object_that_its_pod_s_role_may_not_read(client: Client, run: Callable[..., Ended]):
    ended = run(client.denied)
    message = (
        f"User: {session_of(ended)} is not authorized to perform: s3:GetObject on resource: "
        f'"arn:aws:s3:::{BUCKET}/closed/secret.txt" because no identity-based policy allows the s3:GetObject action'
    )
    assert client.refused + message in ended.output
    assert ended.exit_code != 0
    assert (ended.names[-1], ended.calls[-1]["errorCode"]) == ("GetObject", "AccessDenied")


def test_sts_refuses_a_client_s_forged_token(client: Client, run: Callable[..., Ended], forged: str):
    ended = run(f"export AWS_WEB_IDENTITY_TOKEN_FILE={forged}; {client.read}")
    is_refused_by_sts(ended, "InvalidIdentityToken", client.forged + FORGED)


def test_a_client_whose_role_refuses_it_does_not_use_the_node_s_role(client: Client, run: Callable[..., Ended]):
    is_refused_by_sts(run(client.read, "mistrusted"), "AccessDenied", client.mistrusted + TRUST)


def test_a_client_in_a_pod_without_a_role_acts_as_the_node(client, run, lab):
    # The webhook adds no region to such a pod, as on EKS.
    line = f"export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1; {client.denied}"
    ended = run(line, "default")
    assert (ended.calls, ended.exit_code == 0) == ([], False), "the node's hop limit is 1"
    simulator.set_hop_limit(lab.aws, 2, lab.parameters.cluster)
    try:
        ended = run(line, "default")
    finally:
        simulator.set_hop_limit(lab.aws, 1, lab.parameters.cluster)
    assert re.search(r"User: arn:aws:sts::\d{12}:assumed-role/blue-node-role/i-0\w+ is not authorized", ended.output)
    assert WEB_IDENTITY not in ended.names


def is_refused_by_sts(ended: Ended, code: str, words: str) -> None:
    """Assert that STS refused, that the client says so, and that it made no other call, not even as the node."""
    assert words in ended.output
    assert BODY not in ended.output
    assert ended.exit_code != 0
    assert {(call["eventName"], call.get("errorCode")) for call in ended.calls} == {(WEB_IDENTITY, code)}
