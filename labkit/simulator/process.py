"""Start the lab's server, find it again, and end it. Each folder has one server."""

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from labkit.connection import awaited
from labkit.errors import LabError
from labkit.simulator import control, replacement
from labkit.simulator.aws import moto_guard
from labkit.simulator.control import Reply
from labkit.simulator.environment import closed
from labkit.simulator.folder import SAID_AFTER, Folder

ACCOUNT_ID = "123456789012"
REGION = "us-east-1"  # the lab's own region; clusters may be in any region
READY_WITHIN = 60  # seconds; enough for a busy laptop
PATIENCE = 10  # times as long for a server that works, on a machine where many others do
ANSWERS_WITHIN = 20  # seconds
ENDED_WITHIN = 30  # seconds; the server ends its pods and writes its state first
CALLS = re.compile(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*", re.MULTILINE)  # not the error
UNTOLD = "untold"  # the file in the lab's folder with a note that no one has seen yet
# The tag of a cluster that joined the lab. Its value is the cluster's target.
TARGET_TAG = "labkit:target"


@dataclass(frozen=True)
class State:
    """The facts that clients need about a running lab. The server writes them to ``server.json``."""

    pid: int
    account_id: str
    region: str
    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    issuers: dict[str, int]  # the loopback port of each issuer, by the issuer's host name
    ca_file: Path
    kubeconfig: Path
    mounts: str = ""
    limits: str = ""  # how pods are kept within their limits, in words
    users: str = ""  # the users of pods' programs, in words
    pod_clock: bool = False
    callers_checked: bool = False  # whether the kernel names the user of a connection
    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)  # by context; a lab's own has a hop_limit
    notes: list[str] = field(default_factory=list)
    ended: str = ""
    note: str | None = None

    @classmethod
    def read(cls, folder: Folder) -> "State | None":
        """Return the state that the lab's last server wrote, even if that server has ended."""
        return cls.of(folder.read_json("server.json"))

    @classmethod
    def of(cls, content: Any) -> "State | None":
        """Return the state from a JSON document; None if another version of labkit wrote it."""
        try:
            state = cls(**content)
        except TypeError:
            return None
        return replace(state, ca_file=Path(state.ca_file), kubeconfig=Path(state.kubeconfig))

    def context(self, cluster: str, region: str) -> str:
        """Return the cluster's context in the kubeconfig: NAME, or NAME@REGION outside the lab's own region."""
        return context(cluster, region, self.region)

    def write(self, folder: Folder) -> None:
        """Write the state to ``server.json``."""
        folder.write_json("server.json", self.document())

    def document(self) -> dict[str, object]:
        """Return the state as a JSON document."""
        return asdict(self) | {"ca_file": str(self.ca_file), "kubeconfig": str(self.kubeconfig)}

    def noting(self, note: str | None) -> "State":
        """Return the state with a note for the person who opens the lab."""
        return replace(self, note=note)


def context(cluster: str, region: str, own_region: str) -> str:
    """Return a cluster's context in the kubeconfig: NAME, or NAME@REGION outside the lab's own region."""
    return cluster if region == own_region else f"{cluster}@{region}"


def start(folder: Folder, *, bare: bool = False) -> State:
    """Return the state of the folder's running server. Start a server if none runs.

    Two simultaneous callers get the same server. If an earlier server ended, the state's ``note`` says why, and which
    pods have started again. With ``bare``, the lab's clusters are API servers without webhooks and nodes. Raises
    :class:`LabError` if the new server doesn't come up, or if the running server doesn't answer.
    """
    if not folder.is_running():
        moto_guard.check_release()  # first: a start that can't succeed leaves nothing in the folder
    with turn(folder, "starting"):
        before = State.read(folder)
        if state := _running(folder):
            return state.noting(_untold(folder))
        _untold(folder)
        # Another program may have the ended server's process id now.
        _forget_state(folder)
        replacement.enter(folder)
        try:
            _spawn(folder, bare)
        except LabError as error:
            if not replacement.go_back(folder):
                raise
            raise LabError(
                f"The lab did not start with the snapshot's state, and has its previous state again: {error.what}",
                where=error.where,
                next="labkit up, then restore a snapshot that this version of labkit made",
            ) from error
        state = State.read(folder)
        if state is None:
            raise _not_up(folder, "it wrote no server.json")
        return state.noting(" ".join([*_restarted(before, state), *state.notes]) or None)


