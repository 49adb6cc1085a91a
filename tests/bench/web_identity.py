"""The rate of AssumeRoleWithWebIdentity: the gate, which verifies everything, beside bare moto, which does not."""

import http.client
import os
import socket
import subprocess
import time
from contextlib import contextmanager
from urllib.parse import urlencode

from tests.bench.lab import PROGRAMS, folder

REQUESTS = 1000


def rates() -> str:
    """Measure requests a second of one client on a kept connection, which bare moto closes after each answer."""
    with folder() as home:
        os.environ["LABKIT_HOME"] = str(home)
        body, port = _good_request()
        gate = _rate(port, body)
    with bare_moto() as port:
        bare = _rate(port, body)
    return f"gate {gate:.0f}/s, bare moto_server {bare:.0f}/s, ratio {gate / bare:.1f}"


def _good_request() -> tuple[str, int]:
    from kubernetes import client

    import labkit

    lab = labkit.Lab.open()
    lab.ready(through="service_account")
    answer = client.CoreV1Api(lab.kubernetes).create_namespaced_service_account_token(
        lab.parameters.service_account,
        lab.parameters.namespace,
        client.AuthenticationV1TokenRequest(
            spec=client.V1TokenRequestSpec(audiences=["sts.amazonaws.com"], expiration_seconds=3600)
        ),
    )
    form = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": lab.role_arn,
        "RoleSessionName": "bench",
        "WebIdentityToken": answer.status.token,
    }
    return urlencode(form), int(lab.aws.client("sts").meta.endpoint_url.rpartition(":")[2])


def _rate(port: int, body: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {
        "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
        # Bare moto reads only the service in the signature's scope.
        "Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/sts/aws4_request",
    }
    for counted in (50, REQUESTS):
        started = time.perf_counter()
        for _ in range(counted):
            connection.request("POST", "/", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise SystemExit(f"{answer.status} {text.decode()}")
    return REQUESTS / (time.perf_counter() - started)


@contextmanager
def bare_moto():
    """Run a bare moto_server; give its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [PROGRAMS / "moto_server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()
