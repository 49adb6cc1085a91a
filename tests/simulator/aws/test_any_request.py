"""Whatever is sent to the gate, it does nothing for an unknown caller, never fails, and lives on."""

import contextlib
import datetime
import hashlib
import http.client
import re
import socket
from urllib.parse import quote, urlencode

import botocore.auth
import httpx
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from labkit.simulator.aws.signature import signing_key
from tests.simulator.aws.conftest import ADMINISTRATOR, REGION, Irsa

UNKNOWN = Credentials("AKIAI44QH8DHBEXAMPLE", "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY")
FORM = "application/x-www-form-urlencoded"
some = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def gate(running):
    """The lab with two objects. A session with ``session_credentials`` may read one of them, ``hello.txt``."""
    running.begin_anew()
    irsa = Irsa(running)
    running.client("s3").put_object(Bucket="irsa-lab", Key="secret/a", Body=b"secret")
    allow = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::irsa-lab/hello.txt"}
    irsa.permit(allow)
    issued = running.gate.sessions.issue(irsa.role_arn, "any", 3600)
    running.session_credentials = Credentials(issued.access_key_id, issued.secret_access_key, issued.session_token)
    return running


def port_of(gate):
    return int(gate.endpoint.rpartition(":")[2])


def send(gate, method, target, headers, body=b""):
    """Send a request unchanged, which a client would correct; return the answer's status and text."""
    connection = http.client.HTTPConnection("127.0.0.1", port_of(gate), timeout=30)
    connection._validate_method = connection._validate_path = lambda _: None
    with contextlib.closing(connection):
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value.encode("utf-8", "surrogatepass"))
        if not any(name.lower() == "content-length" for name, _ in headers):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")


def lives(gate):
    return gate.client("s3").get_object(Bucket="irsa-lab", Key="hello.txt")["Body"].read() == b"hello"


def signed(gate, credentials, service, method, target, body=b"", headers=(), payload=None, region=REGION):
    """The headers of a request that is correctly signed with these credentials."""
    request = AWSRequest(method, gate.endpoint + target, data=body, headers=dict(headers))
    signer = (botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth)(credentials, service, region)
    if payload:
        signer.payload = lambda _: payload
    signer.add_auth(request)
    return [(name, str(value)) for name, value in request.headers.items() if name.lower() != "host"]


# --- unsigned, or signed with keys that nobody has

