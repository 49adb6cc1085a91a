"""`make kubectl-lines`: type a learner's kubectl lines in a new lab, and compare the exit codes with a real cluster's.

`lines.json` has the lines, in order, and what they printed on a cluster of one node: Kubernetes 1.36 (API server,
kubelet, containerd), kubectl 1.32, no kube-proxy, no metrics server. `files/` has the manifests. `$IMG` is an image
with Python, boto3 and the AWS CLI 1. `differs.toml` lists the lines that exit otherwise in the lab.

With `LABKIT_KUBECONFIG` and `LABKIT_IMAGE`, type the lines on that cluster. With `WORDS`, also print what each line
printed, here and on the real cluster. Addresses, times, uids and generated names differ.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from tests.commands import LABKIT

HERE = Path(__file__).parent
TIMEOUT = 90  # seconds for one line


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="labkit-lines-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        kubeconfig, image = os.environ.get("LABKIT_KUBECONFIG"), os.environ.get("LABKIT_IMAGE", "python:3")
        differing: list[str] = []
        if not kubeconfig:
            differing = list(chain.from_iterable(tomllib.loads((HERE / "differs.toml").read_text()).values()))
            kubeconfig = stack.enter_context(lab(folder / ".lab"))
        for file in (HERE / "files").iterdir():
            (folder / file.name).write_text(file.read_text().replace("$IMG", image))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": name,
            "KUBECONFIG": kubeconfig,
            "KUBE_EDITOR": r"sed -i s/color:\ red/color:\ green/",
            "IMG": image,
        }
        recorded = json.loads((HERE / "lines.json").read_text())
        same, unexpected = 0, 0
        for expected in recorded:
            line = expected["line"]
            code, words = typed(line, environment, folder)
            is_same = code == expected["rc"]
            same += is_same
            unexpected += is_same == (line in differing)
            if is_same and line in differing:
                print(f"{line}\n  exits as on the cluster: delete it from differs.toml", flush=True)
            elif not is_same and line not in differing:
                print(f"{line}\n  cluster {expected['rc']}, here {code}: {words[-300:]}", flush=True)
            if "WORDS" in os.environ:
                print(f"$ {line}\n{words}\n--- the cluster\n{expected['stdout'] + expected['stderr']}", flush=True)
        print(f"{same} of {len(recorded)} lines exit as on a real cluster; unexpected: {unexpected}")
        return int(unexpected > 0)


@contextlib.contextmanager
def lab(home: Path) -> Iterator[str]:
    """A new lab, as the path of its kubeconfig."""
    environment = os.environ | {"LABKIT_HOME": str(home)}
    up = subprocess.run([LABKIT, "up", "--json"], env=environment, check=True, stdout=subprocess.PIPE)
    try:
        yield json.loads(up.stdout)["kubeconfig"]
    finally:
        subprocess.run([LABKIT, "down"], env=environment, check=True)


def typed(line: str, environment: dict[str, str], folder: Path) -> tuple[int | str, str]:
    """Type a line, and return its exit code and what it printed."""
    try:
        done = subprocess.run(
            ["bash", "-c", line],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no end in {TIMEOUT} seconds", ""
    return done.returncode, done.stdout.decode(errors="replace").strip()


sys.exit(main())
