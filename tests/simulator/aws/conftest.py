"""A gate that really listens, an issuer that really serves its keys over HTTPS, and clients of both."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.auth
import httpx
import jwt
import pytest
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import rsa
from moto.core.base_backend import BackendDict

from labkit.simulator.aws.clusters import ClusterFacts, Instance
from labkit.simulator.aws.gate import Gate, Keys
from labkit.simulator.aws.metadata import InstanceMetadata
from labkit.simulator.aws.trail import Trail
from labkit.simulator.aws_cli import S3_CONTROL, keep_host
from labkit.simulator.certificates import Authority
from labkit.simulator.clock import Clock
from labkit.simulator.identifiers import Identifiers
from labkit.simulator.listener import Listener, bind

ACCOUNT = "123456789012"
OTHER, THIRD = "222222222222", "333333333333"
ENTRANCE = "OrganizationAccountAccessRole"
REGION = "us-east-1"
ISSUER_HOST = "oidc.eks.us-east-1.amazonaws.com"
ISSUER_ID = "EXAMPLED539D4633E53DE1B71EXAMPLE"
ISSUER = f"https://{ISSUER_HOST}/id/{ISSUER_ID}"
SUBJECT = "system:serviceaccount:default:my-service-account"
AUDIENCE = "sts.amazonaws.com"
ADMINISTRATOR = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
ADMINISTRATOR_CREDENTIALS = Credentials(ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key)
MANAGEMENT = Keys("AKIAMANAGEMENTACCOUN", "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY")


def key_pair() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Issuer:
    """An OIDC issuer: discovery and keys by path, and tokens signed with its key."""

    def __init__(self, url: str = ISSUER, key_id: str = "1"):
        self.url = url
        self.key_id = key_id
        self.key = key_pair()
        self.fetched: list[str] = []
        self.documents: dict[str, Any] = {}
        self.publish()

    def publish(self, *, key_id: str | None = None, issuer: str | None = None) -> None:
        """Serve discovery and the current key. A given key id or issuer replaces the right one."""
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        path = "/" + self.url.split("/", 3)[3]
        self.documents = {
            f"{path}/.well-known/openid-configuration": {"issuer": issuer or self.url, "jwks_uri": f"{self.url}/keys"},
            f"{path}/keys": {"keys": [public | {"kid": key_id or self.key_id, "use": "sig", "alg": "RS256"}]},
        }

    def token(self, *, key: Any = None, algorithm: str = "RS256", headers: dict | None = None, **claims: Any) -> str:
        """Return a good token with the given changes. A claim with the value None is left out."""
        now = int(time.time())
        content = {"iss": self.url, "sub": SUBJECT, "aud": [AUDIENCE], "iat": now, "nbf": now, "exp": now + 3600}
        content |= claims
        content = {name: value for name, value in content.items() if value is not None}
        return jwt.encode(content, key or self.key, algorithm=algorithm, headers={"kid": self.key_id} | (headers or {}))

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        self.fetched.append(scope["path"])
        document = self.documents.get(scope["path"])
        if callable(document):
            await document(send)
            return
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        await send({"type": "http.response.start", "status": 200 if document is not None else 404, "headers": []})
        await send({"type": "http.response.body", "body": body})


class Clusters:
    """Clusters that are only facts: no API server runs."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], ClusterFacts] = {}

    async def create(self, region: str, name: str, request: dict[str, Any]) -> ClusterFacts:
        self.known[region, name] = ClusterFacts(
            name=name,
            arn=f"arn:aws:eks:{region}:{ACCOUNT}:cluster/{name}",
            endpoint="https://127.0.0.1:6443",
            certificate_authority_pem=b"-----BEGIN CERTIFICATE-----\n",
            issuer=ISSUER,
            version=request.get("version") or "1.33",
            created_at=1_750_000_000.0,
            role_arn=request["roleArn"],
            instance=node(),
        )
        return self.known[region, name]

    async def delete(self, region: str, name: str) -> None:
        del self.known[region, name]

    def get(self, region: str, name: str) -> ClusterFacts | None:
        return self.known.get((region, name))

    def nodes(self, region: str) -> dict[str, ClusterFacts]:
        return {facts.instance.id: facts for (place, _), facts in self.known.items() if place == region}

    def tell_clients(self) -> None:
        pass


def node(role_arn: str = f"arn:aws:iam::{ACCOUNT}:role/node") -> Instance:
    return Instance(id="i-0123456789abcdef0", name="blue-node-1", role_arn=role_arn, region=REGION, zone=f"{REGION}a")


