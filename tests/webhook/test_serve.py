"""`labkit webhook serve` in a process of its own, for an API server that knows nothing of a lab, used with kubectl."""

import contextlib
import functools
import http.server
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from labkit.simulator import Authority
from labkit.webhook import serving
from tests import commands
from tests.simulator.kubernetes.conftest import pod

pytestmark = pytest.mark.kubectl

ROLE = "arn:aws:iam::123456789012:role/reader"
FILE = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"
CONFIGURATION = "mutatingwebhookconfiguration/pod-identity-webhook"


class Served:
    """A running `labkit webhook serve`: its manifest (standard output) and what it says (standard error)."""

    def __init__(self, home: Path, *arguments: str, **variables: str) -> None:
        self.process = subprocess.Popen(
            [commands.LABKIT, "webhook", "serve", "--listen", "127.0.0.1:0", *arguments],
            env={**os.environ, "LABKIT_HOME": str(home), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self._changed = threading.Condition()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        ready = self.until("Ready: ")
        self.url = re.search(r"https://\S+/mutate", ready)[0]
        self.manifest = ""
        while "timeoutSeconds" not in self.manifest:
            self.manifest += self.process.stdout.readline()

    def until(self, words: str) -> str:
        """Wait for the first line on standard error that contains these words, and return it."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: next((line for line in self.said if words in line), None) or not self._reading.is_alive(), 120
            )
        assert isinstance(found, str), "".join(self.said)
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(30)
        self._reading.join(30)
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    def _read(self) -> None:
        for line in self.process.stderr:
            with self._changed:
                self.said.append(line)
                self._changed.notify_all()


@pytest.fixture
def serve(cluster, tmp_path) -> Iterator:
    """A function that starts the webhook with these arguments. Afterwards all are ended and unregistered."""
    running = []

    def serve(*arguments: str, **variables: str) -> Served:
        running.append(Served(tmp_path, "--kubeconfig", str(cluster.kubeconfig), *arguments, **variables))
        return running[-1]

    yield serve
    for served in running:
        served.end()
    cluster.kubectl("delete", CONFIGURATION, "clusterrole/pod-identity-webhook", "--ignore-not-found")


@pytest.fixture
def account(cluster, namespace) -> str:
    cluster.kubectl("create", "serviceaccount", "reader", "-n", namespace)
    cluster.kubectl("annotate", "serviceaccount", "reader", "-n", namespace, f"eks.amazonaws.com/role-arn={ROLE}")
    return "reader"


def made(cluster, namespace: str, name: str, account: str = "reader", **spec) -> dict:
    """Create a pod, and return the spec that the API server stored."""
    asked = pod(name, serviceAccountName=account, **spec)
    done = cluster.kubectl(
        "create", "-n", namespace, "-o", "json", "-f", "-", given={"kind": "Pod", "apiVersion": "v1"} | asked
    )
    return json.loads(done.stdout)["spec"]


def variables(spec: dict) -> dict:
    return {variable["name"]: variable["value"] for variable in spec["containers"][0].get("env", ())}


def token(spec: dict) -> dict:
    [volume] = [volume for volume in spec["volumes"] if volume["name"] == "aws-iam-token"]
    return volume["projected"]["sources"][0]["serviceAccountToken"]


def test_pods_get_the_role_only_while_the_webhook_is_registered_and_running(cluster, namespace, account, serve):
    assert variables(made(cluster, namespace, "before")) == {}
    served = serve("--region", "eu-west-1")
    assert variables(made(cluster, namespace, "unregistered")) == {}

    applied = cluster.kubectl("apply", "-f", "-", given=served.manifest).stdout
    assert applied.splitlines() == [
        "clusterrole.rbac.authorization.k8s.io/pod-identity-webhook created",
        "mutatingwebhookconfiguration.admissionregistration.k8s.io/pod-identity-webhook created",
    ]
    spec = made(cluster, namespace, "registered")
    assert variables(spec) == {
        "AWS_STS_REGIONAL_ENDPOINTS": "regional",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_REGION": "eu-west-1",
        "AWS_ROLE_ARN": ROLE,
        "AWS_WEB_IDENTITY_TOKEN_FILE": FILE,
    }
    assert token(spec) == {"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "token"}
    served.until(f"pod {namespace}/registered, service account reader: given the role")

    # failurePolicy: Ignore. A webhook that has ended changes no pod and blocks none.
    assert served.end() == 0
    assert variables(made(cluster, namespace, "after")) == {}
    assert "The webhook has ended." in served.said[-1]
    reviewed = next(number for number, line in enumerate(served.said) if "given the role" in line)
    assert served.said[reviewed + 1 :] == served.said[-1:]  # no error about the API server's open connection


def test_the_options_of_webhook_serve_change_what_a_pod_gets(cluster, namespace, serve):
    served = serve(
        *("--audience", "vault", "--token-expiration", "3600", "--no-sts-regional-endpoints"),
        *("--annotation-prefix", "example.com", "--mount-path", "/run/aws"),
    )
    cluster.kubectl("apply", "-f", "-", given=served.manifest)
    cluster.kubectl("create", "serviceaccount", "reader", "-n", namespace)
    cluster.kubectl("annotate", "serviceaccount", "reader", "-n", namespace, f"example.com/role-arn={ROLE}")

    spec = made(cluster, namespace, "p")

    assert variables(spec) == {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": "/run/aws/token"}
    assert token(spec) == {"audience": "vault", "expirationSeconds": 3600, "path": "token"}
    assert "/run/aws" in [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]]


def test_webhook_manifest_prints_the_same_manifest_as_webhook_serve(cluster, namespace, account, serve, tmp_path):
    served = serve()
    port = served.url.split(":")[2].removesuffix("/mutate")

    done = labkit(tmp_path, "webhook", "manifest", "--listen", f"127.0.0.1:{port}")

    assert list(yaml.safe_load_all(done.stdout)) == list(yaml.safe_load_all(served.manifest))
    cluster.kubectl("apply", "-f", "-", given=done.stdout)
    assert variables(made(cluster, namespace, "p"))["AWS_ROLE_ARN"] == ROLE
    assert f"labkit webhook manifest --listen 127.0.0.1:{port} | kubectl apply -f -" in "".join(served.said)


def test_the_manifests_cluster_role_is_enough_for_the_webhook(cluster, namespace, account, serve, tmp_path):
    manifest = labkit(tmp_path, "webhook", "manifest").stdout
    cluster.kubectl("apply", "-f", "-", given=manifest)
    binding = ["clusterrolebinding", "pod-identity-webhook"]
    cluster.kubectl("create", *binding, "--clusterrole=pod-identity-webhook", "--user=least")
    try:
        served = serve("--kubeconfig", str(kubeconfig_of(cluster, tmp_path, "least")))
        cluster.kubectl("apply", "-f", "-", given=served.manifest)
        assert variables(made(cluster, namespace, "p"))["AWS_ROLE_ARN"] == ROLE
        cluster.kubectl("create", "serviceaccount", "late", "-n", namespace)
        cluster.kubectl("annotate", "serviceaccount", "late", "-n", namespace, f"eks.amazonaws.com/role-arn={ROLE}-2")
        assert variables(made(cluster, namespace, "q", "late"))["AWS_ROLE_ARN"] == f"{ROLE}-2"
    finally:
        cluster.kubectl("delete", *binding)


@pytest.mark.parametrize("how", ["token", "exec"])
def test_the_webhook_uses_a_service_accounts_token_and_hides_it(cluster, namespace, account, serve, tmp_path, how):
    cluster.kubectl("create", "serviceaccount", "webhook", "-n", namespace)
    cluster.kubectl("apply", "-f", "-", given=labkit(tmp_path, "webhook", "manifest").stdout)
    binding = ["clusterrolebinding", "pod-identity-webhook"]
    subject = f"--serviceaccount={namespace}:webhook"
    cluster.kubectl("create", *binding, "--clusterrole=pod-identity-webhook", subject)
    try:
        given = cluster.kubectl("create", "token", "webhook", "-n", namespace).stdout.strip()
        config = kubeconfig_of(cluster, tmp_path, "nobody")
        content = json.loads(config.read_text())
        content["users"][0]["user"] = {"token": given} if how == "token" else {"exec": exec_plugin(tmp_path, given)}
        config.write_text(json.dumps(content))
        served = Served(tmp_path, KUBECONFIG=str(config))
        cluster.kubectl("apply", "-f", "-", given=served.manifest)
        assert variables(made(cluster, namespace, "p"))["AWS_ROLE_ARN"] == ROLE
        assert served.end() == 0
        assert given not in "".join(served.said)
    finally:
        cluster.kubectl("delete", *binding)
        cluster.kubectl("delete", CONFIGURATION, "clusterrole/pod-identity-webhook", "--ignore-not-found")


def exec_plugin(folder: Path, token: str) -> dict:
    """A credential plugin, like `aws eks get-token`, whose answers have always expired already."""
    version = "client.authentication.k8s.io/v1"
    status = {"token": token, "expirationTimestamp": "2020-01-01T00:00:00Z"}
    answer = folder / "credential.json"
    answer.write_text(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))
    return {"apiVersion": version, "command": "cat", "args": [str(answer)], "interactiveMode": "Never"}


def test_ctrl_c_ends_the_webhook_without_a_traceback(serve):
    served = serve()
    assert served.end(signal.SIGINT) == 0
    assert "Traceback" not in "".join(served.said)


def test_healthz_answers_over_tls_with_the_stored_certificate(serve, tmp_path):
    served = serve("--host", "localhost")
    kept = tmp_path / "webhook" / "localhost.pem"
    with httpx.Client(verify=ssl.create_default_context(cafile=str(kept)), trust_env=False, timeout=60) as client:
        answer = client.get(served.url.replace("/mutate", "/healthz"))
    assert (answer.status_code, answer.text) == (200, "ok")
    assert [file.stat().st_mode & 0o777 for file in (tmp_path / "webhook").iterdir()] == [0o600, 0o600]
    before = kept.read_bytes()
    assert labkit(tmp_path, "webhook", "manifest", "--host", "localhost").returncode == 0
    assert kept.read_bytes() == before


def test_clients_that_hang_up_or_send_nonsense_do_no_harm(serve):
    served = serve()
    port = int(served.url.split(":")[2].removesuffix("/mutate"))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    head = b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    for words in (b"", b"nonsense\r\n\r\n", head):
        with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as tls:
            tls.sendall(words)
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
    with httpx.Client(verify=False, trust_env=False, timeout=60) as client:
        large = (b" " * 2**20 for _ in range(9))
        refused = client.post(served.url, content=large, headers={"content-type": "application/json"})
        assert (refused.status_code, refused.text) == (413, "a review has 8388608 bytes at most")
        assert client.get(served.url.replace("/mutate", "/healthz")).text == "ok"
    assert served.end() == 0
    assert not [line for line in served.said if "Traceback" in line or "Exception" in line], "".join(served.said)


def test_the_webhook_works_with_the_users_own_certificate(cluster, namespace, account, serve, tmp_path):
    authority = Authority.create("mine")
    issued = authority.issue("webhook", ips=["127.0.0.1"])
    files = [tmp_path / "mine.pem", tmp_path / "mine.key"]
    files[0].write_bytes(issued.certificate_pem + authority.certificate_pem)
    files[1].write_bytes(issued.key_pem)

    served = serve("--certificate", str(files[0]), "--key", str(files[1]))

    cluster.kubectl("apply", "-f", "-", given=served.manifest)
    assert variables(made(cluster, namespace, "p"))["AWS_ROLE_ARN"] == ROLE
    assert not (tmp_path / "webhook").exists()


def test_a_certificate_that_expires_soon_is_replaced(tmp_path, monkeypatch):
    first = serving.stored_certificate(tmp_path, "127.0.0.1")[0].read_bytes()
    assert serving.stored_certificate(tmp_path, "127.0.0.1")[0].read_bytes() == first
    monkeypatch.setattr(serving, "RENEWED_BEFORE", serving.VALIDITY)
    assert serving.stored_certificate(tmp_path, "127.0.0.1")[0].read_bytes() != first


def test_listening_beyond_loopback_prints_a_warning(serve):
    served = serve("--listen", "0.0.0.0:0", "--host", "127.0.0.1")
    served.until("Warning: 0.0.0.0 is not loopback.")


def labkit(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return commands.labkit(*arguments, LABKIT_HOME=str(home), **variables)


def kubeconfig_of(cluster, folder: Path, user: str, **changes: str) -> Path:
    """Write a kubeconfig for a user without permissions. The `changes` apply to its cluster entry."""
    content = json.loads(cluster.kubeconfig.read_text())
    chain = str(cluster.keep(user))
    content["users"] = [{"name": "admin", "user": {"client-certificate": chain, "client-key": chain}}]
    content["clusters"][0]["cluster"] |= changes
    file = folder / f"{user}.kubeconfig"
    file.write_text(json.dumps(content))
    return file


@contextlib.contextmanager
def web(folder: Path) -> Iterator[int]:
    """A web server that is not an API server."""
    (folder / "api" / "v1").mkdir(parents=True)
    (folder / "api" / "v1" / "serviceaccounts").write_text("<html>hello</html>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(("arguments", "words"), [
    (["--kubeconfig", "/nowhere"], ["No kubeconfig found", "/nowhere"]),
    (["--kubeconfig", "{folder}/broken"], ["The configuration for the API server cannot be used", "/broken"]),
    (["--context", "lba"], ["'lba' is not a context of the kubeconfig", "Did you mean 'lab'?"]),
    (["--listen", "8443"], ["HOST:PORT"]),
    (["--listen", "127.0.0.1:99999"], ["HOST:PORT"]),
    (["--listen",
      "127.0.0.1:{taken}"], ["The webhook cannot listen on port {taken} of 127.0.0.1: Address already in use"]),
    (["--listen", "192.0.2.1:8443"], ["cannot listen on port 8443 of 192.0.2.1: "]),
    (["--listen", "no-such-host.invalid:8443"], ["cannot listen on no-such-host.invalid: "]),
    (["--listen", "0.0.0.0:8443"], ["not an address that an API server can call", "--host NAME"]),
    (["--host", "a b"], ["'a b' is not a host name or address"]),
    (["--certificate", "{folder}/broken"], ["--certificate needs --key"]),
    (["--certificate", "/nowhere", "--key", "/nowhere"],
     ["The certificate and key cannot be used: No such file or directory\n", "/nowhere"]),
    (["--certificate", "{folder}/broken", "--key", "{folder}/broken"], ["The certificate and key cannot be used"]),
    (["--mount-path", "token"], ["'token' is not an absolute path"]),
    (["--annotation-prefix", ""], ["The prefix of the annotations' names is empty"]),
    (["--kubeconfig", "{down}"], ["The API server does not answer", "https://127.0.0.1:1"]),
    (["--kubeconfig", "{nobody}"], ['User "nobody" cannot list resource "serviceaccounts"',
            "labkit webhook manifest | kubectl apply -f -",
            "kubectl create clusterrolebinding pod-identity-webhook --clusterrole=pod-identity-webhook"
            " --user=nobody"]),
    (["--kubeconfig", "{stranger}"], ["The API server does not accept these credentials"]),
    (["--kubeconfig", "{web}"], ["is not a Kubernetes API"]),
], ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("--") else "")  # fmt: skip
def test_a_wrong_option_or_api_server_is_reported_without_a_traceback(cluster, tmp_path, arguments, words):
    (tmp_path / "broken").write_text("{not: [yaml")
    stranger = kubeconfig_of(cluster, tmp_path, "stranger")
    content = json.loads(stranger.read_text())
    content["users"][0]["user"] = {"token": "no.such.token"}
    stranger.write_text(json.dumps(content))
    with socket.create_server(("127.0.0.1", 0)) as taken, web(tmp_path) as port:
        places = {
            "folder": tmp_path,
            "taken": taken.getsockname()[1],
            "nobody": kubeconfig_of(cluster, tmp_path, "nobody"),
            "down": kubeconfig_of(cluster, tmp_path, "down", server="https://127.0.0.1:1"),
            "web": kubeconfig_of(cluster, tmp_path, "web", server=f"http://127.0.0.1:{port}"),
            "stranger": stranger,
        }
        given = [argument.format(**places) for argument in arguments]
        done = labkit(
            tmp_path, *("webhook", "serve", "--listen", "127.0.0.1:0", "--kubeconfig", str(cluster.kubeconfig), *given)
        )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("labkit: ")
    for word in words:
        assert word.format(**places) in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("arguments", "words"), [
    (["--listen", "127.0.0.1:0"], "With port 0, the webhook chooses its port when it starts"),
    (["--key", "/nowhere"], "--key needs --certificate"),
])  # fmt: skip
def test_webhook_manifest_refuses_options_that_make_it_unusable(tmp_path, arguments, words):
    done = labkit(tmp_path, "webhook", "manifest", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr


def test_a_certificate_that_cannot_be_stored_is_reported(tmp_path):
    (tmp_path / "webhook").write_text("a file")
    done = labkit(tmp_path, "webhook", "manifest")
    assert (done.returncode, done.stdout) == (1, "")
    assert "The webhook's certificate cannot be stored" in done.stderr
    assert "Traceback" not in done.stderr
