"""Issuers that misbehave: STS refuses in time and says why, delays no other caller, and asks no other address."""

import asyncio
import contextlib
import gzip
import json
import ssl
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import ec

from labkit.simulator.aws import issuers
from labkit.simulator.aws.web_identity import GENERIC
from labkit.simulator.certificates import Authority
from labkit.tokens import read_jwt
from tests.simulator.aws.conftest import AUDIENCE, Irsa, Issuer, key_pair, refused, trust_policy

OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
CURVE = ec.generate_private_key(ec.SECP384R1())


class Server:
    """A TLS server that sends raw bytes: ``answer(server, path, writer)`` answers each request."""

    def __init__(self, aws):
        self.aws = aws
        self.paths: list[str] = []
        self.connected = 0
        self.sent = 0
        self.released = asyncio.Event()
        self.answer = documents
        authority = Authority.create("an issuer's own root")
        issued = authority.issue("localhost", dns=["localhost"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(issued.certificate_pem + authority.certificate_pem + issued.key_pem)
            file.flush()
            context.load_cert_chain(file.name)
        self.port = self.run(self._start(context))
        self.url = f"https://localhost:{self.port}"
        self.issuer = Issuer(self.url + "/id")

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.aws.loop).result(10)

    def close(self):
        self.aws.loop.call_soon_threadsafe(self.released.set)
        self.aws.loop.call_soon_threadsafe(self._server.close)

    async def _start(self, context):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        return self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer):
        self.connected += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
            self.paths.append(path)
            await self.answer(self, path, writer)
        writer.close()

    async def send(self, writer, content):
        writer.write(content)
        self.sent += len(content)
        await writer.drain()


async def documents(server, path, writer):
    """Answer as a good issuer does."""
    body = json.dumps(server.issuer.documents.get(path)).encode()
    await server.send(writer, OK + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)


@pytest.fixture
def other(aws):
    """A server that an issuer may name, but that the lab must not contact."""
    server = Server(aws)
    yield server
    server.close()


@pytest.fixture
def server(aws, irsa):
    """An issuer that the role ``theirs`` trusts, with a registered provider. At first, it behaves."""
    server = Server(aws)
    made = irsa.iam.create_open_id_connect_provider(Url=server.issuer.url, ClientIDList=[AUDIENCE])
    document = json.dumps(trust_policy(Principal={"Federated": made["OpenIDConnectProviderArn"]}, Condition=None))
    irsa.iam.create_role(RoleName="theirs", AssumeRolePolicyDocument=document)
    server.assume = lambda **changes: irsa.assume(
        **{"RoleArn": Irsa.role_arn.replace("my-role", "theirs"), "WebIdentityToken": server.issuer.token()} | changes
    )
    yield server
    server.close()


def of_body(body, *headers):
    async def answer(server, path, writer):
        head = "".join(f"{header}\r\n" for header in (*headers, f"Content-Length: {len(body)}"))
        await server.send(writer, OK + head.encode() + b"\r\n" + body)

    return answer


def of_keys(keys):
    """Serve a good discovery document, and these keys."""

    async def answer(server, path, writer):
        if path.endswith("/keys"):
            await of_body(json.dumps({"keys": keys(server.issuer)}).encode())(server, path, writer)
        else:
            await documents(server, path, writer)

    return answer


def of_discovery(**changes):
    """Serve a discovery document that is good except for these members. OTHER stands for the server not to contact."""

    async def answer(server, path, writer):
        document = server.issuer.documents.get(path)
        if "jwks_uri" in document:
            document = document | changes
        body = json.dumps(document).replace("OTHERHOST", server.other.removeprefix("https://"))
        body = body.replace("OTHER", server.other).replace("PORT", str(server.port))
        await of_body(body.encode())(server, path, writer)

    return answer


async def nothing(server, path, writer):
    await server.released.wait()


async def slow_headers(server, path, writer):
    for letter in OK.decode():
        await server.send(writer, letter.encode())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.released.wait(), 0.05)


async def slow_body(server, path, writer):
    await server.send(writer, OK + b"Content-Length: 100000\r\n\r\n")
    while not server.released.is_set():
        await server.send(writer, b" ")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.released.wait(), 0.05)


async def endless_headers(server, path, writer):
    await server.send(writer, OK)
    while True:
        await server.send(writer, b"X-Much: " + b"x" * 65536 + b"\r\n")


def much(headers, chunk):
    async def answer(server, path, writer):
        await server.send(writer, OK + headers + b"\r\n")
        for _ in range(100 * 2**20 // 65536):
            await server.send(writer, chunk)

    return answer


async def redirect(server, path, writer):
    await server.send(writer, f"HTTP/1.1 302 Found\r\nLocation: {server.other}{path}\r\n\r\n".encode())


async def hang_up(server, path, writer):
    pass


async def no_http(server, path, writer):
    await server.send(writer, b"SSH-2.0-OpenSSH_9.9\r\n")


async def half_of_it(server, path, writer):
    await server.send(writer, OK + b"Content-Length: 100\r\n\r\n{")


def public(key, **members):
    return json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())) | members


