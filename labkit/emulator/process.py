"""The lab's server as seen from outside it: started once a folder, found again, ended."""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from labkit.emulator.environment import closed
from labkit.emulator.folder import Folder
from labkit.errors import LabError

ACCOUNT_ID = "123456789012"
REGION = "us-east-1"  # the lab's own; clusters may be in any
READY_WITHIN = 60  # seconds; a laptop that is busy still makes it
# The tag of a cluster that is not the lab's own and joined it: the target that it belongs to.
TARGET_TAG = "labkit:target"


@dataclass(frozen=True)
class State:
    """What a client has to know of a running lab. The server keeps it in ``server.json``."""

    pid: int
    account_id: str
    region: str
    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    issuers: dict[str, int]  # the loopback port of each issuer's host name
    ca_file: Path
    kubeconfig: Path
    mounts: str = ""
    pod_clock: bool = False
    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)  # issuer and endpoint by the kubeconfig's context
    notes: list[str] = field(default_factory=list)
    ended: str = ""
    note: str | None = None

    @classmethod
    def read(cls, folder: Folder) -> "State | None":
        """The state of the lab's last server, running or not; None where there was none or its file is not ours."""
        content = folder.read_json("server.json")
        try:
            state = cls(**content)
        except TypeError:
            return None
        return replace(state, ca_file=Path(state.ca_file), kubeconfig=Path(state.kubeconfig))

    def context(self, cluster: str, region: str) -> str:
        """What the cluster is called in the kubeconfig: its name, with its region where that is not the lab's own."""
        return context(cluster, region, self.region)

    def write(self, folder: Folder) -> None:
        """Keeps the state for the clients."""
        folder.write_json(
            "server.json", asdict(self) | {"ca_file": str(self.ca_file), "kubeconfig": str(self.kubeconfig)}
        )

    def noting(self, note: str | None) -> "State":
        """The same state with what there is to say to the one who asked for the lab."""
        return replace(self, note=note)


def context(cluster: str, region: str, own_region: str) -> str:
    """See `State.context`; no cluster's name has an @ in it."""
    return cluster if region == own_region else f"{cluster}@{region}"


def start(folder: Folder, *, bare: bool = False) -> State:
    """The state of the folder's running server, which is started where there is none.

    Two that call this at once get the same server. ``note`` says what there is to say: that an earlier server ended,
    why, and what is gone with it. The clusters of a ``bare`` lab are API servers alone, without webhook and node.
    Raises :class:`LabError` where the server does not come up.
    """
    folder.create()
    with folder.lock("start.lock"):
        state = State.read(folder)
        if folder.is_running():
            if state and not state.ended:
                return state.noting(None)
            if state is None:
                # Another version of labkit started it, and says of it what this one cannot read.
                _terminate(folder)
            # It is on its way out: its lock is free when it has ended.
            with folder.lock("server.lock"):
                pass
        note = _gone(state)
        # Its process id may be a stranger's by now: whoever ends the next server shall not find it.
        (folder.path / "server.json").unlink(missing_ok=True)
        _spawn(folder, bare)
        state = State.read(folder)
        if state is None:
            raise _not_up(folder, "it left no state")
        return state.noting(" ".join([*filter(None, [note]), *state.notes]) or None)


def stop(folder: Folder) -> bool:
    """Ends the folder's server and all that it started; returns whether there was one. Returns when it has ended."""
    if not folder.path.is_dir():
        return False
    # One that is being started has no process id to be ended by yet.
    with folder.lock("start.lock"):
        running = folder.is_running()
        if running:
            _terminate(folder)
        with folder.lock("server.lock"):
            (folder.path / "server.json").unlink(missing_ok=True)
    return running


def _terminate(folder: Folder) -> None:
    """Asks the folder's running server to end, whichever version of labkit started it."""
    pid = folder.read_json("server.json").get("pid")
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, signal.SIGTERM)


def forget(folder: Folder) -> None:
    """Takes away all that the lab keeps but its ports. The server has to have ended."""
    for entry in [*folder.path.iterdir()] if folder.path.is_dir() else []:
        if entry.name == "ports.json" or entry.name.endswith(".lock"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _spawn(folder: Folder, bare: bool) -> None:
    """Starts the server and returns when it answers."""
    reading, writing = os.pipe()
    with folder.log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "labkit.emulator", str(folder.path), str(writing), *(["--bare"] if bare else [])],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=closed(os.environ),
            cwd=folder.path,
            pass_fds=[writing],
            start_new_session=True,
        )
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answered, _, _ = select.select([pipe], [], [], READY_WITHIN)
        if not answered:
            process.kill()
            raise _not_up(folder, f"it was not ready within {READY_WITHIN} s")
        if pipe.readline() != b"ready\n":
            raise _not_up(folder, f"it ended with exit code {process.wait()}")


def _gone(state: State | None) -> str | None:
    """What to say of a server that is not there any more."""
    if state is None:
        return None
    clusters = ", ".join(sorted(state.clusters)) or "no cluster"
    why = state.ended or "was killed"
    return (
        f"The lab's server {why} and was started again. Gone with it: {clusters}, and what was in IAM, S3 and "
        "Kubernetes; the clock, the ports and the trail are kept. In a notebook lab.ready(…) builds it again."
    )


def _not_up(folder: Folder, what: str) -> LabError:
    last = folder.log_file.read_text(errors="replace").strip().splitlines()[-12:] if folder.log_file.exists() else []
    log = "\n".join(f"    {line}" for line in last)
    return LabError(
        f"the lab's server did not come up: {what}. The end of {folder.log_file}:\n{log}", next="labkit reset"
    )
