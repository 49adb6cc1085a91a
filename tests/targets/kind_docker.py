"""A stand-in for `docker`, so that the real program `kind` runs to its end without Docker.

No container runs. The program records what kind sends to its node. In place of `kubeadm init`, it starts a cluster of
`kind_existing`, with the issuer and the signing key from the configuration that kind wrote for kubeadm.
"""

import base64
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parents[2]
INFO = {"CgroupDriver": "systemd", "CgroupVersion": "2", "MemoryLimit": True, "PidsLimit": True, "CPUShares": True}
# The version in the node image of Debian's kind.
KUBERNETES = "v1.32.2"


def install(folder: Path) -> Path:
    """Create a folder for the PATH with the program in it, and return it."""
    folder.mkdir()
    call = f'"{sys.executable}" -m tests.targets.kind_docker "{folder}" "$@"'
    (folder / "docker").write_text(f'#!/bin/sh\ncd "{HERE}" && exec {call}\n')
    (folder / "docker").chmod(0o755)
    return folder


def kubeadm(folder: Path) -> list[dict]:
    """The configuration that kind wrote for kubeadm."""
    return [*yaml.safe_load_all((folder / "kubeadm.conf").read_text())]


def main(folder: Path, *call: str) -> None:
    said = " ".join(call)
    node = folder / "node"  # holds the node's name once kind has created it
    if said.startswith("info"):
        print(json.dumps(INFO | {"SecurityOptions": []}))
    elif said.startswith("run "):
        node.write_text(call[call.index("--name") + 1])
        (folder / "run").write_text(json.dumps(call))
    elif said.startswith("ps "):
        if node.exists():
            name = node.read_text()
            print(name.removesuffix("-control-plane") if 'io.x-k8s.kind.cluster"' in said else name)
    elif said.startswith("logs"):
        print("Reached target Multi-User System.")
    elif "HostPort" in said:
        print("127.0.0.1", port(folder), sep="\t")
    elif "kind.role" in said:
        print("control-plane")
    elif "NetworkSettings.Networks" in said:
        print("172.18.0.2,")
    elif said.endswith("cat /kind/version"):
        print(KUBERNETES)
    elif said.endswith("cp /dev/stdin /kind/kubeadm.conf"):
        (folder / "kubeadm.conf").write_text(sys.stdin.read())
    elif "kubeadm init" in said:
        begin(folder)
    elif said.endswith("cat /etc/kubernetes/admin.conf"):
        print(admin_kubeconfig(folder))
    elif "get nodes" in said:
        print("True")
    elif said.startswith("rm "):
        if (folder / "pid").exists():
            os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
        node.unlink()


def begin(folder: Path) -> None:
    (cluster,) = (each for each in kubeadm(folder) if each["kind"] == "ClusterConfiguration")
    arguments = cluster["apiServer"]["extraArgs"]
    key = Path(arguments["service-account-signing-key-file"])
    (mounted,) = re.findall(rf"--volume=([^ ]+?):{key.parent}:ro", " ".join(json.loads((folder / "run").read_text())))
    command = [sys.executable, "-m", "tests.targets.kind_existing", folder / "cluster"]
    command += [arguments["service-account-issuer"], Path(mounted) / key.name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    assert process.stdout.readline() == b"ready\n"
    (folder / "pid").write_text(str(process.pid))


def port(folder: Path) -> str:
    return json.loads((folder / "cluster/kubeconfig").read_text())["clusters"][0]["cluster"]["server"].rpartition(":")[
        2
    ]


def admin_kubeconfig(folder: Path) -> str:
    """The administrator's kubeconfig, as kubeadm writes it in the node."""
    authority, chain = (
        base64.b64encode((folder / "cluster" / name).read_bytes()).decode() for name in ("ca.pem", "existing.pem")
    )
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "kind", "cluster": {"server": "https://node:6443", "certificate-authority-data": authority}}
            ],
            "users": [
                {"name": "kubernetes-admin", "user": {"client-certificate-data": chain, "client-key-data": chain}}
            ],
            "contexts": [{"name": "admin@kind", "context": {"cluster": "kind", "user": "kubernetes-admin"}}],
            "current-context": "admin@kind",
        }
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
