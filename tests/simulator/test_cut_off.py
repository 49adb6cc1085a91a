"""A request that is cut off is not carried out, on any of the lab's listeners."""

import contextlib
import socket
import ssl
from urllib.parse import urlsplit

import botocore.auth
import httpx
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.simulator.aws.conftest import ADMINISTRATOR, REGION, Irsa, aws, running
from tests.simulator.kubernetes.conftest import admin, cluster, namespace, signing_key

__all__ = ["admin", "aws", "cluster", "namespace", "running", "signing_key"]


def cut_off(url: str, head: list[str], body: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """Send a part of a request and stop; return everything that the server answers."""
    parts = urlsplit(url)
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=20))
        if context:
            connection = stack.enter_context(context.wrap_socket(connection, server_hostname=parts.hostname))
        lines = [head[0], f"Host: {parts.netloc}", *head[1:]]
        connection.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body)
        connection.shutdown(socket.SHUT_WR)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                said += part
        return said


def test_a_delete_with_half_of_its_options_deletes_nothing(cluster, admin, namespace):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    assert admin.post(path, json={"metadata": {"name": "kept"}}).status_code == 201
    context = ssl.create_default_context(cadata=cluster.authority.certificate_pem.decode())
    context.load_cert_chain(cluster.keep("admin", "system:masters"))
    for framing, half in (
        ("Content-Length: 20", b'{"dryRun":["All"],'),
        ("Content-Length: 20", b""),
        ("Transfer-Encoding: chunked", b'12\r\n{"dryRun":["All"],\r\n'),
    ):
        cut_off(cluster.url, [f"DELETE {path}/kept HTTP/1.1", framing], half, context)
        assert admin.get(f"{path}/kept").status_code == 200, framing


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_an_upload_that_ends_early_replaces_nothing(aws, framing):
    irsa = Irsa(aws)
    request = AWSRequest("PUT", f"{aws.endpoint}/{irsa.bucket}/hello.txt", headers={})
    keys = Credentials(ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key)
    botocore.auth.S3SigV4QueryAuth(keys, "s3", REGION, expires=300).add_auth(request)
    target = request.url.removeprefix(aws.endpoint)
    half = b"lost" if "Length" in framing else b"4\r\nlost\r\n"
    cut_off(aws.endpoint, [f"PUT {target} HTTP/1.1", framing], half)
    assert aws.client("s3").get_object(Bucket=irsa.bucket, Key="hello.txt")["Body"].read() == b"hello"


def test_the_metadata_service_gives_no_token_for_half_a_request(aws):
    endpoint = aws.node_metadata(Irsa(aws).role_arn)
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    head = ["PUT /latest/api/token HTTP/1.1", *(f"{name}: {value}" for name, value in lifetime.items())]
    assert cut_off(endpoint, [*head, "Content-Length: 10"], b"1234") == b""
    assert httpx.put(f"{endpoint}/latest/api/token", headers=lifetime, timeout=60).status_code == 200
