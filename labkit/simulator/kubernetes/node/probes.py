"""A container's probes. Their times are real time, not lab time.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-probes
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from labkit.simulator.kubernetes.node.handlers import Execute, NotTried, outcome_of
from labkit.simulator.kubernetes.node.pod_status import ContainerStatus
from labkit.simulator.kubernetes.objects.kinds import Object


@dataclass
class Probes:
    """The probes of one run of a container.

    `say(message)` is called for each failure, and `changed()` after each change of the status.
    """

    status: ContainerStatus
    execute: Execute
    say: Callable[[str], None]
    changed: Callable[[], None]
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
            outcome = await outcome_of(probe, self.status.spec, self.execute, probe.get("timeoutSeconds", 1))
        except NotTried as error:
            self.say(f"{kind} probe errored and resulted in unknown state: {error}")
            return False
        if not outcome.succeeded:
            self.say(f"{kind} probe failed: {outcome.output}")
        return outcome.succeeded
