"""The life of one pod on a node: its volumes, its containers in their order, its end."""

import asyncio
import contextlib
import itertools
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from labkit.emulator.clock import Clock
from labkit.emulator.kubernetes.node.attachments import Attachments
from labkit.emulator.kubernetes.node.client import Events, NodeClient, said
from labkit.emulator.kubernetes.node.container_environment import Room
from labkit.emulator.kubernetes.node.container_life import MISSING_RETRY, TICK, ContainerLife, worth_saying
from labkit.emulator.kubernetes.node.container_logs import ContainerLog
from labkit.emulator.kubernetes.node.pod_status import ContainerStatus, PodStatus
from labkit.emulator.kubernetes.node.processes import Process, Reaper, end_all_of
from labkit.emulator.kubernetes.node.program_streams import Pipes, Terminal
from labkit.emulator.kubernetes.node.volumes import Volumes

log = logging.getLogger(__name__)

FIRST_REPORT = 0.1  # seconds
REFRESH = 5.0  # seconds of real time after which the objects in volumes are read again
DEADLINE = {
    "reason": "DeadlineExceeded",
    "message": "Pod was active on the node longer than the specified deadline",
}


@dataclass(frozen=True)
class Ground:
    """What a node gives to its pods."""

    client: NodeClient
    events: Events
    clock: Clock
    reaper: Reaper
    images: dict[str, list[str]]
    before: Callable[[dict, Path], dict[str, str]]  # variables that a pod's own replace: (pod, home) -> variables
    after: dict[str, str]  # variables that replace a pod's own
    home: dict[str, str]  # what stands in a pod's home folder: texts by their paths
    visible: tuple[Path, ...]
    room: Room
    private: bool
    own_processes: bool