def private_only(issuer):
    """A private key without its primes: to load the key, the lab would first have to compute them."""
    key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(issuer.key))
    return [{"kty": "RSA", "kid": "1", "n": "A" * 100_000, "e": "AQAB", "d": key["d"]}]


SLOW = [("an answer that does not come", nothing), ("headers in drops", slow_headers), ("a body in drops", slow_body)]
MISBEHAVIOURS = [
    ("headers without end", endless_headers, ""),
    ("100 MiB", much(b"Content-Length: 104857600\r\n", b" " * 65536), "answers more than 524288 bytes"),
    ("a body without end", much(b"Transfer-Encoding: chunked\r\n", b"fffa\r\n" + b" " * 65530 + b"\r\n"),
        "answers more than 524288 bytes"),
    ("a bomb", of_body(gzip.compress(b" " * 2**26, 1), "Content-Encoding: gzip"), "in the encoding gzip"),
    ("a redirect", redirect, "answers 302"),
    ("keys on another host", of_discovery(jwks_uri="OTHER/keys"), "is on another host than the registered provider"),
    ("keys on a host that looks the same", of_discovery(jwks_uri="https://localhost:PORT@OTHERHOST/keys"),
        "is on another host than the registered provider"),
    ("keys of the lab's own issuer", of_discovery(jwks_uri="https://oidc.eks.us-east-1.amazonaws.com/keys"),
        "is on another host than the registered provider"),
    ("keys in the clear", of_discovery(jwks_uri="http://localhost:PORT/id/keys"), "is not an https URL"),
    ("keys in a file", of_discovery(jwks_uri="file:///etc/passwd"), "is not an https URL"),
    ("keys at half an address", of_discovery(jwks_uri="https://[::1/keys"), "is not an https URL"),
    ("keys at no port", of_discovery(jwks_uri="https://localhost:none/keys"), "is not an https URL"),
    ("keys at a line's end", of_discovery(jwks_uri="https://localhost:PORT/keys\r\nX: y"), "cannot be read"),
    ("keys at a number", of_discovery(jwks_uri=1), "names no jwks_uri"),
    ("another issuer's discovery", of_discovery(issuer="https://localhost"), "names another issuer"),
    ("a discovery without an owner", of_discovery(issuer=[["deep"]]), "names another issuer"),
    ("text nested deep", of_body(b"[" * 200_000), "is not JSON"),
    ("an object nested deep", of_body(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "is not JSON"),
    ("broken text", of_body(b"\xff\xfe\xfd"), "is not JSON"),
    ("a list", of_body(b"[]"), "is not a JSON object"),
    ("no connection for long", hang_up, "cannot be read"),
    ("no HTTP", no_http, "cannot be read"),
    ("half of a document", half_of_it, "cannot be read"),
    ("10,000 keys", of_keys(lambda _: [{"kty": "EC", "kid": f"{i}"} for i in range(10_000)]), "more than 100 keys"),
    ("keys without their ids", of_keys(lambda issuer: [public(issuer.key), public(key_pair())]), "none of the keys"),
    ("keys of no kind", of_keys(lambda _: [1, None, [], {"kty": []}, {"kty": "RSA", "kid": {}}]), "none of the keys"),
    ("a secret key", of_keys(lambda _: [{"kty": "oct", "kid": "1", "k": "AAAA"}]), "none of the keys"),
    ("a key too large", of_keys(private_only), "none of the keys"),
    ("a key for encryption", of_keys(lambda issuer: [public(issuer.key, kid="1", use="enc")]), "none of the keys"),
    ("another key under the id", of_keys(lambda _: [public(key_pair(), kid="1")]), "signature is not the issuer's"),
]  # fmt: skip


def test_sts_waits_less_than_five_seconds_for_an_issuer():
    assert issuers.TIMEOUT < 5


@pytest.mark.parametrize("answer", [row[1] for row in SLOW], ids=[row[0] for row in SLOW])
def test_sts_gives_up_on_a_slow_issuer_and_says_so(aws, server, monkeypatch, answer):
    server.assume()
    aws.gate.issuers.forget(server.issuer.url)
    monkeypatch.setattr(issuers, "TIMEOUT", 0.4)
    server.answer = answer
    refused(server.assume, 400, "InvalidIdentityToken", GENERIC)
    assert "did not answer within" in aws.last()["lab"]["reason"]


@pytest.mark.parametrize(
    ("answer", "detail"), [row[1:] for row in MISBEHAVIOURS], ids=[row[0] for row in MISBEHAVIOURS]
)
def test_sts_refuses_a_token_if_its_issuer_serves(aws, irsa, server, other, answer, detail):
    server.other = other.url
    server.assume()
    aws.gate.issuers.forget(server.issuer.url)
    server.answer, server.sent = answer, 0
    refused(server.assume, 400, "InvalidIdentityToken", GENERIC)
    assert detail in aws.last()["lab"]["reason"]
    assert other.connected == 0
    # The sockets' buffers hold some of it, but the lab must not read all that the issuer would send.
    assert server.sent < 16 * 2**20
    irsa.assume()
    server.answer = documents
    aws.gate.issuers.forget(server.issuer.url)
    server.assume()


def test_sts_accepts_an_es384_token_if_the_issuer_s_one_key_has_no_id(server):
    curve = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(CURVE.public_key()))
    server.answer = of_keys(lambda _: [curve])
    claims = read_jwt(server.issuer.token())[1]
    server.assume(WebIdentityToken=jwt.encode(claims, CURVE, algorithm="ES384"))
    with pytest.raises(ClientError, match="InvalidIdentityToken"):
        another = ec.generate_private_key(ec.SECP384R1())
        server.assume(WebIdentityToken=jwt.encode(claims, another, algorithm="ES384"))


