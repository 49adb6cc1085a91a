"""Requests that could cost the lab much work or memory: it refuses them early, or no other caller waits for them."""

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
import yaml
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from labkit.simulator.aws import constraints
from labkit.simulator.aws.authorization import Authorization
from labkit.simulator.kubernetes.api import patches, resources
from labkit.simulator.kubernetes.objects import schema
from tests.simulator.aws.conftest import ADMINISTRATOR, REGION, Irsa, aws, running
from tests.simulator.kubernetes.conftest import admin, cluster, namespace, signing_key
from tests.simulator.test_cut_off import cut_off

__all__ = ["admin", "aws", "cluster", "namespace", "running", "signing_key"]

YAML = {"Content-Type": "application/yaml"}
FORM = "Content-Type: application/x-www-form-urlencoded"
GIGABYTES = "Content-Length: 10000000000"
KEYS = Credentials(ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key)
LARGE = 48 * 2**20


def answered(url: str, head: list[str], context: ssl.SSLContext | None = None) -> tuple[int, str]:
    """Send only the head of a request; return the answer's status and text."""
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


def test_the_gate_refuses_an_unauthenticated_upload_before_it_reads_the_body(aws):
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


def test_the_gate_refuses_a_form_of_more_than_10_000_parameters(aws):
    form = b"Action=GetCallerIdentity&Version=2011-06-15"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for parameters in (10_000, 2_000_000):
        refused = httpx.post(aws.endpoint, content=form + b"&a=" * parameters, headers=headers, timeout=60)
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
    assert httpx.get(aws.endpoint, timeout=60).status_code == 403  # by the time it answers, it has noticed the aborts
    assert resident() - before < LARGE


def test_s3_takes_an_upload_of_700_000_chunks(aws):
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


def test_dynamodb_refuses_a_body_of_30_000_values_and_reads_one_of_9_000(aws):
    refused = put_item(aws, 30_000)
    assert (refused.status_code, "SerializationException" in refused.text) == (400, True)
    refused = put_item(aws, 9_000)
    assert (refused.status_code, "ResourceNotFoundException" in refused.text) == (400, True)


def test_s3_refuses_to_delete_more_than_1000_keys_at_once(aws):
    bucket = Irsa(aws).bucket
    for keys, status in ((1001, 400), (1000, 200)):
        body = b"<Delete>" + b"<Object><Key>hello.txt</Key></Object>" * keys + b"</Delete>"
        answer = signed(aws, "s3", f"{aws.endpoint}/{bucket}?delete", body)
        assert (answer.status_code, "MalformedXML" in answer.text) == (status, status == 400)


def test_s3_refuses_an_xml_body_of_several_megabytes(aws):
    bucket = Irsa(aws).bucket
    for body in (b"<a>" * 1_000_000, b"<Delete>" + b" " * 5_000_000 + b"</Delete>"):
        answer = signed(aws, "s3", f"{aws.endpoint}/{bucket}?delete", body)
        assert (answer.status_code, "MaxMessageLengthExceeded" in answer.text) == (400, True)


def test_ssm_refuses_a_body_of_three_megabytes(aws):
    target = {"X_Amz_Target": "AmazonSSM.PutParameter", "Content_Type": "application/x-amz-json-1.1"}
    answer = signed(aws, "ssm", aws.endpoint, json.dumps({"Name": "a" * 3_000_000}).encode(), **target)
    assert (answer.status_code, "RequestEntityTooLargeException" in answer.text) == (413, True)


def test_other_callers_do_not_wait_while_the_gate_checks_a_large_body(aws, monkeypatch):
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


def test_other_callers_do_not_wait_while_a_thousand_deletions_are_authorized(aws, monkeypatch):
    """The gate evaluates the bucket's policy, which may have 20 kB, for each key."""
    bucket = Irsa(aws).bucket
    reached, answered, decide = threading.Event(), threading.Event(), Authorization.decide

    def slow(self, caller, asked, *arguments, **more):
        if asked.operation == "DeleteObjects" and not reached.is_set():
            reached.set()
            assert answered.wait(20)
        return decide(self, caller, asked, *arguments, **more)

    monkeypatch.setattr(Authorization, "decide", slow)
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{bucket}/no*"}],
    }
    aws.client("s3").put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    objects = [{"Key": f"{'a' * 900}{number}"} for number in range(1000)]
    with ThreadPoolExecutor(1) as pool:
        deletion = pool.submit(aws.client("s3").delete_objects, Bucket=bucket, Delete={"Objects": objects})
        assert reached.wait(20)
        assert aws.client("iam").list_roles()["Roles"]
        answered.set()
        assert len(deletion.result()["Deleted"]) == 1000


# --- every listener


def test_the_gate_and_the_api_server_refuse_a_head_over_1_mib_or_10_000_parameters(aws, cluster):
    context = ssl.create_default_context(cadata=cluster.authority.certificate_pem.decode())
    for url, trusted in ((aws.endpoint, None), (cluster.url, context)):
        lines = [f"X-{number}: {'a' * 60_000}" for number in range(20)]
        status, text = answered(url, ["GET /version HTTP/1.1", *lines], trusted)
        assert (status, "1048576 bytes" in text) == (431, True)
        status, text = answered(url, [f"GET /version?{'a&' * 10_001} HTTP/1.1"], trusted)
        assert (status, "10000 parameters" in text) == (414, True)


