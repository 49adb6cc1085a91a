"""Keep the proxy, the hub, its idle-culler and the board running: `python -m labkit.workshop.keeper FOLDER`, as root.

They end with the keeper. Participants' servers don't: the next hub finds them.
https://github.com/jupyterhub/configurable-http-proxy
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from labkit.workshop import networks
from labkit.workshop.settings import HUB_FILE, Workshop, read

PROXY = "node_modules/.bin/configurable-http-proxy"
# A program that ends sooner than this after its start waits longer and longer for the next one.
SETTLED = 30  # seconds
LONGEST_PAUSE = 10  # seconds


def main() -> None:
    workshop = read(Path(sys.argv[1]))
    signal.signal(signal.SIGTERM, _leave)
    programs = {
        "proxy": _proxy(workshop),
        "hub": _hub(workshop),
        "culler": _culler(workshop),
        "board": _board(workshop),
    }
    running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
    pauses = dict.fromkeys(programs, 0.0)
    try:
        while True:
            for name, command in programs.items():
                process, since = running.get(name, (None, 0.0))
                if process is not None and process.poll() is None:
                    continue
                if process is not None:
                    settled = time.monotonic() - since > SETTLED
                    pauses[name] = 0.0 if settled else min(pauses[name] * 2 + 0.5, LONGEST_PAUSE)
                time.sleep(pauses[name])
                running[name] = _started(workshop, name, command), time.monotonic()
            time.sleep(0.5)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def processes_file(workshop: Workshop) -> Path:
    """The file with the numbers of the workshop's own processes: the keeper's, and those that it started."""
    return workshop.state / "processes"


def certificate(workshop: Workshop) -> tuple[Path, Path] | None:
    """Return the files of the certificate and the key that the proxy presents; None without TLS."""
    if workshop.tls:
        return workshop.folder / workshop.tls.certificate, workshop.folder / workshop.tls.key
    return (workshop.state / "tls.crt", workshop.state / "tls.key") if workshop.is_public else None


def _started(workshop: Workshop, name: str, command: list[str]) -> "subprocess.Popen[bytes]":
    secrets = {
        "proxy": {"CONFIGPROXY_AUTH_TOKEN": (workshop.state / "proxy-token").read_text()},
        "culler": {"JUPYTERHUB_API_TOKEN": (workshop.state / "hub-token").read_text()},
        "board": {"JUPYTERHUB_API_TOKEN": (workshop.state / "board-token").read_text()},
    }
    with (workshop.state / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            env=os.environ | secrets.get(name, {}),
            cwd=workshop.state,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    with processes_file(workshop).open("a") as file:
        file.write(f"{process.pid}\n")
    return process


def _proxy(workshop: Workshop) -> list[str]:
    host, port = workshop.host_and_port()
    hub = hub_url(workshop)
    tls = certificate(workshop)
    return [
        *("node", str(workshop.state / "proxy" / PROXY), "--ip", host, "--port", str(port)),
        *("--api-ip", workshop.hub_address, "--api-port", str(networks.PROXY_API_PORT)),
        *("--default-target", hub, "--error-target", f"{hub}/hub/error"),
        *(("--ssl-cert", str(tls[0]), "--ssl-key", str(tls[1])) if tls else ()),
    ]


def _hub(workshop: Workshop) -> list[str]:
    return [sys.executable, "-m", "jupyterhub", "--config", str(workshop.folder / HUB_FILE)]


def _culler(workshop: Workshop) -> list[str]:
    return [
        *(sys.executable, "-m", "jupyterhub_idle_culler", "--url", f"{hub_url(workshop)}/hub/api"),
        *("--timeout", str(workshop.idle * 60), "--cull-every=60"),
    ]


def _board(workshop: Workshop) -> list[str]:
    return [sys.executable, "-m", "labkit.workshop.board.service", str(workshop.folder)]


def hub_url(workshop: Workshop) -> str:
    """The hub's address for this machine and for participants' servers, without the proxy."""
    return f"http://{workshop.hub_address}:{networks.HUB_PORT}"


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
