"""The one background process of a lab: the gate (the lab's AWS), the public issuer and the clusters."""

import asyncio
import base64
import contextlib
import gc
import hashlib
import json
import logging
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from ssl import PEM_cert_to_DER_cert
from typing import Any

from labkit.connection import thumbprint
from labkit.errors import LabError
from labkit.simulator import control, environment, open_files, peer_credentials, replacement, snapshot_file, snapshots
from labkit.simulator.aws.answers import Refusal
from labkit.simulator.aws.gate import Gate
from labkit.simulator.aws.sessions import Keys
from labkit.simulator.aws.trail import Trail
from labkit.simulator.cluster import Clusters
from labkit.simulator.control import ControlSocket
from labkit.simulator.folder import Folder
from labkit.simulator.listener import Listener
from labkit.simulator.process import ACCOUNT_ID, READY_WITHIN, REGION, State
from labkit.simulator.running_lab import RunningLab

IDLE_SECONDS = 8 * 3600
START_AGAIN = """
import sys
from pathlib import Path
from labkit.simulator.folder import Folder
from labkit.simulator.process import start_again
start_again(Folder(Path(sys.argv[1])), bare="--bare" in sys.argv)
"""
OPEN_FILES, FEWEST_OPEN_FILES = 4096, 256
LOOKS_EVERY = 0.5  # seconds between two checks that the lab's folder still exists
FROZEN = 30.0  # seconds of processor time without such a check, after which the system ends the server

log = logging.getLogger(__name__)