def test_a_websocket_request_with_a_long_head_gets_an_answer(aws):
    lines = ["Connection: Upgrade", "Upgrade: websocket", *(f"X-{number}: {'a' * 60_000}" for number in range(10))]
    many = [f"X-{number}: a" for number in range(300)]
    for head in (lines, [*lines[:2], *many]):
        assert answered(aws.endpoint, ["GET / HTTP/1.1", *head])[0] == 400  # Sec-WebSocket-Key is missing


# --- Kubernetes


def aliases(first: str, then: str) -> bytes:
    """A YAML document of nine levels. Each level contains the level before it nine times."""
    levels = [f"a0: &a0 {first}"]
    for number in range(1, 9):
        inner = ",".join([f"*a{number - 1}"] * 9)
        levels.append(f"a{number}: &a{number} {then.replace('INNER', inner)}")
    return "\n".join(["kind: ConfigMap", "apiVersion: v1", "metadata: {name: bomb}", *levels, ""]).encode()


LISTS, MERGES = aliases('["lol"]', "[INNER]"), aliases("{a: b}", "{<<: [INNER]}")


@pytest.mark.parametrize("document", [LISTS, MERGES], ids=["lists", "merges"])
def test_the_api_server_refuses_yaml_with_excessive_aliases(admin, namespace, document):
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


def test_yaml_may_have_a_few_aliases_but_a_value_may_not_contain_itself(admin, namespace):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    document = 'metadata: {name: few, labels: &l {a: "1"}, annotations: {<<: *l, b: &b "2"}}\ndata: {c: *b, d: *b}\n'
    made = admin.post(path, content=document, headers=YAML)
    assert made.status_code == 201, made.text
    assert made.json()["data"] == {"c": "2", "d": "2"}
    assert made.json()["metadata"]["annotations"] == {"a": "1", "b": "2"}
    refused = admin.post(path, content="metadata: {name: x}\ndata: &a {b: *a}\n", headers=YAML)
    assert (refused.status_code, "value contains itself" in refused.json()["message"]) == (400, True)


def test_the_api_server_refuses_a_json_patch_that_grows_too_much_or_is_too_long(admin, namespace):
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


def test_strict_validation_finds_a_repeated_key_among_49_000(admin, namespace):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    keys = ",".join(f'"{number}":1' for number in range(49_000))
    document = f'{{"metadata":{{"name":"c"}},"x":{{{keys},"0":1}}}}'
    refused = admin.post(f"{path}?fieldValidation=Strict", content=document)
    assert (refused.status_code, 'duplicate field "x.0"' in refused.json()["message"]) == (400, True)


def test_a_strategic_merge_patch_merges_a_list_of_8_000_entries(admin, namespace):
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    admin.post(path, json={"metadata": {"name": "a"}, "secrets": [{"name": "own"}]})
    names = [{"name": f"s{number}"} for number in range(8_000)]
    patch = json.dumps({"secrets": names, "$setElementOrder/secrets": [*reversed(names)]})
    headers = {"Content-Type": "application/strategic-merge-patch+json"}
    merged = admin.patch(f"{path}/a?dryRun=All", content=patch, headers=headers)
    assert merged.status_code == 200, merged.text[:500]
    assert merged.json()["secrets"] == [*reversed(names), {"name": "own"}]


def test_the_api_server_refuses_more_than_64_kib_of_yaml_that_is_not_json(admin, namespace):
    document = b"data: {a: b}\n" + b"# " * 32_768
    refused = admin.post(f"/api/v1/namespaces/{namespace}/configmaps", content=document, headers=YAML)
    assert (refused.status_code, refused.json()["message"]) == (413, "Request entity too large: limit is 65536")


MERGE = {"Content-Type": "application/merge-patch+json"}


def pod(kilobytes: int) -> dict:
    """A pod whose container has this many kilobytes of arguments."""
    return {"metadata": {"name": "large"}, "spec": {"containers": [main(["a" * 1024] * kilobytes)]}}


def main(arguments: list[str]) -> dict:
    return {"name": "main", "image": "image", "args": arguments}


def test_the_api_server_refuses_an_object_that_is_too_large_for_etcd(admin, namespace):
    """https://etcd.io/docs/v3.5/dev-guide/limit/"""
    path = f"/api/v1/namespaces/{namespace}/pods"
    refused = admin.post(path, json=pod(1600))
    assert refused.status_code == 500
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 500}
    assert refused.json() == {**status, "message": "etcdserver: request is too large"}
    assert admin.get(f"{path}/large").status_code == 404
    told = admin.post(path, json=pod(2500)).json()["message"]
    assert re.fullmatch(
        r"rpc error: code = ResourceExhausted desc = trying to send message larger than max \(25\d{5} vs. 2097152\)",
        told,
    )
    assert admin.post(f"{path}?dryRun=All", json=pod(1600)).status_code == 201
    assert admin.post(path, json=pod(3100)).status_code == 413