class Aws:
    """The lab's AWS, and what a test needs around it."""

    def __init__(self, folder: Path, state: Path | None = None):
        # One session for all tests: each new one would load the services' models again.
        self.clients: dict[str, Any] = {}
        self.session = boto3.Session(region_name=REGION)
        self.session.events.register_first(S3_CONTROL, keep_host)
        self.clock = Clock(folder / "clock")
        self.trail_file = folder / "trail.jsonl"
        self.clusters = Clusters()
        self.identifiers = Identifiers("test")
        self.gate = Gate(
            account_id=ACCOUNT,
            region=REGION,
            clock=self.clock,
            identifiers=self.identifiers,
            trail=Trail(self.trail_file),
            clusters=self.clusters,
            administrator=ADMINISTRATOR,
            management=MANAGEMENT,
            state=state,
        )
        self.forget_everything()
        self.authority = Authority.create("public root of the test")
        self.issuer = Issuer()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.listeners: list[Listener] = []
        self.endpoint = f"http://127.0.0.1:{self.listen(self.gate)}"
        certificate = self.authority.issue(ISSUER_HOST, dns=[ISSUER_HOST])
        port = self.listen(self.issuer, hosts={ISSUER_HOST}, certificate=certificate)
        self.issuer_port = port
        self.gate.issuers.map_host(ISSUER_HOST, ("127.0.0.1", port), self.authority.certificate_pem)

    def begin_anew(self) -> None:
        """Delete all resources, set the clock to the machine's time, and let the issuer serve the right documents."""
        self.forget_everything()
        self.clock.reset()
        self.clusters.known.clear()
        self.issuer.publish()
        self.gate.issuers.forget(ISSUER)
        self.trail_file.unlink(missing_ok=True)

    def forget_everything(self) -> None:
        """Empty every service of every account in this process."""
        BackendDict.reset()
        self.gate._organization._members.clear()

    def node_metadata(self, role_arn: str) -> str:
        """The endpoint of a node's metadata service."""
        return f"http://127.0.0.1:{self.listen(InstanceMetadata(self.gate, self.clock, node(role_arn)))}"

    def listen(self, app: Any, *, hosts: set[str] | None = None, certificate: Any = None) -> int:
        hosts = hosts or {"127.0.0.1", "localhost"}
        listener = Listener(app, port_socket=bind(0), hosts=hosts, certificate=certificate)
        self.listeners.append(listener)
        asyncio.run_coroutine_threadsafe(listener.start(), self.loop).result(10)
        return listener.port

    def close(self) -> None:
        for listener in self.listeners:
            asyncio.run_coroutine_threadsafe(listener.stop(), self.loop).result(10)
        self.gate.backend.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    def client(self, service: str, credentials: Any = None, **config: Any) -> Any:
        """A client of the administrator, or of a session (an STS ``Credentials``)."""
        if credentials is None and not config:
            if service not in self.clients:
                key_id, secret = ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key
                self.clients[service] = self.new_client(service, key_id, secret)
            return self.clients[service]
        keys = (credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"])
        return self.new_client(service, *keys, **config)

    def new_client(self, service: str, key: str, secret: str, token: str | None = None, **config: Any) -> Any:
        """Return a new client. It doesn't retry or check parameters, so the gate gets each call once and unchecked."""
        return self.session.client(
            service,
            endpoint_url=self.endpoint,
            config=Config(retries={"total_max_attempts": 1}, parameter_validation=False, **config),
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=token,
        )

    def trail(self) -> list[dict[str, Any]]:
        return Trail.read(self.trail_file)

    def last(self) -> dict[str, Any]:
        """The newest record of the trail."""
        return next(Trail.newest(self.trail_file))


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    aws = Aws(tmp_path_factory.mktemp("aws"))
    yield aws
    aws.close()


@pytest.fixture
def aws(running: Aws) -> Iterator[Aws]:
    """The running gate with nothing in it."""
    running.begin_anew()
    yield running
    running.clock.reset()


@pytest.fixture
def iam(aws):
    return aws.client("iam")


def trust_policy(**changes: Any) -> dict[str, Any]:
    """The trust policy of the lab's second step; ``changes`` are to its statement."""
    name = ISSUER.removeprefix("https://")
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/{name}"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {f"{name}:sub": SUBJECT, f"{name}:aud": AUDIENCE}},
    }
    statement |= changes
    statement = {key: value for key, value in statement.items() if value is not None}
    return {"Version": "2012-10-17", "Statement": [statement]}


