"""The life of one container: it starts, restarts according to its policy, and ends.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-restarts
"""

import asyncio
import contextlib
import signal
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import httpx

from labkit.simulator.kubernetes.node.addresses import Bindings
from labkit.simulator.kubernetes.node.client import said
from labkit.simulator.kubernetes.node.container_environment import ConfigError, expanded, variables_of
from labkit.simulator.kubernetes.node.container_logs import ContainerLog, termination_message
from labkit.simulator.kubernetes.node.handlers import NotTried, Probes, outcome_of
from labkit.simulator.kubernetes.node.images import ImageError, image_of
from labkit.simulator.kubernetes.node.limits import Limits
from labkit.simulator.kubernetes.node.mounts import Mount, MountRefused, Mounts
from labkit.simulator.kubernetes.node.pod import TICK, NodePod
from labkit.simulator.kubernetes.node.pod_status import ContainerStatus
from labkit.simulator.kubernetes.node.ports import Claim
from labkit.simulator.kubernetes.node.processes import Process, Sandbox, SandboxError
from labkit.simulator.kubernetes.node.program_streams import Attachments, Pipes, Terminal
from labkit.simulator.kubernetes.node.users import SecurityContext
from labkit.simulator.kubernetes.objects.kinds import Object

FIRST_BACKOFF, LONGEST_BACKOFF, FORGIVEN_AFTER = 10.0, 300.0, 600.0  # seconds of lab time
LEAST_GRACE = 2.0  # a container gets at least these seconds to end, except with a grace period of 0
MISSING_RETRY = 1.0  # seconds


