"""The lab's AWS session talks to the lab, whatever the machine's own AWS setup says."""

import os
import socket
import subprocess
import sys

import boto3
import pytest
from botocore.exceptions import ClientError, ProxyConnectionError

from labkit.errors import LabError
from labkit.simulator import BoundSession

SERVER = """
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
input()
"""


@pytest.fixture(scope="module")
def endpoint():
    # A process of its own: moto's own session would trip over the hostile variables.
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.kill()


@pytest.fixture
def hostile(monkeypatch, tmp_path):
    """Set variables, a file and proxies, each of which would lead calls away from the lab or break the client."""
    config = tmp_path / "config"
    config.write_text(
        "[default]\nregion = eu-west-1\nendpoint_url = https://aws.invalid\nsts_regional_endpoints = legacy\n"
        "s3 =\n    use_accelerate_endpoint = true\n[profile work]\nrole_arn = arn:aws:iam::1:role/x\n"
    )
    away = {
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(config),
        "AWS_PROFILE": "does-not-exist",
        "AWS_DEFAULT_PROFILE": "does-not-exist",
        "AWS_ACCESS_KEY_ID": "AKIAREALREALREALREAL",
        "AWS_SECRET_ACCESS_KEY": "real",
        "AWS_SESSION_TOKEN": "real",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "https://aws.invalid",
        "AWS_ENDPOINT_URL_STS": "https://sts.aws.invalid",
        "AWS_ENDPOINT_URL_S3": "https://s3.aws.invalid",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",
        "AWS_DEFAULTS_MODE": "auto",
        "AWS_MAX_ATTEMPTS": "50",
        "AWS_RETRY_MODE": "nonsense",
        "AWS_CA_BUNDLE": "/no/such/bundle",
        "AWS_ROLE_ARN": "arn:aws:iam::999999999999:role/real",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/no/such/token",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
        "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "nonsense",
        "HTTP_PROXY": "http://proxy.invalid:3128",
        "HTTPS_PROXY": "http://proxy.invalid:3128",
        "http_proxy": "http://proxy.invalid:3128",
        "https_proxy": "http://proxy.invalid:3128",
        "NO_PROXY": "nowhere.invalid",
    }
    for name, value in away.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def only_loopback(monkeypatch):
    """Refuse all connections and look-ups beyond loopback, and list them."""
    left = []
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self, address):
        if isinstance(address, tuple) and not address[0].startswith("127."):
            left.append(address)
            raise OSError("the test lets nothing leave loopback")
        return connect(self, address)

    def guarded_resolve(host, *args, **kwargs):
        if host not in ("127.0.0.1", "localhost"):
            left.append(host)
            raise OSError("the test lets nothing leave loopback")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_resolve)
    return left


def session(endpoint):
    return BoundSession(
        endpoint_url=endpoint, access_key_id="AKIALABLABLABLABLABL", secret_access_key="lab", region="us-east-1"
    )


def test_the_machines_aws_settings_have_no_effect(endpoint, hostile, only_loopback):
    lab = session(endpoint)
    assert lab.region_name == "us-east-1"
    assert lab.get_credentials().access_key == "AKIALABLABLABLABLABL"
    assert lab.client("sts").get_caller_identity()["Account"] == "123456789012"
    s3 = lab.client("s3")
    s3.create_bucket(Bucket="irsa-lab")
    s3.put_object(Bucket="irsa-lab", Key="hello.txt", Body=b"x")
    assert lab.resource("s3").Object("irsa-lab", "hello.txt").get()["Body"].read() == b"x"
    lab.client("iam").list_roles()
    lab.client("eks", region_name="eu-central-1").list_clusters()
    assert only_loopback == []


def test_s3_control_calls_go_to_the_lab(endpoint, only_loopback):
    with pytest.raises(ClientError, match="NoSuchPublicAccessBlockConfiguration"):
        session(endpoint).client("s3control").get_public_access_block(AccountId="123456789012")
    assert only_loopback == []


def test_the_loopback_guard_catches_a_plain_boto3_session(hostile, only_loopback, monkeypatch):
    for name in os.environ:
        if name.startswith("AWS_") and "KEY" not in name and not name.startswith("AWS_ENDPOINT_URL"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ProxyConnectionError):
        boto3.Session(region_name="us-east-1").client("sts").get_caller_identity()
    assert only_loopback


def test_a_client_with_another_endpoint_is_refused(endpoint):
    with pytest.raises(LabError, match=r"lab\.aws talks only to the lab, not to"):
        session(endpoint).client("sts", endpoint_url="https://sts.amazonaws.com")


def test_a_proxy_in_a_callers_config_is_ignored(endpoint, only_loopback):
    from botocore.config import Config

    config = Config(proxies={"http": "http://proxy.invalid:3128"}, user_agent_extra="x")
    assert session(endpoint).client("sts", config=config).get_caller_identity()["Account"] == "123456789012"
    assert only_loopback == []


def test_a_presigned_url_uses_signature_version_4(endpoint):
    keys = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "secret"}
    s3 = BoundSession(endpoint_url=endpoint, region="us-east-1", **keys).client("s3")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "irsa-lab", "Key": "hello.txt"})
    assert url.startswith(f"{endpoint}/irsa-lab/hello.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256")
