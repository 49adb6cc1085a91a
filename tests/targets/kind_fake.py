"""A stand-in for the programs `kind` and `docker`, to test how labkit calls them, and nothing else.

The real kind does not run. Every call is recorded. The cluster that `kind create cluster` "makes" is one of
`kind_existing`, with the issuer and the signing key from the configuration.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parents[2]


def install(folder: Path, *, kind: str = "works", docker: str = "works") -> Path:
    """Create a folder for the PATH with both programs in it, and return it.

    Each program `works`, is `missing` or `fails`; docker can also be `rootless`. With a FIFO `hold` in the folder,
    `kind` stops half-way through creating a cluster: it writes its process id there, and waits for ever. With a file
    `stuck`, `kind` cannot delete a cluster.
    """
    folder.mkdir()
    for program, does in (("kind", kind), ("docker", docker)):
        if does == "missing":
            continue
        call = f'"{sys.executable}" -m tests.targets.kind_fake "{folder}" {does} {program} "$@"'
        (folder / program).write_text(f'#!/bin/sh\ncd "{HERE}" && exec {call}\n')
        (folder / program).chmod(0o755)
    return folder


def calls(folder: Path) -> list[list[str]]:
    """Return the calls of both programs, except `info` and `get`, which only read."""
    log = folder / "calls"
    made = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [call for call in made if call[1] not in ("info", "get")]


def main(folder: Path, does: str, *call: str) -> int:
    with (folder / "calls").open("a") as log:
        log.write(json.dumps(call) + "\n")
    clusters = folder / "clusters"
    clusters.mkdir(exist_ok=True)
    match call:
        case ["docker", "info"]:
            if does == "fails":
                print("Cannot connect to the Docker daemon. Is the docker daemon running?", file=sys.stderr)
            if does == "rootless":
                print(" Security Options:\n  seccomp\n   Profile: builtin\n  rootless\n  cgroupns")
            return does == "fails"
        case ["kind", "get", "clusters"]:
            print("\n".join(cluster.name for cluster in clusters.iterdir()))
        case ["kind", "create", "cluster", "--config", file, "--kubeconfig", kubeconfig, "--wait", _]:
            if does == "fails":
                print("ERROR: failed to create cluster: could not find a log line", file=sys.stderr)
                return 1
            create(clusters, yaml.safe_load(Path(file).read_text()), Path(kubeconfig))
            if (folder / "hold").exists():
                (folder / "hold").write_text(str(os.getpid()))
                signal.pause()
        case ["kind", "delete", "cluster", "--name", name]:
            if (folder / "stuck").exists():
                print("ERROR: failed to delete cluster: could not kill container", file=sys.stderr)
                return 1
            if (clusters / name).exists():
                os.kill(int((clusters / name).read_text()), signal.SIGTERM)
                (clusters / name).unlink()
        case _:
            print(f"unknown: {call}", file=sys.stderr)
            return 2
    return 0


def create(clusters: Path, config: dict, kubeconfig: Path) -> None:
    name = config["name"]
    patch = yaml.safe_load(config["kubeadmConfigPatches"][-1])
    arguments = {each["name"]: each["value"] for each in patch["apiServer"]["extraArgs"]}
    mount = config["nodes"][0]["extraMounts"][0]
    key = arguments["service-account-signing-key-file"].replace(mount["containerPath"], mount["hostPath"])
    folder = clusters.with_name(f"of-{name}")
    command = [sys.executable, "-m", "tests.targets.kind_existing", folder, arguments["service-account-issuer"], key]
    # In a session of its own, like a container: it outlives the program.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    assert process.stdout.readline() == b"ready\n"
    (clusters / name).write_text(str(process.pid))
    made = json.loads((folder / "kubeconfig").read_text())
    made["clusters"][0]["cluster"]["certificate-authority"] = str(folder / "ca.pem")
    chain = str(folder / "existing.pem")
    made["users"] = [{"name": "existing", "user": {"client-certificate": chain, "client-key": chain}}]
    context = {"cluster": "existing", "user": "existing"}
    made["contexts"] = [{"name": f"kind-{name}", "context": context}]
    kubeconfig.write_text(json.dumps(made | {"current-context": f"kind-{name}"}))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
