"""A lab of an API server and a node, for tests that look at pods through the Kubernetes API."""

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from kubernetes import client
from kubernetes.client import ApiClient, Configuration, CoreV1Api
from websockets.asyncio.client import connect

from labkit.simulator.clock import Clock

HOST = Path(__file__).with_name("node_host.py")
SLEEP = "trap exit TERM; sleep 600 & wait"  # ends at SIGTERM, unlike a `sleep` that is process 1


def until(condition: Callable, what: str = "", seconds: float = 60):
    """Return the first true result."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"{what or condition} did not come true"
        time.sleep(0.02)
    return result


@dataclass
class Host:
    process: subprocess.Popen
    folder: Path
    mounts: str
    api: CoreV1Api

    @property
    def clock(self) -> Clock:
        return Clock(self.folder / "clock")

    def create(self, name: str, *containers: dict, **spec) -> client.V1Pod:
        metadata = {"name": name, "labels": {"app": name}}
        body = {"metadata": metadata, "spec": {"containers": list(containers), "restartPolicy": "Never", **spec}}
        return self.api.create_namespaced_pod("default", body)

    def read(self, name: str) -> client.V1Pod:
        return self.api.read_namespaced_pod(name, "default")

    def in_phase(self, name: str, *phases: str) -> client.V1Pod:
        def pod():
            found = self.read(name)
            return found if found.status.phase in phases else None

        return until(pod, f"{name} is {phases}")

    def running(self, name: str) -> client.V1Pod:
        return self.in_phase(name, "Running")

    def log(self, name: str, **query) -> str:
        return self.api.read_namespaced_pod_log(name, "default", **query)

    def output_of(self, name: str, *containers: dict, **spec) -> str:
        """Run a pod to its end and return its log."""
        self.create(name, *containers, **spec)
        self.in_phase(name, "Succeeded", "Failed")
        return self.log(name)

    def exec(
        self, name: str, *command: str, stdin: str | None = None, tty: bool = False, protocol="v5.channel.k8s.io"
    ) -> "Done":
        asked = [("command", part) for part in command]
        asked += [(key, "true") for key in ("stdout", "stderr", *(["stdin"] * (stdin is not None)), *(["tty"] * tty))]
        url = f"{self.api.api_client.configuration.host}/api/v1/namespaces/default/pods/{name}/exec?{urlencode(asked)}"
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        context.load_cert_chain(self.folder / "admin.pem")
        received = dict.fromkeys(range(5), b"")
        options = {"subprotocols": [protocol], "ssl": context, "compression": None, "proxy": None}

        async def talk() -> None:
            async with connect(url.replace("https:", "wss:"), **options) as socket:
                assert socket.subprotocol == protocol
                if tty:
                    await socket.send(b"\x04" + json.dumps({"Width": 91, "Height": 17}).encode())
                if stdin is not None:
                    await socket.send(b"\x00" + stdin.encode())
                    if protocol.startswith("v5") and not tty:
                        await socket.send(b"\xff\x00")
                async for frame in socket:
                    received[frame[0]] += frame[1:]

        asyncio.run(talk())
        return Done(received[1].decode(), received[2].decode(), json.loads(received[3]))

    def events(self, name: str) -> list[tuple[str, str]]:
        found = self.api.list_namespaced_event("default", field_selector=f"involvedObject.name={name}").items
        return [(event.reason, event.message) for event in found]

    def pod_folder(self, name: str) -> Path:
        return self.folder / "node" / "pods" / self.read(name).metadata.uid

    def home(self, name: str) -> Path:
        """The home folder of the pod's first container, on this machine."""
        folder = self.pod_folder(name)
        return folder / "home" if self.mounts == "mapped" else next(folder.glob("containers/*/0/sandbox/root/root"))

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl as the administrator and return its output."""
        command = ["kubectl", "--server", self.api.api_client.configuration.host, "--cache-dir", self.folder / "cache"]
        command += ["--certificate-authority", self.folder / "ca.pem"]
        command += ["--client-certificate", self.folder / "admin.pem", "--client-key", self.folder / "admin.pem"]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, env=env, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@dataclass
class Done:
    stdout: str
    stderr: str
    status: dict


def started(folder: Path, *arguments: str, within: tuple[str, ...] = (), **options) -> Host:
    """Start a host; `within` is a command that starts another one."""
    env = {**os.environ, "AWS_PROFILE": "hostile", "AWS_ACCESS_KEY_ID": "AKIAHOSTILE", "HTTPS_PROXY": "http://hostile"}
    out = (folder / "out").open("wb")
    process = subprocess.Popen(
        [*within, sys.executable, HOST, folder, *arguments], env=env, stdout=out, stderr=subprocess.STDOUT, **options
    )
    until(lambda: (folder / "ready").exists() or process.poll() is not None, "the host is ready")
    assert process.poll() is None, (folder / "out").read_text()
    ready = json.loads((folder / "ready").read_text())
    configuration = Configuration()
    configuration.host, configuration.ssl_ca_cert = ready["url"], str(folder / "ca.pem")
    configuration.cert_file = configuration.key_file = str(folder / "admin.pem")
    configuration.proxy = None
    return Host(process, folder, ready["mounts"], CoreV1Api(ApiClient(configuration)))


def short_folder(mode: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"node-{mode}-"))
    folder.chmod(0o755)
    return folder


def ended(host: Host) -> None:
    host.process.terminate()
    host.process.wait(15)
    shutil.rmtree(host.folder)


def shell(script: str, **more) -> dict:
    return {"name": "app", "image": "amazon/aws-cli", "command": ["sh", "-c", script], **more}
