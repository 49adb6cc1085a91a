"""A container's probes, and the actions of probes and lifecycle hooks: a command, a page, a connection, a pause.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#probe-check-methods
https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from labkit.simulator.kubernetes.node.client import said
from labkit.simulator.kubernetes.node.pod_status import ContainerStatus
from labkit.simulator.kubernetes.node.processes import Process
from labkit.simulator.kubernetes.node.program_streams import Pipes
from labkit.simulator.kubernetes.objects.kinds import Object

LONGEST_OUTPUT = 10 * 1024  # bytes

Execute = Callable[[list[str], Pipes], Awaitable[Process]]


class NotTried(Exception):
    """A probe or hook could not run, or did not end in time."""


@dataclass(frozen=True)
class HandlerResult:
    succeeded: bool
    output: str = ""


async def outcome_of(
    handler: Object, container: Object, execute: Execute, seconds: float | None, address: str
) -> HandlerResult:
    """Run a probe or a hook within `seconds` (None: no limit), and return its outcome. Raises NotTried.

    `execute(command, streams)` starts a program in the container. An HTTP or TCP request without a host goes to the
    pod's `address`.
    """
    if "exec" in handler:
        return await _command(handler["exec"]["command"], execute, seconds)
    if "httpGet" in handler:
        return await _page(handler["httpGet"], container, seconds, address)
    if "tcpSocket" in handler:
        return await _connection(handler["tcpSocket"], container, seconds, address)
    if "sleep" in handler:
        await asyncio.sleep(handler["sleep"]["seconds"])
        return HandlerResult(True)
    raise NotTried("the moto target supports exec, httpGet, tcpSocket and sleep, but not grpc")


async def _command(command: list[str], execute: Execute, seconds: float | None) -> HandlerResult:
    streams = Pipes(stdin=False)
    try:
        process = await execute(command, streams)
    except (OSError, KeyError) as error:
        streams.close()
        why = "container not found" if isinstance(error, KeyError) else said(error)
        raise NotTried(f"rpc error: code = Unknown desc = failed to exec in container: {why}") from error
    reading = asyncio.gather(*(_read(streams, channel) for channel in streams.outputs))
    try:
        async with asyncio.timeout(seconds):
            code = await process.wait()
            output = b"".join(await reading)[:LONGEST_OUTPUT]
    except TimeoutError as error:
        raise NotTried(f'command timed out: "{" ".join(command)}" timed out after {seconds:g}s') from error
    finally:
        reading.cancel()
        process.kill()
        streams.close()
    return HandlerResult(code == 0, output.decode(errors="replace"))


async def _read(streams: Pipes, channel: int) -> bytes:
    kept = b""
    while data := await streams.read(channel, LONGEST_OUTPUT):
        kept = (kept + data)[:LONGEST_OUTPUT]
    return kept


async def _page(action: Object, container: Object, seconds: float | None, address: str) -> HandlerResult:
    host, port = action.get("host") or address, _port(action["port"], container)
    path = action.get("path") or "/"
    url = httpx.URL(f"{action.get('scheme', 'HTTP').lower()}://{host}:{port}{path if path[0] == '/' else '/' + path}")
    headers = {"User-Agent": "kube-probe/1.36", "Accept": "*/*"}
    headers |= {header["name"]: header["value"] for header in action.get("httpHeaders") or ()}
    # A kubelet, too, doesn't verify a container's certificate.
    unverified = httpx.AsyncClient(verify=False, trust_env=False)  # noqa: S501
    try:
        async with asyncio.timeout(seconds), unverified as client:
            answer = await client.get(url, headers=headers)
            for _ in range(10):
                # A kubelet follows a redirection on the same host. Any other redirection counts as a success.
                if not answer.next_request or answer.next_request.url.host != url.host:
                    break
                answer = await client.send(answer.next_request)
    except (TimeoutError, httpx.TimeoutException):
        why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    except httpx.ConnectError:
        why = f"dial tcp {host}:{port}: connect: connection refused"
    except httpx.HTTPError as error:
        why = f"{error or 'EOF'}"
    else:
        good = 200 <= answer.status_code < 400
        return HandlerResult(good, "" if good else f"HTTP probe failed with statuscode: {answer.status_code}")
    return HandlerResult(False, f'Get "{url}": {why}')


async def _connection(action: Object, container: Object, seconds: float | None, address: str) -> HandlerResult:
    host, port = action.get("host") or address, _port(action["port"], container)
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return HandlerResult(False, f"dial tcp {host}:{port}: i/o timeout")
    except OSError:
        return HandlerResult(False, f"dial tcp {host}:{port}: connect: connection refused")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return HandlerResult(True)


def _port(wanted: int | str, container: Object) -> int:
    """Return a port's number. ``wanted`` is the number itself, or the name of one of the container's ports.

    Raises NotTried if ``wanted`` gives no valid port number.
    """
    named = {port.get("name"): port["containerPort"] for port in container.get("ports") or ()}
    try:
        port = int(named.get(wanted, wanted))
    except ValueError as error:
        raise NotTried(f'strconv.Atoi: parsing "{wanted}": invalid syntax') from error
    if not 0 < port < 65536:
        raise NotTried(f"invalid port number: {port}")
    return port


@dataclass
class Probes:
    """The probes of one run of a container. Their times are real time, not lab time.

    `say(message)` is called for each failure, and `changed()` after each change of the status.
    https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-probes
    """

    status: ContainerStatus
    execute: Execute
    say: Callable[[str], None]
    changed: Callable[[], None]
    address: str
    began: float = field(default_factory=time.monotonic)

    async def until_unhealthy(self) -> str:
        """Run the probes until the startup or the liveness probe fails. Return "startup" or "liveness".

        Write the results to `started` and `passes` of the container's status.
        """
        spec = self.status.spec
        if "startupProbe" in spec:
            async for succeeded in self._results("Startup", spec["startupProbe"]):
                if not succeeded:
                    return "startup"
                break
            self.status.started = True
            self.changed()
        following = asyncio.create_task(self._follow_readiness())
        try:
            if "livenessProbe" in spec:
                async for succeeded in self._results("Liveness", spec["livenessProbe"]):
                    if not succeeded:
                        return "liveness"
            return await asyncio.Future()  # never
        finally:
            following.cancel()

    async def _follow_readiness(self) -> None:
        if "readinessProbe" not in self.status.spec:
            return
        async for succeeded in self._results("Readiness", self.status.spec["readinessProbe"]):
            if self.status.passes != succeeded:
                self.status.passes = succeeded
                self.changed()

    async def _results(self, kind: str, probe: Object) -> AsyncIterator[bool]:
        """Run a probe again and again, and yield each result that has reached the probe's threshold."""
        thresholds = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
        due = self.began + probe.get("initialDelaySeconds", 0)
        last, agreed = None, 0
        while True:
            await asyncio.sleep(max(due - time.monotonic(), 0))
            due = max(due, time.monotonic()) + probe.get("periodSeconds", 10)
            result = await self._probe(kind, probe)
            agreed = agreed + 1 if result == last else 1
            last = result
            if agreed >= thresholds[result]:
                yield result

    async def _probe(self, kind: str, probe: Object) -> bool:
        try:
            outcome = await outcome_of(
                probe, self.status.spec, self.execute, probe.get("timeoutSeconds", 1), self.address
            )
        except NotTried as error:
            self.say(f"{kind} probe errored and resulted in unknown state: {error}")
            return False
        if not outcome.succeeded:
            self.say(f"{kind} probe failed: {outcome.output}")
        return outcome.succeeded
