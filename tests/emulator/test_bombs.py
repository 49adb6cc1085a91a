"""Requests that are small and ask for much work or memory: each is refused before it costs any."""

import http.client
import json
import re
import socket
import ssl
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import botocore.auth
import httpx
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from labkit.emulator.aws import constraints
from tests.emulator.aws.conftest import ADMINISTRATOR, REGION, Irsa, aws, running
from tests.emulator.kubernetes.conftest import admin, cluster, namespace, signing_key
from tests.emulator.test_cut_off import cut_off

__all__ = ["admin", "aws", "cluster", "namespace", "running", "signing_key"]

YAML = {"Content-Type": "application/yaml"}
FORM = "Content-Type: application/x-www-form-urlencoded"
GIGABYTES = "Content-Length: 10000000000"
KEYS = Credentials(ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key)
LARGE = 48 * 2**20


def answered(url: str, head: list[str], context: ssl.SSLContext | None = None) -> tuple[int, str]:
    """Status and text of the answer to a request of which no more than the head is sent."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as plain:
        connection = context.wrap_socket(plain, server_hostname=parts.hostname) if context else plain
        with connection:
            lines = [head[0], f"Host: {parts.netloc}", *head[1:]]
            connection.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.read().decode()


# --- AWS


def test_an_upload_that_nobody_signed_is_refused_before_its_body_is_read(aws):
    bucket = Irsa(aws).bucket
    unknown = "AWS4-HMAC-SHA256 Credential=AKIAI44QH8DHBEXAMPLE/{0}/us-east-1/{1}/aws4_request, SignedHeaders=host, "
    unknown = f"Authorization: {unknown.format('20260101', 's3')}Signature={'0' * 64}"
    for head in (
        [f"PUT /{bucket}/hello.txt HTTP/1.1", GIGABYTES],
        [f"PUT /{bucket}/hello.txt HTTP/1.1", "Transfer-Encoding: chunked"],
        [f"PUT /{bucket}/hello.txt HTTP/1.1", "X-Amz-Date: 20260101T000000Z", unknown, GIGABYTES],
        [f"POST /{bucket} HTTP/1.1", "Content-Type: multipart/form-data; boundary=a", GIGABYTES],
    ):
        assert answered(aws.endpoint, head)[0] == 403, head
    target = "X-Amz-Target: DynamoDB_20120810.PutItem"
    status, text = answered(aws.endpoint, ["POST / HTTP/1.1", target, GIGABYTES])
    assert (status, "MissingAuthenticationTokenException" in text) == (400, True)


def test_a_form_of_two_million_parameters_is_refused(aws):
    form = b"Action=GetCallerIdentity&Version=2011-06-15"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for parameters in (10_000, 2_000_000):
        refused = httpx.post(aws.endpoint, content=form + b"&a=" * parameters, headers=headers)
        assert refused.status_code == 413
        assert re.search("<Code>(.*?)</Code>", refused.text)[1] == "RequestEntityTooLarge"


def test_uploads_that_are_aborted_leave_no_memory_behind(aws):
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    irsa = Irsa(aws)
    request = AWSRequest("PUT", f"{aws.endpoint}/{irsa.bucket}/hello.txt", headers={})
    botocore.auth.S3SigV4QueryAuth(KEYS, "s3", REGION, expires=300).add_auth(request)
    head = [f"PUT {request.url.removeprefix(aws.endpoint)} HTTP/1.1", f"Content-Length: {LARGE + 1}"]
    body = bytes(LARGE)

    def resident() -> int:
        return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

    before = resident()
    for _ in range(3):
        cut_off(aws.endpoint, head, body)
    assert httpx.get(aws.endpoint).status_code == 403  # by now it has noticed
    assert resident() - before < LARGE


def test_a_body_of_a_million_chunks(aws):
    irsa = Irsa(aws)
    body = b"1\r\nx\r\n" * 700_000 + b"0\r\n\r\n"
    url = f"{aws.endpoint}/{irsa.bucket}/hello.txt"
    request = AWSRequest("PUT", url, data=body, headers={"X-Amz-Decoded-Content-Length": "700000"})
    signer = botocore.auth.S3SigV4Auth(KEYS, "s3", REGION)
    signer.payload = lambda _: "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    signer.add_auth(request)
    assert httpx.put(url, content=body, headers=dict(request.headers), timeout=60).status_code == 200
    assert aws.client("s3").head_object(Bucket=irsa.bucket, Key="hello.txt")["ContentLength"] == 700_000


def signed(aws, service: str, url: str, body: bytes, **headers: str) -> httpx.Response:
    request = AWSRequest("POST", url, data=body, headers={name.replace("_", "-"): v for name, v in headers.items()})
    signer = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    signer(KEYS, service, REGION).add_auth(request)
    return httpx.post(url, content=body, headers=dict(request.headers), timeout=60)


def put_item(aws, values: int) -> httpx.Response:
    body = b'{"TableName":"table","Item":{"id":{"L":[' + b",".join([b'{"N":"1"}'] * values) + b"]}}}"
    target = {"X_Amz_Target": "DynamoDB_20120810.PutItem", "Content_Type": "application/x-amz-json-1.0"}
    return signed(aws, "dynamodb", aws.endpoint, body, **target)


def test_a_body_of_more_values_than_anybody_needs(aws):
    refused = put_item(aws, 30_000)
    assert (refused.status_code, "SerializationException" in refused.text) == (400, True)
    refused = put_item(aws, 9_000)
    assert (refused.status_code, "ResourceNotFoundException" in refused.text) == (400, True)


def test_no_more_keys_are_deleted_than_s3_deletes_at_once(aws):
    bucket = Irsa(aws).bucket
    for keys, status in ((1001, 400), (1000, 200)):
        body = b"<Delete>" + b"<Object><Key>hello.txt</Key></Object>" * keys + b"</Delete>"
        answer = signed(aws, "s3", f"{aws.endpoint}/{bucket}?delete", body)
        assert (answer.status_code, "MalformedXML" in answer.text) == (status, status == 400)


def test_documents_of_s3_have_a_limit(aws):
    bucket = Irsa(aws).bucket
    for body in (b"<a>" * 1_000_000, b"<Delete>" + b" " * 5_000_000 + b"</Delete>"):
        answer = signed(aws, "s3", f"{aws.endpoint}/{bucket}?delete", body)
        assert (answer.status_code, "MaxMessageLengthExceeded" in answer.text) == (400, True)


def test_a_call_is_no_longer_than_its_service_takes(aws):
    target = {"X_Amz_Target": "AmazonSSM.PutParameter", "Content_Type": "application/x-amz-json-1.1"}
    answer = signed(aws, "ssm", aws.endpoint, json.dumps({"Name": "a" * 3_000_000}).encode(), **target)
    assert (answer.status_code, "RequestEntityTooLargeException" in answer.text) == (413, True)


def test_nobody_waits_for_a_large_body_that_is_read(aws, monkeypatch):
    Irsa(aws)
    reached, answered, check = threading.Event(), threading.Event(), constraints.check

    def slow(asked):
        if asked.service == "dynamodb":
            reached.set()
            assert answered.wait(20)
        check(asked)

    monkeypatch.setattr(constraints, "check", slow)
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(put_item, aws, 9_000)
        assert reached.wait(20)
        assert aws.client("iam").list_roles()["Roles"]
        answered.set()
        assert large.result().status_code == 400


# --- every listener


def test_a_head_without_end_is_refused(aws, cluster):
    context = ssl.create_default_context(cadata=cluster.authority.certificate_pem.decode())
    for url, trusted in ((aws.endpoint, None), (cluster.url, context)):
        lines = [f"X-{number}: {'a' * 60_000}" for number in range(20)]
        status, text = answered(url, ["GET /version HTTP/1.1", *lines], trusted)
        assert (status, "1048576 bytes" in text) == (431, True)
        status, text = answered(url, [f"GET /version?{'a&' * 10_001} HTTP/1.1"], trusted)
        assert (status, "10000 parameters" in text) == (414, True)


def test_a_websocket_with_a_long_head_is_answered(aws):
    lines = ["Connection: Upgrade", "Upgrade: websocket", *(f"X-{number}: {'a' * 60_000}" for number in range(10))]
    many = [f"X-{number}: a" for number in range(300)]
    for head in (lines, [*lines[:2], *many]):
        assert answered(aws.endpoint, ["GET / HTTP/1.1", *head])[0] == 400  # without the key of a WebSocket


# --- Kubernetes


def aliases(first: str, then: str) -> bytes:
    """A document of nine levels, each of which has the one before nine times."""
    levels = [f"a0: &a0 {first}"]
    for number in range(1, 9):
        inner = ",".join([f"*a{number - 1}"] * 9)
        levels.append(f"a{number}: &a{number} {then.replace('INNER', inner)}")
    return "\n".join(["kind: ConfigMap", "apiVersion: v1", "metadata: {name: bomb}", *levels, ""]).encode()


LISTS, MERGES = aliases('["lol"]', "[INNER]"), aliases("{a: b}", "{<<: [INNER]}")


@pytest.mark.parametrize("document", [LISTS, MERGES], ids=["lists", "merges"])
def test_yaml_aliases_have_a_budget(admin, namespace, document):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    for method, where, headers in (
        ("POST", path, YAML),
        ("PATCH", f"{path}/bomb?fieldManager=a", {"Content-Type": "application/apply-patch+yaml"}),
    ):
        refused = admin.request(method, where, content=document, headers=headers)
        assert refused.status_code == 400
        assert "yaml: document contains excessive aliasing" in refused.json()["message"]
    admin.post(path, json={"metadata": {"name": "kept"}})
    refused = admin.request("DELETE", f"{path}/kept", content=document, headers=YAML)
    assert refused.status_code == 400
    assert admin.get(f"{path}/kept").status_code == 200


def test_yaml_with_a_few_aliases_is_fine(admin, namespace):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    document = 'metadata: {name: few, labels: &l {a: "1"}, annotations: {<<: *l, b: &b "2"}}\ndata: {c: *b, d: *b}\n'
    made = admin.post(path, content=document, headers=YAML)
    assert made.status_code == 201, made.text
    assert made.json()["data"] == {"c": "2", "d": "2"}
    assert made.json()["metadata"]["annotations"] == {"a": "1", "b": "2"}
    refused = admin.post(path, content="metadata: {name: x}\ndata: &a {b: *a}\n", headers=YAML)
    assert (refused.status_code, "value contains itself" in refused.json()["message"]) == (400, True)


def test_what_a_json_patch_copies_has_a_limit(admin, namespace):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    admin.post(path, json={"metadata": {"name": "c"}, "data": {"a": "b"}})
    copies = [{"op": "copy", "from": "/x", "path": f"/x/{number}"} for number in range(60)]
    patch = [{"op": "add", "path": "/x", "value": {}}, *copies]
    headers = {"Content-Type": "application/json-patch+json"}
    refused = admin.patch(f"{path}/c", content=json.dumps(patch), headers=headers)
    assert (refused.status_code, refused.json()["reason"]) == (422, "Invalid")
    assert refused.json()["message"] == "the server rejected our request due to an error in our request"
    patch = [{"op": "test", "path": "/data/a", "value": "b"}] * 10_001
    refused = admin.patch(f"{path}/c", content=json.dumps(patch), headers=headers)
    told = "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    assert (refused.status_code, refused.json()["message"]) == (413, told)
    patch = [{"op": "copy", "from": "/data/a", "path": f"/data/{number}"} for number in range(9)]
    assert admin.patch(f"{path}/c", content=json.dumps(patch), headers=headers).status_code == 200


def test_a_key_that_is_repeated_among_many(admin, namespace):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    keys = ",".join(f'"{number}":1' for number in range(200_000))
    document = f'{{"metadata":{{"name":"c"}},"x":{{{keys},"0":1}}}}'
    refused = admin.post(f"{path}?fieldValidation=Strict", content=document)
    assert (refused.status_code, 'duplicate field "x.0"' in refused.json()["message"]) == (400, True)


def test_a_long_list_that_is_merged_by_its_keys(admin, namespace):
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    admin.post(path, json={"metadata": {"name": "a"}, "secrets": [{"name": "own"}]})
    names = [{"name": f"s{number}"} for number in range(8_000)]
    patch = json.dumps({"secrets": names, "$setElementOrder/secrets": [*reversed(names)]})
    headers = {"Content-Type": "application/strategic-merge-patch+json"}
    merged = admin.patch(f"{path}/a?dryRun=All", content=patch, headers=headers)
    assert merged.status_code == 200, merged.text[:500]
    assert merged.json()["secrets"] == [*reversed(names), {"name": "own"}]


def test_yaml_that_is_not_json_is_short(admin, namespace):
    document = b"data: {a: b}\n" + b"# " * 32_768
    refused = admin.post(f"/api/v1/namespaces/{namespace}/configmaps", content=document, headers=YAML)
    assert (refused.status_code, refused.json()["message"]) == (413, "Request entity too large: limit is 65536")