def test_a_patch_cannot_make_an_object_too_large_for_etcd(admin, namespace):
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    assert admin.post(path, json={"metadata": {"name": "large"}}).status_code == 201
    versions, names = [], [f"{number}-{'a' * 200}" for number in range(4000)]
    for half in (names[:2000], names[2000:], names):
        secrets = [{"name": name} for name in half]
        answer = admin.patch(f"{path}/large", json={"secrets": secrets}, headers=MERGE)
        versions.append(admin.get(f"{path}/large").json()["metadata"]["resourceVersion"])
    assert (answer.status_code, answer.json()["message"]) == (500, "etcdserver: request is too large")
    assert versions[1] == versions[2]
    assert admin.delete(f"{path}/large").status_code == 200


def test_the_api_server_refuses_a_body_of_more_than_50_000_values(admin, namespace):
    path, told = f"/api/v1/namespaces/{namespace}/configmaps", "the lab reads at most 50000 values"
    admin.post(path, json={"metadata": {"name": "c"}})
    few = {"metadata": {"name": "few"}, "data": {"a": ',"[{\\' * 100_000}}
    assert admin.post(f"{path}?dryRun=All", json=few).status_code == 201
    for method, where, body in (
        ("POST", path, {"metadata": {"name": "many"}, "data": {f"k{number}": "" for number in range(60_000)}}),
        ("PATCH", f"{path}/c", {"x": [[]] * 60_000}),
        ("DELETE", f"{path}/c", {"x": [0] * 60_000}),
    ):
        refused = admin.request(method, where, content=json.dumps(body), headers=MERGE if method == "PATCH" else JSON)
        assert (refused.status_code, told in refused.json()["message"]) == (413, True), method
    # kubectl sends protobuf: here, a container with 60,000 empty arguments.
    container = protobuf(1, b"main") + protobuf(4, b"") * 60_000
    envelope = protobuf(1, protobuf(1, b"v1") + protobuf(2, b"Pod")) + protobuf(2, protobuf(2, protobuf(2, container)))
    headers = {"Content-Type": "application/vnd.kubernetes.protobuf"}
    refused = admin.post(f"/api/v1/namespaces/{namespace}/pods", content=b"k8s\x00" + envelope, headers=headers)
    assert (refused.status_code, told in refused.json()["message"]) == (413, True)


JSON = {"Content-Type": "application/json"}


def protobuf(number: int, content: bytes) -> bytes:
    """A field of bytes. https://protobuf.dev/programming-guides/encoding/"""
    size, length = len(content), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


@pytest.mark.parametrize(("module", "name", "method"), [
    (schema, "decode", "POST"),
    (resources, "validate", "POST"),
    (resources, "updated", "POST"),
    (schema, "decode", "PUT"),
    (resources, "validate_update", "PUT"),
    (resources, "updated", "PUT"),
    (patches, "patched", "PATCH"),
    (resources, "applied", "APPLY"),
])  # fmt: skip
def test_other_callers_do_not_wait_while_a_large_object_is_stored(admin, namespace, monkeypatch, module, name, method):
    """POST and PUT send the large object. PATCH and APPLY make a small change to a stored one."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    reached, answered, function = threading.Event(), threading.Event(), getattr(module, name)
    if method != "POST":
        there = admin.post(path, json=pod(1000)).json()

    def slow(*arguments, **named):
        reached.set()
        assert answered.wait(20)
        return function(*arguments, **named)

    def write() -> httpx.Response:
        if method == "POST":
            return admin.post(path, json=pod(1000))
        if method == "PUT":
            there["metadata"]["labels"] = {"a": "b"}
            return admin.put(f"{path}/large", json=there)
        labels = {"metadata": {"labels": {"a": "b"}}}
        if method == "PATCH":
            return admin.patch(f"{path}/large", json=labels, headers=MERGE)
        labels |= {"apiVersion": "v1", "kind": "Pod"}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        return admin.patch(f"{path}/large?fieldManager=a", json=labels, headers=headers)

    monkeypatch.setattr(module, name, slow)
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(write)
        assert reached.wait(20)
        try:
            assert admin.get("/version", timeout=10).status_code == 200
        finally:
            answered.set()
        assert large.result().status_code in (200, 201), large.result().text[:300]


def test_other_callers_do_not_wait_while_a_long_answer_is_written_as_yaml(admin, namespace, monkeypatch):
    path = f"/api/v1/namespaces/{namespace}/pods"
    assert admin.post(path, json=pod(1000)).status_code == 201
    reached, answered, dump = threading.Event(), threading.Event(), yaml.dump

    def slow(*arguments, **named):
        reached.set()
        assert answered.wait(20)
        return dump(*arguments, **named)

    monkeypatch.setattr(yaml, "dump", slow)
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(admin.get, path, headers={"Accept": "application/yaml"})
        assert reached.wait(20)
        try:
            assert admin.get("/version", timeout=10).status_code == 200
        finally:
            answered.set()
        assert yaml.safe_load(large.result().text)["items"][0]["metadata"]["name"] == "large"
