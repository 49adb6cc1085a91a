"""The Kubernetes API with a thousand pods, and how long a learner waits for a pod."""

import base64
import http.client
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import yaml

from labkit.simulator import Folder, State
from tests.bench.lab import folder, labkit
from tests.bench.role_sessions import past_calls

PODS = 1000
CALLS = 10_000
PATH = "/api/v1/namespaces/default/pods"
TIMES = 20


def objects() -> str:
    """Create, list, read and watch 1,000 pods on an API server alone, with one client on a kept connection."""
    with folder() as home:
        bare = Folder(home).bare
        labkit(home, "up", "--bare")
        try:
            return _objects(bare)
        finally:
            labkit(home, "down", "--bare")


def _objects(bare: Folder) -> str:
    server = psutil.Process(State.read(bare).pid)
    api = Api(bare.kubeconfig)
    api.call("POST", PATH, _pod("first"))
    before = server.memory_info().rss
    with _watch(bare.kubeconfig) as arrived:
        created = {}
        for number in range(PODS):
            name = f"pod-{number:04}"
            created[name] = time.perf_counter()
            api.call("POST", PATH, _pod(name))
        took = time.perf_counter() - created["pod-0000"]
        _until(lambda: len(arrived) > PODS)
    grown = server.memory_info().rss - before
    delays = sorted(arrived[name] - moment for name, moment in created.items())
    listed = _median(lambda _: api.call("GET", PATH))
    got = _median(lambda number: api.call("GET", f"{PATH}/pod-{number:04}"))
    return (
        f"create {took / PODS * 1e3:.1f} ms, get {got * 1e3:.1f} ms, list of all {listed * 1e3:.1f} ms (medians of"
        f" {TIMES * 5}); a watch has it {statistics.median(delays) * 1e3:.1f} ms after the create was sent (99 %:"
        f" {delays[int(PODS * 0.99)] * 1e3:.1f} ms); {grown / PODS / 1024:.1f} KiB a pod"
    )


def again() -> str:
    """Measure `labkit up` on a lab with 1,000 objects and 10,000 past calls, after `labkit down` and after a kill."""
    with folder() as home:
        labkit(home, "up")
        api = Api(Folder(home).kubeconfig)
        path, started = "/api/v1/namespaces/default/configmaps", time.perf_counter()
        for number in range(PODS):
            api.call("POST", path, {"metadata": {"name": f"c{number}"}, "data": {"text": "x" * 2000}})
        created = (time.perf_counter() - started) / PODS
        past_calls(home, CALLS)
        seconds = []
        for end in (lambda: labkit(home, "down"), lambda: _kill(home)) * 3:
            end()
            started = time.perf_counter()
            labkit(home, "up")
            seconds.append(time.perf_counter() - started)
        return (
            f"after down {statistics.median(seconds[::2]):.2f} s, after a kill {statistics.median(seconds[1::2]):.2f} s"
            f" (medians of 3); create {created * 1e3:.1f} ms"
        )


def _kill(home: Path) -> None:
    server = psutil.Process(State.read(Folder(home)).pid)
    server.kill()
    server.wait()


def running() -> str:
    """Measure `kubectl apply` until a watch sees the pod Running, and `kubectl exec POD -- true`."""
    with folder() as home:
        labkit(home, "up")
        lab = Folder(home)
        environment = {**os.environ, "KUBECONFIG": str(lab.kubeconfig), "HOME": str(home)}
        kubectl = lambda *arguments, **more: subprocess.run(  # noqa: E731
            ["kubectl", *arguments], env=environment, check=True, capture_output=True, text=True, **more
        )
        kubectl("get", "pods")  # fills kubectl's cache of the API's resources
        whole, own, alone, entered = [], [], [], []
        with _watch(lab.kubeconfig, phase="Running") as arrived:
            for number in range(TIMES):
                name = f"pod-{number:04}"
                started = time.perf_counter()
                kubectl("apply", "-f", "-", input=json.dumps(_pod(name)))
                returned = time.perf_counter()
                _until(lambda name=name: name in arrived)
                whole.append(arrived[name] - started)
                own.append(arrived[name] - returned)
                alone.append(_seconds(lambda: kubectl("get", "namespace", "default")))
                entered.append(_seconds(lambda name=name: kubectl("exec", name, "--", "true")))
    return (
        f"Running {statistics.median(whole):.2f} s after the start of apply, {statistics.median(own):.2f} s after its"
        f" end; exec true {statistics.median(entered):.2f} s, where kubectl get alone takes"
        f" {statistics.median(alone):.2f} s (medians of {TIMES})"
    )


class Api:
    """A kept connection to the API server, as the kubeconfig's administrator."""

    def __init__(self, kubeconfig: Path):
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=_text(cluster["certificate-authority-data"]))
        with tempfile.NamedTemporaryFile("w") as chain:
            chain.write(_text(user["client-certificate-data"]) + _text(user["client-key-data"]))
            chain.flush()
            context.load_cert_chain(chain.name)
        self.connection = http.client.HTTPSConnection(urlsplit(cluster["server"]).netloc, context=context)

    def call(self, method: str, path: str, body: object = None) -> bytes:
        self.connection.request(
            method, path, body and json.dumps(body), {"Content-Type": "application/json", "Accept": "application/json"}
        )
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {text.decode()}")
        return text


@contextmanager
def _watch(kubeconfig: Path, phase: str = "Pending") -> Iterator[dict[str, float]]:
    """Give the times when each pod was first seen in that phase, by name. The watch keeps adding to them."""
    seen: dict[str, float] = {}
    api = Api(kubeconfig)
    api.connection.request("GET", f"{PATH}?watch=1")
    answer = api.connection.getresponse()

    def follow() -> None:
        try:
            while line := answer.readline():
                now = time.perf_counter()
                pod = json.loads(line)["object"]
                if pod["status"].get("phase") == phase:
                    seen.setdefault(pod["metadata"]["name"], now)
        except (OSError, ValueError, AttributeError):
            return  # the connection was closed: nobody watches any more

    threading.Thread(target=follow, daemon=True).start()
    yield seen
    api.connection.sock.close()


def _pod(name: str) -> dict:
    container = {"name": "app", "image": "amazon/aws-cli", "command": ["sleep", "3600"]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench"}}, "spec": spec}


def _median(call: Callable[[int], object]) -> float:
    return statistics.median(_seconds(lambda number=number: call(number)) for number in range(TIMES * 5))


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            sys.exit("the watch did not see every pod within a minute")
        time.sleep(0.001)


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()
