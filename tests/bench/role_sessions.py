"""Calls with a role session's credentials: GetObject beside bare moto, and the same call with few and many sessions."""

import http.client
import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from tests.bench.lab import folder
from tests.bench.web_identity import bare_moto

REGION, BUCKET, KEY = "us-east-1", "bench-bucket", "hello.txt"
ROUNDS, CALLS = 9, 300
FEW, MANY = 10, 10_000
READ = json.dumps(
    {"Version": "2012-10-17",
     "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"}]}
)  # fmt: skip


def get_object() -> str:
    """Measure GetObject calls of 1 KiB a second: one client, a kept connection, the median of alternating rounds."""
    with folder() as home, bare_moto() as bare_port:
        lab, endpoint = _lab(home)
        credentials = _session(lab, "bench")
        bare = Credentials("AKIAIOSFODNN7EXAMPLE", "any")
        s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{bare_port}", region_name=REGION,
                          aws_access_key_id=bare.access_key, aws_secret_access_key=bare.secret_key)  # fmt: skip
        _object(s3)
        keys_by_url = {endpoint: credentials, f"http://127.0.0.1:{bare_port}": bare}
        rates: dict[str, list[float]] = {url: [] for url in keys_by_url}
        for _ in range(ROUNDS):
            for url, keys in keys_by_url.items():
                rates[url].append(1 / _seconds(url, _get_object(url, keys)))
        gate, moto = (statistics.median(measured) for measured in rates.values())
    return f"gate {gate:.0f}/s, bare moto_server {moto:.0f}/s, ratio {gate / moto:.1f}"


def sessions() -> str:
    """Measure a call in a lab with 10 live sessions and in one with 10,000: the median of alternating rounds."""
    calls = {"GetCallerIdentity": _caller_identity, "GetObject": _get_object}
    with folder() as few, folder() as many:
        sessions = []
        for home, count in ((few, FEW), (many, MANY)):
            lab, endpoint = _lab(home)
            first = _session(lab, "first")
            _open(lab, count - 1)
            sessions.append((endpoint, first))
        lines = []
        for name, made in calls.items():
            # Signed once, so that the client's time doesn't count.
            requests = [(endpoint, made(endpoint, keys)) for endpoint, keys in sessions]
            rounds = [[_seconds(*request) for request in requests] for _ in range(ROUNDS)]
            ratio = statistics.median(large / small for small, large in rounds)
            small, large = (statistics.median(times) * 1000 for times in zip(*rounds, strict=True))
            lines.append(f"{name} {small:.2f} and {large:.2f} ms, ratio {ratio:.2f}")
    return f"{FEW} and {MANY} sessions: {'; '.join(lines)}"


def past_calls(home, count: int) -> None:
    """Make `count` calls, in turn AssumeRole and PutObject, with 100 names each."""
    lab, _ = _lab(home)
    sts, s3 = (lab.aws.client(name, config=Config(max_pool_connections=4)) for name in ("sts", "s3"))

    def call(number: int) -> None:
        if number % 2:
            _assume(lab, sts, f"session-{number % 100}")
        else:
            s3.put_object(Bucket=BUCKET, Key=f"key-{number % 100}", Body=b"x" * 1024)

    with ThreadPoolExecutor(4) as callers:
        list(callers.map(call, range(count)))


def _lab(home) -> tuple:
    """Return a lab with a bucket and a role that may read its objects, and the lab's AWS endpoint."""
    os.environ["LABKIT_HOME"] = str(home)
    import labkit

    lab = labkit.Lab.open()
    _object(lab.aws.client("s3"))
    iam, account = lab.aws.client("iam"), lab.aws.client("sts").get_caller_identity()["Account"]
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}, "Action": "sts:AssumeRole"}
    iam.create_role(
        RoleName="bench", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    )
    iam.put_role_policy(RoleName="bench", PolicyName="read", PolicyDocument=READ)
    lab.bench_role = f"arn:aws:iam::{account}:role/bench"
    return lab, lab.aws.client("sts").meta.endpoint_url


def _object(s3) -> None:
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key=KEY, Body=b"x" * 1024)


def _session(lab, name: str) -> Credentials:
    return _assume(lab, lab.aws.client("sts"), name)


def _assume(lab, sts, name: str) -> Credentials:
    made = sts.assume_role(RoleArn=lab.bench_role, RoleSessionName=name)["Credentials"]
    return Credentials(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])


def _open(lab, count: int) -> None:
    sts = lab.aws.client("sts", config=Config(max_pool_connections=4))
    with ThreadPoolExecutor(4) as callers:
        list(callers.map(lambda number: _assume(lab, sts, f"session-{number}"), range(count)))


def _get_object(url: str, keys: Credentials) -> tuple[str, str, bytes, dict[str, str]]:
    return "GET", f"/{BUCKET}/{KEY}", b"", _signed(botocore.auth.S3SigV4Auth, "s3", url, keys, f"/{BUCKET}/{KEY}")


def _caller_identity(url: str, keys: Credentials) -> tuple[str, str, bytes, dict[str, str]]:
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    return "POST", "/", body, _signed(botocore.auth.SigV4Auth, "sts", url, keys, "/", "POST", body)


def _signed(signer: type, service: str, url: str, keys: Credentials, path: str, method: str = "GET", body: bytes = b""):
    headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
    request = AWSRequest(method, url + path, data=body, headers=headers)
    signer(keys, service, REGION).add_auth(request)
    return {name: str(value) for name, value in request.headers.items()}


def _seconds(url: str, request: tuple[str, str, bytes, dict[str, str]]) -> float:
    """Return the seconds of one call on a kept connection."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    method, path, body, headers = request
    for counted in (20, CALLS):
        started = time.perf_counter()
        for _ in range(counted):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise SystemExit(f"{answer.status} {text.decode()}")
    connection.close()
    return (time.perf_counter() - started) / CALLS