@pytest.mark.parametrize("broken", ["closed", "no TLS"])
def test_sts_refuses_a_token_if_its_issuer_is_down_or_without_tls(aws, server, broken):
    async def hello(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    async def replace():
        server._server.close()
        await server._server.wait_closed()
        if broken == "no TLS":
            server._server = await asyncio.start_server(hello, "127.0.0.1", server.port)

    server.run(replace())
    refused(server.assume, 400, "InvalidIdentityToken", GENERIC)
    assert "cannot be reached" in aws.last()["lab"]["reason"]


def test_a_slow_issuer_is_fetched_once_and_delays_no_other_caller(aws, irsa, server):
    fetched = threading.Event()

    async def held(server, path, writer):
        fetched.set()
        await server.released.wait()

    server.answer = held
    s3 = aws.client("s3", irsa.assume()["Credentials"])
    aws.gate.issuers.forget(aws.issuer.url)
    with ThreadPoolExecutor(4) as callers:
        waiting = [callers.submit(refused, server.assume, 400, "InvalidIdentityToken", GENERIC) for _ in range(4)]
        assert fetched.wait(10)
        irsa.assume()
        aws.client("sts").get_caller_identity()
        assert s3.get_object(Bucket="irsa-lab", Key="hello.txt")["Body"].read() == b"hello"
        assert not any(caller.done() for caller in waiting)
        aws.loop.call_soon_threadsafe(server.released.set)
        for caller in waiting:
            caller.result(10)
    assert len(server.paths) == 1


def test_tokens_with_unknown_key_ids_make_the_lab_fetch_keys_only_a_few_times(aws, server, monkeypatch):
    monkeypatch.setattr(issuers, "WITHIN", 3600.0)
    server.assume()
    server.paths.clear()
    for number in range(50):
        token = server.issuer.token(headers={"kid": f"unknown-{number}"})
        refused(lambda token=token: server.assume(WebIdentityToken=token), 400, "InvalidIdentityToken", GENERIC)
    assert len(server.paths) <= 2 * issuers.FETCHES
    assert "times within" in aws.last()["lab"]["reason"]
    server.assume()
    # New keys count nevertheless, once the lab may ask the issuer again.
    server.issuer.key, server.issuer.key_id = key_pair(), "2"
    server.issuer.publish()
    with pytest.raises(ClientError, match="InvalidIdentityToken"):
        server.assume()
    monkeypatch.setattr(issuers, "WITHIN", 0.0)
    server.assume()


def test_an_issuer_that_serves_other_keys_each_time_is_fetched_only_a_few_times(aws, server, monkeypatch):
    monkeypatch.setattr(issuers, "WITHIN", 3600.0)
    key = key_pair()
    server.answer = of_keys(lambda _: [public(key, kid=f"{len(server.paths)}")])
    for _ in range(issuers.FETCHES + 3):
        with pytest.raises(ClientError, match="InvalidIdentityToken"):
            server.assume()
    assert len(server.paths) == 2 * issuers.FETCHES


def test_keys_fetched_with_one_thumbprint_do_not_serve_a_provider_with_another(aws, server):
    """The lab trusts keys in its cache only with the thumbprints that it fetched them with."""
    server.assume()

    async def key(thumbprints):
        return await aws.gate.issuers.key(server.issuer.url, "1", thumbprints)

    with pytest.raises(issuers.ThumbprintMismatch):
        server.run(key(["c" * 40]))
