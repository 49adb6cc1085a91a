"""The life of one pod on a node: its volumes, its containers in their order, and its end."""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import httpx

from labkit.simulator.kubernetes.node import eviction
from labkit.simulator.kubernetes.node.client import said
from labkit.simulator.kubernetes.node.container_life import MISSING_RETRY, ContainerLife, worth_saying
from labkit.simulator.kubernetes.node.pod import REFRESH, TICK, Ground, NodePod
from labkit.simulator.kubernetes.node.processes import Process, end_all_of
from labkit.simulator.kubernetes.node.program_streams import Pipes, Terminal
from labkit.simulator.kubernetes.objects.kinds import Object

log = logging.getLogger(__name__)

FIRST_REPORT = 0.1  # seconds
EVICTION_GRACE = 1.0  # seconds
DEADLINE = {"reason": "DeadlineExceeded", "message": "Pod was active on the node longer than the specified deadline"}


class PodLife:
    """One pod, from its binding to the node until its deletion."""

    def __init__(self, pod: Object, folder: Path, ground: Ground) -> None:
        self.pod = NodePod(pod, folder, ground)
        self._refreshed = self._measured = time.monotonic()
        metadata = pod["metadata"]
        self._path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        status = self.pod.status
        self._containers = [ContainerLife(self.pod, each) for each in [*status.init, *status.apps]]
        self._has_run = any(each.has_run for each in [*status.init, *status.apps])
        self._given = 0.0  # the grace period (seconds) of the pod's latest deletion
        self._failures = 0  # how often in a row a refresh of the volumes has failed
        self._stop = asyncio.Event()
        self._living: asyncio.Task[None] | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._over: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the pod's containers.

        After a restart of the node, the pod's restart policy decides which of them start again.
        """
        spec, uid = self.pod.document["spec"], self.pod.document["metadata"]["uid"]
        if self.pod.ground.own_processes and not spec.get("hostNetwork"):
            self.pod.ports = set().union(*(each.status.ports for each in self._containers))
            self.pod.status.address = self.pod.ground.ports.addresses.take(uid, self.pod.ports)
            self._use(self.pod.document)
        # https://kubernetes.io/docs/concepts/storage/volumes/#emptydir
        volumes = spec.get("volumes") or ()
        in_memory = [each["name"] for each in volumes if (each.get("emptyDir") or {}).get("medium") == "Memory"]
        for folder in [self.pod.home, *(self.pod.volumes.folder / name for name in in_memory)]:
            self.pod.ground.users.remove(folder)
        self._reporting = asyncio.create_task(self._report_changes())
        self._living = asyncio.create_task(self._live())

    def change(self, pod: Object) -> None:
        """Use a new version of the pod's document.

        If labels or annotations changed, refresh the volumes soon.
        """
        before, now = self.pod.document["metadata"], pod["metadata"]
        if any(before.get(name) != now.get(name) for name in ("labels", "annotations")):
            self._refreshed = 0.0
        self._use(pod)
        generation = now.get("generation", 1)
        if generation != self.pod.status.generation:
            self.pod.status.generation = generation
            self.pod.changed.set()

    def _use(self, pod: Object) -> None:
        status = (pod.get("status") or {}) | {"podIP": self.pod.status.address}
        self.pod.document = self.pod.volumes.pod = {**pod, "status": status}

    def end(self) -> None:
        """End the containers of a pod that is being deleted, within its grace period. Then delete the pod for good."""
        grace = self.pod.document["metadata"].get("deletionGracePeriodSeconds", 30)
        if not self._ending:
            self._ending = asyncio.create_task(self._end(grace))
        elif grace < self._given:
            self._over = asyncio.create_task(self._end_containers(grace))
        self._given = grace

    async def remove(self, grace: float) -> None:
        """End the pod's containers within `grace` seconds, and remove the pod's folder."""
        await self.stop(grace)
        self.pod.ground.events.forget(self.pod.document)
        await asyncio.to_thread(self.pod.volumes.remove)
        await asyncio.to_thread(self.pod.ground.users.remove, self.pod.folder)

    async def stop(self, grace: float = 0.0) -> None:
        """End the pod's containers within `grace` seconds. The API server isn't told, as if the machine lost power."""
        for task in (self._ending, self._over, self._reporting):
            if task and task is not asyncio.current_task():
                task.cancel()
        await self._end_containers(grace)
        await asyncio.gather(*(container.abandon() for container in self._containers))
        await asyncio.to_thread(end_all_of, self.pod.home)

    async def evict(self, message: str) -> None:
        """End the pod for good, and remove its volumes' contents.

        https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#pod-selection-for-kubelet-eviction
        """
        if not self._stop.is_set():
            self.pod.status.why = {"reason": "Evicted", "message": message}
            self.pod.ground.events.add(self.pod.document, "Evicted", message, warning=True)
            await self._end_containers(EVICTION_GRACE)
            self.pod.changed.set()
        await asyncio.to_thread(self.pod.ground.users.remove, self.pod.home)
        await asyncio.to_thread(self.pod.volumes.remove)

    async def tend(self) -> None:
        """Do what is due: end the pod at its deadline, evict it, renew tokens, or refresh the volumes."""
        if self._stop.is_set() or not self._living:
            return
        if time.monotonic() - self._measured >= eviction.LOOK:
            self._measured = time.monotonic()
            users = self.pod.ground.users
            if message := await asyncio.to_thread(eviction.excess, self.pod.document, self.pod.folder, users):
                self._over = asyncio.create_task(self.evict(message))
                return
        deadline = self.pod.document["spec"].get("activeDeadlineSeconds")
        if deadline is not None and self.pod.ground.clock.now() - self.pod.status.started >= deadline:
            self._over = asyncio.create_task(self._exceed_deadline())
        elif self.pod.has_volumes and (self.pod.volumes.due or time.monotonic() - self._refreshed >= REFRESH):
            self._refreshed = time.monotonic()
            messages = await self.pod.volumes.fill()
            self._failures = self._failures + 1 if messages else 0
            for message in messages if worth_saying(self._failures) else ():
                self.pod.ground.events.add(self.pod.document, "FailedMount", message, warning=True)

    async def exec(self, container: str, command: list[str], streams: Pipes | Terminal) -> Process:
        """Start a program in a running container.

        Raises KeyError if the container doesn't run, and OSError if the program can't be started.
        """
        return await {life.status.name: life for life in self._containers}[container].exec(command, streams)

    # Its life

    async def _live(self) -> None:
        init = self._containers[: len(self.pod.status.init)]
        try:
            if self._has_run:
                if self.pod.policy == "Never":
                    return
                changed = "Pod sandbox changed, it will be killed and re-created."
                self.pod.ground.events.add(self.pod.document, "SandboxChanged", changed)
            if not await self._make_folders():
                return
            for container in init:
                keeping = container.start()
                if container.status.sidecar:
                    await self._first_of(container.started.wait(), keeping)
                elif not await keeping:
                    return
            if not self._stop.is_set():
                apps = [container for container in self._containers[len(init) :] if not container.is_done]
                await asyncio.gather(*(container.start() for container in apps))
        except Exception:
            log.exception("an error of the node ended the pod %s", self.pod.document["metadata"]["name"])
        finally:
            await self._end_containers(self.pod.grace)
            self.pod.ground.ports.addresses.release(self.pod.document["metadata"]["uid"])
            self.pod.changed.set()

    async def _make_folders(self) -> bool:
        """Return True once the pod's home folder and volumes are made. After an error, try again.

        Return False if the pod has to end before the folder and the volumes are made.
        """
        for attempt in itertools.count(1):
            reason, messages = "FailedToMakePodDataDirectories", self._make_home()
            if not messages:
                reason, messages = "FailedMount", await self.pod.volumes.fill()
            if self._stop.is_set():
                break
            if not messages:
                self.pod.has_volumes = True
                return True
            for message in messages if worth_saying(attempt) else ():
                self.pod.ground.events.add(self.pod.document, reason, message, warning=True)
            await self._first_of(asyncio.sleep(MISSING_RETRY))
        return False

    def _make_home(self) -> list[str]:
        """Make the containers' home folder, and return the errors in a kubelet's words."""
        try:
            self.pod.home.mkdir(parents=True, exist_ok=True)
            for path, text in self.pod.ground.home.items():
                (self.pod.home / path).parent.mkdir(parents=True, exist_ok=True)
                (self.pod.home / path).write_text(text)
        except OSError as error:
            return [f"error making pod data directories: {said(error)}"]
        return []

    async def _first_of(self, waiting: Awaitable[Any], *tasks: asyncio.Task[Any]) -> None:
        """Wait until ``waiting`` or one of the ``tasks`` is done, or until the pod has to end."""
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
                await self.pod.ground.client.delete_pod(self.pod.document)
                return
            except httpx.HTTPError as error:
                log.warning("could not delete a pod (attempt %d): %s", attempt + 1, error)
                await asyncio.sleep(TICK)

    async def _end_containers(self, grace: float) -> None:
        """End all containers within ``grace`` seconds, the sidecars last and in reverse order.

        https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
        """
        self._stop.set()
        others = [container for container in self._containers if not container.status.sidecar]
        ends: list[asyncio.Future[Any]] = [asyncio.gather(*(container.end(grace) for container in others))]
        for sidecar in reversed([container for container in self._containers if container.status.sidecar]):
            ends.append(asyncio.ensure_future(sidecar.end(grace, ends[-1])))
        await asyncio.gather(*ends)

    async def _exceed_deadline(self) -> None:
        self.pod.status.why = DEADLINE
        self.pod.ground.events.add(self.pod.document, DEADLINE["reason"], DEADLINE["message"])
        await self._end_containers(self.pod.grace)
        self.pod.changed.set()

    async def _report_changes(self) -> None:
        # If a container starts immediately, its earlier state Waiting is never reported.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.pod.changed.wait(), FIRST_REPORT)
        self.pod.changed.set()
        while True:
            await self.pod.changed.wait()
            self.pod.changed.clear()
            if self._ending and self._ending.done():
                return
            try:
                await self._report(ended=bool(self._living and self._living.done()))
            except httpx.HTTPError as error:
                log.warning("could not report a pod's status: %s", said(error))
                await asyncio.sleep(TICK)
                self.pod.changed.set()

    async def _report(self, *, ended: bool) -> None:
        document = self.pod.status.document(self.pod.ground.clock.now(), ended=ended)
        await self.pod.ground.client.patch(f"{self._path}/status", {"status": document})
