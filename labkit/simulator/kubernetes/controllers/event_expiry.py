"""Remove each event an hour of lab time after its last change, as a real server does (``--event-ttl``).

https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/
"""

import asyncio

from labkit.simulator.kubernetes.objects.kinds import EVENT
from labkit.simulator.kubernetes.objects.storage import Change, Storage, Stored, seconds

LIFE_SECONDS = 3600
LOOK_SECONDS = 1  # seconds between two looks at the lab's clock while there are events


class EventExpiry:
    def __init__(self, storage: Storage):
        self.storage = storage
        self._written: dict[tuple[str, str], float] = {}
        self._looking: asyncio.TimerHandle | None = None

    def observe(self, change: Change) -> None:
        """Record a change of the storage. Call this with every change."""
        if change.kind is not EVENT:
            return
        key = change.stored.namespace, change.stored.name
        self._written.pop(key, None)
        if change.type != "DELETED":
            now = self.storage.clock.now()
            # An event from the lab's file keeps its age.
            self._written[key] = now if change.before else min(now, _last_time(change.stored))
            self._look_later()

    def close(self) -> None:
        if self._looking:
            self._looking.cancel()

    def _look_later(self) -> None:
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = None
        over = self.storage.clock.now() - LIFE_SECONDS
        # The times aren't in order, because the lab's clock can be set back.
        for key in [key for key, written in self._written.items() if written <= over]:
            self.storage.remove(EVENT, self.storage.get(EVENT, *key))
        if self._written:
            self._look_later()


def _last_time(event: Stored) -> float:
    made, counted = event.metadata["creationTimestamp"], event.object.get("lastTimestamp")
    return max(seconds(made), seconds(counted or made))