def refused(call, status, code, message):
    """Assert that the call is refused with this status, code and message; return the whole answer."""
    with pytest.raises(ClientError) as caught:
        call()
    answer = caught.value.response
    actual = (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"].get("Message"))
    assert actual == (status, code, message)
    return answer


def code_of(call):
    with pytest.raises(ClientError) as caught:
        call()
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"].get("Message")


def permit(*actions, resource="*"):
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource}


def by_hand(aws, service, method, path, body, **headers):
    """Send a call of the administrator that no client would send; return the answer."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = AWSRequest(method, aws.endpoint + path, data=body, headers=names)
    signer = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    signer(ADMINISTRATOR_CREDENTIALS, service, REGION).add_auth(request)
    return httpx.request(method, aws.endpoint + path, content=body, headers=dict(request.headers), timeout=60)


class Irsa:
    """A provider, a role that trusts one service account and may read S3, and a bucket."""

    role_name = "my-role"
    role_arn = f"arn:aws:iam::{ACCOUNT}:role/my-role"
    provider_arn = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{ISSUER.removeprefix('https://')}"
    policy_arn = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    bucket = "irsa-lab"

    def __init__(self, aws: Aws):
        self.aws = aws
        self.iam = aws.client("iam")
        self.iam.create_open_id_connect_provider(Url=ISSUER, ClientIDList=[AUDIENCE], ThumbprintList=["a" * 40])
        self.iam.create_role(RoleName=self.role_name, AssumeRolePolicyDocument=json.dumps(trust_policy()))
        self.iam.attach_role_policy(RoleName=self.role_name, PolicyArn=self.policy_arn)
        s3 = aws.client("s3")
        s3.create_bucket(Bucket=self.bucket)
        s3.put_object(Bucket=self.bucket, Key="hello.txt", Body=b"hello")

    def assume(self, **changes: Any) -> dict[str, Any]:
        """Call AssumeRoleWithWebIdentity with a good token and the given changes."""
        request = {"RoleArn": self.role_arn, "RoleSessionName": "my-pod", "WebIdentityToken": None} | changes
        if "WebIdentityToken" not in changes:
            request["WebIdentityToken"] = self.aws.issuer.token()
        request = {name: value for name, value in request.items() if value is not None}
        return self.aws.client("sts").assume_role_with_web_identity(**request)

    def trust(self, document: dict[str, Any]) -> None:
        """Replace the trust policy. The document may be a bad one."""
        self.iam.update_assume_role_policy(RoleName=self.role_name, PolicyDocument=json.dumps(document))

    def permit(self, *statements: dict[str, Any]) -> None:
        """Replace the role's permissions."""
        attached = self.iam.list_attached_role_policies(RoleName=self.role_name)["AttachedPolicies"]
        for policy in attached:
            self.iam.detach_role_policy(RoleName=self.role_name, PolicyArn=policy["PolicyArn"])
        document = {"Version": "2012-10-17", "Statement": list(statements)}
        self.iam.put_role_policy(RoleName=self.role_name, PolicyName="inline", PolicyDocument=json.dumps(document))


@pytest.fixture
def irsa(aws: Aws) -> Irsa:
    return Irsa(aws)


def statement(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def trusting(principal, **condition):
    return document(
        {
            "Effect": "Allow",
            "Principal": {"AWS": principal},
            "Action": "sts:AssumeRole",
            **({"Condition": condition} if condition else {}),
        }
    )


class Account:
    """Another account, which the lab's administrator has entered."""

    def __init__(self, aws, account_id):
        self.aws, self.account_id = aws, account_id
        role = f"arn:aws:iam::{account_id}:role/{ENTRANCE}"
        self.entered = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="me")
        self.iam, self.s3, self.sts = (self.client(service) for service in ("iam", "s3", "sts"))

    def client(self, service):
        return self.aws.client(service, self.entered["Credentials"])

    def role(self, name, trust, *statements):
        self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
        if statements:
            self.iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=document(*statements))
        return f"arn:aws:iam::{self.account_id}:role/{name}"

    def bucket(self, name, *policy):
        self.s3.create_bucket(Bucket=name)
        self.s3.put_object(Bucket=name, Key="hello.txt", Body=b"theirs")
        if policy:
            self.s3.put_bucket_policy(Bucket=name, Policy=document(*policy))


@pytest.fixture
def other(aws):
    """Another account, entered."""
    return Account(aws, OTHER)


@pytest.fixture
def pod(aws, irsa):
    """The session of a pod of our account."""
    return irsa.assume()["Credentials"]
