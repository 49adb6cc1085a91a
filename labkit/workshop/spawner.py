"""Start, watch and end a participant's server, in the hub's process.

https://jupyterhub.readthedocs.io/en/stable/reference/spawners.html
"""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import psutil
from jupyterhub.spawner import LocalProcessSpawner
from traitlets import Instance

from labkit.workshop import homes, limits, networks, sandbox, seats
from labkit.workshop.settings import Workshop

NICENESS = 10  # below the hub and the proxy, which otherwise starve while many servers start
ANSWERS_WITHIN = 900  # seconds; on a busy machine, a lab alone takes minutes
BUSY_AFTER = 60  # seconds
ENDS_WITHIN = 15  # seconds
JOIN_SESSION_KEYRING = 1


class Queue:
    """Servers that wait for their start, and the few that start now."""

    def __init__(self, at_a_time: int):
        self.turns = asyncio.Semaphore(at_a_time)
        self.waiting: list[str] = []


_queues: dict[str, Queue] = {}  # of each workshop; a process has one


class ParticipantSpawner(LocalProcessSpawner):  # type: ignore[misc]  # JupyterHub has no types
    """A participant's server: a uid, a network namespace, bubblewrap, limits, and a home."""

    workshop = Instance(Workshop, config=True, help="The workshop, as workshop.yaml describes it.")
    proc: "subprocess.Popen[bytes] | None"
    pid: int
    created: float | None = None
    """When the process of an earlier hub began, in seconds since 1970."""

    async def start(self) -> tuple[str, int]:
        """Start the server as soon as it's this participant's turn. Return its address and port."""
        queue = _queues.setdefault(self.workshop.key, Queue(self.workshop.starts))
        queue.waiting.append(self.user.name)
        try:
            await queue.turns.acquire()
        finally:
            queue.waiting.remove(self.user.name)
        try:
            self.port, self.ip = networks.SERVER_PORT, self.seat.address
            self.proc = await asyncio.to_thread(self._started)
            self.pid = self.proc.pid
            await self._until_it_answers()
        finally:
            queue.turns.release()
        return self.ip, self.port

    async def progress(self) -> AsyncIterator[dict[str, object]]:
        """Yield what the page shows while the server starts: the place in the queue, then the start itself."""
        queue = _queues.setdefault(self.workshop.key, Queue(self.workshop.starts))
        said = 0
        while self.user.name in queue.waiting:
            place = queue.waiting.index(self.user.name) + 1
            if place != said:
                said = place
                yield {
                    "progress": 10,
                    "message": f"Your place in the queue: {place}. {self.workshop.starts} start at a time.",
                }
            await asyncio.sleep(0.5)
        yield {"progress": 50, "message": "Your lab and JupyterLab are starting."}
        await asyncio.sleep(BUSY_AFTER)
        yield {"progress": 60, "message": "Many others are at work on this machine, so it takes longer. Just wait."}

    async def poll(self) -> int | None:
        """Return None while the server runs, otherwise its exit code, or 0 if that isn't known."""
        if self.proc is None and self.pid and not self._is_the_server():
            self.pid = 0
        code: int | None = await super().poll()
        return code

    async def stop(self, now: bool = False) -> None:
        """End the server, its kernels and its lab. The home stays."""
        with suppress(LookupError):
            os.kill(self._server(), signal.SIGTERM)
            if not now:
                await self.wait_for_death(ENDS_WITHIN)
        await asyncio.to_thread(clear, self.seat)
        await self.wait_for_death(ENDS_WITHIN)

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """Return the environment of the server."""
        home = sandbox.home(self.seat)
        return env | {
            "HOME": home,
            "USER": self.user.name,
            "SHELL": "/bin/bash",
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "LABKIT_HOME": f"{home}/.lab",
            # Each participant has no more than one lab, and numerical libraries would start a thread for each core.
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
            "MALLOC_TRIM_THRESHOLD_": "131072",
        }

    @property
    def seat(self) -> seats.Seat:
        """The participant's seat. Raises `LabError` if the workshop is full."""
        return seats.take(self.workshop, self.user.name)

    def get_state(self) -> dict[str, object]:
        """Return what a restarted hub needs to find the server."""
        state: dict[str, object] = super().get_state()
        if self.pid:
            with suppress(psutil.Error):
                state["created"] = psutil.Process(self.pid).create_time()
        return state

    def load_state(self, state: dict[str, object]) -> None:
        """Find the server of an earlier hub."""
        super().load_state(state)
        created = state.get("created")
        self.created = created if isinstance(created, float) else None

    def _started(self) -> "subprocess.Popen[bytes]":
        seat = self.seat
        clear(seat)
        sandbox.write_accounts(seat)
        networks.build(seat)
        mounting = homes.prepare(seat)
        with self._log().open("ab") as output:
            return subprocess.Popen(
                sandbox.command(seat, [*self.cmd, *self.get_args()], mounting),
                env=self.get_env(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_entering(seat),  # noqa: PLW1509  # it only makes system calls
                start_new_session=True,
            )

    def _is_the_server(self) -> bool:
        """Whether the process that an earlier hub started still runs: numbers of processes are used again."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            return process.create_time() == self.created and process.status() != psutil.STATUS_ZOMBIE
        return False

    def _server(self) -> int:
        """The number of the Jupyter server's process. Raises `LookupError` if it doesn't run."""
        with suppress(psutil.Error):
            for process in psutil.Process(self.pid).children(recursive=True):
                if sys.executable in process.cmdline()[:1]:
                    return process.pid
        raise LookupError

    async def _until_it_answers(self) -> None:
        """Wait until the server accepts a connection. Raises `NotStarted` if it ends, or takes too long."""
        for _ in range(ANSWERS_WITHIN * 5):
            if await self.poll() is not None:
                raise NotStarted(f"Your server ended while it started: {self._last_line()}")
            with suppress(OSError):
                _, writer = await asyncio.open_connection(self.ip, self.port)
                writer.close()
                return
            await asyncio.sleep(0.2)
        raise NotStarted(f"Your server doesn't answer: {self._last_line()}")

    def _last_line(self) -> str:
        text = self._log().read_text(errors="replace").strip()
        return (text.splitlines() or ["it wrote nothing"])[-1] + " Ask the leader, or try again."

    def _log(self) -> Path:
        return self.workshop.state / "logs" / f"{self.user.name}.log"


class NotStarted(Exception):
    """A server that couldn't start. The hub shows the sentence on the participant's page."""

    @property
    def jupyterhub_message(self) -> str:
        """The sentence."""
        return str(self)


def clear(seat: seats.Seat) -> None:
    """End all processes of a participant, and remove the namespace and the control groups."""
    for pid in networks.processes(seat.label):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid) for pid in networks.processes(seat.label) if psutil.pid_exists(pid)], 5)
    networks.remove(seat)
    limits.remove(seat.workshop, seat.label)


def _entering(seat: seats.Seat) -> Callable[[], None]:
    folders = limits.groups(seat)
    libc = ctypes.CDLL(None)
    call = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine)

    def enter() -> None:
        limits.enter(folders, seat)
        os.nice(NICENESS)
        if call:  # keyctl(2), so that the keys of this machine's session stay here
            libc.syscall(call, JOIN_SESSION_KEYRING, None)

    return enter