def start_again(folder: Folder, *, bare: bool = False) -> None:
    """Start the folder's server again, with `start`. Raises `LabError`.

    If `start` returns a note for the user, save the note in a file. The next call of `start` then returns the saved
    note if the server still runs, and discards it otherwise.
    """
    if note := start(folder, bare=bare).note:
        folder.write_private(folder.path / UNTOLD, note.encode())


def _forget_state(folder: Folder) -> None:
    with folder.usable():
        (folder.path / "server.json").unlink(missing_ok=True)


def _untold(folder: Folder) -> str | None:
    try:
        note = (folder.path / UNTOLD).read_text()
        (folder.path / UNTOLD).unlink()
    except FileNotFoundError:
        return None
    return note


def stop(folder: Folder) -> bool:
    """End the folder's server and everything that it started. Return whether a server ran.

    A server that doesn't answer is killed. Raises :class:`LabError` if the server can't be ended, for example because
    it runs on another machine.
    """
    if not folder.is_lab:
        return False
    # Wait for a command that is starting a server, because that server doesn't answer yet.
    with turn(folder, "ending"):
        return end(folder)


def end(folder: Folder) -> bool:
    """Do the same as `stop`, but don't take the lock of `turn`: the caller already has it."""
    ran = _end(folder)
    _forget_state(folder)
    return ran


def have_copied(folder: Folder, place: str, *, within: float) -> list[str] | None:
    """Let the folder's server copy the lab's state into the subfolder ``place``.

    Return an empty list after the copy. If AWS services have changes that the lab doesn't keep, copy nothing and return
    the names of these services. Return None if no server runs.

    Raises `LabError` if the copy fails, or takes longer than ``within`` seconds.
    """
    if _running(folder) is None:
        return None
    reply = control.ask(folder, f"copy {place}", within=within)
    if reply is None or reply.answer is None:
        raise LabError(f"The server of the lab in {folder.path} ended, or did not copy its state.", next="labkit up")
    if failed := reply.answer.get("failed"):
        raise LabError(**failed)
    unkept: list[str] | None = reply.answer.get("unkept")
    if unkept is None:
        raise LabError(
            f"The version of labkit that started the lab in {folder.path} has no snapshots.",
            next="labkit down, then the same command again",
        )
    return unkept


def forget(folder: Folder) -> None:
    """Delete the lab's files, except its ports and locks. Raises :class:`LabError` if the lab's server runs."""
    if not folder.path.is_dir():
        return
    with turn(folder, "emptying"):
        if folder.is_running():
            raise LabError(f"The lab in {folder.path} was started again meanwhile.", next="labkit reset")
        folder.forget()


def turn(folder: Folder, doing: str) -> AbstractContextManager[None]:
    """Return a context manager that holds the lock ``start.lock`` while its block runs.

    The block starts when no other command holds the lock. Raises `LabError` if the wait takes too long.

    ``doing`` says what the block does, such as "starting". A command that waits for this block prints ``doing``.
    """
    return folder.turn("start.lock", doing=f"{doing} the lab in {folder.path}", within=READY_WITHIN + 2 * ENDED_WITHIN)


def _running(folder: Folder) -> State | None:
    """Return the state of the folder's server. If no server runs, return None.

    If the server is ending, or if its state can't be read, make sure that the server ends, and return None.
    Raises `LabError` if the server doesn't answer, doesn't end, or runs in another container.
    """
    reply = _send(folder, "state")
    if reply is None:
        return None
    if reply.answer is None:
        raise silent(folder, reply)
    if reply.answer.get("network") != control.network():
        raise LabError(
            f"The lab in {folder.path} runs in another container, with another network.",
            next="labkit down, which ends that lab; then labkit up. Or set LABKIT_HOME, to start another lab here",
        )
    state = State.of(reply.answer.get("state"))
    if state and not state.ended:
        return state
    # The server is ending; or another version of labkit started it, and this version can't read its state.
    _end(folder)
    return None


def _end(folder: Folder) -> bool:
    """End the folder's server, and return whether a server ran."""
    reply = _send(folder, "end")
    if reply is None:
        return False
    if reply.answer is not None and _has_ended(folder):
        return True
    if not reply.pid:
        raise silent(folder, reply)
    import psutil  # it takes 0.05 s to load, and few commands need it

    with contextlib.suppress(psutil.NoSuchProcess):
        # psutil also remembers a process's start time. So this never kills a later process with the same id.
        process = psutil.Process(reply.pid)
        if folder.is_running():
            process.kill()
    if not _has_ended(folder):
        raise LabError(
            f"The lab's server (process {reply.pid}) was killed, but the operating system has not ended it yet.",
            where=str(folder.path),
            next="repeat labkit status until it says that no lab runs",
        )
    return True