class PodLife:
    """One pod, from the moment that it is bound to the node until it is gone."""

    def __init__(self, pod: dict, folder: Path, ground: Ground) -> None:
        self.pod = pod
        self.folder = folder
        self.ground = ground
        self.home = folder / "home"
        self.policy = pod["spec"].get("restartPolicy", "Always")
        self.status = PodStatus(pod, ground.clock.now())
        self.logs: dict[tuple[str, int], ContainerLog] = {}
        self.attachments: dict[str, Attachments] = {}
        self.volumes = Volumes(
            pod,
            folder / "volumes",
            fetch=lambda kind, name: self.fetch(kind, name, max_age=REFRESH - TICK if self._has_volumes else 0.0),
            request_token=lambda audience, seconds: ground.client.token(pod, audience, seconds),
            now=ground.clock.now,
            room=ground.room,
        )
        self._began = ground.clock.now()
        self._refreshed = time.monotonic()
        metadata = pod["metadata"]
        self._path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        self._containers = [ContainerLife(self, status) for status in [*self.status.init, *self.status.apps]]
        self._given = 0.0  # seconds, to end in
        self._has_volumes = False
        self._failures = 0  # refreshes of its volumes, one after the other, that failed
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._living: asyncio.Task | None = None
        self._reporting: asyncio.Task | None = None
        self._ending: asyncio.Task | None = None
        self._over: asyncio.Task | None = None

    def start(self) -> None:
        self.home.mkdir(parents=True)
        for path, text in self.ground.home.items():
            (self.home / path).parent.mkdir(parents=True, exist_ok=True)
            (self.home / path).write_text(text)
        self._reporting = asyncio.create_task(self._report_changes())
        self._living = asyncio.create_task(self._live())

    def change(self, pod: dict) -> None:
        """The pod's document is another one; its labels and annotations may be in its volumes."""
        before, now = self.pod["metadata"], pod["metadata"]
        if any(before.get(name) != now.get(name) for name in ("labels", "annotations")):
            self._refreshed = 0.0
        self.pod = self.volumes.pod = pod
        generation = now.get("generation", 1)
        if generation != self.status.generation:
            self.status.generation = generation
            self.changed()

    def end(self) -> None:
        """The pod was marked for deletion: end it in the time that it is given, then delete it for good."""
        grace = self.pod["metadata"].get("deletionGracePeriodSeconds", 30)
        if not self._ending:
            self._ending = asyncio.create_task(self._end(grace))
        elif grace < self._given:
            self._over = asyncio.create_task(self._end_containers(grace))
        self._given = grace

    async def kill(self, grace: float = 0.0) -> None:
        """End everything in so many seconds, and remove the pod's folder; the API server is not told."""
        for task in (self._ending, self._over):
            if task and task is not asyncio.current_task():
                task.cancel()
        await self._end_containers(grace)
        if self._reporting:
            self._reporting.cancel()
        self.ground.events.forget(self.pod)
        await asyncio.to_thread(end_all_of, self.home)
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def tend(self) -> None:
        """Do what time asks for: end the pod at its deadline, renew its tokens, read its volumes again."""
        if self._stop.is_set():
            return
        deadline = self.pod["spec"].get("activeDeadlineSeconds")
        if deadline is not None and self.ground.clock.now() - self._began >= deadline:
            self._over = asyncio.create_task(self._exceed_deadline())
        elif self._has_volumes and (self.volumes.due or time.monotonic() - self._refreshed >= REFRESH):
            self._refreshed = time.monotonic()
            messages = await self.volumes.fill()
            self._failures = self._failures + 1 if messages else 0
            for message in messages if worth_saying(self._failures) else ():
                self.ground.events.add(self.pod, "FailedMount", message, warning=True)

    async def exec(self, container: str, command: list[str], streams: Pipes | Terminal) -> Process:
        """Start a program in a running container. Raises KeyError, FileNotFoundError, PermissionError."""
        return await {life.status.name: life for life in self._containers}[container].exec(command, streams)

    # What its containers need

    @property
    def grace(self) -> float:
        return float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def changed(self) -> None:
        """The status is to be reported."""
        self._changed.set()

    def new_log(self, status: ContainerStatus, file: Path) -> ContainerLog:
        """The log of a container's next run; that of the run before is kept, and none that is older."""
        name, run = status.name, status.restarts
        for older in [key for key in self.logs if key[0] == name and key[1] != run - 1]:
            self.logs.pop(older).file.unlink(missing_ok=True)
        self.logs[name, run] = ContainerLog(file, self.ground.clock.now)
        return self.logs[name, run]

    async def fetch(self, kind: str, name: str, *, max_age: float = 0.0) -> dict | None:
        """A ConfigMap or Secret of the pod's namespace, as it was so many seconds ago at most."""
        return await self.ground.client.fetch(self.pod["metadata"]["namespace"], kind, name, max_age=max_age)

    # Its life

    async def _live(self) -> None:
        init = self._containers[: len(self.status.init)]
        try:
            if not await self._fill_volumes():
                return
            for container in init:
                keeping = container.start()
                if container.status.sidecar:
                    await self._first_of(container.started.wait(), keeping)
                elif not await keeping:
                    return
            if not self._stop.is_set():
                await asyncio.gather(*(container.start() for container in self._containers[len(init) :]))
        except Exception:
            log.exception("the pod %s ended by an error of the node", self.pod["metadata"]["name"])
        finally:
            await self._end_containers(self.grace)
            self.changed()

    async def _fill_volumes(self) -> bool:
        for attempt in itertools.count(1):
            messages = await self.volumes.fill()
            if self._stop.is_set():
                break
            if not messages:
                self._has_volumes = True
                return True
            for message in messages if worth_saying(attempt) else ():
                self.ground.events.add(self.pod, "FailedMount", message, warning=True)
            await self._first_of(asyncio.sleep(MISSING_RETRY))
        return False

    async def _first_of(self, waiting, *tasks: asyncio.Task) -> None:
        """Wait for one of them, or until the pod is to end."""
        own = [asyncio.ensure_future(waiting), asyncio.ensure_future(self._stop.wait())]
        await asyncio.wait({*own, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in own:
            task.cancel()

    # Its end

    async def _end(self, grace: float) -> None:
        await self._end_containers(grace)
        if self._living:
            await asyncio.wait({self._living}, timeout=5)
        for attempt in range(20):
            try:
                await self._report(ended=True)
                await self.ground.client.delete_pod(self.pod)
                return
            except httpx.HTTPError as error:
                log.warning("a pod could not be deleted (attempt %d): %s", attempt + 1, error)
                await asyncio.sleep(TICK)

    async def _end_containers(self, grace: float) -> None:
        """The sidecars after all others, the last one first. https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/"""
        self._stop.set()
        others = [container for container in self._containers if not container.status.sidecar]
        ends = [asyncio.gather(*(container.end(grace) for container in others))]
        for sidecar in reversed([container for container in self._containers if container.status.sidecar]):
            ends.append(asyncio.ensure_future(sidecar.end(grace, ends[-1])))
        await asyncio.gather(*ends)

    async def _exceed_deadline(self) -> None:
        self.status.why = DEADLINE
        self.ground.events.add(self.pod, DEADLINE["reason"], DEADLINE["message"])
        await self._end_containers(self.grace)
        self.changed()

    async def _report_changes(self) -> None:
        # A container that starts at once is told at once, and no wait for it before.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), FIRST_REPORT)
        self.changed()
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._ending and self._ending.done():
                return
            try:
                await self._report(ended=bool(self._living and self._living.done()))
            except httpx.HTTPError as error:
                log.warning("a pod's status could not be reported: %s", said(error))
                await asyncio.sleep(TICK)
                self.changed()

    async def _report(self, *, ended: bool) -> None:
        document = self.status.document(self.ground.clock.now(), ended=ended)
        await self.ground.client.patch(f"{self._path}/status", {"status": document})