@dataclass
class ContainerRun:
    """A running container: its program, and the sandbox in which further programs can run."""

    process: Process
    sandbox: Sandbox
    env: dict[str, str]
    cwd: str
    ending: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def end_within(self, seconds: float) -> None:
        """Wait for the program's end. After `seconds`, kill the program."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), seconds)
        self.process.kill()
        await self.ended.wait()


class ContainerLife:
    """One container. `run` is its current run; None while no program runs.

    The event `started` is set when the container has started. With a startup probe, the event is set only when this
    probe has succeeded.
    """

    def __init__(self, pod: NodePod, status: ContainerStatus) -> None:
        self.status = status
        self.run: ContainerRun | None = None
        self.started = asyncio.Event()
        self._pod = pod
        self._ground = pod.ground
        self._stop = asyncio.Event()
        self._keeping: asyncio.Task[bool] | None = None

    @property
    def is_done(self) -> bool:
        """Whether the container stays ended after a restart of the node.

        True if the container succeeded, isn't an init container, and the pod's restart policy is OnFailure.
        """
        return self._pod.policy == "OnFailure" and not self.status.init and self.status.exit_code == 0

    def start(self) -> asyncio.Task[bool]:
        """Run the container, again and again if its policy says so. The task returns whether the last run succeeded."""
        if self.status.has_run:  # before the node's last start
            self.status.restarts += 1
        self._keeping = asyncio.create_task(self._keep())
        return self._keeping

    async def exec(self, command: list[str], streams: Pipes | Terminal) -> Process:
        """Start another program in the container.

        Raises KeyError if the container doesn't run, and OSError if the program can't be started.
        """
        if self.run is None:
            raise KeyError(self.status.name)
        run, env = self.run, self.run.env
        if streams.is_terminal:
            env = {**env, "TERM": env.get("TERM", "xterm")}
        await streams.open()
        program = run.sandbox.program(command[0], env["PATH"])
        return await run.sandbox.run([program, *command[1:]], env, run.cwd, streams)

    async def end(self, grace: float, turn: asyncio.Future[object] | None = None) -> None:
        """End the container for good, within `grace` seconds; kill it at once if `grace` is 0.

        With a `turn`, send the stop signal only after `turn` is done.
        """
        self._stop.set()
        await self._terminate(grace, f"Stopping container {self.status.name}", turn)
        if self._keeping and not self._keeping.done():
            await asyncio.wait({self._keeping}, timeout=5)

    async def abandon(self) -> None:
        """Don't wait any longer for the container's end. Its node ends."""
        if self._keeping and not self._keeping.done():
            self._keeping.cancel()
            await asyncio.wait({self._keeping}, timeout=5)

    # Run after run

    async def _keep(self) -> bool:
        status, now = self.status, self._ground.clock.now
        policy = "Always" if status.sidecar else self._pod.policy
        backoff, failures = 0.0, 0
        while not self._stop.is_set():
            begun = now()
            try:
                code = await self._run_once()
            except ImageError as error:
                backoff = min(max(backoff * 2, FIRST_BACKOFF), LONGEST_BACKOFF)
                await self._wait_for_image(error, backoff)
                continue
            except (ConfigError, MountRefused, SandboxError, OSError, httpx.HTTPError) as error:
                failures += 1
                reason = "CreateContainerConfigError" if isinstance(error, ConfigError) else "CreateContainerError"
                if worth_saying(failures):
                    self._say("Failed", f"Error: {said(error)}", warning=True)
                await self._wait(reason, said(error), MISSING_RETRY)
                continue
            failures = 0
            enough = policy == "OnFailure" or (policy == "Always" and status.init and not status.sidecar)
            if self._stop.is_set() or policy == "Never" or (enough and code == 0):
                break
            if now() - begun > FORGIVEN_AFTER:
                backoff = 0.0
            if backoff:
                await self._back_off(backoff)
            backoff = min(max(backoff * 2, FIRST_BACKOFF), LONGEST_BACKOFF)
            if not self._stop.is_set():
                status.restarts += 1
        return status.exit_code == 0

    async def _run_once(self) -> int:
        """Run the container from its start to its end, and return its exit code."""
        spec, ground, pod, status = self.status.spec, self._ground, self._pod, self.status
        async with contextlib.AsyncExitStack() as ends:
            async with pod.opening:
                if self._stop.is_set() and not status.sidecar:
                    return 137
                image = image_of(spec, ground.images)
                security = SecurityContext(spec, pod.document)
                security.check(image.user)
                user = security.user(image.user, image.group)
                home = str(pod.home)
                if ground.own_processes:
                    home = image.home if user.uid == image.user else "/" if user.uid else "/root"
                given = ground.before(pod.document, Path(home))
                made = await variables_of(spec, pod.document, given, pod.fetch, ground.room)
                made = {name: ground.led.get(value, value) for name, value in made.items()}
                variables = given | made
                command, args = (
                    [expanded(part, variables) for part in spec.get(name) or ()] for name in ("command", "args")
                )
                what = f'Container image "{spec["image"]}" already present on machine and can be accessed by the pod'
                self._say("Pulled", what)
                folder = pod.folder / "containers" / status.name / str(status.restarts)
                folder.mkdir(parents=True, exist_ok=True)
                ground.users.remove(folder / "sandbox")  # left by a node that was killed
                sandbox = Sandbox(
                    self._mounts(folder / "termination-log", variables),
                    ground.reaper,
                    folder=folder / "sandbox",
                    private=ground.private,
                    own_processes=ground.own_processes,
                    users=ground.users,
                    user=user,
                    cwd=spec.get("workingDir") or (image.directory if ground.own_processes else str(pod.home)),
                )
                written = pod.new_log(status, folder / "log")
                metadata = pod.document["metadata"]
                run = f"{metadata['uid']}-{status.name}-{status.restarts}"
                limits = ground.limits.of(run, ((spec.get("resources") or {}).get("limits") or {}).get("memory", "0"))
                sandbox.within = limits.prefix
                ends.push_async_callback(self._close, sandbox, limits, written)
                await self._open(sandbox, home)
            self._say("Created", "Container created")
            not_given = [*security.not_given(ground.users.grade), *self._read_only()]
            for message in not_given if not status.restarts else ():
                self._say("NotEnforced", message, warning=True)
            argv = image.arguments(command, args)
            after = ground.after | (ground.on_host_network if pod.document["spec"].get("hostNetwork") else {})
            name = f"{metadata['namespace']}/{metadata['name']}"
            claim = Claim(name, pod.status.address, status.ports, sandbox.processes)
            with ground.ports.claimed(claim):
                return await self._run_in(sandbox, limits, argv, variables | after, written, claim=claim)

    async def _close(self, sandbox: Sandbox, limits: Limits, written: ContainerLog) -> None:
        self.run = None
        await sandbox.close()
        limits.close()
        written.close()
        self._pod.changed.set()
        await asyncio.to_thread(self._ground.users.remove, sandbox.folder)

    async def _open(self, sandbox: Sandbox, home: str) -> None:
        """Make the container's root directory, with the files that the lab's programs need in the home folder."""
        ground, pod, security = self._ground, self._pod, self.status.spec.get("securityContext") or {}
        texts = {str(PurePath(home.lstrip("/"), path)): text for path, text in ground.home.items()}
        await sandbox.open(
            ground.visible,
            read_only=bool(security.get("readOnlyRootFilesystem")),
            hostname=pod.hostname,
            texts=pod.network_files | (texts if ground.own_processes else {}),
        )

    async def _run_in(
        self,
        sandbox: Sandbox,
        limits: Limits,
        argv: list[str],
        env: dict[str, str],
        written: ContainerLog,
        *,
        claim: Claim,
    ) -> int:
        status, now = self.status, self._ground.clock.now
        status.port_is_free = not self._ground.ports.contested(claim)
        streams = Terminal() if status.spec.get("tty") else Pipes(stdin=status.spec.get("stdin", False))
        cwd = sandbox.cwd
        try:
            if not sandbox.on_host(cwd).is_dir():
                raise FileNotFoundError(f'chdir to cwd ("{cwd}") set in config.json failed: no such file or directory')
            program = sandbox.program(argv[0], env["PATH"])
            await streams.open()
            async with self._pod.starting:
                if self._stop.is_set() and not status.sidecar:
                    streams.close()
                    return 137
                process = await self._start(sandbox, [program, *argv[1:]], env, streams)
        except OSError as error:
            streams.close()
            message = f"unable to start container process: {said(error)}"
            status.ends(now(), 128, "StartError", message)
            self._say("Failed", f"Error: {message}", warning=True)
            return 128
        self.run = ContainerRun(process, sandbox, env, cwd)
        tasks = [
            asyncio.create_task(self._watch(self.run)),
            asyncio.create_task(limits.watch(sandbox.processes, process.kill)),
            asyncio.create_task(self._watch_ports(claim)),
        ]
        attachments = Attachments(streams, closes_input=status.spec.get("stdinOnce", False))
        self._pod.attachments[status.name] = attachments
        copying = asyncio.create_task(attachments.copy(written))
        try:
            if self._stop.is_set() and not status.sidecar:
                process.kill()
            code = await process.wait()
            self.run.ended.set()
            if code and (conflict := self._ground.ports.conflict(claim)):
                self._say("HostPortConflict", conflict, warning=True)
        finally:
            for task in tasks:
                task.cancel()
            self._pod.attachments.pop(status.name, None)  # no new client may attach; attached ones still get the rest
        await sandbox.close()
        streams.program_has_ended()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(copying, 2)
        streams.close()
        if not status.running:  # the program ended before its postStart hook
            self._starts()
        message = termination_message(status.spec, written.file, code)
        status.ends(now(), code, "OOMKilled" if limits.out_of_memory else "", message)
        return code

    async def _start(
        self, sandbox: Sandbox, argv: list[str], env: dict[str, str], streams: Pipes | Terminal
    ) -> Process:
        """Start the program. If the pod names ports, its servers get the pod's address."""
        ports = self._pod.ports
        if not ports:
            return await sandbox.run(argv, env, sandbox.cwd, streams)
        with Bindings(self._pod.status.address, ports) as bindings:
            return await sandbox.run(argv, env, sandbox.cwd, streams, bindings)

    async def _watch(self, run: ContainerRun) -> None:
        """Watch a started program, and end it if the postStart hook fails or the program becomes unhealthy."""
        self._say("Started", "Container started")
        hook = (self.status.spec.get("lifecycle") or {}).get("postStart")
        if hook and not await self._hook("PostStartHook", hook, run, None):
            await self._terminate(self._pod.grace, "FailedPostStartHook")
            return
        self._starts()
        self._probed()

        def say(message: str) -> None:
            if not run.ending:
                self._say("Unhealthy", message, warning=True)

        address = self._pod.status.address
        which = await Probes(
            self.status, execute=self.exec, say=say, changed=self._probed, address=address
        ).until_unhealthy()
        probe = self.status.spec[f"{which}Probe"]
        why = f"Container {self.status.name} failed {which} probe, will be restarted"
        await self._terminate(probe.get("terminationGracePeriodSeconds", self._pod.grace), why)

    async def _watch_ports(self, claim: Claim) -> None:
        """Keep the container unready while another pod or program listens on one of its ports."""
        is_new = True
        async for free, conflict in self._ground.ports.follow(claim):
            if conflict and is_new:
                is_new = False
                self._say("HostPortConflict", conflict, warning=True)
            if free != self.status.port_is_free:
                self.status.port_is_free = free
                self._pod.changed.set()

    def _starts(self) -> None:
        uid = self._pod.document["metadata"]["uid"]
        self.status.starts(self._ground.clock.now(), f"process://{uid}/{self.status.name}/{self.status.restarts}")
        self._pod.changed.set()

    def _probed(self) -> None:
        if self.status.started:
            self.started.set()
        self._pod.changed.set()

    def _mounts(self, message: Path, variables: dict[str, str]) -> Mounts:
        mounts, spec, volumes = [], self.status.spec, self._pod.volumes.folders
        for mount in spec.get("volumeMounts") or ():
            if mount["name"] not in volumes:
                raise MountRefused(f'the pod has no volume "{mount["name"]}" to mount at "{mount["mountPath"]}"')
            source = volumes[mount["name"]]
            if part := mount.get("subPath") or expanded(mount.get("subPathExpr") or "", variables):
                source = self._part(source, part, mount["name"])
            read_only = mount.get("readOnly", False) or self._pod.volumes.read_only(mount["name"])
            mounts.append(Mount(mount["mountPath"], source, read_only))
        if path := spec.get("terminationMessagePath"):
            message.touch()
            message.chmod(0o666)
            mounts.append(Mount(path, message))
        if self._ground.private and not self._ground.own_processes:
            mounts.append(Mount(str(self._pod.home), self._pod.home))
        return Mounts(mounts)

    def _read_only(self) -> list[str]:
        """Return, for each hostPath that the container would like to write and can't, one sentence."""
        volumes = self._pod.volumes
        names = [each["name"] for each in self.status.spec.get("volumeMounts") or () if not each.get("readOnly")]
        paths = [str(volumes.folders[name]) for name in names if volumes.of_this_machine(name)]
        why = "is read-only here: it's your machine's, not a node's"
        return [f"hostPath {path} {why}" for path in paths] if self._ground.private else []

    def _part(self, volume: Path, part: str, name: str) -> Path:
        """Return the path of a `subPath` in a volume's folder. If nothing exists at this path, create a folder there.

        https://github.com/kubernetes/kubernetes/blob/v1.36.0/pkg/kubelet/kubelet_pods.go
        """
        if part.startswith("/"):
            raise ConfigError(f"error SubPath `{part}` must not be an absolute path")
        if ".." in part.split("/"):
            raise ConfigError(f"unable to provision SubPath `{part}`: must not contain '..'")
        try:
            if not (volume / part).exists():
                if self._pod.volumes.of_this_machine(name):
                    raise PermissionError(volume)
                (volume / part).mkdir(parents=True)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            message = f'failed to prepare subPath for volumeMount "{name}" of container "{self.status.name}"'
            raise ConfigError(message) from error
        return volume / part

    # Its end

    async def _terminate(self, grace: float, why: str, turn: asyncio.Future[Any] | None = None) -> None:
        """Run the preStop hook, send the stop signal, and wait for the program's end."""
        run = self.run
        if run is None:
            return
        if run.ending:  # a second deletion may have shortened the time
            await run.end_within(grace)
            return
        run.ending = True
        self._say("Killing", why)
        until = asyncio.get_running_loop().time() + grace
        hook = (self.status.spec.get("lifecycle") or {}).get("preStop")
        if hook and grace:
            await self._hook("PreStopHook", hook, run, grace)
        if turn and grace:
            await asyncio.wait({turn}, timeout=max(until - asyncio.get_running_loop().time(), 0))
        if grace:
            name = (self.status.spec.get("lifecycle") or {}).get("stopSignal", "SIGTERM")
            run.process.ask(getattr(signal, name, signal.SIGTERM))
        await run.end_within(max(until - asyncio.get_running_loop().time(), LEAST_GRACE) if grace else 0)

    async def _hook(self, name: str, hook: Object, run: ContainerRun, seconds: float | None) -> bool:
        """Run a hook while the container runs, and return whether the hook succeeded."""
        doing = asyncio.create_task(outcome_of(hook, self.status.spec, self.exec, seconds, self._pod.status.address))
        ended = asyncio.create_task(run.ended.wait())
        try:
            await asyncio.wait({doing, ended}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                return False
            succeeded = doing.result().succeeded
        except NotTried:
            succeeded = False
        finally:
            doing.cancel()
            ended.cancel()
        if not succeeded:
            self._say(f"Failed{name}", f"{name} failed", warning=True)
        return succeeded

    # Waiting

    async def _wait_for_image(self, error: ImageError, backoff: float) -> None:
        image, message = self.status.spec["image"], str(error)
        if error.reason != "ErrImagePull":
            self._say(*error.event, warning=True)
            self._say("Failed", f"Error: {error.reason}", warning=True)
            await self._wait(error.reason, message, backoff)
            return
        self._say("Pulling", f'Pulling image "{image}"')
        self._say("Failed", f'Failed to pull image "{image}": {message}', warning=True)
        self._say("Failed", "Error: ErrImagePull", warning=True)
        await self._wait("ErrImagePull", message, min(backoff / 10, 2.0))
        self._say("BackOff", f'Back-off pulling image "{image}"')
        self._say("Failed", "Error: ImagePullBackOff", warning=True)
        await self._wait("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {message}', backoff)

    async def _back_off(self, seconds: float) -> None:
        metadata, name = self._pod.document["metadata"], self.status.name
        pod = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        self._say("BackOff", f"Back-off restarting failed container {name} in pod {pod}", warning=True)
        minutes, rest = divmod(int(seconds), 60)
        duration = (f"{minutes}m" if minutes else "") + f"{rest}s"
        message = f"back-off {duration} restarting failed container={name} pod={pod}"
        await self._wait("CrashLoopBackOff", message, seconds)

    async def _wait(self, reason: str, message: str, seconds: float) -> None:
        """Stay in the state Waiting for `seconds` of lab time, or until the container has to end."""
        self.status.waits(reason, message)
        self._pod.changed.set()
        now = self._ground.clock.now
        until = now() + seconds
        while not self._stop.is_set() and 0 < (left := until - now()) <= seconds + TICK:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), min(left, TICK))

    def _say(self, reason: str, message: str, *, warning: bool = False) -> None:
        which = f"spec.{'initContainers' if self.status.init else 'containers'}{{{self.status.name}}}"
        self._ground.events.add(self._pod.document, reason, message, field=which, warning=warning)


def worth_saying(failures: int) -> bool:
    """Whether to report the ``failures``-th failure in a row: yes for the 1st, 2nd, 4th, 8th and so on."""
    return failures & (failures - 1) == 0
