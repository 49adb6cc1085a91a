"""What a hostile participant tries in a kernel. It prints a list with a line for each probe that gets through.

`FACTS` is JSON: what the participant could learn of the machine and of a neighbour.
"""

# ruff: noqa: F821

import json
import os
import socket
import subprocess
import urllib.request
from pathlib import Path

facts, through = json.loads(FACTS), []


def got(name, probe):
    try:
        answer = probe()
    except (OSError, subprocess.SubprocessError):
        return
    if answer or answer is None:
        through.append(f"{name}: {answer}")


def contents(path):
    return list(Path(path).iterdir()) if Path(path).is_dir() else Path(path).read_bytes()


def connected(address, port):
    with socket.create_connection((address, port), timeout=1) as there:
        return there.getpeername()


def shell(line):
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=20, check=True).stdout or "done"


def hub(method, path):
    request = urllib.request.Request(f"{facts['hub']}/hub/api/{path}", method=method)
    request.add_header("Authorization", f"token {os.environ['JUPYTERHUB_API_TOKEN']}")
    return urllib.request.urlopen(request, timeout=5).status


link = Path("link-to-a-neighbour")
for path in facts["files"]:
    got(f"reads {path}", lambda: contents(path))
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    got(f"reads {path} by a link", lambda: contents(link))
link.unlink(missing_ok=True)
for address, port in facts["listeners"]:
    got(f"reaches {address}:{port}", lambda: connected(address, port))
for pid in facts["processes"]:
    if not Path(f"/proc/{pid}").exists():  # its own processes have such numbers, too
        got(f"signals {pid}", lambda: os.kill(pid, 0))
uids = {process.stat().st_uid for process in Path("/proc").glob("[1-9]*")}
got("sees processes of others", lambda: uids - {os.getuid()})
for method, path in facts["calls"]:
    got(f"{method} {path}", lambda: hub(method, path))
for family in (socket.AF_INET, socket.AF_PACKET):
    got(f"opens a raw socket {family}", lambda: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP).fileno())
for line in facts["commands"]:
    got(line, lambda: shell(line))
status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
got("has capabilities", lambda: int(status["CapEff"], 16))
got("may get privileges", lambda: status["NoNewPrivs"] != "1")
got("knows keys of root", lambda: [key for key in Path("/proc/keys").read_text().splitlines() if key.split()[5] == "0"])
print(json.dumps(through))
