"""A cluster made with the program `kind`: its API server starts with the lab's issuer, keys and audience.

https://kind.sigs.k8s.io/docs/user/configuration/
"""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from labkit.errors import LabError
from labkit.targets.kind.cluster import NotThisLabs
from labkit.targets.kind.kubeconfig import NOTHING

# The audience of tokens for the API itself, as on EKS. Tokens for AWS name another audience.
API_AUDIENCE = "https://kubernetes.default.svc"
KEYS = "/etc/kubernetes/labkit"  # in the node
READY_WITHIN = "180s"
# kind adds `-control-plane`, and a host name has at most 63 characters.
LONGEST_NAME = 48
EXISTING = "labkit up --target kind --kubeconfig FILE --context NAME"
# A line of `docker info` or `podman info` if no interface of this machine is in the containers' network.
# https://docs.docker.com/engine/security/rootless
APART = re.compile(r"^\s*(rootless(: true)?|Operating System: Docker Desktop)\s*$", re.MULTILINE)
INSTALL_KIND = "apt-get install kind, or: brew install kind   (or as https://kind.sigs.k8s.io says)"
STARTS = {"docker": "start Docker Desktop, or the service docker", "podman": "on macOS, podman machine start"}
INSTALL_DOCKER = "https://docs.docker.com/engine/install, or: apt-get install podman, or: brew install podman"


class ProgramMissing(LabError):
    """A program that is needed to make clusters isn't on the PATH, or doesn't run."""


class NotMade(LabError):
    """The program kind could not create or delete a cluster. The text quotes kind's output."""


def name_of(cluster: str, region: str) -> str:
    """Return the cluster's name for kind: lower-case letters, digits and hyphens, at most 48 characters."""
    name = re.sub(r"[^a-z0-9-]", "-", f"labkit-{cluster}-{region}".lower())
    if name == f"labkit-{cluster}-{region}" and len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 11]}-{hashlib.sha256(f'{cluster}@{region}'.encode()).hexdigest()[:10]}"


def configuration(name: str, issuer: str, keys: Path) -> dict[str, object]:
    """Return the configuration for kind; `keys` is the folder on this machine with `sa.key` and `sa.pub`.

    The configuration has kubeadm's patch twice: kind uses v1beta4 from Kubernetes 1.36 on, and v1beta3 before.
    https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/
    """
    keys_in_node = {"hostPath": str(keys), "containerPath": KEYS, "readOnly": True, "selinuxRelabel": True}
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "name": name,
        "nodes": [{"role": "control-plane", "extraMounts": [keys_in_node]}],
        "kubeadmConfigPatches": [
            yaml.safe_dump(cluster_configuration(issuer, version), sort_keys=False)
            for version in ("v1beta3", "v1beta4")
        ],
    }


def cluster_configuration(issuer: str, version: str) -> dict[str, object]:
    """Return the parts of kubeadm's ClusterConfiguration that differ from kind's defaults.

    https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/
    """
    volume = {"name": "labkit-keys", "hostPath": KEYS, "mountPath": KEYS, "readOnly": True, "pathType": "Directory"}
    api_server = {
        "service-account-issuer": issuer,
        "service-account-jwks-uri": f"{issuer}/keys",
        "service-account-signing-key-file": f"{KEYS}/sa.key",
        "service-account-key-file": f"{KEYS}/sa.pub",
        "api-audiences": API_AUDIENCE,
    }
    controller_manager = {"service-account-private-key-file": f"{KEYS}/sa.key"}
    return {
        "kind": "ClusterConfiguration",
        "apiVersion": f"kubeadm.k8s.io/{version}",
        "apiServer": {"extraArgs": _arguments(api_server, version), "extraVolumes": [volume]},
        "controllerManager": {"extraArgs": _arguments(controller_manager, version), "extraVolumes": [volume]},
    }