def _send(folder: Folder, word: str) -> Reply | None:
    """Return the reply of the folder's server to ``word``. Wait at most ``ANSWERS_WITHIN`` seconds for an answer.

    Return None if no server runs, or if the server ends before it answers. Raises :class:`LabError` if the server can't
    be reached.
    """
    if not folder.is_running():
        return None
    if not _is_final(folder, reply := _reply(folder, word, SAID_AFTER)):
        with contextlib.suppress(OSError):  # the terminal may have been closed
            print(f"Waiting for an answer from the server of the lab in {folder.path} …", file=sys.stderr)
        reply = _reply(folder, word, ANSWERS_WITHIN - SAID_AFTER)
    if reply is None and folder.is_running():
        raise LabError(unreachable(folder), next="labkit down with that version, or on that machine; then labkit up")
    return reply if folder.is_running() or (reply and reply.answer is not None) else None


def _reply(folder: Folder, word: str, within: float) -> Reply | None:
    """Repeat ``word`` to the server until a reply is final, and return the last reply."""
    until = time.monotonic() + within
    return awaited(
        lambda: control.ask(folder, word, within=until - time.monotonic()),
        lambda reply: _is_final(folder, reply),
        within=within,
        every=0.05,
    )


def _is_final(folder: Folder, reply: Reply | None) -> bool:
    heard = reply is not None and (reply.answer is not None or reply.is_stopped)
    return heard or not folder.is_running()


def _has_ended(folder: Folder) -> bool:
    """Wait for the server's end, and return whether the server ended in time."""
    with folder.lock("server.lock", within=ENDED_WITHIN) as free:
        return free


def silent(folder: Folder, reply: Reply) -> LabError:
    """Return the error for a server that doesn't answer: why, and how to end the server."""
    whose = f"process {reply.pid}" if reply.pid else "a process of another container"
    why = f"{whose} was stopped" if reply.is_stopped else f"{whose} hangs, or was stopped"
    return LabError(
        f"The server of the lab in {folder.path} does not answer: {why}.",
        next="labkit down" if reply.pid else "labkit down, in that container",
    )


def unreachable(folder: Folder) -> str:
    """Return a sentence that says why labkit may be unable to reach the folder's server."""
    return (
        f"The lab in {folder.path} has a server that labkit cannot reach: it is starting or ending, another version of "
        "labkit started it, or it runs on another machine."
    )


def _spawn(folder: Folder, bare: bool) -> None:
    """Start the server and return when it answers."""
    reading, writing = os.pipe()
    with folder.log_file.open("ab") as log:
        folder.log_file.chmod(0o600)
        process = subprocess.Popen(
            [sys.executable, "-m", "labkit.simulator", str(folder.path), str(writing), *(["--bare"] if bare else [])],
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
        began = time.monotonic()
        if not _speaks(pipe, process.pid):
            process.kill()
            raise _not_up(folder, f"it was not ready within {time.monotonic() - began:.0f} s")
        if (said := pipe.readline()) != b"ready\n":
            code = process.wait()
            raise LabError(**json.loads(said)) if said else _not_up(folder, f"it ended with exit code {code}")


def _speaks(pipe: IO[bytes], pid: int) -> bool:
    """Wait until the server's pipe has an answer or its end. Return False if the server hangs."""
    used = 0.0
    for _ in range(PATIENCE):
        if select.select([pipe], [], [], READY_WITHIN)[0]:
            return True
        import psutil  # it takes 0.05 s to load, and few starts need it

        server = psutil.Process(pid)
        before, used = used, sum(server.cpu_times()[:2])
        if used == before and server.status() not in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP):
            return False
    return False


def _restarted(before: State | None, now: State) -> list[str]:
    """Return notes for a user whose lab was started again."""
    if before is None and not now.clusters:
        return []
    why = (before.ended or "was killed") if before else "was ended"
    said = [f"The lab's server {why} and was started again, with everything that was in the lab."]
    if now.clusters:
        said.append(f"The pods of {', '.join(sorted(now.clusters))} have started again.")
    return said


def _not_up(folder: Folder, what: str) -> LabError:
    """Return the error for a server that didn't start. Raise it if the disk is full."""
    folder.require_room()
    text = folder.log_file.read_text(errors="replace") if folder.log_file.exists() else ""
    last = CALLS.sub("", text).strip().splitlines()[-12:]
    log = "\n".join(f"    {line}" for line in last)
    return LabError(
        f"The lab's server did not come up: {what}. The end of {folder.log_file}:\n{log}",
        next="labkit up, which tries again and loses nothing; or labkit reset, which empties the lab",
    )