METHODS = st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "MERGE"])
PIECES = st.sampled_from(
    ["irsa-lab", "hello.txt", "secret", "..", ".", "", "%2e%2e", "%2F", "%00", "%ff", "%", "%zz", "%25", "é", "a b+c",
     "moto-api", "reset", "latest", "meta-data", "clusters", "blue", "123456789012", ";x", "\\", "~", "*", "v20180820"]
)  # fmt: skip
PATHS = st.lists(PIECES, max_size=5).map(lambda pieces: "/" + "/".join(pieces))
NAMES = st.sampled_from(
    ["Action", "Version", "acl", "policy", "uploads", "uploadId", "partNumber", "versionId", "delete", "list-type",
     "prefix", "tagging", "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-Signature",
     "X-Amz-SignedHeaders", "X-Amz-Security-Token", "AWSAccessKeyId", "Signature", "Expires", "RoleArn",
     "RoleSessionName", "WebIdentityToken", "DurationSeconds", "Policy", "QueueUrl", "", "%", "é"]
)  # fmt: skip
DAY = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d")
VALUES = st.sampled_from(
    ["", "1", "0", "-1", "9" * 5000, "١", "1e9", "AssumeRoleWithWebIdentity", "GetCallerIdentity", "CreateRole",
     "2011-06-15", "2010-05-08", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1", f"{DAY}T000000Z", "00000000T000000Z",
     "20260231T000000Z", "99999999T999999Z", f"{ADMINISTRATOR.access_key_id}/{DAY}/us-east-1/s3/aws4_request",
     f"{ADMINISTRATOR.access_key_id}/{DAY}/us-east-1/sts/aws4_request", "a/b/c/d/e", "////", "host", "host;;x", ";",
     "0" * 64, "é", "\0", "%ff", "a%0d%0aX: y", Irsa.role_arn, "my-pod", "..", "x" * 3000, "{}", "<a/>", "&#0;"]
)  # fmt: skip
QUERIES = st.lists(st.tuples(NAMES, VALUES), max_size=8).map(lambda pairs: "&".join(f"{n}={v}" for n, v in pairs))
AUTHORIZATIONS = st.builds(
    lambda kind, key, scope, names, signature: (
        f"{kind} Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
    ),
    st.sampled_from(["AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256", "aws4-hmac-sha256", "AWS", ""]),
    st.sampled_from([ADMINISTRATOR.access_key_id, UNKNOWN.access_key, "", "é", "a/b"]),
    st.sampled_from(
        [f"{DAY}/{REGION}/{service}/aws4_request" for service in ("s3", "sts", "iam", "sqs", "dynamodb", "eks", "ec2",
         "moto_api", "nosuch", "")] + [f"{DAY}/{REGION}/s3/aws5_request", f"{DAY}/mars/s3/aws4_request", "x", "///"]
    ),
    st.sampled_from(["host", "host;x-amz-date", "", ";", "host;é", "authorization", "host;" * 500]),
    st.sampled_from(["0" * 64, "", "é", "g", "0" * 100_000]),
)  # fmt: skip
HEADERS = st.lists(
    st.one_of(
        st.tuples(st.just("Authorization"), AUTHORIZATIONS | VALUES),
        st.tuples(st.just("X-Amz-Date"), st.just(datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ"))),
        st.tuples(
            st.sampled_from(
                ["X-Amz-Date", "Date", "X-Amz-Security-Token", "X-Amz-Target", "X-Amz-Decoded-Content-Length",
                 "X-Amz-Copy-Source", "X-Amz-Trailer", "Range", "Content-Encoding", "If-Match", "X-Moto-Account-Id",
                 "X-Forwarded-For", "X-Amz-Meta-A", "Cookie", "Expect", "Content-MD5", "User-Agent"]
            ),
            VALUES.filter(lambda value: "\0" not in value),
        ),
        st.tuples(
            st.just("X-Amz-Content-Sha256"),
            st.sampled_from(
                ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
                 "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "", "x",
                 hashlib.sha256(b"").hexdigest()]
            ),
        ),
        st.tuples(
            st.just("Content-Type"),
            st.sampled_from([FORM, "application/x-amz-json-1.0", "text/xml", "multipart/form-data; boundary=x", "é"]),
        ),
        st.tuples(
            st.just("X-Amz-Target"),
            st.sampled_from(["AmazonSQS.ListQueues", "DynamoDB_20120810.ListTables", "TrentService.", ".", "é.é"]),
        ),
    ),
    max_size=5,
)  # fmt: skip
BODIES = st.one_of(
    st.binary(max_size=40),
    QUERIES.map(str.encode),
    st.sampled_from([b"[" * 100_000, b'{"a":' * 10_000, b"<a>" * 10_000, b"\xff\xfe", b"0\r\n\r\n", b"5;x=y\r\nhello"]),
)


@settings(some, max_examples=400)
@given(method=METHODS, path=PATHS, query=QUERIES, headers=HEADERS, body=BODIES)
@example("GET", "/irsa-lab/hello.txt", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a/20260101/us-east-1/s3/"
         "aws4_request&X-Amz-SignedHeaders=host&X-Amz-Signature=0&X-Amz-Date=20260101T000000Z&X-Amz-Expires="
         + "9" * 5000, [], b"")  # fmt: skip
@example("POST", "/", "", [("Content-Type", FORM)], b"Action=AssumeRoleWithWebIdentity&DurationSeconds=" + b"9" * 5000)
@example("POST", "/", "", [("Content-Type", FORM)], b"Action=AssumeRoleWithWebIdentity&RoleSessionName=%ff%00&RoleArn=")
def test_the_gate_refuses_a_call_without_a_valid_signature(gate, method, path, query, headers, body):
    target = quote(path + (f"?{query}" if query else ""), safe="/%?=&;+~*\\")
    status, text = send(gate, method, target, [*headers], body)
    assert 400 <= status < 500, text


PUT = ("PUT", "/irsa-lab/hello.txt", b"changed")
CALLS = [
    ("s3", *PUT, ()),
    ("s3", "GET", "/irsa-lab/hello.txt", b"", ()),
    ("s3", "GET", "/", b"", ()),
    ("s3", "DELETE", "/irsa-lab", b"", ()),
    ("sts", "POST", "/", b"Action=GetCallerIdentity&Version=2011-06-15", (("Content-Type", FORM),)),
    ("iam", "POST", "/", b"Action=ListRoles&Version=2010-05-08", (("Content-Type", FORM),)),
    ("sqs", "POST", "/", b"{}", (("X-Amz-Target", "AmazonSQS.ListQueues"),)),
    ("dynamodb", "POST", "/", b"{}", (("X-Amz-Target", "DynamoDB_20120810.ListTables"),)),
    ("eks", "GET", "/clusters", b"", ()),
    ("nosuch", "GET", "/", b"", ()),
]


@pytest.mark.parametrize(
    ("service", "method", "target", "body", "headers"), CALLS, ids=[f"{c[0]} {c[1]}" for c in CALLS]
)
def test_the_gate_refuses_an_unknown_access_key_or_a_wrong_secret(gate, service, method, target, body, headers):
    for key, secret in (
        (UNKNOWN.access_key, UNKNOWN.secret_key),
        (ADMINISTRATOR.access_key_id, UNKNOWN.secret_key),
        (ADMINISTRATOR.access_key_id, ""),
        ("", ADMINISTRATOR.secret_access_key),
        (gate.session_credentials.access_key, gate.session_credentials.secret_key),
    ):
        sent = signed(gate, Credentials(key, secret), service, method, target, body, headers)
        status, text = send(gate, method, target, sent, body)
        assert status in (400, 403), text
    assert lives(gate)


# --- the gate does exactly what was signed, or nothing


@some
@given(data=st.data())
def test_a_signed_request_with_any_changed_part_is_refused(gate, data):
    method, target, body = PUT
    administrator = Credentials(ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key)
    headers = dict(signed(gate, administrator, "s3", method, target, body, [("X-Amz-Meta-Colour", "red")]))
    what = data.draw(st.sampled_from(["method", "path", "query", "body", "add", *headers]))
    one = data.draw(st.sampled_from("0aZ/;=%."))
    if what == "method":
        method = data.draw(st.sampled_from(["GET", "POST", "DELETE", "HEAD"]))
    elif what == "path":
        target = data.draw(st.sampled_from(["/irsa-lab/other", "/irsa-lab", "/irsa-lab/hello.txt/", "//irsa-lab/x"]))
    elif what == "query":
        target += "?" + data.draw(st.sampled_from(["acl", "tagging", "a=b", "versionId=1", "x-id=PutObject"]))
    elif what == "body":
        body += one.encode()
    elif what == "add":
        headers |= {data.draw(st.sampled_from(["X-Amz-Acl", "X-Amz-Tagging", "X-Amz-Copy-Source"])): "a=b"}
    else:
        at = data.draw(st.integers(0, len(headers[what])))
        headers[what] = headers[what][:at] + one + headers[what][at:]
    status, text = send(gate, method, target, list(headers.items()), body)
    assert status in (400, 403), (what, text)
    assert lives(gate)


KEYS = st.lists(st.sampled_from(["secret", "a", "..", ".", "", "%2e%2e", "hello.txt", "%2F", "%252e", "irsa-lab"]),
                min_size=1, max_size=6).map("/".join)  # fmt: skip


@some
@given(key=KEYS)
@example("../irsa-lab/secret/a")
@example("hello.txt/../secret/a")
@example("secret%2Fa")
@example("hello.txt%00")
def test_no_spelling_of_a_key_leads_to_another_object(gate, key):
    """The session may read only ``hello.txt``."""
    target = f"/irsa-lab/{key}"
    sent = signed(gate, gate.session_credentials, "s3", "GET", target)
    status, text = send(gate, "GET", target, sent)
    assert status == 200 if key == "hello.txt" else status in (400, 403, 404)
    assert text == "hello" if status == 200 else "secret</" not in text


DUPLICATES = [
    ("iam", "Action=GetRole&Action=DeleteRole&RoleName=my-role&Version=2010-05-08"),
    ("iam", "Action=GetRole&RoleName=my-role&RoleName=other&Version=2010-05-08"),
    ("sts", "Action=GetCallerIdentity&Action=AssumeRole&Version=2011-06-15"),
    ("sts", f"Action=AssumeRole&RoleArn={Irsa.role_arn}&RoleArn=x&RoleSessionName=aa&Version=2011-06-15"),
    ("sqs", "Action=ListQueues&Action=DeleteQueue&Version=2012-11-05"),
]


@pytest.mark.parametrize(("service", "form"), DUPLICATES)
@pytest.mark.parametrize("place", ["body", "query", "both"])
def test_the_gate_refuses_a_parameter_that_is_given_twice(gate, service, form, place):
    first, _, rest = form.partition("&")
    target = {"body": "/", "query": f"/?{form}", "both": f"/?{first}"}[place]
    body = {"body": form, "query": "", "both": rest}[place].encode()
    sent = signed(gate, gate.session_credentials, service, "POST", target, body, [("Content-Type", FORM)])
    status, text = send(gate, "POST", target, sent, body)
    # Everybody may call GetCallerIdentity: if the gate took only the first action, it would answer 200.
    assert status in (400, 403), text
    assert gate.client("iam").get_role(RoleName="my-role")


PRESIGNED = [
    {"X-Amz-Expires": "604801"},
    {"X-Amz-Expires": "0"},
    {"X-Amz-Expires": "-1"},
    {"X-Amz-Expires": "9" * 5000},
    {"X-Amz-Expires": "²"},
    {"X-Amz-Date": "20200101T000000Z"},
    {"X-Amz-Date": "20260231T000000Z"},
    {"X-Amz-Date": "²0260101T000000Z"},
    {"X-Amz-SignedHeaders": ""},
    {"X-Amz-SignedHeaders": "x"},
    {"X-Amz-Algorithm": "AWS4-HMAC-SHA1"},
    {"X-Amz-Credential": "a"},
    {"X-Amz-Security-Token": "none"},
    {"X-Amz-Signature": ""},
    {"X-Amz-Signature": "0" * 64},
    {"versionId": "1"},
    {"X-Amz-Content-Sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"},
]


@pytest.mark.parametrize("changes", PRESIGNED, ids=[f"{k}={v[:12]}" for c in PRESIGNED for k, v in c.items()])
def test_the_gate_refuses_a_presigned_url_that_was_changed(gate, changes):
    request = AWSRequest("GET", gate.endpoint + "/irsa-lab/hello.txt")
    botocore.auth.S3SigV4QueryAuth(gate.session_credentials, "s3", REGION, expires=600).add_auth(request)
    target, _, query = request.prepare().url.removeprefix(gate.endpoint).partition("?")
    assert send(gate, "GET", f"{target}?{query}", []) == (200, "hello")
    kept = [(name, value) for name, value in httpx.QueryParams(query).multi_items() if name not in changes]
    status, text = send(gate, "GET", f"{target}?{urlencode(kept + list(changes.items()))}", [])
    assert status in (400, 403), text
    status, text = send(gate, "GET", f"{target}?{query}&{urlencode(changes)}", [])
    assert status in (400, 403), text


# --- uploads in chunks

SIGNED, UNSIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
ADMIN = Credentials(ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key)


PARTS = st.sampled_from(
    [b"5", b"0", b"\r\n", b"hello", b";", b"chunk-signature=", b"0" * 64, b"-5", b"FFFFFFFF", b"+5", b"0x5", b" 5",
     b"x-amz-checksum-crc32:AAAAAA==", b"\n", b"\xff"]
)  # fmt: skip


@some
@given(
    framed=st.lists(PARTS, max_size=12).map(b"".join),
    payload=st.sampled_from([SIGNED, SIGNED + "-TRAILER", UNSIGNED, "STREAMING-OTHER"]),
)
def test_s3_takes_a_chunked_upload_only_if_its_chunks_are_well_formed(gate, framed, payload):
    headers = [("X-Amz-Decoded-Content-Length", "5"), ("Content-Encoding", "aws-chunked")]
    sent = signed(gate, ADMIN, "s3", "PUT", "/irsa-lab/chunks", b"", headers, payload=payload)
    status, text = send(gate, "PUT", "/irsa-lab/chunks", sent, framed)
    if status == 200:
        assert payload == UNSIGNED
        assert re.match(rb"5(;[^\r]*)?\r\nhello\r\n0(;[^\r]*)?\r\n", framed)
    else:
        assert status in (400, 403), text


def test_s3_refuses_a_chunk_that_was_signed_with_another_key(gate):
    headers = [("X-Amz-Decoded-Content-Length", "5"), ("Content-Encoding", "aws-chunked")]
    sent = dict(signed(gate, ADMIN, "s3", "PUT", "/irsa-lab/chunks", b"", headers, payload=SIGNED))
    day = sent["X-Amz-Date"][:8]
    key = signing_key(UNKNOWN.secret_key, day, REGION, "s3")
    body = b"5;chunk-signature=" + hashlib.sha256(key).hexdigest().encode() + b"\r\nhello\r\n0\r\n\r\n"
    status, text = send(gate, "PUT", "/irsa-lab/chunks", list(sent.items()), body)
    assert (status, "SignatureDoesNotMatch" in text) == (403, True)


# --- bytes that are hardly HTTP

HEAD = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BYTES = [
    ("nothing", b""),
    ("no request", b"\x00\x01\x02\r\n\r\n"),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200),
    ("no host", b"GET / HTTP/1.1\r\n\r\n"),
    ("another host", b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n"),
    ("a whole URL", b"GET http://169.254.169.254/latest/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    ("a tunnel", b"CONNECT 10.0.0.1:443 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    ("no path", b"GET * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
    ("an upgrade", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("HTTP/0.9", b"GET /\r\n\r\n"),
    ("two lengths", HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    ("a negative length", HEAD + b"Content-Length: -1\r\n\r\n"),
    ("a length that is a word", HEAD + b"Content-Length: many\r\n\r\n"),
    ("a length and chunks", HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("another transfer encoding", HEAD + b"Transfer-Encoding: gzip\r\n\r\nabc"),
    ("broken chunks", HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n"),
    ("a chunk of 2^64", HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc\r\n"),
    ("less than it says", HEAD + b"Content-Length: 100\r\n\r\nabc"),
    ("more than it says", HEAD + b"Content-Length: 1\r\n\r\nGET /irsa-lab/hello.txt HTTP/1.1\r\n\r\n"),
    ("an expectation", HEAD + b"Expect: 200-ok\r\nContent-Length: 0\r\n\r\n"),
    ("a folded header", HEAD + b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n"),
    ("a header with NUL", HEAD + b"X-A: b\x00c\r\nContent-Length: 0\r\n\r\n"),
    ("a header without a colon", HEAD + b"X-A\r\nContent-Length: 0\r\n\r\n"),
    ("10,000 headers", HEAD + b"".join(b"X-%d: y\r\n" % i for i in range(10_000)) + b"Content-Length: 0\r\n\r\n"),
    ("a header of 1 MiB", HEAD + b"X-A: " + b"x" * 2**20 + b"\r\nContent-Length: 0\r\n\r\n"),
    ("a path of 1 MiB", b"GET /" + b"x" * 2**20 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
]  # fmt: skip


@pytest.mark.parametrize("content", [row[1] for row in BYTES], ids=[row[0] for row in BYTES])
def test_the_gate_refuses_bytes_that_are_hardly_http_and_lives_on(gate, content):
    with socket.create_connection(("127.0.0.1", port_of(gate)), timeout=30) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
    statuses = [int(status) for status in re.findall(rb"^HTTP/1\.1 (\d+)", answer, re.MULTILINE)]
    assert all(400 <= status < 500 for status in statuses), answer[:300]
    assert lives(gate)


NESTED = [
    ("dynamodb", "POST", "/", {"X-Amz-Target": "DynamoDB_20120810.ListTables"}, "[]"),
    ("dynamodb", "POST", "/", {"X-Amz-Target": "DynamoDB_20120810.GetItem"}, '{"Key":{}'),
    ("sqs", "POST", "/", {"X-Amz-Target": "AmazonSQS.ListQueues"}, '{"a":}'),
    ("secretsmanager", "POST", "/", {"X-Amz-Target": "secretsmanager.ListSecrets"}, '{"Filters":}'),
    ("cloudtrail", "POST", "/", {"X-Amz-Target": "CloudTrail_20131101.LookupEvents"}, '{"a":}'),
    ("eks", "POST", "/clusters", {"Content-Type": "application/json"}, '{"tags":}'),
    ("s3", "POST", "/irsa-lab?delete", {}, "<Delete></Delete>"),
    ("s3", "PUT", "/irsa-lab?policy", {}, '{"Statement":}'),
    ("s3", "PUT", "/irsa-lab?tagging", {}, "<Tagging></Tagging>"),
    ("s3", "PUT", "/irsa-lab?lifecycle", {}, "<Rule></Rule>"),
]


@pytest.mark.parametrize("who", ["administrator", "session"])
@pytest.mark.parametrize("depth", [900, 1000, 100_000])
@pytest.mark.parametrize(("service", "method", "target", "headers", "level"), NESTED)
def test_the_gate_survives_a_deeply_nested_signed_body(gate, service, method, target, headers, level, depth, who):
    begin, end = re.fullmatch(r"(\[|<\w+>|\{.*?:)(.*)", level).groups()
    body = (begin * depth + ("1" if "{" in begin else "") + end * depth).encode()
    sent = signed(gate, ADMIN if who == "administrator" else gate.session_credentials, service, method, target, body,
                  headers.items())  # fmt: skip
    status, text = send(gate, method, target, sent, body)
    assert status != 500, text
    assert who == "administrator" or 400 <= status < 500, text
    assert lives(gate)