def main() -> None:
    """Serve until the server is ended. The command line is ``python -m labkit.simulator FOLDER READY_FD [--bare]``.

    Write one line to the file descriptor READY_FD: ``ready``, or the error that prevents the start, as JSON.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # ASGI allows an application to refuse a WebSocket with an HTTP answer, but uvicorn logs that as an error.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: "without completing handshake" not in record.getMessage()
    )
    folder, ready = Folder(Path(sys.argv[1])), int(sys.argv[2])
    try:
        # Enough for a whole class with its pods.
        open_files.allow_open_files(OPEN_FILES, fewest=FEWEST_OPEN_FILES, to="the lab's server")
        # The starting command has made sure that no server runs. But each command that checks whether a server runs
        # holds the lock for a moment.
        with folder.lock("server.lock", within=READY_WITHIN) as alone:
            if not alone:
                sys.exit(f"another server holds {folder.path}")
            server = Server(folder, bare="--bare" in sys.argv)
            asyncio.run(server.serve(ready))
        if server.lab.gate.backend.thread.is_stuck:
            # A thread waits for moto, which doesn't return. The thread ends with this program, which also frees the
            # lock.
            os.execv(sys.executable, [sys.executable, "-c", START_AGAIN, str(folder.path), *sys.argv[3:]])  # noqa: S606
    except LabError as error:
        # Nothing can be written to the log if the disk is full.
        with contextlib.suppress(OSError):
            os.write(ready, json.dumps(_fields(error)).encode())
        sys.exit(str(error))


class Server:
    """All listeners of a lab, in one event loop."""

    def __init__(self, folder: Folder, *, bare: bool):
        self.folder = folder
        self.control = ControlSocket(folder)
        self.lab = RunningLab(folder, bare=bare)
        self.clusters = Clusters(self.lab)
        self.ended = asyncio.Event()
        self.why = "was ended"

    async def serve(self, ready: int) -> None:
        """Start, write one line to the file descriptor ``ready``, and serve.

        Return when a command or a hanging AWS call ends the server, or after 8 hours without a call.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ended.set)
        await self._come_up()
        await asyncio.start_unix_server(self._answer, sock=self.control.socket, backlog=control.WAITING)
        replacement.settle(self.folder)
        try:
            os.write(ready, b"ready\n")
        except BrokenPipeError:  # the starting command was interrupted, so no one knows about this server
            self.why = "was interrupted while it started"
            self.ended.set()
        os.close(ready)
        self.clusters.prepare()
        preparing = asyncio.create_task(self._prepare())
        await self._until_ended()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        preparing.cancel()
        self.lab.state = replace(self.lab.state, ended=self.why)
        with contextlib.suppress(LabError):  # a full disk; everything has to end all the same
            self.lab.state.write(self.folder)
        await self.clusters.stop()
        await self.lab.stop()

    async def _prepare(self) -> None:
        """Load the parts of moto that the first calls need, and make garbage collection rare."""
        await self.lab.gate.backend.prepare("eks", "iam")
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)

    async def _come_up(self) -> None:
        folder, lab = self.folder, self.lab
        keys, management = (
            Keys("AKIA" + lab.identifiers.base32("access-key", name, 16), _secret_access_key(folder.secret, name))
            for name in ("administrator", "management")
        )
        lab.gate = Gate(
            account_id=ACCOUNT_ID,
            region=REGION,
            clock=folder.clock,
            identifiers=lab.identifiers,
            trail=Trail(folder.trail_file),
            clusters=self.clusters,
            administrator=keys,
            management=management,
            state=None if lab.bare else folder.path,
            tell=self._tell,
        )
        lab.gate.backend.thread.on_stuck = self._get_stuck
        await lab.gate.ensure_organization()
        await lab.gate.know_authority(thumbprint(PEM_cert_to_DER_cert(folder.authority.certificate_pem.decode())))
        gate_socket = lab.ports.bind("gate")
        # From here on, callers wait. So no call fails because a cluster hasn't started again yet.
        gate_socket.listen()
        profiles = {"default": keys, "management": management}
        environment.write_aws_files(
            folder, REGION, {name: (one.access_key_id, one.secret_access_key) for name, one in profiles.items()}
        )
        lab.state = State(
            pid=os.getpid(),
            account_id=ACCOUNT_ID,
            region=REGION,
            endpoint_url=f"http://127.0.0.1:{gate_socket.getsockname()[1]}",
            access_key_id=keys.access_key_id,
            secret_access_key=keys.secret_access_key,
            issuers={},
            ca_file=folder.ca_file,
            kubeconfig=folder.kubeconfig,
            callers_checked=peer_credentials.is_available(),
            notes=[*lab.ports.notes, *folder.clock.mended()],
        )
        await lab.listen_as_issuer(REGION)
        await self.clusters.start_again()
        await lab.gate.forget_lost_clusters()
        await lab.listen(Listener(lab.gate, port_socket=gate_socket, on_call=lab.called))

    def _get_stuck(self) -> None:
        self.why = "had an AWS call that did not return"
        self.ended.set()

    def _tell(self, note: str) -> None:
        """Let `labkit status` show this note."""
        self.lab.state.notes.append(note)
        self.lab.state.write(self.folder)

    async def _until_ended(self) -> None:
        while True:
            # A single regular expression can block all threads. The system ends such a server; nothing is lost.
            signal.setitimer(signal.ITIMER_VIRTUAL, FROZEN)
            idle = time.monotonic() - self.lab.last_call
            if idle >= IDLE_SECONDS:
                self.why = "ended after 8 hours without a call"
                return
            if not self.control.is_in_place:
                # The server can't write its files any more, and a new folder at this path may be another lab's. The
                # pods end with the server.
                log.warning("%s was deleted or replaced: the lab's server ends", self.folder.path)
                os._exit(1)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), LOOKS_EVERY)
                return

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request that a command sent with `control.ask`."""
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, ValueError):
            word, _, place = (await reader.readline()).decode().strip().partition(" ")
            if word == "end":
                self.ended.set()
            # server.json has the same state, but may have been deleted.
            with contextlib.suppress(LabError):  # a full disk
                self.lab.state.write(self.folder)
            answer = {"state": self.lab.state.document(), "network": control.network()}
            if word == "copy":
                answer |= await self._copy(self.folder.path / Path(place).name)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()

    async def _copy(self, into: Path) -> dict[str, Any]:
        """Copy the lab's state at one moment to the folder ``into``, and return a dict for `process.have_copied`."""
        gate, loop = self.lab.gate, asyncio.get_running_loop()

        async def copy_others() -> None:
            snapshots.copy(self.folder, into, snapshot_file.OTHER_FILES)

        def whole() -> None:
            # While this runs in moto's thread, AWS changes nothing. While the event loop copies, nothing else changes.
            asyncio.run_coroutine_threadsafe(copy_others(), loop).result()
            snapshots.copy(self.folder, into, snapshot_file.AWS)

        try:
            if not gate.unkept:
                await gate.backend.run(whole)
            return {"unkept": gate.unkept}
        except LabError as error:
            return {"failed": _fields(error)}
        except Refusal as stuck:
            return {"failed": {"what": stuck.message, "where": "", "next": "labkit up"}}


def _fields(error: LabError) -> dict[str, str]:
    return {"what": error.what, "where": error.where, "next": error.next}


def _secret_access_key(secret: bytes, name: str) -> str:
    return base64.b64encode(hashlib.sha256(secret + name.encode()).digest()).decode()[:40].replace("=", "x")
