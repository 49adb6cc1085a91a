"""The life of one pod on a node: its volumes, its containers one after the other, its end."""

import asyncio
import contextlib
import logging
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from labkit.emulator.clock import Clock
from labkit.emulator.kubernetes.attachments import Attachments
from labkit.emulator.kubernetes.container_environment import ConfigError, expanded, variables_of
from labkit.emulator.kubernetes.container_logs import ContainerLog
from labkit.emulator.kubernetes.images import UnknownImage, entrypoint
from labkit.emulator.kubernetes.mounts import Mount, MountRefused, Mounts
from labkit.emulator.kubernetes.node_client import Events, NodeClient
from labkit.emulator.kubernetes.pod_status import ContainerStatus, PodStatus
from labkit.emulator.kubernetes.processes import Process, Reaper, Sandbox, SandboxError, end_all_of
from labkit.emulator.kubernetes.program_streams import Pipes, Terminal
from labkit.emulator.kubernetes.volumes import Volumes

log = logging.getLogger(__name__)

FIRST_BACKOFF, LONGEST_BACKOFF, FORGIVEN_AFTER = 10.0, 300.0, 600.0  # seconds of lab time
MISSING_RETRY = 1.0
TICK = 0.5  # seconds of real time after which the lab's clock is looked at again


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
    visible: tuple[Path, ...]
    private: bool
    own_processes: bool