def write_keys(folder: Path) -> None:
    """Write a signing key (RSA 2048, as on EKS) and its public half, if they don't exist yet."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    if (folder / "sa.pub").exists():
        return
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file, content in (("sa.key", private), ("sa.pub", public)):
        (folder / file).touch(mode=0o600)
        (folder / file).write_bytes(content)


class KindProgram:
    """The program kind, with the container runtime that it uses on this machine."""

    def __init__(self) -> None:
        """Raise `ProgramMissing` if `kind` isn't installed, or if neither Docker nor Podman runs."""
        if not shutil.which("kind"):
            raise ProgramMissing(
                "The program kind is not on the PATH.",
                where=f"PATH; {NOTHING}",
                next=f"{INSTALL_KIND}\n       or: {EXISTING}",
            )
        program, info = _runtime()
        self._environment = {**os.environ, **({"KIND_EXPERIMENTAL_PROVIDER": "podman"} if program == "podman" else {})}
        self.is_apart = sys.platform == "darwin" or bool(APART.search(info))
        """Whether this machine can't reach the nodes: they run in a virtual machine or in a rootless runtime."""

    def has(self, name: str) -> bool:
        """Return whether kind has a cluster of this name, whoever made it."""
        listed = self._run("get", "clusters")
        return listed.returncode == 0 and name in listed.stdout.split()

    def require_free(self, name: str) -> None:
        """Raise `NotThisLabs` if kind has a cluster of this name already."""
        if self.has(name):
            raise NotThisLabs(
                f"The kind cluster {name} doesn't belong to this lab. It was left unchanged.",
                where=f"kind get clusters; {NOTHING}",
                next=f"before you run again, delete the cluster if nobody needs it:  kind delete cluster --name {name}",
            )

    def create(self, config: dict[str, object], kubeconfig: Path) -> None:
        """Create the cluster and its kubeconfig. Raises `NotMade`. A failure may leave an incomplete cluster."""
        file = kubeconfig.with_name("kind.yaml")
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        done = self._run(
            "create", "cluster", "--config", str(file), "--kubeconfig", str(kubeconfig), "--wait", READY_WITHIN
        )
        if done.returncode:
            raise NotMade(
                f"kind could not create the cluster (exit code {done.returncode}):\n{_end(done.stderr)}",
                where=f"kind create cluster --name {config['name']}",
                next="correct the error that kind printed, and run again   (https://kind.sigs.k8s.io/docs/user/known-issues)",
            )

    def delete(self, name: str) -> None:
        """Delete the cluster if it exists. Raises `NotMade`."""
        done = self._run("delete", "cluster", "--name", name)
        if done.returncode:
            raise NotMade(
                f"kind could not delete the cluster (exit code {done.returncode}):\n{_end(done.stderr)}",
                where=f"kind delete cluster --name {name}",
                next=f"correct the error that kind printed, and run:  kind delete cluster --name {name}",
            )

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # In a session of its own: a terminal's Ctrl-C reaches only the lab, and the lab ends kind.
        with _ended_as_by_ctrl_c():
            process = subprocess.Popen(
                ["kind", *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            try:
                output, error = process.communicate()
            except BaseException:
                # Kill kind's children, too: a `docker run` that goes on would still create the node.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, output, error)


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Turn SIGTERM, and the SIGHUP of a closed terminal, into `SystemExit`, so that clean-ups run."""

    def end(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    # Only the main thread may set handlers. A signal that `nohup` ignores stays ignored.
    is_main = threading.current_thread() is threading.main_thread()
    numbers = [signal.SIGTERM, signal.SIGHUP] if is_main else []
    before = {number: there for number in numbers if (there := signal.getsignal(number)) is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, end)
        yield
    finally:
        for number, there in before.items():
            signal.signal(number, there)


def _runtime() -> tuple[str, str]:
    """Return the container runtime, `docker` or `podman`, and the output of its `info`."""
    there = [program for program in ("docker", "podman") if shutil.which(program)]
    if not there:
        raise ProgramMissing(
            "Neither Docker nor Podman is on the PATH: kind's nodes are containers.",
            where=f"PATH; {NOTHING}",
            next=f"{INSTALL_DOCKER}\n       or: {EXISTING}",
        )
    said = ""
    for program in there:
        done = subprocess.run([program, "info"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return program, done.stdout
        said = said or _end(done.stderr, 2)
    raise ProgramMissing(
        f"{' and '.join(there)} {'is' if len(there) == 1 else 'are'} installed, but not running:\n{said}",
        where=f"{there[0]} info; {NOTHING}",
        next="\n       or: ".join(f"{STARTS[each]}   (then check with: {each} info)" for each in there),
    )


def _arguments(arguments: dict[str, str], version: str) -> Any:
    if version == "v1beta3":
        return arguments
    return [{"name": name, "value": value} for name, value in arguments.items()]


def _end(text: str, lines: int = 12) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-lines:])