class PodLife:
    """One pod, from the moment that it is bound to the node until it is gone."""

    def __init__(self, pod: dict, folder: Path, ground: Ground) -> None:
        self.pod = pod
        self.folder = folder
        self.status = PodStatus(pod, ground.clock.now())
        self.logs: dict[tuple[str, int], ContainerLog] = {}
        self._ground = ground
        metadata = pod["metadata"]
        self._path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        self._volumes = Volumes(
            pod,
            folder / "volumes",
            fetch=lambda kind, name: ground.client.fetch(metadata["namespace"], kind, name),
            request_token=lambda audience, seconds: ground.client.token(pod, audience, seconds),
        )
        self._home = folder / "home"
        self._running: dict[str, tuple[Process, Sandbox, dict[str, str], str]] = {}
        self.attachments: dict[str, Attachments] = {}
        self._begun: dict[str, asyncio.Event] = {}
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._living: asyncio.Task | None = None
        self._reporting: asyncio.Task | None = None
        self._ending: asyncio.Task | None = None

    def start(self) -> None:
        self._home.mkdir(parents=True)
        self._reporting = asyncio.create_task(self._report_changes())
        self._living = asyncio.create_task(self._live())

    def end(self, pod: dict) -> None:
        """The pod was marked for deletion: end it in the time that it is given, then delete it for good."""
        self.pod = pod
        if not self._ending:
            self._ending = asyncio.create_task(self._end(pod["metadata"].get("deletionGracePeriodSeconds", 30)))

    async def kill(self) -> None:
        """End everything at once, and remove the pod's folder; the API server is not told."""
        if self._ending and self._ending is not asyncio.current_task():
            self._ending.cancel()
        await self._stop_containers(0)
        if self._reporting:
            self._reporting.cancel()
        self._ground.events.forget(self.pod)
        await asyncio.to_thread(end_all_of, self._home)
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def renew_tokens(self) -> None:
        if not self._stop.is_set():
            await self._volumes.renew_due(self._ground.clock.now())

    async def exec(self, container: str, command: list[str], streams: Pipes | Terminal) -> Process:
        """Start a program in a running container. Raises KeyError, FileNotFoundError, PermissionError."""
        _, sandbox, env, cwd = self._running[container]
        await streams.open()
        program = sandbox.program(command[0], env["PATH"])
        return await sandbox.run([program, *command[1:]], env, cwd, streams)

    # Its life

    async def _live(self) -> None:
        try:
            if not await self._fill_volumes():
                return
            sidecars = []
            try:
                for status in self.status.init:
                    keeping = asyncio.create_task(self._keep(status))
                    if status.sidecar:
                        sidecars.append((status, keeping))
                        await self._first_of(self._begun.setdefault(status.name, asyncio.Event()).wait(), keeping)
                    elif not await keeping:
                        return
                await asyncio.gather(*(self._keep(status) for status in self.status.apps))
            finally:
                self._stop.set()
                for status, keeping in sidecars:
                    await self._stop_container(status.name, keeping, self._grace)
        except Exception:
            log.exception("the pod %s ended by an error of the node", self.pod["metadata"]["name"])
        finally:
            self._changed.set()

    @property
    def _grace(self) -> float:
        return float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    async def _fill_volumes(self) -> bool:
        while not self._stop.is_set():
            try:
                await self._volumes.fill(self._ground.clock.now())
                return True
            except (ConfigError, httpx.HTTPError, OSError) as error:
                self._ground.events.add(self.pod, "FailedMount", _said(error), warning=True)
            await self._pause(MISSING_RETRY)
        return False

    async def _keep(self, status: ContainerStatus) -> bool:
        """Run a container again as its pod's policy wants. Returns whether its last run was a success."""
        policy = "Always" if status.sidecar else self.pod["spec"].get("restartPolicy", "Always")
        backoff = 0.0
        while not self._stop.is_set():
            begun = self._ground.clock.now()
            try:
                code = await self._run(status)
            except UnknownImage as error:
                backoff = min(max(backoff * 2, FIRST_BACKOFF), LONGEST_BACKOFF)
                await self._wait_for_image(status, str(error), backoff)
                continue
            except ConfigError as error:
                await self._wait_for(status, "CreateContainerConfigError", error)
                continue
            except (MountRefused, SandboxError, OSError, httpx.HTTPError) as error:
                await self._wait_for(status, "CreateContainerError", error)
                continue
            done = code == 0 if status.init and policy == "Always" else policy == "OnFailure" and code == 0
            if self._stop.is_set() or policy == "Never" or (done and not status.sidecar):
                break
            if self._ground.clock.now() - begun > FORGIVEN_AFTER:
                backoff = 0.0
            if backoff:
                await self._back_off(status, backoff)
            backoff = min(max(backoff * 2, FIRST_BACKOFF), LONGEST_BACKOFF)
            if not self._stop.is_set():
                status.restarts += 1
        return status.exit_code == 0

    async def _run(self, status: ContainerStatus) -> int:
        """Run a container once; returns its exit code."""
        spec, ground, name = status.spec, self._ground, status.name
        image = spec["image"]
        argv = entrypoint(image, ground.images)
        given = ground.before(self.pod, self._home)
        made = await variables_of(spec, self.pod, given, self._fetch)
        env = given | made | ground.after
        if spec.get("command"):
            argv = [expanded(part, given | made) for part in spec["command"]]
        argv += [expanded(part, given | made) for part in spec.get("args") or ()]
        folder = self.folder / "containers" / name / str(status.restarts)
        ground.events.add(self.pod, "Pulled", f'Container image "{image}" already present on machine', container=name)
        sandbox = Sandbox(
            self._mounts(spec),
            ground.reaper,
            folder=folder / "sandbox",
            private=ground.private,
            own_processes=ground.own_processes,
        )
        written = ContainerLog(folder / "log", ground.clock.now)
        self.logs = {key: kept for key, kept in self.logs.items() if key[0] != name or key[1] == status.restarts - 1}
        self.logs[name, status.restarts] = written
        try:
            await sandbox.open(visible=(self._home, *ground.visible))
            ground.events.add(self.pod, "Created", f"Created container: {name}", container=name)
            return await self._run_in(sandbox, status, argv, env, written)
        finally:
            self._running.pop(name, None)
            await sandbox.close()
            written.close()
            await asyncio.to_thread(shutil.rmtree, folder / "sandbox", ignore_errors=True)
            self._changed.set()

    async def _run_in(
        self, sandbox: Sandbox, status: ContainerStatus, argv: list[str], env: dict[str, str], written: ContainerLog
    ) -> int:
        ground, name = self._ground, status.name
        cwd = status.spec.get("workingDir") or str(self._home)
        streams = Terminal() if status.spec.get("tty") else Pipes(stdin=status.spec.get("stdin", False))
        try:
            if not sandbox.mounts.on_host(cwd).is_dir():
                raise FileNotFoundError(f'chdir to cwd ("{cwd}") set in config.json failed: no such file or directory')
            program = sandbox.program(argv[0], env["PATH"])
            await streams.open()
            process = await sandbox.run([program, *argv[1:]], env, cwd, streams)
        except OSError as error:
            streams.close()
            message = f"unable to start container process: {_said(error)}"
            status.ends(ground.clock.now(), 128, "StartError", message)
            ground.events.add(self.pod, "Failed", f"Error: {message}", container=name, warning=True)
            return 128
        uid = self.pod["metadata"]["uid"]
        status.starts(ground.clock.now(), f"process://{uid}/{name}/{status.restarts}")
        self._running[name] = (process, sandbox, env, cwd)
        self._begun.setdefault(name, asyncio.Event()).set()
        self._changed.set()
        ground.events.add(self.pod, "Started", f"Started container {name}", container=name)
        attached = Attachments(streams, closes_input=status.spec.get("stdinOnce", False))
        self.attachments[name] = attached
        copying = asyncio.create_task(attached.copy(written))
        if self._stop.is_set() and not status.sidecar:
            process.kill()
        code = await process.wait()
        await sandbox.close()
        streams.program_has_ended()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(copying, 2)
        streams.close()
        del self.attachments[name]
        status.ends(ground.clock.now(), code)
        return code

    def _mounts(self, spec: dict) -> Mounts:
        mounts = []
        for mount in spec.get("volumeMounts") or ():
            if mount["name"] not in self._volumes.folders:
                raise MountRefused(f'the pod has no volume "{mount["name"]}" to mount at "{mount["mountPath"]}"')
            source = self._volumes.folders[mount["name"]]
            if mount.get("subPath"):
                source = source / mount["subPath"]
                if not source.exists():
                    source.mkdir(parents=True)
            mounts.append(Mount(mount["mountPath"], source, mount.get("readOnly", False)))
        return Mounts(mounts)

    async def _fetch(self, kind: str, name: str) -> dict | None:
        return await self._ground.client.fetch(self.pod["metadata"]["namespace"], kind, name)

    # Waiting

    async def _wait_for_image(self, status: ContainerStatus, message: str, backoff: float) -> None:
        image, name = status.spec["image"], status.name
        add = self._ground.events.add
        add(self.pod, "Pulling", f'Pulling image "{image}"', container=name)
        add(self.pod, "Failed", message, container=name, warning=True)
        add(self.pod, "Failed", "Error: ErrImagePull", container=name, warning=True)
        status.waits("ErrImagePull", message)
        self._changed.set()
        await self._pause(min(backoff / 10, 2.0))
        add(self.pod, "BackOff", f'Back-off pulling image "{image}"', container=name)
        add(self.pod, "Failed", "Error: ImagePullBackOff", container=name, warning=True)
        status.waits("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {message}')
        self._changed.set()
        await self._pause(backoff)

    async def _wait_for(self, status: ContainerStatus, reason: str, error: Exception) -> None:
        message = _said(error)
        self._ground.events.add(self.pod, "Failed", f"Error: {message}", container=status.name, warning=True)
        status.waits(reason, message)
        self._changed.set()
        await self._pause(MISSING_RETRY)

    async def _back_off(self, status: ContainerStatus, seconds: float) -> None:
        metadata = self.pod["metadata"]
        pod = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        message = f"back-off {_duration(seconds)} restarting failed container={status.name} pod={pod}"
        said = f"Back-off restarting failed container {status.name} in pod {pod}"
        self._ground.events.add(self.pod, "BackOff", said, container=status.name, warning=True)
        status.waits("CrashLoopBackOff", message)
        self._changed.set()
        await self._pause(seconds)

    async def _pause(self, seconds: float) -> None:
        """Wait for so much lab time, or until the pod is to end."""
        until = self._ground.clock.now() + seconds
        while not self._stop.is_set() and (left := until - self._ground.clock.now()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), min(left, TICK))

    async def _first_of(self, waiting, task: asyncio.Task) -> None:
        waiting, stopped = asyncio.ensure_future(waiting), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({waiting, stopped, task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        stopped.cancel()

    # Its end

    async def _end(self, grace: float) -> None:
        await self._stop_containers(grace)
        for attempt in range(20):
            try:
                document = self.status.document(self._ground.clock.now(), ended=True)
                await self._ground.client.patch(f"{self._path}/status", {"status": document})
                await self._ground.client.delete_pod(self.pod)
                return
            except httpx.HTTPError as error:
                log.warning("a pod could not be deleted (attempt %d): %s", attempt + 1, error)
                await asyncio.sleep(TICK)

    async def _stop_containers(self, grace: float) -> None:
        self._stop.set()
        if self._living:
            sidecars = {status.name for status in self.status.init if status.sidecar}
            for name, (process, *_) in list(self._running.items()):
                if name not in sidecars or not grace:
                    self._terminate(name, process, grace)
            done, _ = await asyncio.wait({self._living}, timeout=grace or 5)
            if not done:
                for process, *_ in list(self._running.values()):
                    process.kill()
                await asyncio.wait({self._living}, timeout=5)

    async def _stop_container(self, name: str, keeping: asyncio.Task, grace: float) -> None:
        if name in self._running:
            self._terminate(name, self._running[name][0], grace)
        done, _ = await asyncio.wait({keeping}, timeout=grace)
        if not done and name in self._running:
            self._running[name][0].kill()
            await asyncio.wait({keeping}, timeout=5)

    def _terminate(self, name: str, process: Process, grace: float) -> None:
        self._ground.events.add(self.pod, "Killing", f"Stopping container {name}", container=name)
        if grace:
            process.signal(signal.SIGTERM)
        else:
            process.kill()

    async def _report_changes(self) -> None:
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._ending:
                return
            ended = bool(self._living and self._living.done())
            document = self.status.document(self._ground.clock.now(), ended=ended)
            try:
                await self._ground.client.patch(f"{self._path}/status", {"status": document})
            except httpx.HTTPError as error:
                log.warning("a pod's status could not be reported: %s", error or type(error).__name__)
                await asyncio.sleep(TICK)
                self._changed.set()


def _said(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        with contextlib.suppress(ValueError, KeyError):
            return error.response.json()["message"]
    return str(error) or type(error).__name__


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return (f"{minutes}m" if minutes else "") + f"{rest}s"
